"""Execute a single run, for development: ``python -m benchmark.train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.cli.options import add_log, add_placement, data_dir
from benchmark.cli.programs import make_parser
from benchmark.cli.resources import download, pick_device
from benchmark.core.conditions import prepare_openmp
from benchmark.core.counts import accuracy
from benchmark.core.criteria import title_of
from benchmark.core.errors import ErrorCollector, UserError, exit_code
from benchmark.core.hparam import parse_values
from benchmark.core.layout import (
    RESULTS,
    SINGLE_RUNS,
    RunFolder,
    State,
    SweepFolder,
    state_of,
)
from benchmark.core.log_line import LogLine
from benchmark.core.named_options import base_name, split_option
from benchmark.core.outcome import RunOutcome
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS
from benchmark.core.run_states import AttemptEnd
from benchmark.core.terminal import say
from benchmark.launch.attempts import begin
from benchmark.launch.events import Event, EventKind
from benchmark.launch.lease import Claim
from benchmark.launch.retry import retry
from benchmark.launch.stop_signals import StopRequest, handle_stop_signals
from benchmark.plan.planner import expand
from benchmark.plan.sweep_folder import write_plan
from benchmark.plan.sweepfile import SweepConfig, config_from
from benchmark.tracking.follow import check_trackers, followed

_DESCRIPTION = "Train and evaluate a single run, for development."

_EPILOG = """examples:
  python -m benchmark.train --dataset digits_on_photos:bias=0.95 --algorithm erm --steps 300
  python -m benchmark.train --dataset cmnist --algorithm irm --hparam penalty_weight=1000
  python -m benchmark.train --dataset digits_on_photos --algorithm group_dro --trial 3 --device cuda

The run folder contains spec.json, log.jsonl, record.json, predictions.npz and selected.pt. If the
run is killed, the same command resumes it from its checkpoint; once it is done, the command only
reports it. To compare methods, write a sweep: python -m benchmark.sweep --help
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: list[str] | None) -> int:
    given = _parser().parse_args(arguments)
    check_trackers(given.log)
    prepare_openmp()  # what follows imports torch
    config = _config(given)
    device = pick_device(given.device)
    if given.download:
        download(config.datasets, data_dir(given))
    plan = expand(config, data_dir(given), advice="")
    for warning in plan.warnings:
        say(f"warning: {warning}", error=True)
    keys = write_plan(plan, given.output)
    with followed(given.log, given.output, alone=False) as track:
        for key in keys:
            label = plan.runs[key].spec.label()
            track(Event(EventKind.START, key, label))
            done = False
            try:
                done = _run(SweepFolder(given.output).run(key).path, label, device, given)
            finally:
                track(Event(EventKind.DONE if done else EventKind.INTERRUPTED, key, label))
            if not done:
                return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("train", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME[:OPTION=VALUE,…]",
        help="train on this data set; see `sweep list datasets`",
    )
    parser.add_argument(
        "--algorithm",
        required=True,
        metavar="NAME[:VARIANT]",
        help="train with this algorithm; see `sweep list algorithms`",
    )
    parser.add_argument(
        "--backbone",
        default="convnet",
        metavar="NAME[:OPTION=VALUE,…]",
        help="train this network; see `sweep list backbones`; default: convnet",
    )
    parser.add_argument(
        "--hparam",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a hyper-parameter; repeatable",
    )
    parser.add_argument(
        "--steps", type=int, default=500, metavar="N", help="train for N steps; default: 500"
    )
    parser.add_argument(
        "--evaluate-every",
        type=int,
        metavar="N",
        help="evaluate every N steps; default: a tenth of --steps",
    )
    parser.add_argument(
        "--selection",
        nargs="+",
        default=["val_accuracy", "last"],
        metavar="CRITERION",
        help="select a step by each of these criteria; see `sweep list criteria`; default: "
        "val_accuracy last",
    )
    parser.add_argument(
        "--trial",
        type=int,
        default=0,
        metavar="N",
        help="seed data, weights and batches with N; default: 0",
    )
    parser.add_argument(
        "--draw",
        type=int,
        default=0,
        metavar="N",
        help="use random draw N of the hyper-parameters; 0: the default values; default: 0",
    )
    parser.add_argument(
        "--oracle", action="store_true", help="also evaluate the test splits during training"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS / SINGLE_RUNS,
        metavar="DIR",
        help=f"write the run to this folder; default: {RESULTS / SINGLE_RUNS}",
    )
    add_placement(parser)
    add_log(parser)
    return parser


