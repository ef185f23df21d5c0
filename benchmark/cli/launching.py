"""The commands ``sweep launch`` and ``sweep validate``."""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmark.cli.options import data_dir
from benchmark.cli.resources import download, local_slots
from benchmark.core.conditions import prepare_openmp
from benchmark.core.errors import Problems
from benchmark.core.layout import RESULTS, State, SweepFolder, state_of
from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import LAUNCHERS
from benchmark.core.run_times import RunTimes
from benchmark.core.spec import RunSpec
from benchmark.core.terminal import say
from benchmark.launch.display import make_display
from benchmark.launch.events import Event
from benchmark.launch.executor import Workload
from benchmark.launch.gpus import VISIBLE
from benchmark.launch.launcher import LOCAL, launch, make_executor
from benchmark.launch.main_module import modules_to_import
from benchmark.launch.slots import Placement
from benchmark.plan.overrides import read_changed_sweep
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweep_folder import write_plan
from benchmark.plan.sweepfile import SweepConfig, find_sweep_file, read_numbers
from benchmark.tracking.follow import check_trackers, followed


def _config(given: argparse.Namespace) -> SweepConfig:
    config = read_changed_sweep(find_sweep_file(given.sweep), _changes(given))
    return config.changed(
        datasets=tuple(map(parse_named_options, given.datasets)) if given.datasets else None,
        algorithms=tuple(given.algorithms) if given.algorithms else None,
        trials=None if given.trials is None else read_numbers("trials", given.trials),
        draws=None if given.draws is None else read_numbers("draws", given.draws),
        grid=None if given.draws is None else False,
        oracle=True if getattr(given, "oracle", False) else None,
    )


def _changes(given: argparse.Namespace) -> list[str]:
    """Return the changes of the sweep file, those of ``--set`` last."""
    changes = []
    if given.backbone is not None:
        changes.append(f"backbone={json.dumps(given.backbone)}")
    if given.steps is not None:
        changes.append(f"budget.steps={given.steps}")
    changes += [f"fixed.{change}" for change in given.hparam]
    return changes + given.set


def launch_sweep(given: argparse.Namespace) -> int:
    """Run a sweep, or estimate how long it would take.

    Args:
        given: Arguments of ``sweep launch``.

    Returns:
        The exit code.
    """
    launcher = parse_named_options(given.launcher) if given.launcher else LOCAL
    kind = LAUNCHERS.get(launcher.name)
    check_trackers(given.log)
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
        code = _dry_run(placement, plan, folder)
        if launcher != LOCAL:
            executor = make_executor(placement, launcher, available=True)
            executor.workload = Workload(folder, len(plan.runs))
            say(executor.preview())
        return code
    # Problems that concern every run are reported before anything is written.
    executor = make_executor(placement, launcher)
    if executor.note:
        say(f"note: {executor.note}", error=True)
        executor.note = ""
    modules_to_import(run.spec.components for run in plan.runs.values())
    keys = write_plan(plan, folder)
    labels = {key: plan.runs[key].spec.label() for key in keys}
    with followed(given.log, folder) as track, make_display(folder, labels) as display:

        def on_event(event: Event) -> None:
            display(event)
            track(event)

        summary = launch(
            folder,
            keys,
            executor,
            data_dir=data_dir(given),
            checkpoint_seconds=given.checkpoint_seconds,
            on_event=on_event,
            run_time_limit=given.run_time_limit,
        )
    if executor.detached:
        say(f"{executor.note or 'every run has ended already'}.")
        say(f"To watch: python -m benchmark.sweep status {folder}")
        if given.log:
            say("Trackers follow the runs of a launch that waits; launch again when they are done.")
        return 0
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

    def measure_here(spec: RunSpec, batch_size: int) -> RunTimes:
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

    requested = [run for run in plan.runs.values() if run.requested and not run.explainer]
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
    measured = [run for run in plan.runs.values() if run.explainer]
    requested = [run for run in plan.runs.values() if run.requested and not run.explainer]
    upstream = len(specs) - len(requested) - len(measured)
    extra = f" and {upstream} upstream" if upstream else ""
    extra += f", {len(measured)} measurements of explanations" if measured else ""
    steps = sum(spec.training_budget.steps for spec in specs)
    title = plan.config.title or plan.config.name
    say(f"{title}: {len(requested)} runs{extra}, {steps:,} steps, in {folder}")
    counts = Counter((run.dataset, run.spec.method) for run in requested)
    for (dataset, method), count in counts.items():
        say(f"  {count:>4} × {method} on {dataset}")
    for explainer, count in Counter(run.explainer for run in measured).items():
        say(f"  {count:>4} × explained by {explainer}")
    for reason, count in Counter(refusal.reason for refusal in plan.refused).items():
        say(f"  {count:>4} left out: {reason}")
    _print_warnings(plan)


def _print_warnings(plan: Plan) -> None:
    for warning in plan.warnings:
        say(f"warning: {warning}", error=True)


def validate_sweep(given: argparse.Namespace) -> int:
    """Check a sweep file and print its number of runs.

    Args:
        given: Arguments of ``sweep validate``.

    Returns:
        The exit code.
    """
    plan = expand(_config(given), data_dir(given), given.skip_impossible)
    say(f"{given.sweep} is valid: {len(plan.runs)} runs.")
    _print_warnings(plan)
    return 0
