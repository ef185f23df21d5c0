"""One section per run: its hyper-parameters, curves and cost; and what failed, with the reason."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.core.counts import accuracy, worst_group_accuracy
from benchmark.core.errors import UserError
from benchmark.core.failure import read_failure
from benchmark.core.layout import State
from benchmark.core.record import read_record
from benchmark.core.text import printable_lines
from benchmark.report.html.parts import definition, text
from benchmark.report.records.learning_curves import Curves, read_curves
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.sweep_records import SweepRun
from benchmark.report.records.switches import switch_of
from benchmark.report.statistics.estimate import finite_or_none
from benchmark.report.tables.results_table import BEFORE_SWITCH

#: More run sections than this would make a page that no phone opens; the others are counted in a sentence.
MAX_RUNS_SHOWN = 300
_LINES = ("", "6 4", "2 3", "9 3 2 3")


def selected_runs_part(selected_runs: Sequence[SelectedRun], shown: int = MAX_RUNS_SHOWN) -> str:
    """A foldable section for every selected run."""
    parts = [_selected_run(selected_run) for selected_run in selected_runs[:shown]]
    left = len(selected_runs) - len(parts)
    more = (
        f"<p>{left} more chosen runs are not shown here; their folders hold the same.</p>"
        if left > 0
        else ""
    )
    return "".join(parts) + more


def _selected_run(selected_run: SelectedRun) -> str:
    run, record, spec = selected_run.run, selected_run.run.record, selected_run.run.spec
    if record is None or spec is None:
        return ""
    curves = read_curves(run.folder, record.data)
    best = f", best of {selected_run.draw_count} draws" if selected_run.draw_count > 1 else ""
    value = "" if selected_run.at.value is None else f", criterion {selected_run.at.value:.4g}"
    begins = f"within the first {switch_of(run):,} steps, which do not train the method yet"
    early = f" {BEFORE_SWITCH} {begins}" if selected_run.is_before_switch else ""
    pairs: list[tuple[str, object]] = [
        ("chosen", f"step {selected_run.at.step:,} of {record.steps:,}{value}{best}{early}"),
        *(
            (f"accuracy, {split}", _accuracy(selected_run, split))
            for split in ("val", *record.data.test_splits)
        ),
        ("hyper-parameters", _pairs(spec.hparams)),
        ("backbone", _named(spec.backbone, spec.backbone_options)),
        ("data", _named(spec.dataset, spec.dataset_options)),
        ("budget", _pairs(spec.budget)),
        (
            "training",
            f"{record.seconds.training:.1f} s, {record.images_per_second:,.0f} images/s",
        ),
        (
            "parameters, memory",
            f"{record.parameters:,}; "
            + (
                f"{record.peak_memory_bytes / 1e6:,.0f} MB at most"
                if record.peak_memory_bytes
                else "unknown"
            ),
        ),
        (
            "machine",
            f"{record.machine.device}, {record.machine.threads or '?'} threads",
        ),
        ("versions", _pairs(record.machine.versions)),
        ("commit", record.machine.commit),
        ("settings", _pairs(record.machine.settings)),
        ("resumed under other conditions", "; ".join(record.machine.resumed)),
        *((role, _upstream(run, role, key)) for role, key in spec.upstream.items()),
        ("paper", record.method.paper),
        (
            "on record",
            _pairs(record.extra),
        ),
        ("finished", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(record.finished))),
        ("folder", f"{run.folder.path.parent.name}/{run.key}, attempt {record.attempt}"),
    ]
    title = f"{text(run.method)}, trial {selected_run.trial}" + (
        f", draw {run.draw}" if run.draw else ""
    )
    note = f"<p>{text(curves.note)}</p>" if curves.note else ""
    body = definition([pair for pair in pairs if pair[1] not in (None, "")])
    return f'<details id="run-{text(run.key)}"><summary>{title}</summary>{curve_svg(curves)}{note}{body}</details>'


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
    """The run that came first, and its own scores at the step whose weights were used, its first criterion's."""
    try:
        first = read_record(run.folder.path).upstream[role]
        chosen = first.selected[run.spec.selection[0]] if run.spec else None
    except (OSError, UserError, KeyError):
        chosen = None
    if chosen is None:
        return f"{key}; its scores are not in {run.folder.record.name}"
    found = {split: finite_or_none(accuracy(counts)) for split, counts in chosen.counts.items()}
    scores = [f"{name} {100 * value:.1f} %" for name, value in found.items() if value is not None]
    return f"{first.method} ({key}), step {chosen.step:,}; accuracy: {', '.join(scores)}"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} = {f'{v:.6g}' if isinstance(v, float) else v}" for k, v in values.items()
    )


