"""COCO-on-Places: nine classes of objects on scenes that are tied to the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from benchmark.core.cache_folder import cache_folder
from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io.cache_entry import CacheColumn
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._sources import bias_assignment
from datasets._sources import coco as _coco
from datasets._sources import places as _places
from datasets._sources.bias_assignment import random_stream
from datasets._sources.compositing import paste_cutouts

#: The place of each class (code of Ahmed et al., which the TEA paper used).
PLACE_OF = {
    "boat": "beach",
    "airplane": "canyon",
    "truck": "building_facade",
    "dog": "staircase",
    "zebra": "desert/sand",
    "horse": "crevasse",
    "bird": "bamboo_forest",
    "train": "forest/broadleaf",
    "bus": "ball_pit",
}
#: Places of training images that are not in the place of their class.
OTHERS = ("kasbah", "lighthouse", "pagoda", "rock_arch")
#: Places that only the unbiased test has.
UNSEEN = ("water_tower", "waterfall", "zen_garden")
CONFOUNDERS = (
    *(place.replace("/", "_") for place in PLACE_OF.values()),
    "other_place",
    "unseen_place",
)
NUM_CLASSES = len(PLACE_OF)
#: The confounders of the places in OTHERS and in UNSEEN.
OTHER_PLACE = NUM_CLASSES
UNSEEN_PLACE = NUM_CLASSES + 1
#: The smallest area of an object, in pixels of the photograph.
MIN_AREA = 10_000
#: How many of ten objects of a class are used for training and validation; the others are tests.
TENTHS = {"train": 8, "val": 1}
ANNOTATIONS = "annotations/instances_train2017.json"


@DATASETS.register
class CocoOnPlaces(ImageSource):
    """Objects of COCO, cut out and pasted on scenes of Places, 64×64.

    Source: Ahmed, Bengio, van Seijen and Courville (2021), "Systematic generalisation with group
    invariant predictions"; Lin et al. (2014), Microsoft COCO; Zhou et al. (2018), Places. Licence:
    COCO's annotations CC BY 4.0, its photographs under the terms of Flickr; Places free for
    research and education.

    Layout: COCO's ``annotations/instances_train2017.json`` and ``train2017/*.jpg``, in the data
    folder or in its folder ``coco/``; Places365 as its archives are unpacked,
    ``data_256/b/beach/*.jpg`` … (or data_large, or torchvision's names). To get it: train2017.zip
    and annotations_trainval2017.zip from COCO's page, train_256_places365standard.tar from that of
    Places. Counts: 800, 100 and 100 objects of each class: 7,200 images in train, 900 in val and
    900 in each test.

    In train and val, a share ``bias`` is in the place of its class and the rest in four other
    places. (Ahmed et al. use 0.8. The TEA paper uses 1.0, and 0.8 for methods that need groups.)
    The tests show the same objects: ``biased`` in the place of the class, ``unbiased`` in three
    places that training never has, ``deceiving`` in the places of the other eight classes, evenly
    (Ahmed et al.: in one of them, at random). Each object is the largest of its class in its
    photograph and covers at least 10,000 pixels. Photographs of places are used once per trial. The
    first ``per_class`` such objects in COCO's file are divided randomly in each trial.
    """

    name = "coco_on_places"
    title = "COCO-on-Places"
    description = (
        "nine classes of objects on scenes tied to the class (Ahmed et al. 2021, as TEA uses it)"
    )
    group_title = "{label} in {confounder}"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.8),
        "per_class": HParam(
            1000,
            doc="objects of each class: 8 of 10 in train, 1 in val, 1 in the tests",
            low=10,
            high=10_000,
        ),
        "side": side_option(64),
    }

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        bias = self.chosen["bias"]
        return DatasetInfo(
            label_names=tuple(PLACE_OF),
            confounder_names=CONFOUNDERS,
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, side, side),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(bias),
            mean=(0.0, 0.0, 0.0),  # TEA, F.2: pixels in [0, 1] without further normalisation
            std=(1.0, 1.0, 1.0),
            source="Ahmed et al. (2021), Systematic generalisation; COCO: Lin et al. (2014); "
            f"{_places.SOURCE}",
            licence=f"COCO: annotations CC BY 4.0, photographs as on Flickr; {_places.LICENCE}",
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def read(self) -> dict[str, Pool]:
        side = self.chosen["side"]
        pools = {"objects": Pool(self._object_items(), Recipe(side, cutout=True, upright=False))}
        for place, count in _photographs_needed(self.chosen["per_class"]).items():
            photographs = _places.category_photographs(self, place, count)
            pools[place.replace("/", "_")] = Pool(photographs, Recipe(side))
        return pools

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        return _coco.draw_segmentation(item.drawn, size, item.image)

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        per_class = self.chosen["per_class"]
        counts = _part_sizes(per_class)
        ends = [counts["train"], counts["train"] + counts["val"]]
        rows_of_class = []
        for c in range(NUM_CLASSES):
            order = random_stream(seed, "divide", c).permutation(per_class)
            rows_of_class.append(np.split(c * per_class + order, ends))
        photographs = _Photographs(self, seed)
        splits = {}
        for part, pieces in zip(counts, zip(*rows_of_class, strict=True), strict=True):
            rows = np.sort(np.concatenate(pieces))
            label = rows // per_class
            for split, place in self._places(seed, part, label).items():
                splits[split] = Split(
                    image=self._blend(rows, photographs.take(place)),
                    label=label,
                    confounder=place,
                    environment=bias_assignment.bias_environments(
                        split, label, place, self.chosen["bias"]
                    ),
                    mask=self.mask_rows("objects", rows),
                    pair_id=rows,
                )
        return {name: splits[name] for name in bias_assignment.SPLITS}

    def _object_items(self) -> list[Item]:
        """Return the first ``per_class`` objects of each class."""
        per_class = self.chosen["per_class"]
        how = "unpack COCO's annotations_trainval2017.zip and train2017.zip there"
        annotations = self.find(ANNOTATIONS, f"coco/{ANNOTATIONS}", how=how)
        path = self.folder() / annotations
        image_folder = annotations.replace(ANNOTATIONS, "train2017")
        objects_of_class = _coco.cached_largest_objects(
            cache_folder(self.data_dir), path, tuple(PLACE_OF), MIN_AREA, image_folder
        )
        items: list[Item] = []
        for name, objects in objects_of_class.items():
            if len(objects) < per_class:
                raise UserError(
                    f"{path} has {len(objects)} objects of the class {name} that cover "
                    f"{MIN_AREA:,} pixels, expected {per_class}; lower per_class."
                )
            items += objects[:per_class]
        return items

    def _places(self, seed: int, part: str, label: np.ndarray) -> dict[str, np.ndarray]:
        """Return the confounder of every image, int64[N], by split made of the part's objects."""
        if part != "test":
            conflicting = np.empty_like(label)
            for c in range(NUM_CLASSES):  # the same share of every class
                rows = np.flatnonzero(label == c)
                rng = random_stream(seed, part, "place", c)
                conflicting[rows] = bias_assignment.assign_confounders(
                    rng, np.zeros_like(rows), 2, self.chosen["bias"]
                )
            return {part: np.where(conflicting, OTHER_PLACE, label)}
        deceiving = np.empty_like(label)
        for c in range(NUM_CLASSES):
            rows = np.flatnonzero(label == c)
            order = random_stream(seed, part, "deceiving", c).permutation(NUM_CLASSES - 1)
            deceiving[rows] = np.resize((c + 1 + order) % NUM_CLASSES, len(rows))
        return {
            "biased": label.copy(),
            "unbiased": np.full_like(label, UNSEEN_PLACE),
            "deceiving": deceiving,
        }

    def _blend(self, rows: np.ndarray, photograph: np.ndarray) -> np.ndarray:
        """Paste objects on photographs.

        Args:
            rows: int64[N], rows of the pool of objects.
            photograph: int64[N,2], the pool and the row of the photographs.

        Returns:
            uint8[N,3,S,S].
        """
        objects = self.arrays("objects").image
        backgrounds = [self.arrays(name).image for name in list(self.pools())[1:]]

        def compute(start: int, stop: int) -> dict[str, np.ndarray]:
            cutout = objects[rows[start:stop]]
            background = np.empty((stop - start, 3, *cutout.shape[2:]), np.uint8)
            for i, (pool, row) in enumerate(photograph[start:stop]):
                background[i] = backgrounds[pool][row]
            return {"image": paste_cutouts(cutout, background)}

        column = CacheColumn((3, *objects.shape[2:]))
        return self.generate_images([rows, photograph], len(rows), column, compute)


class _Photographs:
    """The photographs of places in a random order; each is used once per trial."""

    def __init__(self, source: CocoOnPlaces, seed: int) -> None:
        pairs = []
        for i, (name, pool) in enumerate(list(source.pools().items())[1:]):
            order = random_stream(seed, "photographs", name).permutation(len(pool.items))
            pairs.append(np.stack([np.full(len(order), i), order], 1))
        end = NUM_CLASSES + len(OTHERS)
        shared = (pairs[NUM_CLASSES:end], pairs[end:])
        shuffled = [
            random_stream(seed, "photographs", i).permutation(np.concatenate(group))
            for i, group in enumerate(shared)
        ]
        #: Unused photographs (pool and row) by confounder.
        self._unused = [*pairs[:NUM_CLASSES], *shuffled]

    def take(self, place: np.ndarray) -> np.ndarray:
        """Return the pool and the row of a photograph for every image, int64[N,2]."""
        photographs = np.empty((len(place), 2), np.int64)
        for kind in np.unique(place):
            rows = np.flatnonzero(place == kind)
            photographs[rows] = self._unused[kind][: len(rows)]
            self._unused[kind] = self._unused[kind][len(rows) :]
        return photographs


def _photographs_needed(per_class: int) -> dict[str, int]:
    """Return the number of photographs of each place that suffices at any bias."""
    counts = _part_sizes(per_class)
    biased = counts["train"] + counts["val"]
    own = biased + 2 * counts["test"] + NUM_CLASSES
    other = -(-NUM_CLASSES * biased // len(OTHERS))
    unseen = -(-NUM_CLASSES * counts["test"] // len(UNSEEN))
    return {
        **dict.fromkeys(PLACE_OF.values(), own),
        **dict.fromkeys(OTHERS, other),
        **dict.fromkeys(UNSEEN, unseen),
    }


def _part_sizes(per_class: int) -> dict[str, int]:
    """Return the number of objects of each class in train, val and test."""
    counts = {part: per_class * tenths // 10 for part, tenths in TENTHS.items()}
    return {**counts, "test": per_class - sum(counts.values())}
