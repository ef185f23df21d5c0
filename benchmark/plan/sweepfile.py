"""Read a sweep file: TOML in, a checked SweepConfig out."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.core.criteria import CRITERIA
from benchmark.core.errors import Problems, UserError, shown
from benchmark.core.named_options import NamedOptions, parse_named_options
from benchmark.core.registry import did_you_mean
from benchmark.core.shipped import shipped
from benchmark.core.spec import MAX_STEPS

#: Where sweeps are looked up by name.
SWEEPS = shipped("sweeps")

BUDGET: dict[str, Any] = {"steps": 1000, "evaluate_every": 100, "patience": 0, "min_delta": 0.0}
COMPUTE: dict[str, Any] = {
    "precision": "fp32", "channels_last": False, "compile": False, "deterministic": "auto", "explanations": True,
}  # fmt: skip
#: Smallest and largest value of every number in these tables.
_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, MAX_STEPS),
    "evaluate_every": (1, MAX_STEPS),
    "patience": (0, 1_000_000),
    "min_delta": (0, 1e9),
}
_CHOICES = {"precision": ("fp32", "bf16"), "deterministic": ("auto", "true", "false")}

#: Bytes of a sweep file at most, and how deeply its tables and lists may be nested.
MOST_BYTES, DEEPEST = 1_000_000, 8
#: Entries of a list at most, the largest number of a trial or a draw, and the most characters of a title.
MOST_ENTRIES, LARGEST_NUMBER, LONGEST_TITLE = 10_000, 2**32 - 1, 300
#: TOML's integers have 64 bits.
_INTEGERS = range(-(2**63), 2**63)


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep file says, with the command line's changes.

    Args:
        name: the file's stem; the sweep's folder is called so.
        datasets, algorithms: ``name:option=value,…`` and ``name`` or ``name:variant``.
        backbone: as a data set: ``resnet18:small_stem=true``.
        trials: seeds; draws: numbers of hyper-parameter draws, 0 = the declared defaults.
        fixed: hyper-parameters for every algorithm that declares them.
        override: per algorithm, ``algorithm:variant``, data set or ``algorithm@dataset``: hyper-parameters, the tables
            ``dataset`` (options), ``budget`` and ``augmentation``, the text ``backbone`` and the list ``selection``.
        skip_impossible: leave out, with a footnote, what cannot run, instead of refusing the sweep.
        select_before_switch: let criteria choose steps at which a method is not yet what its name says.
    """

    name: str
    title: str = ""
    datasets: tuple[NamedOptions, ...] = ()
    algorithms: tuple[str, ...] = ()
    backbone: NamedOptions = field(default_factory=lambda: NamedOptions("convnet"))
    trials: tuple[int, ...] = (0,)
    draws: tuple[int, ...] = (0,)
    selection: tuple[str, ...] = ("val_accuracy", "last")
    budget: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    override: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    augmentation: Mapping[str, Any] | None = None
    compute: Mapping[str, Any] = field(default_factory=dict)
    oracle: bool = False
    skip_impossible: bool = False
    select_before_switch: bool = False

    def changed(self, **changes: Any) -> SweepConfig:
        """This sweep with the values that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def to_json(self) -> dict[str, Any]:
        """JSON of the whole configuration, for sweep.json."""
        plain = dict(vars(self))
        plain["datasets"] = [str(d) for d in self.datasets]
        plain["backbone"] = str(self.backbone)
        return plain


def find_sweep_file(name: str) -> Path:
    """The file of a sweep: a path, or the name of a file in ``sweeps/``.

    Raises:
        UserError: there is none; the sentence names those that exist.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{name} is a folder, expected a sweep file such as {name}/mine.toml.")
    inside = SWEEPS / f"{path.name.removesuffix('.toml')}.toml"
    if inside.is_file() and len(path.parts) == 1:
        return inside
    known = [p.stem for p in SWEEPS.glob("*.toml")]
    raise UserError(f"there is no sweep file {name}{did_you_mean(path.stem, known)}")


