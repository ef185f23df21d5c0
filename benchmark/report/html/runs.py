"""Sections of the HTML page about selected runs and about runs without a result."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.core.counts import accuracy, worst_group_accuracy
from benchmark.core.errors import UserError
from benchmark.core.failure import read_failure
from benchmark.core.layout import State
from benchmark.core.record import RunRecord, read_record
from benchmark.core.spec import RunSpec
from benchmark.core.text import one_line, printable_lines
from benchmark.report.html.parts import facts_table, folded, preformatted, scrolling, swatch, text
from benchmark.report.records.learning_curves import Curves, read_curves
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.sweep_records import SweepRun
from benchmark.report.records.switches import switch_of
from benchmark.report.statistics.estimate import finite_or_none
from benchmark.report.tables.numbers import plain
from benchmark.report.tables.results_table import BEFORE_SWITCH, Row, Table

#: Most sections of runs, so that a phone can open the page; the other runs are counted.
MAX_RUNS_SHOWN = 300
#: Dash patterns of the learning curves.
_LINES = ("", "6 4", "2 3", "9 3 2 3")


def selected_runs_part(table: Table, shown: int = MAX_RUNS_SHOWN) -> str:
    """Return a foldable section for every method, with one for each of its selected runs.

    Args:
        table: The results on one data set.
        shown: Most runs that are shown.
    """
    parts = []
    left = shown
    for row in table.rows:
        runs = "".join(map(_selected_run, row.selected_runs[:left]))
        scores = _scores(table, row)
        parts.append(folded(f"{one_line(row.marked_label)}: {scores}", runs, head=swatch(row)))
        left -= len(row.selected_runs[:left])
    more = sum(len(row.selected_runs) for row in table.rows) - shown
    if more > 0:
        parts.append(f"<p>{more} more selected runs are not shown; see their folders.</p>")
    return "".join(parts)


def _scores(table: Table, row: Row) -> str:
    """Return average and worst-group accuracy of a method, and the number of its trials."""
    trials = len(row.selected_runs)
    shown = [
        f"{title} {plain(value, 1)} %"
        for name, title in (
            ("average_accuracy", "average"),
            ("worst_group_accuracy", "worst group"),
        )
        for column, value in zip(table.columns, row.values, strict=True)
        if column.name == name and value.estimate.value is not None
    ]
    return ", ".join([*shown, f"{trials} trial{'s' if trials != 1 else ''}"])


def _selected_run(selected_run: SelectedRun) -> str:
    """Return a foldable section of one run, with its accuracy in the folded line."""
    record = selected_run.run.record
    if record is None or selected_run.run.spec is None:
        return ""
    curves = read_curves(selected_run.run.folder, record.data)
    title = f"trial {selected_run.trial}"
    if selected_run.run.draw:
        title += f", draw {selected_run.run.draw}"
    scores = _accuracy(selected_run, record.data.main_split) if record.data.main_split else None
    title += f": {scores}" if scores else ""
    note = f"<p>{text(curves.note)}</p>" if curves.note else ""
    body = facts_table(_facts(selected_run, record, selected_run.run.spec))
    return (
        f'<details id="run-{text(selected_run.run.key)}"><summary>{text(title)}</summary>'
        f"{curve_svg(curves, selected_run.at.step)}{note}{body}</details>"
    )


def _facts(selected_run: SelectedRun, record: RunRecord, spec: RunSpec) -> list[tuple[str, object]]:
    """Return what is known of a run, as names and values."""
    run = selected_run.run
    machine = record.machine
    pairs: list[tuple[str, object]] = [
        ("selected", _selection(selected_run, record)),
        *(
            (f"accuracy, {split}", _accuracy(selected_run, split))
            for split in ("val", *record.data.test_splits)
            if split not in record.data.unlabelled_splits
        ),
        ("hyper-parameters", _pairs(spec.hparams)),
        ("backbone", _named(spec.backbone, spec.backbone_options)),
        ("data", _named(spec.dataset, spec.dataset_options)),
        ("budget", _pairs(spec.budget)),
        ("training", f"{record.seconds.training:.1f} s, {record.images_per_second:,.0f} images/s"),
        ("inference", _speed(record.inference_images_per_second)),
        ("parameters", f"{record.parameters:,}"),
        ("peak memory", _megabytes(record.peak_memory_bytes)),
        ("machine", f"{machine.device}, {machine.threads or '?'} threads"),
        ("versions", _pairs(machine.versions)),
        ("commit", machine.commit),
        ("settings", _pairs(machine.settings)),
        ("resumed under other conditions", "; ".join(machine.resumed)),
        *((role, _upstream(run, role, key)) for role, key in spec.upstream.items()),
        ("paper", record.method.paper),
        ("recorded by the method", _pairs(record.extra)),
        ("finished", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.finished))),
        ("folder", f"{run.folder.path.parent.name}/{run.key}, attempt {record.attempt}"),
    ]
    return [(name, value) for name, value in pairs if value not in (None, "")]


def _selection(selected_run: SelectedRun, record: RunRecord) -> str:
    parts = [f"step {selected_run.at.step:,} of {record.steps:,}"]
    if selected_run.at.value is not None:
        parts.append(f"criterion {selected_run.at.value:.4g}")
    if selected_run.draw_count > 1:
        parts.append(f"best of {selected_run.draw_count} draws")
    shown = ", ".join(parts)
    if selected_run.is_before_switch:
        switch = switch_of(selected_run.run)
        shown += f" {BEFORE_SWITCH} the first {switch:,} steps do not train the method yet"
    return shown


def _speed(images_per_second: float | None) -> str:
    return "" if images_per_second is None else f"{images_per_second:,.0f} images/s"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size else "unknown"


def _accuracy(selected_run: SelectedRun, split: str) -> str | None:
    counts = selected_run.at.counts.get(split)
    average = None if counts is None else finite_or_none(accuracy(counts))
    if counts is None or average is None:
        return None
    shown = f"{average * 100:.1f} %"
    if counts.shape[-3] > 1:
        shown += f", worst group {worst_group_accuracy(counts) * 100:.1f} %"
    return shown


def _upstream(run: SweepRun, role: str, key: str) -> str:
    """Return an upstream run and its accuracy at the step of its first criterion, which is used."""
    try:
        first = read_record(run.folder.path).upstream[role]
        selected = first.selected[run.spec.selection[0]] if run.spec else None
    except (OSError, UserError, KeyError):
        selected = None
    if selected is None:
        return f"{key}; its scores are not in {run.folder.record.name}"
    values = {split: finite_or_none(accuracy(counts)) for split, counts in selected.counts.items()}
    scores = [f"{name} {100 * value:.1f} %" for name, value in values.items() if value is not None]
    return f"{first.method} ({key}), step {selected.step:,}; accuracy: {', '.join(scores)}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} = {f'{v:.6g}' if isinstance(v, float) else v}" for k, v in values.items()
    )


def _named(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} ({_pairs(options)})" if options else name


def curve_svg(curves: Curves, selected: int) -> str:
    """Return the learning curves of a run as an SVG element; empty without a log.

    Args:
        curves: The curves.
        selected: The selected step, which has a vertical line.
    """
    series = [(f"accuracy, {split}", values) for split, values in curves.accuracy.items()]
    if any(value is not None for value in curves.worst.get("val", [])):
        series.append(("worst group, val", curves.worst["val"]))
    if len(curves.steps) < 2 or not series:
        return ""
    first = curves.steps[0]
    last = curves.steps[-1]
    width = 360
    height = 190
    left = 34
    top = 8

    def x(step: int) -> float:
        return left + (width - left - 8) * (step - first) / max(1, last - first)

    def y(value: float) -> float:
        return top + (height - top - 46) * (1 - value)

    parts = [
        f'<line x1="{left}" x2="{width - 8}" y1="{y(v):.1f}" y2="{y(v):.1f}" '
        'stroke="currentColor" opacity=".2"/>'
        f'<text x="{left - 4}" y="{y(v) + 4:.1f}" text-anchor="end">{v * 100:.0f}</text>'
        for v in (0.0, 0.5, 1.0)
    ]
    for step, anchor in ((first, "start"), (last, "end")):
        parts.append(
            f'<text x="{x(step):.1f}" y="{y(0) + 15:.1f}" text-anchor="{anchor}">{step:,}</text>'
        )
    if first <= selected <= last:
        line = f"M{x(selected):.1f} {y(0):.1f}V{y(1):.1f}"
        parts.append(f'<path d="{line}" stroke="currentColor" opacity=".5"/>')
    for i, (name, values) in enumerate(series[:4]):
        points = " ".join(
            f"{x(s):.1f},{y(v):.1f}"
            for s, v in zip(curves.steps, values, strict=True)
            if v is not None
        )
        line = (
            f'fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="{_LINES[i]}"'
        )
        key_x = 4 + (i % 2) * 180
        key_y = height - 16 + (i // 2) * 13
        parts.append(f'<polyline points="{points}" {line}/>')
        parts.append(
            f'<path d="M{key_x} {key_y - 4}h26" {line}/>'
            f'<text x="{key_x + 31}" y="{key_y}">{text(name)}</text>'
        )
    names = ", ".join(name for name, _ in series[:4])
    label = f"{names} in {len(curves.steps)} evaluations; vertical line: selected step {selected:,}"
    return (
        f'<svg class="curves" viewBox="0 0 {width} {height}" role="img" aria-label="{text(label)}" '
        f'font-size="11" fill="currentColor">{"".join(parts)}</svg>'
    )


def unfinished_part(runs: Sequence[SweepRun], shown: int = MAX_RUNS_SHOWN) -> str:
    """Return a table of the runs without a result, with states, reasons and tracebacks."""
    left = [run for run in runs if run.state != State.DONE]
    if not left:
        return ""
    rows = "".join(_unfinished_row(run) for run in left[:shown])
    more = f"<p>and {len(left) - shown} more.</p>" if len(left) > shown else ""
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("run", "data", "method", "trial", "draw", "state", "reason")
    )
    table = f'<table class="cards"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    shown_table = scrolling(table, "Runs without a result")
    title = f"{len(left)} run{'s' if len(left) > 1 else ''} without a result, and why"
    return f'<h2 id="unfinished">Runs without a result</h2>{folded(title, f"{shown_table}{more}")}'


def _unfinished_row(run: SweepRun) -> str:
    trace = _traceback(run) if run.state == State.FAILED else ""
    folded = (
        f"<details><summary>traceback</summary>{preformatted(trace)}</details>" if trace else ""
    )
    cells = {
        "run": run.key,
        "data": run.dataset,
        "method": run.label,
        "trial": "" if run.trial is None else run.trial,
        "draw": "" if run.draw is None else run.draw,
        "state": run.state,
        "reason": run.reason,
    }
    parts = [f'<td data-label="{name}"><span>{text(value)}' for name, value in cells.items()]
    return f"<tr>{'</span></td>'.join(parts)}{folded}</span></td></tr>"


def _traceback(run: SweepRun) -> str:
    try:
        traceback = read_failure(run.folder.path).traceback
    except (OSError, UserError):
        return ""
    return html.escape(printable_lines(traceback))
