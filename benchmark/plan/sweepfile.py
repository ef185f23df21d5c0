"""Sweep files: read TOML and return a checked SweepConfig."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmark.core.criteria import CRITERIA
from benchmark.core.errors import Problems, UserError, shown
from benchmark.core.named_options import NamedOptions, parse_backbone, parse_named_options
from benchmark.core.registry import did_you_mean
from benchmark.core.shipped import shipped
from benchmark.core.spec import CURVES, LABEL, MAX_STEPS, PREDICTION, ComputeOptions

#: Folder in which sweeps are looked up by name.
SWEEPS = shipped("sweeps")

#: Defaults of the [budget] table.
BUDGET: dict[str, Any] = {"steps": 1000, "evaluate_every": 100, "patience": 0, "min_delta": 0.0}
#: Defaults of the [compute] table.
COMPUTE: dict[str, Any] = asdict(ComputeOptions())
#: Smallest and largest value of every number in these tables.
_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, MAX_STEPS),
    "evaluate_every": (1, MAX_STEPS),
    "patience": (0, 1_000_000),
    "min_delta": (0, 1e9),
}
#: Allowed values of the texts in these tables.
_CHOICES = {"precision": ("fp32", "bf16"), "deterministic": ("auto", "true", "false")}
#: Value of switches that the run decides, and their names.
AUTO = "auto"
_MAY_BE_AUTO = ("channels_last",)

#: Value of ``draws`` for a grid search.
GRID = "grid"

#: Largest size of a sweep file in bytes.
MAX_BYTES = 1_000_000
#: Largest depth of nested tables and lists.
MAX_DEPTH = 8
#: Largest number of entries of a list.
MAX_ENTRIES = 10_000
#: Largest number of a trial or a draw.
MAX_NUMBER = 2**32 - 1
#: Largest number of characters of a title.
MAX_TITLE_LENGTH = 300
#: Integers of TOML, which have 64 bits.
_INTEGERS = range(-(2**63), 2**63)

#: Largest number of explained images of a split.
MAX_EXPLAINED_IMAGES = 1_000_000
#: Metrics of [explanations] without a line of their own.
EXPLANATION_METRIC_NAMES = (
    "mass",
    "rank",
    "complexity",
    "sparseness",
    "faithfulness",
    "seconds",
)

_EXAMPLES = {
    "datasets": "digits_on_photos:bias=0.95",
    "algorithms": "erm",
    "explainers": "lrp",
    "metrics": "mass",
    "splits": "unbiased",
    "curves": "auc",
}


@dataclass(frozen=True)
class ExplanationsTable:
    """The [explanations] table: measurements of every trained model of a sweep.

    Args:
        explainers: Explainers with options, as in ``rise:masks=1000``, and methods that train one,
            as in ``nemt:keep``.
        metrics: Names of the metrics of explanations.
        images: Largest number of explained images of each split.
        splits: Splits that are explained; empty for all test splits.
        target: The explained class, ``prediction`` or ``label``.
    """

    explainers: tuple[str, ...]
    metrics: tuple[str, ...] = EXPLANATION_METRIC_NAMES
    images: int = 512
    splits: tuple[str, ...] = ()
    target: str = PREDICTION


@dataclass(frozen=True)
class SweepConfig:
    """The content of a sweep file, with the changes of the command line.

    Args:
        name: Stem of the file, and name of the folder of the sweep.
        title: Title for tables.
        datasets: Data sets with options, as in ``name:option=value,…``.
        algorithms: Methods: ``name`` or ``name:variant``.
        backbone: Backbone with options, such as ``resnet18:small_stem=true``.
        trials: Numbers of the trials, which are seeds.
        draws: Numbers of the hyper-parameter draws; 0 stands for the declared defaults.
        grid: True if the draws of each method are the points of its grid, instead of ``draws``.
        selection: Criteria; tables use the first one.
        budget: The [budget] table.
        fixed: Hyper-parameters for every algorithm that declares them.
        override: Changes for an algorithm, ``algorithm:variant``, data set or
            ``algorithm@dataset``, by name: hyper-parameters, the tables ``dataset`` (options),
            ``budget`` and ``augmentation``, the text ``backbone`` and the list ``selection``.
        augmentation: Augmentations of training images; None for those of the data set.
        compute: The [compute] table.
        oracle: True to evaluate test splits during training.
        evaluate_train: True to evaluate training images at the selected steps.
        skip_impossible: True to leave out runs that cannot run, with a footnote, instead of
            refusing the sweep.
        select_before_switch: True to let criteria select steps at which a model is not yet a model
            of its method (see ``Algorithm.active_from``).
        explanations: Measurements of the explanations of every requested model; None for none.
        curves: Names in ``CURVES`` of what is measured at each evaluation during training.
        titles: Titles of methods, data sets, explainers and groups in tables, by their names.
    """

    name: str
    title: str = ""
    datasets: tuple[NamedOptions, ...] = ()
    algorithms: tuple[str, ...] = ()
    backbone: NamedOptions = field(default_factory=lambda: NamedOptions("convnet"))
    trials: tuple[int, ...] = (0,)
    draws: tuple[int, ...] = (0,)
    grid: bool = False
    selection: tuple[str, ...] = ("val_accuracy", "last")
    budget: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    override: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    augmentation: Mapping[str, Any] | None = None
    compute: Mapping[str, Any] = field(default_factory=dict)
    oracle: bool = False
    skip_impossible: bool = False
    select_before_switch: bool = False
    explanations: ExplanationsTable | None = None
    curves: tuple[str, ...] = ()
    evaluate_train: bool = False
    titles: Mapping[str, str] = field(default_factory=dict)

    def changed(self, **changes: Any) -> SweepConfig:
        """Return a copy with the given values, except those that are None."""
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **given)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as JSON, for sweep.json."""
        content = dict(vars(self))
        content["datasets"] = list(map(str, self.datasets))
        content["backbone"] = str(self.backbone)
        if content.pop("grid"):
            content["draws"] = GRID
        if not self.evaluate_train:
            del content["evaluate_train"]
        for name in ("curves", "titles"):
            if not content[name]:
                del content[name]
        if self.explanations is None:
            del content["explanations"]
        else:
            content["explanations"] = asdict(self.explanations)
        return content


