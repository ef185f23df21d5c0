"""Decoding, compared with dense formulas and Pillow: geometry, depth, masks and DICOM."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.core.errors import UserError
from datasets._io import decode
from datasets._io.decode import Recipe, fit_mask, read_image, read_mask
from datasets._io.grey_scale import equalise
from tests.support.trees import write_image


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def noise(seed: int, shape: tuple[int, ...], high: int = 256, kind: str = "uint8") -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(kind)


def test_colour_at_its_own_size_is_unchanged(tmp_path: Path) -> None:
    array = noise(0, (16, 16, 3))
    image, size = read_image(save(tmp_path / "a.png", array), Recipe(16))
    assert np.array_equal(image, array.transpose(2, 0, 1)) and size == (16, 16)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (48, 48)])
def test_geometry(fit: str, shape: tuple[int, int], tmp_path: Path) -> None:
    """The result equals cropping or padding first and resizing the square afterwards."""
    array = noise(1, shape)
    image, size = read_image(save(tmp_path / "a.png", array), Recipe(20, channels=1, fit=fit))
    height, width = shape
    if fit == "crop":
        short = min(shape)
        top, left = (height - short) // 2, (width - short) // 2
        array = array[top : top + short, left : left + short]
    elif fit == "pad":
        square = np.zeros((max(shape), max(shape)), np.uint8)
        top, left = (max(shape) - height) // 2, (max(shape) - width) // 2
        square[top : top + height, left : left + width] = array
        array = square
    expected = np.asarray(Image.fromarray(array).resize((20, 20), Image.Resampling.BILINEAR))
    assert np.abs(image[0].astype(int) - expected).max() <= 1
    assert size == (width, height)


def test_a_very_long_image_is_padded_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of 60,000 pixels would become a square of 3.6 billion."""
    array = noise(1, (40, 6, 3)).repeat(16, axis=0).repeat(16, axis=1)
    path = save(tmp_path / "a.png", array)
    plain, size = read_image(path, Recipe(20, fit="pad"))
    monkeypatch.setattr(decode, "MAX_PADDED_PIXELS", 1000)
    reduced, same_size = read_image(path, Recipe(20, fit="pad"))
    assert size == same_size == (96, 640)
    assert np.abs(plain.astype(int) - reduced).mean() < 1
    monkeypatch.undo()
    line, size = read_image(save(tmp_path / "b.png", noise(2, (2, 60_000))), Recipe(20, fit="pad"))
    assert size == (60_000, 2) and (line[:, :9] == 0).all() and (line[:, 12:] == 0).all()


def test_a_central_square(tmp_path: Path) -> None:
    array = noise(2, (218, 178, 3))
    image, _ = read_image(save(tmp_path / "a.png", array), Recipe(178, middle=178))
    assert np.array_equal(image, array[20:198].transpose(2, 0, 1))


