"""Hyper-parameters of the selected runs, and a sweep file that retrains them on fresh trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.spec import RunSpec
from benchmark.core.text import one_line
from benchmark.core.toml_text import toml_key, toml_text, toml_value
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
    """Return the hyper-parameters of the selected runs; the caption has those that all share."""
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
        "Trial: draw and step of the selected run; values that differ between trials are listed in "
        "their order."
    ]
    if shared:
        caption.append(
            f"The same for all: {', '.join(f'{name}={value}' for name, value in shared.items())}."
        )
    heads = [("method",), ("trial: draw@step",), ("hyper-parameters",)]
    lines = [[row.marked_label, _draws(row), _values(specs, shared)] for row, specs in rows]
    return Sheet(
        f"{table.title}, hyper-parameters of the selected runs", caption, heads, lines, stub=3
    )


def _shared(specs: Sequence[RunSpec]) -> dict[str, str]:
    """Return the hyper-parameters that have the same value in all specs."""
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


def _values(specs: Mapping[int, RunSpec], shared: Mapping[str, str]) -> str:
    """Return the hyper-parameters that are not shared, with the value of each trial."""
    names = dict.fromkeys(
        name for spec in specs.values() for name in spec.hparams if name not in shared
    )
    parts = []
    for name in names:
        values = [_value(spec.hparams.get(name)) for spec in specs.values()]
        parts.append(f"{name}={values[0] if len(set(values)) == 1 else '/'.join(values)}")
    return ", ".join(parts) or "–"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def json_selected_runs(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return a record per selected run, for ``tables.json``."""
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
    """Return sweep files that train the best draw of every method on fresh trials.

    The new trials follow those of the sweep, which the selection has used. The best draw of a
    method is that of the selected run with the highest value of the criterion.

    Args:
        sweep: The sweep.
        tables: Its results.
        trials: Number of fresh trials.

    Returns:
        The files as TOML by name, one per data set.

    Raises:
        UserError: If no run has finished, or if ``trials`` is not positive.
    """
    if trials < 1:
        raise UserError(
            f"--retrain-best takes the number of fresh trials, at least 1; got {trials}."
        )
    used = [run.trial for run in sweep.runs if run.trial is not None]
    first = max(used, default=-1) + 1
    fresh = list(range(first, first + trials))
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
        raise UserError(f"no run of {sweep.name} has finished, so there is none to train again.")
    return files


def _best(row: Row) -> RunSpec | None:
    best = max(row.selected_runs, key=lambda w: rank(w.run, w.criterion), default=None)
    return best.run.spec if best else None


def _toml(sweep: Sweep, table: Table, best: Mapping[str, RunSpec], trials: Sequence[int]) -> str:
    common = next(iter(best.values()))  # the backbone and the selection may be overridden below
    curves = list(dict.fromkeys(name for spec in best.values() for name in spec.curves))
    lines = [
        f"# The selected runs of {one_line(sweep.name)} by {table.criterion}, on trials that the "
        "selection has not used.",
        f"title = {toml_text(f'{sweep.title}: selected runs, fresh trials')}",
        f"datasets = [{toml_text(table.dataset)}]",
        f"algorithms = [{', '.join(map(toml_text, best))}]",
        f"backbone = {toml_text(_named(common.backbone, common.backbone_options))}",
        f"trials = {list(trials)}",
        f"selection = {toml_value(common.selection)}",
        *(["select_before_switch = true"] if _any_selected_early(best) else []),
        *(["evaluate_train = true"] if common.evaluate_train else []),
        *([f"curves = {toml_value(curves)}"] if curves else []),
        *_titles(sweep.config.get("titles")),
        "",
        "[compute]",
        *(f"{key} = {toml_value(value)}" for key, value in common.compute.items()),
    ]
    for method, spec in best.items():
        lines += ["", f"[override.{toml_text(method)}]"]
        lines += [f"{toml_key(name)} = {toml_value(value)}" for name, value in spec.hparams.items()]
        lines += [
            f"dataset = {toml_value(spec.dataset_options)}",
            f"budget = {toml_value(spec.budget)}",
        ]
        lines += [f"backbone = {toml_text(_named(spec.backbone, spec.backbone_options))}"]
        lines += [f"augmentation = {toml_value(spec.augmentation)}"]
        if spec.selection != common.selection:
            lines += [f"selection = {toml_value(spec.selection)}"]
    return "\n".join(lines) + "\n"


def _titles(given: Any) -> list[str]:
    """Return the [titles] table of the sweep file as lines; nothing without one."""
    if not isinstance(given, Mapping) or not given:
        return []
    return [
        "",
        "[titles]",
        *(f"{toml_key(str(name))} = {toml_value(text)}" for name, text in given.items()),
    ]


def _any_selected_early(best: Mapping[str, RunSpec]) -> bool:
    return any(spec.select_before_switch for spec in best.values())


def _named(name: str, options: Mapping[str, Any]) -> str:
    if not options:
        return name
    return f"{name}:" + ",".join(f"{key}={_plain(value)}" for key, value in options.items())


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
