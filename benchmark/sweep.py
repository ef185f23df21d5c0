"""Plan, launch, watch and retry sweeps: ``python -m benchmark.sweep COMMAND``."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmark.cli.listing import LISTS
from benchmark.cli.options import add_placement, data_dir, download, local_slots, number
from benchmark.cli.programs import add_version, make_parser
from benchmark.core.conditions import prepare_openmp
from benchmark.core.errors import Problems, UserError, exit_code
from benchmark.core.layout import State, SweepFolder, require_newest_sweep, state_of
from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import LAUNCHERS
from benchmark.core.spec import RunSpec
from benchmark.core.terminal import say
from benchmark.launch.gpus import VISIBLE
from benchmark.launch.launcher import LOCAL, launch, make_executor
from benchmark.launch.main_module import modules_to_import
from benchmark.launch.slots import Placement
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweep_folder import read_stored, write_plan
from benchmark.plan.sweepfile import SweepConfig, find_sweep_file, read_numbers, read_sweep

RESULTS = Path("results")
#: The largest time limit of a run: a year.
MAX_RUN_SECONDS = 365 * 24 * 3600

_DESCRIPTION = "Plan, launch, watch and retry sweeps."

_EPILOG = """examples:
  python -m benchmark.sweep launch                      run the quickstart (no download)
  python -m benchmark.sweep launch quickstart --dry-run print what would run, and how long it takes
  python -m benchmark.sweep launch quickstart --trials 5 --algorithms erm irm --output results/mine
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
    status = commands.add_parser("status", help="show the progress of a sweep")
    status.set_defaults(run=_status)
    _add_folder(status)
    status.add_argument("--once", action="store_true", help="print once instead of watching")
    retry = commands.add_parser("retry", help="make failed runs pending again")
    retry.set_defaults(run=_retry)
    _add_folder(retry)
    retry.add_argument(
        "--key", action="append", metavar="KEY", help="retry only this run; can be repeated"
    )
    lists = commands.add_parser("list", help="list what is installed")
    lists.set_defaults(run=_list)
    lists.add_argument("what", choices=tuple(LISTS), metavar=f"{{{','.join(LISTS)}}}")
    lists.add_argument(
        "--long", action="store_true", help="also list hyper-parameters, options and variants"
    )
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
    launch.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="largest number of runs at a time; default: one per CPU core, or --per-gpu per GPU",
    )
    launch.add_argument(
        "--per-gpu",
        type=int,
        default=1,
        metavar="N",
        help="number of runs at a time on each GPU; default: 1",
    )
    launch.add_argument(
        "--launcher",
        default=str(LOCAL),
        metavar="NAME[:OPTION=VALUE,…]",
        help=f"how to start runs, see `list launchers`; default: {LOCAL}",
    )
    launch.add_argument(
        "--run-time-limit",
        type=number(float, 1, MAX_RUN_SECONDS),
        metavar="SECONDS",
        help="kill an attempt at a run that takes longer, and try again; default: no limit",
    )
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


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="sweep folder; default: the newest sweep in results/",
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
        say(f"To see the results: python -m benchmark.collect_results {folder}")
    return 0 if summary.complete else 1


def _dry_run(placement: Placement, plan: Plan, folder: Path) -> int:
    """Estimate how long the missing runs would take here; write only to a temporary folder.

    Raises:
        Problems: data are missing; raised after the estimate.
    """
    from benchmark.launch.time_estimate import estimate

    slots = local_slots(placement)
    if slots[0].gpu is not None:
        os.environ[VISIBLE] = slots[0].gpu
    left = [
        key for key in plan.runs if state_of(SweepFolder(folder).run(key).path) is not State.DONE
    ]
    if len(left) < len(plan.runs):
        say(f"{len(plan.runs) - len(left)} runs are already done.")
    prepare_openmp()
    import torch

    from benchmark.engine.timing import measure

    torch.set_num_threads(slots[0].threads)
    device = slots[0].device
    specs = {key: run.spec for key, run in plan.runs.items()}
    infos = {fingerprint: data.info for fingerprint, data in plan.data.items()}

    def measure_here(spec: RunSpec, batch_size: int) -> Mapping[str, float]:
        return measure(spec, specs, infos, batch_size, device)

    @functools.cache
    def split_sizes(fingerprint: str) -> dict[str, int] | None:
        data = plan.data[fingerprint]
        if data.absent or not data.source.decoded():
            return None
        splits = data.source.load(plan.config.trials[0]).splits
        return {name: len(split) for name, split in splits.items()}

    missing = list(dict.fromkeys(data.absent for data in plan.data.values() if data.absent))
    for problem in missing:
        say(f"missing data, timed on random images instead: {problem}")
    estimate(plan, left, device, len(slots), measure_here, split_sizes, say)
    _describe_power(plan, split_sizes)
    if missing:
        raise Problems(missing)
    return 0


