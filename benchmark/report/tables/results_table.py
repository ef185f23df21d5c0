"""The results of a sweep as tables: columns, rows, captions and footnotes."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmark.core.backbone_options import with_defaults
from benchmark.core.counts import accuracy, num_images
from benchmark.core.criteria import title_of
from benchmark.core.errors import UserError
from benchmark.core.layout import State
from benchmark.core.needs import without_mask_annotation
from benchmark.core.registry import did_you_mean
from benchmark.core.spec import RunSpec
from benchmark.core.summaries import UNKNOWN_DATA, DataSummary
from benchmark.core.titles import Titles
from benchmark.report.records.model_selection import Cell, SelectedRun, cells_of
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.sweep_records import Sweep
from benchmark.report.records.switches import switch_of
from benchmark.report.tables.caption import (
    CREDIBLE_COVERAGE,
    describe_marks,
    describe_needs,
    describe_numbers,
    describe_spread,
    describe_table,
)
from benchmark.report.tables.metric import Metric, columns_of
from benchmark.report.tables.pairwise import NO_MARKS, Entry, Marks, mark_best
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.run_conditions import condition_notes
from benchmark.report.tables.value import NO_VALUE, Value

#: Runs that a footnote names by their keys.
MAX_RUNS_NAMED = 10
#: Behind the name of a row that was chosen before its method began.
BEFORE_SWITCH = "†"


@dataclass
class Row:
    """One method.

    Attributes:
        method: Its name in the sweep file.
        requested: Whether the sweep file asks for it, or only other runs need it.
        needs: Annotations that it needs; None if no run has finished, so that this is unknown.
        values: One per column.
        notes: Footnotes of the row.
        selected_runs: The selected run of each trial.
        label: Title in the table, unique there.
        code_label: The same with code names, for programs.
        criterion: Criterion that selected steps and draws.
        series: Position of the method among those of all tables, from which figures take its
            colour and marker.
    """

    method: str
    requested: bool
    needs: tuple[str, ...] | None
    values: list[Value]
    notes: list[str]
    selected_runs: list[SelectedRun] = field(default_factory=list)
    label: str = ""
    code_label: str = ""
    criterion: str = ""
    series: int = 0

    @property
    def before_switch(self) -> list[SelectedRun]:
        """The selected runs that had made no step of their method yet."""
        return [run for run in self.selected_runs if run.is_before_switch]

    @property
    def marked_label(self) -> str:
        """The label, with a mark if a run was selected before its method began."""
        return self.label + (BEFORE_SWITCH if self.before_switch else "")


@dataclass
class Table:
    """The results on one data set.

    Attributes:
        dataset: The data set as the sweep file names it.
        title: Title of the table.
        criterion: Selection criterion of most rows.
        stand_in: Whether the data were generated in place of real ones.
        columns: The metrics.
        rows: The methods.
        caption: Sentences that depend neither on the printed spread nor on the shown rows, see
            ``full_caption``.
        notes: Footnotes of the table as a whole.
        sizes: Number of images of each split.
        marks: The marks of each column.
        has_several_labels: Whether an image may have several labels.
        titles: Titles of methods, data sets, explainers and groups.
        decimals: Digits after the point; None to choose them, see ``decimals_of``.
    """

    dataset: str
    title: str
    criterion: str
    stand_in: bool
    columns: list[Metric]
    rows: list[Row]
    caption: list[str]
    notes: list[str]
    sizes: Mapping[str, int]
    marks: list[Marks] = field(default_factory=list)
    has_several_labels: bool = False
    titles: Titles = field(default_factory=Titles)
    decimals: int | None = None

    def short_caption(self, spread: str = "sd") -> str:
        """Return what the table shows, on which data, and what stands beside a value.

        Args:
            spread: What is printed beside a value: ``sd``, ``interval``, ``credible`` or ``both``.
        """
        return " ".join([f"{self.title}.", *describe_numbers(self, spread)])

    def remarks(self, spread: str = "sd", best: str = "Bold") -> list[str]:
        """Return the sentences that explain marks, brackets and columns, the marks first.

        Args:
            spread: As in ``short_caption``.
            best: How the best value of a column is printed.
        """
        sentences = describe_marks(self, best)
        if any(row.before_switch for row in self.rows):
            sentences.append(
                f"{BEFORE_SWITCH} selected before the first step of the method itself."
            )
        spreads = describe_spread(self, spread)
        return [*sentences, *spreads, *self.caption, *describe_needs(self)]

    def full_caption(self, spread: str = "sd") -> list[str]:
        """Return the short caption and the remarks."""
        return [self.short_caption(spread), *self.remarks(spread)]


def tables_of(
    sweep: Sweep,
    criterion: str,
    store: PredictionStore | None = None,
    posteriors: Posteriors | None = None,
    *,
    own: bool = False,
    requested: Collection[str] = (),
    methods: Sequence[str] = (),
) -> list[Table]:
    """Return one table per data set; stand-in data and real data never share one.

    Args:
        sweep: The runs.
        criterion: Criterion that selects steps and draws.
        store: Predictions, for intervals and marks that need them; None does without.
        posteriors: Posteriors of confusion matrices, of which the values of single trials have
            credible intervals if they are printed.
        own: Whether the first criterion of each method's own runs selects instead.
        requested: Names of metrics, columns or splits that the user asks for, see ``columns_of``.
        methods: The methods that the tables contain, in this order; none for all.

    Raises:
        UserError: If the sweep does not contain one of ``methods``.
    """
    by_dataset: dict[str, list[Cell]] = {}
    cells = cells_of(sweep, criterion, own=own)
    for cell in _chosen(cells, methods) if methods else cells:
        by_dataset.setdefault(cell.dataset, []).append(cell)
    tables = []
    for dataset, cells in by_dataset.items():
        kinds = sorted({_stand_in(w) for cell in cells for w in cell.selected_runs}) or [False]
        for stand_in in kinds:
            mixed = len(kinds) > 1
            table = _table(
                dataset, cells, criterion, stand_in, mixed, store, requested, sweep.titles
            )
            if posteriors is not None and posteriors.credible:
                _add_posteriors(table, posteriors, store)
            tables.append(table)
    _add_series(tables)
    return tables


def _add_series(tables: Sequence[Table]) -> None:
    """Number the methods over all tables, so that a method has the same colour in all figures."""
    numbers: dict[str, int] = {}
    for table in tables:
        for row in table.rows:
            row.series = numbers.setdefault(row.code_label, len(numbers))


def _chosen(cells: Sequence[Cell], methods: Sequence[str]) -> list[Cell]:
    """Return the cells of these methods, in their order, and those of their upstream runs."""
    known = dict.fromkeys(cell.method for cell in cells if cell.requested)
    for name in methods:
        if name not in known:
            raise UserError(f"the sweep has no method {name!r}{did_you_mean(name, known)}")
    order = {name: i for i, name in enumerate(dict.fromkeys(methods))}
    wanted = sorted(
        (cell for cell in cells if cell.requested and cell.method in order),
        key=lambda cell: order[cell.method],
    )
    serving = [cell for cell in cells if not cell.requested and set(cell.serves) & set(order)]
    return wanted + serving


def _add_posteriors(table: Table, posteriors: Posteriors, store: PredictionStore | None) -> None:
    """Add the posteriors of the values that come from a single trial."""
    for row in table.rows:
        for i, (column, value) in enumerate(zip(table.columns, row.values, strict=True)):
            if value.trials != 1:
                continue
            run = next(run for run in row.selected_runs if run.trial in (value.per_trial or {}))
            posterior = column.posterior(run, posteriors, store)
            row.values[i] = replace(value, posterior=posterior)
    if any(value.posterior for row in table.rows for value in row.values):
        table.notes.append(CREDIBLE_COVERAGE)
        how = posteriors.describe().removesuffix(".")
        table.notes += [how] if how else []


def _stand_in(selected_run: SelectedRun) -> bool:
    return bool(selected_run.run.record and selected_run.run.record.data.stand_in)


def _table(
    dataset: str,
    cells: list[Cell],
    criterion: str,
    stand_in: bool,
    mixed: bool,
    store: PredictionStore | None,
    requested: Collection[str],
    titles: Titles,
) -> Table:
    selected_runs = {
        id(cell): [w for w in cell.selected_runs if _stand_in(w) == stand_in] for cell in cells
    }
    all_runs = [w for cell in cells for w in selected_runs[id(cell)]]
    records = [w.run.record for w in all_runs if w.run.record]
    data = _usual_data([record.data for record in records])
    columns = columns_of(data, requested)
    usual = _usual([w for cell in cells if cell.requested for w in selected_runs[id(cell)]])
    counted = [c.criterion for c in cells if c.requested and selected_runs[id(c)]]
    criterion = max(dict.fromkeys(counted), key=counted.count, default=criterion)
    rows = [
        _row(cell, selected_runs[id(cell)], columns, usual, criterion, store, titles)
        for cell in cells
    ]
    _add_labels(rows, titles)
    marks = [NO_MARKS] * len(columns) if store is None else _mark_columns(rows, columns, store)
    kind = " (stand-in data: generated, not real)" if stand_in else " (real data)" if mixed else ""
    table = Table(
        dataset=dataset,
        title=f"{titles.of(dataset)}{kind}",
        criterion=criterion,
        stand_in=stand_in,
        columns=columns,
        rows=rows,
        caption=[],
        notes=[],
        sizes=dict(data.splits),
        marks=marks,
        has_several_labels=data.multi_label,
        titles=titles,
    )
    table.caption = describe_table(table, data, all_runs)
    table.notes = _table_notes(table, all_runs) + _prediction_notes(all_runs, store)
    return table


def _usual_data(found: Sequence[DataSummary]) -> DataSummary:
    """Return the data set that most runs describe; of equals the first."""
    kinds: list[DataSummary] = []
    counted: list[int] = []
    for data in found:
        if data in kinds:
            counted[kinds.index(data)] += 1
        else:
            kinds.append(data)
            counted.append(1)
    return kinds[counted.index(max(counted))] if kinds else UNKNOWN_DATA


def _row(
    cell: Cell,
    selected_runs: list[SelectedRun],
    columns: Sequence[Metric],
    usual: Mapping[str, str],
    criterion: str,
    store: PredictionStore | None,
    titles: Titles,
) -> Row:
    values = [
        column.value(selected_runs, store) if selected_runs else NO_VALUE for column in columns
    ]
    record = next((w.run.record for w in selected_runs if w.run.record), None)
    notes = [f"refused: {reason}" for reason in cell.refusals] + list(cell.notes)
    if cell.serves and not cell.requested:
        notes.append(f"trained for {', '.join(map(titles.of, cell.serves))}")
    came_first = (
        (role, first.method)
        for w in selected_runs
        if w.run.record
        for role, first in w.run.record.upstream.items()
    )
    notes += [f"{role}: {titles.of(method)}" for role, method in dict.fromkeys(came_first)]
    if selected_runs and cell.criterion != criterion:
        accuracies = _validation_accuracy(selected_runs)
        notes.append(f"model selection: {title_of(cell.criterion)}{accuracies}")
    notes += _before_switch(selected_runs)
    notes += _differences(selected_runs, usual)
    if not selected_runs and not notes:
        notes.append("no finished run")
    needs = record.method.needs if record else None
    if needs is not None and record is not None and record.data.unannotated_masks:
        needs = without_mask_annotation(needs)
    return Row(
        cell.method, cell.requested, needs, values, notes, selected_runs, criterion=cell.criterion
    )


def _validation_accuracy(selected_runs: Sequence[SelectedRun]) -> str:
    """Return the mean validation accuracy of the runs in brackets, or nothing if it is unknown."""
    known = [accuracy(w.at.counts["val"]) for w in selected_runs if "val" in w.at.counts]
    if not known:
        return ""
    return f" (validation accuracy {100 * statistics.fmean(known):.1f})"


def _before_switch(selected_runs: Sequence[SelectedRun]) -> list[str]:
    """Return a note on runs that were selected before their method began."""
    found = [w for w in selected_runs if w.is_before_switch]
    if not found:
        return []
    trials = ", ".join(str(w.trial) for w in found)
    steps = ", ".join(f"{w.at.step:,}" for w in found)
    switches = ", ".join(dict.fromkeys(f"{switch_of(w.run):,}" for w in found))
    return [
        f"trial{'s' if len(found) > 1 else ''} {trials}: chosen after {steps} steps, but the first "
        f"{switches} steps do not train the method yet; the score is not the method's"
    ]


def _settings(spec: RunSpec) -> dict[str, str]:
    """Return data options, budget and network of a run as texts."""
    named = {f"data {name}": value for name, value in spec.dataset_options.items()}
    named |= {f"budget {name}": value for name, value in spec.budget.items()}
    named |= {"backbone": spec.backbone} | {
        f"backbone {name}": v for name, v in with_defaults(spec.backbone_options).items()
    }
    return {name: str(value) for name, value in named.items()}


def _usual(selected_runs: Sequence[SelectedRun]) -> dict[str, str]:
    """Return the most frequent value of every setting."""
    counted: dict[str, dict[str, int]] = {}
    for selected_run in selected_runs:
        for name, value in (
            _settings(selected_run.run.spec).items() if selected_run.run.spec else ()
        ):
            values = counted.setdefault(name, {})
            values[value] = values.get(value, 0) + 1
    return {name: max(values, key=lambda value: values[value]) for name, values in counted.items()}


def _differences(selected_runs: Sequence[SelectedRun], usual: Mapping[str, str]) -> list[str]:
    """Return a note on settings of a row that differ from the usual ones."""
    odd: dict[str, dict[str, None]] = {}
    for selected_run in selected_runs:
        for name, value in (
            _settings(selected_run.run.spec).items() if selected_run.run.spec else ()
        ):
            if usual.get(name, value) != value:
                odd.setdefault(name, {})[value] = None
    parts = [f"{name} {'/'.join(values)} (others {usual[name]})" for name, values in odd.items()]
    return [f"unlike the other rows: {', '.join(parts)}"] if parts else []


def _add_labels(rows: Sequence[Row], titles: Titles) -> None:
    """Set the labels; runs that only serve others say so, and are numbered if kinds differ."""
    seen: dict[str, int] = {}
    for row in rows:
        kind = "" if row.requested else " (upstream)"
        label = f"{row.method}{kind}"
        seen[label] = seen.get(label, 0) + 1
        if seen[label] > 1:
            kind = f" (upstream {seen[label]})"
        row.code_label = f"{row.method}{kind}"
        row.label = f"{titles.of(row.method)}{kind}"


def _mark_columns(
    rows: Sequence[Row], columns: Sequence[Metric], store: PredictionStore
) -> list[Marks]:
    """Mark in each column what cannot be distinguished from the best.

    Runs that only serve others do not compete.
    """
    competing = [row for row in rows if row.requested]
    found = []
    for i, column in enumerate(columns):
        marks = mark_best(
            column, [Entry(row.selected_runs, row.values[i]) for row in competing], store
        )
        marked = zip(competing, marks.best, marks.not_compared, strict=True)
        for k, (row, best, problem) in enumerate(marked):
            row.values[i] = replace(
                row.values[i], best=best, not_compared=problem, is_top=k in marks.top
            )
        found.append(marks)
    return found


def _prediction_notes(
    selected_runs: Sequence[SelectedRun], store: PredictionStore | None
) -> list[str]:
    """Return notes on selected runs whose predictions cannot be used."""
    if store is None:
        return []
    reasons: dict[str, list[str]] = {}
    for selected_run in selected_runs:
        if selected_run.run.key in store.problems:
            reasons.setdefault(store.problems[selected_run.run.key], []).append(
                selected_run.run.key
            )
    return [
        f"{len(keys)} of {len(selected_runs)} selected runs ({', '.join(keys[:MAX_RUNS_NAMED])}"
        f"{', …' if len(keys) > MAX_RUNS_NAMED else ''}): {reason}; "
        "they are not compared image by image"
        for reason, keys in reasons.items()
    ]


def _table_notes(table: Table, selected_runs: Sequence[SelectedRun]) -> list[str]:
    """Return notes on changed data, oracle runs, sizes that do not add up, and conditions."""
    notes = []
    specs = [w.run.spec for w in selected_runs if w.run.spec]
    fingerprints: dict[str, set[str]] = {}
    for spec in specs:
        fingerprints.setdefault(str(sorted(spec.dataset_options.items())), set()).add(
            spec.data_fingerprint
        )
    if any(len(found) > 1 for found in fingerprints.values()):
        notes.append(
            "the data changed between these runs (several fingerprints): rows may not be comparable"
        )
    if any(spec.oracle for spec in specs):
        notes.append(
            "oracle: test splits were evaluated during training (selection never used them)"
        )
    odd = {
        split
        for w in selected_runs
        for split, counts in w.at.counts.items()
        if split in table.sizes and num_images(counts) != table.sizes[split]
    }
    if odd:
        notes.append(f"counts of {', '.join(sorted(odd))} do not add up to n in every run")
    return [*notes, *condition_notes([w.run.record for w in selected_runs if w.run.record])]


def summary_line(sweep: Sweep) -> str:
    """Return the states of a sweep: ``12 runs: 10 done, 1 failed, 1 pending; 2 refused``."""
    counted = ", ".join(f"{n} {state}" for state, n in sweep.states().items())
    refused = f"; {len(sweep.refused)} refused" if sweep.refused else ""
    unfinished = sum(
        n
        for state, n in sweep.states().items()
        if state in (State.PENDING, State.RUNNING, State.LOST)
    )
    hint = " (launch again for the rest)" if unfinished else ""
    runs = f"{len(sweep.all_runs)} run{'' if len(sweep.all_runs) == 1 else 's'}"
    return f"{runs}: {counted or 'none'}{refused}{hint}"
