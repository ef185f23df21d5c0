"""The subcommands of ``collect_results``: audit, import and export."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.cli.programs import make_parser
from benchmark.core.errors import UserError
from benchmark.core.files import check_file, check_folder
from benchmark.core.layout import find_sweep_folder
from benchmark.core.terminal import say
from benchmark.report.formats.report_format import file_names
from benchmark.report.records.sweep_records import load_sweep

#: Benchmarks whose results can be imported.
BENCHMARKS = ("domainbed", "subpopbench")
_PROGRAM = "collect_results"


def audit(arguments: Sequence[str], show: Callable[[str], None]) -> int:
    """Run ``collect_results audit``.

    Args:
        arguments: The arguments after the name of the subcommand.
        show: Prints a text.
    """
    parser = make_parser(
        f"{_PROGRAM} audit",
        description="Check which claims of a published table its own numbers support.\n"
        "To audit a trained model, use python -m benchmark.audit.",
    )
    parser.add_argument("table", metavar="TABLE", help="published table, such as tea_table4")
    parser.add_argument("--reference", metavar="METHOD", help="compare each method with this one")
    _add_format(parser)
    options = parser.parse_args(arguments)
    return audit_table(options.table, options.reference, options.format, show)


def audit_table(name: str, reference: str | None, form: str, show: Callable[[str], None]) -> int:
    """Print which claims of a published table its own numbers support."""
    from benchmark.report.external.published_audit import audit as audit_published
    from benchmark.report.render import render_sheets

    show(render_sheets(audit_published(name, reference), form))
    return 0


def import_results(arguments: Sequence[str], show: Callable[[str], None]) -> int:
    """Run ``collect_results import``.

    Args:
        arguments: The arguments after the name of the subcommand.
        show: Prints a text.
    """
    parser = make_parser(
        f"{_PROGRAM} import", description="Make tables from the results of another benchmark."
    )
    parser.add_argument("benchmark", choices=BENCHMARKS, help="benchmark that made the results")
    parser.add_argument("dir", metavar="DIR", help="folder of its results")
    _add_format(parser)
    parser.add_argument("--out", metavar="DIR", help="also write all formats to this folder")
    options = parser.parse_args(arguments)
    return import_folder(options.benchmark, options.dir, options.format, options.out, show)


def import_folder(
    source: str, folder: str | None, form: str, out: str | None, show: Callable[[str], None]
) -> int:
    """Print, and with ``out`` write, tables of the results of another benchmark.

    Raises:
        UserError: If there is no folder, or it holds no such results.
    """
    from benchmark.report.external import domainbed, foreign_results, subpopbench
    from benchmark.report.render import render_sheets, write_sheets

    if folder is None:
        raise UserError(f"--from {source} needs the folder of its results: --from {source} DIR.")
    if out:
        check_folder(Path(out), "--out")
    results = {"domainbed": domainbed, "subpopbench": subpopbench}[source].read(Path(folder))
    sheets = foreign_results.sheets(results)
    show(render_sheets(sheets, form))
    if out:
        written = write_sheets(sheets, Path(out), foreign_results.flat_records(results))
        say(f"written to {out}/: {', '.join(path.name for path in written)}", error=True)
    return 0


def export(arguments: Sequence[str], show: Callable[[str], None]) -> int:
    """Run ``collect_results export``.

    Args:
        arguments: The arguments after the name of the subcommand.
        show: Prints a text.
    """
    parser = make_parser(
        f"{_PROGRAM} export",
        description="Write a table with one row per run, selection criterion and split.",
    )
    parser.add_argument("file", metavar="FILE", help=".csv or .parquet file to write")
    parser.add_argument(
        "dir",
        nargs="?",
        metavar="DIR",
        help="sweep folder, or its name in results/; default: the newest sweep",
    )
    options = parser.parse_args(arguments)
    check_file(Path(options.file), "FILE")
    return export_sweep(find_sweep_folder(options.dir), Path(options.file))


def export_sweep(folder: Path, path: Path) -> int:
    """Write the runs of a sweep as a tidy table."""
    from benchmark.report.records.tidy_export import export as write_table

    rows = write_table(load_sweep(folder), path)
    say(f"{rows:,} rows written to {path}", error=True)
    return 0


def say_moved(flag: str, command: str) -> None:
    """Say on standard error that a flag has become a subcommand."""
    say(
        f"{flag} still works, but is a command of its own now: "
        f"python -m benchmark.collect_results {command}",
        error=True,
    )


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=file_names(),
        default="text",
        help="print the tables in this format; default: text",
    )


#: The subcommands by name.
COMMANDS: dict[str, Callable[[Sequence[str], Callable[[str], None]], int]] = {
    "audit": audit,
    "import": import_results,
    "export": export,
}
