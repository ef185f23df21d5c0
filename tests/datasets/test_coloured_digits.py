"""Coloured digits: colours are uniform, distinct, and exactly where the mask is."""

from __future__ import annotations

import itertools

import numpy as np

from benchmark.core.registry import DATASETS
from datasets._sources.colours import COLOURS, paint


def test_every_pixel_is_black_or_the_colour_of_the_confounder() -> None:
    palette = np.array(list(COLOURS.values()))
    for split in DATASETS.get("coloured_digits")(repeats=1).load(0).splits.values():
        assert split.mask is not None and split.confounder is not None
        for image, mask, colour in zip(
            split.image, split.mask[:, 0], split.confounder, strict=True
        ):
            assert not (image[:, mask].T - palette[colour]).any()
            assert (image[:, ~mask] == 0).all()


def test_colours_are_distinct() -> None:
    assert len(COLOURS) == 10
    for one, other in itertools.combinations(COLOURS.values(), 2):
        assert (
            sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 2500
        )  # Ahmed et al.'s own limit


def test_an_empty_mask_is_painted_black() -> None:
    assert not paint(np.zeros((2, 1, 4, 4), bool), np.array([0, 9])).any()
