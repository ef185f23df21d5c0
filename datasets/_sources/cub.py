"""Birds of CUB-200-2011 put on photographs of Places, as Waterbirds is made (Sagawa et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmark.core.dataset import Split
from benchmark.core.errors import UserError
from datasets._io.cache_entry import CacheColumn
from datasets._io.image_pool import Item
from datasets._io.image_source import ImageSource
from datasets._io.table import read_text
from datasets._sources import bias_assignment

FOLDER = "CUB_200_2011"
SEGMENTATIONS = (
    "CUB_200_2011/segmentations",
    "segmentations",
    "CUB_200_2011_segmentations/segmentations",
)
#: Seabirds and waterfowl: what the name of a species holds; every other species is a landbird (group_DRO's script).
WATERBIRDS = (
    "albatross", "auklet", "cormorant", "frigatebird", "fulmar", "gull", "jaeger", "kittiwake", "pelican", "puffin",
    "tern", "gadwall", "grebe", "mallard", "merganser", "guillemot", "pacific_loon",
)  # fmt: skip
#: Categories of Places for each background (the same script).
CATEGORIES = {"land": ("bamboo_forest", "forest/broadleaf"), "water": ("ocean", "lake/natural")}
#: Validation images are one in so many of training's (TEA, Table 1).
VAL_SHARE = 10
#: Share of CUB's training birds that group_DRO's script sets aside for a validation without bias; not used here.
SET_ASIDE = 0.2


@dataclass(frozen=True)
class Birds:
    """CUB's birds: items, whether each is a waterbird (int64[N], 0 or 1), and whether it is one of CUB's training."""

    items: list[Item]
    water: np.ndarray
    train: np.ndarray


def tables(source: ImageSource) -> list[Path]:
    """CUB's two lists."""
    how = "unpack CUB_200_2011.tgz there, and segmentations.tgz in it"
    found = [
        source.find(f"{FOLDER}/{name}", how=how) for name in ("images.txt", "train_test_split.txt")
    ]
    return [source.folder() / path for path in found]


def read(source: ImageSource) -> Birds:
    """The birds in the order of CUB's list.

    Raises:
        UserError: files are missing, or the two lists do not agree.
    """
    images, division = (_pairs(path) for path in tables(source))
    masks = source.find(*SEGMENTATIONS, how="unpack CUB's segmentations.tgz in CUB_200_2011/")
    if list(images) != list(division) or not set(division.values()) <= {"0", "1"}:
        raise UserError(
            f"{source.folder() / FOLDER}: images.txt and train_test_split.txt do not list the same images with 0 or 1; "
            "unpack CUB_200_2011.tgz again."
        )
    names = list(images.values())
    items = [
        Item(f"{FOLDER}/images/{n}", f"{masks}/{Path(n).with_suffix('.png').as_posix()}")
        for n in names
    ]
    species = [name.split("/")[0].lower() for name in names]
    water = np.array([int(any(bird in s for bird in WATERBIRDS)) for s in species])
    return Birds(items, water, np.array([division[key] == "1" for key in images]))


def _pairs(path: Path) -> dict[str, str]:
    out = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        parts = line.split()
        if len(parts) != 2:
            raise UserError(f"line {number} of {path} is {line!r}, expected a number and a value.")
        if parts[0] in out:
            raise UserError(f"line {number} of {path} has the number {parts[0]} again.")
        out[parts[0]] = parts[1]
    return out


def photographs_needed(birds: Birds) -> int:
    """Photographs of each background that suffice at any bias."""
    return int(np.bincount(birds.water[birds.train]).max()) + (int((~birds.train).sum()) + 3) // 2


def compose(
    source: ImageSource, seed: int, label: np.ndarray, part: np.ndarray, bias: float
) -> dict[str, Split]:
    """The splits of one trial.

    The tests hold the same birds in every trial, half of each kind on either background; a photograph is used once.

    Args:
        label: int64[N], 0 landbird, 1 waterbird; part: int64[N], 0 training, 2 test.
        bias: share of the training birds that are on their own background.
    """
    birds = bias_assignment.stream(seed, "divide").permutation(np.flatnonzero(part == 0))
    train = birds[round(SET_ASIDE * len(birds)) :]
    held = round(len(train) / VAL_SHARE)
    part = part.copy()
    part[birds[: round(SET_ASIDE * len(birds))]] = 1
    place = np.full_like(label, -1)
    for number, strength in ((0, bias), (2, 0.5)):
        rows = np.flatnonzero(part == number)
        place[rows] = bias_assignment.tie(
            bias_assignment.stream(seed, "place", number), label[rows], 2, strength
        )
    photo = np.zeros_like(label)
    for kind, name in enumerate(CATEGORIES):
        rows = np.flatnonzero(place == kind)
        photo[rows] = bias_assignment.stream(seed, "photograph", name).permutation(
            len(source.pools()[name].items)
        )[: len(rows)]
    own = label == place
    test = part == 2
    rows_of = {
        "train": np.sort(train[held:]),
        "val": np.sort(train[:held]),
        "biased": np.flatnonzero(test & own),
        "unbiased": np.flatnonzero(test),
        "deceiving": np.flatnonzero(test & ~own),
    }
    out = {}
    for name, rows in rows_of.items():
        image, mask = _blend(source, rows, place[rows], photo[rows])
        environment = bias_assignment.environments(name, label[rows], place[rows], bias)
        out[name] = Split(image, label[rows], place[rows], environment, mask, pair_id=rows)
    return out


def _blend(
    source: ImageSource, rows: np.ndarray, place: np.ndarray, photo: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Birds on photographs: round((bird·a + photograph·(255 − a)) / 255) with a the share of bird, uint8[N,3,S,S]."""
    birds = source.arrays("birds")
    grounds = [source.arrays(name).image for name in CATEGORIES]
    assert birds.mask is not None

    def fill(start: int, stop: int) -> dict[str, np.ndarray]:
        bird = birds.image[rows[start:stop]]
        ground = np.empty((stop - start, 3, *bird.shape[2:]), np.uint8)
        for kind, photographs in enumerate(grounds):
            chosen = np.flatnonzero(place[start:stop] == kind)
            ground[chosen] = photographs[photo[start:stop][chosen]]
        a = bird[:, 3:].astype(np.uint16)
        value = (bird[:, :3] * a + ground * (255 - a) + 127) // 255
        return {"image": value.astype(np.uint8)}

    image = source.generate_images(
        [rows, place, photo], len(rows), CacheColumn((3, *birds.image.shape[2:])), fill
    )
    return image, source.mask_rows("birds", rows)
