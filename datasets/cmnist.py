"""Coloured MNIST with two classes and noisy labels (Arjovsky et al. 2019), as in DomainBed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._sources import bias_assignment, mnist
from datasets._sources.bias_assignment import random_stream

#: The probability that a label is flipped.
LABEL_NOISE = 0.25
#: The probability that the colour is not that of the (flipped) label, by environment and by test.
TRAINING = {"+90%": 0.1, "+80%": 0.2}
TESTS = {"biased": 0.1, "unbiased": 0.5, "deceiving": 0.9}
#: The share of each training environment that is used for validation (DomainBed's
#: holdout_fraction).
HOLDOUT = 0.2


@DATASETS.register
class CMNIST(mnist.MNISTSource):
    """Digits below 5 or not, red or green: the colour predicts the noisy label better than shape.

    As in DomainBed, all 70,000 digits are shuffled and divided among two training environments and
    the tests. Images are 28×28 with one channel per colour. Labels are flipped with probability
    0.25. A model that follows shape reaches at most 75 %. One that follows colour reaches 85 % in
    training and 10 % on ``deceiving``, the literature's test environment "−90%". ``biased`` and
    ``unbiased`` show the same digits with the same labels, coloured as in "+90%" and at random.
    They are an addition that makes the generalisation gap measurable.
    """

    name = "cmnist"
    title = "CMNIST"
    description = (
        "binary coloured MNIST with 25 % label noise, reversed in the test "
        "(Arjovsky et al. 2019, as eX2L uses it)"
    )
    version = 1
    group_title = "{confounder} {label}"
    options: ClassVar[Mapping[str, HParam]] = {
        "train_size": mnist.TRAIN_SIZE_OPTION,
        "test_size": mnist.TEST_SIZE_OPTION,
        "channels": HParam(
            2,
            doc="2: red, green; 3: an empty blue channel in addition, for pretrained backbones",
            choices=(2, 3),
        ),
    }

    def info(self) -> DatasetInfo:
        channels = self.chosen["channels"]
        return DatasetInfo(
            label_names=("5-9", "0-4"),
            confounder_names=("red", "green"),
            environment_names=tuple(TRAINING),
            image_size=(channels, mnist.SIDE, mnist.SIDE),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(TRAINING["+90%"]),
            mean=(0.0,) * channels,  # DomainBed: pixels in [0, 1] without further normalisation
            std=(1.0,) * channels,
            source=mnist.SOURCE,
            licence=mnist.LICENCE,
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def check(self) -> None:
        self._rows(0, sum(self.counts().values()))

    def build(self, seed: int) -> dict[str, Split]:
        train_images, train_digits = self.read("train")
        test_images, test_digits = self.read("test")
        images = np.concatenate([train_images, test_images])
        digits = np.concatenate([train_digits, test_digits])
        label_flip = random_stream(seed, "label").random(len(digits)) < LABEL_NOISE
        colour_draw = random_stream(seed, "colour").random(len(digits))
        label = (digits < 5) ^ label_flip
        rows = self._rows(seed, len(digits))
        flip_probability = np.array(list(TRAINING.values()))
        splits = {}
        for split in ("train", "val"):
            selected = np.concatenate(rows[split])
            environment = np.repeat(np.arange(len(TRAINING)), [len(part) for part in rows[split]])
            colour_flip = colour_draw[selected] < flip_probability[environment]
            splits[split] = self._split(images, label, selected, colour_flip, environment)
        (selected,) = rows["test"]
        for split, probability in TESTS.items():
            colour_flip = colour_draw[selected] < probability
            splits[split] = self._split(images, label, selected, colour_flip, None)
        return splits

    def _split(
        self,
        images: np.ndarray,
        label: np.ndarray,
        rows: np.ndarray,
        colour_flip: np.ndarray,
        environment: np.ndarray | None,
    ) -> Split:
        """Colour the digits of these rows."""
        colour = (label[rows] ^ colour_flip).astype(np.int64)
        grey = images[rows]
        image = np.zeros((len(rows), self.chosen["channels"], *grey.shape[1:]), np.uint8)
        image[np.arange(len(rows)), colour] = grey
        return Split(
            image=image,
            label=label[rows].astype(np.int64),
            confounder=colour,
            environment=environment,
            mask=grey[:, None] > 0,
            pair_id=rows,
        )

    def _rows(self, seed: int, total: int) -> dict[str, list[np.ndarray]]:
        """Divide all digits: one array per environment for train and val, and one for the tests."""
        order = random_stream(seed, "divide").permutation(total)
        environments = [order[0::3], order[1::3]]
        tests = order[2::3]
        held_out = [int(len(part) * HOLDOUT) for part in environments]
        available = sum(len(part) - held for part, held in zip(environments, held_out, strict=True))
        train_size = mnist.subset_size(
            self.chosen["train_size"], available, f"{self.name}: train_size"
        )
        test_size = mnist.subset_size(
            self.chosen["test_size"], len(tests), f"{self.name}: test_size"
        )
        train = []
        val = []
        sizes = [(train_size + 1) // 2, train_size // 2]
        for part, held, size in zip(environments, held_out, sizes, strict=True):
            train.append(part[held:][:size])
            val.append(part[:held][: max(1, int(size * HOLDOUT / (1 - HOLDOUT)))])
        return {"train": train, "val": val, "test": [tests[:test_size]]}
