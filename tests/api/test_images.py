"""Images given by users are converted as those of data sets, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.api.images import expand_files, normalised, read_images
from benchmark.core.errors import UserError
from benchmark.core.summaries import InputSummary
from tests.support.messages import mentions

COLOUR = InputSummary(image_size=(3, 12, 12), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
GREY = InputSummary(image_size=(1, 12, 12), mean=(0.5,), std=(0.2,))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    return path


def test_file_array_tensor_and_pillow_image_are_the_same(png: Path) -> None:
    tensor = torch.from_numpy(PIXELS.transpose(2, 0, 1).copy())
    read = read_images([str(png), png, PIXELS, tensor, Image.fromarray(PIXELS)], COLOUR)
    assert read.names == (str(png), str(png), "image 2", "image 3", "image 4")
    assert read.pixels.shape == (5, 3, 12, 12)
    assert (read.pixels == PIXELS.transpose(2, 0, 1)).all()


def test_one_image_and_a_batch() -> None:
    assert read_images(PIXELS, COLOUR).pixels.shape == (1, 3, 12, 12)
    batch = np.stack([PIXELS, 255 - PIXELS])
    assert (read_images(batch, COLOUR).pixels == batch.transpose(0, 3, 1, 2)).all()
    tensors = torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
    assert (read_images(tensors, COLOUR).pixels == tensors.numpy()).all()


def test_files_become_grey_for_a_network_that_accepts_grey(png: Path) -> None:
    read = read_images([png, np.asarray(Image.fromarray(PIXELS).convert("L"))], GREY)
    assert (read.pixels[0] == read.pixels[1]).all()


def test_other_sizes_follow_the_rule_of_the_data_set(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # the central square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    cropped = InputSummary(image_size=(3, 12, 12), mean=(0.5,) * 3, std=(0.2,) * 3, fit="crop")
    for image in (wide, tmp_path / "wide.png"):
        assert (read_images(image, cropped).pixels == 200).all()
        assert (read_images(image, COLOUR).pixels == 0).any()


def test_turned_photographs_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    read = read_images(tmp_path / "turned.png", COLOUR)
    assert (read.pixels[0] == PIXELS[::-1, ::-1].transpose(2, 0, 1)).all()


def test_a_jpeg_of_the_caller_is_not_changed(tmp_path: Path) -> None:
    large = np.random.default_rng(1).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(large).save(tmp_path / "large.jpg")
    opened = Image.open(tmp_path / "large.jpg")
    read_images(opened, COLOUR)
    assert opened.size == (400, 400)


@pytest.mark.parametrize(
    ("image", "facts"),
    [
        (PIXELS.astype(np.float32) / 255, ("float32", "uint8", "0 to 255")),
        (PIXELS.astype(np.int64), ("int64", "uint8")),
        (PIXELS // 128, ("0 to 255",)),
        ([np.zeros_like(PIXELS), torch.from_numpy(PIXELS // 128).permute(2, 0, 1)], ("0 to 255",)),
        (PIXELS[..., 0], ("1 channels", "accepts 3")),
        (np.zeros((12, 12, 4), np.uint8), ("4 channels", "accepts 3")),
        (np.zeros((0, 12, 3), np.uint8), ("0, 12, 3",)),
        (np.zeros(7, np.uint8), ("7", "uint8", "H,W")),
        (torch.zeros(12, 12, 3, dtype=torch.uint8), ("12 channels", "accepts 3")),
        (torch.zeros(3, 12, 12), ("float32", "uint8[C,H,W]")),
        ([object()], ("expected a file",)),
        (7, ("7", "file")),
        ([], ("no images",)),
        ("missing.png", ("missing.png",)),
    ],
)
def test_other_arrays_are_refused(image: Any, facts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        read_images(image, COLOUR)
    assert mentions(str(error.value), *facts)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png"):
        read_images(tmp_path / "bad.png", COLOUR)


def test_two_channels_are_never_converted(png: Path) -> None:
    two = InputSummary(image_size=(2, 12, 12), mean=(0.5,) * 2, std=(0.2,) * 2)
    assert read_images(PIXELS[..., :2], two).pixels.shape == (1, 2, 12, 12)
    for image in (png, PIXELS[:6, :, :2]):
        with pytest.raises(UserError, match=r"12.12"):
            read_images(image, two)


def test_normalisation_by_hand() -> None:
    pixels = PIXELS.transpose(2, 0, 1)[None]
    found = normalised(pixels, COLOUR).double().numpy()[0]
    for channel in range(3):
        wanted = (pixels[0, channel] / 255 - COLOUR.mean[channel]) / COLOUR.std[channel]
        np.testing.assert_allclose(found[channel], wanted, atol=1e-6)


def test_folders_are_expanded_and_others_refused(tmp_path: Path, png: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "B.JPG").write_bytes(b"")
    assert expand_files([tmp_path, png]) == [tmp_path / "B.JPG", png, png]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        expand_files([tmp_path / "empty"])
    with pytest.raises(UserError, match="missing"):
        expand_files([tmp_path / "missing"])