def _describe_power(plan: Plan, split_sizes: Callable[[str], Mapping[str, int] | None]) -> None:
    """Print how large differences between methods the planned trials and test images can find."""
    from benchmark.report.statistics.power import (
        TYPICAL_DISAGREEMENT,
        TYPICAL_TRIAL_SD,
        describe_power,
        planned_error,
    )
    from benchmark.report.tables.pairwise import ALPHA

    requested = [run for run in plan.runs.values() if run.requested]
    clauses = {}
    for dataset in dict.fromkeys(run.dataset for run in requested):
        runs = [run for run in requested if run.dataset == dataset]
        methods = len({run.spec.method for run in runs})
        trials = len({run.spec.trial for run in runs})
        data = plan.data.get(runs[0].spec.data_fingerprint)
        sizes = None if data is None else split_sizes(runs[0].spec.data_fingerprint)
        if methods < 2 or data is None or not sizes or not data.info.test_splits:
            continue
        tests = data.info.test_splits
        split = next((name for name in ("unbiased", "test") if name in tests), tests[0])
        images = sizes[split]
        error = planned_error(trials, images, methods)
        clauses[dataset] = describe_power(error, trials, images, methods, ALPHA)
    for dataset, clause in clauses.items():
        say(f"{dataset}: {clause}")
    if clauses:
        say(
            f"(assuming that methods differ on {100 * TYPICAL_DISAGREEMENT:g} % of the images and "
            f"trials by {100 * TYPICAL_TRIAL_SD:g} points; the report has the power of the results)"
        )


def _describe(plan: Plan, folder: Path) -> None:
    """Print what a plan contains."""
    specs = [run.spec for run in plan.runs.values()]
    requested = [run for run in plan.runs.values() if run.requested]
    upstream = len(specs) - len(requested)
    extra = f" and {upstream} upstream" if upstream else ""
    steps = sum(spec.budget["steps"] for spec in specs)
    title = plan.config.title or plan.config.name
    say(f"{title}: {len(requested)} runs{extra}, {steps:,} steps, in {folder}")
    counts = Counter((run.dataset, run.spec.method) for run in requested)
    for (dataset, method), count in counts.items():
        say(f"  {count:>4} × {method} on {dataset}")
    for reason, count in Counter(refusal.reason for refusal in plan.refused).items():
        say(f"  {count:>4} left out: {reason}")
    _print_warnings(plan)


def _print_warnings(plan: Plan) -> None:
    for warning in plan.warnings:
        say(f"warning: {warning}", error=True)


def _status(given: argparse.Namespace) -> int:
    from benchmark.launch.display import show_status

    folder = given.folder or require_newest_sweep(RESULTS).path
    return show_status(read_stored(folder), watch=not given.once)


def _retry(given: argparse.Namespace) -> int:
    from benchmark.launch.retry import retry

    folder = given.folder or require_newest_sweep(RESULTS).path
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
    say(LISTS[given.what](long=given.long))
    return 0


def _validate(given: argparse.Namespace) -> int:
    plan = expand(_config(given), data_dir(given), given.skip_impossible)
    say(f"{given.sweep} is valid: {len(plan.runs)} runs.")
    _print_warnings(plan)
    return 0


if __name__ == "__main__":
    sys.exit(main())
