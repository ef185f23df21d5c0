"""Read a sweep file: TOML in, a checked SweepConfig out."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.core.criteria import CRITERIA
from benchmark.core.errors import Problems, UserError
from benchmark.core.registry import did_you_mean

#: Where sweeps are looked up by name.
SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"

BUDGET: dict[str, Any] = {"steps": 1000, "evaluate_every": 100, "patience": 0, "min_delta": 0.0}
COMPUTE: dict[str, Any] = {
    "precision": "fp32", "channels_last": False, "compile": False, "deterministic": "auto", "explanations": True,
}  # fmt: skip
_LEAST = {"steps": 1, "evaluate_every": 1}
_CHOICES = {"precision": ("fp32", "bf16"), "deterministic": ("auto", "true", "false")}


@dataclass(frozen=True)
class Named:
    """A name with options, as sweep files write it: ``digits_on_photos:bias=0.95,places=2``."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name + (
            ":" + ",".join(f"{k}={v}" for k, v in self.options.items()) if self.options else ""
        )


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep file says, with the command line's changes.

    Args:
        name: the file's stem; the sweep's folder is called so.
        datasets, algorithms: ``name:option=value,…`` and ``name`` or ``name:variant``.
        backbone: as a data set: ``resnet18:small_stem=true``.
        trials: seeds; draws: numbers of hyper-parameter draws, 0 = the declared defaults.
        fixed: hyper-parameters for every algorithm that declares them.
        override: per algorithm, ``algorithm:variant``, data set or ``algorithm@dataset``: hyper-parameters, and the
            tables ``dataset`` (options), ``budget``, ``augmentation`` and the text ``backbone``.
        skip_impossible: leave out, with a footnote, what cannot run, instead of refusing the sweep.
    """

    name: str
    title: str = ""
    datasets: tuple[Named, ...] = ()
    algorithms: tuple[str, ...] = ()
    backbone: Named = Named("convnet")
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

    def changed(self, **changes: Any) -> SweepConfig:
        """This sweep with the values that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def to_json(self) -> dict[str, Any]:
        """JSON of the whole configuration, for sweep.json."""
        plain = dict(vars(self))
        plain["datasets"] = [str(d) for d in self.datasets]
        plain["backbone"] = str(self.backbone)
        return plain


def find_sweep(name: str) -> Path:
    """The file of a sweep: a path, or the name of a file in ``sweeps/``.

    Raises:
        UserError: there is none; the sentence names those that exist.
    """
    path = Path(name)
    if path.is_file():
        return path
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
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}.") from None
    return config_from(values, path.stem, str(path))


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


def parse_named(text: str) -> Named:
    """``name:option=value,…`` taken apart.

    Raises:
        UserError: it is not of that form.
    """
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in rest.split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if not equals or not key or not value:
            raise UserError(
                f"{text!r} has the option {part!r}, expected name:option=value such as digits_on_photos:bias=0.95."
            )
        if key in options:
            raise UserError(f"{text!r} gives the option {key!r} twice.")
        options[key] = value
    if not name.strip():
        raise UserError(
            f"{text!r} has no name, expected name:option=value such as digits_on_photos:bias=0.95."
        )
    return Named(name.strip(), options)


def numbers(key: str, value: Any) -> tuple[int, ...]:
    """``trials``: a count n stands for 0 … n − 1, a list for itself. ``draws``: 0 stands for the defaults alone,
    a count n for the random draws 1 … n, a list for itself (0 = the defaults)."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0 or (value == 0 and key == "trials"):
            raise UserError(
                f"{key} = {value} is too small, expected {'at least 1' if key == 'trials' else '0 or more'}."
            )
        if key == "draws":
            return tuple(range(1, value + 1)) or (0,)
        return tuple(range(value))
    if isinstance(value, list) and value and all(type(v) is int and v >= 0 for v in value):
        if len(set(value)) != len(value):
            raise UserError(f"{key} = {value} names a number twice.")
        return tuple(value)
    raise UserError(
        f"{key} = {value!r} is not a count or a list of whole numbers, expected {key} = 3 or {key} = [42, 8, 777]."
    )


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
        raise UserError(
            f'{key} = {value!r} is not a list of texts, expected one such as {key} = ["{_EXAMPLES.get(key, "last")}"].'
        )
    twice = sorted({v for v in value if value.count(v) > 1})
    if twice:
        raise UserError(f"{key} names {', '.join(twice)} twice.")
    return tuple(value)


def _datasets(key: str, value: Any) -> tuple[Named, ...]:
    return tuple(parse_named(text) for text in _texts(key, value))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{key} = {value!r} is not a text.")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{key} = {value!r} is not true or false.")
    return value


def _table(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{key} = {value!r} is not a table, expected [{key}] with one line per value."
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
        f"override.{name} = {table!r} is not a table, expected [override.{name}] with one line per value."
        for name, table in _table(key, value).items()
        if not isinstance(table, dict)
    ]
    if problems:
        raise Problems(problems)
    return value  # type: ignore[no-any-return]


def _selection(key: str, value: Any) -> tuple[str, ...]:
    chosen = _texts(key, value)
    unknown = [name for name in chosen if name not in CRITERIA]
    if unknown:
        raise Problems(
            [
                f"unknown criterion {name!r} in {key}{did_you_mean(name, CRITERIA)}"
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
        if isinstance(default, float) and type(given) is int:
            given = float(given)
        if name == "deterministic" and isinstance(given, bool):
            given = str(given).lower()
        if type(given) is not type(default):
            problems.append(
                f"[{owner}] {name} = {given!r} is of the wrong type, expected one such as {default!r}."
            )
        elif name in _CHOICES and given not in _CHOICES[name]:
            problems.append(
                f"[{owner}] {name} = {given!r} is not one of {', '.join(_CHOICES[name])}."
            )
        elif isinstance(given, int | float) and not _LEAST.get(name, 0) <= given < math.inf:
            problems.append(
                f"[{owner}] {name} = {given} is out of bounds, expected {_LEAST.get(name, 0)} or more."
            )
        else:
            checked[name] = given
    if problems:
        raise Problems(problems)
    return checked


_READERS = {
    "title": _text,
    "datasets": _datasets,
    "algorithms": _texts,
    "backbone": lambda key, value: parse_named(_text(key, value)),
    "trials": numbers,
    "draws": numbers,
    "selection": _selection,
    "budget": lambda key, value: check_like(BUDGET, key, _table(key, value)),
    "compute": lambda key, value: check_like(COMPUTE, key, _table(key, value)),
    "fixed": _table,
    "override": _override,
    "augmentation": _table,
    "oracle": _flag,
    "skip_impossible": _flag,
}


def parse_all(texts: Sequence[str] | None) -> tuple[Named, ...] | None:
    """Data sets given on a command line, or None where none were."""
    return tuple(parse_named(text) for text in texts) if texts else None
