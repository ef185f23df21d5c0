"""tiny: generated bars on dark or bright ground, for smoke tests; a stand-in, never shown beside real data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, DatasetSource, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS

#: Pixels of all training images, at most; making them takes some fifty bytes for each.
MOST_PIXELS = 40_000_000


@DATASETS.register
class Tiny(DatasetSource):
    """A bar, lying or standing, on dark or bright ground; the ground goes with the class at strength ``bias``.

    Small enough for a run to take a second. Masks are exact, and test splits show the same bars on other grounds.
    """

    name = "tiny"
    title = "generated bars on dark or bright ground (for smoke tests)"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": HParam(
            0.9, doc="share of training images whose ground goes with the class", low=0.0, high=1.0
        ),
        "size": HParam(
            96, doc="training images; the other splits have half as many", low=4, high=100_000
        ),
        "side": HParam(16, doc="height and width, pixels", low=8, high=1024),
    }

    def info(self) -> DatasetInfo:
        varied = 0 < self.chosen["bias"] < 1
        side = self.chosen["side"]
        return DatasetInfo(
            label_names=("lying", "standing"),
            confounder_names=("dark", "bright"),
            environment_names=("aligned", "conflicting") if varied else (),
            image_size=(3, side, side),
            splits=("train", "val", "biased", "unbiased", "deceiving"),
            provides=Needs(
                masks=True,
                confounder=True,
                groups=True,
                environments=varied,
                val_groups=True,
                val_masks=True,
            ),
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            source="generated",
            licence="as the project",
            stand_in=True,
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def check(self) -> None:
        pixels = self.chosen["size"] * self.chosen["side"] ** 2
        if pixels > MOST_PIXELS:
            raise UserError(
                f"tiny: size = {self.chosen['size']:,} images of side = {self.chosen['side']:,} have {pixels:,} "
                f"pixels, expected at most {MOST_PIXELS:,}; reduce one of them."
            )

    def train_size(self) -> int:
        return int(self.chosen["size"])

    def build(self, seed: int) -> dict[str, Split]:
        rng = np.random.default_rng(seed)
        n = self.chosen["size"]
        bars = {
            name: self._bars(rng, count)
            for name, count in (("train", n), ("val", n // 2), ("test", n // 2))
        }
        luck = {name: rng.random(len(label)) for name, (label, _) in bars.items()}
        splits = {}
        for name in ("train", "val"):
            aligned = luck[name] < self.chosen["bias"]
            label = bars[name][0]
            splits[name] = self._paint(*bars[name], np.where(aligned, label, 1 - label), rng)
        label = bars["test"][0]
        grounds = {
            "biased": label,
            "unbiased": (luck["test"] < 0.5).astype(np.int64),
            "deceiving": 1 - label,
        }
        for name, ground in grounds.items():
            splits[name] = self._paint(*bars["test"], ground, rng, pair_id=np.arange(len(label)))
        return splits

    def _bars(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64[count], half of each, and masks bool[count,1,side,side] of bars at random places."""
        side = self.chosen["side"]
        label = rng.permutation(np.arange(count) % 2)
        mask = np.zeros((count, 1, side, side), dtype=bool)
        for i, (row, column) in enumerate(rng.integers(1, side - side // 2 - 1, size=(count, 2))):
            height, width = (2, side // 2) if label[i] == 0 else (side // 2, 2)
            mask[i, 0, row : row + height, column : column + width] = True
        return label, mask

    def _paint(
        self,
        label: np.ndarray,
        mask: np.ndarray,
        ground: np.ndarray,
        rng: np.random.Generator,
        pair_id: np.ndarray | None = None,
    ) -> Split:
        shape = (len(label), 3, *mask.shape[2:])
        image = (
            rng.integers(0, 40, size=shape) + np.where(ground == 0, 30, 160)[:, None, None, None]
        )
        image = np.where(mask, 115, image).astype(np.uint8)
        environment = (ground != label).astype(np.int64)
        confounder = ground.astype(np.int64)
        return Split(image, label.astype(np.int64), confounder, environment, mask, pair_id)
