"""A sweep: its runs as a table, its report, and its finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.api.run import Run, load_run
from benchmark.core.errors import UserError
from benchmark.core.layout import find_sweep_folder
from benchmark.report.records import sweep_records
from benchmark.report.records.sweep_records import Sweep
from benchmark.report.render import SPREADS, render
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import ReportOptions

if TYPE_CHECKING:
    from pandas import DataFrame


class SweepResults:
    """The results of a sweep.

    Args:
        folder: folder of the sweep.
        records: its runs and their records.
    """

    def __init__(self, folder: Path, records: Sweep) -> None:
        self.folder = folder
        self.records = records

    def __repr__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.states().items())
        return f"SweepResults({self.records.name}: {states or 'no runs'})"

    def states(self) -> dict[str, int]:
        """Return the number of runs in each state, such as ``{"done": 20, "failed": 1}``."""
        return self.records.states()

    def to_frame(self) -> DataFrame:
        """Return one row per finished run, selection criterion and split.

        The columns are those of ``collect_results --export``: data set, method, trial, draw,
        criterion, step, split, accuracy, worst-group accuracy, and so on.
        """
        from benchmark.report.records.tidy_export import to_frame

        return to_frame(self.records)

    def table(
        self,
        form: str = "text",
        *,
        selection: str | None = None,
        spread: str = "sd",
        reference: str | None = None,
    ) -> str:
        """Return the tables of ``collect_results``.

        Args:
            form: a format of ``collect_results --format``, such as ``"markdown"`` or ``"latex"``.
            selection: criterion that selects step and draw.
            spread: ``"sd"`` or ``"interval"``.
            reference: method to compare the others with.

        Raises:
            UserError: an unknown format, criterion, spread or method.
        """
        if spread not in SPREADS:
            raise UserError(f"unknown spread {spread!r}, expected {' or '.join(SPREADS)}.")
        report = make_report(self.folder, selection, spread, ReportOptions(reference=reference))
        return render(report, form, appendix=False)

    def load_run(
        self,
        method: str | None = None,
        *,
        dataset: str | None = None,
        trial: int | None = None,
        device: str = "cpu",
    ) -> Run:
        """Load a finished run; see ``benchmark.load_run``."""
        return load_run(self.folder, method=method, dataset=dataset, trial=trial, device=device)


def load_sweep(folder: str | Path | None = None) -> SweepResults:
    """Load the results of a sweep.

    Args:
        folder: folder of the sweep, or its name in ``results/``; by default the newest sweep.

    Raises:
        UserError: there is no such sweep.
    """
    path = find_sweep_folder(None if folder is None else str(folder))
    return SweepResults(path, sweep_records.load_sweep(path))
