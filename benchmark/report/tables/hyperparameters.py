"""Which hyper-parameters won, and the sweep that measures the winners on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.spec import RunSpec
from benchmark.core.text import one_line
from benchmark.report.records.model_selection import rank
from benchmark.report.records.sweep_records import Sweep
from benchmark.report.records.switches import switch_of
from benchmark.report.tables.report_table import (
    REPORT_TABLES,
    Report,
    ReportTable,
)
from benchmark.report.tables.results_table import BEFORE_SWITCH, Row, Table
from benchmark.report.tables.sheet import Sheet


@REPORT_TABLES.register
class HyperparameterTable(ReportTable):
    """Hyper-parameters of the selected runs."""

    name = "hyperparameters"
    position = 70
    in_appendix = True
    json_key = "winners"

    def sheet_of(self, table: Table) -> Sheet | None:
        return hparam_sheet(table)

    def json_records(self, report: Report) -> list[dict[str, Any]]:
        return json_selected_runs(report.tables)


def hparam_sheet(table: Table) -> Sheet | None:
    """The resolved hyper-parameters of every winner; those that all winners share are named once, in the caption."""
    rows = [
        (row, {w.trial: w.run.spec for w in row.selected_runs if w.run.spec}) for row in table.rows
    ]
    rows = [(row, specs) for row, specs in rows if specs]
    if not rows:
        return None
    shared = (
        _shared([spec for _, specs in rows for spec in specs.values()]) if len(rows) > 1 else {}
    )
    caption = [
        "Trial: draw and step of the winner; values that differ between trials are listed in their order."
    ]
    if shared:
        caption.append(
            f"The same for all: {', '.join(f'{name}={value}' for name, value in shared.items())}."
        )
    heads = [("method",), ("trial: draw@step",), ("hyper-parameters",)]
    lines = [[row.marked_label, _draws(row), _common(specs, shared)] for row, specs in rows]
    return Sheet(f"{table.title}, hyper-parameters of the winners", caption, heads, lines, stub=3)


def _shared(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Hyper-parameters that every one of the specs has, with one value."""
    first, *others = (
        {name: _value(value) for name, value in spec.hparams.items()} for spec in specs
    )
    return {
        name: value
        for name, value in first.items()
        if all(spec.get(name) == value for spec in others)
    }


def _draws(row: Row) -> str:
    return ", ".join(
        f"{w.trial}: {w.run.draw}@{w.at.step}{BEFORE_SWITCH if w.is_before_switch else ''}"
        for w in row.selected_runs
    )


def _common(specs: Mapping[int, RunSpec], but: Mapping[str, str]) -> str:
    names = dict.fromkeys(
        name for spec in specs.values() for name in spec.hparams if name not in but
    )
    parts = []
    for name in names:
        values = [_value(spec.hparams.get(name)) for spec in specs.values()]
        parts.append(f"{name}={values[0] if len(set(values)) == 1 else '/'.join(values)}")
    return ", ".join(parts) or "–"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def json_selected_runs(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Every winner with its whole spec, for tables.json."""
    return [
        {
            "dataset": table.dataset,
            "method": row.method,
            "trial": w.trial,
            "draw": w.run.draw,
            "step": w.at.step,
            "active_from": switch_of(w.run),
            "before_switch": w.is_before_switch,
            "criterion": w.criterion,
            "criterion_value": w.at.value,
            "best_of": w.draw_count,
            "key": w.run.key,
            "hparams": dict(w.run.spec.hparams) if w.run.spec else {},
        }
        for table in tables
        for row in table.rows
        for w in row.selected_runs
    ]


def retrain_sweeps(sweep: Sweep, tables: Sequence[Table], trials: int) -> dict[str, str]:
    """Sweep files (name -> TOML) that train the best draw of every method on ``trials`` fresh seeds, one per data set.

    Tuning saw the trials of this sweep, so the new ones start after its last. A method's best draw is the one whose
    winner has the highest criterion value over all trials.

    Raises:
        UserError: nothing has finished, or ``trials`` is not positive.
    """
    if trials < 1:
        raise UserError(
            f"--retrain-best takes the number of fresh trials, at least 1; got {trials}."
        )
    used = [run.trial for run in sweep.runs if run.trial is not None]
    fresh = list(range(max(used, default=-1) + 1, max(used, default=-1) + 1 + trials))
    files = {}
    for i, table in enumerate(tables):
        best = {
            row.method: spec
            for row in table.rows
            if row.requested and (spec := _best(row)) is not None
        }
        if best:
            name = f"{sweep.name}_retrain" + (f"_{i + 1}" if len(tables) > 1 else "")
            files[name] = _toml(sweep, table, best, fresh)
    if not files:
        raise UserError(
            f"no run of {sweep.name} has finished, so there is no winner to train again."
        )
    return files


def _best(row: Row) -> RunSpec | None:
    best = max(row.selected_runs, key=lambda w: rank(w.run, w.criterion), default=None)
    return best.run.spec if best else None


def _toml(sweep: Sweep, table: Table, best: Mapping[str, RunSpec], trials: Sequence[int]) -> str:
    one = next(iter(best.values()))
    lines = [
        f"# The winners of {_comment(sweep.name)} by {table.criterion}, on trials that their tuning never saw.",
        f"title = {_text(f'{sweep.title}: selected runs, fresh trials')}",
        f"datasets = [{_text(table.dataset)}]",
        f"algorithms = [{', '.join(map(_text, best))}]",
        f"backbone = {_text(_named(one.backbone, one.backbone_options))}",
        f"trials = {list(trials)}",
        f"selection = {_scalar(one.selection)}",
        *(["select_before_switch = true"] if _any_selected_early(best) else []),
        "",
        "[compute]",
        *(f"{key} = {_scalar(value)}" for key, value in one.compute.items()),
    ]
    for method, spec in best.items():
        lines += ["", f"[override.{_text(method)}]"]
        lines += [f"{_key(name)} = {_scalar(value)}" for name, value in spec.hparams.items()]
        lines += [f"dataset = {_scalar(spec.dataset_options)}", f"budget = {_scalar(spec.budget)}"]
        lines += [f"backbone = {_text(_named(spec.backbone, spec.backbone_options))}"]
        lines += [f"augmentation = {_scalar(spec.augmentation)}"]
        if spec.selection != one.selection:
            lines += [f"selection = {_scalar(spec.selection)}"]
    return "\n".join(lines) + "\n"


def _any_selected_early(best: Mapping[str, RunSpec]) -> bool:
    return any(spec.select_before_switch for spec in best.values())


def _named(name: str, options: Mapping[str, Any]) -> str:
    return name + (
        ":" + ",".join(f"{key}={_plain(value)}" for key, value in options.items())
        if options
        else ""
    )


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _comment(text: str) -> str:
    return one_line(text)


def _key(name: str) -> str:
    return (
        name
        if name.replace("_", "a").replace("-", "a").isalnum() and name.isascii()
        else _text(name)
    )


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{_key(str(name))} = {_scalar(v)}" for name, v in value.items())
            + " }"
        )
    return repr(value) if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    """A TOML basic string."""
    escaped = "".join(
        {"\\": "\\\\", '"': '\\"'}.get(c, c if c.isprintable() else f"\\U{ord(c):08X}")
        for c in text
    )
    return f'"{escaped}"'
