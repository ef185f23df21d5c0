"""The papers' tables (results/published/*.csv), and our figures beside them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.registry import did_you_mean
from benchmark.report.formats.numbers import DASH, percent
from benchmark.report.scores import Value
from benchmark.report.sheet import Sheet
from benchmark.report.tables import Table

FOLDER = Path(__file__).resolve().parents[2] / "results" / "published"
#: What ± means in each paper; a paper that is not named here has none that could be used.
MEANING = {"tea": "posterior sd of the test sample", "ex2l": "sd over three runs"}


@dataclass(frozen=True)
class Figure:
    """One printed figure. ``value`` and ``pm`` are fractions; ``step``: between neighbouring printed values."""

    file: str
    dataset: str
    method: str
    metric: str
    printed: str
    value: float
    pm: float | None
    n: int | None
    table: str
    note: str
    step: float

    @property
    def paper(self) -> str:
        return self.file.split("_table")[0]

    @property
    def shown(self) -> str:
        """In per cent, with the paper's own digits where these are per cent."""
        pm = "" if self.pm is None else f" ± {_trim(self.pm * 100)}"
        return f"{self.printed if self.step > 0.005 or '.' in self.printed else _trim(self.value * 100)}{pm}"


def _trim(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def tables(folder: Path = FOLDER) -> list[str]:
    """Names of the transcribed tables, such as ``tea_table4``."""
    return sorted(path.stem for path in folder.glob("*_table*.csv"))


def read_table(name: str, folder: Path = FOLDER) -> list[Figure]:
    """The figures of one transcribed table; rows whose value is no number are left out.

    Raises:
        UserError: no such table, or a file that is not one.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise UserError(f"there is no published table {name!r}{did_you_mean(name, tables(folder))}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [figure for row in csv.DictReader(file) if (figure := _figure(name, row)) is not None]
    except (KeyError, TypeError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not a published table ({error}); expected dataset,method,metric,value,pm,n,table,note."
        ) from None


def _figure(name: str, row: dict[str, str]) -> Figure | None:
    try:
        value = float(row["value"])
    except ValueError:
        return None
    unit = 1.0 if "fraction" in row["note"] else 0.01
    digits = len(row["value"].partition(".")[2])
    pm = float(row["pm"]) * unit if row["pm"] else None
    return Figure(
        name, row["dataset"], row["method"], row["metric"], row["value"], value * unit, pm,
        int(row["n"]) if row["n"] else None, row["table"], row["note"], unit * 10.0**-digits,
    )  # fmt: skip


def beside(our_tables: Sequence[Table], folder: Path = FOLDER) -> list[Sheet]:
    """One sheet per data set of ours that a paper reports: published, ours, and ours minus published.

    Data sets are matched by name without options, methods by name, metrics by name; the conditions may still differ.
    """
    by_dataset: dict[str, list[Figure]] = {}
    for name in tables(folder):
        for figure in read_table(name, folder):
            by_dataset.setdefault(figure.dataset, []).append(figure)
    sheets = []
    for table in our_tables:
        figures = by_dataset.get(table.dataset.partition(":")[0], [])
        sheet = _sheet(table, figures)
        if sheet is not None:
            sheets.append(sheet)
    return sheets


def _sheet(table: Table, figures: Sequence[Figure]) -> Sheet | None:
    ours = {
        (row.method, metric): value
        for row in reversed(table.rows)  # where a method is there twice, the requested row (the first) counts
        for column, value in zip(table.columns, row.values, strict=True)
        for metric in (column.metric, *column.also)
    }
    metrics = {metric for _, metric in ours}
    relevant = [f for f in figures if f.metric in metrics]
    if not relevant:
        return None
    rows: list[list[str]] = []
    by_metric: dict[str, list[Figure]] = {}
    for figure in relevant:
        by_metric.setdefault(figure.metric, []).append(figure)
    for metric, group in by_metric.items():
        rows.append([metric.replace("_", " ")])
        for figure in group:
            rows.append(_cells(figure, ours.get((figure.method, metric))))
    without = sorted({row.method for row in table.rows} - {f.method for f in relevant})
    notes = [f"no published figure of: {', '.join(without)}"] if without else []
    if table.stand_in:
        notes.append("ours was measured on generated stand-in data: the difference says nothing about the method")
    notes.append("conditions differ (network, budget, selection): results/published/README.md says what the papers did")
    papers = dict.fromkeys(f.paper for f in relevant)
    meaning = "; ".join(f"{paper}: {MEANING[paper]}" for paper in papers if paper in MEANING)
    caption = [f"Published figures beside ours, in per cent. ±: {meaning or 'none printed'}; ours: as above."]
    heads = [("method",), ("paper, table",), ("published",), ("ours",), ("difference",)]
    return Sheet(f"{table.title}, published figures", caption, heads, rows, stub=2, notes=notes)


def _cells(figure: Figure, value: Value | None) -> list[str]:
    where = f"{figure.paper} {re.sub(r'^Table ', '', figure.table)}"
    estimate = value.estimate if value else None
    if estimate is None or estimate.value is None:
        return [figure.method, where, figure.shown, DASH, DASH]
    sd = "" if estimate.sd is None else f" ± {percent(estimate.sd, 1)}"
    # Papers print the size of the gap.
    mine = abs(estimate.value) if figure.metric == "gap" else estimate.value
    difference = mine - figure.value
    sign = "+" if difference > 0 else ""
    return [figure.method, where, figure.shown, percent(estimate.value, 1) + sd, f"{sign}{percent(difference, 1)}"]
