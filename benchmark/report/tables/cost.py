"""Cost of every method: training time, speed, memory and number of parameters."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmark.core.errors import UserError
from benchmark.core.layout import RunFolder
from benchmark.core.record import RunRecord, read_record
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.report_table import REPORT_TABLES, ReportTable
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: Method that ratios refer to, as in Table 8 of the eX2L paper.
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
    """Return the cost of every method, with ratios to ERM; None if no run has finished.

    If methods have upstream runs, such as a teacher, the sheet also has their training time.
    """
    rows = [row for row in table.rows if row.selected_runs]
    if not rows:
        return None
    base = next((row for row in rows if row.method == BASE), None)
    staged = any(record.upstream for row in rows for record in _records(row))
    upstream = [("upstream", "seconds"), ("ratio with", "upstream")] if staged else []
    timed = any(record.inference_images_per_second for row in rows for record in _records(row))
    inference = [("inference,", "images/second")] if timed else []
    heads = [
        ("method",),
        ("training", "seconds"),
        ("ratio", f"to {base.label if base else BASE}"),
        *upstream,
        ("worst group,", f"minus {base.label if base else BASE}"),
        ("images", "per second"),
        *inference,
        ("parameters", "(millions)"),
        ("peak memory", "(MB)"),
    ]
    shown = [_cells(table, row, base, staged=staged, timed=timed) for row in rows]
    records = [record for row in rows for record in _records(row)]
    devices = sorted({record.machine.device for record in records})
    caption = [
        f"Means over the selected runs, on {', '.join(devices)}; "
        "parameters are those of the model that predicts."
    ]
    if "cpu" in devices:
        caption.append("Peak memory on a CPU is that of the process, including data and Python.")
    if staged:
        caption.append(
            "Upstream: training seconds of all upstream runs, such as teachers; several runs may "
            "share them."
        )
    if timed:
        caption.append(
            "Images per second are those of training; inference: forward passes of the last "
            "evaluation, in batches of up to 500 images."
        )
    notes = []
    if len(devices) > 1:
        notes.append("the runs were made on different devices: times do not compare")
    threads = {record.machine.threads for record in records}
    if len(threads) > 1:
        notes.append("the runs had different numbers of threads: times do not compare")
    return Sheet(f"{table.title}, cost", caption, heads, shown, notes=notes)


def _records(row: Row) -> list[RunRecord]:
    return [w.run.record for w in row.selected_runs if w.run.record is not None]


def _upstream_seconds(folder: RunFolder, record: RunRecord) -> float | None:
    """Return the training seconds of all upstream runs, direct or not; None if one is unknown."""
    keys = list(dict.fromkeys(run.key for run in record.upstream.values()))
    total = 0.0
    for key in keys:  # grows by the upstream runs of each run
        try:
            upstream = read_record(folder.sweep.run(key).path)
        except (OSError, UserError):
            return None
        total += upstream.seconds.training
        keys += [run.key for run in upstream.upstream.values() if run.key not in keys]
    return total


def _upstream_cells(row: Row, training: float | None, reference: float | None) -> list[str]:
    seconds = [
        _upstream_seconds(w.run.folder, w.run.record)
        for w in row.selected_runs
        if w.run.record is not None
    ]
    known = [value for value in seconds if value is not None]
    upstream = _mean(known) if len(known) == len(seconds) else None
    total = None if training is None or upstream is None else training + upstream
    return [f"{upstream:.1f}" if upstream else DASH, _ratio(total, reference)]


def _cells(table: Table, row: Row, base: Row | None, *, staged: bool, timed: bool) -> list[str]:
    records = _records(row)
    training = _mean([r.seconds.training for r in records])
    reference = _mean([r.seconds.training for r in _records(base)]) if base else None
    worst = _worst(table, row)
    base_worst = _worst(table, base) if base else None
    speeds = [r.images_per_second for r in records if r.images_per_second]  # 0: no steps made
    inference = [r.inference_images_per_second for r in records if r.inference_images_per_second]
    sizes = [float(r.parameters) for r in records]
    memory = [float(r.peak_memory_bytes) for r in records if r.peak_memory_bytes]  # 0: unknown
    return [
        row.marked_label,
        DASH if training is None else f"{training:.1f}",
        _ratio(training, reference),
        *(_upstream_cells(row, training, reference) if staged else []),
        _points(worst, base_worst),
        _number(_mean(speeds), 1.0, 0),
        *([_number(_mean(inference), 1.0, 0)] if timed else []),
        _number(_mean(sizes), 1e-6, 2),
        _number(_mean(memory), 1e-6, 0),
    ]


def _worst(table: Table, row: Row) -> float | None:
    for column, value in zip(table.columns, row.values, strict=True):
        if column.name == "worst_group_accuracy":
            return value.estimate.value
    return None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _ratio(value: float | None, base: float | None) -> str:
    return DASH if value is None or not base else f"{value / base:.2f}"


def _points(value: float | None, base: float | None) -> str:
    """Return a difference of accuracies in points, with its sign."""
    if value is None or base is None:
        return DASH
    text = percent(value - base, 1)
    return f"+{text}" if value > base else text


def _number(value: float | None, scale: float, digits: int) -> str:
    return DASH if value is None else f"{value * scale:,.{digits}f}"
