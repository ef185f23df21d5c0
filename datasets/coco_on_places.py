"""COCO-on-Places: nine kinds of objects on scenes that go with the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io.cache import cache_folder
from datasets._io.cache_entry import CacheColumn
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._sources import bias_assignment
from datasets._sources import coco as _coco
from datasets._sources import places as _places

#: Class -> the place that it is tied to (Ahmed et al.'s code, which the TEA paper used).
PLACE_OF = {
    "boat": "beach", "airplane": "canyon", "truck": "building_facade", "dog": "staircase", "zebra": "desert/sand",
    "horse": "crevasse", "bird": "bamboo_forest", "train": "forest/broadleaf", "bus": "ball_pit",
}  # fmt: skip
#: Places of training images that are not in the place of their class, and places that only the unbiased test has.
OTHERS = ("kasbah", "lighthouse", "pagoda", "rock_arch")
UNSEEN = ("water_tower", "waterfall", "zen_garden")
CONFOUNDERS = (
    *(place.replace("/", "_") for place in PLACE_OF.values()),
    "other_place",
    "unseen_place",
)
OTHER, UNSEEN_PLACE = len(PLACE_OF), len(PLACE_OF) + 1
#: Objects smaller than this many pixels of the photograph are not used.
SMALLEST = 10_000
#: Of ten objects of a class, so many are for training and for validation; the rest is for the tests.
TENTHS = {"train": 8, "val": 1}
ANNOTATIONS = "annotations/instances_train2017.json"


@DATASETS.register
class CocoOnPlaces(ImageSource):
    """Objects of COCO, cut out and put on scenes of Places, 64×64.

    Source: Ahmed, Bengio, van Seijen and Courville (2021), "Systematic generalisation with group invariant
    predictions"; Lin et al. (2014), Microsoft COCO; Zhou et al. (2018), Places. Licence: COCO's annotations CC BY 4.0,
    its photographs under the terms of Flickr; Places free for research and education.

    Layout: COCO's ``annotations/instances_train2017.json`` and ``train2017/*.jpg``, in the data folder or in ``coco/``
    in it; Places365 as its archives are unpacked, ``data_256/b/beach/*.jpg`` … (or data_large, or torchvision's names).
    To get it: train2017.zip and annotations_trainval2017.zip from COCO's page, train_256_places365standard.tar from
    Places'. Counts: 800, 100 and 100 objects of each class: 7,200 images to train, 900 to validate, 900 in each test.

    A share ``bias`` of training and validation is in the place of its class (0.8 by Ahmed et al. and for the methods
    that need groups in the TEA paper, which takes 1.0 otherwise), the rest in four other places. The tests show the
    same objects: ``biased`` in the place of the class, ``unbiased`` in three places that training never has,
    ``deceiving`` in the places of the other eight classes, evenly (Ahmed et al.: of one of them, at random). Each
    object is the largest of its class in its photograph and covers 10,000 pixels or more; photographs of places are
    used once in a trial. The first ``per_class`` such objects in the order of COCO's file are divided anew in each
    trial.
    """

    name = "coco_on_places"
    title = "nine kinds of objects on scenes tied to the class (Ahmed et al. 2021, as TEA uses it)"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(0.8),
        "per_class": HParam(
            1000,
            doc="objects of each class: 8 of 10 to train, 1 to validate, 1 to test",
            low=10,
            high=10_000,
        ),
        "side": side_option(64),
    }

    def info(self) -> DatasetInfo:
        side, bias = self.chosen["side"], self.chosen["bias"]
        return DatasetInfo(
            label_names=tuple(PLACE_OF),
            confounder_names=CONFOUNDERS,
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, side, side),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provides(bias),
            mean=(0.0, 0.0, 0.0),  # TEA, F.2: pixels in [0, 1] and no other normalisation
            std=(1.0, 1.0, 1.0),
            source=f"Ahmed et al. (2021), Systematic generalisation; COCO: Lin et al. (2014); {_places.SOURCE}",
            licence=f"COCO: annotations CC BY 4.0, photographs as on Flickr; {_places.LICENCE}",
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def read(self) -> dict[str, Pool]:
        how = "unpack COCO's annotations_trainval2017.zip and train2017.zip there"
        notes = self.find(ANNOTATIONS, f"coco/{ANNOTATIONS}", how=how)
        path, folder = self.folder() / notes, notes.replace(ANNOTATIONS, "train2017")
        found = _coco.remembered(
            cache_folder(self.data_dir), path, tuple(PLACE_OF), SMALLEST, folder
        )
        per_class, side = self.chosen["per_class"], self.chosen["side"]
        items: list[Item] = []
        for name, objects in found.items():
            if len(objects) < per_class:
                raise UserError(
                    f"{path} has {len(objects)} objects of the class {name} that cover {SMALLEST:,} pixels, but "
                    f"{per_class} are wanted; lower per_class."
                )
            items += objects[:per_class]
        pools = {"objects": Pool(items, Recipe(side, cutout=True, upright=False))}
        counts = _counts(per_class)
        # the most that a place may be asked for, whatever the bias
        needed = {
            **dict.fromkeys(
                PLACE_OF.values(),
                counts["train"] + counts["val"] + 2 * counts["test"] + len(PLACE_OF),
            ),
            **dict.fromkeys(
                OTHERS, -(-len(PLACE_OF) * (counts["train"] + counts["val"]) // len(OTHERS))
            ),
            **dict.fromkeys(UNSEEN, -(-len(PLACE_OF) * counts["test"] // len(UNSEEN))),
        }
        for place, count in needed.items():
            pools[place.replace("/", "_")] = Pool(
                _places.photographs(self, place, count), Recipe(side)
            )
        return pools

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        return _coco.draw(item.drawn, size, item.image)

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        per_class, bias = self.chosen["per_class"], self.chosen["bias"]
        counts = _counts(per_class)
        mixed = [
            c * per_class + bias_assignment.stream(seed, "divide", c).permutation(per_class)
            for c in range(len(PLACE_OF))
        ]
        ends = [counts["train"], counts["train"] + counts["val"]]
        parts = zip(*(np.split(rows, ends) for rows in mixed), strict=True)
        free = _Photographs(self, seed)
        splits = {}
        for part, pieces in zip(("train", "val", "test"), parts, strict=True):
            rows = np.sort(np.concatenate(pieces))
            label = rows // per_class
            for split, place in self._places(seed, part, label).items():
                image = self._blend(rows, free.take(place))
                environment = bias_assignment.environments(split, label, place, bias)
                mask = self.mask_rows("objects", rows)
                splits[split] = Split(image, label, place, environment, mask, pair_id=rows)
        return {name: splits[name] for name in bias_assignment.SPLITS}

    def _places(self, seed: int, part: str, label: np.ndarray) -> dict[str, np.ndarray]:
        """The confounder of every image, int64[N], for each split that shows the objects of ``part``."""
        if part != "test":
            elsewhere = np.empty_like(label)
            for c in range(len(PLACE_OF)):  # the same share of every class
                rows = np.flatnonzero(label == c)
                rng = bias_assignment.stream(seed, part, "place", c)
                elsewhere[rows] = bias_assignment.tie(
                    rng, np.zeros_like(rows), 2, self.chosen["bias"]
                )
            return {part: np.where(elsewhere, OTHER, label)}
        deceiving = np.empty_like(label)
        for c in range(len(PLACE_OF)):
            rows = np.flatnonzero(label == c)
            others = (
                c
                + 1
                + bias_assignment.stream(seed, part, "deceiving", c).permutation(len(PLACE_OF) - 1)
            ) % len(PLACE_OF)
            deceiving[rows] = np.resize(others, len(rows))
        return {
            "biased": label.copy(),
            "unbiased": np.full_like(label, UNSEEN_PLACE),
            "deceiving": deceiving,
        }

    def _blend(self, rows: np.ndarray, photograph: np.ndarray) -> np.ndarray:
        """Objects on photographs: round((object·a + photograph·(255 − a)) / 255), uint8[N,3,S,S]."""
        objects = self.arrays("objects").image
        grounds = [self.arrays(name).image for name in list(self.pools())[1:]]

        def fill(start: int, stop: int) -> dict[str, np.ndarray]:
            thing = objects[rows[start:stop]]
            ground = np.empty((stop - start, 3, *thing.shape[2:]), np.uint8)
            for i, (pool, row) in enumerate(photograph[start:stop]):
                ground[i] = grounds[pool][row]
            a = thing[:, 3:].astype(np.uint16)
            return {
                "image": ((thing[:, :3] * a + ground * (255 - a) + 127) // 255).astype(np.uint8)
            }

        return self.generate_images(
            [rows, photograph], len(rows), CacheColumn((3, *objects.shape[2:])), fill
        )


class _Photographs:
    """Deals out photographs of places, in an order that is random for each trial, each of them once."""

    def __init__(self, source: CocoOnPlaces, seed: int) -> None:
        pools = list(source.pools().items())[1:]
        orders = [
            bias_assignment.stream(seed, "photographs", name).permutation(len(pool.items))
            for name, pool in pools
        ]
        pairs = [np.stack([np.full(len(order), i), order], 1) for i, order in enumerate(orders)]
        n, m = len(PLACE_OF), len(OTHERS)
        several = (pairs[n : n + m], pairs[n + m :])
        mixed = [
            bias_assignment.stream(seed, "photographs", i).permutation(np.concatenate(group))
            for i, group in enumerate(several)
        ]
        self.left = [*pairs[:n], *mixed]

    def take(self, place: np.ndarray) -> np.ndarray:
        """Pool and row of a photograph for every image, int64[N,2]."""
        out = np.empty((len(place), 2), np.int64)
        for kind in np.unique(place):
            rows = np.flatnonzero(place == kind)
            out[rows], self.left[kind] = self.left[kind][: len(rows)], self.left[kind][len(rows) :]
        return out


def _counts(per_class: int) -> dict[str, int]:
    """Objects of each class in each part."""
    counts = {part: per_class * tenths // 10 for part, tenths in TENTHS.items()}
    return {**counts, "test": per_class - sum(counts.values())}
