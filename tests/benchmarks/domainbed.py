"""CPU seconds of the same work in DomainBed and in ShortcutBed.

DomainBed is run from a checkout of its public repository, with an interpreter that has its
requirements:

    python tests/benchmarks/domainbed.py --domainbed ../DomainBed \\
        --python ../DomainBed/venv/bin/python --data-dir DATA

Work: ColoredMNIST, 28 × 28, two training environments of 64 images per step each, DomainBed's
default hyper-parameters and its MNIST network, which is our backbone ``mnist_cnn``. So that it ends
in minutes, MNIST is cut to ``--digits`` and evaluations come as often as keeps DomainBed's
proportion (70,000 digits every 100 steps). Runs alternate, so that a machine whose speed drifts is
fair to both; each figure is the median of ``--repeats``. CPU seconds count every process of a run.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

#: PR_SET_CHILD_SUBREAPER of prctl(2).
_SUBREAPER = 36
ROOT = Path(__file__).resolve().parents[2]
#: DomainBed's name, ours, and the hyper-parameters that make ours do the same work.
METHODS = {
    "ERM": ("erm", {}),
    "IRM": ("irm", {}),
    "DANN": ("dann", {}),
    "GroupDRO": ("group_dro", {}),
}
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUDA_VISIBLE_DEVICES": "",
}

#: Times loading and update of DomainBed through its own classes; prints JSON.
_DOMAINBED_STEPS = """
import json, sys, time
import torch
from domainbed import algorithms, datasets, hparams_registry
from domainbed.lib.fast_data_loader import InfiniteDataLoader
torch.set_num_threads(1)
data_dir, steps = sys.argv[1], int(sys.argv[2])
out = {}
hparams = hparams_registry.default_hparams("ERM", "ColoredMNIST")
data = datasets.ColoredMNIST(data_dir, [2], hparams)
loaders = zip(*[InfiniteDataLoader(dataset=e, weights=None, batch_size=64,
                                   num_workers=data.N_WORKERS)
                for i, e in enumerate(data) if i != 2])
next(loaders)
wall, cpu = time.perf_counter(), time.process_time()
for _ in range(steps):
    batch = next(loaders)
out["load_wall_ms"] = (time.perf_counter() - wall) / steps * 1e3
out["load_cpu_ms"] = (time.process_time() - cpu) / steps * 1e3
for name in sys.argv[3:]:
    torch.manual_seed(0)
    hparams = hparams_registry.default_hparams(name, "ColoredMNIST")
    algorithm = algorithms.get_algorithm_class(name)(data.input_shape, data.num_classes, 2, hparams)
    for _ in range(5):
        algorithm.update(batch)
    cpu = time.process_time()
    for _ in range(steps):
        algorithm.update(batch)
    out["update_ms_" + name] = (time.process_time() - cpu) / steps * 1e3
print(json.dumps(out))
"""

_OUR_STEPS = """
import json, sys, time
from pathlib import Path
import torch
from benchmark.core.registry import DATASETS
from benchmark.engine.build import build_algorithm
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.samplers import EnvironmentSampler
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
torch.set_num_threads(1)
data_dir, steps = Path(sys.argv[1]), int(sys.argv[2])
values = {"datasets": ["cmnist"], "algorithms": sys.argv[3:], "backbone": "mnist_cnn",
          "fixed": {"batch_size": 128}}
plan = expand(config_from(values, "steps", "benchmark"), data_dir)
out = {}
data = DATASETS.get("cmnist")(data_dir).load(0)
split, arrays = DeviceSplit(data, "train", torch.device("cpu")), data.splits["train"]
sampler = EnvironmentSampler(arrays.environment, 128, 0)
split.batch(sampler.rows(0))
wall, cpu = time.perf_counter(), time.process_time()
for step in range(1, steps + 1):
    batch = split.batch(sampler.rows(step))
out["load_wall_ms"] = (time.perf_counter() - wall) / steps * 1e3
out["load_cpu_ms"] = (time.process_time() - cpu) / steps * 1e3
for run in plan.runs.values():
    algorithm = build_algorithm(run.spec, data.info, torch.device("cpu"), Path())
    algorithm.optimizers = algorithm.make_optimizers()
    algorithm.train()
    mine = batch.strip(algorithm.needs)
    for warm in range(5):
        algorithm.current_step = warm
        algorithm.step(mine)
    cpu = time.process_time()
    for step in range(steps):
        algorithm.current_step = 5 + step
        algorithm.step(mine)
    out["update_ms_" + run.spec.method] = (time.process_time() - cpu) / steps * 1e3
print(json.dumps(out))
"""


def cpu_seconds(command: list[str], cwd: Path) -> float:
    """Return the CPU seconds of a command and of the processes that it leaves behind."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cut_mnist(source: Path, target: Path, digits: int) -> Path:
    """Write the first digits of MNIST in torchvision's layout, 6 of 7 from the training files."""
    raw = target / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", digits * 6 // 7), ("t10k", digits - digits * 6 // 7)):
        for kind, head, size in (("images-idx3", 16, 28 * 28), ("labels-idx1", 8, 1)):
            with gzip.open(source / "MNIST" / "raw" / f"{part}-{kind}-ubyte.gz") as file:
                content = bytearray(file.read(head + count * size))
            content[4:8] = count.to_bytes(4, "big")
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)
    return target


