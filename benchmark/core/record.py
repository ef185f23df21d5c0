"""The result of a run, or why there is none: record.json and failure.json."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np

from benchmark.core.conditions import Conditions
from benchmark.core.criteria import CRITERIA
from benchmark.core.decode import (
    Between,
    Count,
    Json,
    Key,
    Matching,
    Name,
    Positive,
    Seconds,
    Text,
    Time,
    decode,
)
from benchmark.core.errors import DamagedError, shown
from benchmark.core.files import read_json
from benchmark.core.layout import RunFolder
from benchmark.core.spec import SCHEMA, RunSpec, check_fields, check_schema
from benchmark.core.text import one_line

#: Images that a cell of a confusion matrix may count; sums of such numbers stay exact.
MOST_IMAGES = 10**12
#: Characters that are kept of a message or traceback.
_MESSAGE = 100_000

Names: TypeAlias = tuple[Name, ...]
Share: TypeAlias = Annotated[float | None, Between(0.0, 1.0 + 1e-6)]
Correlation: TypeAlias = Annotated[float | None, Between(-1.0 - 1e-6, 1.0 + 1e-6)]
Sha256: TypeAlias = Annotated[str, Matching("[0-9a-f]{64}", "a sha256")]


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The data of a run.

    Attributes:
        label_names: of the classes.
        confounder_names: empty where they are not known.
        environment_names: empty where they are not known.
        group_names: in the order of ``DatasetInfo.group_names``.
        splits: images per split, in table order.
        bias_splits: the biased and the deceiving split, or None.
        paired: whether those two show the same objects.
        multi_label: whether an image may have several labels or none.
        stand_in: whether the data were generated in place of real ones.
        source: where the data come from.
        licence: the terms of their use.
    """

    label_names: Names
    confounder_names: Names = ()
    environment_names: Names = ()
    group_names: Names = ()
    splits: Mapping[str, Count]
    bias_splits: tuple[Name, Name] | None = None
    paired: bool = False
    multi_label: bool = False
    stand_in: bool = False
    source: Text = ""
    licence: Text = ""

    @property
    def test_splits(self) -> list[str]:
        """Names of the test splits, in table order."""
        return [name for name in self.splits if name not in ("train", "val")]

    @property
    def main_split(self) -> str | None:
        """The test split of average and worst-group accuracy; None without test splits.

        It is ``unbiased``, else ``test``, else the first other one. A split that only shows the
        bias comes last: the deceiving one of ``bias_splits``, then the biased one.
        """
        names = self.test_splits
        biased, deceiving = self.bias_splits or (None, None)
        neutral = [name for name in names if name not in (biased, deceiving)]
        preferred = ["unbiased", "test", *neutral, deceiving, biased]
        return next((name for name in preferred if name in names), None)


#: Where no record tells.
UNKNOWN_DATA = DataSummary(label_names=(), splits={})


