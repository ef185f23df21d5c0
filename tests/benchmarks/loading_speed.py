"""Images per second from the cache, and from a PIL loader with two workers.

Both augment in the same way. The time of the preparation is measured too.

    python tests/benchmarks/loading_speed.py                       # 64 and 224 px, flips
    python tests/benchmarks/loading_speed.py --augmentation affine # also shifts and rotations
    python tests/benchmarks/loading_speed.py --prepare-only
    python tests/benchmarks/loading_speed.py --cpu-time            # for a busy machine

The two take turns, so that whatever else the machine does disturbs both. Both end with the same
thing: a batch of normalised, augmented floats in memory. The photographs are JPEG files of 500×375
pixels, cut from those that scikit-image ships. Prints Markdown.

On a busy machine time on the clock says who got the cores. Processor time says what the work costs:
ours in one thread, theirs in one process without workers, which saves it the sending of batches.
Two workers that never wait for each other are twice as fast as that, so half the ratio is what two
idle cores would show at the least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmark.core.registry import DATASETS
from benchmark.engine.augment import augment
from benchmark.engine.device_split import DeviceSplit

BATCH, WORKERS = 64, 2
AUGMENTATIONS = {"flip": {"flip": 0.5}, "affine": {"flip": 0.5, "translate": 0.1, "rotate": 10.0}}


def make_tree(root: Path, count: int) -> list[Path]:
    """A tree for the data set ``folder``: ``count`` photographs to train, a few others."""
    from skimage import data

    sources = [
        Image.fromarray(getattr(data, name)())
        for name in ("astronaut", "coffee", "chelsea", "rocket")
    ]
    rng = np.random.default_rng(0)
    paths = []
    for split, number in (("train", count), ("val", 4), ("test", 4)):
        for i in range(number):
            source = sources[i % len(sources)]
            width = rng.uniform(0.5, 0.9) * min(source.width, source.height * 4 / 3)
            left, top = (
                rng.uniform(0, source.width - width),
                rng.uniform(0, source.height - width * 3 / 4),
            )
            box = (left, top, left + width, top + width * 3 / 4)
            path = root / "my_data" / split / ("a", "b")[i % 2] / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            source.resize((500, 375), Image.Resampling.BICUBIC, box=box).save(path, quality=90)
            if split == "train":
                paths.append(path)
    return paths


class Photographs(Dataset[torch.Tensor]):
    """The usual loader: decode, resize, augment and normalise one photograph at a time."""

    def __init__(self, paths: list[Path], side: int, augmentation: str) -> None:
        steps: list[object] = [transforms.Resize((side, side)), transforms.RandomHorizontalFlip()]
        if augmentation == "affine":
            bilinear = transforms.InterpolationMode.BILINEAR
            steps.append(transforms.RandomAffine(10, translate=(0.1, 0.1), interpolation=bilinear))
        steps += [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
        self.paths, self.transform = paths, transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as opened:
            return self.transform(opened.convert("RGB"))  # type: ignore[no-any-return]


def forever(
    paths: list[Path], side: int, augmentation: str, workers: int = WORKERS
) -> Iterator[torch.Tensor]:
    """Batches of the usual loader, whose workers stay alive from epoch to epoch."""
    loader = DataLoader(
        Photographs(paths, side, augmentation),
        BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def cached(root: Path, side: int, augmentation: str) -> Iterator[torch.Tensor]:
    """Batches of the engine, from the cache."""
    split = DeviceSplit(
        DATASETS.get("folder")(root, side=side).load(0), "train", torch.device("cpu")
    )
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(split.size)
        for start in range(0, split.size - BATCH + 1, BATCH):
            yield augment(
                split.batch(order[start : start + BATCH]), AUGMENTATIONS[augmentation]
            ).image


def rate(batches: Iterator[torch.Tensor], seconds: float) -> float:
    """Images per second over at least so many seconds."""
    begin, images = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        images += len(next(batches))
    return images / (time.perf_counter() - begin)


def loading(
    root: Path, paths: list[Path], side: int, augmentation: str, rounds: int, seconds: float
) -> str:
    ours, theirs = cached(root, side, augmentation), forever(paths, side, augmentation)
    for _ in range(
        2 * WORKERS + 2
    ):  # workers start, the batches that they keep ready are used up, caches warm up
        next(ours), next(theirs)
    pairs = [(rate(ours, seconds), rate(theirs, seconds)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, high = min(ratios), max(ratios)
    ratio = f"{statistics.median(ratios):.1f} ({low:.1f} to {high:.1f})"
    return f"| {side} | {augmentation} | {a:,.0f} | {b:,.0f} | {ratio} |"


def processor_time(root: Path, paths: list[Path], side: int, augmentation: str, rounds: int) -> str:
    """Return the CPU milliseconds per image of the cache and of the PIL loader without workers."""
    ours, theirs = cached(root, side, augmentation), forever(paths, side, augmentation, workers=0)
    next(ours), next(theirs)
    pairs = []
    for _ in range(rounds):
        costs = []
        for batches, count in ((ours, 20), (theirs, 1)):
            begin = time.process_time()
            images = sum(len(next(batches)) for _ in range(count))
            costs.append(1000 * (time.process_time() - begin) / images)
        pairs.append((costs[0], costs[1]))
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    halves = [theirs / ours / WORKERS for ours, theirs in pairs]
    ratio = f"{statistics.median(halves):.1f} ({min(halves):.1f} to {max(halves):.1f})"
    return f"| {side} | {augmentation} | {a:.4f} | {b:.3f} | {ratio} |"


def preparing(root: Path, paths: list[Path], side: int, rounds: int) -> str:
    """Return the seconds of the first preparation and of a plain loop over the files."""
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["SHORTCUTBED_CACHE"] = cache
            begin = time.perf_counter()
            DATASETS.get("folder")(root, side=side).prepare()
            middle = time.perf_counter()
            for path in paths:
                with Image.open(path) as opened:
                    np.asarray(
                        opened.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
                    )
            pairs.append((middle - begin, time.perf_counter() - middle))
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"| {side} | {a:.2f} | {b:.2f} | {statistics.median(y / x for x, y in pairs):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn; default: 3")
    parser.add_argument("--augmentation", choices=tuple(AUGMENTATIONS), default="flip")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time instead of time on the clock"
    )
    given = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} thread(s) of torch, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = make_tree(root, given.images)
        if given.cpu_time:
            os.environ["SHORTCUTBED_CACHE"] = str(root / "cache")
            torch.set_num_threads(1)
            print(
                f"| side | augmentation | cache, CPU ms/image | PIL, CPU ms/image "
                f"| ratio / {WORKERS} workers |"
            )
            print("|---|---|---|---|---|")
            for side in given.sides:
                print(
                    processor_time(root, paths, side, given.augmentation, given.rounds), flush=True
                )
            return
        print("| side | first preparation, s | plain loop, s | ratio |\n|---|---|---|---|")
        for side in given.sides:
            print(preparing(root, paths, side, 3), flush=True)
        if given.prepare_only:
            return
        os.environ["SHORTCUTBED_CACHE"] = str(root / "cache")
        print("\n| side | augmentation | cache, images/s | PIL, 2 workers | ratio (of the turns) |")
        print("|---|---|---|---|---|")
        for side in given.sides:
            print(
                loading(root, paths, side, given.augmentation, given.rounds, given.seconds),
                flush=True,
            )


if __name__ == "__main__":
    main()
