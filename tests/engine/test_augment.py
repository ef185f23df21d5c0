"""Augmentation against numpy's flips, shifts and rotations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmark.core.batch import Batch
from benchmark.engine import augment as module
from benchmark.engine.augment import Augmentation, augment


def _batch(n: int = 64, height: int = 12, width: int = 12, mask: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        image=torch.randn(n, 3, height, width, generator=generator),
        label=torch.arange(n),
        index=torch.arange(n),
        mask=torch.rand(n, 1, height, width, generator=generator) < 0.5 if mask else None,
    )


def _copy(batch: Batch) -> Batch:
    """For the augmentation, which overwrites what it is given."""
    return replace(
        batch, image=batch.image.clone(), mask=None if batch.mask is None else batch.mask.clone()
    )


def _with(
    monkeypatch: pytest.MonkeyPatch, batch: Batch, options: dict[str, float], *draws: torch.Tensor
) -> Batch:
    """Augment with given random numbers in [0, 1): flip, angle, zoom, shift (x, y), crop."""
    numbers = iter(draws)
    monkeypatch.setattr(module.torch, "rand", lambda *shape: next(numbers).expand(*shape))
    return augment(_copy(batch), options)


def _mask(batch: Batch) -> torch.Tensor:
    assert batch.mask is not None
    return batch.mask


HALF, NO_FLIP, WHOLE = torch.tensor(0.5), torch.tensor(0.9), torch.tensor(0.0)


@pytest.mark.parametrize(
    "options", [{}, {"flip": 0.0}, {"flip": 0.0, "translate": 0.0, "rotate": 0.0, "crop": 0.0}]
)
def test_nothing_is_asked_nothing_is_done(options: dict[str, float]) -> None:
    batch = _batch()
    assert augment(batch, options) is batch


def test_a_flip_is_exact_and_takes_the_mask_along() -> None:
    batch = _batch(400)
    torch.manual_seed(1)
    out = augment(_copy(batch), {"flip": 0.5})
    images, flipped = batch.image.numpy(), np.flip(batch.image.numpy(), -1)
    turned = [bool(np.array_equal(o, f)) for o, f in zip(out.image.numpy(), flipped, strict=True)]
    for i, is_turned in enumerate(turned):
        assert np.array_equal(out.image[i].numpy(), flipped[i] if is_turned else images[i])
        assert torch.equal(
            _mask(out)[i], _mask(batch)[i].flip(-1) if is_turned else _mask(batch)[i]
        )
    assert 160 < sum(turned) < 240
    assert out.label is batch.label and out.index is batch.index
    always = augment(_copy(batch), {"flip": 1.0})
    assert np.array_equal(always.image.numpy(), flipped)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (-3, 0), (0, 2), (0, -2), (3, -2)])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (8, 16)])
def test_a_shift_is_numpys(
    dx: int, dy: int, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draw u shifts the view by (2u − 1) · translate of the side; here by whole pixels."""
    batch = _batch(4, height, width)
    draw = torch.tensor([0.5 + dx / width, 0.5 + dy / height])
    out = _with(monkeypatch, batch, {"translate": 0.5}, NO_FLIP, HALF, WHOLE, draw, HALF)
    rows = np.clip(np.arange(height) + dy, 0, height - 1)  # the border is repeated
    columns = np.clip(np.arange(width) + dx, 0, width - 1)
    np.testing.assert_allclose(
        out.image.numpy(), batch.image.numpy()[..., rows[:, None], columns], atol=1e-5
    )
    inside = (rows == np.arange(height) + dy)[:, None] & (columns == np.arange(width) + dx)
    expected = (
        _mask(batch).numpy()[..., rows[:, None], columns] & inside
    )  # what comes into view is background
    assert np.array_equal(_mask(out).numpy(), expected)


