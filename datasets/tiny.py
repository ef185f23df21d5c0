"""Generated bars on a dark or bright background: a stand-in for smoke tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, DatasetSource, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS

#: The largest number of pixels of all training images. Generating one takes about fifty bytes.
MAX_PIXELS = 40_000_000


@DATASETS.register
class Tiny(DatasetSource):
    """A horizontal or vertical bar; the brightness of the background is tied to the class.

    A run takes about a second. Masks are exact, and the tests show the same bars on different
    backbackgrounds.
    """

    name = "tiny"
    title = "Tiny bars"
    description = "generated bars on a dark or bright background (for smoke tests)"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": HParam(
            0.9,
            doc="share of training images with the background of their class",
            low=0.0,
            high=1.0,
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
        if pixels > MAX_PIXELS:
            raise UserError(
                f"tiny: size = {self.chosen['size']:,} images of side = {self.chosen['side']:,} "
                f"have {pixels:,} pixels, expected at most {MAX_PIXELS:,}; reduce one of them."
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
        draw = {name: rng.random(len(label)) for name, (label, _) in bars.items()}
        splits = {}
        for name in ("train", "val"):
            aligned = draw[name] < self.chosen["bias"]
            label = bars[name][0]
            splits[name] = self._paint(*bars[name], np.where(aligned, label, 1 - label), rng)
        label = bars["test"][0]
        backgrounds = {
            "biased": label,
            "unbiased": (draw["test"] < 0.5).astype(np.int64),
            "deceiving": 1 - label,
        }
        for name, background in backgrounds.items():
            splits[name] = self._paint(
                *bars["test"], background, rng, pair_id=np.arange(len(label))
            )
        return splits

    def _bars(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw bars at random positions, half of each class.

        Returns:
            Labels, int64[count], and masks, bool[count,1,side,side].
        """
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
        background: np.ndarray,
        rng: np.random.Generator,
        pair_id: np.ndarray | None = None,
    ) -> Split:
        """Put bars on noisy backgrounds."""
        shape = (len(label), 3, *mask.shape[2:])
        brightness = np.where(background == 0, 30, 160)[:, None, None, None]
        image = rng.integers(0, 40, size=shape) + brightness
        image = np.where(mask, 115, image).astype(np.uint8)
        environment = (background != label).astype(np.int64)
        confounder = background.astype(np.int64)
        return Split(image, label.astype(np.int64), confounder, environment, mask, pair_id)