@dataclass(frozen=True)
class MethodSummary:
    """The method of a run.

    Attributes:
        needs: names of the annotations that it used.
        sampling: how batches were drawn.
        paper: its source, or None.
        active_from: the first step that trains what the method is called (see ``Algorithm.active_from``); None in
            records that do not tell.
    """

    needs: tuple[Name, ...]
    sampling: Name
    paper: Text | None = None
    active_from: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds that parts of a run took, over all attempts that counted.

    Attributes:
        training, evaluation, total: of every run.
        explanations, embeddings: None where none were made.
    """

    training: Seconds
    evaluation: Seconds
    explanations: Seconds | None = None
    embeddings: Seconds | None = None
    total: Seconds

    def to_json(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class MachineSummary(Conditions):
    """The machine and the software of a run.

    Attributes:
        host: name of the machine.
        resumed: what had changed when the run was resumed, such as ``torch 2.10.0 after 2.9.1``.
    """

    host: Name = ""
    resumed: tuple[Text, ...] = ()


@dataclass(frozen=True)
class ExplainedSplit:
    """Where the network looks on one split: means over the images for which they are defined, or None.

    Attributes:
        images: how many were explained.
        zero_maps, nonfinite_maps, empty_masks: images that do not count.
        energy: share of absolute relevance in the foreground.
        correlation: Pearson's, of absolute relevance and mask.
        area: share of the image that is foreground.
        distance: from the teacher's heatmap; None for other methods.
        metrics: the explanation metrics of installed packages, by name.
    """

    images: Count = 0
    zero_maps: Count = 0
    nonfinite_maps: Count = 0
    empty_masks: Count = 0
    energy: Share = None
    correlation: Correlation = None
    area: Share = None
    distance: Annotated[float | None, Between(0.0, 1e30)] = None
    metrics: Mapping[str, Annotated[float | None, Between(-1e30, 1e30)]] = field(
        default_factory=dict
    )

    def value(self, name: str) -> float | None:
        """Return the mean of a metric, or None if it was not recorded or never defined."""
        recorded: float | None = getattr(self, name, None)
        return self.metrics.get(name, recorded)

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        if not self.metrics:
            del content["metrics"]
        return content


@dataclass(frozen=True)
class ExplanationSummary:
    """Where the network of a run looks.

    Attributes:
        explainer: its name; None where there is no explanation, and ``note`` says why.
        splits: by name of the test split.
        note: why there is no explanation, or empty.
    """

    explainer: Name | None
    splits: Mapping[str, ExplainedSplit]
    note: Text = ""

    def to_json(self) -> dict[str, Any]:
        splits = {name: split.to_json() for name, split in self.splits.items()}
        if all(split.distance is None for split in self.splits.values()):
            for split in splits.values():  # only students have one
                del split["distance"]
        found = {"explainer": self.explainer, "splits": splits}
        return {**found, "note": self.note} if self.note else found


@dataclass(frozen=True)
class EmbeddedSplit:
    """How labels and confounders cluster among the features of one split: silhouettes, or None.

    Attributes:
        images: how many.
        label, confounder: silhouettes from −1 to 1.
    """

    images: Count = 0
    label: Correlation = None
    confounder: Correlation = None


@dataclass(frozen=True)
class EmbeddingSummary:
    """How the network of a run arranges test images.

    Attributes:
        dimensions: of the features; None where there are none, and ``note`` says why.
        splits: by name of the test split.
        note: why there are none, or empty.
    """

    dimensions: Count | None
    splits: Mapping[str, EmbeddedSplit]
    note: Text = ""

    def to_json(self) -> dict[str, Any]:
        splits = {name: asdict(split) for name, split in self.splits.items()}
        found = {"dimensions": self.dimensions, "splits": splits}
        return {**found, "note": self.note} if self.note else found


@dataclass(frozen=True, eq=False)
class SelectedStep:
    """The step that one criterion chose.

    Attributes:
        step: its number.
        value: of the criterion; the higher the better. None where it is no number.
        counts: confusion counts by split, int[confounder, label, predicted], or with several labels per image
            int[label, confounder, present, predicted].
    """

    step: int
    value: float | None
    counts: Mapping[str, np.ndarray]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SelectedStep) and self.to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        splits = {name: {"counts": counts.tolist()} for name, counts in self.counts.items()}
        return {"step": self.step, "value": self.value, "splits": splits}


@dataclass(frozen=True)
class UpstreamSummary:
    """A run that came first.

    Attributes:
        key: of the run.
        method: its name.
        selected: its own selected steps, by criterion; empty where they were not read.
    """

    key: Key
    method: Name
    selected: Mapping[str, SelectedStep] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        selected = {name: step.to_json() for name, step in self.selected.items()}
        return {"key": self.key, "method": self.method, "selected": selected}


@dataclass(frozen=True)
class RunRecord:
    """The result of one run; ``docs/log_schema.md`` describes every field.

    Attributes:
        key: of the run.
        spec: of the run.
        attempt: which try it was, from 1.
        selected: the step that each criterion chose.
        data: names and sizes.
        method: needs, sampling and paper.
        seconds: what parts of the run took.
        steps: steps made.
        stopped_early: whether patience ended the run.
        images_per_second: of training.
        peak_memory_bytes: of training; 0 is unknown, as on Windows.
        parameters: of the model that predicts.
        machine: where the run was made.
        started: seconds since 1970.
        finished: seconds since 1970.
        upstream: the runs that came first, by role.
        explanations: where the network looks; None where that was not asked for or there are no masks.
        embeddings: how the network arranges test images; None where that was not asked for.
        extra: what the algorithm itself wants on record, by name.
        checksums: sha256 of the files beside the record, by name; empty in records of earlier versions.
        schema: version of the layout.
    """

    key: Key
    spec: RunSpec
    attempt: Positive
    selected: Mapping[str, SelectedStep]
    data: DataSummary
    method: MethodSummary
    seconds: Timing
    steps: Count
    stopped_early: bool
    images_per_second: Annotated[float, Between(0.0, 1e12)]
    peak_memory_bytes: Count
    parameters: Count
    machine: MachineSummary
    started: Time
    finished: Time
    upstream: Mapping[str, UpstreamSummary] = field(default_factory=dict)
    explanations: ExplanationSummary | None = None
    embeddings: EmbeddingSummary | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
    checksums: Mapping[str, Sha256] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """The content of record.json."""
        tables = {
            "explanations": self.explanations.to_json() if self.explanations else None,
            "embeddings": self.embeddings.to_json() if self.embeddings else None,
        }
        value = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in tables}
        return {
            **value,
            "spec": self.spec.to_json(),
            "selected": {name: step.to_json() for name, step in self.selected.items()},
            "data": asdict(self.data),
            "method": asdict(self.method),
            "seconds": self.seconds.to_json(),
            "machine": asdict(self.machine),
            "upstream": {role: first.to_json() for role, first in self.upstream.items()},
            "extra": {**self.extra, **{name: table for name, table in tables.items() if table}},
            "checksums": dict(self.checksums),
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "record.json") -> RunRecord:
        """The record of a run from parsed JSON.

        Args:
            value: the content of record.json.
            where: the file, for messages.

        Raises:
            UserError: it is of another schema version.
            DamagedError: a field is missing, unknown, of the wrong type or out of bounds, or the key is not that of
                the spec.
        """
        check_schema(value, where)
        names = {f.name for f in fields(cls)} - {"explanations", "embeddings"}
        check_fields(value, names - {"checksums"}, where, optional={"checksums"})
        spec = RunSpec.from_json(value["spec"], f"spec in {where}")
        if value["key"] != spec.key:
            raise DamagedError(
                f"{where} is damaged: its key is not that of its spec, {spec.key}; it was edited."
            )
        plain = decode(_Plain, {**value, **_tables(value["extra"])}, where)
        _check_names(plain.data, where)
        upstream = _upstream(value["upstream"], plain.data, where)
        if {role: first.key for role, first in upstream.items()} != spec.upstream:
            raise DamagedError(f"{where} is damaged: its upstream runs are not those of its spec.")
        selected = _selected(value["selected"], plain.data, where, "selected")
        for criterion, chosen in selected.items():
            _check_choice(criterion, chosen, plain.steps, where)
        return cls(
            spec=spec,
            selected=selected,
            upstream=upstream,
            schema=SCHEMA,
            **{f.name: getattr(plain, f.name) for f in fields(plain)},
        )


@dataclass(frozen=True)
class _Plain:
    """The fields of a record that need nothing but their own type to be checked."""

    key: Key
    attempt: Positive
    data: DataSummary
    method: MethodSummary
    seconds: Timing
    steps: Count
    stopped_early: bool
    images_per_second: Annotated[float, Between(0.0, 1e12)]
    peak_memory_bytes: Count
    parameters: Count
    machine: MachineSummary
    started: Time
    finished: Time
    extra: Mapping[str, Json]
    explanations: ExplanationSummary | None = None
    embeddings: EmbeddingSummary | None = None
    checksums: Mapping[str, Sha256] = field(default_factory=dict)


def _tables(extra: Any) -> dict[str, Any]:
    """What stands in ``extra`` beside the method's own: explanations and embeddings have fields of their own."""
    if not isinstance(extra, dict):
        return {"extra": extra}
    own = {name: item for name, item in extra.items() if name not in _SHOWN}
    return {"extra": own, **{name: extra[name] for name in _SHOWN if name in extra}}


