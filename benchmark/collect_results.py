"""``python -m benchmark.collect_results``: a sweep's runs as tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.core.errors import exit_code
from benchmark.core.spec import CRITERIA
from benchmark.report.collect import FILES, SPREADS, make_report, render, write_all
from benchmark.report.load import find_sweep

_HELP = "Turn a sweep's runs into tables: accuracy, worst-group accuracy, and how far the shortcut misled each method."

_EXAMPLES = """\
examples:
  python -m benchmark.collect_results                        the newest sweep under results/
  python -m benchmark.collect_results quickstart             results/quickstart
  python -m benchmark.collect_results results/mine --format latex > tables.tex
  python -m benchmark.collect_results --selection val_accuracy --spread interval

what it does:
  Reads results/<sweep>/ (also while runs are still going), picks for each method and trial the best draw on
  validation data, prints the tables, and writes all formats into results/<sweep>/report/ (or --out).
  What is missing, failed or refused is a footnote; nothing is dropped silently. No test image is used to choose.

selection criteria:
{criteria}

exit codes: 0 tables written; 1 they were, but no run has finished; 2 a mistake in the command or the folder.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    folder = find_sweep(options.dir)
    report = make_report(folder, options.selection, options.spread)
    _print(render(report, options.format))
    out = Path(options.out) if options.out else folder / "report"
    written = write_all(report, out)
    print(f"written to {out}/: {', '.join(path.name for path in written)}", file=sys.stderr)
    return 0 if report.sweep.states().get("done") else 1


def _parser() -> argparse.ArgumentParser:
    criteria = "\n".join(f"  {name:<16} {text}" for name, text in CRITERIA.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.collect_results",
        description=_HELP,
        epilog=_EXAMPLES.format(criteria=criteria),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "dir", nargs="?", metavar="DIR", help="a sweep's folder or its name under results/ (default: newest)"
    )
    parser.add_argument("--format", choices=tuple(FILES), default="text", help="what to print (default: text)")
    parser.add_argument(
        "--selection", metavar="CRITERION", help="how step and draw are chosen (default: the sweep's first)"
    )
    parser.add_argument(
        "--spread", choices=SPREADS, default="sd", help="print ± standard deviation or the 95%% interval"
    )
    parser.add_argument("--out", metavar="DIR", help="where the files go (default: the sweep's folder, report/)")
    return parser


def _print(text: str) -> None:
    """Print to a terminal that may not know ± and –."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").replace("–", "-").replace("−", "-")
        text = text.encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(exit_code(main))
