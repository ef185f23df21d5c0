"""What the columns of a table are, and what each one's value is for the winners of a cell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from benchmark.report.estimate import Estimate, normal_estimate
from benchmark.report.groups import worst_group_interval
from benchmark.report.metrics import average_accuracy, confusion, group_counts, worst_group
from benchmark.report.posterior import closed_form
from benchmark.report.select import Winner

Counts = Mapping[str, np.ndarray]
POSTERIOR, TRIALS = "plug-in ± posterior sd", "t over trials"


@dataclass(frozen=True)
class Column:
    """One metric on one split, or on two (the gap).

    Attributes:
        metric: its name in CSV and JSON, such as ``worst_group_accuracy``; ``also``: further names of the same number.
        splits: what it is computed on. title: one or two short lines.
    """

    metric: str
    splits: tuple[str, ...]
    title: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    """A cell's number: ``estimate.sd`` is over trials where there are several, else from the test sample alone."""

    estimate: Estimate
    trials: int = 0
    per_trial: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()


NOTHING = Value(Estimate(None, None, None, None, "none"))


def test_splits(data: Mapping[str, Any]) -> list[str]:
    """Names of the test splits, in table order."""
    return [name for name in data["splits"] if name not in ("train", "val")]


def main_split(data: Mapping[str, Any]) -> str | None:
    """Where average and worst-group accuracy are measured: ``unbiased``, else ``test``, else the first other split.

    A split that only shows the bias (the biased one of ``bias_splits``) comes last.
    """
    splits = test_splits(data)
    for name in ("unbiased", "test"):
        if name in splits:
            return name
    biased, deceiving = data.get("bias_splits") or (None, None)
    others = [name for name in splits if name not in (biased, deceiving)]
    return next(iter([*others, *(s for s in (deceiving, biased) if s in splits)]), None)


def columns_of(data: Mapping[str, Any]) -> list[Column]:
    """The columns of a data set's table: average, worst group, then the other test splits, then the gap."""
    main = main_split(data)
    if main is None:
        return []
    columns = [
        Column("average_accuracy", (main,), ("average", f"({main})"), (f"{main}_accuracy",)),
        Column("worst_group_accuracy", (main,), ("worst group", f"({main})")),
    ]
    columns += [Column(f"{name}_accuracy", (name,), (name,)) for name in test_splits(data) if name != main]
    if data.get("bias_splits"):
        columns.append(Column("gap", tuple(data["bias_splits"]), ("gap",)))
    return columns


def value_of(column: Column, winners: Sequence[Winner], level: float = 0.95) -> Value:
    """The column's value over the trials that have it.

    One trial: the plug-in value with the uncertainty of the test sample. Several: mean ± sd over trials, interval by
    Student's t over trials.
    """
    having = [w for w in winners if all(split in w.at.counts for split in column.splits)]
    estimates = [one_trial(column, w, level) for w in having]
    defined = [(w, e) for w, e in zip(having, estimates, strict=True) if e.value is not None]
    notes = list(dict.fromkeys(e.note for e in estimates if e.note))
    if len(having) < len(winners):
        lacking = f"{len(winners) - len(having)} of {len(winners)} trials"
        notes.append(f"no counts of {' and '.join(column.splits)} in {lacking}")
    if not defined:
        return Value(NOTHING.estimate, notes=tuple(notes))
    values = tuple(float(e.value) for _, e in defined if e.value is not None)
    if len(defined) == 1:
        return Value(defined[0][1], 1, values, tuple(notes))
    return Value(over_trials(values, level), len(values), values, tuple(notes))


def over_trials(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean ± sd of at least two trials, and Student's t interval of the mean."""
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * sd / math.sqrt(len(values))
    return Estimate(mean, sd, mean - half, mean + half, TRIALS)


def one_trial(column: Column, winner: Winner, level: float = 0.95) -> Estimate:
    """The plug-in value of one trial with the uncertainty of its test sample."""
    counts = [winner.at.counts[split] for split in column.splits]
    if column.metric == "worst_group_accuracy":
        return _worst(counts[0], winner.run.record.data if winner.run.record else {}, level)
    parts = [_accuracy(c, level) for c in counts]
    if column.metric != "gap":
        return parts[0]
    biased, deceiving = parts
    if biased.value is None or deceiving.value is None or biased.sd is None or deceiving.sd is None:
        return Estimate(None, None, None, None, "none", biased.note or deceiving.note)
    sd = math.hypot(biased.sd, deceiving.sd)
    return normal_estimate(biased.value - deceiving.value, sd, POSTERIOR, level, (-1.0, 1.0))


def _accuracy(counts: np.ndarray, level: float) -> Estimate:
    value = average_accuracy(counts)
    if value is None:
        return Estimate(None, None, None, None, "none", "the split has no images")
    table = confusion(counts)
    if len(table) < 2:
        return Estimate(value, None, None, None, "none", "one class only: every prediction is right")
    sd = float(closed_form(table)["accuracy"].sd[0])
    return normal_estimate(value, sd, POSTERIOR, level, (0.0, 1.0))


def _worst(counts: np.ndarray, data: Mapping[str, Any], level: float) -> Estimate:
    if not data.get("confounder_names"):
        return Estimate(None, None, None, None, "none", "confounders are unknown, so there are no groups")
    found = worst_group(counts)
    if found is None:
        return Estimate(None, None, None, None, "none", "the split has no images")
    note = ""
    if found.groups == 1:
        note = "only one group has images"
    elif found.empty:
        note = f"{found.empty} of {found.groups + found.empty} groups have no images and are left out"
    return replace(worst_group_interval(*group_counts(counts), level), note=note)