_SHOWN = ("explanations", "embeddings")


def _check_names(data: DataSummary, where: str) -> None:
    """Names that must fit each other, since tables take one for the other by position."""
    groups = len(data.label_names) * len(data.confounder_names) * (2 if data.multi_label else 1)
    if not data.label_names:
        raise DamagedError(f"{where} is damaged: data.label_names is empty.")
    if data.group_names and len(data.group_names) != groups:
        raise DamagedError(
            f"{where} is damaged: data.group_names has {len(data.group_names)} names, expected {groups}."
        )
    if not set(data.bias_splits or ()) <= data.splits.keys():
        raise DamagedError(f"{where} is damaged: data.bias_splits names no split.")


def _check_choice(criterion: str, chosen: SelectedStep, steps: int, where: str) -> None:
    """A step that was made, by a value that the criterion can have."""
    rule = CRITERIA.get(criterion)
    share = rule is not None and rule.is_quality and not rule.uses_objective
    if chosen.step > steps:
        raise DamagedError(
            f"{where} is damaged: selected.{criterion}.step is {chosen.step}, but {steps} were made."
        )
    if share and chosen.value is not None and not 0.0 <= chosen.value <= 1.0:
        raise DamagedError(
            f"{where} is damaged: selected.{criterion}.value is {shown(chosen.value)}, expected 0 to 1."
        )


