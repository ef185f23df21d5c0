"""Turn the runs of a sweep into tables and a report: ``python -m benchmark.collect_results``."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.cli.collect_commands import (
    BENCHMARKS,
    COMMANDS,
    audit_table,
    export_sweep,
    import_folder,
    say_moved,
)
from benchmark.cli.options import number
from benchmark.cli.programs import make_parser
from benchmark.cli.report_folder import OPTIONS, report_folder, write_options
from benchmark.core.criteria import CRITERIA
from benchmark.core.errors import UserError, exit_code
from benchmark.core.files import check_file, check_folder, write_atomic
from benchmark.core.layout import SweepFolder, find_sweep_folder
from benchmark.core.terminal import prepare_streams, say
from benchmark.plan.sweepfile import MAX_ENTRIES
from benchmark.report.formats.report_format import REPORT_FORMATS
from benchmark.report.render import SPREADS, render, write_all, write_format, write_page
from benchmark.report.report import make_report
from benchmark.report.tables.class_scores import ClassScoreTable
from benchmark.report.tables.report_table import (
    REPORT_TABLES,
    WIDTH,
    Report,
    ReportOptions,
    report_tables,
)

_DESCRIPTION = """\
Turn the runs of a sweep into tables: accuracy, worst-group accuracy, and how far the shortcut
misled each method.
"""

_EPILOG = """\
examples:
  python -m benchmark.collect_results                        the newest sweep in results/
  python -m benchmark.collect_results quickstart             the sweep in results/quickstart
  python -m benchmark.collect_results results/mine --format latex > tables.tex
  python -m benchmark.collect_results --selection val_accuracy --spread interval
  python -m benchmark.collect_results --reference erm --detail --published
  python -m benchmark.collect_results --detail --split biased deceiving --spread interval
                                                             F1 and AUC with intervals
  python -m benchmark.collect_results --detail --spread credible
                                                             posteriors as in the TEA paper
  python -m benchmark.collect_results --retrain-best 5       a sweep file that trains the best draw
                                                             of each method on new trials
  python -m benchmark.collect_results --rows erm irm --columns average_accuracy gap --transpose
                                                             a small table
  python -m benchmark.collect_results export runs.csv        one row per run, criterion and split
  python -m benchmark.collect_results import domainbed DIR   tables of a sweep made by DomainBed
  python -m benchmark.collect_results audit tea_table4       which claims of a published table its
                                                             own numbers support

what it does:
  Reads results/<sweep>/, even while runs are in progress. Selects the best draw of each method and
  trial on validation data, never on test images. Prints the tables, and writes all formats, figures
  (PDF, PNG) and an HTML page to results/<sweep>/report/ (or --out). If report/ holds a report with
  other options, that one stays, and the new one gets a folder inside. Footnotes name runs that are
  missing, failed or refused.

selection criteria:
{criteria}

exit codes: 0 the tables were written; 1 they were written, but no run has finished; 2 the command
or the folder is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    prepare_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        return COMMANDS[given[0]](given[1:], _print)
    options = _parser().parse_args(given)
    if options.out:
        check_folder(Path(options.out), "--out")
    if options.export:
        check_file(Path(options.export), "--export")
    if options.source:
        say_moved("--from", f"import {options.source} DIR")
        return import_folder(options.source, options.dir, options.format, options.out, _print)
    if options.audit:
        say_moved("--audit", f"audit {options.audit}")
        return audit_table(options.audit, options.reference, options.format, _print)
    folder = find_sweep_folder(options.dir)
    if options.export:
        say_moved("--export", f"export {options.export}")
        return export_sweep(folder, Path(options.export))
    if options.engine == "nuts" and importlib.util.find_spec("pymc") is None:
        raise UserError(
            "--engine nuts needs PyMC: `pip install pymc`, or leave it out for the exact engine."
        )
    command = shlex.join(["python", "-m", "benchmark.collect_results", *given])
    return _collect(options, folder, command)


def _collect(options: argparse.Namespace, folder: Path, command: str) -> int:
    """Make the report of a sweep, print its tables and write its files."""
    report = make_report(folder, options.selection, options.spread, _report_options(options))
    report.command = command
    retrain = _retrain_files(report, options.retrain_best)
    shown_options = _changed_options(options)
    out = Path(options.out) if options.out else report_folder(SweepFolder(folder), shown_options)
    written = write_all(report, out)
    if REPORT_FORMATS.get(options.format).on_request:
        written.append(write_format(report, options.format, out))
    else:
        shown = replace(report, width=_width()) if options.format == "text" else report
        _print(render(shown, options.format, appendix=options.format != "text"))
    write_options(out, command, shown_options)
    names = ", ".join(path.name for path in written)
    if not options.tables_only:
        names += ", " + write_page(report, out, options.figures)
    say(f"written to {out}/: {names}", error=True)
    if not options.out and out != SweepFolder(folder).report:
        say(
            f"{out.parent}/ holds a report with other options, which stays as it is "
            f"({OPTIONS} in each folder says which).",
            error=True,
        )
    for name, text in retrain.items():
        write_atomic(out / f"{name}.toml", text.encode("utf-8", "replace"))
        say(
            "To train the best draws on new trials: "
            f"python -m benchmark.sweep launch {out / name}.toml",
            error=True,
        )
    return 0 if report.sweep.states().get("done") else 1