def _config(given: argparse.Namespace) -> SweepConfig:
    budget = {"steps": given.steps}
    if given.evaluate_every is not None:
        budget["evaluate_every"] = given.evaluate_every
    algorithm = base_name(given.algorithm)
    values: dict[str, Any] = {
        "datasets": [given.dataset],
        "algorithms": [given.algorithm],
        "backbone": given.backbone,
        "trials": [given.trial],
        "draws": [given.draw],
        "selection": given.selection,
        "budget": budget,
        "oracle": given.oracle,
        "override": {given.algorithm: _hparams(algorithm, given.hparam)},
    }
    return config_from(values, "train", "command line")


def _hparams(algorithm: str, given: list[str]) -> dict[str, Any]:
    """Return the values of ``--hparam NAME=VALUE`` in the types that the algorithm declares."""
    if not given:  # the algorithms, which import torch, are not needed yet
        return {}
    collect = ErrorCollector()
    options = [collect(_split_hparam, text) for text in given]
    collect.finish()
    texts = dict(option for option in options if option is not None)
    return parse_values(ALGORITHMS.get(algorithm).all_hparams(0), texts, algorithm, "hparam")


def _split_hparam(text: str) -> tuple[str, str]:
    option = split_option(text)
    if option is None:
        raise UserError(f"--hparam {text!r} has no value; expected NAME=VALUE, such as lr=1e-3.")
    return option


def _run(folder: Path, label: str, device: str, given: argparse.Namespace) -> bool:
    """Execute a run in this process and print a line per evaluation.

    Returns:
        True if the run is done.
    """
    if state_of(folder) is State.DONE:
        say(f"{label}: already done, see {RunFolder(folder).record}")
        return True
    say(f"{label}: {folder}")
    request = StopRequest()
    claim = Claim(folder, on_lost=request.lose_lease)
    if not claim.take():
        raise UserError(
            f"another process is working on {folder}; wait for it, or choose another --output."
        )
    try:
        outcome = _execute(folder, device, given, request)
    except FileNotFoundError:
        if RunFolder(folder).spec.exists():
            raise
        raise UserError(_removed_message(folder)) from None
    finally:
        claim.release()
    if outcome in (RunOutcome.DONE, RunOutcome.SETTLED):
        _print_record(folder)
        return True
    if outcome is RunOutcome.INTERRUPTED:
        if request.reason() != AttemptEnd.LEASE_LOST:
            raise KeyboardInterrupt
        if not folder.is_dir():
            raise UserError(_removed_message(folder))
        say("another process took over the run; run the command again to see it.", error=True)
    elif outcome is RunOutcome.OUT_OF_MEMORY:
        say("failed: out of memory; use a smaller batch_size.", error=True)
    elif outcome is RunOutcome.DEVICE_ERROR:
        say("failed: the GPU failed, see above; run the command again.", error=True)
    return False


def _execute(
    folder: Path, device: str, given: argparse.Namespace, request: StopRequest
) -> RunOutcome:
    """Execute a run whose lease this process holds."""
    from benchmark.engine.execute import execute  # imports torch

    def on_stop() -> None:
        """Let the run save itself at the first request, and end it at the second."""
        if request.reason() is not None:
            raise KeyboardInterrupt
        request.ask("interrupted")

    retry(folder.parents[1], [folder.name])
    with handle_stop_signals(on_stop):
        return execute(
            folder,
            begin(folder),
            device=device,
            data_dir=data_dir(given),
            checkpoint_seconds=given.checkpoint_seconds,
            stop=request.reason,
            on_line=_print_line,
            at_once=request.at_once,
        )


def _removed_message(folder: Path) -> str:
    return f"{folder} was removed during the run, which is lost; run the command again."


def _print_line(line: LogLine) -> None:
    terms = "  ".join(f"{name} {value:.4f}" for name, value in line.terms.items())
    say(
        f"step {line.step:>6}/{line.steps}  {terms}  {_accuracies(line.splits)}  "
        f"{line.images_per_second:.0f} images/s"
    )


def _print_record(folder: Path) -> None:
    for criterion, selected in read_record(folder).selected.items():
        splits = _accuracies(selected.counts)
        say(f"selected by {title_of(criterion)}: step {selected.step}: {splits}")


def _accuracies(splits: Mapping[str, np.ndarray]) -> str:
    return "  ".join(f"{name} {100 * accuracy(counts):.1f} %" for name, counts in splits.items())


if __name__ == "__main__":
    sys.exit(main())
