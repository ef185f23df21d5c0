"""Estimates the time that a sweep takes from a few timed steps of every kind of run."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError
from benchmark.core.run_times import RunTimes
from benchmark.core.spec import Measurement, RunSpec
from benchmark.launch.events import duration
from benchmark.plan.planner import Plan

#: The largest number of pixels of a timed batch, by device. The time of a larger batch is taken to
#: be proportional to its size.
MAX_PIXELS = {"cpu": 2 * 224 * 224, "cuda": 128 * 224 * 224}
#: The largest number of images of each test split that are explained at the end.
EXPLAINED = 512
#: The largest number of images of a split whose heatmaps are compared with a teacher's at an
#: evaluation.
COMPARED = 64
#: Images whose explanation a measurement times one by one.
TIMED_EXPLANATIONS = 9
#: After this many seconds only one kind of run of each algorithm and network is timed, with the
#: smaller batch size below.
TIMING_SECONDS = 60.0
LATE_BATCH_SIZE = 2
#: Operations per second of the GPU for which time is estimated where there is none: about half the
#: fp32 peak of an A100.
GPU_FLOPS = 1e13

#: Returns the seconds that parts of a run take with a batch size; see
#: ``benchmark.engine.timing.measure``.
Measure = Callable[[RunSpec, int], RunTimes]
#: Returns the number of images per split, by data fingerprint; None if only decoding could tell.
Sizes = Callable[[str], Mapping[str, int] | None]


@dataclass(frozen=True)
class RunKind:
    """Runs whose cost differs only by the batch size and the number of steps.

    Args:
        spec: the spec of one of them.
        dataset: the data set with its options.
        keys: the keys of the runs.
        times: what was measured, by batch size.
    """

    spec: RunSpec
    dataset: str
    keys: list[str] = field(default_factory=list)
    times: dict[int, RunTimes] = field(default_factory=dict)

    @property
    def largest_times(self) -> RunTimes:
        """Return what was measured with the largest batch size."""
        return self.times[max(self.times)]


def kinds_of(plan: Plan, left: Collection[str]) -> list[RunKind]:
    """Group runs by what decides their speed.

    This is the method, the network, the data, and every setting that is not a number.

    Args:
        plan: the plan of the sweep.
        left: the keys of the runs to group.
    """
    kinds: dict[str, RunKind] = {}
    for key, run in plan.runs.items():
        if key not in left:
            continue
        spec = run.spec
        settings = {k: v for k, v in spec.hparams.items() if isinstance(v, str | bool)}
        identity = [
            spec.method,
            spec.backbone,
            spec.backbone_options,
            settings,
            spec.compute,
            spec.augmentation,
            _shape(plan.data[spec.data_fingerprint].info),
            sorted(spec.upstream),
            run.dataset,
            spec.measurement and spec.measurement.to_json(),
        ]
        mark = json.dumps(identity, default=str)
        kinds.setdefault(mark, RunKind(spec, run.dataset)).keys.append(key)
    return list(kinds.values())


def _shape(info: DatasetInfo) -> list[object]:
    known = asdict(info)
    return [known[name] for name in ("image_size", "splits", "multi_label", "provides")] + [
        len(names) for names in (info.label_names, info.confounder_names, info.environment_names)
    ]


def batch_sizes(kind: RunKind, plan: Plan, device: str) -> list[int]:
    """Return one or two batch sizes to time: the smallest and the largest, up to MAX_PIXELS.

    A measurement of explanations has one.
    """
    if kind.spec.measurement is not None:
        return [1]
    wanted = [int(plan.runs[key].spec.hparams["batch_size"]) for key in kind.keys]
    _, height, width = plan.data[kind.spec.data_fingerprint].info.image_size
    side = kind.spec.backbone_options.get("side", 0)  # to which the network enlarges the images
    limit = max(MAX_PIXELS[device] // max(height * width, side * side), 2)
    return sorted({min(min(wanted), limit), min(max(wanted), limit)})


def step_seconds(times: Mapping[int, RunTimes], batch_size: int) -> float:
    """Return the time of one step.

    Between the two timed batch sizes it is interpolated linearly; beyond them it is proportional.
    """
    sizes = sorted(times)
    low, high = sizes[0], sizes[-1]
    if batch_size > high:
        return times[high].step * batch_size / high
    if low == high:
        return times[low].step
    slope = (times[high].step - times[low].step) / (high - low)
    return max(times[low].step + slope * (batch_size - low), 0.0)


def run_seconds(spec: RunSpec, kind: RunKind, sizes: Mapping[str, int] | None) -> float:
    """Return the time of one run: steps, evaluations, and the explanations at the end.

    Args:
        spec: the run.
        kind: what was measured.
        sizes: the number of images per split; None to count only the steps.
    """
    times = kind.largest_times
    if spec.measurement is not None:
        return _measurement_seconds(spec.measurement, times, sizes)
    steps = spec.training_budget.steps if times.step else 0
    total = steps * step_seconds(kind.times, int(spec.hparams["batch_size"]))
    if sizes is None:
        return total
    tests = [size for name, size in sizes.items() if name not in ("train", "val")]
    images_per_evaluation = sizes["val"] + (sum(tests) if spec.oracle else 0)
    total += evaluations(spec, steps) * images_per_evaluation * times.image
    if "distance" in spec.curves:  # two heatmaps of each image
        splits = [sizes["val"], *(tests if spec.oracle else [])]
        compared = sum(min(size, COMPARED) for size in splits)
        total += 2 * evaluations(spec, steps) * compared * times.heatmap
    selected = sizes["val"] + sum(tests) + (sizes["train"] if spec.evaluate_train else 0)
    total += len(spec.selection) * selected * times.image
    passes = times.train_passes * sizes["train"] + times.val_passes * sizes["val"]
    total += times.look * passes
    return total + times.heatmap * sum(min(size, EXPLAINED) for size in tests)


def _measurement_seconds(
    measurement: Measurement, times: RunTimes, sizes: Mapping[str, int] | None
) -> float:
    """Return the time of a measurement of explanations; see ``run_seconds``."""
    total = TIMED_EXPLANATIONS * times.timed
    if sizes is None:
        return total
    images = sum(min(sizes[name], measurement.images) for name in measurement.splits)
    return total + images * times.explained


def run_flops(spec: RunSpec, kind: RunKind, sizes: Mapping[str, int] | None) -> float:
    """Return the floating-point operations of the steps and evaluations of one run.

    Args:
        spec: the run.
        kind: what was measured.
        sizes: the number of images per split; None to count only the steps.
    """
    times = kind.largest_times
    if spec.measurement is not None:
        return 0.0
    steps = spec.training_budget.steps if times.step else 0
    total = steps * int(spec.hparams["batch_size"]) * times.step_flops
    if sizes is None:
        return total
    tests = sum(size for name, size in sizes.items() if name not in ("train", "val"))
    evaluated = evaluations(spec, steps) * (sizes["val"] + (tests if spec.oracle else 0))
    evaluated += len(spec.selection) * (sizes["val"] + tests)
    return total + evaluated * times.image_flops


def evaluations(spec: RunSpec, steps: int) -> int:
    """Return the number of evaluations during training, at least one."""
    return max(math.ceil(steps / spec.training_budget.evaluate_every), 1)


def wall_seconds(plan: Plan, seconds: Mapping[str, float], workers: int) -> float:
    """Return the wall time with a number of workers.

    The work is shared evenly, but takes at least as long as the longest chain of runs that need
    each other.

    Args:
        plan: the plan of the sweep.
        seconds: the time of every remaining run, by key.
        workers: the number of runs at a time.
    """
    chains: dict[str, float] = {}
    for key, run in plan.runs.items():  # upstream runs come first
        before = max((chains[other] for other in run.spec.upstream.values()), default=0.0)
        chains[key] = before + seconds.get(key, 0.0)
    return max(sum(seconds.values()) / workers, max(chains.values(), default=0.0))


def estimate(
    plan: Plan,
    left: Collection[str],
    device: str,
    workers: int,
    measure: Measure,
    sizes: Sizes,
    say: Callable[[str], None] = print,
) -> float | None:
    """Time every kind of run and print how long each run and the whole sweep will take.

    Args:
        plan: the plan of the sweep.
        left: the keys of the runs that are not done.
        device: ``"cpu"`` or ``"cuda"``, where ``measure`` measures.
        workers: the number of runs at a time.
        measure: times a few steps of a run.
        sizes: returns the number of images per split.
        say: prints a line.

    Returns:
        The wall time in seconds, or None if no kind of run could be timed.
    """
    if not left:
        say("nothing is left to run.")
        return 0.0
    seconds: dict[str, float] = {}
    flops = 0.0
    failed = 0
    partial = 0
    timed: dict[str, RunKind] = {}
    started = time.monotonic()
    for kind in _one_per_family_first(kinds_of(plan, left), plan):
        family = _family(kind, plan)
        late = time.monotonic() - started > TIMING_SECONDS
        try:
            if late and family in timed:
                kind.times.update(timed[family].times)
                say(f"  {_name(kind)}: not timed, taken as {_name(timed[family])}")
            else:
                sizes_to_time = batch_sizes(kind, plan, device)
                if late:
                    sizes_to_time = [min(*sizes_to_time, LATE_BATCH_SIZE)]
                for batch_size in sizes_to_time:
                    kind.times[batch_size] = measure(kind.spec, batch_size)
                timed.setdefault(family, kind)
        except (UserError, RuntimeError, ValueError, MemoryError) as error:
            failed += len(kind.keys)
            reason = str(error).partition("\n")[0]
            say(f"  {_name(kind)}: could not be timed ({reason})")
            continue
        split_sizes = sizes(kind.spec.data_fingerprint)
        if split_sizes is None:
            partial += len(kind.keys)
        for key in kind.keys:
            seconds[key] = run_seconds(plan.runs[key].spec, kind, split_sizes)
            flops += run_flops(plan.runs[key].spec, kind, split_sizes)
        each = [seconds[key] for key in kind.keys]
        say(_kind_line(kind, plan, each, complete=split_sizes is not None))
    if not seconds:
        return None
    total = wall_seconds(plan, seconds, workers)
    target = "GPU" if device == "cuda" else "CPU"
    say(
        f"estimate: {duration(total)} with {workers} worker{'s' if workers > 1 else ''} on the "
        f"{target} ({duration(sum(seconds.values()))} of work), upstream runs included. "
        + " ".join(_caveats(plan, seconds, failed, partial))
    )
    if device == "cpu" and flops:
        say(
            f"on a GPU that sustains {GPU_FLOPS / 1e12:g} TFLOP/s: about "
            f"{duration(flops / GPU_FLOPS)} for {flops:.1e} floating-point operations in training "
            "and evaluation; explanations and reading data take additional time."
        )
    return total


def _family(kind: RunKind, plan: Plan) -> str:
    """Return the algorithm, the network and the side of its images, which decide most of a time."""
    spec = kind.spec
    side = plan.data[spec.data_fingerprint].info.image_size[1]
    options = dict(spec.backbone_options)
    explainer = spec.measurement.explainer if spec.measurement else None
    identity = [spec.algorithm, spec.backbone, options.pop("side", side), options, explainer]
    return json.dumps(identity, default=str)


def _one_per_family_first(kinds: Sequence[RunKind], plan: Plan) -> list[RunKind]:
    """Order kinds so that one of each family comes first, then a second one, and so on."""
    seen: Counter[str] = Counter()
    rounds: list[tuple[int, RunKind]] = []
    for kind in kinds:
        family = _family(kind, plan)
        rounds.append((seen[family], kind))
        seen[family] += 1
    return [kind for _, kind in sorted(rounds, key=lambda pair: pair[0])]


def _name(kind: RunKind) -> str:
    explainer = f"{kind.spec.measurement.explainer} of " if kind.spec.measurement else ""
    return f"{explainer}{kind.spec.method} on {kind.dataset}, {kind.spec.backbone}"


def _kind_line(kind: RunKind, plan: Plan, seconds: Sequence[float], *, complete: bool) -> str:
    """Return the line about one kind of run; ``complete`` if evaluations are included."""
    steps = "no steps"
    if any(times.step for times in kind.times.values()):
        steps = "a step takes " + ", ".join(
            f"{1000 * times.step:,.0f} ms with {size} images" for size, times in kind.times.items()
        )
    low = duration(min(seconds))
    high = duration(max(seconds))
    each = high if low == high else f"{low} to {high}"
    line = f"  {len(seconds):>4} × {_name(kind)}: {steps}; {each} each"
    if complete:
        return line
    specs = [plan.runs[key].spec for key in kind.keys]
    count = max(evaluations(spec, spec.training_budget.steps) for spec in specs)
    evaluation = duration(count * 1000 * kind.largest_times.image)
    return f"{line}, and {evaluation} for every 1,000 validation images"


def _caveats(plan: Plan, seconds: Mapping[str, float], failed: int, partial: int) -> list[str]:
    """Return sentences about what the estimate does not include."""
    caveats = [
        "Steps were timed alone on random images of the same shape; reading data and other runs "
        "take additional time."
    ]
    if any(plan.runs[key].spec.training_budget.patience for key in seconds):
        caveats.append("Runs that stop early take less.")
    if partial:
        caveats.append(
            f"Evaluations of {partial:,} runs are not included, since their number of images is "
            "not known yet."
        )
    if failed:
        caveats.append(f"{failed:,} runs could not be timed and are not included.")
    return caveats
