"""The report, and the tables that it shows beside the results.

To add a table, write a subclass of ``ReportTable`` in a module of its own in
``benchmark/report/tables`` and decorate it with ``REPORT_TABLES.register``. A package of your own
declares its module under the entry-point group ``shortcutbed.report_tables`` instead. The table
then appears in every format and on the HTML page::

    @REPORT_TABLES.register
    class BestTrial(ReportTable):
        name = "best_trial"
        switch = "--best-trial"
        help = "also show the best trial of each method"

        def sheet_of(self, table: Table) -> Sheet:
            heads = [("method",), ("best trial",)]
            caption = ["Accuracy of the best trial, in per cent."]
            rows = [
                [row.marked_label, percent(max(row.values[0].per_trial.values()), 1)]
                for row in table.rows
                if row.values[0].per_trial
            ]
            return Sheet(f"{table.title}, best trials", caption, heads, rows)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.core.registry import Registry
from benchmark.report.records.measurements import MeasurementStore
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.sweep_records import Sweep
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet

if TYPE_CHECKING:
    from benchmark.report.tables.against_reference import ReferenceComparison

#: Columns of a line of text where the terminal does not say otherwise.
WIDTH = 100


@dataclass(frozen=True)
class ReportOptions:
    """Options of what a report shows beside the results.

    Attributes:
        reference: Method that every other method is compared with; None for no comparisons.
        tables: Names of the tables with a command-line switch that are shown.
        engine: Engine of the posteriors of class scores, ``exact`` or ``nuts``.
        splits: Test splits of class scores; none for the split of the average accuracy.
        columns: Names of the metrics that are shown, in this order; none for the default ones. One
            with a plus sign before it is shown besides the default ones.
        rows: Methods that are shown, in this order; none for all.
        decimals: Digits after the point of the results; None to choose them.
        transpose: Whether methods are columns of the printed results.
        upstream: Whether runs that only serve others are rows of the printed tables.
    """

    reference: str | None = None
    tables: tuple[str, ...] = ()
    engine: str = "exact"
    splits: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    decimals: int | None = None
    transpose: bool = False
    upstream: bool = False


@dataclass
class Report:
    """Everything that the formats show.

    Attributes:
        sweep: The runs of the sweep.
        criterion: Selection criterion of most rows; each row names its own.
        tables: The results, one table per data set.
        store: Predictions of the selected runs.
        spread: What is printed beside a value: ``sd``, ``interval`` or ``credible``.
        options: What is shown beside the results.
        width: Columns of a line of text.
        command: Command that made the report; empty if it was made by Python code.
        sheets: The other tables, which follow the results.
        appendix: Tables that terminals do not show.
        comparisons: Comparisons with the reference method, one per column of each table.
        posteriors: Posteriors of confusion matrices, each computed once.
        measurements: Measured explanations of the selected models.
        explanation_blocks: What was computed from them, by the id of a table.
    """

    sweep: Sweep
    criterion: str
    tables: list[Table]
    store: PredictionStore
    spread: str = "sd"
    options: ReportOptions = ReportOptions()
    width: int = WIDTH
    command: str = ""
    sheets: list[Sheet] = field(default_factory=list)
    appendix: list[Sheet] = field(default_factory=list)
    comparisons: list[ReferenceComparison] = field(default_factory=list)
    posteriors: Posteriors = field(default_factory=Posteriors)
    measurements: MeasurementStore = field(init=False)
    explanation_blocks: dict[int, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.measurements = MeasurementStore(self.sweep)

    @cached_property
    def shown_tables(self) -> list[Table]:
        """The results, without runs that only serve others unless the options ask for them.

        A table of such runs alone keeps them.
        """
        if self.options.upstream:
            return self.tables
        return [
            replace(table, rows=[row for row in table.rows if row.requested] or table.rows)
            for table in self.tables
        ]


class ReportTable:
    """A table of the report.

    Subclasses set the class attributes and implement ``sheet_of``, or ``sheets`` if a sheet needs
    more than the results of one data set.

    Attributes:
        name: Name in the registry and in ``ReportOptions.tables``.
        position: Order of the tables in the report, the smallest first.
        in_appendix: Whether terminals do not show the table, nor ``tables.json`` its sheets.
        switch: Command-line switch that requests the table, such as ``--published``; empty for a
            table that is always shown.
        help: Help text of the switch.
        json_key: Key of ``json_records`` in ``tables.json``; empty for none.
    """

    name: str = ""
    position: ClassVar[int] = 100
    in_appendix: ClassVar[bool] = False
    switch: ClassVar[str] = ""
    help: ClassVar[str] = ""
    json_key: ClassVar[str] = ""

    def is_shown(self, options: ReportOptions) -> bool:
        """Return whether the report contains the table."""
        return not self.switch or self.name in options.tables

    def sheets(self, report: Report) -> list[Sheet]:
        """Return the sheets of a report; by default, those of ``sheet_of``."""
        made = (self.sheet_of(table) for table in report.shown_tables)
        return [sheet for sheet in made if sheet is not None]

    def sheet_of(self, table: Table) -> Sheet | None:
        """Return the sheet of one data set; None if there is nothing to show."""
        raise NotImplementedError(f"{type(self).__name__} implements neither sheet_of nor sheets")

    def json_records(self, report: Report) -> list[dict[str, Any]]:
        """Return the numbers behind the sheets, for ``tables.json``."""
        return []

    def csv_records(self, report: Report) -> list[dict[str, Any]]:
        """Return rows of ``tables.csv``; their keys are columns of that file."""
        return []


REPORT_TABLES: Registry[type[ReportTable]] = Registry(
    "report table",
    "benchmark.report.tables",
    "shortcutbed.report_tables",
    "benchmark.report.tables.report_table:ReportTable",
)


def report_tables() -> Sequence[ReportTable]:
    """Return all tables in the order of the report."""
    classes = map(REPORT_TABLES.get, REPORT_TABLES.names())
    return [table() for table in sorted(classes, key=lambda table: table.position)]
