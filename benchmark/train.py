"""One run, for developing: `python -m benchmark.train --dataset … --algorithm …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.cli.options import add_placement, data_dir, download, pick_device
from benchmark.cli.programs import make_parser
from benchmark.core.conditions import prepare_openmp
from benchmark.core.counts import accuracy
from benchmark.core.criteria import title_of
from benchmark.core.errors import ErrorCollector, UserError, exit_code
from benchmark.core.hparam import HParam
from benchmark.core.layout import RunFolder, State, SweepFolder, state_of
from benchmark.core.log_line import LogLine
from benchmark.core.named_options import base_name, split_option
from benchmark.core.outcome import RunOutcome
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS, did_you_mean
from benchmark.core.spec import LEASE_LOST
from benchmark.core.terminal import say
from benchmark.plan.planner import expand
from benchmark.plan.sweep_folder import write_plan
from benchmark.plan.sweepfile import SweepConfig, config_from

_EPILOG = """examples:
  python -m benchmark.train --dataset digits_on_photos:bias=0.95 --algorithm erm --steps 300
  python -m benchmark.train --dataset cmnist --data-dir ~/data --algorithm irm --hparam penalty_weight=1000
  python -m benchmark.train --dataset digits_on_photos --algorithm group_dro --trial 3 --device cuda

The run folder holds spec.json, log.jsonl, record.json, predictions.npz and selected.pt. The same command
run again finds the run done; killed, it goes on from its checkpoint. To compare methods, write a sweep:
python -m benchmark.sweep --help
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: list[str] | None) -> int:
    parser = make_parser("train", description=__doc__, epilog=_EPILOG)
    parser.add_argument("--dataset", required=True, metavar="NAME[:OPTION=VALUE,…]")
    parser.add_argument("--algorithm", required=True, metavar="NAME[:VARIANT]")
    parser.add_argument(
        "--backbone", default="convnet", metavar="NAME[:OPTION=VALUE,…]", help="default: convnet"
    )
    parser.add_argument(
        "--hparam",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="may be given several times",
    )
    parser.add_argument("--steps", type=int, default=500, help="default: 500")
    parser.add_argument(
        "--evaluate-every",
        type=int,
        help="steps between evaluations; default: a tenth of the steps",
    )
    parser.add_argument(
        "--selection", nargs="+", default=["val_accuracy", "last"], metavar="CRITERION"
    )
    parser.add_argument(
        "--trial", type=int, default=0, help="seed of data, weights and batches; default: 0"
    )
    parser.add_argument(
        "--draw",
        type=int,
        default=0,
        help="draw of the hyper-parameters; 0, the default, is their defaults",
    )
    parser.add_argument(
        "--oracle", action="store_true", help="evaluate the test splits along the way too"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/train"),
        metavar="DIR",
        help="default: results/train",
    )
    add_placement(parser)
    given = parser.parse_args(arguments)
    prepare_openmp()  # what follows loads torch
    config = _config(given)
    device = pick_device(given.device)
    if given.download:
        download(config.datasets, data_dir(given))
    plan = expand(config, data_dir(given), advice="")
    for warning in plan.warnings:
        say(f"warning: {warning}", error=True)
    keys = write_plan(plan, given.output)
    for key in keys:
        folder = SweepFolder(given.output).run(key).path
        if not _run(folder, plan.runs[key].spec.label(), device, given):
            return 1
    return 0


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
    """The values of ``--hparam NAME=VALUE``, in the types that the algorithm declares."""
    if not given:  # then the algorithms, which import torch, are not needed yet
        return {}
    declared: dict[str, HParam] = ALGORITHMS.get(algorithm).all_hparams(0)
    values = {}

    def read(text: str) -> None:
        option = split_option(text)
        if option is None:
            raise UserError(f"--hparam {text!r} has no value, expected NAME=VALUE such as lr=1e-3.")
        name, value = option
        if name not in declared:
            raise UserError(f"{algorithm} has no hparam {name!r}{did_you_mean(name, declared)}")
        values[name] = declared[name].parse(name, value)

    check = ErrorCollector()
    for text in given:
        check(read, text)
    check.finish()
    return values


def _run(folder: Path, label: str, device: str, given: argparse.Namespace) -> bool:
    """Run one folder in this process; prints a line per evaluation. Returns whether it is done."""
    from benchmark.engine.execute import execute
    from benchmark.launch.attempts import begin
    from benchmark.launch.lease import Claim
    from benchmark.launch.retry import retry
    from benchmark.launch.stop_signals import StopRequest, handle_stop_signals

    if state_of(folder) is State.DONE:
        say(f"{label}: done before, see {RunFolder(folder).record}")
        return True
    say(f"{label}: {folder}")
    request = StopRequest()

    def ask() -> None:
        """The first request lets the run save itself, the second ends it at once."""
        if request.reason() is not None:
            raise KeyboardInterrupt
        request.ask("interrupted")

    claim = Claim(folder, on_lost=request.lose_lease)
    if not claim.take():
        raise UserError(
            f"another process works on {folder}; wait for it, or choose another folder with --output."
        )
    try:
        retry(folder.parents[1], [folder.name])
        with handle_stop_signals(ask):
            outcome = execute(
                folder,
                begin(folder),
                device=device,
                data_dir=data_dir(given),
                checkpoint_seconds=given.checkpoint_seconds,
                stop=request.reason,
                on_line=_print_line,
                at_once=request.at_once,
            )
    except FileNotFoundError:
        if RunFolder(folder).spec.exists():
            raise
        raise UserError(_removed(folder)) from None
    finally:
        claim.release()
    if outcome in (RunOutcome.DONE, RunOutcome.SETTLED):
        _print_record(folder)
    elif outcome is RunOutcome.INTERRUPTED and request.reason() != LEASE_LOST:
        raise KeyboardInterrupt
    elif outcome is RunOutcome.INTERRUPTED and not folder.is_dir():
        raise UserError(_removed(folder))
    elif outcome is RunOutcome.INTERRUPTED:
        say(
            "another process took the run over; run the same command again to see how it is.",
            error=True,
        )
    elif not RunFolder(folder).failure.exists():
        say("failed: out of memory; a smaller batch_size would need less.", error=True)
    return outcome in (RunOutcome.DONE, RunOutcome.SETTLED)


def _removed(folder: Path) -> str:
    return f"{folder} was removed during the run, which is lost; run the same command again."


def _print_line(line: LogLine) -> None:
    terms = "  ".join(f"{name} {value:.4f}" for name, value in line.terms.items())
    say(
        f"step {line.step:>6}/{line.steps}  {terms}  {_accuracies(line.splits)}  "
        f"{line.images_per_second:.0f} images/s"
    )


def _print_record(folder: Path) -> None:
    for criterion, chosen in read_record(folder).selected.items():
        splits = _accuracies(chosen.counts)
        say(f"selected by {title_of(criterion)}: step {chosen.step}: {splits}")


def _accuracies(splits: Mapping[str, np.ndarray]) -> str:
    return "  ".join(f"{name} {100 * accuracy(counts):.1f} %" for name, counts in splits.items())


if __name__ == "__main__":
    sys.exit(main())
