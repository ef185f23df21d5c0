"""Coloured MNIST with ten classes and ten colours (Ahmed et al. 2020), as the TEA experiments use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._sources import bias_assignment, mnist
from datasets._sources import colours as _colours

#: One tenth of MNIST's 60,000 training digits is for validation: 54,000 and 6,000.
VAL_SHARE = 10


@DATASETS.register
class ColouredMNIST(mnist.MNISTSource):
    """MNIST's digits in ten colours, a share ``bias`` of each class in the colour of the class: a foreground bias.

    Digits are black and white (above one half or not) before they are painted, in the colours of Ahmed et al. (2020),
    "Systematic generalisation with group invariant predictions". Their strength is 0.8, the default here; TEA trains
    on 1.0 and takes 0.8 for the group-robust methods only. Two choices of ours: the images that conflict take the
    other nine colours evenly (Ahmed et al.: further colours, of no class), so that every image has a confounder; and
    ``deceiving`` gives each class the colour of the next one (Ahmed et al.: of any other class). The 10,000 test digits
    are the same in the three test splits.
    """

    name = "coloured_mnist"
    title = "MNIST in ten colours tied to the ten classes (Ahmed et al. 2020, as TEA uses it)"
    version = 1
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.8),
        "train_size": mnist.TRAIN_SIZE,
        "test_size": mnist.TEST_SIZE,
    }

    def info(self) -> DatasetInfo:
        bias = self.chosen["bias"]
        return DatasetInfo(
            label_names=tuple("0123456789"),
            confounder_names=tuple(_colours.COLOURS),
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, mnist.SIDE, mnist.SIDE),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provides(bias),
            mean=(0.0, 0.0, 0.0),  # TEA, D.7: pixels in [0, 1] and no other normalisation
            std=(1.0, 1.0, 1.0),
            source=mnist.SOURCE,
            licence=mnist.LICENCE,
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def check(self) -> None:
        counts = self.counts()
        self._rows(0, counts["train"], counts["test"])

    def build(self, seed: int) -> dict[str, Split]:
        bias = self.chosen["bias"]
        files = {"train": self.read("train"), "test": self.read("test")}
        splits = {}
        for part, rows in self._rows(seed, len(files["train"][1]), len(files["test"][1])).items():
            images, labels = files["test" if part == "test" else "train"]
            mask, label = images[rows][:, None] > 127, labels[rows]
            for split, colour in bias_assignment.confounders(seed, part, label, 10, bias).items():
                splits[split] = Split(
                    image=_colours.paint(mask, colour),
                    label=label,
                    confounder=colour,
                    environment=bias_assignment.environments(split, label, colour, bias),
                    mask=mask,
                    pair_id=rows,
                )
        return splits

    def _rows(self, seed: int, train: int, test: int) -> dict[str, np.ndarray]:
        """Rows of MNIST's two parts for train, val and test."""
        val, rest = np.split(
            bias_assignment.stream(seed, "divide").permutation(train), [train // VAL_SHARE]
        )
        size = mnist.limit(self.chosen["train_size"], len(rest), f"{self.name}: train_size")
        tests = mnist.limit(self.chosen["test_size"], test, f"{self.name}: test_size")
        return {
            "train": np.sort(rest[:size]),
            "val": np.sort(val[: max(1, size // (VAL_SHARE - 1))]),
            "test": np.sort(bias_assignment.stream(seed, "tests").permutation(test)[:tests]),
        }
