"""Measured explanations, compared explainer by explainer for each method and split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmark.report.records.measurements import MeasuredExplainer
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.statistics.rank_agreement import Agreement, rank_agreement
from benchmark.report.statistics.trial_samples import (
    Difference,
    TrialSample,
    auc_sample,
    compare_with_best,
    pooled_iou_sample,
    sample_mean,
)
from benchmark.report.tables.pairwise import ALPHA
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.results_table import Row, Table

#: The column that tells two methods by relevance in the foreground, and the metric that it uses.
AUC = "auc"
AUC_METRIC = "mass"
#: The column that pools the IoU over images, and the two metrics that it is computed from. The
#: second one is not shown.
POOLED_IOU = "pooled_iou"
_IOU_METRICS = ("pixel_accuracy", "found_foreground")
#: The method that others are told from, if the report has no reference.
_BIASED = "erm"
#: Metrics that have a single value in each trial and are printed with three significant digits.
TIMES = frozenset({"seconds"})


@dataclass(frozen=True)
class Cell:
    """An explainer in one column of a block.

    Attributes:
        estimate: The mean over images and trials.
        best: Whether it cannot be told from the best; None without a comparison.
        difference: The difference from the best; None for the best itself.
        undefined: Number of images, over all trials, for which it is not defined.
        images: Number of images over all trials.
    """

    estimate: Estimate
    best: bool | None
    difference: Difference | None
    undefined: int
    images: int


@dataclass
class Block:
    """The explainers of one method on one split.

    Attributes:
        row: The method.
        split: Name of the split.
        trials: Trials that all explainers of the block have.
        explainers: The explainers with values.
        columns: Title and direction of each column by name, the AUC last.
        cells: Cells by explainer and column; a column that an explainer lacks is missing.
        agreement: Names of the metrics that were ranked, and their agreement.
        same_images: Whether all trials have the same images.
    """

    row: Row
    split: str
    trials: list[int]
    explainers: list[MeasuredExplainer]
    columns: dict[str, tuple[str, bool | None]]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    agreement: tuple[list[str], list[list[Agreement]]] = field(default_factory=lambda: ([], []))
    same_images: bool = False

    @property
    def title(self) -> str:
        """The heading of the block."""
        return f"{self.row.marked_label}, {self.split}"


def blocks_of(report: Report, table: Table) -> list[Block]:
    """Return the blocks of one data set, split by split; they are computed once."""
    known = report.explanation_blocks
    if id(table) not in known:
        known[id(table)] = list(_blocks(report, table))
    found: list[Block] = known[id(table)]
    return found


def _blocks(report: Report, table: Table) -> Iterator[Block]:
    measured = {
        id(row): [one for one in report.measurements.explainers(row.selected_runs) if one.trials]
        for row in table.rows
        if row.requested
    }
    rows = [row for row in table.rows if measured.get(id(row))]
    biased = _biased(rows, report.options.reference)
    splits = dict.fromkeys(s for row in rows for one in measured[id(row)] for s in one.splits)
    for split in splits:
        for row in rows:
            explainers = [one for one in measured[id(row)] if split in one.splits]
            if explainers:
                others = measured[id(biased)] if biased not in (None, row) else []
                yield _block(row, split, explainers, others, biased)


def _biased(rows: Sequence[Row], reference: str | None) -> Row | None:
    """Return the method that others are told from: the reference, else ERM, else none."""
    wanted = reference or _BIASED
    return next((row for row in rows if row.method == wanted), None)


def _block(
    row: Row,
    split: str,
    explainers: list[MeasuredExplainer],
    others: Sequence[MeasuredExplainer],
    biased: Row | None,
) -> Block:
    trials = sorted({one.trial for explainer in explainers for one in explainer.trials})
    columns: dict[str, tuple[str, bool | None]] = {}
    for explainer in explainers:
        columns |= {name: about for name, about in explainer.metrics.items() if name not in columns}
    digests = {tuple(explainer.digests(split)) for explainer in explainers}
    same = len(digests) == 1 and len(set(next(iter(digests)))) == 1
    block = Block(row, split, trials, explainers, columns, same_images=same)
    samples = {
        name: [explainer.sample(split, name, trials) for explainer in explainers]
        for name in columns
    }
    _pool_iou(columns, samples)
    block.agreement = _agreement(block, samples)
    if others and biased is not None:
        found = [_auc(explainer, others, split, trials) for explainer in explainers]
        if any(found):
            columns[AUC] = (f"AUC against {biased.label}", True)
            samples[AUC] = found
    for name, (_, higher_is_better) in columns.items():
        _add_cells(block, name, samples[name], higher_is_better)
    return block


def _pool_iou(
    columns: dict[str, tuple[str, bool | None]], samples: dict[str, list[TrialSample | None]]
) -> None:
    """Replace the share of found foreground by the pooled IoU, where both metrics are measured."""
    if not set(_IOU_METRICS) <= columns.keys():
        return
    accuracy, found = (samples[name] for name in _IOU_METRICS)
    columns.pop(_IOU_METRICS[1])
    columns[POOLED_IOU] = ("pooled IoU", True)
    samples[POOLED_IOU] = [
        None if a is None or b is None else pooled_iou_sample(a, b)
        for a, b in zip(accuracy, found, strict=True)
    ]


def _auc(
    explainer: MeasuredExplainer,
    others: Sequence[MeasuredExplainer],
    split: str,
    trials: Sequence[int],
) -> TrialSample | None:
    """Return the AUC that tells a method from the biased one by the same explainer."""
    other = next((one for one in others if one.name == explainer.name), None)
    if other is None or split not in other.splits:
        return None
    if {one.trial: one.summary.splits[split].digest for one in explainer.trials} != {
        one.trial: one.summary.splits[split].digest for one in other.trials
    }:
        return None
    mine = explainer.sample(split, AUC_METRIC, trials)
    theirs = other.sample(split, AUC_METRIC, trials)
    return None if mine is None or theirs is None else auc_sample(theirs, mine)


def _add_cells(
    block: Block,
    name: str,
    samples: Sequence[TrialSample | None],
    higher_is_better: bool | None,
) -> None:
    best: int | None = None
    differences: list[Difference | None] = [None] * len(samples)
    if higher_is_better is not None:
        best, differences = compare_with_best(samples, higher_is_better=higher_is_better)
    compared = [found for found in differences if found is not None and found.p_holm is not None]
    limits = (0.0, 1.0) if name in (AUC, POOLED_IOU) else None
    for i, (explainer, sample) in enumerate(zip(block.explainers, samples, strict=True)):
        if sample is None:
            continue
        difference = differences[i]
        is_best: bool | None = None
        if compared and i == best:
            is_best = True
        elif difference is not None and difference.p_holm is not None:
            is_best = difference.p_holm >= ALPHA
        images = sum(len(row) for row in sample.values)
        block.cells[explainer.name, name] = Cell(
            sample_mean(sample, limits)[0], is_best, difference, sample.undefined, images
        )


def _agreement(
    block: Block, samples: Mapping[str, Sequence[TrialSample | None]]
) -> tuple[list[str], list[list[Agreement]]]:
    """Return the agreement of the metrics that have a direction and a value for each image."""
    names = [
        name
        for name, (_, direction) in block.columns.items()
        if direction is not None and name not in TIMES
    ]
    complete = [
        k
        for k in range(len(block.explainers))
        if all(
            (sample := samples[name][k]) is not None and np.isfinite(sample.trial_means).all()
            for name in names
        )
    ]
    if len(names) < 2 or len(complete) < 3:
        return names, []
    values = [
        np.stack(
            [
                np.stack([_oriented(block, samples[name][k], name, s) for name in names])
                for k in complete
            ]
        )
        for s in range(len(block.trials))
    ]
    return names, rank_agreement(values, same_images=block.same_images)


def _oriented(block: Block, sample: TrialSample | None, name: str, trial: int) -> np.ndarray:
    assert sample is not None
    return sample.values[trial] * (1.0 if block.columns[name][1] else -1.0)