def read_sweep(path: Path) -> SweepConfig:
    """The sweep in a TOML file.

    Raises:
        UserError: it cannot be read or is not TOML.
        Problems: unknown keys and wrong types, all of them.
    """
    return config_from(read_toml(path), path.stem, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        UserError: it is not TOML, is too large or nested too deeply, or holds an integer of more than 64 bits.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES:,} bytes, which no sweep file is.")
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise UserError(
            f"{path} is nested too deeply, expected at most {DEEPEST} levels."
        ) from None
    except ValueError as error:  # bad syntax, bad UTF-8, or an integer of thousands of digits
        raise UserError(f"{path} is not TOML: {error}.") from None
    _check_sizes(values, path)
    return values


def _check_sizes(values: dict[str, Any], path: Path) -> None:
    """Raise a UserError where something in a file is larger than any part of the program expects."""
    level: list[Any] = [values]
    for depth in range(DEEPEST + 1):
        inside = [
            part
            for value in level
            for part in (value.values() if isinstance(value, dict) else value)
        ]
        large = [v for v in inside if isinstance(v, int) and v not in _INTEGERS]
        if large:
            raise UserError(f"{path} holds {shown(large[0])}, expected integers of 64 bits.")
        level = [value for value in inside if isinstance(value, dict | list)]
        if any(len(value) > MOST_ENTRIES for value in level):
            raise UserError(f"{path} holds a list of more than {MOST_ENTRIES:,} entries.")
        if level and depth == DEEPEST:
            raise UserError(f"{path} is nested too deeply, expected at most {DEEPEST} levels.")


def config_from(values: Mapping[str, Any], name: str, where: str) -> SweepConfig:
    """A SweepConfig from a table, every problem reported together.

    Args:
        where: what to call the table in messages.
    """
    problems: list[str] = []
    given: dict[str, Any] = {"name": name}
    for key, value in values.items():
        reader = _READERS.get(key)
        if reader is None:
            problems.append(f"{where}: unknown key {key!r}{did_you_mean(key, _READERS)}")
            continue
        try:
            given[key] = reader(key, value)
        except UserError as error:
            problems.extend(f"{where}: {p}" for p in getattr(error, "problems", [str(error)]))
    for key in ("datasets", "algorithms"):
        if key not in values:
            problems.append(
                f'{where}: {key} is missing, expected a list such as {key} = ["{_EXAMPLES[key]}"].'
            )
    if problems:
        raise Problems(problems)
    return SweepConfig(**given)


_EXAMPLES = {"datasets": "digits_on_photos:bias=0.95", "algorithms": "erm"}


