"""Learning curves from log.jsonl, read only when somebody wants to see them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.core.layout import RunFolder
from benchmark.report.statistics.metrics import average_accuracy, worst_group


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


def read_curves(folder: RunFolder, groups_known: bool = True) -> Curves:
    """The curves of a run folder. A torn last line is ignored; damage elsewhere ends the curve there and is noted.

    Args:
        groups_known: whether confounders are known, so that a worst group exists.
    """
    curves, name = Curves(), folder.log.name
    try:
        lines = folder.log.read_bytes().split(b"\n")
    except OSError:
        curves.note = f"{name} is missing"
        return curves
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            _add(curves, json.loads(line), groups_known)
        except (ValueError, KeyError, TypeError, AttributeError):
            torn = number == len(lines)  # no newline behind it: a crash while writing
            curves.note = (
                f"{name}: torn last line ignored"
                if torn
                else f"{name}: damaged from line {number} on"
            )
            break
    return curves


def _add(curves: Curves, line: Mapping[str, object], groups_known: bool) -> None:
    step = line["step"]
    splits, terms = line["splits"], line["terms"]
    if not isinstance(step, int) or not isinstance(splits, dict) or not isinstance(terms, dict):
        raise ValueError
    accuracy: dict[str, float | None] = {}
    worst: dict[str, float | None] = {}
    for split, content in splits.items():
        counts = np.asarray(content["counts"], dtype=np.int64)
        if counts.ndim not in (3, 4):
            raise ValueError
        accuracy[split] = average_accuracy(counts)
        found = worst_group(counts) if groups_known else None
        worst[split] = None if found is None else found.accuracy
    for target, values in (
        (curves.accuracy, accuracy),
        (curves.worst, worst),
        (curves.terms, terms),
    ):
        for name, value in values.items():
            number = float(value) if isinstance(value, int | float) and np.isfinite(value) else None
            target.setdefault(name, [None] * len(curves.steps)).append(number)
    curves.steps.append(step)
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
