"""A data set of random images in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmark.core.dataset import DatasetInfo, GroupedDataset, Split
from benchmark.core.needs import Needs

INFO = DatasetInfo(
    label_names=("a", "b", "c"),
    confounder_names=("x", "y"),
    environment_names=("e", "f"),
    image_size=(3, 5, 7),
    splits=("train",),
    provides=Needs(masks=True, groups=True),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    source="here",
    licence="none",
)


def random_data(n: int = 50, image: np.ndarray | None = None, bare: bool = False) -> GroupedDataset:
    """Return a data set with one split of random images.

    Args:
        n: number of images.
        image: uint8[n,C,H,W], to be used instead of random images.
        bare: leave out confounders, environments and masks.
    """
    rng = np.random.default_rng(0)
    if image is None:
        image = rng.integers(0, 256, (n, 3, 5, 7)).astype(np.uint8)
    split = Split(
        image=image,
        label=rng.integers(0, 3, n),
        confounder=rng.integers(0, 2, n),
        environment=rng.integers(0, 2, n),
        mask=rng.random((n, 1, *image.shape[2:])) < 0.5,
    )
    if bare:
        split = replace(split, confounder=None, environment=None, mask=None)
    return GroupedDataset("made_up", {}, INFO, {"train": split}, "")