def find_sweep_file(name: str) -> Path:
    """Return the path of a sweep file, given as a path or as a name in ``sweeps/``.

    Raises:
        UserError: If there is none. The message contains similar names.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{name} is a folder, expected a sweep file such as {name}/mine.toml.")
    shipped_file = SWEEPS / f"{path.name.removesuffix('.toml')}.toml"
    if shipped_file.is_file() and len(path.parts) == 1:
        return shipped_file
    known = [p.stem for p in SWEEPS.glob("*.toml")]
    raise UserError(f"there is no sweep file {name}{did_you_mean(path.stem, known)}")


def read_sweep(path: Path) -> SweepConfig:
    """Read a sweep from a TOML file.

    Raises:
        UserError: If the file is not TOML, or is too large.
        Problems: If it has unknown keys or values of the wrong type; all of them are listed.
    """
    return config_from(read_toml(path), path.stem, str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: If the file is not TOML, is too large or nested too deeply, or contains an
            integer of more than 64 bits.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes; it is not a sweep file.")
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise UserError(
            f"{path} is nested too deeply, expected at most {MAX_DEPTH} levels."
        ) from None
    except ValueError as error:  # Syntax, invalid UTF-8, or an integer of thousands of digits.
        raise UserError(f"{path} is not TOML: {error}.") from None
    _check_sizes(values, path)
    return values


def _check_sizes(values: dict[str, Any], path: Path) -> None:
    """Raise a UserError if a list, the nesting or an integer in a file is too large."""
    level: list[Any] = [values]
    for depth in range(MAX_DEPTH + 1):
        content: list[Any] = []
        for container in level:
            content.extend(container.values() if isinstance(container, dict) else container)
        for value in content:
            if isinstance(value, int) and value not in _INTEGERS:
                raise UserError(f"{path} contains {shown(value)}, expected integers of 64 bits.")
        level = [value for value in content if isinstance(value, dict | list)]
        if any(len(container) > MAX_ENTRIES for container in level):
            raise UserError(f"{path} contains a list of more than {MAX_ENTRIES:,} entries.")
        if level and depth == MAX_DEPTH:
            raise UserError(f"{path} is nested too deeply, expected at most {MAX_DEPTH} levels.")


def config_from(values: Mapping[str, Any], name: str, where: str) -> SweepConfig:
    """Return the SweepConfig that a table describes.

    Args:
        values: The table.
        name: Name of the sweep.
        where: What the table is called in messages.

    Raises:
        Problems: If the table has mistakes; all of them are listed.
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
    return SweepConfig(**given, grid=values.get("draws") == GRID)


