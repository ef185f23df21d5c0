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
    """A number that a paper prints.

    Attributes:
        file: Name of the transcribed table, such as ``tea_table4``.
        dataset: Data set, by the paper's name.
        method: Method, by the paper's name.
        metric: Metric.
        printed: The number as it is printed.
        value: The number as a fraction.
        pm: The number after ±, as a fraction, or None.
        n: Number of test images, or None.
        table: Table of the paper.
        note: Remark of the transcription.
        step: Difference of neighbouring printed values, as a fraction.
    """

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
        """Short name of the paper."""
        return self.file.split("_table")[0]

    @property
    def shown(self) -> str:
        """The value in per cent, with the paper's own digits if these are per cent."""
        is_per_cent = self.step > 0.005 or "." in self.printed
        value = self.printed if is_per_cent else _trim(self.value * 100)
        return value if self.pm is None else f"{value} ± {_trim(self.pm * 100)}"


def _trim(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def table_names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the transcribed tables, such as ``tea_table4``."""
    return sorted(path.stem for path in folder.glob("*_table*.csv"))


def read_table(name: str, folder: Path = FOLDER) -> list[PublishedValue]:
    """Return the values of a transcribed table, without rows whose value is no number.

    Args:
        name: Name of the table.
        folder: Folder of the transcribed tables.

    Raises:
        UserError: If there is no such table, or if its file is damaged.
    """
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise UserError(
            f"there is no published table {name!r}{did_you_mean(name, table_names(folder))}"
        )
    try:
        with path.open(encoding="utf-8", newline="") as file:
            values = [_parse(name, row) for row in csv.DictReader(file)]
            return [value for value in values if value is not None]
    except (KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise UserError(
            f"{path} is not a published table ({error}); "
            "expected the columns dataset,method,metric,value,pm,n,table,note."
        ) from None


def _parse(name: str, row: dict[str, str]) -> PublishedValue | None:
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
        file=name,
        dataset=row["dataset"],
        method=row["method"],
        metric=row["metric"],
        printed=row["value"],
        value=value * unit,
        pm=pm,
        n=int(row["n"]) if row["n"] else None,
        table=row["table"],
        note=row["note"],
        step=unit * 10.0**-digits,
    )
