"""Coloured MNIST with ten classes and ten colours (Ahmed et al. 2020), as in TEA's experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._sources import bias_assignment, mnist
from datasets._sources.colours import COLOURS, paint

#: One in this many of MNIST's 60,000 training digits is used for validation.
VAL_FRACTION = 10


@DATASETS.register
class ColouredMNIST(mnist.MNISTSource):
    """MNIST's digits in ten colours, a share ``bias`` of each class in the colour of the class.

    Digits are binarised at one half and painted in the colours of Ahmed et al. (2020), "Systematic
    generalisation with group invariant predictions". Their bias is 0.8, the default here. TEA
    trains with 1.0, and with 0.8 for the group-robust methods only. Two choices differ from Ahmed
    et al.: conflicting images have the other nine colours, evenly, instead of additional colours of
    no class, so that every image has a confounder; and ``deceiving`` gives each class the colour of
    the next one instead of that of any other class. The 10,000 test digits are the same in the
    three tests.
    """

    name = "coloured_mnist"
    title = "Coloured MNIST"
    description = "MNIST in ten colours tied to the ten classes (Ahmed et al. 2020, as TEA uses it)"
    version = 1
    group_title = "{confounder} {label}"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.8),
        "train_size": mnist.TRAIN_SIZE_OPTION,
        "test_size": mnist.TEST_SIZE_OPTION,
    }

    def info(self) -> DatasetInfo:
        bias = self.chosen["bias"]
        return DatasetInfo(
            label_names=tuple("0123456789"),
            confounder_names=tuple(COLOURS),
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, mnist.SIDE, mnist.SIDE),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(bias),
            mean=(0.0, 0.0, 0.0),  # TEA, D.7: pixels in [0, 1] without further normalisation
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
        parts = self._rows(seed, len(files["train"][1]), len(files["test"][1]))
        splits = {}
        for part, rows in parts.items():
            images, labels = files["test" if part == "test" else "train"]
            mask = images[rows][:, None] > 127
            label = labels[rows]
            colours = bias_assignment.confounders_of_splits(seed, part, label, len(COLOURS), bias)
            for split, colour in colours.items():
                splits[split] = Split(
                    image=paint(mask, colour),
                    label=label,
                    confounder=colour,
                    environment=bias_assignment.bias_environments(split, label, colour, bias),
                    mask=mask,
                    pair_id=rows,
                )
        return splits

    def _rows(self, seed: int, num_train: int, num_test: int) -> dict[str, np.ndarray]:
        """Return the rows of MNIST's two parts for train, val and test."""
        order = bias_assignment.random_stream(seed, "divide").permutation(num_train)
        val, train = np.split(order, [num_train // VAL_FRACTION])
        train_size = mnist.subset_size(
            self.chosen["train_size"], len(train), f"{self.name}: train_size"
        )
        test_size = mnist.subset_size(self.chosen["test_size"], num_test, f"{self.name}: test_size")
        tests = bias_assignment.random_stream(seed, "tests").permutation(num_test)
        return {
            "train": np.sort(train[:train_size]),
            "val": np.sort(val[: max(1, train_size // (VAL_FRACTION - 1))]),
            "test": np.sort(tests[:test_size]),
        }