def _upstream(value: Any, data: DataSummary, where: str) -> dict[str, UpstreamSummary]:
    """The runs that came first; they have the same labels, though other confounders may be known of their data."""
    first = decode(Mapping[str, _UpstreamRun], value, where, "upstream")  # type: ignore[type-abstract]
    steps = {
        role: _selected(
            run.get("selected", {}), data, where, f"upstream.{role}.selected", own=False
        )
        for role, run in value.items()
    }
    return {role: UpstreamSummary(run.key, run.method, steps[role]) for role, run in first.items()}


@dataclass(frozen=True)
class _UpstreamRun:
    key: Key
    method: Name


@dataclass(frozen=True)
class _Step:
    step: Count
    value: float | None


def _selected(
    value: Any, data: DataSummary, where: str, place: str, own: bool = True
) -> dict[str, SelectedStep]:
    """Selected steps by criterion.

    Args:
        value: parsed JSON.
        data: of the run that the record is of.
        where: the file, for messages.
        place: where in the file.
        own: whether the steps are of that run, so that its splits and confounders are expected.
    """
    found = {}
    for criterion, entry in _entries(value, where, place):
        at = f"{place}.{criterion}"
        plain = decode(_Step, _without_nan(entry), where, at)
        counts = {}
        for split, content in _entries(entry.get("splits"), where, f"{at}.splits"):
            if own and split not in data.splits:
                raise DamagedError(f"{where} is damaged: {one_line(at)} has an unknown split.")
            counts[split] = parse_counts(
                content.get("counts"), data, where, f"{at}.splits.{split}", own=own
            )
        found[criterion] = SelectedStep(plain.step, plain.value, counts)
    return found


