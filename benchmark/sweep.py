"""Plan, launch, watch and retry sweeps: ``python -m benchmark.sweep COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.cli.options import LISTED, add_log, add_placement, number, time_span
from benchmark.cli.programs import add_version, make_parser
from benchmark.core.errors import UserError, exit_code
from benchmark.core.layout import RESULTS, SweepFolder, require_newest_sweep
from benchmark.core.terminal import say

#: The largest time limit of a run: a year.
MAX_RUN_SECONDS = 365 * 24 * 3600

_DESCRIPTION = "Plan, launch, watch and retry sweeps."

_EPILOG = """examples:
  python -m benchmark.sweep launch                      run the quickstart (no download)
  python -m benchmark.sweep launch quickstart --dry-run print what would run, and how long it takes
  python -m benchmark.sweep launch quickstart --trials 5 --algorithms erm irm --output results/mine
  python -m benchmark.sweep work results/mine           be one of several workers of a sweep
  python -m benchmark.sweep status                      print which runs are done, running or failed
  python -m benchmark.sweep retry                       make failed runs pending; then launch again
  python -m benchmark.sweep list algorithms             print needs, papers and hyper-parameters
  python -m benchmark.sweep validate my_sweep.toml      print every problem of a sweep file at once

Launching again runs only what is missing. Ctrl-C, kill -9 and power cuts lose at most the work
since the last checkpoint. To see the results: python -m benchmark.collect_results

exit codes: 0 all runs are done; 1 some runs failed; 2 the command is wrong and nothing was written;
130 Ctrl-C.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: list[str] | None) -> int:
    given = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = given.run
    return command(given)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("sweep", description=_DESCRIPTION, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_launch(commands)
    _add_work(commands)
    status = commands.add_parser("status", help="show the progress of a sweep")
    status.set_defaults(run=_status)
    _add_folder(status)
    status.add_argument("--once", action="store_true", help="print once instead of watching")
    cancel = commands.add_parser("cancel", help="end the workers that a launcher has submitted")
    cancel.set_defaults(run=_cancel)
    _add_folder(cancel)
    retry = commands.add_parser("retry", help="make failed runs pending again")
    retry.set_defaults(run=_retry)
    _add_folder(retry)
    retry.add_argument(
        "--key", action="append", metavar="KEY", help="retry only this run; can be repeated"
    )
    lists = commands.add_parser("list", help="list what is installed")
    lists.set_defaults(run=_list)
    lists.add_argument("what", choices=LISTED, metavar=f"{{{','.join(LISTED)}}}")
    lists.add_argument(
        "--long", action="store_true", help="also list hyper-parameters, options and variants"
    )
    remove = commands.add_parser("remove", help="take runs out of a sweep; they are kept aside")
    remove.set_defaults(run=_remove)
    _add_folder(remove)
    remove.add_argument("--algorithm", metavar="NAME[:VARIANT]", help="remove runs of this method")
    remove.add_argument("--dataset", metavar="NAME[:OPTION=VALUE,…]", help="… on this data set")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    new = commands.add_parser("new", help="write a commented sweep file to start from")
    new.set_defaults(run=_new)
    new.add_argument("name", metavar="NAME", help="name of the sweep, or path of its file")
    validate = commands.add_parser("validate", help="check a sweep file and report every problem")
    validate.set_defaults(run=_validate)
    _add_sweep(validate)
    validate.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of downloaded data sets"
    )
    for command in commands.choices.values():
        add_version(command)
    return parser


def _add_launch(commands: Any) -> None:
    launch = commands.add_parser(
        "launch",
        help="run a sweep, or what is missing of it",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    launch.set_defaults(run=_launch)
    _add_sweep(launch)
    launch.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="sweep folder; default: results/<name of the sweep>",
    )
    add_placement(launch)
    _add_slots(launch)
    launch.add_argument(
        "--launcher",
        metavar="NAME[:OPTION=VALUE,…]",
        help="how to start runs, see `list launchers`; default: local",
    )
    add_log(launch)
    launch.add_argument(
        "--oracle",
        action="store_true",
        help="evaluate the test splits during training too; the tables mention it",
    )
    launch.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and print what would run and how long it takes; write nothing",
    )


