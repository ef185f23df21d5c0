"""What a run found, and what is in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.files import read_json
from benchmark.core.layout import RunFolder
from benchmark.core.spec import SCHEMA, RunSpec, check_schema


@dataclass(frozen=True)
class RunRecord:
    """The result of one run; ``docs/log_schema.md`` describes every field.

    Args:
        key, spec: the run.
        attempt: which try it was, from 1.
        selected: per criterion ``{"step", "value", "splits": {split: {"counts": [confounder][label][predicted]}}}``.
        data: names of labels, confounders and environments, ``bias_splits``, ``paired``, ``stand_in``, sizes of splits.
        method: needs, sampling and paper of the algorithm.
        seconds: ``training``, ``evaluation``, ``explanations`` and ``embeddings`` (where made), ``total``, over all
            attempts that counted.
        steps: steps made; stopped_early: whether patience ended the run.
        images_per_second, peak_memory_bytes, parameters: of training, and of the model that predicts; a peak of 0
            is unknown, as on Windows.
        machine: ``device``, ``host``, ``threads``, ``versions``, ``commit``.
        started, finished: seconds since 1970.
        upstream: per role the key, method and selected scores of the run that came first.
        extra: what the algorithm itself wants on record, by name; ``explanations``: where the network looks;
            ``embeddings``: how it arranges test images.
    """

    key: str
    spec: RunSpec
    attempt: int
    selected: Mapping[str, Any]
    data: Mapping[str, Any]
    method: Mapping[str, Any]
    seconds: Mapping[str, float]
    steps: int
    stopped_early: bool
    images_per_second: float
    peak_memory_bytes: int
    parameters: int
    machine: Mapping[str, Any]
    started: float
    finished: float
    upstream: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "spec": self.spec.to_json()}

    @classmethod
    def from_json(cls, value: Any, where: str = "record.json") -> RunRecord:
        """The record stored in a run folder.

        Raises:
            UserError: another schema version, or fields missing or unknown.
        """
        check_schema(value, where)
        known = {f.name for f in fields(cls)}
        if set(value) != known:
            odd = ", ".join(sorted(set(value) ^ known))
            raise UserError(
                f"{where} has missing or unknown fields ({odd}); it was edited or damaged."
            )
        return cls(**{**value, "spec": RunSpec.from_json(value["spec"], f"spec in {where}")})


def read_record(folder: Path) -> RunRecord:
    """The record of a finished run.

    Raises:
        UserError: it is damaged or of another schema version.
        FileNotFoundError: the run is not done.
    """
    path = RunFolder(folder).record
    try:
        return RunRecord.from_json(read_json(path), str(path))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and launch again.") from None


def failure_json(
    spec: RunSpec, attempt: int, kind: str, message: str, **more: Any
) -> dict[str, Any]:
    """The content of failure.json: why a run ended without a result.

    Args:
        kind: ``non_finite``, ``exception``, ``user_error``, ``out_of_memory``, ``signal`` or ``timeout``.
        message: one sentence.
        more: ``traceback``, ``step``, ``term``, ``signal``.
    """
    return {
        "schema": SCHEMA,
        "key": spec.key,
        "attempt": attempt,
        "kind": kind,
        "message": message,
        **more,
    }
