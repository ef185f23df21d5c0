"""Launch a sweep from Python."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import UserError
from benchmark.plan.sweepfile import find_sweep_file, read_sweep

if TYPE_CHECKING:
    from benchmark.api.sweep import SweepResults

#: Exit code of a launch that was interrupted.
INTERRUPTED = 130
#: Options of the command that are written once for each value.
_REPEATED = ("hparam", "set")


def launch(
    sweep: str | Path = "quickstart",
    *,
    output: str | Path | None = None,
    workers: int | None = None,
    data_dir: str | Path | None = None,
    device: str = "auto",
    algorithms: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    trials: int | None = None,
    draws: int | None = None,
    **options: Any,
) -> SweepResults:
    """Launch a sweep and wait until its runs have ended.

    The command ``python -m benchmark.sweep launch`` runs in a process of its own, so that the call
    works in scripts and notebooks alike. Its output is printed. Launching a sweep again runs only
    what is missing.

    Args:
        sweep: sweep file, or the name of a sweep of ShortcutBed.
        output: folder of the sweep; by default ``results/<name>``.
        workers: largest number of runs at a time.
        data_dir: folder of downloaded data sets.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        algorithms: methods that replace those of the sweep.
        datasets: data sets that replace those of the sweep.
        trials: number of trials.
        draws: number of random hyper-parameter draws.
        options: other options of the command: ``checkpoint_seconds=30`` is
            ``--checkpoint-seconds 30``, ``skip_impossible=True`` is ``--skip-impossible``, and
            ``set=["trials=2", "budget.steps=100"]`` is ``--set trials=2 --set budget.steps=100``.

    Returns:
        The sweep, also if some of its runs failed; see ``SweepResults.states``.

    Raises:
        UserError: the sweep file or an option is wrong. The command has printed the reasons.
        KeyboardInterrupt: the launch was interrupted. Finished work is kept.
    """
    from benchmark.api.sweep import load_sweep

    path = find_sweep_file(str(sweep))
    folder = Path("results") / read_sweep(path).name if output is None else Path(output)
    named: dict[str, Any] = {
        "output": output,
        "workers": workers,
        "data_dir": data_dir,
        "device": device,
        "algorithms": algorithms,
        "datasets": datasets,
        "trials": trials,
        "draws": draws,
        **options,
    }
    command = [sys.executable, "-m", "benchmark.sweep", "launch", str(path), *_arguments(named)]
    code = _run(command)
    if code == INTERRUPTED or code < 0:
        raise KeyboardInterrupt
    if code not in (0, 1):
        raise UserError(
            f"the sweep {path} was not launched (exit code {code}); the lines above say why."
        )
    return load_sweep(folder)


def _run(command: Sequence[str]) -> int:
    """Run a command, show its output, and return its exit code.

    A notebook shows only what this process prints, so the lines of the command are printed here
    unless both share a terminal.
    """
    shared = sys.stdout.isatty()
    pipe = None if shared else subprocess.PIPE
    merged = None if shared else subprocess.STDOUT
    with subprocess.Popen(command, stdout=pipe, stderr=merged, encoding="utf-8") as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
            return process.wait()
        except KeyboardInterrupt:
            # The kernel of a notebook interrupts only itself.
            process.send_signal(signal.SIGINT)
            return process.wait()


def _arguments(options: Mapping[str, Any]) -> list[str]:
    """Return options of Python as arguments of the command line; those that are None are absent."""
    arguments: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        option = "--" + name.replace("_", "-")
        if value is True:
            arguments.append(option)
            continue
        several = isinstance(value, Sequence) and not isinstance(value, str)
        values = [str(item) for item in value] if several else [str(value)]
        if name in _REPEATED:
            arguments += itertools.chain.from_iterable((option, item) for item in values)
        else:
            arguments += [option, *values]
    return arguments
