"""Sweeps: plan, launch, watch, retry, list: `python -m benchmark.sweep COMMAND`."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections import Counter
from pathlib import Path

from benchmark.cli.listing import LISTS
from benchmark.cli.options import add_placement, data_dir, download, local_slots, number
from benchmark.cli.programs import add_version, make_parser
from benchmark.core.conditions import prepare_openmp
from benchmark.core.errors import Problems, UserError, exit_code
from benchmark.core.layout import SweepFolder, require_newest_sweep
from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import LAUNCHERS
from benchmark.core.terminal import say
from benchmark.launch.gpus import VISIBLE
from benchmark.launch.launcher import LOCAL, launch, make_executor
from benchmark.launch.main_module import modules_to_import
from benchmark.launch.slots import Placement
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweep_folder import read_stored, write_plan
from benchmark.plan.sweepfile import SweepConfig, find_sweep_file, read_numbers, read_sweep

RESULTS = Path("results")
#: The largest time limit of a run in seconds: a year.
LONGEST_RUN = 365 * 24 * 3600

_EPILOG = """examples:
  python -m benchmark.sweep launch                                   the quickstart: no download, a few minutes
  python -m benchmark.sweep launch sweeps/quickstart.toml --dry-run  what would run
  python -m benchmark.sweep launch quickstart --trials 5 --algorithms erm group_dro --output results/mine
  python -m benchmark.sweep status                                   what is done, running, failed
  python -m benchmark.sweep retry                                    failed runs become pending; then launch again
  python -m benchmark.sweep list algorithms                          needs, papers, hyper-parameters
  python -m benchmark.sweep validate my_sweep.toml                   every problem at once

Launching again does what is missing and nothing else. Ctrl-C, kill -9 and power cuts lose at most the work since
the last checkpoint. Exit codes: 0 all done, 1 some runs failed, 2 a mistake in what was asked (nothing was
written), 130 Ctrl-C. Afterwards: python -m benchmark.collect_results
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: list[str] | None) -> int:
    given = _parser().parse_args(arguments)
    command = {
        "launch": _launch,
        "status": _status,
        "retry": _retry,
        "list": _list,
        "validate": _validate,
    }[given.command]
    return command(given)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("sweep", description=__doc__, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    launch = commands.add_parser(
        "launch",
        help="run a sweep, or what is missing of it",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_sweep(launch)
    launch.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="sweep folder; default: results/<name of the sweep>",
    )
    add_placement(launch)
    launch.add_argument(
        "--workers", type=int, metavar="N", help="runs at a time on the CPU; default: one per core"
    )
    launch.add_argument(
        "--per-gpu", type=int, default=1, metavar="K", help="runs at a time on each GPU; default: 1"
    )
    launch.add_argument(
        "--launcher",
        default=str(LOCAL),
        metavar="NAME[:OPTION=VALUE,…]",
        help=f"how runs are started; default: {LOCAL} (see `list launchers`)",
    )
    launch.add_argument(
        "--run-time-limit",
        type=number(float, 1, LONGEST_RUN),
        metavar="SECONDS",
        help="kill an attempt at a run that takes longer, and try again; default: no limit",
    )
    launch.add_argument(
        "--oracle",
        action="store_true",
        help="evaluate the test splits along the way too; tables say so",
    )
    launch.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, say what would run and how long, write nothing",
    )
    status = commands.add_parser("status", help="how far a sweep is")
    status.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="default: the newest sweep in results/"
    )
    status.add_argument("--once", action="store_true", help="print once instead of watching")
    retry = commands.add_parser(
        "retry", help="make failed runs pending again; launch then runs them"
    )
    retry.add_argument(
        "folder", nargs="?", type=Path, metavar="DIR", help="default: the newest sweep in results/"
    )
    retry.add_argument(
        "--key", action="append", metavar="KEY", help="only this run; may be given several times"
    )
    lists = commands.add_parser("list", help="what there is")
    lists.add_argument("what", choices=tuple(LISTS), metavar=f"{{{','.join(LISTS)}}}")
    lists.add_argument(
        "--long", action="store_true", help="hyper-parameters, options and variants too"
    )
    validate = commands.add_parser("validate", help="check a sweep file and report every problem")
    _add_sweep(validate)
    validate.add_argument("--data-dir", type=Path, metavar="DIR", help="downloaded data sets")
    for command in commands.choices.values():
        add_version(command)
    return parser


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sweep",
        nargs="?",
        default="quickstart",
        metavar="SWEEP",
        help="file, or name of a sweep that `list sweeps` shows; default: quickstart",
    )
    parser.add_argument(
        "--datasets", nargs="+", metavar="NAME[:OPTION=VALUE,…]", help="instead of the sweep's"
    )
    parser.add_argument(
        "--algorithms", nargs="+", metavar="NAME[:VARIANT]", help="instead of the sweep's"
    )
    parser.add_argument("--trials", type=int, metavar="N", help="trials 0 … N − 1")
    parser.add_argument(
        "--draws",
        type=int,
        metavar="N",
        help="random draws 1 … N of the hyper-parameters; 0: the defaults",
    )
    parser.add_argument(
        "--skip-impossible",
        action="store_true",
        help="leave out what cannot run; tables show it as –",
    )


