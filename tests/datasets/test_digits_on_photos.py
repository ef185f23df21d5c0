"""Digits on photographs: crops, exact masks, and blending of ink and photograph."""

from __future__ import annotations

import numpy as np
import pytest

from benchmark.core.dataset import GroupedDataset, Split
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from benchmark.core.seeds import seed_for
from datasets import digits_on_photos as photos
from datasets._sources import bias_assignment, sklearn_digits

SIDE = photos.SIDE


@pytest.fixture(scope="module", params=[10, 2])
def data(request: pytest.FixtureRequest) -> GroupedDataset:
    return DATASETS.get("digits_on_photos")(places=request.param, bias=0.8).load(0)


def half(index: int, which: int) -> np.ndarray:
    """Return the left (0) or right (1) half of a photograph."""
    photo = photos.read_photographs()[index]
    middle = (photo.shape[2] + 1) // 2
    return photo[:, :, :middle] if which == 0 else photo[:, :, middle:]


def find(image: np.ndarray, ground: np.ndarray, part: np.ndarray) -> np.ndarray | None:
    """Find the crop of ``part``, flipped or not, that equals ``image`` where ``ground`` is True."""
    windows = np.lib.stride_tricks.sliding_window_view(part, (SIDE, SIDE), axis=(1, 2))
    for mirrored in (False, True):
        wanted, known = (image[..., ::-1], ground[:, ::-1]) if mirrored else (image, ground)
        rows, columns = np.nonzero(known)
        hit = np.ones(windows.shape[1:3], bool)
        for y, x in zip(
            rows, columns, strict=True
        ):  # every pixel of the ground, all positions at once
            hit &= (windows[:, :, :, y, x] == wanted[:, y, x, None, None]).all(0)
            if not hit.any():
                break
        if hit.any():
            top, left = np.argwhere(hit)[0]
            crop = windows[:, top, left]
            return crop[..., ::-1] if mirrored else crop
    return None


def pool(places: int, place: int) -> list[int]:
    """Return the numbers of the photographs of a place."""
    names = list(photos.PHOTOGRAPHS)
    return [names.index(name) for name in list(photos.PLACES[places].values())[place]]


def inks(data: GroupedDataset, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the opacity of the ink on the images of a part, and whether it is white."""
    seed = seed_for("data", "digits_on_photos", 0)
    drawn = sklearn_digits.draw_parts(seed, data.options["repeats"], SIDE, 16, 24)[part]
    return photos.draw_ink(bias_assignment.random_stream(seed, part, "ink"), drawn.opacity)


def crop_of(
    split: Split, row: int, places: int, which: int, opacity: np.ndarray
) -> np.ndarray | None:
    assert split.confounder is not None
    ground = opacity[row] == 0
    parts = (half(index, which) for index in pool(places, split.confounder[row]))
    return next(
        (
            crop
            for crop in (find(split.image[row], ground, part) for part in parts)
            if crop is not None
        ),
        None,
    )


@pytest.mark.parametrize("name", ["train", "val", "biased", "unbiased", "deceiving"])
def test_backgrounds_are_crops_of_the_right_half_of_the_place(
    data: GroupedDataset, name: str
) -> None:
    """Pixels without ink are those of the photograph; train and test crops share none."""
    places, split = data.options["places"], data.splits[name]
    which = 0 if name in ("train", "val") else 1
    opacity, _ = inks(data, name if name in ("train", "val") else "test")
    for row in np.random.default_rng(0).choice(len(split), 3, replace=False):
        assert crop_of(split, row, places, which, opacity) is not None
        assert crop_of(split, row, places, 1 - which, opacity) is None


def test_images_are_crops_with_ink_on_top(data: GroupedDataset) -> None:
    """Blending the crop that matches the background with the ink gives the image.

    The mask contains pixels with more ink than photograph.
    """
    places = data.options["places"]
    opacity, white = inks(data, "test")
    for name in ("biased", "unbiased", "deceiving"):
        split = data.splits[name]
        assert (split.mask[:, 0] == (opacity > 127.5)).all()  # type: ignore[index]
        for row in (0, 100, 300):
            crop = crop_of(split, row, places, 1, opacity)
            assert crop is not None
            a = opacity[row] / 255
            wanted = crop * (1 - a) + (255 if white[row] else 0) * a
            assert np.abs(split.image[row] - wanted).max() <= 0.5 + 1e-9


def test_blend_rounds_the_exact_mixture() -> None:
    photo, opacity, ink = np.meshgrid(np.arange(256), np.arange(256), [0, 255], indexing="ij")
    flat = photo.ravel(), opacity.ravel(), ink.ravel()
    found = photos.blend(
        flat[0].astype(np.uint8)[:, None, None, None],
        flat[1].astype(np.uint8)[:, None, None],
        flat[2] > 0,
    ).ravel()
    wanted = (flat[0] * (255.0 - flat[1]) + flat[2] * flat[1]) / 255
    assert np.abs(found - wanted).max() <= 0.5 + 1e-9
    assert (found[flat[1] == 0] == flat[0][flat[1] == 0]).all()
    assert (found[flat[1] == 255] == flat[2][flat[1] == 255]).all()


def test_ink_stands_out_on_every_photograph() -> None:
    for photo in photos.read_photographs():
        assert min(photo.shape[1:]) == 160
        assert photo.min() >= photos.DARKEST
        assert photo.max() <= photos.BRIGHTEST


def test_ink_is_black_or_white_whatever_the_class(data: GroupedDataset) -> None:
    opacity = np.full((4000, 1, 1), 255, np.uint8)
    strength, white = photos.draw_ink(np.random.default_rng(0), opacity)
    assert 0.46 < white.mean() < 0.54
    assert strength.min() >= 204 and strength.max() == 255
    assert (photos.draw_ink(np.random.default_rng(0), opacity * 0)[0] == 0).all()


def test_no_photograph_belongs_to_two_places() -> None:
    for places, pools in photos.PLACES.items():
        assert len(pools) == places
        assert len({len(pool) for pool in pools.values()}) == 1
        names = [name for pool in pools.values() for name in pool]
        assert len(set(names)) == len(names)
        assert set(names) <= set(photos.PHOTOGRAPHS)


def test_crops_use_all_photographs_of_a_place_evenly() -> None:
    place = np.zeros(1500, np.int64)
    found = photos.draw_crops(np.random.default_rng(0), place, 2, 0)
    means = [
        photo[:, :, : (photo.shape[2] + 1) // 2].mean((1, 2)) for photo in photos.read_photographs()
    ]
    nearest = np.argmin([((found.mean((2, 3)) - mean) ** 2).sum(1) for mean in means], axis=0)
    assert set(pool(2, 0)) <= set(nearest.tolist())  # by mean colour
    one = photos.draw_crops(np.random.default_rng(0), place[:1], 10, 1)
    assert find(one[0], np.ones((SIDE, SIDE), bool), half(0, 1)) is not None


def test_places_are_ten_or_two() -> None:
    with pytest.raises(UserError, match="not one of 10, 2"):
        DATASETS.get("digits_on_photos")(places=3)
    info = DATASETS.get("digits_on_photos")(places=2).info()
    assert info.group_names == ("0-4/cool", "0-4/warm", "5-9/cool", "5-9/warm")


def test_a_missing_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(photos.PHOTOGRAPHS, "brick", ("skimage", "data/absent.png"))
    with pytest.raises(UserError, match=r"data/absent\.png of scikit-image was not found"):
        DATASETS.get("digits_on_photos")().check()
