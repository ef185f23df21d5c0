"""The caption of a results table: how every number was made, and what it may be used for."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from benchmark.core.criteria import CRITERIA, title_of
from benchmark.core.needs import DESCRIPTIONS, WITHOUT_ANNOTATION
from benchmark.core.record import DataSummary
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.statistics.credible import KIND as CREDIBLE
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.statistics.power import describe_power
from benchmark.report.tables.metric import Metric
from benchmark.report.tables.pairwise import ALPHA, Marks, Pairing
from benchmark.report.tables.value import Spread, Value

#: Footnote of tables with credible intervals, from the topic "credible" of docs/coverage.md.
CREDIBLE_COVERAGE = (
    "95 % credible intervals of the accuracy in simulations (docs/coverage.md): they contain that "
    "of the same network on new images in 93 % of the cases with 2 classes and 500 images, in 84 % "
    "at an accuracy of 99.5 %, and never with 10 classes of 50 images, because of the flat prior; "
    "the mean of new trials in 86 % if these differ by 1.5 points, in 48 % if by 5 points"
)

if TYPE_CHECKING:
    from benchmark.report.tables.results_table import Table


def describe_table(
    table: Table, data: DataSummary, selected_runs: Sequence[SelectedRun]
) -> list[str]:
    """Return the sentences that do not depend on the printed spread.

    Args:
        table: The table with its rows.
        data: The data set of most runs.
        selected_runs: All selected runs.
    """
    if not selected_runs:
        return ["No run has finished."]
    sentences = [f"Model selection: {_criteria(table)}{_draws(table)}."]
    with_groups = dict.fromkeys(
        title_of(row.criterion)
        for row in table.rows
        if row.selected_runs
        and row.criterion in CRITERIA
        and CRITERIA[row.criterion].needs.val_groups
    )
    if with_groups:
        sentences.append(
            f"Selection by {' or '.join(with_groups)} uses the group labels of validation images, "
            "also for methods that need none."
        )
    sentences += _definitions(table, data, selected_runs)
    names = [name for name in ("val", *data.test_splits) if name in table.sizes]
    sentences.append(f"n: {', '.join(f'{name} {table.sizes[name]:,}' for name in names)}.")
    requested = [run for row in table.rows if row.requested for run in row.selected_runs]
    sentences.append(_network(requested or selected_runs))
    return sentences


def describe_needs(table: Table) -> list[str]:
    """Return what the annotations are that the methods of the rows need."""
    needed = dict.fromkeys(name for row in table.rows for name in row.needs or ())
    if not needed:
        return []
    described = {**DESCRIPTIONS, **WITHOUT_ANNOTATION}
    needs = "; ".join(f"{name} = {described.get(name, name)}" for name in needed)
    return [f"Needs: {needs}."]


def describe_numbers(table: Table, spread: str) -> list[str]:
    """Return what the numbers are, what stands beside them, and how many images were tested.

    Args:
        table: The table with its rows.
        spread: ``sd``, ``interval``, ``credible`` or ``both``.
    """
    values = [value for row in table.rows for value in row.values if value.trials]
    if not values:
        return []
    return [f"Accuracy in per cent, {_center(values, spread)}{_test_images(table)}."]


def _test_images(table: Table) -> str:
    """Return how many test images the columns are computed on, as ``; n = 500 test images``."""
    used = dict.fromkeys(split for column in table.columns for split in column.splits)
    sizes = {split: table.sizes[split] for split in used if split in table.sizes}
    if not sizes:
        return ""
    if len(set(sizes.values())) == 1:
        each = " of each split" if len(sizes) > 1 else ""
        return f"; n = {next(iter(sizes.values())):,} test images{each}"
    return f"; n: {', '.join(f'{split} {size:,}' for split, size in sizes.items())}"


def describe_spread(table: Table, spread: str) -> list[str]:
    """Return what the brackets beside a value are, and what the intervals are for.

    Args:
        table: The table with its rows.
        spread: ``sd``, ``interval``, ``credible`` or ``both``.
    """
    values = [value for row in table.rows for value in row.values if value.trials]
    if not values:
        return []
    sentences: list[str] = []
    if spread == Spread.CREDIBLE:
        sentences += _posterior(table)
    shown = [value.shown(spread) for value in values]
    pairs = [(value, e) for value, e in zip(values, shown, strict=True) if e.low is not None]
    if spread == Spread.SD:
        pairs = [(value, e) for value, e in pairs if e.sd is None or value.shows_bounds]
    kinds = dict.fromkeys(e.kind for _, e in pairs if e.kind != CREDIBLE)
    if kinds:
        other = "Other brackets" if any(e.kind == CREDIBLE for _, e in pairs) else "Brackets"
        sentences.append(f"{other}: 95 % intervals ({'; '.join(kinds)}).")
    if pairs:
        sentences += _target({value.trials for value, _ in pairs})
    return sentences


def _center(values: Sequence[Value], spread: str) -> str:
    """Return how many trials a value is from, and what ± is."""
    trials = sorted({value.trials for value in values})
    several = [number for number in trials if number > 1]
    count = "1 trial" if trials == [1] else f"mean over {_range(several)} trials"
    if spread == Spread.INTERVAL:
        return f"{count}{', or 1 trial' if several and 1 in trials else ''}"
    single = _one_trial([value.shown(spread) for value in values if value.trials == 1])
    if not several:
        return f"{count}: {single}, test sampling only"
    one = f"; rows with 1 trial: {single}, test sampling only" if 1 in trials else ""
    return f"mean ± sd over {_range(several)} trials{one}"


def _one_trial(shown: Sequence[Estimate]) -> str:
    """Return what values of single trials and their ± are."""
    kinds = {
        "posterior mean ± posterior sd": [e for e in shown if e.kind == CREDIBLE],
        "plug-in ± posterior sd": [e for e in shown if e.kind != CREDIBLE and e.is_posterior],
        "plug-in ± standard error over images": [e for e in shown if not e.is_posterior],
    }
    used = [text for text, found in kinds.items() if any(e.sd is not None for e in found)]
    return " or ".join(used) or "plug-in"


def _posterior(table: Table) -> list[str]:
    """Return what the posterior is, how far it lies from the plug-in value, and what has none."""
    values = [value for row in table.rows for value in row.values if value.trials]
    shifts = [
        abs((value.posterior.value or 0.0) - (value.estimate.value or 0.0))
        for value in values
        if value.posterior is not None
    ]
    if not shifts:
        return [
            "No cell has a credible interval, which is defined for one trial with one label per "
            "image and independent images."
        ]
    sentences = [
        "Posterior: flat priors of the class shares and of each class's predictions (TEA paper, "
        f"Appendix H); its means differ from the plug-in values by up to {100 * max(shifts):.1f} "
        "points. Brackets beside it: 95 % credible intervals."
    ]
    without = dict.fromkeys(
        " ".join(column.title)
        for row in table.rows
        for column, value in zip(table.columns, row.values, strict=True)
        if value.trials == 1 and value.posterior is None
    )
    if without:
        sentences.append(f"Without posterior, so plug-in values are printed: {', '.join(without)}.")
    return sentences


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _target(trials: set[int]) -> list[str]:
    """Return what the intervals are for."""
    if trials == {1}:
        return [
            "The intervals are for these trained networks on new test images, not for the method "
            "with other seeds."
        ]
    one = ", with 1 trial for these networks on new test images" if 1 in trials else ""
    return [f"The intervals are for new trials and new test images{one}."]


def describe_marks(table: Table, best: str = "Bold") -> list[str]:
    """Return what the marks of a table mean, and how likely a difference is found.

    Args:
        table: The table with its rows.
        best: How the best value of a column is printed.
    """
    values = [value for row in table.rows for value in row.values]
    if not any(value.is_top for value in values):
        return []
    if not any(value.best for value in values):
        return [f"{best}: the best value of its column."]
    how: dict[Pairing, list[str]] = {}
    for column, marks in zip(table.columns, table.marks, strict=True):
        for pairing in dict.fromkeys(c.pairing for c in marks.comparisons if c.pairing):
            how.setdefault(pairing, []).append(" ".join(column.title))
    named = [f"{pairing}: {', '.join(titles)}" for pairing, titles in how.items()]
    pairs = "; ".join(named if len(how) > 1 else how)
    sentences = [
        f"{best}: the best value of its column. ≈ not distinguishable from the best of its column "
        f"({100 * ALPHA:g} %, Holm over all pairs; {pairs})."
    ]
    if all(value.trials <= 1 for value in values):
        sentences.append("With 1 trial, a mark compares these networks, not the methods.")
    if any(value.not_compared for value in values):
        sentences.append("? not compared with the best of its column.")
    if table.columns and (sentence := _power(table, table.columns[0], table.marks[0])):
        sentences.append(sentence)
    return sentences


def _power(table: Table, column: Metric, marks: Marks) -> str:
    """Return how often a difference would be found in tables like this one.

    The comparison with the median standard error stands for all.
    """
    known = [c for c in marks.comparisons if c.error is not None and c.error.sd > 0.0]
    if not known:
        return ""
    median = statistics.median_low([c.error.sd for c in known if c.error is not None])
    typical = next(c for c in known if c.error is not None and c.error.sd == median)
    assert typical.error is not None
    methods = sum(best is not None for best in marks.best)
    images = table.sizes.get(column.splits[0])
    clause = describe_power(typical.error, typical.trials, images, methods, ALPHA)
    return f"Power ({' '.join(column.title)}): {clause}."


def _criteria(table: Table) -> str:
    """Return the criterion of the table, and those of the methods that have another one."""
    others: dict[str, list[str]] = {}
    for row in table.rows:
        if row.selected_runs and row.criterion != table.criterion:
            others.setdefault(row.criterion, []).append(row.label)
    parts = [f"for {', '.join(labels)}: {title_of(name)}" for name, labels in others.items()]
    return "; ".join([title_of(table.criterion), *parts])


def _draws(table: Table) -> str:
    most = max((run.draw_count for row in table.rows for run in row.selected_runs), default=1)
    if most < 2:
        return ""
    used = {row.criterion for row in table.rows if row.selected_runs}
    steps = [name for name in used if name in CRITERIA and not CRITERIA[name].is_quality]
    how = "validation accuracy" if steps else "the same"
    if steps and len(used) > len(steps):
        how = f"the same (with {' or '.join(map(title_of, steps))} by validation accuracy)"
    return f", then the best of {most} draws in each trial by {how}"


def _definitions(
    table: Table, data: DataSummary, selected_runs: Sequence[SelectedRun]
) -> list[str]:
    """Return sentences that explain the columns."""
    several_trials = any(value.trials > 1 for row in table.rows for value in row.values)
    sentences: list[str] = []
    for column in table.columns:
        clause = column.caption(selected_runs, data, several_trials=several_trials)
        if clause and column.continues_caption and sentences:
            sentences[-1] += f"; {clause}"
        elif clause:
            sentences.append(clause)
    return [f"{sentence}." for sentence in sentences]


def _network(selected_runs: Iterable[SelectedRun]) -> str:
    specs = [run.run.spec for run in selected_runs if run.run.spec]
    backbones = sorted({spec.backbone for spec in specs})
    steps = sorted({int(spec.budget["steps"]) for spec in specs if "steps" in spec.budget})
    budget = ""
    if steps:
        numbers = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
        budget = f", {numbers} steps"
    return f"Backbone: {', '.join(backbones)}{budget}."
