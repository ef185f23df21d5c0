"""The origin of a report: sweep, commits of its runs, and the command that made it."""

from __future__ import annotations

from benchmark.core.text import one_line
from benchmark.report.tables.report_table import Report

#: Most commits that are named.
_NAMED = 4


def provenance(report: Report) -> list[tuple[str, str]]:
    """Return names and values of the origin of a report, without unknown ones.

    Commits are those of the selected runs. ``-dirty`` marks one with uncommitted changes.
    """
    commits = dict.fromkeys(
        selected_run.run.record.machine.commit
        for table in report.tables
        for row in table.rows
        for selected_run in row.selected_runs
        if selected_run.run.record is not None
    )
    known = sorted(commit for commit in commits if commit)
    shown = ", ".join(known[:_NAMED])
    if len(known) > _NAMED:
        shown += f" and {len(known) - _NAMED} more"
    found = [("sweep", report.sweep.name), ("commit", shown), ("command", report.command)]
    return [(name, one_line(value)) for name, value in found if value]