def test_a_large_jpeg_at_reduced_size_is_nearly_what_the_full_size_gives(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg", 3, (900, 700))
    for recipe in (Recipe(32), Recipe(32, fit="crop")):
        image, size = read_image(path, recipe)
        with Image.open(path) as opened:
            full = opened.convert("RGB")
        if recipe.fit == "crop":
            full = full.crop((100, 0, 800, 700))
        expected = (
            np.asarray(full.resize((32, 32), Image.Resampling.BILINEAR))
            .transpose(2, 0, 1)
            .astype(float)
        )
        assert np.abs(image - expected).mean() < 1.5 and np.abs(image - expected).max() < 12
        assert size == (900, 700)


def dense_equalisation(grey: np.ndarray) -> np.ndarray:
    """Equalise one pixel at a time."""
    values = grey.reshape(-1)
    lowest = (values == values.min()).sum()
    out = [
        round(255 * float((values <= v).sum() - lowest) / (len(values) - lowest)) for v in values
    ]
    return np.array(out).reshape(grey.shape)


@pytest.mark.parametrize(("high", "kind"), [(256, "uint8"), (30, "uint8"), (65536, "uint16")])
def test_equalisation(high: int, kind: str) -> None:
    grey = noise(4, (13, 17), high, kind)
    assert (
        np.abs(equalise(grey).astype(int) - dense_equalisation(grey)).max() <= 1
    )  # ties of rounding
    assert equalise(grey).min() == 0 and equalise(grey).max() == 255


def test_equalisation_of_one_value_and_of_order() -> None:
    assert (equalise(np.full((4, 4), 9, np.uint8)) == 0).all()
    grey = noise(5, (9, 9))
    shifted = (grey // 2 + 20).astype(np.uint8) * np.uint8(1)
    assert (
        np.diff(equalise(grey).reshape(-1)[np.argsort(grey.reshape(-1), kind="stable")].astype(int))
        >= 0
    ).all()
    assert np.array_equal(
        equalise(shifted), equalise(shifted + np.uint8(7))
    )  # brightness does not matter


def test_sixteen_bits(tmp_path: Path) -> None:
    deep = noise(6, (12, 12), 4096, "uint16")
    path = save(tmp_path / "a.png", deep)
    image, _ = read_image(path, Recipe(12, channels=1))
    assert np.array_equal(image[0], deep // 256)  # as 16-bit colour is read, in all images
    image, _ = read_image(path, Recipe(12, channels=1, bits=12))
    assert np.array_equal(image[0], deep // 16)
    with pytest.raises(UserError, match="needs more than 10 bits"):
        read_image(path, Recipe(12, channels=1, bits=10))
    # equalised at full depth: as many levels as pixels, though only 4,096 of 65,536 values are used
    equal, _ = read_image(path, Recipe(12, channels=1, equalise=True))
    assert np.abs(equal[0].astype(int) - dense_equalisation(deep)).max() <= 1
    colour, _ = read_image(path, Recipe(12))
    assert colour.shape == (3, 12, 12) and (colour == colour[:1]).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1", "L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes(mode: str, channels: int, tmp_path: Path) -> None:
    source = Image.fromarray(noise(7, (10, 10, 3))).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    source.save(path)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("L" if channels == 1 else "RGB")).reshape(
            10, 10, channels
        )
    image, _ = read_image(path, Recipe(10, channels=channels))
    assert np.array_equal(image, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("value", [1, 255])
def test_masks_with_any_largest_value(value: int, tmp_path: Path) -> None:
    array = np.zeros((20, 30), np.uint8)
    array[5:15, 6:24] = value
    recipe = Recipe(20, fit="crop")
    found = fit_mask(read_mask(save(tmp_path / "m.png", array), (30, 20)), recipe)
    assert np.array_equal(found[0], array[:, 5:25] > 0)
    deep_path = save(tmp_path / "d.png", array.astype(np.uint16) * 200)
    deep = fit_mask(read_mask(deep_path, (30, 20)), recipe)
    assert np.array_equal(found, deep)
    bits = Image.fromarray(array > 0)
    bits.save(tmp_path / "b.png")
    assert np.array_equal(found, fit_mask(read_mask(tmp_path / "b.png", (30, 20)), recipe))


def test_mask_and_image_are_fitted_alike(tmp_path: Path) -> None:
    """An image that is its own mask remains equal to it with any geometry."""
    array = np.zeros((50, 70), np.uint8)
    array[8:31, 20:66] = 255
    path = save(tmp_path / "a.png", array)
    for fit in ("stretch", "crop", "pad"):
        recipe = Recipe(24, channels=1, fit=fit)
        image, size = read_image(path, recipe)
        assert np.array_equal(image > 127, fit_mask(read_mask(path, size), recipe))


def test_an_empty_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((8, 8), np.uint8))
    assert not fit_mask(read_mask(path, (8, 8)), Recipe(8)).any()


def test_an_image_with_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", noise(8, (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_image(path, Recipe(8))


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.9])
def test_truncated_images_are_refused(ending: str, keep: float, tmp_path: Path) -> None:
    path = save(tmp_path / f"a.{ending}", noise(9, (64, 64, 3)))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_image(path, Recipe(8))


def test_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_image(tmp_path / "a.png", Recipe(8))


def test_dicom_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.dcm").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"pydicom.*pip install"):
        read_image(tmp_path / "a.dcm", Recipe(8, channels=1))


@pytest.mark.parametrize("inverted", [False, True])
def test_dicom(inverted: bool, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.support.xray_tree import SIZE, dicom

    seen = dicom(tmp_path / "a.dcm", 10, inverted)
    recipe = Recipe(40, channels=1, fit="pad", equalise=True)
    image, size = read_image(tmp_path / "a.dcm", recipe)
    assert size == SIZE == (30, 40)
    assert np.abs(image[0, :, 5:35].astype(int) - dense_equalisation(seen)).max() <= 1
    assert (image[0, :, :5] == 0).all() and (image[0, :, 35:] == 0).all()
    (tmp_path / "b.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be read as an image"):
        read_image(tmp_path / "b.dcm", recipe)