def read_numbers(key: str, value: Any) -> tuple[int, ...]:
    """``trials``: a count n stands for 0 … n − 1, a list for itself. ``draws``: 0 stands for the defaults alone,
    a count n for the random draws 1 … n, a list for itself (0 = the defaults)."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0 or (value == 0 and key == "trials"):
            raise UserError(
                f"{key} = {shown(value)} is too small, expected {'at least 1' if key == 'trials' else '0 or more'}."
            )
        if value > MOST_ENTRIES:
            raise UserError(
                f"{key} = {shown(value)} is too large, expected at most {MOST_ENTRIES:,}."
            )
        if key == "draws":
            return tuple(range(1, value + 1)) or (0,)
        return tuple(range(value))
    if isinstance(value, list) and value and all(type(v) is int and v >= 0 for v in value):
        if len(set(value)) != len(value):
            raise UserError(f"{key} = {shown(value)} names a number twice.")
        if max(value) > LARGEST_NUMBER or len(value) > MOST_ENTRIES:
            raise UserError(
                f"{key} = {shown(value)} is too large, expected at most {MOST_ENTRIES:,} numbers from 0 to "
                f"{LARGEST_NUMBER:,}."
            )
        return tuple(value)
    raise UserError(
        f"{key} = {shown(value)} is not a count or a list of whole numbers, expected {key} = 3 or {key} = [42, 8, 777]."
    )


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
        raise UserError(
            f"{key} = {shown(value)} is not a list of texts, expected one such as "
            f'{key} = ["{_EXAMPLES.get(key, "last")}"].'
        )
    twice = [name for name, count in Counter(value).items() if count > 1]
    if twice:
        raise UserError(f"{key} names {min(twice)[:100]} twice.")
    return tuple(value)


def _datasets(key: str, value: Any) -> tuple[NamedOptions, ...]:
    return tuple(parse_named_options(text) for text in _texts(key, value))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{key} = {shown(value)} is not a text.")
    return value


def _title(key: str, value: Any) -> str:
    title = _text(key, value)
    if len(title) > LONGEST_TITLE:
        raise UserError(
            f"{key} has {len(title):,} characters, expected a line of at most {LONGEST_TITLE}."
        )
    return title


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{key} = {shown(value)} is not true or false.")
    return value


def _table(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{key} = {shown(value)} is not a table, expected [{key}] with one line per value."
        )
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # TOML's dates, inf and nan
        raise UserError(
            f"[{key}] holds a date or a number that is not finite; expected numbers and texts."
        ) from None
    return value


def _override(key: str, value: Any) -> dict[str, dict[str, Any]]:
    problems = [
        f"override.{name} = {shown(table)} is not a table, expected [override.{name}] with one line per value."
        for name, table in _table(key, value).items()
        if not isinstance(table, dict)
    ]
    for name, table in value.items():
        if isinstance(table, dict) and "selection" in table:
            try:
                read_selection(f"override.{name}.selection", table["selection"])
            except UserError as error:
                problems.extend(getattr(error, "problems", [str(error)]))
    if problems:
        raise Problems(problems)
    return value  # type: ignore[no-any-return]


def read_selection(key: str, value: Any) -> tuple[str, ...]:
    """The criteria of a list of names, or of one name.

    Args:
        key: what to call the list in messages.

    Raises:
        UserError, Problems: it is no such list, or names what is no criterion.
    """
    chosen = _texts(key, value)
    unknown = [name for name in chosen if name not in CRITERIA]
    if unknown:
        raise Problems(
            [
                f"unknown criterion {shown(name)} in {key}{did_you_mean(name, CRITERIA)}"
                for name in unknown
            ]
        )
    return chosen


def check_like(defaults: Mapping[str, Any], owner: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The given values of a table with known keys, in the types of its defaults; all problems together."""
    problems, checked = [], {}
    for name, given in value.items():
        if name not in defaults:
            problems.append(f"[{owner}] has no key {name!r}{did_you_mean(name, defaults)}")
            continue
        default = defaults[name]
        if isinstance(default, float) and type(given) is int and abs(given) < 2**63:
            given = float(given)
        if name == "deterministic" and isinstance(given, bool):
            given = str(given).lower()
        if type(given) is not type(default):
            problems.append(
                f"[{owner}] {name} = {shown(given)} is of the wrong type, expected one such as {default!r}."
            )
        elif name in _CHOICES and given not in _CHOICES[name]:
            problems.append(
                f"[{owner}] {name} = {shown(given)} is not one of {', '.join(_CHOICES[name])}."
            )
        elif name in _BOUNDS and not _BOUNDS[name][0] <= given <= _BOUNDS[name][1]:
            low, high = _BOUNDS[name]
            expected = f"{low:g} or more" if given < low else f"at most {high:,.0f}"
            problems.append(
                f"[{owner}] {name} = {shown(given)} is out of bounds, expected {expected}."
            )
        else:
            checked[name] = given
    if problems:
        raise Problems(problems)
    return checked


_READERS = {
    "title": _title,
    "datasets": _datasets,
    "algorithms": _texts,
    "backbone": lambda key, value: parse_named_options(_text(key, value)),
    "trials": read_numbers,
    "draws": read_numbers,
    "selection": read_selection,
    "budget": lambda key, value: check_like(BUDGET, key, _table(key, value)),
    "compute": lambda key, value: check_like(COMPUTE, key, _table(key, value)),
    "fixed": _table,
    "override": _override,
    "augmentation": _table,
    "oracle": _flag,
    "skip_impossible": _flag,
    "select_before_switch": _flag,
}
