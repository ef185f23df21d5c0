"""Spawrious: four breeds of dog in landscapes tied to the breed, recombined in the test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._sources.bias_assignment import random_stream
from datasets._sources.group_environments import HOLDOUT
from datasets._sources.holdout import hold_out
from datasets._sources.photographs import IMAGENET_MEAN, IMAGENET_STD, photograph_names

FOLDER = "spawrious224"
BREEDS = ("bulldog", "dachshund", "labrador", "corgi")
PLACES = ("beach", "desert", "dirt", "jungle", "mountain", "snow")
#: Images of each breed in each training environment.
PER_BREED = 3168
#: The share of them in the breed's own place, by environment (one-to-one challenges).
SHARES = (0.97, 0.87)
#: The partner of each breed, with which it swaps places (many-to-many challenges).
PARTNER = (1, 0, 3, 2)
#: The environment number of test images.
TEST = 2


class Challenge(NamedTuple):
    """A challenge.

    Attributes:
        train: The place of each breed in training.
        test: The place of each breed in the test.
        shared: The place that all breeds share in training; empty in many-to-many challenges, in
            which the breeds of a pair swap their places in the second environment instead.
    """

    train: tuple[str, str, str, str]
    test: tuple[str, str, str, str]
    shared: str = ""


#: The challenges of the authors' code: one to one (o2o) and many to many (m2m).
CHALLENGES = {
    "o2o_easy": Challenge(
        train=("desert", "jungle", "dirt", "snow"),
        test=("dirt", "snow", "desert", "jungle"),
        shared="beach",
    ),
    "o2o_medium": Challenge(
        train=("mountain", "beach", "dirt", "jungle"),
        test=("jungle", "dirt", "beach", "snow"),
        shared="desert",
    ),
    "o2o_hard": Challenge(
        train=("jungle", "mountain", "snow", "desert"),
        test=("mountain", "snow", "desert", "jungle"),
        shared="beach",
    ),
    "m2m_easy": Challenge(
        train=("desert", "mountain", "dirt", "jungle"),
        test=("dirt", "jungle", "mountain", "desert"),
    ),
    "m2m_medium": Challenge(
        train=("beach", "snow", "mountain", "desert"),
        test=("desert", "mountain", "beach", "snow"),
    ),
    "m2m_hard": Challenge(
        train=("dirt", "jungle", "snow", "beach"),
        test=("snow", "beach", "dirt", "jungle"),
    ),
}


class Piece(NamedTuple):
    """Images of one breed in one place that belong to one environment.

    Attributes:
        folder: The authors' folder, 0 or 1.
        breed: The index of the breed.
        place: The place.
        environment: 0 or 1, or TEST.
        num_images: The number of images; None for all that are left.
    """

    folder: int
    breed: int
    place: str
    environment: int
    num_images: int | None = None


@DATASETS.register
class Spawrious(ImageSource):
    """Generated photographs of dogs; the place is tied to the breed.

    Source: Lynch, Dovonon, Kaddour and Silva (2023), "Spawrious: a benchmark for fine control of
    spurious correlation biases". Licence: MIT, according to the authors' repository. About 152,000
    images in total.

    Layout: ``spawrious224/<0 or 1>/<place>/<breed>/*.png``. To get it: the authors' archive of the
    challenge (one to one) or of the entire data set (many to many), unpacked in the data folder.
    Counts: 3,168 images of each breed in each of two training environments, 25,344 in total. One to
    one: 97 % of them (87 % in the second environment) are in the breed's own place, the rest in a
    place that all breeds share; the environments are from the folders 0 and 1. Many to many: both
    environments are from folder 0, and in the second one two breeds swap places. The test has each
    breed in places where it never is in training. A fifth of each environment is used for
    validation, and augmentation is a flip, colour jitter and conversion to grey, as in DomainBed.
    There are no masks.
    """

    name = "spawrious"
    title = "Spawrious"
    description = (
        "dogs in landscapes tied to the breed, recombined in the test; six challenges "
        "(Lynch et al. 2023)"
    )
    option_titles: ClassVar[Mapping[str, str]] = {"challenge": "{value}"}
    group_title = "{label} in {confounder}"
    options: ClassVar[Mapping[str, HParam]] = {
        "challenge": HParam(
            "o2o_easy", doc="one-to-one or many-to-many, easy to hard", choices=tuple(CHALLENGES)
        ),
        "per_breed": HParam(
            PER_BREED,
            doc="largest number of images of each breed in each training environment",
            low=4,
            high=10_000,
        ),
        "side": side_option(224),
    }

    breed: np.ndarray
    place: np.ndarray
    environment: np.ndarray

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        return DatasetInfo(
            label_names=BREEDS,
            confounder_names=PLACES,
            environment_names=("first", "second"),
            image_size=(3, side, side),
            splits=("train", "val", "test"),
            provides=Needs(confounder=True, groups=True, environments=True, val_groups=True),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            augmentation={
                "flip": 0.5,
                "ColorJitter": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.3},
                "RandomGrayscale": {"p": 0.1},
            },
            source="Lynch et al. (2023), Spawrious: a benchmark for fine control of spurious "
            "correlation biases",
            licence="MIT",
        )

    def read(self) -> dict[str, Pool]:
        items: list[Item] = []
        columns: list[tuple[int, int, int]] = []
        num_used: dict[str, int] = {}
        for piece in self.pieces():
            path = f"{FOLDER}/{piece.folder}/{piece.place}/{BREEDS[piece.breed]}"
            names = self._image_names(path)[num_used.get(path, 0) :][: piece.num_images]
            if not names:
                raise UserError(
                    f"{self.name}: {self.folder() / path} holds no images for this challenge; "
                    "unpack the archive again."
                )
            num_used[path] = num_used.get(path, 0) + len(names)
            items += [Item(f"{path}/{name}") for name in names]
            row = (piece.breed, PLACES.index(piece.place), piece.environment)
            columns += [row] * len(names)
        self.breed, self.place, self.environment = np.array(columns, np.int64).T
        pool_name = f"{self.name}-{self.chosen['challenge']}"
        return {pool_name: Pool(items, Recipe(self.chosen["side"]))}

    def build(self, seed: int) -> dict[str, Split]:
        (pool_name,) = self.pools()
        groups = []
        for environment in (0, 1):
            for breed in range(len(BREEDS)):
                rows = np.flatnonzero((self.environment == environment) & (self.breed == breed))
                rng = random_stream(seed, "holdout", environment, breed)
                groups.append(rng.permutation(rows))
        train, val = hold_out(groups, HOLDOUT)
        rows_of_split = {
            "train": train,
            "val": val,
            "test": np.flatnonzero(self.environment == TEST),
        }
        return {
            split: self.split(
                pool_name,
                rows,
                self.breed[rows],
                self.place[rows],
                None if split == "test" else self.environment[rows],
            )
            for split, rows in rows_of_split.items()
        }

    def pieces(self) -> Iterator[Piece]:
        """Yield the pieces of the chosen challenge, in the order in which images are taken."""
        challenge = CHALLENGES[self.chosen["challenge"]]
        if challenge.shared:
            yield from self._one_to_one_pieces(challenge)
        else:
            yield from self._many_to_many_pieces(challenge)

    def _one_to_one_pieces(self, challenge: Challenge) -> Iterator[Piece]:
        total = self.chosen["per_breed"]
        for environment, share in enumerate(SHARES):
            for breed, place in enumerate(challenge.train):
                own = int(share * total)
                yield Piece(environment, breed, place, environment, own)
                yield Piece(environment, breed, challenge.shared, environment, total - own)
        for breed, place in enumerate(challenge.test):
            yield Piece(0, breed, place, TEST)
            yield Piece(1, breed, place, TEST)

    def _many_to_many_pieces(self, challenge: Challenge) -> Iterator[Piece]:
        total = self.chosen["per_breed"]
        for breed, place in enumerate(challenge.train):
            yield Piece(0, breed, place, 0, total)
        for breed, partner in enumerate(PARTNER):
            yield Piece(0, breed, challenge.train[partner], 1, total)
        for breed, partner in enumerate(PARTNER):
            yield Piece(0, breed, challenge.test[breed], TEST)
            yield Piece(0, breed, challenge.test[partner], TEST)

    def _image_names(self, path: str) -> list[str]:
        """Return the images in a folder below the data folder."""
        how = (
            "unpack the authors' archive of this challenge there (many to many: the entire data "
            "set)"
        )
        self.find(FOLDER, how=how)
        folder = self.folder() / path
        if not folder.is_dir():
            raise UserError(
                f"{self.name} is incomplete: there is no {path} in {self.folder()}; {how}."
            )
        return photograph_names(folder)