def _named(name: str, options: Mapping[str, Any]) -> str:
    return f"{name} ({_pairs(options)})" if options else name


def curve_svg(curves: Curves) -> str:
    """Accuracy (solid) and worst group (dashed) on validation against the step; nothing where there is no log."""
    series = [(f"accuracy, {split}", values) for split, values in curves.accuracy.items()]
    if any(value is not None for value in curves.worst.get("val", [])):
        series.append(("worst group, val", curves.worst["val"]))
    if len(curves.steps) < 2 or not series:
        return ""
    first, last = curves.steps[0], curves.steps[-1]
    width, height, left, top = 360, 190, 34, 8

    def x(step: int) -> float:
        return left + (width - left - 8) * (step - first) / max(1, last - first)

    def y(value: float) -> float:
        return top + (height - top - 46) * (1 - value)

    parts = [
        f'<line x1="{left}" x2="{width - 8}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="currentColor" opacity=".2"/>'
        f'<text x="{left - 4}" y="{y(v) + 4:.1f}" text-anchor="end">{v * 100:.0f}</text>'
        for v in (0.0, 0.5, 1.0)
    ]
    for step, anchor in ((first, "start"), (last, "end")):
        parts.append(
            f'<text x="{x(step):.1f}" y="{y(0) + 15:.1f}" text-anchor="{anchor}">{step:,}</text>'
        )
    for i, (name, values) in enumerate(series[:4]):
        points = " ".join(
            f"{x(s):.1f},{y(v):.1f}"
            for s, v in zip(curves.steps, values, strict=True)
            if v is not None
        )
        dash = (
            f'fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray="{_LINES[i]}"'
        )
        key = 4 + (i % 2) * 180, height - 16 + (i // 2) * 13
        parts.append(f'<polyline points="{points}" {dash}/>')
        parts.append(
            f'<path d="M{key[0]} {key[1] - 4}h26" {dash}/><text x="{key[0] + 31}" y="{key[1]}">{text(name)}</text>'
        )
    label = (
        f"Curves over {len(curves.steps)} evaluations: {', '.join(name for name, _ in series[:4])}"
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{text(label)}" font-size="11" '
        f'fill="currentColor">{"".join(parts)}</svg>'
    )


def unfinished_part(runs: Sequence[SweepRun], shown: int = MAX_RUNS_SHOWN) -> str:
    """What has no result: state and reason of every run, tracebacks folded away."""
    left = [run for run in runs if run.state != State.DONE]
    if not left:
        return ""
    rows = "".join(_unfinished_row(run) for run in left[:shown])
    more = f"<p>and {len(left) - shown} more.</p>" if len(left) > shown else ""
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("run", "data", "method", "trial", "draw", "state", "why")
    )
    table = f'<table class="cards"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<h2 id="unfinished">Without a result</h2><div class="wide">{table}</div>{more}'


def _unfinished_row(run: SweepRun) -> str:
    trace = _traceback(run) if run.state == State.FAILED else ""
    folded = f"<details><summary>traceback</summary><pre>{trace}</pre></details>" if trace else ""
    cells = {
        "run": run.key, "data": run.dataset, "method": run.method, "trial": "" if run.trial is None else run.trial,
        "draw": "" if run.draw is None else run.draw, "state": run.state, "why": run.reason,
    }  # fmt: skip
    parts = [f'<td data-label="{name}"><span>{text(value)}' for name, value in cells.items()]
    return f"<tr>{'</span></td>'.join(parts)}{folded}</span></td></tr>"


def _traceback(run: SweepRun) -> str:
    try:
        found = read_failure(run.folder.path).traceback
    except (OSError, UserError):
        return ""
    return html.escape(printable_lines(found))
