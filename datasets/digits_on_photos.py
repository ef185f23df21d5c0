"""Handwritten digits on photographs: the place in the background is tied to the class."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, DatasetSource, Split
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._sources import bias_assignment, sklearn_digits
from datasets._sources.bias_assignment import random_stream

#: The files of the photographs in the packages scikit-image (0.22 and later) and scikit-learn.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "pagoda": ("sklearn", "datasets/images/china.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "stars": ("skimage", "data/hubble_deep_field.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
}

#: The photographs of each place: ten places of one, or two places of four, cool or warm in tone.
PLACES: dict[int, dict[str, tuple[str, ...]]] = {
    10: {name: (name,) for name in PHOTOGRAPHS},
    2: {
        "cool": ("brick", "pagoda", "rocket", "stars"),
        "warm": ("cat", "coffee", "retina", "tissue"),
    },
}

SIDE = 32
#: The smallest and largest height and width of a digit in pixels.
DIGIT_SIZES = (16, 24)
#: The shorter side of the reduced photographs in pixels.
SHORT_SIDE = 160
#: The range of the photographs' values: black ink (0) and white ink (255) stand out on all of them.
DARKEST = 48
BRIGHTEST = 208
#: The retina is a disc on black; this square (left, top, right, bottom) lies inside it.
RETINA_BOX = (205, 205, 1205, 1205)
#: The halves of a photograph.
LEFT_HALF = 0
RIGHT_HALF = 1


@DATASETS.register
class DigitsOnPhotos(DatasetSource):
    """scikit-learn's digits, black or white, on crops of photographs that are tied to the class.

    ``places=10``: ten digits, ten photographs. ``places=2``: digits 0–4 or 5–9, and two places of
    four photographs each, cool or warm in tone like water and land in Waterbirds. A share ``bias``
    of each class has the place of the class, and the rest the other places, evenly. Crops of train
    and val are from the left half of each photograph, those of the tests from the right half.
    Original digits are divided, too. The three tests show the same digits with the same ink in the
    same position, so they are paired, and they are the same at every bias. The mask contains pixels
    with more ink than photograph: the edge of a stroke would show the place to a network that sees
    only the mask.

    Accuracy on ``deceiving`` of six convolutions (``convnet``) after 1000 steps of 64 images, Adam
    at 1e-3, trials 0 and 1: trained at bias 0.1, 94 and 95 %; at 0.95, ERM 17 and 8 %, GroupDRO
    (η 0.01, group sampling) 73 and 79 %.
    """

    name = "digits_on_photos"
    title = "Digits on photographs"
    description = (
        "handwritten digits on photographs; the background is tied to the class "
        "(ships, no download)"
    )
    version = 2
    group_title = "{label} on {confounder}"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.95),
        "places": HParam(
            10,
            doc="10: ten digits, ten places; 2: digits below 5 or not, two places",
            choices=(10, 2),
        ),
        "repeats": sklearn_digits.REPEATS_OPTION,
    }

    def info(self) -> DatasetInfo:
        bias = self.chosen["bias"]
        places = self.chosen["places"]
        return DatasetInfo(
            label_names=tuple("0123456789") if places == 10 else ("0-4", "5-9"),
            confounder_names=tuple(PLACES[places]),
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, SIDE, SIDE),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(bias),
            mean=(0.49, 0.43, 0.40),
            std=(0.23, 0.20, 0.20),
            source=f"{sklearn_digits.SOURCE}; photographs that scikit-image and scikit-learn ship",
            licence=f"{sklearn_digits.LICENCE}; photographs: pagoda and flower CC BY 2.0, "
            "the others CC0 or public domain",
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def check(self) -> None:
        _files()
        sklearn_digits.digits_file()

    def content(self) -> str:
        return sklearn_digits.checksum([*_files(), sklearn_digits.digits_file()])

    def build(self, seed: int) -> dict[str, Split]:
        bias = self.chosen["bias"]
        places = self.chosen["places"]
        parts = sklearn_digits.draw_parts(seed, self.chosen["repeats"], SIDE, *DIGIT_SIZES)
        splits = {}
        for part, drawn in parts.items():
            label = drawn.digit if places == 10 else (drawn.digit >= 5).astype(np.int64)
            opacity, white = draw_ink(random_stream(seed, part, "ink"), drawn.opacity)
            half = RIGHT_HALF if part == "test" else LEFT_HALF
            confounders = bias_assignment.confounders_of_splits(seed, part, label, places, bias)
            for split, place in confounders.items():
                photo = draw_crops(random_stream(seed, split, "crop"), place, places, half)
                splits[split] = Split(
                    image=blend(photo, opacity, white),
                    label=label,
                    confounder=place,
                    environment=bias_assignment.bias_environments(split, label, place, bias),
                    mask=opacity[:, None] > 127,
                    pair_id=drawn.row,
                    cluster=None if part == "test" else drawn.row,
                )
        return splits


def draw_ink(rng: np.random.Generator, opacity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw the strength and the colour of the ink of each digit.

    Args:
        rng: The generator of strengths and colours.
        opacity: uint8[N,H,W], the opacity of the strokes.

    Returns:
        The opacity, uint8[N,H,W], of ink that lets up to 20 % of the photograph through, and
        whether the ink is white, bool[N].
    """
    strength = rng.uniform(0.8, 1, (len(opacity), 1, 1)).astype(np.float32)
    white = rng.random(len(opacity)) < 0.5
    return (opacity * strength).round().astype(np.uint8), white