def _report_options(options: argparse.Namespace) -> ReportOptions:
    tables = list(options.tables)
    if options.engine == "nuts" or options.split:  # these options have no other use
        tables.append(ClassScoreTable.name)
    return ReportOptions(
        reference=options.reference,
        tables=tuple(tables),
        engine=options.engine,
        splits=tuple(options.split),
        columns=tuple(options.columns),
        rows=tuple(options.rows),
        decimals=options.decimals,
        transpose=options.transpose,
        upstream=options.upstream,
    )


def _changed_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that change what a report shows, without those at their defaults."""
    default = _parser().parse_args([])
    kept = ("dir", "format", "out", "tables_only", "figures", "export", "source", "audit")
    return {
        name: value
        for name, value in sorted(vars(options).items())
        if name not in (*kept, "retrain_best") and value != getattr(default, name)
    }


def _retrain_files(report: Report, trials: int | None) -> dict[str, str]:
    from benchmark.report.tables.hyperparameters import retrain_sweeps

    return {} if trials is None else retrain_sweeps(report.sweep, report.tables, trials)


def _parser() -> argparse.ArgumentParser:
    criteria = "\n".join(f"  {name:<16} {text}" for name, text in CRITERIA.items())
    parser = make_parser(
        "collect_results", description=_DESCRIPTION, epilog=_EPILOG.format(criteria=criteria)
    )
    add = parser.add_argument
    add(
        "dir",
        nargs="?",
        metavar="DIR",
        help="sweep folder, or its name in results/; default: the newest sweep",
    )
    add(
        "--format",
        choices=REPORT_FORMATS.names(),
        default="text",
        help="print the tables in this format; default: text",
    )
    add(
        "--selection",
        metavar="CRITERION",
        help="select step and draw by this criterion; default: the first one of each method",
    )
    add(
        "--spread",
        choices=SPREADS,
        default="sd",
        help="print standard deviations (sd), 95 %% intervals (interval), or posterior means with "
        "credible intervals for single trials (credible); default: sd",
    )
    _add_files(parser)
    _add_choices(parser)
    _add_moved(parser)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which files are written, and where."""
    add = parser.add_argument
    add(
        "--out",
        metavar="DIR",
        help="write the report to this folder; default: report/ in the sweep folder",
    )
    add(
        "--tables-only",
        action="store_true",
        help="write neither figures nor the HTML page; fast for thousands of runs",
    )
    add(
        "--figures",
        choices=("auto", "all", "none"),
        default="auto",
        help="draw figures of all data sets, of none, or (auto) of the first six if the sweep has "
        "at most 500 runs; default: auto",
    )
    add(
        "--retrain-best",
        metavar="N",
        type=number(int, 1, MAX_ENTRIES),
        help="write a sweep file that trains the best draw of each method on N new trials",
    )


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which tables, splits and columns are shown."""
    add = parser.add_argument
    add(
        "--reference",
        metavar="METHOD",
        help="compare each method with this one: difference, P(better), Holm-adjusted p",
    )
    _add_tables(parser)
    add(
        "--engine",
        choices=("exact", "nuts"),
        default="exact",
        help="with --detail: compute posteriors exactly, or by sampling (nuts), which takes "
        "minutes; default: exact",
    )
    add(
        "--split",
        metavar="NAME",
        nargs="+",
        default=[],
        help="with --detail: show these test splits; default: the split of the average accuracy",
    )
    add(
        "--columns",
        metavar="METRIC",
        nargs="+",
        default=[],
        help="show these metrics, in this order, such as average_accuracy biased; +METRIC adds one "
        "to the default ones, such as +top5_accuracy with 10 classes or fewer",
    )
    _add_layout(parser)


def _add_moved(parser: argparse.ArgumentParser) -> None:
    """Add the options that are commands now."""
    add = parser.add_argument
    add(
        "--export",
        metavar="FILE",
        help="old form of `collect_results export FILE`",
    )
    add(
        "--from",
        dest="source",
        choices=BENCHMARKS,
        help="old form of `collect_results import`",
    )
    add(
        "--audit",
        metavar="TABLE",
        help="old form of `collect_results audit TABLE`",
    )


def _add_layout(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which rows are printed, and how."""
    add = parser.add_argument
    add(
        "--rows",
        metavar="METHOD",
        nargs="+",
        default=[],
        help="show and compare these methods, in this order; default: all",
    )
    add(
        "--upstream",
        action="store_true",
        help="also show runs that only serve others, such as teachers",
    )
    add(
        "--decimals",
        metavar="N",
        type=number(int, 0, 6),
        help="print accuracies with N decimals; default: 1, or 2 if a spread would round to 0.0",
    )
    add("--transpose", action="store_true", help="print methods as columns instead of rows")


def _add_tables(parser: argparse.ArgumentParser) -> None:
    """Add the switch of every report table that has one."""
    parser.set_defaults(tables=[])
    for table in report_tables():
        if not table.switch:
            continue
        try:
            parser.add_argument(
                table.switch,
                dest="tables",
                action="append_const",
                const=table.name,
                help=table.help,
            )
        except (ValueError, argparse.ArgumentError) as error:  # such as an option that exists
            REPORT_TABLES.withdraw(table.name, error)


def _width() -> int:
    """Return the width of the terminal within limits; WIDTH for a file or a pipe."""
    if not sys.stdout.isatty():
        return WIDTH
    return max(60, min(WIDTH, shutil.get_terminal_size().columns))


def _print(text: str) -> None:
    """Print a text; ignore a reader that stops early, such as ``head``, since files follow."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(exit_code(main))
