"""Plan, launch, watch and retry sweeps: ``python -m benchmark.sweep COMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark.cli.options import (
    LISTED,
    add_data_dir,
    add_log,
    add_placement,
    number,
    time_span,
)
from benchmark.cli.programs import add_command, add_version, make_parser
from benchmark.core.errors import UserError, exit_code
from benchmark.core.layout import SweepFolder, find_sweep_folder
from benchmark.core.terminal import say

#: The largest time limit of a run: a year.
MAX_RUN_SECONDS = 365 * 24 * 3600

_DESCRIPTION = "Plan, launch, watch and retry sweeps."

_EPILOG = """examples:
  python -m benchmark.sweep launch                  run the quickstart (no download)
  python -m benchmark.sweep work results/mine       be one of several workers of a sweep
  python -m benchmark.sweep status                  watch which runs are done, running or failed
  python -m benchmark.sweep retry                   make failed runs pending; then launch again
  python -m benchmark.sweep list algorithms         print methods with needs and papers
  python -m benchmark.sweep new my_sweep            create a sweep file to edit
  python -m benchmark.sweep validate my_sweep.toml  print every problem of a sweep file at once

`COMMAND --help` describes each command. To see the results: python -m benchmark.collect_results

exit codes: 0 success, and all runs are done; 1 some runs failed; 2 the command is wrong and nothing
was written; 75 the time limit of `work` was reached; 130 Ctrl-C.
"""

_LAUNCH_EPILOG = """examples:
  python -m benchmark.sweep launch                       run the quickstart (no download)
  python -m benchmark.sweep launch quickstart --dry-run  print what would run, and for how long
  python -m benchmark.sweep launch quickstart --trials 5 --algorithms erm irm --output results/mine
  python -m benchmark.sweep launch my_sweep.toml --set budget.evaluate_every=50 --device cuda

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
    status = add_command(commands, "status", "show the progress of a sweep")
    status.set_defaults(run=_status)
    _add_folder(status)
    status.add_argument("--once", action="store_true", help="print the progress once and exit")
    cancel = add_command(
        commands,
        "cancel",
        "stop the workers that a launcher has submitted",
        "Stop the workers that a launcher has submitted. They save their runs first.",
    )
    cancel.set_defaults(run=_cancel)
    _add_folder(cancel)
    retry = add_command(commands, "retry", "make failed runs pending, so that launch repeats them")
    retry.set_defaults(run=_retry)
    _add_folder(retry)
    retry.add_argument(
        "--key", action="append", metavar="KEY", help="retry only this run; repeatable"
    )
    lists = add_command(commands, "list", "list algorithms, data sets, backbones and more")
    lists.set_defaults(run=_list)
    kinds = f"{{{','.join(LISTED)}}}"
    lists.add_argument("what", choices=LISTED, metavar=kinds, help="what to list")
    lists.add_argument(
        "--long", action="store_true", help="also list hyper-parameters, options and variants"
    )
    remove = add_command(
        commands,
        "remove",
        "remove runs from a sweep",
        "Remove the runs of an algorithm or on a data set, or with both options the runs of that "
        "algorithm on that data set. Their folders are moved to removed/ in the sweep folder.",
    )
    remove.set_defaults(run=_remove)
    _add_folder(remove)
    remove.add_argument(
        "--algorithm", metavar="NAME[:VARIANT]", help="remove runs of this algorithm"
    )
    remove.add_argument(
        "--dataset", metavar="NAME[:OPTION=VALUE,…]", help="remove runs on this data set"
    )
    remove.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    new = add_command(commands, "new", "create a commented sweep file")
    new.set_defaults(run=_new)
    new.add_argument(
        "name", metavar="NAME", help="name of the sweep, or path of the file to create"
    )
    validate = add_command(commands, "validate", "check a sweep file and report every problem")
    validate.set_defaults(run=_validate)
    _add_sweep(validate)
    add_data_dir(validate)
    for command in commands.choices.values():
        add_version(command)
    return parser


