"""Learning curves of a run, from its log.jsonl."""

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
    """The evaluations of a run during training.

    Attributes:
        steps: Steps of the evaluations.
        accuracy: Accuracy at these steps by split; None if an evaluation lacks the split.
        worst: Worst-group accuracy, likewise.
        auc: Mean AUC over classes, likewise; empty if it was not logged.
        distance: Distance of a student's heatmaps from its teacher's, likewise.
        note: Problem of the file, or empty.
    """

    steps: list[int] = field(default_factory=list)
    accuracy: dict[str, list[float | None]] = field(default_factory=dict)
    worst: dict[str, list[float | None]] = field(default_factory=dict)
    auc: dict[str, list[float | None]] = field(default_factory=dict)
    distance: dict[str, list[float | None]] = field(default_factory=dict)
    note: str = ""


def read_curves(folder: RunFolder, data: DataSummary) -> Curves:
    """Return the learning curves of a run.

    An incomplete last line is ignored. A damaged line ends the curves and is noted.

    Args:
        folder: Folder of the run.
        data: Data of the run; worst groups exist if it names confounders.
    """
    curves = Curves()
    name = folder.log.name
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
            torn = number == len(lines)  # no newline follows: a crash while writing
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
    logged = [(curves.accuracy, accuracies), (curves.worst, worst)]
    for target, measured in ((curves.auc, "auc"), (curves.distance, "distance")):
        found = line.curves.get(measured, {})
        logged.append((target, {split: finite_or_none(value) for split, value in found.items()}))
    for target, values in logged:
        for name, value in values.items():
            target.setdefault(name, [None] * len(curves.steps)).append(value)
    curves.steps.append(line.step)
    for target, _ in logged:
        for curve in target.values():
            curve.extend([None] * (len(curves.steps) - len(curve)))


def mean_curve(
    found: Sequence[tuple[Sequence[int], Sequence[float | None]]],
) -> tuple[list[int], list[float]]:
    """Return the steps that most runs have and the mean over runs at each of them.

    Args:
        found: Steps and values of each run.
    """
    by_step = _values_by_step(found)
    return list(by_step), [float(np.mean(values)) for values in by_step.values()]


def range_curve(
    found: Sequence[tuple[Sequence[int], Sequence[float | None]]],
) -> tuple[list[int], list[float], list[float]]:
    """Return the steps of ``mean_curve``, and the lowest and the highest value at each of them."""
    by_step = _values_by_step(found)
    return list(by_step), list(map(min, by_step.values())), list(map(max, by_step.values()))


def _values_by_step(
    found: Sequence[tuple[Sequence[int], Sequence[float | None]]],
) -> dict[int, list[float]]:
    """Return the values of all runs at the steps that most runs have, in order."""
    by_step: dict[int, list[float]] = {}
    for steps, values in found:
        for step, value in zip(steps, values, strict=True):
            if value is not None:
                by_step.setdefault(step, []).append(value)
    most = max(map(len, by_step.values()), default=0)
    return {step: by_step[step] for step in sorted(by_step) if len(by_step[step]) == most}