class Bench:
    """The commands of both harnesses."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.domainbed = given.domainbed.resolve()
        self.scratch = Path(tempfile.mkdtemp(prefix="bench"))
        self.data_dir = cut_mnist(given.data_dir, self.scratch / "data", given.digits)
        self.count = 0

    def folder(self) -> Path:
        self.count += 1
        return self.scratch / str(self.count)

    def domainbed_run(self, method: str, dataset: str, steps: int) -> float:
        command = [
            self.given.python,
            "-m",
            "domainbed.scripts.train",
            f"--data_dir={self.data_dir}",
        ]
        command += [
            f"--dataset={dataset}",
            f"--algorithm={method}",
            "--test_envs",
            "2",
            f"--steps={steps}",
        ]
        command += [f"--checkpoint_freq={self.given.every}", f"--output_dir={self.folder()}"]
        if (
            dataset == "Debug28"
        ):  # its environments hold 12 images, and a loader with larger batches never ends
            command += ['--hparams={"batch_size": 8}']
        return cpu_seconds(command, self.domainbed)

    def our_run(self, methods: list[str], dataset: str, steps: int, trials: int = 1) -> float:
        sweep = self.scratch / f"sweep{self.count}.toml"
        sweep.write_text(
            f'datasets = ["{dataset}"]\nalgorithms = {json.dumps(methods)}\n'
            f'backbone = "mnist_cnn"\ntrials = {trials}\n'
            f'selection = ["val_accuracy"]\n[fixed]\nbatch_size = 128\n'
            f"[budget]\nsteps = {steps}\nevaluate_every = {min(self.given.every, steps)}\n"
            "[compute]\nexplanations = false\n"  # DomainBed makes none
        )
        command = [
            sys.executable,
            "-m",
            "benchmark.sweep",
            "launch",
            str(sweep),
            f"--output={self.folder()}",
        ]
        return cpu_seconds(
            [*command, f"--data-dir={self.data_dir}", "--device=cpu", "--workers=1"], ROOT
        )

    def steps(self, python: str, code: str, names: list[str], cwd: Path) -> dict[str, float]:
        command = [python, "-c", code, str(self.data_dir), str(self.given.steps), *names]
        done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-4000:])
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def alternate(
    repeats: int, first: Callable[[], float], second: Callable[[], float]
) -> tuple[float, float]:
    """Medians of two measurements made in turn."""
    pairs = [(first(), second()) for _ in range(repeats)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def launching_and_steps(bench: Bench, note: Callable[[str, float, float], None]) -> None:
    """Measure the cost of a run besides its steps, and of one step."""
    given = bench.given
    many = 20
    theirs, both = alternate(
        given.repeats,
        lambda: bench.domainbed_run("ERM", "Debug28", 1),
        lambda: (
            (bench.our_run(["erm"], "tiny", 1, 1 + many) - bench.our_run(["erm"], "tiny", 1)) / many
        ),
    )
    note("launching one run, CPU s", theirs, both)
    names = [METHODS[m][0] for m in given.methods]
    pairs = [
        (
            bench.steps(given.python, _DOMAINBED_STEPS, given.methods, bench.domainbed),
            bench.steps(sys.executable, _OUR_STEPS, names, ROOT),
        )
        for _ in range(given.repeats)
    ]
    for what in ("load_wall_ms", "load_cpu_ms"):
        note(what, *(statistics.median(p[side][what] for p in pairs) for side in (0, 1)))
    for method in given.methods:
        mine = "update_ms_" + METHODS[method][0]
        theirs = statistics.median(p[0]["update_ms_" + method] for p in pairs)
        note(f"update {method}, CPU ms", theirs, statistics.median(p[1][mine] for p in pairs))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--domainbed", type=Path, required=True, help="checkout of DomainBed")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter with DomainBed's requirements"
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--digits", type=int, default=2100, help="digits in all; full: 70000")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=3, help="steps between evaluations; full: 100")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument(
        "--whole-runs-only",
        action="store_true",
        help="leave out launching, loading and single steps",
    )
    ctypes.CDLL(None).prctl(
        _SUBREAPER, 1, 0, 0, 0
    )  # orphans become our children, so that their time is counted
    bench = Bench(parser.parse_args())
    given = bench.given
    rows: list[list[object]] = []

    def note(what: str, theirs: float, ours: float) -> None:
        rows.append([what, theirs, ours, ours / theirs])
        print(f"{what}: {theirs:.3f} {ours:.3f} {ours / theirs:.3f}", flush=True)

    if not given.whole_runs_only:
        launching_and_steps(bench, note)
    for method in given.methods:
        ours = METHODS[method][0]
        medians = alternate(
            given.repeats,
            lambda m=method: bench.domainbed_run(m, "ColoredMNIST", given.steps),  # type: ignore[misc]
            lambda m=ours: bench.our_run([m], "cmnist", given.steps),  # type: ignore[misc]
        )
        note(f"whole run {method}, {given.steps} steps, CPU s", *medians)
    print(tabulate(rows, ["", "DomainBed", "ShortcutBed", "ratio"], floatfmt=".3f"))


if __name__ == "__main__":
    main()
