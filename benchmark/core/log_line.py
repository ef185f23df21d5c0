"""A line of log.jsonl: one evaluation of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmark.core.decode import Count, decode_fields
from benchmark.core.errors import DamagedError
from benchmark.core.log_progress import LogProgress
from benchmark.core.stored_counts import counts_to_json, parse_counts, read_counts
from benchmark.core.summaries import DataSummary


@dataclass(frozen=True, eq=False)
class LogLine(LogProgress):
    """One evaluation.

    Attributes:
        terms: Mean of each term of the loss since the last line.
        lr: Learning rate of the first optimizer, or None.
        memory_bytes: Peak memory so far.
        splits: Confusion counts by split.
        objective: Mean of ``Algorithm.objective`` on validation; None unless a criterion uses it.
        curves: Measurements that the spec asks for, by name and split.
    """

    terms: Mapping[str, float] = field(kw_only=True)
    lr: float | None = None
    memory_bytes: Count = 0
    splits: Mapping[str, np.ndarray] = field(default_factory=dict)
    objective: float | None = None
    curves: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON."""
        value: dict[str, Any] = {
            "step": self.step,
            "steps": self.steps,
            "terms": dict(self.terms),
            "lr": self.lr,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "memory_bytes": self.memory_bytes,
            "splits": {
                name: {"counts": counts_to_json(counts)} for name, counts in self.splits.items()
            },
        }
        if self.objective is not None:
            value["objective"] = self.objective
        if self.curves:
            value["curves"] = {name: dict(values) for name, values in self.curves.items()}
        return value

    @classmethod
    def from_json(cls, value: Any, data: DataSummary | None, where: str) -> LogLine:
        """Decode a line from parsed JSON.

        Args:
            value: The parsed line.
            data: Data of the run, with which the counts must agree; None if they are not known.
            where: File and line, for messages.

        Raises:
            DamagedError: If something is missing or has the wrong type.
        """
        plain = decode_fields(cls, value, where, skip=frozenset({"splits"}))
        splits = value.get("splits")
        if not isinstance(splits, dict) or not all(isinstance(c, dict) for c in splits.values()):
            raise DamagedError(f"{where} is damaged: splits is not a table of tables.")
        counts = {
            name: read_counts(content.get("counts"), where)
            if data is None
            else parse_counts(content.get("counts"), data, where, f"splits.{name}")
            for name, content in splits.items()
        }
        return cls(splits=counts, **plain)