@pytest.mark.parametrize(("degrees", "turns"), [(90.0, 1), (-90.0, -1), (180.0, 2)])
def test_a_quarter_turn_is_numpys(
    degrees: float, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _batch(4)
    draw = torch.tensor((degrees / 180 + 1) / 2)
    out = _with(monkeypatch, batch, {"rotate": 180.0}, NO_FLIP, draw, WHOLE, HALF, HALF)
    expected = np.rot90(batch.image.numpy(), turns, axes=(-2, -1))
    np.testing.assert_allclose(out.image.numpy(), expected, atol=2e-5)
    assert np.array_equal(_mask(out).numpy(), np.rot90(_mask(batch).numpy(), turns, axes=(-2, -1)))


def test_a_rotation_keeps_shapes_on_images_that_are_not_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dot at (x, y) from the centre, in pixels, moves as the rotation says."""
    height, width, angle = 41, 81, math.radians(30)
    image = torch.zeros(1, 1, height, width)
    image[0, 0, 20 + 10, 40 + 15] = 1
    image = F.avg_pool2d(image, 3, 1, 1)  # a dot that survives the resampling
    batch = Batch(image, torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    draw = torch.tensor((30 / 180 + 1) / 2)
    out = (
        _with(monkeypatch, batch, {"rotate": 180.0}, NO_FLIP, draw, WHOLE, HALF, HALF)
        .image[0, 0]
        .numpy()
    )
    y, x = (
        (np.arange(n) * (weights := out.sum(1 - axis))).sum() / weights.sum()
        for axis, n in enumerate(out.shape)
    )
    # output → input is a rotation by +angle, so the dot moves by −angle
    expected = (
        15 * math.cos(angle) + 10 * math.sin(angle),
        -15 * math.sin(angle) + 10 * math.cos(angle),
    )
    assert (x - 40, y - 20) == pytest.approx(expected, abs=0.05)


def test_a_crop_zooms_into_a_window_inside_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest crop of 0.5, in the upper left corner, makes each pixel of the quarter 2×2."""
    batch = _batch(2)
    corner = torch.tensor([0.0, 0.0])
    out = _with(monkeypatch, batch, {"crop": 0.5}, NO_FLIP, HALF, torch.tensor(1.0), HALF, corner)
    grid = (np.arange(12) + 0.5) / 2 - 0.5  # where each output pixel looks, in pixels of the input
    low = np.clip(np.floor(grid), 0, 11).astype(int)
    share = np.clip(grid, 0, 11) - low
    image = batch.image.numpy().astype(np.float64)
    high = np.minimum(low + 1, 11)
    lines = image[..., low, :] * (1 - share)[:, None] + image[..., high, :] * share[:, None]
    expected = lines[..., low] * (1 - share) + lines[..., high] * share
    np.testing.assert_allclose(out.image.numpy(), expected, atol=1e-5)
    quarter = _mask(batch).numpy()[..., :6, :6]
    assert np.array_equal(_mask(out).numpy(), quarter.repeat(2, -1).repeat(2, -2))


@pytest.mark.parametrize(
    "options",
    [
        {"translate": 0.4},
        {"rotate": 45.0},
        {"crop": 0.5},
        {"flip": 0.5, "translate": 0.2, "rotate": 20.0, "crop": 0.3},
    ],
)
def test_mask_and_image_stay_aligned(options: dict[str, float]) -> None:
    """A bright square on a dark ground: the moved mask is where the moved image is bright."""
    n, side = 32, 40
    mask = torch.zeros(n, 1, side, side, dtype=torch.bool)
    mask[:, :, 12:26, 15:29] = True
    batch = Batch(
        mask.float().expand(-1, 3, -1, -1).clone(), torch.arange(n), torch.arange(n), mask=mask
    )
    torch.manual_seed(0)
    out = augment(batch, options)
    bright = out.image[:, :1] > 0.5
    assert float((bright != _mask(out)).float().mean()) < 0.01
    assert _mask(out).dtype == torch.bool and bright.any()
    if options.keys() != {"crop"}:
        assert not torch.equal(_mask(out), mask)


def test_shifts_reach_as_far_as_asked_and_no_farther() -> None:
    side, n = 40, 400
    image = torch.zeros(n, 1, side, side)
    image[:, :, 20, 20] = 1
    torch.manual_seed(0)
    out = augment(Batch(image, torch.arange(n), torch.arange(n)), {"translate": 0.25}).image[:, 0]
    places = torch.arange(side, dtype=torch.float32)
    for axis in (1, 2):
        weights = out.sum(axis)
        moved = (weights * places).sum(1) / weights.sum(1) - 20
        assert moved.abs().max() <= 10.01 and moved.min() < -9 and moved.max() > 9
        assert abs(float(moved.mean())) < 4 * 10 / math.sqrt(3 * n)


def test_the_generator_alone_decides() -> None:
    options = {"flip": 0.5, "translate": 0.2, "rotate": 20.0, "crop": 0.3}
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(augment(_batch(8, mask=False), options).image)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("height", "width"),
    [(7, 12), (12, 7), (160, 200), (300, 310)],
    ids=["wide", "high", "a few at a time", "one by one"],
)
def test_resampling_equals_grid_sample(height: int, width: int) -> None:
    """Images are resampled in pieces whose number depends on their size."""
    batch = _batch(9, height, width)
    affine = torch.eye(2, 3) + 0.3 * torch.randn(
        9, 2, 3, generator=torch.Generator().manual_seed(1)
    )
    grid = F.affine_grid(affine, [9, 3, height, width], align_corners=False)
    expected = F.grid_sample(batch.image, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(
        module._resample(batch.image.clone(), affine), expected, rtol=1e-4, atol=1e-3
    )
    nearest = F.grid_sample(_mask(batch).float(), grid, mode="nearest", align_corners=False) > 0.5
    found = module._resample_mask(batch.mask, affine)
    # Points halfway between pixels may be rounded either way.
    assert found is not None and (found == nearest).float().mean() > 0.99


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def _valid_batch(n: int = 6, side: int = 12) -> tuple[torch.Tensor, Batch]:
    """Return pixel values in [0, 1] and the batch of them, normalised."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(n, 3, side, side, generator=generator)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    mask = pixels[:, :1] < 0.5
    index = torch.arange(n)
    return pixels, Batch(image=(pixels - mean) / std, label=index, index=index, mask=mask)


def _pixels(batch: Batch) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return batch.image * std + mean


class TestTransformsOfTorchvision:
    def test_a_flip_moves_the_mask_with_the_image(self) -> None:
        pixels, batch = _valid_batch()
        flipped = Augmentation({"RandomHorizontalFlip": {"p": 1.0}}, MEAN, STD)(batch)
        assert torch.allclose(_pixels(flipped), pixels.flip(-1), atol=1e-6)
        assert torch.equal(_mask(flipped), _mask(batch).flip(-1))
        assert flipped.label is batch.label

    def test_a_change_of_colour_sees_pixels_and_keeps_the_mask(self) -> None:
        pixels, batch = _valid_batch()
        changed = Augmentation({"RandomInvert": {"p": 1.0}}, MEAN, STD)(batch)
        assert torch.allclose(_pixels(changed), 1 - pixels, atol=1e-6)
        assert torch.equal(_mask(changed), _mask(batch))

    def test_images_have_draws_of_their_own_from_the_seed(self) -> None:
        augmentation = Augmentation({"ColorJitter": {"brightness": 0.5}}, MEAN, STD)
        pixels, batch = _valid_batch()
        torch.manual_seed(3)
        one = augmentation(batch).image
        assert not torch.equal(augmentation(batch).image, one)
        torch.manual_seed(3)
        assert torch.equal(augmentation(batch).image, one)
        factors = _pixels(replace(batch, image=one)).flatten(1).amin(1) / pixels.flatten(1).amin(1)
        assert len(set(factors.tolist())) == len(factors)

    def test_the_order_of_options_has_no_effect(self) -> None:
        options = {"RandomInvert": {"p": 1.0}, "ColorJitter": {"contrast": 0.5}, "flip": 0.5}
        results = []
        for names in (list(options), list(reversed(options))):
            torch.manual_seed(0)
            _, batch = _valid_batch()
            augmentation = Augmentation({name: options[name] for name in names}, MEAN, STD)
            results.append(augmentation(batch).image)
        assert torch.equal(*results)

    def test_without_transforms_nothing_changes(self) -> None:
        batch = _batch()
        assert Augmentation({}, MEAN, STD)(batch) is batch


@pytest.mark.parametrize(
    "options",
    [
        {"flip": 0.5},
        {"flip": 0.5, "translate": 0.2, "rotate": 20.0, "crop": 0.3},
        {"RandomHorizontalFlip": {}, "RandomVerticalFlip": {}},
    ],
)
def test_class_masks_follow_their_images(options: dict[str, Any]) -> None:
    """Every class mask that equals the mask before still does afterwards."""
    batch = _batch(n=16)
    both = torch.cat([_mask(batch), ~_mask(batch), _mask(batch)], dim=1)
    torch.manual_seed(0)
    augmented = Augmentation(options, (0.5,) * 3, (0.25,) * 3)(replace(batch, class_mask=both))
    moved, mask = augmented.class_mask, _mask(augmented)
    assert moved is not None and moved.shape == both.shape and moved.dtype == torch.bool
    assert torch.equal(moved[:, :1], mask) and torch.equal(moved[:, 2:], mask)
    assert not (moved[:, 1:2] & mask).any() and moved[:, 1].any()
    torch.manual_seed(0)
    alone = Augmentation(options, (0.5,) * 3, (0.25,) * 3)(_batch(n=16))
    assert torch.equal(alone.image, augmented.image) and torch.equal(_mask(alone), mask)
