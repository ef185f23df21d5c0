"""Learning curves from log.jsonl, read only on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.core.counts import accuracy, worst_group_accuracy
from benchmark.core.errors import DamagedError
from benchmark.core.files import JSON_BYTES, parse_json, read_bytes
from benchmark.core.layout import RunFolder
from benchmark.core.log_line import LogLine
from benchmark.core.summaries import DataSummary
from benchmark.report.statistics.estimate import finite_or_none


@dataclass
class Curves:
    """One run's log: ``steps`` and, by name, values at these steps (None where a line lacks them).

    Attributes:
        accuracy, worst: per split. terms: of the loss.
        note: what was wrong with the file, or empty.
    """

    steps: list[int] = field(default_factory=list)
    accuracy: dict[str, list[float | None]] = field(default_factory=dict)
    worst: dict[str, list[float | None]] = field(default_factory=dict)
    terms: dict[str, list[float | None]] = field(default_factory=dict)
    note: str = ""


def read_curves(folder: RunFolder, data: DataSummary) -> Curves:
    """The curves of a run folder. A torn last line is ignored; damage elsewhere ends the curve there and is noted.

    Args:
        folder: of the run.
        data: of the run; there are worst groups where it names confounders.
    """
    curves, name = Curves(), folder.log.name
    try:
        lines = read_bytes(folder.log, JSON_BYTES).split(b"\n")
    except FileNotFoundError:
        curves.note = f"{name} is missing"
        return curves
    except (OSError, DamagedError):
        curves.note = f"{name} cannot be read"
        return curves
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        where = f"{name}, line {number},"
        try:
            line = LogLine.from_json(parse_json(text, where), data, where)
            if curves.steps and line.step <= curves.steps[-1]:
                raise DamagedError(f"{where} repeats a step")
        except DamagedError:
            torn = number == len(lines)  # no newline behind it: a crash while writing
            curves.note = (
                f"{name}: torn last line ignored"
                if torn
                else f"{name}: damaged from line {number} on"
            )
            break
        _add(curves, line, bool(data.confounder_names))
    return curves


def _add(curves: Curves, line: LogLine, groups_known: bool) -> None:
    accuracies: dict[str, float | None] = {}
    worst: dict[str, float | None] = {}
    for split, counts in line.splits.items():
        accuracies[split] = finite_or_none(accuracy(counts))
        worst[split] = finite_or_none(worst_group_accuracy(counts)) if groups_known else None
    for target, values in (
        (curves.accuracy, accuracies),
        (curves.worst, worst),
        (curves.terms, line.terms),
    ):
        for name, value in values.items():
            target.setdefault(name, [None] * len(curves.steps)).append(value)
    curves.steps.append(line.step)
    for target in (curves.accuracy, curves.worst, curves.terms):
        for values_ in target.values():
            values_.extend([None] * (len(curves.steps) - len(values_)))


def mean_curve(
    found: Sequence[tuple[Sequence[int], Sequence[float | None]]],
) -> tuple[list[int], list[float]]:
    """The mean over runs at every step that most runs have; other steps are left out."""
    by_step: dict[int, list[float]] = {}
    for steps, values in found:
        for step, value in zip(steps, values, strict=True):
            if value is not None:
                by_step.setdefault(step, []).append(value)
    most = max(map(len, by_step.values()), default=0)
    kept = sorted(step for step, values in by_step.items() if len(values) == most)
    return kept, [float(np.mean(by_step[step])) for step in kept]
