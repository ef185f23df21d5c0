"""Sparse class masks against dense arrays."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.core.class_masks import (
    LabelledShape,
    OwnClassMasks,
    RelativeBox,
    RunLengths,
    SparseClassMasks,
)

ALL = np.arange


def test_several_boxes_of_a_class_and_other_classes() -> None:
    shapes = [
        [],
        [
            LabelledShape(1, RelativeBox(0.0, 0.0, 0.5, 0.5)),
            LabelledShape(1, RelativeBox(0.5, 0.5, 1.0, 1.0)),
            LabelledShape(0, RelativeBox(0.25, 0.5, 0.75, 1.0)),
        ],
    ]
    masks = SparseClassMasks(shapes, 3, (4, 8))
    expected = np.zeros((2, 3, 4, 8), bool)
    expected[1, 1, :2, :4] = True
    expected[1, 1, 2:, 4:] = True
    expected[1, 0, 2:, 2:6] = True
    assert np.array_equal(masks.rasterise(ALL(2)), expected)
    assert np.array_equal(masks.rasterise(np.array([1, 0, 1])), expected[[1, 0, 1]])
    assert np.array_equal(masks.known(), expected.any((2, 3)))
    assert np.array_equal(masks.take(np.array([1, 1])).known(), expected[[1, 1]].any((2, 3)))
    assert np.array_equal(masks.take(np.array([1, 1])).rasterise(np.array([1])), expected[[1]])


@pytest.mark.parametrize("size", [(5, 7), (10, 14)])
def test_runs_are_the_mask_that_they_were_made_from(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random((5, 7)) < 0.4
    masks = SparseClassMasks([[LabelledShape(0, RunLengths.from_mask(mask))]], 1, size)
    enlarged = np.kron(mask, np.ones((size[0] // 5, size[1] // 7), bool))
    assert np.array_equal(masks.rasterise(ALL(1))[0, 0], enlarged)


@pytest.mark.parametrize("filled", [False, True])
def test_runs_of_a_uniform_mask(filled: bool) -> None:
    mask = np.full((3, 4), filled)
    masks = SparseClassMasks([[LabelledShape(0, RunLengths.from_mask(mask))]], 1, (6, 6))
    assert (masks.rasterise(ALL(1)) == filled).all()


def test_only_the_visible_part_is_drawn() -> None:
    """The right half of an image, and an image padded to twice its width."""
    half = np.zeros((4, 8), bool)
    half[:, 4:6] = True
    shapes = [
        LabelledShape(0, RelativeBox(0.5, 0.0, 0.75, 1.0)),
        LabelledShape(1, RunLengths.from_mask(half)),
    ]
    views = [RelativeBox(0.5, 0.0, 1.0, 1.0), RelativeBox(-0.5, 0.0, 1.5, 1.0)]
    drawn = SparseClassMasks([shapes, shapes], 2, (4, 8), views).rasterise(ALL(2))
    expected = np.zeros((2, 2, 4, 8), bool)
    expected[0, :, :, :4] = True
    expected[1, :, :, 4:5] = True
    assert np.array_equal(drawn, expected)


def test_shapes_outside_the_visible_part_are_not_drawn() -> None:
    corner = np.zeros((4, 8), bool)
    corner[0, 0] = True
    shapes = [
        LabelledShape(0, RelativeBox(0.0, 0.0, 0.25, 1.0)),
        LabelledShape(0, RunLengths.from_mask(corner)),
    ]
    view = RelativeBox(0.5, 0.0, 1.0, 1.0)
    assert not SparseClassMasks([shapes], 1, (4, 8), [view]).rasterise(ALL(1)).any()


def test_a_shape_smaller_than_a_pixel_takes_one_pixel() -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[620:625, 130:134] = True
    shapes = [
        LabelledShape(0, RunLengths.from_mask(mask)),
        LabelledShape(1, RelativeBox(0.130, 0.620, 0.134, 0.625)),
    ]
    drawn = SparseClassMasks([shapes], 2, (10, 10)).rasterise(ALL(1))[0]
    assert drawn.sum((1, 2)).tolist() == [1, 1]
    assert drawn[:, 6, 1].all()


def test_an_unknown_class_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"image 0 .*class 2, expected 0 to 1"):
        SparseClassMasks([[LabelledShape(2, RelativeBox(0, 0, 1, 1))]], 2, (4, 4))


def test_the_foreground_of_an_image_belongs_to_its_class() -> None:
    mask = np.random.default_rng(0).random((3, 1, 4, 5)) < 0.5
    drawn = OwnClassMasks(mask, np.array([2, 0, 2]), 3).rasterise(np.array([1, 2]))
    assert np.array_equal(drawn[0, 0], mask[1, 0]) and np.array_equal(drawn[1, 2], mask[2, 0])
    assert drawn.sum() == mask[1:].sum()


def test_pixels_that_are_left_out() -> None:
    excluded = np.zeros((2, 1, 4, 4), bool)
    excluded[1, 0, 0] = True
    whole = [LabelledShape(0, RelativeBox(0, 0, 1, 1))]
    drawn = SparseClassMasks([whole, whole], 1, (4, 4)).without(excluded).rasterise(ALL(2))
    assert np.array_equal(drawn, ~excluded)


def test_many_images_take_little_memory() -> None:
    """200,000 images of 14 classes at 224 pixels would be 140 GB as dense masks."""
    images = 200_000
    box = RelativeBox(0.1, 0.2, 0.5, 0.6)
    shapes = [[LabelledShape(i % 14, box)] if i % 2 else [] for i in range(images)]
    masks = SparseClassMasks(shapes, 14, (224, 224))
    assert masks.nbytes < 6_000_000
    drawn = masks.rasterise(np.array([0, 1, images - 1]))
    assert drawn.sum((1, 2, 3)).tolist() == [0, 90 * 89, 90 * 89]


def test_counts_are_those_of_all_masks() -> None:
    rng = np.random.default_rng(0)
    shapes = []
    for row in range(150):
        left, top = rng.uniform(0, 0.6, 2)
        box = RelativeBox(left, top, left + 0.3, top + 0.3)
        shapes.append([LabelledShape(row % 3, box)] if row % 2 else [])
    masks = SparseClassMasks(shapes, 4, (12, 10))
    assert np.array_equal(masks.counts(), masks.rasterise(np.arange(150)).sum(0))
    assert not masks.counts()[3].any()
