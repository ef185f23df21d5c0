"""The result of a run: record.json."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from benchmark.core.criteria import CRITERIA
from benchmark.core.decode import (
    Between,
    Count,
    Json,
    Key,
    Matching,
    Name,
    Positive,
    Time,
    decode,
    decode_fields,
)
from benchmark.core.errors import DamagedError, shown
from benchmark.core.files import read_json
from benchmark.core.layout import RunFolder
from benchmark.core.spec import SCHEMA, RunSpec, check_fields, check_key, check_schema
from benchmark.core.stored_counts import parse_counts
from benchmark.core.summaries import (
    DataSummary,
    EmbeddingSummary,
    ExplanationSummary,
    MachineSummary,
    MeasurementSummary,
    MethodSummary,
    SelectedStep,
    Timing,
    UpstreamSummary,
)
from benchmark.core.text import one_line

Sha256: TypeAlias = Annotated[str, Matching("[0-9a-f]{64}", "a sha256")]


@dataclass(frozen=True)
class RunRecord:
    """The result of one run. ``docs/log_schema.md`` describes every field.

    Attributes:
        key: Key of the run.
        spec: Spec of the run.
        attempt: Number of the attempt, from 1.
        selected: Step that each criterion selected.
        data: Names and sizes of the data.
        method: Needs, sampling and paper of the method.
        seconds: Time that parts of the run took.
        steps: Number of steps made.
        stopped_early: True if early stopping ended the run.
        images_per_second: Training speed.
        peak_memory_bytes: Peak memory of training; 0 if unknown, as on Windows.
        parameters: Number of parameters of the model that predicts.
        machine: Machine and software.
        started: Seconds since 1970.
        finished: Seconds since 1970.
        upstream: Upstream runs by role.
        explanations: Explanations of test images; None without masks or if they were not asked for.
        embeddings: Arrangement of the features of test images; None if that was not asked for.
        measurement: Measurement of explanations; None for a run that trains. A run with one selects
            no step.
        extra: Additional results of the algorithm, by name.
        checksums: SHA-256 of the files beside the record, by name; empty in records of earlier
            versions.
        inference_images_per_second: Speed of the forward passes of the last evaluation; None in
            records of earlier versions.
        schema: Version of the format.
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
    measurement: MeasurementSummary | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
    checksums: Mapping[str, Sha256] = field(default_factory=dict)
    inference_images_per_second: Annotated[float, Between(0.0, 1e12)] | None = None
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return the content of record.json."""
        tables = {
            "explanations": self.explanations.to_json() if self.explanations else None,
            "embeddings": self.embeddings.to_json() if self.embeddings else None,
            "measurement": self.measurement.to_json() if self.measurement else None,
        }
        value = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in tables}
        if self.inference_images_per_second is None:
            del value["inference_images_per_second"]
        return {
            **value,
            "spec": self.spec.to_json(),
            "selected": {name: step.to_json() for name, step in self.selected.items()},
            "data": self.data.to_json(),
            "method": asdict(self.method),
            "seconds": self.seconds.to_json(),
            "machine": self.machine.to_json(),
            "upstream": {role: first.to_json() for role, first in self.upstream.items()},
            "extra": {**self.extra, **{name: table for name, table in tables.items() if table}},
            "checksums": dict(self.checksums),
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "record.json") -> RunRecord:
        """Decode a record from parsed JSON.

        Args:
            value: The content of record.json.
            where: Name of the file, for messages.

        Raises:
            UserError: If it has another schema version.
            DamagedError: If a field is missing, unknown, of the wrong type or out of bounds, or if
                the key does not match the spec.
        """
        check_schema(value, where)
        names = {f.name for f in fields(cls)} - set(_EXTRA_TABLES)
        optional = {"checksums", "inference_images_per_second"}
        check_fields(value, names - optional, where, optional=optional)
        spec = RunSpec.from_json(value["spec"], f"spec in {where}")
        if value["key"] != spec.key:
            raise DamagedError(
                f"{where} is damaged: its key is not that of its spec, {spec.key}; it was edited."
            )
        plain = decode_fields(cls, {**value, **_tables(value["extra"])}, where, skip=_DECODED_APART)
        data = plain["data"]
        steps = plain["steps"]
        _check_names(data, where)
        upstream = _upstream(value["upstream"], data, where)
        if {role: first.key for role, first in upstream.items()} != spec.upstream:
            raise DamagedError(f"{where} is damaged: its upstream runs are not those of its spec.")
        selected = _selected(value["selected"], data, where, "selected")
        for criterion, selected_step in selected.items():
            _check_selected(criterion, selected_step, steps, where)
        return cls(spec=spec, selected=selected, upstream=upstream, **plain)


#: Fields that cannot be checked without the data or the spec of the run.
_DECODED_APART = frozenset({"spec", "selected", "upstream", "schema"})


def _tables(extra: Any) -> dict[str, Any]:
    """Separate the tables below from the algorithm's own content of ``extra``."""
    if not isinstance(extra, dict):
        return {"extra": extra}
    own = {name: item for name, item in extra.items() if name not in _EXTRA_TABLES}
    return {"extra": own, **{name: extra[name] for name in _EXTRA_TABLES if name in extra}}


