"""Birds of CUB-200-2011 on photographs of Places, as Waterbirds is made (Sagawa et al. 2020)."""

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
from datasets._sources.bias_assignment import assign_confounders, bias_environments, random_stream
from datasets._sources.compositing import paste_cutouts

FOLDER = "CUB_200_2011"
SEGMENTATIONS = (
    "CUB_200_2011/segmentations",
    "segmentations",
    "CUB_200_2011_segmentations/segmentations",
)
#: Parts of the names of seabirds and waterfowl. Every other species is a landbird (group_DRO).
WATERBIRDS = (
    "albatross", "auklet", "cormorant", "frigatebird", "fulmar", "gull", "jaeger", "kittiwake",
    "pelican", "puffin", "tern", "gadwall", "grebe", "mallard", "merganser", "guillemot",
    "pacific_loon",
)  # fmt: skip
#: Categories of Places for each background (group_DRO).
CATEGORIES = {"land": ("bamboo_forest", "forest/broadleaf"), "water": ("ocean", "lake/natural")}
#: One in this many training birds is used for validation (TEA, Table 1).
VAL_FRACTION = 10
#: The share of CUB's training birds that group_DRO sets aside for an unbiased validation. They are
#: not used here.
SET_ASIDE = 0.2
#: Values of ``part`` in ``make_splits``.
TRAIN_PART = 0
UNUSED_PART = 1
TEST_PART = 2


@dataclass(frozen=True)
class Birds:
    """The birds of CUB.

    Args:
        items: The images.
        water: int64[N], 1 for a waterbird.
        train: bool[N], True for CUB's training birds.
    """

    items: list[Item]
    water: np.ndarray
    train: np.ndarray


def metadata_files(source: ImageSource) -> list[Path]:
    """Return the list of CUB's images and the list of its training birds."""
    how = "unpack CUB_200_2011.tgz there, and segmentations.tgz in it"
    names = ("images.txt", "train_test_split.txt")
    return [source.folder() / source.find(f"{FOLDER}/{name}", how=how) for name in names]


def read_birds(source: ImageSource) -> Birds:
    """Read the birds in the order of CUB's list.

    Raises:
        UserError: If files are missing or the two lists differ.
    """
    images, training = (_read_pairs(path) for path in metadata_files(source))
    masks = source.find(*SEGMENTATIONS, how="unpack CUB's segmentations.tgz in CUB_200_2011/")
    if list(images) != list(training) or not set(training.values()) <= {"0", "1"}:
        raise UserError(
            f"{source.folder() / FOLDER}: images.txt and train_test_split.txt do not list the same "
            "images with 0 or 1; unpack CUB_200_2011.tgz again."
        )
    items = []
    water = []
    for name in images.values():
        mask = Path(name).with_suffix(".png").as_posix()
        items.append(Item(f"{FOLDER}/images/{name}", f"{masks}/{mask}"))
        species = name.split("/")[0].lower()
        water.append(int(any(bird in species for bird in WATERBIRDS)))
    train = np.array([training[key] == "1" for key in images])
    return Birds(items, np.array(water), train)


def photographs_needed(birds: Birds) -> int:
    """Return the number of photographs of each background that suffices at any bias."""
    largest_class = int(np.bincount(birds.water[birds.train]).max())
    tests = int((~birds.train).sum())
    return largest_class + (tests + 3) // 2


def make_splits(
    source: ImageSource, seed: int, label: np.ndarray, part: np.ndarray, bias: float
) -> dict[str, Split]:
    """Make the splits of one trial.

    The tests show the same birds in all trials, half of each class on either background. Each
    photograph is used once.

    Args:
        source: A data set with the pools ``birds`` and those of CATEGORIES.
        seed: The seed of the trial.
        label: int64[N], 0 for a landbird, 1 for a waterbird.
        part: int64[N], TRAIN_PART or TEST_PART.
        bias: The share of training birds on their own background.
    """
    birds = random_stream(seed, "divide").permutation(np.flatnonzero(part == TRAIN_PART))
    num_unused = round(SET_ASIDE * len(birds))
    train = birds[num_unused:]
    num_val = round(len(train) / VAL_FRACTION)
    part = part.copy()
    part[birds[:num_unused]] = UNUSED_PART
    place = np.full_like(label, -1)
    for number, strength in ((TRAIN_PART, bias), (TEST_PART, 0.5)):
        rows = np.flatnonzero(part == number)
        rng = random_stream(seed, "place", number)
        place[rows] = assign_confounders(rng, label[rows], 2, strength)
    photograph = np.zeros_like(label)
    for kind, name in enumerate(CATEGORIES):
        rows = np.flatnonzero(place == kind)
        order = random_stream(seed, "photograph", name).permutation(len(source.pools()[name].items))
        photograph[rows] = order[: len(rows)]
    aligned = label == place
    test = part == TEST_PART
    rows_of_split = {
        "train": np.sort(train[num_val:]),
        "val": np.sort(train[:num_val]),
        "biased": np.flatnonzero(test & aligned),
        "unbiased": np.flatnonzero(test),
        "deceiving": np.flatnonzero(test & ~aligned),
    }
    return {
        name: Split(
            image=_blend(source, rows, place[rows], photograph[rows]),
            label=label[rows],
            confounder=place[rows],
            environment=bias_environments(name, label[rows], place[rows], bias),
            mask=source.mask_rows("birds", rows),
            pair_id=rows,
        )
        for name, rows in rows_of_split.items()
    }


def _blend(
    source: ImageSource, rows: np.ndarray, place: np.ndarray, photograph: np.ndarray
) -> np.ndarray:
    """Paste birds on photographs, uint8[N,3,S,S]."""
    birds = source.arrays("birds").image
    backgrounds = [source.arrays(name).image for name in CATEGORIES]

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        cutout = birds[rows[start:stop]]
        background = np.empty((stop - start, 3, *cutout.shape[2:]), np.uint8)
        for kind, photographs in enumerate(backgrounds):
            selected = np.flatnonzero(place[start:stop] == kind)
            background[selected] = photographs[photograph[start:stop][selected]]
        return {"image": paste_cutouts(cutout, background)}

    column = CacheColumn((3, *birds.shape[2:]))
    return source.generate_images([rows, place, photograph], len(rows), column, compute)


def _read_pairs(path: Path) -> dict[str, str]:
    """Read lines of a number and a value."""
    pairs = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        parts = line.split()
        if len(parts) != 2:
            raise UserError(f"line {number} of {path} is {line!r}, expected a number and a value.")
        if parts[0] in pairs:
            raise UserError(
                f"line {number} of {path} repeats the number {parts[0]}; unpack the archive again."
            )
        pairs[parts[0]] = parts[1]
    return pairs
