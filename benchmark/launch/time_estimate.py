"""How long a sweep will take: a few timed steps of every kind of run, and arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError
from benchmark.core.spec import RunSpec
from benchmark.launch.events import duration
from benchmark.plan.planner import Plan

#: Pixels of a timed batch at most: a larger one is taken to cost in proportion.
MAX_PIXELS = {"cpu": 8 * 224 * 224, "cuda": 128 * 224 * 224}
#: Images of each test split that are explained at the end, at most.
EXPLAINED = 512

#: Seconds that parts of a run take with a batch size, as ``benchmark.engine.timing.measure`` says.
Measure = Callable[[RunSpec, int], Mapping[str, float]]
#: Images per split, by fingerprint, or None where only decoding the data could tell.
Sizes = Callable[[str], Mapping[str, int] | None]


@dataclass(frozen=True)
class Kind:
    """Runs that differ in nothing that costs time but the batch size; ``times`` are those measured, by batch size."""

    spec: RunSpec
    dataset: str
    keys: list[str] = field(default_factory=list)
    times: dict[int, Mapping[str, float]] = field(default_factory=dict)


def kinds_of(plan: Plan, left: Collection[str]) -> list[Kind]:
    """The runs of ``left`` by what decides their speed: method, network, data, and every setting that is no number."""
    found: dict[str, Kind] = {}
    for key, run in plan.runs.items():
        if key not in left:
            continue
        spec = run.spec
        settings = {k: v for k, v in spec.hparams.items() if isinstance(v, str | bool)}
        mark = json.dumps([
            spec.method, spec.backbone, spec.backbone_options, settings, spec.compute, spec.augmentation,
            _shape(plan.data[spec.data_fingerprint].info), sorted(spec.upstream), run.dataset,
        ], default=str)  # fmt: skip
        found.setdefault(mark, Kind(spec, run.dataset)).keys.append(key)
    return list(found.values())


def _shape(info: DatasetInfo) -> list[object]:
    known = asdict(info)
    return [known[name] for name in ("image_size", "splits", "multi_label", "provides")] + [
        len(names) for names in (info.label_names, info.confounder_names, info.environment_names)
    ]


def batch_sizes(kind: Kind, plan: Plan, device: str) -> list[int]:
    """The batch sizes to time, one or two: the runs' smallest and largest, none too large."""
    wanted = [int(plan.runs[key].spec.hparams["batch_size"]) for key in kind.keys]
    _, height, width = plan.data[kind.spec.data_fingerprint].info.image_size
    side = kind.spec.backbone_options.get("side", 0)  # to which the network enlarges them
    most = max(MAX_PIXELS[device] // max(height * width, side * side), 2)
    return sorted({min(min(wanted), most), min(max(wanted), most)})


def step_seconds(times: Mapping[int, Mapping[str, float]], batch_size: int) -> float:
    """Of one step: on the line through the two timed batch sizes, and in proportion beyond them."""
    sizes = sorted(times)
    low, high = sizes[0], sizes[-1]
    if batch_size > high:
        return times[high]["step"] * batch_size / high
    if low == high:
        return times[low]["step"]
    slope = (times[high]["step"] - times[low]["step"]) / (high - low)
    return max(times[low]["step"] + slope * (batch_size - low), 0.0)


def run_seconds(spec: RunSpec, kind: Kind, sizes: Mapping[str, int] | None) -> float:
    """Of one run: steps, evaluations, and what comes at the end; without ``sizes`` its steps alone."""
    once = kind.times[max(kind.times)]
    steps = spec.budget["steps"] if once["step"] else 0
    total = steps * step_seconds(kind.times, int(spec.hparams["batch_size"]))
    if sizes is None:
        return total
    tests = [n for name, n in sizes.items() if name not in ("train", "val")]
    each = sizes["val"] + (sum(tests) if spec.oracle else 0)
    total += evaluations(spec, steps) * each * once["image"]
    total += len(spec.selection) * (sizes["val"] + sum(tests)) * once["image"]
    total += once["look"] * sum(once[name] * sizes[name] for name in ("train", "val"))
    return total + once["heatmap"] * sum(min(n, EXPLAINED) for n in tests)


def evaluations(spec: RunSpec, steps: int) -> int:
    """On the way, the last one included; a method without steps has one."""
    return max(math.ceil(steps / spec.budget["evaluate_every"]), 1)


def wall_seconds(plan: Plan, seconds: Mapping[str, float], workers: int) -> float:
    """With so many workers: the work shared evenly, but not less than the longest chain of runs that wait for another.

    Args:
        seconds: of every run that is left, by key.
    """
    chains: dict[str, float] = {}
    for key, run in plan.runs.items():  # upstream first
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
    """Time every kind of run, say what each run and all of them will take, and return the seconds of all of them.

    Args:
        left: keys of the runs that are not done.
        device: ``"cpu"`` or ``"cuda"``, where ``measure`` measures.

    Returns:
        Wall seconds with so many workers; None where no kind could be timed.
    """
    if not left:
        say("nothing is left to run.")
        return 0.0
    seconds: dict[str, float] = {}
    failed = partial = 0
    for kind in kinds_of(plan, left):
        try:
            for batch_size in batch_sizes(kind, plan, device):
                kind.times[batch_size] = measure(kind.spec, batch_size)
        except (UserError, RuntimeError, ValueError, MemoryError) as error:
            failed += len(kind.keys)
            say(f"  {_name(kind)}: could not be timed ({str(error).partition(chr(10))[0]})")
            continue
        known = sizes(kind.spec.data_fingerprint)
        partial += len(kind.keys) if known is None else 0
        for key in kind.keys:
            seconds[key] = run_seconds(plan.runs[key].spec, kind, known)
        say(_line(kind, plan, [seconds[key] for key in kind.keys], known))
    if not seconds:
        return None
    total = wall_seconds(plan, seconds, workers)
    say(_summary(plan, seconds, total, workers, device, failed, partial))
    return total


def _name(kind: Kind) -> str:
    return f"{kind.spec.method} on {kind.dataset}, {kind.spec.backbone}"


def _line(kind: Kind, plan: Plan, seconds: Sequence[float], known: Mapping[str, int] | None) -> str:
    timed = ", ".join(
        f"{1000 * times['step']:,.0f} ms with {size} images" for size, times in kind.times.items()
    )
    step = f"a step {timed}" if any(times["step"] for times in kind.times.values()) else "no steps"
    low, high = min(seconds), max(seconds)
    each = (
        duration(high)
        if duration(low) == duration(high)
        else f"{duration(low)} to {duration(high)}"
    )
    without = ""
    if known is None:
        once = kind.times[max(kind.times)]
        many = max(
            evaluations(plan.runs[key].spec, plan.runs[key].spec.budget["steps"])
            for key in kind.keys
        )
        without = f", and {duration(many * 1000 * once['image'])} for every 1,000 validation images"
    return f"  {len(seconds):>4} × {_name(kind)}: {step}; {each} each{without}"


def _summary(
    plan: Plan,
    seconds: Mapping[str, float],
    total: float,
    workers: int,
    device: str,
    failed: int,
    partial: int,
) -> str:
    where = f"{workers} worker{'s' if workers > 1 else ''} on {'the GPU' if device == 'cuda' else 'the CPU'}"
    work = duration(sum(seconds.values()))
    parts = [
        f"estimate: {duration(total)} with {where} ({work} of work), upstream included.",
        "Steps were timed alone, on random images of the data's shape: reading data and other runs come on top.",
    ]
    if any(plan.runs[key].spec.budget["patience"] for key in seconds):
        parts.append("Runs that stop early take less.")
    if partial:
        parts.append(
            f"Evaluations of {partial:,} runs are not in it: how many images there are is not known yet."
        )
    if failed:
        parts.append(f"{failed:,} runs could not be timed and are not in it.")
    return " ".join(parts)
