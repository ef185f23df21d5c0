"""What every method costs: time, speed, memory and size, beside ERM's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmark.core.errors import UserError
from benchmark.core.layout import RunFolder
from benchmark.core.record import RunRecord, read_record
from benchmark.report.tables.numbers import DASH
from benchmark.report.tables.report_table import REPORT_TABLES, ReportTable
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: The method that the ratios are against, as in the eX2L paper's Table 8.
BASE = "erm"


@REPORT_TABLES.register
class CostTable(ReportTable):
    """Time, speed, memory and number of parameters of each method."""

    name = "cost"
    position = 60
    in_appendix = True

    def sheet_of(self, table: Table) -> Sheet | None:
        return cost_sheet(table)


def cost_sheet(table: Table) -> Sheet | None:
    """Training time, its ratio to ERM's, worst-group accuracy's ratio to ERM's, images/s, parameters and memory.

    Where a method has upstream runs (a teacher, a biased model), their training time too, and the ratio of both.
    """
    rows = [row for row in table.rows if row.selected_runs]
    if not rows:
        return None
    base = next((row for row in rows if row.method == BASE), None)
    staged = any(record.upstream for row in rows for record in _records(row))
    before = [("upstream", "seconds"), ("ratio with", "upstream")] if staged else []
    heads = [
        ("method",), ("training", "seconds"), ("ratio", f"to {BASE}"), *before, ("worst group,", f"ratio to {BASE}"),
        ("images", "per second"), ("parameters", "(millions)"), ("peak memory", "(MB)"),
    ]  # fmt: skip
    shown = [_cells(table, row, base, staged) for row in rows]
    records = [record for row in rows for record in _records(row)]
    devices = sorted({record.machine.device for record in records})
    caption = [
        f"Means over the winners' runs, on {', '.join(devices)}; parameters are those of the model that predicts."
    ]
    if "cpu" in devices:
        caption.append("Peak memory on a CPU is the whole process's, data and Python included.")
    if staged:
        caption.append(
            "Upstream: training seconds of the runs that came first (teachers, biased models) and of theirs, beside "
            "the method's own; several runs may share them."
        )
    notes = (
        ["the runs were made on different devices: times do not compare"]
        if len(devices) > 1
        else []
    )
    threads = {record.machine.threads for record in records}
    if len(threads) > 1:
        notes.append("the runs had different numbers of threads: times do not compare")
    return Sheet(f"{table.title}, cost", caption, heads, shown, notes=notes)


def _records(row: Row) -> list[RunRecord]:
    return [w.run.record for w in row.selected_runs if w.run.record is not None]


def _upstream_seconds(folder: RunFolder, record: RunRecord) -> float | None:
    """Training seconds of all runs that had to come before, each once; None where a record of them is missing."""
    wanted, seen = list(dict.fromkeys(first.key for first in record.upstream.values())), 0
    total = 0.0
    while seen < len(wanted):
        try:
            first = read_record(folder.sweep.run(wanted[seen]).path)
        except (OSError, UserError):
            return None
        seen += 1
        total += first.seconds.training
        wanted += [run.key for run in first.upstream.values() if run.key not in wanted]
    return total


def _upstream_cells(row: Row, training: float | None, reference: float | None) -> list[str]:
    found = [
        _upstream_seconds(w.run.folder, w.run.record)
        for w in row.selected_runs
        if w.run.record is not None
    ]
    known = [value for value in found if value is not None]
    before = _mean(known) if len(known) == len(found) else None
    both = None if training is None or before is None else training + before
    return [DASH if not before else f"{before:.1f}", _ratio(both, reference)]


def _cells(table: Table, row: Row, base: Row | None, staged: bool) -> list[str]:
    records = _records(row)
    training = _mean([r.seconds.training for r in records])
    reference = _mean([r.seconds.training for r in _records(base)]) if base else None
    worst, base_worst = _worst(table, row), _worst(table, base) if base else None
    return [
        row.marked_label,
        DASH if training is None else f"{training:.1f}",
        _ratio(training, reference),
        *(_upstream_cells(row, training, reference) if staged else []),
        _ratio(worst, base_worst),
        _number(
            _mean([r.images_per_second for r in records if r.images_per_second]), 1.0, 0
        ),  # none: no steps made
        _number(_mean([float(r.parameters) for r in records]), 1e-6, 2),
        _number(
            _mean([float(r.peak_memory_bytes) for r in records if r.peak_memory_bytes]), 1e-6, 0
        ),  # 0: unknown
    ]


def _worst(table: Table, row: Row) -> float | None:
    found = [
        v
        for c, v in zip(table.columns, row.values, strict=True)
        if c.name == "worst_group_accuracy"
    ]
    return found[0].estimate.value if found else None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _ratio(value: float | None, base: float | None) -> str:
    return DASH if value is None or not base else f"{value / base:.2f}"


def _number(value: float | None, scale: float, digits: int) -> str:
    return DASH if value is None else f"{value * scale:,.{digits}f}"
