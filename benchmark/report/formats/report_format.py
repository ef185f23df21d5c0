"""The formats that a report is written in.

To add a format, write a subclass of ``ReportFormat`` in a module of its own in
``benchmark/report/formats`` and decorate it with ``REPORT_FORMATS.register``. A package of your own
declares its module under the entry-point group ``shortcutbed.report_formats`` instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from benchmark.core.registry import Registry
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.sheet import Sheet


class ReportFormat(ABC):
    """A format of the tables.

    Attributes:
        name: Name in the registry, and value of ``--format``.
        file_name: Name of the file that the report is written to.
        on_request: Whether the file is written only if ``--format`` names it. Such a format is no
            text, and implements ``content`` alone.
    """

    name: str = ""
    file_name: ClassVar[str] = ""
    on_request: ClassVar[bool] = False

    @abstractmethod
    def report(self, report: Report) -> str:
        """Return the report as text."""

    def content(self, report: Report) -> bytes:
        """Return the content of the file."""
        return self.report(report).encode("utf-8", "replace")

    def files(self, report: Report) -> dict[str, str]:
        """Return further files of the report by path; none by default."""
        return {}

    @abstractmethod
    def sheets(
        self, sheets: Sequence[Sheet], records: Sequence[dict[str, Any]] | None = None
    ) -> str:
        """Return sheets that belong to no sweep, such as those of another benchmark.

        Args:
            sheets: The sheets.
            records: The numbers behind them, for formats that programs read; None for the cells.
        """


REPORT_FORMATS: Registry[type[ReportFormat]] = Registry(
    "report format",
    "benchmark.report.formats",
    "shortcutbed.report_formats",
    "benchmark.report.formats.report_format:ReportFormat",
)


def file_names() -> dict[str, str]:
    """Return the file name of every text format, by the name of the format."""
    kinds = {name: REPORT_FORMATS.get(name) for name in REPORT_FORMATS.names()}
    return {name: kind.file_name for name, kind in kinds.items() if not kind.on_request}