def _add_launch(commands: Any) -> None:
    launch = add_command(
        commands,
        "launch",
        "run a sweep, or the rest of an unfinished one",
        epilog=_LAUNCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    launch.set_defaults(run=_launch)
    _add_sweep(launch)
    launch.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write the sweep to this folder; default: results/NAME, with the name of the sweep",
    )
    add_placement(launch)
    _add_slots(launch)
    launch.add_argument(
        "--launcher",
        metavar="NAME[:OPTION=VALUE,…]",
        help="start the runs with this launcher; see `sweep list launchers`; default: local",
    )
    add_log(launch)
    launch.add_argument(
        "--oracle",
        action="store_true",
        help="also evaluate the test splits during training; the tables mention it",
    )
    launch.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print what would run and for how long, and write nothing",
    )


def _add_slots(parser: argparse.ArgumentParser) -> None:
    """Add the options for the number of runs at a time, and for their time limit."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="execute at most N runs at a time; default: one per CPU core, or --per-gpu per GPU",
    )
    parser.add_argument(
        "--per-gpu",
        type=int,
        default=1,
        metavar="N",
        help="execute at most N runs at a time on each GPU; default: 1",
    )
    parser.add_argument(
        "--run-time-limit",
        type=number(float, 1, MAX_RUN_SECONDS),
        metavar="SECONDS",
        help="kill and retry a run whose attempt takes longer; default: no limit",
    )


def _add_work(commands: Any) -> None:
    work = add_command(
        commands,
        "work",
        "run the rest of a sweep as one of several workers",
        "Claim runs of a sweep folder and execute them, until no run is left to claim. Any number "
        "of workers, on any machines that share the folder, can work at the same time.",
    )
    work.set_defaults(run=_work)
    work.add_argument("folder", type=Path, metavar="DIR", help="folder of a launched sweep")
    add_placement(work)
    _add_slots(work)
    work.add_argument(
        "--time",
        type=time_span,
        metavar="TIME",
        help="save all runs and exit after this time, in seconds or as [DAYS-]HH:MM:SS, and start "
        "no run that would take longer; default: no limit",
    )


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="DIR",
        help="sweep folder, or its name in results/; default: the newest sweep in results/",
    )


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweep",
        nargs="?",
        default="quickstart",
        metavar="SWEEP",
        help="sweep file, or a name from `sweep list sweeps`; default: quickstart",
    )
    parser.add_argument(
        "--datasets",
        nargs="+",
        metavar="NAME[:OPTION=VALUE,…]",
        help="use these data sets instead of those of the sweep file",
    )
    parser.add_argument(
        "--algorithms",
        nargs="+",
        metavar="NAME[:VARIANT]",
        help="use these algorithms instead of those of the sweep file",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME[:OPTION=VALUE,…]",
        help="use this backbone instead of that of the sweep file",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="train for N steps; default: as the sweep file says"
    )
    parser.add_argument(
        "--hparam",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a hyper-parameter of all algorithms that have it; repeatable",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set any entry of the sweep file, such as budget.evaluate_every=50; repeatable",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="run trials 0 to N − 1")
    parser.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="run random draws 1 to N of the hyper-parameters; 0: only the default values",
    )
    parser.add_argument(
        "--skip-impossible",
        action="store_true",
        help="skip combinations that cannot run; tables show them as –",
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
    workers = "1 worker was" if count == 1 else f"{count} workers were"
    say(f"{workers} asked to save their runs and stop." if count else "no worker is running.")
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
        runs = "1 run is" if len(keys) == 1 else f"{len(keys)} runs are"
        say(f"{runs} pending again; launch the sweep to repeat what failed.")
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
    """Return the sweep folder that the command line names, as ``collect_results`` reads it."""
    return find_sweep_folder(given.folder)


def _validate(given: argparse.Namespace) -> int:
    from benchmark.cli.launching import validate_sweep

    return validate_sweep(given)


if __name__ == "__main__":
    sys.exit(main())
