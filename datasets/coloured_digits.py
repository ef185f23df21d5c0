"""Coloured handwritten digits: the colour of the digit itself is tied to the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from benchmark.core.dataset import DatasetInfo, DatasetSource, Split
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._sources import bias_assignment, sklearn_digits
from datasets._sources.colours import COLOURS, paint

SIDE = 32
#: The smallest and largest height and width of a digit in pixels.
DIGIT_SIZES = (16, 28)


@DATASETS.register
class ColouredDigits(DatasetSource):
    """scikit-learn's digits on black, in ten colours: a foreground bias that no mask can remove.

    A share ``bias`` of each class has the colour of the class, and the rest the other colours,
    evenly. The original digits of train, val and the tests are disjoint. The three tests show the
    same digits in the same position.
    """

    name = "coloured_digits"
    title = "Coloured digits"
    description = (
        "coloured handwritten digits; the digit's colour is tied to the class (ships, no download)"
    )
    version = 1
    group_title = "{confounder} {label}"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.95),
        "repeats": sklearn_digits.REPEATS_OPTION,
    }

    def info(self) -> DatasetInfo:
        bias = self.chosen["bias"]
        return DatasetInfo(
            label_names=tuple("0123456789"),
            confounder_names=tuple(COLOURS),
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, SIDE, SIDE),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(bias),
            mean=(0.07, 0.07, 0.07),
            std=(0.24, 0.21, 0.22),
            source=sklearn_digits.SOURCE,
            licence=sklearn_digits.LICENCE,
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def check(self) -> None:
        sklearn_digits.digits_file()

    def content(self) -> str:
        return sklearn_digits.checksum([sklearn_digits.digits_file()])

    def build(self, seed: int) -> dict[str, Split]:
        bias = self.chosen["bias"]
        parts = sklearn_digits.draw_parts(seed, self.chosen["repeats"], SIDE, *DIGIT_SIZES)
        splits = {}
        for part, drawn in parts.items():
            mask = drawn.opacity[:, None] > 127
            colours = bias_assignment.confounders_of_splits(
                seed, part, drawn.digit, len(COLOURS), bias
            )
            for split, colour in colours.items():
                splits[split] = Split(
                    image=paint(mask, colour),
                    label=drawn.digit,
                    confounder=colour,
                    environment=bias_assignment.bias_environments(split, drawn.digit, colour, bias),
                    mask=mask,
                    pair_id=drawn.row,
                    cluster=None if part == "test" else drawn.row,
                )
        return splits
