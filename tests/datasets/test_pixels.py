"""Images are decoded to what a viewer shows: orientation, transparency, depth, frames, masks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmark.core.errors import UserError
from datasets._io.decode import Recipe, decode_image, fit_mask, read_image, read_mask
from datasets._io.pixels import BACKGROUND, ImageFact

ORIENTATION = 0x0112


def noise(seed: int, shape: tuple[int, ...], high: int = 256, kind: str = "uint8") -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape).astype(kind)


def with_orientation(path: Path, array: np.ndarray, orientation: int, **options: Any) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(array).save(path, exif=exif, **options)
    return path


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the definition in the EXIF standard: the sides of row 0 and column 0 of the file."""
    rows = np.array(array)
    if orientation >= 5:  # rows of the file are columns of the image
        rows = rows.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):  # the file begins at the right
        rows = rows[:, ::-1]
    if orientation in (3, 4, 7, 8):  # the file begins at the bottom
        rows = rows[::-1]
    return rows


def blocks(seed: int, shape: tuple[int, ...] = (3, 5)) -> np.ndarray:
    """Make an image of 8×8 squares, which JPEG preserves nearly exactly."""
    return noise(seed, shape).repeat(8, axis=0).repeat(8, axis=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_definition_agrees_with_pillow(orientation: int, tmp_path: Path) -> None:
    array = noise(0, (5, 7, 3))
    with Image.open(with_orientation(tmp_path / "a.png", array, orientation)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert np.array_equal(upright(array, orientation), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation(orientation: int, ending: str, channels: int, tmp_path: Path) -> None:
    array = blocks(1)
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(ending, {})
    path = with_orientation(tmp_path / f"a.{ending}", array, orientation, **options)
    expected = upright(array, orientation)
    decoded = decode_image(path, Recipe(40, channels, fit="pad"))
    assert decoded.size == expected.shape[::-1]
    assert bool(decoded.facts & ImageFact.TURNED) == (orientation > 1)
    square = np.zeros((40, 40), np.uint8)
    height, width = expected.shape
    top, left = (40 - height) // 2, (40 - width) // 2
    square[top : top + height, left : left + width] = expected
    assert np.abs(decoded.image[0].astype(int) - square).max() <= (3 if ending == "jpg" else 0)


def test_a_large_jpeg_is_turned_at_its_reduced_size(tmp_path: Path) -> None:
    array = noise(2, (6, 8, 3)).repeat(120, axis=0).repeat(120, axis=1)
    path = with_orientation(tmp_path / "a.jpg", array, 6)
    image, size = read_image(path, Recipe(32, fit="crop"))
    assert size == (720, 960)
    expected = Image.fromarray(upright(array, 6)).crop((0, 120, 720, 840))
    expected = np.asarray(expected.resize((32, 32), Image.Resampling.BILINEAR)).astype(float)
    assert np.abs(image.transpose(1, 2, 0) - expected).mean() < 3


def test_an_image_in_stored_pixels(tmp_path: Path) -> None:
    """Outlines that are published in stored pixels need the image as it is stored."""
    array = noise(3, (8, 16, 3))
    path = with_orientation(tmp_path / "a.png", array, 8)
    decoded = decode_image(path, Recipe(16, fit="pad", upright=False))
    assert decoded.size == (16, 8) and not decoded.facts
    assert np.array_equal(decoded.image[:, 4:12], array.transpose(2, 0, 1))


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_no_valid_orientation(value: int, tmp_path: Path) -> None:
    array = noise(4, (8, 8, 3))
    decoded = decode_image(with_orientation(tmp_path / "a.png", array, value), Recipe(8))
    assert np.array_equal(decoded.image, array.transpose(2, 0, 1)) and not decoded.facts


def test_images_with_damaged_exif_are_readable(tmp_path: Path) -> None:
    array = noise(5, (8, 8, 3))
    Image.fromarray(array).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image, _ = read_image(tmp_path / "a.png", Recipe(8))
    assert np.array_equal(image, array.transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_has_an_orientation_of_its_own(orientation: int, tmp_path: Path) -> None:
    """The image is stored turned; its mask is stored upright, or turned like the image."""
    image_path = with_orientation(tmp_path / "a.jpg", blocks(6), orientation)
    recipe = Recipe(40, channels=1, fit="pad")
    _, size = read_image(image_path, recipe)
    array = (blocks(7) > 127) * np.uint8(255)
    turned = with_orientation(tmp_path / "turned.png", array, orientation)
    Image.fromarray(upright(array, orientation)).save(tmp_path / "upright.png")
    found = [fit_mask(read_mask(path, size), recipe) for path in (turned, tmp_path / "upright.png")]
    assert np.array_equal(*found)
    as_image, _ = read_image(turned, recipe)
    assert np.array_equal(as_image > 127, found[0])


def test_a_mask_in_stored_pixels_is_refused(tmp_path: Path) -> None:
    _, size = read_image(with_orientation(tmp_path / "a.jpg", blocks(8), 6), Recipe(16))
    Image.fromarray(blocks(9)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=r"40×24 pixels but its image 24×40 .*EXIF"):
        fit_mask(read_mask(tmp_path / "m.png", size), Recipe(16))


def on_background(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Compute colour·a + background·(1 − a)."""
    a = alpha.astype(float)[..., None] / 255
    return colour.astype(float) * a + BACKGROUND * (1 - a)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha(mode: str, channels: int, tmp_path: Path) -> None:
    alpha = noise(10, (12, 12))
    alpha[:4], alpha[4:8] = 0, 255
    grey = noise(11, (12, 12))
    source = Image.fromarray(np.dstack([grey, grey, grey, alpha])).convert(mode)
    path = tmp_path / ("a.tif" if mode == "PA" else "a.png")
    source.save(path)
    decoded = decode_image(path, Recipe(12, channels=channels))
    with Image.open(path) as opened:
        stored = np.asarray(opened.convert("RGBA"))
    expected = on_background(stored[..., :3], stored[..., 3])
    assert np.abs(decoded.image.transpose(1, 2, 0) - expected[..., :channels]).max() <= 1
    assert (decoded.image[:, :4] == BACKGROUND).all() and decoded.facts == ImageFact.TRANSPARENT


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16"])
def test_a_transparent_colour(mode: str, tmp_path: Path) -> None:
    """PNG's tRNS makes one colour or entries of the palette transparent."""
    decoded = []
    for number, hidden in enumerate((40, 90)):
        if mode == "I;16":
            array = np.full((8, 8), hidden * 256, np.uint16)
            array[2:6, 2:6] = 200 * 256
            image, clear = Image.fromarray(array), hidden * 256
        elif mode == "P":
            image = Image.fromarray(np.pad(np.ones((4, 4), np.uint8), 2), "P")
            image.putpalette([hidden, hidden, hidden, 200, 200, 200])
            clear = 0
        elif mode == "1":
            image, clear = Image.fromarray(np.pad(np.ones((4, 4), bool), 2)), 0
        else:
            array = np.full((8, 8), hidden, np.uint8)
            array[2:6, 2:6] = 200
            image = Image.fromarray(array).convert(mode)
            clear = (hidden,) * 3 if mode == "RGB" else hidden
        path = tmp_path / f"{number}.png"
        image.save(path, transparency=clear)
        decoded.append(decode_image(path, Recipe(8)))
    one, other = decoded
    assert np.array_equal(one.image, other.image) and one.facts == ImageFact.TRANSPARENT
    assert (one.image[:, 0] == BACKGROUND).all()
    assert (one.image[:, 3, 3] == (255 if mode == "1" else 200)).all()


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    array = noise(12, (9, 9, 4))
    array[..., 3] = 255
    Image.fromarray(array).save(tmp_path / "a.png")
    decoded = decode_image(tmp_path / "a.png", Recipe(9))
    assert np.array_equal(decoded.image, array[..., :3].transpose(2, 0, 1)) and not decoded.facts


def test_transparency_is_flattened_before_the_size_changes(tmp_path: Path) -> None:
    """Hidden red must not affect the edge of visible pixels."""
    array = np.zeros((16, 16, 4), np.uint8)
    array[..., 0] = 255
    array[4:12, 4:12] = (0, 0, 0, 255)
    Image.fromarray(array).save(tmp_path / "a.png")
    image, _ = read_image(tmp_path / "a.png", Recipe(5))
    assert (image[0] == image[1]).all() and (image[1] == image[2]).all()


def test_sixteen_bit_grey_is_read_as_sixteen_bit_colour(tmp_path: Path) -> None:
    """All images are on the same scale, so a dark image stays dark."""
    deep = noise(13, (10, 10), 65536, "uint16")
    Image.fromarray(deep).save(tmp_path / "grey.png")
    (tmp_path / "colour.png").write_bytes(png_of_sixteen_bits(deep))
    with Image.open(tmp_path / "colour.png") as opened:
        assert opened.mode == "RGB"
    grey, colour = (read_image(tmp_path / f"{n}.png", Recipe(10))[0] for n in ("grey", "colour"))
    assert np.array_equal(grey, colour) and np.array_equal(grey[0], deep >> 8)
    Image.fromarray(deep // 4).save(tmp_path / "dark.png")
    dark, _ = read_image(tmp_path / "dark.png", Recipe(10))
    assert np.array_equal(dark[0], deep // 4 >> 8) and dark.max() < 64


def png_of_sixteen_bits(grey: np.ndarray) -> bytes:
    """Encode a 16-bit colour PNG, which Pillow reads but does not write."""
    import struct
    import zlib

    height, width = grey.shape
    rows = grey[..., None].repeat(3, axis=2).astype(">u2").tobytes()
    stride = width * 6
    raw = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_dim_image_is_reported(tmp_path: Path) -> None:
    """The file has sixteen bits, of which twelve are used."""
    deep = noise(14, (10, 10), 4096, "uint16")
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png", Recipe(10)).facts == ImageFact.DIM
    with_bits = decode_image(tmp_path / "a.png", Recipe(10, bits=12))
    assert not with_bits.facts and np.array_equal(with_bits.image[0], deep >> 4)
    equalised = decode_image(tmp_path / "a.png", Recipe(10, channels=1, equalise=True))
    assert not equalised.facts


@pytest.mark.parametrize(
    ("kind", "top", "factor", "fact"),
    [
        ("float32", 1.0, 255.0, ImageFact.UNIT_SCALE),
        ("float32", 255.0, 1.0, ImageFact.BYTE_SCALE),
        ("float32", 65535.0, 1 / 256, ImageFact.WORD_SCALE),
        ("int32", 255.0, 1.0, ImageFact.BYTE_SCALE),
        ("int32", 65535.0, 1 / 256, ImageFact.WORD_SCALE),
    ],
)
def test_images_whose_format_does_not_define_white(
    kind: str, top: float, factor: float, fact: ImageFact, tmp_path: Path
) -> None:
    values = (np.random.default_rng(15).random((10, 10)) * top).astype(kind)
    values[0, 0] = top
    Image.fromarray(values).save(tmp_path / "a.tif")
    decoded = decode_image(tmp_path / "a.tif", Recipe(10))
    assert decoded.facts == fact
    assert np.abs(decoded.image[0] - values * factor).max() < 1


def test_integral_values_are_unchanged(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.float32).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif", Recipe(16))[0][0], values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float32", (-3.0, 10.0)),
        ("float32", (0.0, 70000.0)),
        ("float32", (0.0, 1.3)),
        ("int32", (-1000, 3000)),
        ("int32", (0, 1 << 24)),
    ],
)
def test_values_on_no_scale_are_refused(
    kind: str, values: tuple[float, float], tmp_path: Path
) -> None:
    Image.fromarray(np.array([values] * 2, kind)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif .*none of the scales.* 8 or 16"):
        read_image(tmp_path / "a.tif", Recipe(8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("equalise", [False, True])
def test_pixels_that_are_not_finite_are_refused(
    value: float, equalise: bool, tmp_path: Path
) -> None:
    values = np.random.default_rng(16).random((10, 10)).astype(np.float32)
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif .*1 of its 100 pixels .*finite"):
        read_image(tmp_path / "a.tif", Recipe(10, channels=1, equalise=equalise))
    with pytest.raises(UserError, match=r"a\.tif .*1 of its 100 pixels .*finite"):
        fit_mask(read_mask(tmp_path / "a.tif", (10, 10)), Recipe(10))


def test_equalising_needs_no_scale(tmp_path: Path) -> None:
    """Equalisation depends on ranks only, so values in other units give the same image."""
    values = noise(17, (12, 12), 3000, "int32")
    images = []
    for number, array in enumerate(
        (values.astype(np.uint16), values - 1000, values.astype(np.float32) / 7)
    ):
        path = tmp_path / f"{number}.tif"
        Image.fromarray(array).save(path)
        images.append(read_image(path, Recipe(12, channels=1, equalise=True))[0])
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[0], images[2])


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames(ending: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (200, 30, 90)]
    options = {"lossless": True} if ending == "webp" else {}
    path = tmp_path / f"a.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    decoded = decode_image(path, Recipe(8))
    assert (decoded.image == 200).all() and decoded.facts == ImageFact.FRAMES
    frames[0].save(path, **options)
    assert not decode_image(path, Recipe(8)).facts


def square(value: int, shape: tuple[int, int] = (16, 16)) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[4:12, 4:12] = value
    return array


INSIDE = square(1) > 0


def mask_of(path: Path, image: Image.Image, **options: Any) -> np.ndarray:
    image.save(path, **options)
    return fit_mask(read_mask(path, (16, 16)), Recipe(16))[0]


@pytest.mark.parametrize(("seen", "ground"), [(255, 255), (255, 0), (0, 0), (0, 255), (120, 120)])
def test_a_mask_in_the_alpha_channel(seen: int, ground: int, tmp_path: Path) -> None:
    """Hidden colours are ignored, and a black shape is foreground."""
    colour = np.where(INSIDE, seen, ground).astype(np.uint8)
    alpha = square(255)
    for bands in ([colour, alpha], [colour, colour, colour, alpha]):
        assert np.array_equal(
            mask_of(tmp_path / "m.png", Image.fromarray(np.dstack(bands))), INSIDE
        )


def test_an_opaque_alpha_channel_is_ignored(tmp_path: Path) -> None:
    opaque = np.full((16, 16), 255, np.uint8)
    found = mask_of(tmp_path / "m.png", Image.fromarray(np.dstack([square(255), opaque])))
    assert np.array_equal(found, INSIDE)
    black = np.zeros((16, 16), np.uint8)
    assert not mask_of(tmp_path / "m.png", Image.fromarray(np.dstack([black, opaque]))).any()
    clear = Image.fromarray(np.dstack([opaque, black]))
    assert not mask_of(tmp_path / "m.png", clear).any()


@pytest.mark.parametrize("objects", [2, 3, 7])
def test_a_mask_that_numbers_its_objects(objects: int, tmp_path: Path) -> None:
    """Objects are numbered by value, by a palette with dark colours, or by colour."""
    array = np.zeros((16, 16), np.uint8)
    for number in range(objects):
        array[4:12, 4 + number :] = np.where(INSIDE[4:12, 4 + number :], number + 1, 0)
    colours = [
        *(0, 0, 0),
        *(0, 0, 64),
        *(192, 192, 192),
        *(128, 0, 0),
        *(0, 64, 0),
        *(64, 64, 0),
        *(255, 255, 0),
        *(9, 9, 9),
    ]
    numbered = Image.fromarray(array)
    assert np.array_equal(mask_of(tmp_path / "m.png", numbered), INSIDE)
    deep = Image.fromarray(array.astype(np.uint16))
    assert np.array_equal(mask_of(tmp_path / "m.png", deep), INSIDE)
    palette = Image.fromarray(array, "P")
    palette.putpalette(colours)
    assert np.array_equal(mask_of(tmp_path / "m.png", palette), INSIDE)
    assert np.array_equal(mask_of(tmp_path / "m.png", palette.convert("RGB")), INSIDE)


def test_soft_edges_are_cut_at_one_half(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 16).round().astype(np.uint8)[None].repeat(16, axis=0)
    expected = ramp > 127
    grey = Image.fromarray(ramp)
    red = Image.fromarray(np.dstack([ramp, ramp * 0, ramp * 0]))
    soft = Image.fromarray(np.dstack([np.full_like(ramp, 255), ramp]))
    for image in (grey, grey.convert("RGB"), grey.convert("P"), soft):
        assert np.array_equal(mask_of(tmp_path / "m.png", image), expected)
    many = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(64, axis=0)
    red = Image.fromarray(np.dstack([many, many * 0, many * 0]))
    red.save(tmp_path / "m.png")
    found = fit_mask(read_mask(tmp_path / "m.png", (64, 64)), Recipe(64))
    assert np.array_equal(found[0], many > 127)


def test_the_first_page_of_a_mask(tmp_path: Path) -> None:
    pages = [Image.fromarray(square(255)), Image.fromarray(255 - square(255))]
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    assert np.array_equal(fit_mask(read_mask(tmp_path / "m.tif", (16, 16)), Recipe(16))[0], INSIDE)


def dicom(path: Path, values: np.ndarray, bits: int, **changed: Any) -> Path:
    """Write a DICOM file of 16-bit values of which ``bits`` are in use."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns, data.SamplesPerPixel = *values.shape[-2:], 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = values.tobytes()
    for name, value in changed.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_dicom_declares_its_bits(bits: int, signed: bool, inverted: bool, tmp_path: Path) -> None:
    """Values are scaled by the declared bits, not by the darkest and brightest pixel."""
    pytest.importorskip("pydicom")
    values = noise(18, (8, 8), 2 ** (bits - 1), "int64") + 2 ** (bits - 2)
    stored = (values - 2 ** (bits - 1)).astype(np.int16) if signed else values.astype(np.uint16)
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    path = dicom(tmp_path / "a.dcm", stored, bits, PhotometricInterpretation=kind)
    seen = 2**bits - 1 - values if inverted else values
    for channels in (1, 3):
        decoded = decode_image(path, Recipe(8, channels))
        assert decoded.image.shape == (channels, 8, 8) and not decoded.facts
        assert (decoded.image == seen >> (bits - 8)).all()


def test_a_dim_dicom_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    path = dicom(tmp_path / "a.dcm", noise(19, (8, 8), 4096, "uint16"), 16)
    assert decode_image(path, Recipe(8)).facts == ImageFact.DIM


@pytest.mark.parametrize(
    "changed",
    [
        {"NumberOfFrames": 2, "Rows": 4},
        {"PhotometricInterpretation": "PALETTE COLOR"},
    ],
)
def test_dicom_that_is_not_one_grey_image(changed: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    path = dicom(tmp_path / "a.dcm", noise(20, (8, 8), 4096, "uint16"), 12, **changed)
    with pytest.raises(UserError, match=r"a\.dcm .*expected one grey image"):
        decode_image(path, Recipe(8))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "gif", "bmp", "jp2", "avif"])
def test_damaged_files_are_decoded_or_refused(ending: str, tmp_path: Path) -> None:
    """If bytes are changed anywhere, the only exception is a UserError."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / f"a.{ending}"
    try:
        Image.fromarray(noise(21, (20, 24, 3))).save(path, exif=exif)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {ending}")
    whole, rng, sentences = path.read_bytes(), np.random.default_rng(22), 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 400), 4):
            data[place] = rng.integers(0, 256)
        path.write_bytes(bytes(data[: rng.integers(len(data) // 2, len(data) + 1)]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image, _ = read_image(path, Recipe(8))
            assert image.shape == (3, 8, 8)
        except UserError as error:
            assert str(path) in str(error)
            sentences += 1
    assert sentences > 0


@pytest.mark.parametrize("level", [0, 6])
def test_a_png_with_a_flipped_bit_is_unchanged_or_refused(level: int, tmp_path: Path) -> None:
    """Pillow would decode pixels whose checksum is wrong."""
    array = blocks(5, (3, 3, 3))
    path = tmp_path / "a.png"
    Image.fromarray(array).save(path, compress_level=level)
    whole = path.read_bytes()
    expected, _ = read_image(path, Recipe(24, 3))
    refused = 0
    for at in range(0, len(whole), 1 if len(whole) < 400 else 7):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            found, _ = read_image(path, Recipe(24, 3))
        except UserError:
            refused += 1
        else:
            assert np.array_equal(found, expected), f"byte {at}"
    assert refused > 0.9 * len(range(0, len(whole), 1 if len(whole) < 400 else 7))