#: Tables that record.json stores in ``extra`` and that are fields of RunRecord.
_EXTRA_TABLES = ("explanations", "embeddings", "measurement")


def _check_names(data: DataSummary, where: str) -> None:
    """Check that lists of names fit each other, since tables combine them by position."""
    groups = len(data.label_names) * len(data.confounder_names) * (2 if data.multi_label else 1)
    if not data.label_names:
        raise DamagedError(f"{where} is damaged: data.label_names is empty.")
    if data.group_names and len(data.group_names) != groups:
        raise DamagedError(
            f"{where} is damaged: data.group_names has {len(data.group_names)} names, "
            f"expected {groups}."
        )
    if not set(data.bias_splits or ()) <= data.splits.keys():
        raise DamagedError(f"{where} is damaged: data.bias_splits names no split.")


def _check_selected(criterion: str, selected_step: SelectedStep, steps: int, where: str) -> None:
    """Check that a selected step was made and that the criterion can have its value."""
    rule = CRITERIA.get(criterion)
    is_share = rule is not None and rule.is_quality and not rule.uses_objective
    if selected_step.step > steps:
        raise DamagedError(
            f"{where} is damaged: selected.{criterion}.step is {selected_step.step}, "
            f"but {steps} steps were made."
        )
    if is_share and selected_step.value is not None and not 0.0 <= selected_step.value <= 1.0:
        raise DamagedError(
            f"{where} is damaged: selected.{criterion}.value is {shown(selected_step.value)}, "
            "expected 0 to 1."
        )


def _upstream(value: Any, data: DataSummary, where: str) -> dict[str, UpstreamSummary]:
    """Decode upstream runs. They have the same labels, but may have other confounders."""
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
    """Decode selected steps by criterion.

    Args:
        value: Parsed JSON.
        data: Data of the run that the record belongs to.
        where: Name of the file, for messages.
        place: Position in the file.
        own: True if the steps belong to that run, so that its splits and confounders are expected.
    """
    selected = {}
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
        selected[criterion] = SelectedStep(plain.step, plain.value, counts)
    return selected


def _entries(value: Any, where: str, place: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Return the entries of a table of tables."""
    if not isinstance(value, dict) or not all(isinstance(item, dict) for item in value.values()):
        raise DamagedError(f"{where} is damaged: {one_line(place)[:200]} is not a table of tables.")
    return value.items()


def _without_nan(entry: dict[str, Any]) -> dict[str, Any]:
    """Replace a value that is not finite by None. Such a step is kept but never selected."""
    value = entry.get("value")
    missing = isinstance(value, float) and not math.isfinite(value)
    return {**entry, "value": None} if missing else entry


def read_record(folder: Path) -> RunRecord:
    """Return the record of a finished run.

    Raises:
        FileNotFoundError: If the run is not done.
        UserError: If the record has another schema version.
        DamagedError: If the record is damaged, or belongs to another run than the folder.
    """
    run = RunFolder(folder)
    try:
        record = RunRecord.from_json(read_json(run.record), str(run.record))
    except DamagedError as error:
        raise DamagedError(f"{str(error).removesuffix('.')}; delete it and launch again.") from None
    check_key(record.key, run.record)
    return record
