"""Values of published tables, transcribed in ``results/published/*.csv``."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.registry import did_you_mean
from benchmark.core.shipped import shipped

FOLDER = shipped("results/published")
#: What ± means in each paper. The ± of a paper that is not named here cannot be used.
MEANING = {"tea": "posterior sd of the test sample", "ex2l": "sd over three runs"}


@dataclass(frozen=True)
class PublishedValue:
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


def table_names(folder: Path = FOLDER) -> list[str]:
    """Names of the transcribed tables, such as ``tea_table4``."""
    return sorted(path.stem for path in folder.glob("*_table*.csv"))


def read_table(name: str, folder: Path = FOLDER) -> list[PublishedValue]:
    """The figures of one transcribed table; rows whose value is no number are left out.

    Raises:
        UserError: no such table, or a file that is not one.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise UserError(
            f"there is no published table {name!r}{did_you_mean(name, table_names(folder))}"
        )
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                figure for row in csv.DictReader(file) if (figure := _figure(name, row)) is not None
            ]
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(
            f"{path} is not a published table ({error}); expected dataset,method,metric,value,pm,n,table,note."
        ) from None


def _figure(name: str, row: dict[str, str]) -> PublishedValue | None:
    try:
        value = float(row["value"])
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    unit = 1.0 if "fraction" in row["note"] else 0.01
    digits = len(row["value"].partition(".")[2])
    pm = float(row["pm"]) * unit if row["pm"] else None
    return PublishedValue(
        name, row["dataset"], row["method"], row["metric"], row["value"], value * unit, pm,
        int(row["n"]) if row["n"] else None, row["table"], row["note"], unit * 10.0**-digits,
    )  # fmt: skip