def _add_slots(parser: argparse.ArgumentParser) -> None:
    """Add the options for the number of runs at a time, and for their time limit."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="largest number of runs at a time; default: one per CPU core, or --per-gpu per GPU",
    )
    parser.add_argument(
        "--per-gpu",
        type=int,
        default=1,
        metavar="N",
        help="number of runs at a time on each GPU; default: 1",
    )
    parser.add_argument(
        "--run-time-limit",
        type=number(float, 1, MAX_RUN_SECONDS),
        metavar="SECONDS",
        help="kill an attempt at a run that takes longer, and try again; default: no limit",
    )


def _add_work(commands: Any) -> None:
    work = commands.add_parser(
        "work",
        help="run what is missing of a planned sweep, as one of several workers",
        description="Claim runs of a sweep folder, run them, and end when none is left to claim. "
        "Any number of workers, on any machines that share the folder, can work at the same time.",
    )
    work.set_defaults(run=_work)
    work.add_argument("folder", type=Path, metavar="DIR", help="sweep folder, which launch writes")
    add_placement(work)
    _add_slots(work)
    work.add_argument(
        "--time",
        type=time_span,
        metavar="TIME",
        help="save all runs and end after this time, and start no run that would take longer; "
        "seconds, or [DAYS-]HH:MM:SS; default: no limit",
    )


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="sweep folder, or its name in results/; default: the newest sweep in results/",
    )


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweep",
        nargs="?",
        default="quickstart",
        metavar="SWEEP",
        help="sweep file, or a name from `list sweeps`; default: quickstart",
    )
    parser.add_argument(
        "--datasets",
        nargs="+",
        metavar="NAME[:OPTION=VALUE,…]",
        help="data sets to use instead of those of the sweep",
    )
    parser.add_argument(
        "--algorithms",
        nargs="+",
        metavar="NAME[:VARIANT]",
        help="algorithms to use instead of those of the sweep",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME[:OPTION=VALUE,…]",
        help="backbone to use instead of that of the sweep",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="number of training steps")
    parser.add_argument(
        "--hparam",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of a hyper-parameter for all methods that have it; can be repeated",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any entry of the sweep file, such as budget.evaluate_every=50; can be repeated",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="run the trials 0 to N − 1")
    parser.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="use the random hyper-parameter draws 1 to N; 0: only the defaults",
    )
    parser.add_argument(
        "--skip-impossible",
        action="store_true",
        help="leave out combinations that cannot run; tables show them as –",
    )


def _launch(given: argparse.Namespace) -> int:
    from benchmark.cli.launching import launch_sweep

    return launch_sweep(given)


def _work(given: argparse.Namespace) -> int:
    from benchmark.cli.working import work_on_sweep

    return work_on_sweep(given)


def _status(given: argparse.Namespace) -> int:
    from benchmark.launch.display import show_status
    from benchmark.plan.sweep_folder import read_stored

    folder = _folder(given)
    stored = read_stored(folder)
    if SweepFolder(folder).workers.is_dir():
        from benchmark.launch.executors.slurm import describe_workers

        if workers := describe_workers(folder):
            say(f"workers: {workers}")
    return show_status(stored, watch=not given.once)


def _cancel(given: argparse.Namespace) -> int:
    from benchmark.launch.executors.slurm import cancel_workers

    folder = _folder(given)
    if not SweepFolder(folder).exists():
        raise UserError(f"{folder} is not the folder of a sweep.")
    count = cancel_workers(folder)
    say(f"{count} workers were asked to save their runs and end." if count else "no worker exists.")
    return 0


def _retry(given: argparse.Namespace) -> int:
    from benchmark.launch.retry import retry
    from benchmark.plan.sweep_folder import read_stored

    folder = _folder(given)
    stored = read_stored(folder)
    unknown = sorted(set(given.key or ()) - set(stored.runs))
    if unknown:
        raise UserError(f"{folder} has no run {', '.join(unknown)}; `status` lists the keys.")
    keys = retry(folder, given.key or list(stored.runs))
    if keys:
        say(f"{len(keys)} runs are pending again; launch the sweep to run them.")
    else:
        say("no run has failed.")
    return 0


def _list(given: argparse.Namespace) -> int:
    from benchmark.cli.listing import LISTS

    say(LISTS[given.what](long=given.long))
    return 0


def _remove(given: argparse.Namespace) -> int:
    from benchmark.cli.editing import remove_runs

    return remove_runs(_folder(given), given.algorithm, given.dataset, ask=not given.yes)


def _new(given: argparse.Namespace) -> int:
    from benchmark.cli.editing import write_template

    path = write_template(given.name)
    say(f"{path} written; edit it, then: python -m benchmark.sweep launch {path}")
    return 0


def _folder(given: argparse.Namespace) -> Path:
    """Return the sweep folder that the command line names: a path, or a name in results/."""
    if given.folder is None:
        return require_newest_sweep(RESULTS).path
    named = RESULTS / given.folder
    if not SweepFolder(given.folder).exists() and SweepFolder(named).exists():
        return named
    path: Path = given.folder
    return path


def _validate(given: argparse.Namespace) -> int:
    from benchmark.cli.launching import validate_sweep

    return validate_sweep(given)


if __name__ == "__main__":
    sys.exit(main())
