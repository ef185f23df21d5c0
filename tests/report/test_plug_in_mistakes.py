"""Mistakes in metrics and report tables of other packages end with one clear message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.collect_results import main
from benchmark.core.errors import UserError, exit_code
from benchmark.report.report import make_report
from benchmark.report.statistics.estimate import without_interval
from benchmark.report.tables.metric import METRICS, Metric
from benchmark.report.tables.report_table import REPORT_TABLES, ReportTable
from benchmark.report.tables.sheet import Sheet
from tests.support.fake_sweep import ERM, FakeSweep, World


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fake = FakeSweep(tmp_path_factory.mktemp("mistakes"), predictions=False)
    fake.add(World(size=20), ERM, trials=(0,))
    return fake.finish()


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Forget the classes that a test registers."""
    with METRICS.only_within(), REPORT_TABLES.only_within():
        yield


class Good(Metric):
    """A metric that always is one half."""

    name = "half"

    @classmethod
    def columns(cls, data: Any) -> Any:
        return [cls(data.test_splits[:1], title=("half",))]

    def one_trial(self, run: Any, predictions: Any = None) -> Any:
        return without_interval(0.5)


class Float(Good):
    """Returns a number instead of an estimate."""

    def one_trial(self, run: Any, predictions: Any = None) -> Any:
        return 0.5


class NoColumns(Good):
    """Forgets to return its columns."""

    @classmethod
    def columns(cls, data: Any) -> Any:
        return None


class OnlyName(Metric):
    """Implements nothing."""

    name = "half"


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (Float, "one_trial of the metric half returned 0.5, expected an Estimate"),
        (NoColumns, "columns of the metric half returned None, expected a list"),
        (OnlyName, "the metric half does not implement columns and one_trial"),
    ],
)
def test_a_metric_that_is_wrong(kind: type[Metric], part: str, folder: Path) -> None:
    METRICS.register(kind)
    with pytest.raises(UserError) as caught:
        make_report(folder)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_metric_that_is_right(folder: Path) -> None:
    METRICS.register(Good)
    report = make_report(folder)
    place = [column.name for column in report.tables[0].columns].index("half")
    assert report.tables[0].rows[0].values[place].estimate.value == 0.5


class OneCell(ReportTable):
    """Has a row with two cells under three columns."""

    name = "mistaken"

    def sheet_of(self, table: Any) -> Sheet:
        return Sheet("Mine", ["A caption."], [("a",), ("b",), ("c",)], [["1", "2"]])


class Number(ReportTable):
    """Has a cell that is no text."""

    name = "mistaken"

    def sheet_of(self, table: Any) -> Sheet:
        rows: Any = [["1", 2.5]]
        return Sheet("Mine", ["A caption."], [("a",), ("b",)], rows)


class OwnColumn(ReportTable):
    """Gives tables.csv a column that it does not have."""

    name = "mistaken"

    def sheet_of(self, table: Any) -> None:
        return None

    def csv_records(self, report: Any) -> list[dict[str, Any]]:
        return [{"method": "erm", "speed": 3.0}]


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (OneCell, "row 1 of the table 'Mine' has 2 cells, expected one for each of the 3 columns"),
        (Number, "row 1 of the table 'Mine' has the cell 2.5, expected text"),
        (OwnColumn, "csv_records of the report table mistaken has the unknown columns speed"),
    ],
)
def test_a_report_table_that_is_wrong(
    kind: type[ReportTable],
    part: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    REPORT_TABLES.register(kind)
    arguments = [str(folder), "--tables-only", "--out", str(tmp_path / "out")]
    assert exit_code(lambda: main(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and part in " ".join(error.split())
    assert "Traceback" not in error


def test_a_row_of_a_single_cell_is_a_heading() -> None:
    assert Sheet("Mine", [], [("a",), ("b",)], [["heading"], ["1", "2"]]).rows[0] == ["heading"]