def _entries(value: Any, where: str, place: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """The entries of a table of tables."""
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise DamagedError(f"{where} is damaged: {one_line(place)[:200]} is no table of tables.")
    return value.items()


def _without_nan(entry: dict[str, Any]) -> dict[str, Any]:
    """A criterion whose value is no number has none: its step stands, but never wins against another."""
    value = entry.get("value")
    missing = isinstance(value, float) and not math.isfinite(value)
    return {**entry, "value": None} if missing else entry


def parse_counts(
    nested: Any, data: DataSummary, where: str, place: str, own: bool = True
) -> np.ndarray:
    """Confusion counts as the smallest unsigned type that holds them: a sweep has thousands of such tables.

    Args:
        nested: parsed JSON, [confounder][label][predicted], or with several labels [label][confounder][2][2].
        data: of the run.
        where: the file, for messages.
        place: where in the file.
        own: whether the run's own confounders are expected; otherwise any number of them may be there.

    Raises:
        DamagedError: another shape, or numbers that are no counts.
    """
    classes = len(data.label_names)
    confounders = {1, len(data.confounder_names) or 1}
    shape = (classes, -1, 2, 2) if data.multi_label else (-1, classes, classes)
    try:
        array = np.asarray(nested)
    except (ValueError, OverflowError, RecursionError):
        array = np.empty(0, object)
    rows = array.shape[shape.index(-1)] if array.ndim == len(shape) else 0
    fits = rows > 0 and all(
        want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind != "i" or (own and rows not in confounders):
        wanted = ", ".join("confounder" if n < 0 else str(n) for n in shape)
        problem = f"are {array.dtype}{list(array.shape)}, expected whole numbers [{wanted}]"
    elif any(type(count) is not int for count in _flat(nested, array.ndim)):
        problem = "hold true or false, expected whole numbers"
    elif (low := int(array.min())) < 0:
        problem = f"hold {low}, expected at least 0"
    elif (high := int(array.max())) > MOST_IMAGES:
        problem = f"hold {high}, expected at most {MOST_IMAGES:,}"
    else:
        return array.astype(np.min_scalar_type(high))
    raise DamagedError(f"{where} is damaged: counts of {one_line(place)[:200]} {problem}.")


def _flat(nested: Any, dimensions: int) -> Iterable[Any]:
    for _ in range(dimensions - 1):
        nested = itertools.chain.from_iterable(nested)
    return nested


def read_record(folder: Path) -> RunRecord:
    """The record of a finished run.

    Raises:
        FileNotFoundError: the run is not done.
        UserError: it is of another schema version.
        DamagedError: it is damaged, or is not the record of the run that the folder is named after.
    """
    run = RunFolder(folder)
    try:
        record = RunRecord.from_json(read_json(run.record), str(run.record))
    except DamagedError as error:
        raise DamagedError(f"{str(error).removesuffix('.')}; delete it and launch again.") from None
    check_key(record.key, run.record)
    return record


def check_key(key: str, path: Path) -> None:
    """Raise a DamagedError unless a file with this key lies in the folder of that run."""
    if key != path.parent.name:
        raise DamagedError(
            f"{path} is of the run {one_line(key)[:100]}, not of {path.parent.name}: files of two runs were mixed."
        )


@dataclass(frozen=True)
class Failure:
    """Why a run ended without a result.

    Attributes:
        message: one sentence.
        kind: ``non_finite``, ``exception``, ``user_error``, ``out_of_memory``, ``signal`` or ``timeout``; empty where
            the file does not tell.
        key: of the run; empty where the file does not tell.
        attempt: number of the try, or 0 where the file does not tell.
        traceback: of a programming error, or empty.
    """

    message: Text
    kind: Name = ""
    key: Name = ""
    attempt: Count = 0
    traceback: Text = ""


def read_failure(folder: Path) -> Failure:
    """Why the run in a folder failed.

    Raises:
        FileNotFoundError: it did not fail.
        DamagedError: failure.json is damaged, or of another run.
    """
    run = RunFolder(folder)
    failure = decode(Failure, read_json(run.failure), str(run.failure))
    if failure.key:
        check_key(failure.key, run.failure)
    return failure


def failure_json(key: str, attempt: int, kind: str, message: str, **more: Any) -> dict[str, Any]:
    """The content of failure.json: why a run ended without a result.

    Texts are shortened, and halves of characters, as file names may hold, are escaped.

    Args:
        key: of the run.
        attempt: number of the try, from 1.
        kind: ``non_finite``, ``exception``, ``user_error``, ``out_of_memory``, ``signal`` or ``timeout``.
        message: one sentence.
        more: ``traceback``, ``step``, ``term``, ``signal``.
    """
    about = {"schema": SCHEMA, "key": key, "attempt": attempt, "kind": kind, "message": message}
    return {
        name: _storable(value) if isinstance(value, str) else value
        for name, value in {**about, **more}.items()
    }


def _storable(text: str) -> str:
    """A text that UTF-8 can hold and that ``read_failure`` accepts; the end of a long one is kept."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= _MESSAGE else f"…{whole[-_MESSAGE:]}"