def _draws(key: str, value: Any) -> tuple[int, ...]:
    return (0,) if value == GRID else read_numbers(key, value)


def read_numbers(key: str, value: Any) -> tuple[int, ...]:
    """Return the numbers of trials or draws.

    Args:
        key: ``trials`` or ``draws``.
        value: A list of numbers, or a count n. For trials, n stands for 0 … n − 1. For draws, 0
            stands for the defaults alone, and n for the random draws 1 … n.

    Raises:
        UserError: If the value is neither, or is too small or too large.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0 or (value == 0 and key == "trials"):
            raise UserError(
                f"{key} = {shown(value)} is too small, "
                f"expected {'at least 1' if key == 'trials' else '0 or more'}."
            )
        if value > MAX_ENTRIES:
            raise UserError(
                f"{key} = {shown(value)} is too large, expected at most {MAX_ENTRIES:,}."
            )
        if key == "draws":
            return tuple(range(1, value + 1)) or (0,)
        return tuple(range(value))
    if isinstance(value, list) and value and all(type(v) is int and v >= 0 for v in value):
        if len(set(value)) != len(value):
            raise UserError(f"{key} = {shown(value)} contains a number twice.")
        if max(value) > MAX_NUMBER or len(value) > MAX_ENTRIES:
            raise UserError(
                f"{key} = {shown(value)} is too large, expected at most {MAX_ENTRIES:,} numbers "
                f"from 0 to {MAX_NUMBER:,}."
            )
        return tuple(value)
    raise UserError(
        f"{key} = {shown(value)} is not a count or a list of whole numbers, "
        f"expected {key} = 3 or {key} = [42, 8, 777]"
        + (f' or {key} = "{GRID}".' if key == "draws" else ".")
    )


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
        raise UserError(
            f"{key} = {shown(value)} is not a list of texts, expected one such as "
            f'{key} = ["{_EXAMPLES.get(key, "last")}"].'
        )
    repeated = [name for name, count in Counter(value).items() if count > 1]
    if repeated:
        raise UserError(f"{key} contains {min(repeated)[:100]} twice.")
    return tuple(value)


def _datasets(key: str, value: Any) -> tuple[NamedOptions, ...]:
    return tuple(parse_named_options(text) for text in _texts(key, value))


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{key} = {shown(value)} is not a text.")
    return value


def _title(key: str, value: Any) -> str:
    title = _text(key, value)
    if len(title) > MAX_TITLE_LENGTH:
        raise UserError(
            f"{key} has {len(title):,} characters, expected a line of at most {MAX_TITLE_LENGTH}."
        )
    return title


def _titles(key: str, value: Any) -> dict[str, str]:
    problems = []
    for name, title in _table(key, value).items():
        try:
            if not _title(f"[{key}] {name}", title).strip():
                problems.append(f"[{key}] {name} is empty, expected a title.")
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise Problems(problems)
    return value  # type: ignore[no-any-return]


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
    except (TypeError, ValueError):  # Dates, inf and nan, which JSON lacks.
        raise UserError(
            f"[{key}] contains a date or a number that is not finite; expected numbers and texts."
        ) from None
    return value


def _override(key: str, value: Any) -> dict[str, dict[str, Any]]:
    problems = [
        f"override.{name} = {shown(table)} is not a table, "
        f"expected [override.{name}] with one line per value."
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
    """Return the criteria of a list of names, or of one name.

    Args:
        key: What the list is called in messages.
        value: The list or the name.

    Raises:
        UserError: If the value is not a list of texts.
        Problems: If a criterion does not exist.
    """
    criteria = _texts(key, value)
    unknown = [name for name in criteria if name not in CRITERIA]
    if unknown:
        raise Problems(
            [
                f"unknown criterion {shown(name)} in {key}{did_you_mean(name, CRITERIA)}"
                for name in unknown
            ]
        )
    return criteria


def _curves(key: str, value: Any) -> tuple[str, ...]:
    names = _texts(key, value) if value != [] else ()
    unknown = [name for name in names if name not in CURVES]
    if unknown:
        raise Problems(
            [f"{key} has no {shown(name)}{did_you_mean(name, CURVES)}" for name in unknown]
        )
    return names


def _explanations(key: str, value: Any) -> ExplanationsTable:
    table = _table(key, value)
    known = [f.name for f in fields(ExplanationsTable)]
    problems = [
        f"[{key}] has no key {name!r}{did_you_mean(name, known)}"
        for name in table
        if name not in known
    ]
    given: dict[str, Any] = {}
    for name in ("explainers", "metrics", "splits"):
        if name in table:
            try:
                given[name] = _texts(name, table[name])
            except UserError as error:
                problems.append(f"[{key}] {error}")
    if "explainers" not in table:
        problems.append(
            f'[{key}] explainers is missing, expected a list such as explainers = ["lrp"].'
        )
    if "target" in table:
        given["target"] = table["target"]
        if table["target"] not in (PREDICTION, LABEL):
            problems.append(
                f"[{key}] target = {shown(table['target'])} is not one of {PREDICTION}, {LABEL}."
            )
    if "images" in table:
        images = table["images"]
        if type(images) is int and 1 <= images <= MAX_EXPLAINED_IMAGES:
            given["images"] = images
        else:
            problems.append(
                f"[{key}] images = {shown(images)} is not a whole number from 1 to "
                f"{MAX_EXPLAINED_IMAGES:,}."
            )
    if problems:
        raise Problems(problems)
    return ExplanationsTable(**given)


def check_table(
    defaults: Mapping[str, Any], owner: str, value: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of a table in the types of its defaults.

    Args:
        defaults: The known keys and their defaults.
        owner: Name of the table, for messages.
        value: The given values.

    Raises:
        Problems: If keys are unknown, or values have the wrong type or are out of bounds.
    """
    problems: list[str] = []
    checked: dict[str, Any] = {}
    for name, given in value.items():
        if name not in defaults:
            problems.append(f"[{owner}] has no key {name!r}{did_you_mean(name, defaults)}")
            continue
        default = defaults[name]
        if isinstance(default, float) and type(given) is int and abs(given) < 2**63:
            given = float(given)
        if name == "deterministic" and isinstance(given, bool):
            given = str(given).lower()
        if given == AUTO and name in _MAY_BE_AUTO:
            checked[name] = given
        elif type(given) is not type(default):
            problems.append(
                f"[{owner}] {name} = {shown(given)} is of the wrong type, "
                f"expected one such as {default!r}{f' or {AUTO!r}' * (name in _MAY_BE_AUTO)}."
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
    "backbone": lambda key, value: parse_backbone(_text(key, value)),
    "trials": read_numbers,
    "draws": _draws,
    "selection": read_selection,
    "budget": lambda key, value: check_table(BUDGET, key, _table(key, value)),
    "compute": lambda key, value: check_table(COMPUTE, key, _table(key, value)),
    "fixed": _table,
    "override": _override,
    "augmentation": _table,
    "oracle": _flag,
    "evaluate_train": _flag,
    "skip_impossible": _flag,
    "select_before_switch": _flag,
    "explanations": _explanations,
    "curves": _curves,
    "titles": _titles,
}
