"""The whole report as JSON, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmark.core.files import to_json
from benchmark.core.layout import State
from benchmark.core.text import json_text
from benchmark.report.formats.report_format import REPORT_FORMATS, ReportFormat
from benchmark.report.records.sweep_records import SweepRun
from benchmark.report.statistics.estimate import Estimate
from benchmark.report.tables.caption import describe_needs
from benchmark.report.tables.report_table import Report, report_tables
from benchmark.report.tables.results_table import Row, Table
from benchmark.report.tables.sheet import Sheet

#: Version of ``tables.json``.
SCHEMA = 1


@REPORT_FORMATS.register
class Json(ReportFormat):
    """Tables with captions, values of each trial and footnotes; values are fractions."""

    name = "json"
    file_name = "tables.json"

    def report(self, report: Report) -> str:
        sweep = report.sweep
        return _dump(
            {
                "schema": SCHEMA,
                "sweep": sweep.name,
                "title": sweep.title,
                "created": sweep.created,
                "criterion": report.criterion,
                "unit": "fraction",
                "states": sweep.states(),
                "refused": [asdict(refusal) for refusal in sweep.refused],
                "notes": sweep.notes,
                "tables": json_tables(report.tables),
                **_records_of_tables(report),
                "sheets": [asdict(sheet) for sheet in report.sheets],
                "unfinished": [
                    _unfinished(run) for run in sweep.all_runs if run.state != State.DONE
                ],
            }
        )

    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        if records is None:
            return _dump([asdict(sheet) for sheet in sheets])
        notes = [note for sheet in sheets for note in sheet.notes]
        return _dump(
            {"schema": SCHEMA, "unit": "fraction", "records": list(records), "notes": notes}
        )


def _dump(value: Any) -> str:
    return json_text(to_json(value).decode())


def _records_of_tables(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Return the records of every table that has some, by key; empty if it is not shown."""
    return {
        table.json_key: table.json_records(report) if table.is_shown(report.options) else []
        for table in report_tables()
        if table.json_key
    }


def _unfinished(run: SweepRun) -> dict[str, Any]:
    return {
        "key": run.key,
        "dataset": run.dataset,
        "method": run.label,
        "trial": run.trial,
        "draw": run.draw,
        "state": run.state,
        "reason": run.reason,
    }


def json_tables(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return the tables with captions, values of each trial and footnotes."""
    return [
        {
            "dataset": table.dataset,
            "title": table.title,
            "stand_in": table.stand_in,
            "criterion": table.criterion,
            "caption": [*table.caption, *describe_needs(table)],
            "notes": table.notes,
            "n": dict(table.sizes),
            "rows": [_json_row(table, row) for row in table.rows],
        }
        for table in tables
    ]


def _json_row(table: Table, row: Row) -> dict[str, Any]:
    return {
        "method": row.method,
        "label": row.label,
        "requested": row.requested,
        "needs": None if row.needs is None else list(row.needs),
        "criterion": row.criterion,
        "notes": row.notes,
        "runs": {str(w.trial): w.run.key for w in row.selected_runs},
        "before_switch": [w.trial for w in row.before_switch],
        "values": {
            column.name: {
                "value": value.estimate.value,
                "sd": value.estimate.sd,
                "low": value.estimate.low,
                "high": value.estimate.high,
                "interval": value.estimate.kind,
                "posterior": _posterior(value.posterior),
                "trials": value.trials,
                "per_trial": {
                    str(trial): number for trial, number in (value.per_trial or {}).items()
                },
                "splits": list(column.splits),
                "also": list(column.aliases),
                "not_distinguishable_from_best": value.best,
                "notes": list(value.notes),
            }
            for column, value in zip(table.columns, row.values, strict=True)
        },
    }


def _posterior(estimate: Estimate | None) -> dict[str, float | None] | None:
    """Return the posterior of ``--spread credible``; None where it is not defined."""
    if estimate is None:
        return None
    return {
        "mean": estimate.value,
        "sd": estimate.sd,
        "low": estimate.low,
        "high": estimate.high,
    }