def blend(photo: np.ndarray, opacity: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Put ink on photographs, in integers: round((photo·(255 − a) + ink·a) / 255).

    Args:
        photo: uint8[N,3,H,W]; unchanged where the opacity is 0.
        opacity: uint8[N,H,W].
        white: bool[N]; the ink is 255 if True, else 0.

    Returns:
        uint8[N,3,H,W].
    """
    a = opacity[:, None].astype(np.uint16)
    ink = np.where(white, 255, 0).astype(np.uint16)[:, None, None, None]
    value = photo * (255 - a)
    value += a * ink + np.uint16(127)
    value //= 255
    return value.astype(np.uint8)  # type: ignore[no-any-return]


def draw_crops(rng: np.random.Generator, place: np.ndarray, places: int, half: int) -> np.ndarray:
    """Draw a random crop for every image, flipped at random.

    Args:
        rng: The generator of photographs, positions and flips.
        place: int64[N].
        places: The number of places, a key of PLACES.
        half: LEFT_HALF or RIGHT_HALF of each photograph.

    Returns:
        uint8[N,3,32,32].
    """
    n = len(place)
    index = {name: i for i, name in enumerate(PHOTOGRAPHS)}
    photographs = np.array([[index[name] for name in pool] for pool in PLACES[places].values()])
    selected = photographs[place, rng.integers(0, photographs.shape[1], n)]
    position = rng.random((2, n))
    flipped = rng.random(n) < 0.5
    out = np.empty((n, 3, SIDE, SIDE), np.uint8)
    for number, photo in enumerate(read_photographs()):
        part = np.array_split(photo, 2, axis=2)[half]
        windows = np.lib.stride_tricks.sliding_window_view(part, (SIDE, SIDE), axis=(1, 2))
        rows = np.flatnonzero(selected == number)
        top, left = (position[:, rows] * [[windows.shape[1]], [windows.shape[2]]]).astype(np.int64)
        out[rows] = windows[:, top, left].swapaxes(0, 1)
    out[flipped] = out[flipped, :, :, ::-1]
    return out


@functools.lru_cache(maxsize=1)
def read_photographs() -> tuple[np.ndarray, ...]:
    """Read the photographs, reduced in size and range.

    Returns:
        uint8[3,H,W] with min(H, W) = 160, in the order of PHOTOGRAPHS.
    """
    from PIL import Image

    photos = []
    for name, file in zip(PHOTOGRAPHS, _files(), strict=True):
        with Image.open(file) as opened:
            photo = opened.convert("RGB")
        if name == "retina":
            photo = photo.crop(RETINA_BOX)
        scale = SHORT_SIDE / min(photo.size)
        size = (round(photo.width * scale), round(photo.height * scale))
        photo = photo.resize(size, Image.Resampling.BOX)
        value = DARKEST + np.asarray(photo).astype(np.float64) * ((BRIGHTEST - DARKEST) / 255)
        photos.append(np.ascontiguousarray(value.round().astype(np.uint8).transpose(2, 0, 1)))
    return tuple(photos)


def _files() -> list[Path]:
    return [sklearn_digits.package_file(package, path) for package, path in PHOTOGRAPHS.values()]
