"""Generated images that show several findings or none, with a box around each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchmark.core.class_masks import LabelledShape, RelativeBox, SparseClassMasks
from benchmark.core.dataset import DatasetInfo, DatasetSource, Split
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._sources import bias_assignment

FINDINGS = ("disc", "ring", "cross")
#: Share of the images that show a finding, independently of the others.
FREQUENCY = 0.4
#: Diameter of a finding, as a share of the side.
DIAMETER = 0.3
#: The part of the image, (left, top, right, bottom), in which the centre of each finding lies.
PLACES = ((0.2, 0.35, 0.35, 0.6), (0.65, 0.35, 0.8, 0.6), (0.35, 0.7, 0.65, 0.8))
NOISE = 0.1


@DATASETS.register
class GeneratedFindings(DatasetSource):
    """A disc, a ring and a cross on a noisy gradient, each on two of five images.

    Each finding has a part of the image in which it occurs. Class masks are the boxes around the
    findings. Nothing is tied to a label; ``tagged`` plants a shortcut.
    """

    name = "generated_findings"
    title = "Generated findings"
    description = "generated images with several findings each, and boxes (for trying methods out)"
    option_titles: ClassVar[Mapping[str, str]] = {"contrast": "contrast {value}"}
    options: ClassVar[Mapping[str, HParam]] = {
        "size": HParam(
            400, doc="training images; the other splits have half as many", low=20, high=20_000
        ),
        "side": HParam(32, doc="height and width, pixels", low=16, high=256),
        "contrast": HParam(
            0.15, doc="brightness of a finding, as a share of the range of values", low=0.01,
            high=1.0,
        ),
    }  # fmt: skip

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        return DatasetInfo(
            label_names=FINDINGS,
            confounder_names=(),
            environment_names=(),
            image_size=(1, side, side),
            splits=("train", "val", "test"),
            provides=Needs(class_masks=True),
            mean=(0.5,),
            std=(0.2,),
            source="generated",
            licence="as the project",
            stand_in=True,
            multi_label=True,
        )

    def train_size(self) -> int:
        return int(self.chosen["size"])

    def build(self, seed: int) -> dict[str, Split]:
        size = self.chosen["size"]
        return {
            name: self._split(bias_assignment.random_stream(seed, name), count)
            for name, count in (("train", size), ("val", size // 2), ("test", size // 2))
        }

    def _split(self, rng: np.random.Generator, count: int) -> Split:
        side = self.chosen["side"]
        y, x = (np.mgrid[:side, :side] + 0.5) / side
        slope = rng.uniform(-0.3, 0.3, (count, 2, 1, 1))
        value = 0.45 + slope[:, 0] * (x - 0.5) + slope[:, 1] * (y - 0.5)
        value += rng.normal(0, NOISE, (count, side, side))
        label = (rng.random((count, len(FINDINGS))) < FREQUENCY).astype(np.int64)
        shapes: list[list[LabelledShape]] = []
        for row in range(count):
            found = []
            for k in np.flatnonzero(label[row]):
                left, top, right, bottom = PLACES[k]
                centre = rng.uniform((left, top), (right, bottom))
                value[row] += self.chosen["contrast"] * finding(
                    int(k), x - centre[0], y - centre[1]
                )
                corner = centre - DIAMETER / 2
                box = RelativeBox(*corner.tolist(), *(corner + DIAMETER).tolist())
                found.append(LabelledShape(int(k), box))
            shapes.append(found)
        image = (value.clip(0, 1) * 255).round().astype(np.uint8)[:, None]
        masks = SparseClassMasks(shapes, len(FINDINGS), (side, side))
        return Split(image=image, label=label, class_masks=masks)


def finding(k: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the shape of a finding as bool[H,W].

    Args:
        k: number of the finding.
        x: horizontal distance of each pixel from its centre, as a share of the side.
        y: vertical distance.
    """
    radius = DIAMETER / 2
    distance = np.hypot(x, y)
    if FINDINGS[k] == "disc":
        return distance < radius
    if FINDINGS[k] == "ring":
        return (distance < radius) & (distance > 0.55 * radius)
    thin = np.minimum(np.abs(x), np.abs(y)) < 0.25 * radius
    return thin & (np.maximum(np.abs(x), np.abs(y)) < radius)
