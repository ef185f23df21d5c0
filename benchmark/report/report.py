"""A sweep's report: its runs loaded, chosen and tabulated, before any format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.report.external.published_tables import beside
from benchmark.report.figures.latent_space import latent_sheet
from benchmark.report.formats.text import WIDTH
from benchmark.report.records.model_selection import choose_criterion
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.sweep_records import Sweep, load_sweep
from benchmark.report.tables.against_reference import ReferenceComparison, compare_all
from benchmark.report.tables.against_reference import sheets as comparison_sheets
from benchmark.report.tables.class_scores import detail_sheets
from benchmark.report.tables.cost import cost_sheet
from benchmark.report.tables.hyperparameters import hparam_sheet
from benchmark.report.tables.localization import looks_sheet
from benchmark.report.tables.metric import METRICS
from benchmark.report.tables.results_table import Table, tables_of
from benchmark.report.tables.sheet import Sheet


@dataclass
class Report:
    """Everything that the formats show.

    Attributes:
        criterion: of most rows; each row names its own.
        width: of a line of text.
    """

    sweep: Sweep
    criterion: str
    tables: list[Table]
    store: PredictionStore
    spread: str = "sd"
    width: int = WIDTH
    sheets: list[Sheet] = field(default_factory=list)
    appendix: list[Sheet] = field(default_factory=list)
    comparisons: list[ReferenceComparison] = field(default_factory=list)


@dataclass(frozen=True)
class Extras:
    """What a report shows beside its tables: comparisons with ``reference``, details, published figures."""

    reference: str | None = None
    detail: bool = False
    published: bool = False
    engine: str = "exact"
    splits: tuple[str, ...] = ()


def make_report(
    folder: Path,
    selection: str | None = None,
    spread: str = "sd",
    extras: Extras | None = None,
) -> Report:
    """Load a sweep and build its tables.

    Args:
        selection: criterion of all rows, or None for the first of each method's own.
        spread: what stands beside a value: ``sd`` or ``interval``.

    Raises:
        UserError: no sweep, another schema, an unknown criterion or reference, or nothing planned in it.
    """
    extras = extras or Extras()
    sweep = load_sweep(folder, keep=selection)
    if not sweep.runs and not sweep.refused:
        raise UserError(
            f"{folder} plans no run; launch a sweep into it first: `python -m benchmark.sweep launch`."
        )
    criterion = choose_criterion(sweep, selection)
    store = PredictionStore()
    tables = tables_of(sweep, criterion, store, own=selection is None)
    sweep.notes += [
        f"the metric {origin} cannot be used: {reason}" for origin, reason in METRICS.broken.items()
    ]
    report = Report(sweep, criterion, tables, store, spread)
    if extras.reference is not None:
        report.comparisons = compare_all(report.tables, extras.reference, store)
        report.sheets += comparison_sheets(report.comparisons)
    if extras.detail:
        for table in report.tables:
            report.sheets += detail_sheets(table, store, extras.engine, extras.splits, spread)
    if extras.published:
        found = beside(report.tables, store=store)
        report.sheets += found
        if not found:
            sweep.notes.append(
                "no published table that is on file here reports any of these data sets"
            )
    for look in (looks_sheet, latent_sheet):
        report.sheets += [sheet for table in report.tables if (sheet := look(table)) is not None]
    for make in (cost_sheet, hparam_sheet):
        report.appendix += [sheet for table in report.tables if (sheet := make(table)) is not None]
    return report