def _config(given: argparse.Namespace) -> SweepConfig:
    config = read_sweep(find_sweep_file(given.sweep))
    return config.changed(
        datasets=tuple(map(parse_named_options, given.datasets)) if given.datasets else None,
        algorithms=tuple(given.algorithms) if given.algorithms else None,
        trials=None if given.trials is None else read_numbers("trials", given.trials),
        draws=None if given.draws is None else read_numbers("draws", given.draws),
        oracle=True if getattr(given, "oracle", False) else None,
    )


def _launch(given: argparse.Namespace) -> int:
    launcher = parse_named_options(given.launcher)
    kind = LAUNCHERS.get(launcher.name)
    if not given.dry_run:
        kind.check_available()
    config = _config(given)
    placement = Placement(given.device, given.workers, given.per_gpu)
    if given.download:
        download(config.datasets, data_dir(given))
    plan = expand(config, data_dir(given), given.skip_impossible, absent_ok=given.dry_run)
    folder = given.output or RESULTS / config.name
    _describe(plan, folder)
    if given.dry_run:
        return _dry_run(placement, plan, folder)
    from benchmark.launch.display import make_display

    # Problems that concern every run are reported before anything is written.
    executor = make_executor(placement, launcher)
    if executor.note:
        say(f"note: {executor.note}", error=True)
    modules_to_import(run.spec for run in plan.runs.values())
    keys = write_plan(plan, folder)
    with make_display(folder, {key: plan.runs[key].spec.label() for key in keys}) as on_event:
        summary = launch(
            folder,
            keys,
            executor,
            data_dir=data_dir(given),
            checkpoint_seconds=given.checkpoint_seconds,
            on_event=on_event,
            run_time_limit=given.run_time_limit,
        )
    say(summary)
    if summary.complete:
        say(f"tables: python -m benchmark.collect_results {folder}")
    return 0 if summary.complete else 1


def _dry_run(placement: Placement, plan: Plan, folder: Path) -> int:
    """Say how long what is missing would take here; nothing is written but in a temporary folder.

    Raises:
        Problems: data that are not there, after the estimate.
    """
    from benchmark.core.layout import State, state_of
    from benchmark.launch.time_estimate import estimate

    slots = local_slots(placement)
    if slots[0].gpu is not None:
        os.environ[VISIBLE] = slots[0].gpu
    left = [
        key for key in plan.runs if state_of(SweepFolder(folder).run(key).path) is not State.DONE
    ]
    if len(left) < len(plan.runs):
        say(f"{len(plan.runs) - len(left)} runs are done already.")
    prepare_openmp()
    import torch

    from benchmark.engine.timing import measure

    torch.set_num_threads(slots[0].threads)
    specs = {key: run.spec for key, run in plan.runs.items()}
    infos = {fingerprint: known.info for fingerprint, known in plan.data.items()}
    device, trial = slots[0].device, plan.config.trials[0]

    @functools.cache
    def sizes(fingerprint: str) -> dict[str, int] | None:
        known = plan.data[fingerprint]
        if known.absent or not known.source.decoded():
            return None
        return {name: len(split) for name, split in known.source.load(trial).splits.items()}

    absent = list(dict.fromkeys(known.absent for known in plan.data.values() if known.absent))
    for what in absent:
        say(f"not there, and timed on random images: {what}")
    estimate(
        plan, left, device, len(slots), lambda spec, size: measure(spec, specs, infos, size, device), sizes,
        say,
    )  # fmt: skip
    if absent:
        raise Problems(absent)
    return 0


def _describe(plan: Plan, folder: Path) -> None:
    specs = [run.spec for run in plan.runs.values()]
    asked = sum(run.requested for run in plan.runs.values())
    extra = f" and {len(specs) - asked} upstream" if len(specs) > asked else ""
    steps = sum(spec.budget["steps"] for spec in specs)
    say(
        f"{plan.config.title or plan.config.name}: {asked} runs{extra}, {steps:,} steps, in {folder}"
    )
    per = Counter((run.dataset, run.spec.method) for run in plan.runs.values() if run.requested)
    for (dataset, method), count in per.items():
        say(f"  {count:>4} × {method} on {dataset}")
    for reason, count in Counter(refusal.reason for refusal in plan.refused).items():
        say(f"  {count:>4} left out: {reason}")
    _warn(plan)


def _warn(plan: Plan) -> None:
    for warning in plan.warnings:
        say(f"warning: {warning}", error=True)


def _status(given: argparse.Namespace) -> int:
    from benchmark.launch.display import show_status

    return show_status(
        read_stored(given.folder or require_newest_sweep(RESULTS).path), watch=not given.once
    )


def _retry(given: argparse.Namespace) -> int:
    from benchmark.launch.retry import retry

    folder = given.folder or require_newest_sweep(RESULTS).path
    stored = read_stored(folder)
    unknown = sorted(set(given.key or ()) - set(stored.runs))
    if unknown:
        raise UserError(f"{folder} has no run {', '.join(unknown)}; `status` lists the keys.")
    keys = retry(folder, given.key or list(stored.runs))
    say(
        f"{len(keys)} runs are pending again; launch the sweep to run them."
        if keys
        else "no run has failed."
    )
    return 0


def _list(given: argparse.Namespace) -> int:
    say(LISTS[given.what](long=given.long))
    return 0


def _validate(given: argparse.Namespace) -> int:
    plan = expand(_config(given), data_dir(given), given.skip_impossible)
    say(f"{given.sweep} is valid: {len(plan.runs)} runs.")
    _warn(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
