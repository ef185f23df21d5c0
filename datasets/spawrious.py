"""Spawrious: four breeds of dog in six landscapes that go with the breed, in other combinations in the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._sources.bias_assignment import stream
from datasets._sources.group_environments import HOLDOUT

FOLDER = "spawrious224"
BREEDS = ("bulldog", "dachshund", "labrador", "corgi")
PLACES = ("beach", "desert", "dirt", "jungle", "mountain", "snow")
#: Images of each breed in each training environment, and the shares of them in the breed's own place (one to one).
PER_BREED, SHARES = 3168, (0.97, 0.87)
#: Challenge -> places of the four breeds in training and in the test, and the one that they share in training. From
#: the authors' code. Many to many: the breeds of a pair swap their places in the second environment.
CHALLENGES = {
    "o2o_easy": (
        ("desert", "jungle", "dirt", "snow"),
        ("dirt", "snow", "desert", "jungle"),
        "beach",
    ),
    "o2o_medium": (
        ("mountain", "beach", "dirt", "jungle"),
        ("jungle", "dirt", "beach", "snow"),
        "desert",
    ),
    "o2o_hard": (
        ("jungle", "mountain", "snow", "desert"),
        ("mountain", "snow", "desert", "jungle"),
        "beach",
    ),
    "m2m_easy": (
        ("desert", "mountain", "dirt", "jungle"),
        ("dirt", "jungle", "mountain", "desert"),
        "",
    ),
    "m2m_medium": (
        ("beach", "snow", "mountain", "desert"),
        ("desert", "mountain", "beach", "snow"),
        "",
    ),
    "m2m_hard": (("dirt", "jungle", "snow", "beach"), ("snow", "beach", "dirt", "jungle"), ""),
}
#: A breed's partner, with whom it swaps places (many to many).
PARTNER = (1, 0, 3, 2)


@DATASETS.register
class Spawrious(ImageSource):
    """Generated photographs of dogs; the place goes with the breed.

    Source: Lynch, Dovonon, Kaddour and Silva (2023), "Spawrious: a benchmark for fine control of spurious correlation
    biases". Licence: MIT, as the authors' repository says. About 152,000 images in all.

    Layout: ``spawrious224/<0 or 1>/<place>/<breed>/*.png``. To get it: the authors' archive of the challenge (one to
    one) or of the entire data set (many to many), unpacked in the data folder. Counts: 3,168 images of each breed in
    each of two training environments, 25,344 in all. One to one: 97 % of them (87 % in the second environment) are in
    the breed's own place, the rest in a place that all breeds share; environments from the folders 0 and 1. Many to
    many: both environments from folder 0, in the second of which two breeds have swapped places. The test has each
    breed in places where it never was in training. A fifth of each environment is for validation, as in DomainBed.
    There are no masks.
    """

    name = "spawrious"
    title = "dogs in landscapes that go with the breed, recombined in the test; six challenges (Lynch et al. 2023)"
    options: ClassVar[Mapping[str, HParam]] = {
        "challenge": HParam(
            "o2o_easy", doc="one-to-one or many-to-many, easy to hard", choices=tuple(CHALLENGES)
        ),
        "per_breed": HParam(
            PER_BREED,
            doc="images of each breed in each training environment, at most",
            low=4,
            high=10_000,
        ),
        "side": side_option(224),
    }

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        return DatasetInfo(
            label_names=BREEDS,
            confounder_names=PLACES,
            environment_names=("first", "second"),
            image_size=(3, side, side),
            splits=("train", "val", "test"),
            provides=Needs(confounder=True, groups=True, environments=True, val_groups=True),
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            augmentation={"flip": 0.5},
            source="Lynch et al. (2023), Spawrious: a benchmark for fine control of spurious correlation biases",
            licence="MIT",
        )

    def read(self) -> dict[str, Pool]:
        items: list[Item] = []
        columns: list[tuple[int, int, int]] = []
        used: dict[str, int] = {}
        for folder, breed, place, environment, count in self._wanted():
            path = f"{FOLDER}/{folder}/{place}/{BREEDS[breed]}"
            names, first = self._names(path), used.get(path, 0)
            chosen = names[first : first + count] if count else names[first:]
            if not chosen:
                raise UserError(
                    f"{self.name}: {self.folder() / path} holds no images for this challenge."
                )
            used[path] = first + len(chosen)
            items += [Item(f"{path}/{name}") for name in chosen]
            columns += [(breed, PLACES.index(place), environment)] * len(chosen)
        self.breed, self.place, self.environment = np.array(columns, np.int64).T
        return {f"{self.name}-{self.chosen['challenge']}": Pool(items, Recipe(self.chosen["side"]))}

    def build(self, seed: int) -> dict[str, Split]:
        (name,) = self.pools()
        train, val = [], []
        for environment in (0, 1):
            for breed in range(len(BREEDS)):
                chosen = np.flatnonzero((self.environment == environment) & (self.breed == breed))
                mixed = stream(seed, "holdout", environment, breed).permutation(chosen)
                held = round(len(mixed) * HOLDOUT)
                val.append(mixed[:held])
                train.append(mixed[held:])
        rows = {
            "train": np.sort(np.concatenate(train)),
            "val": np.sort(np.concatenate(val)),
            "test": np.flatnonzero(self.environment == 2),
        }
        return {
            split: self.split(
                name,
                r,
                self.breed[r],
                self.place[r],
                None if split == "test" else self.environment[r],
            )
            for split, r in rows.items()
        }

    def _wanted(self) -> Iterator[tuple[int, int, str, int, int]]:
        """Folder, breed, place, environment (2: test) and number of images (0: all) of every piece."""
        own, test, shared = CHALLENGES[self.chosen["challenge"]]
        total = self.chosen["per_breed"]
        for environment in (0, 1):
            for breed in range(len(BREEDS)):
                if not shared:
                    yield (
                        0,
                        breed,
                        own[PARTNER[breed] if environment else breed],
                        environment,
                        total,
                    )
                    continue
                count = int(SHARES[environment] * total)
                yield environment, breed, own[breed], environment, count
                yield environment, breed, shared, environment, total - count
        for breed in range(len(BREEDS)):
            if shared:
                yield 0, breed, test[breed], 2, 0
                yield 1, breed, test[breed], 2, 0
            else:
                yield 0, breed, test[breed], 2, 0
                yield 0, breed, test[PARTNER[breed]], 2, 0

    def _names(self, path: str) -> list[str]:
        folder = self.folder() / path
        how = "unpack the authors' archive of this challenge there (many to many: the entire data set)"
        self.find(FOLDER, how=how)
        if not folder.is_dir():
            raise UserError(
                f"{self.name} was not found whole: there is no {path} in {self.folder()}; {how}."
            )
        return sorted(
            p.name for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")
        )
