"""Data with known groups: arrays, what is known of them, and where they come from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam, check_values
from benchmark.core.needs import Needs
from benchmark.core.seeds import seed_for

#: What a sweep file's [augmentation] table or a data set may ask for; 0 is off.
AUGMENTATIONS = {
    "flip": HParam(0.0, doc="probability of a left-right flip", low=0.0, high=1.0),
    "translate": HParam(0.0, doc="largest shift, as a share of the side", low=0.0, high=1.0),
    "rotate": HParam(0.0, doc="largest rotation, degrees", low=0.0, high=180.0),
    "crop": HParam(0.0, doc="largest share of the side that a crop leaves out", low=0.0, high=0.9),
}


#: A batch may hold each training image so often, and a batch of ROOMY images is never too large: random draws of the
#: batch size know nothing of the data.
OFTEN, ROOMY = 10, 1024


def oversized(batch_size: int, images: int) -> str | None:
    """Why batches of this size make no sense for so many training images, in a sentence, or None."""
    if batch_size <= max(OFTEN * images, ROOMY):
        return None
    return (
        f"batch_size = {batch_size:,} holds each of the {images:,} training images {batch_size // images} times, "
        f"expected at most {OFTEN}; use a smaller batch_size."
    )


@dataclass(frozen=True)
class Split:
    """One split, held in memory (or memory-mapped).

    Shapes and types: ``image`` uint8[N,C,H,W]; ``label`` int64[N], or int64[N,K] of 0 and 1 where an image may have
    several of K labels or none; ``confounder`` and ``environment`` int64[N];
    ``mask`` bool[N,1,H,W], True = foreground; ``pair_id`` int64[N], equal across splits for the same object
    with another bias; ``cluster`` int64[N], images that belong together (a patient).
    """

    image: np.ndarray
    label: np.ndarray
    confounder: np.ndarray | None = None
    environment: np.ndarray | None = None
    mask: np.ndarray | None = None
    pair_id: np.ndarray | None = None
    cluster: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 4 or self.image.dtype != np.uint8:
            raise ValueError(
                f"image is {self.image.dtype}{list(self.image.shape)}, expected uint8[N,C,H,W]"
            )
        n, _, height, width = self.image.shape
        for name in ("label", "confounder", "environment", "pair_id", "cluster"):
            value = getattr(self, name)
            shape = (n, *value.shape[1:2]) if name == "label" else (n,)
            if value is not None and (value.shape != shape or value.dtype != np.int64):
                raise ValueError(f"{name} is {value.dtype}{list(value.shape)}, expected int64[{n}]")
        if self.mask is not None and (
            self.mask.shape != (n, 1, height, width) or self.mask.dtype != np.bool_
        ):
            raise ValueError(
                f"mask is {self.mask.dtype}{list(self.mask.shape)}, expected bool[{n},1,{height},{width}]"
            )

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before any image is read.

    Args:
        label_names, confounder_names, environment_names: environment names are empty where there is no division.
        image_size: (C, H, W).
        splits: ``train``, ``val`` and the test splits, in table order.
        provides: the annotations it carries.
        mean, std: per channel, of pixel values in [0, 1], for normalisation.
        augmentation: what leaves the label true, by name, from AUGMENTATIONS.
        source, licence: where it comes from and under which terms.
        stand_in: True for generated stand-ins, which are never shown in one table with real data.
        bias_splits: (biased, deceiving), the two splits whose difference is the generalisation gap, or None.
        paired: whether those two show the same objects (equal ``pair_id``).
        multi_label: an image may have several labels or none; every label is then a question of its own, yes or no,
            and has groups of its own, so that there is no group of an image.
    """

    label_names: tuple[str, ...]
    confounder_names: tuple[str, ...]
    environment_names: tuple[str, ...]
    image_size: tuple[int, int, int]
    splits: tuple[str, ...]
    provides: Needs
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    augmentation: Mapping[str, float] = field(default_factory=dict)
    stand_in: bool = False
    bias_splits: tuple[str, str] | None = None
    paired: bool = False
    multi_label: bool = False

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(s for s in self.splits if s not in ("train", "val"))

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups in the order of ``label * num_confounders + confounder``: ``waterbird/land``.

        Multi-label: two for each label and confounder, ``no mass/scanner 2`` before ``mass/scanner 2``. Where two
        groups would have one name (labels ``mass`` and ``no mass``, a name with a slash), all names are written at
        length: ``'no mass': yes / 'scanner 2'``.
        """
        answers = ("no", "yes") if self.multi_label else ("",)
        groups = list(itertools.product(self.label_names, answers, self.confounder_names))
        short = tuple(
            f"{'no ' if answer == 'no' else ''}{label}/{confounder}"
            for label, answer, confounder in groups
        )
        if len(set(short)) == len(short):
            return short
        return _numbered(
            f"{label!r}{f': {answer}' if answer else ''} / {confounder!r}"
            for label, answer, confounder in groups
        )


def _numbered(names: Iterable[str]) -> tuple[str, ...]:
    """The names, the second of two equal ones with `` (2)`` behind it, so that all differ."""
    out: dict[str, None] = {}
    for name in names:
        number, unique = 1, name
        while unique in out:
            number += 1
            unique = f"{name} ({number})"
        out[unique] = None
    return tuple(out)


@dataclass(frozen=True)
class GroupedDataset:
    """A data set of one trial: its arrays and what is known of them."""

    name: str
    options: Mapping[str, Any]
    info: DatasetInfo
    splits: Mapping[str, Split]
    fingerprint: str

    def group(self, split: str) -> np.ndarray | None:
        """Group of every image of a split, int64[N], or None: confounders unknown, or several labels per image."""
        data = self.splits[split]
        if self.info.multi_label:
            return None
        return (
            None
            if data.confounder is None
            else data.label * len(self.info.confounder_names) + data.confounder
        )


class DatasetSource:
    """Where a GroupedDataset comes from; subclasses are registered.

    Class attributes:
        name: the registry name.
        title: one line for ``list datasets``.
        version: raise it when the same options give other arrays, so that old runs are not taken for new ones.
        options: declared like hyper-parameters, checked in the same way.
        designed: the data set is made so that each split has the groups it is to have; False where a user sorted the
            pictures, so that a group that train or a test lacks is reported as a problem.

    Args:
        data_dir: the folder that holds downloaded data; embedded data sets do not use it.
        options: the options that differ from their defaults.

    Raises:
        UserError: an unknown option, or a value of the wrong type.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    version: ClassVar[int] = 1
    options: ClassVar[Mapping[str, HParam]] = {}
    designed: ClassVar[bool] = True

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        self.data_dir = data_dir
        defaults = {name: option.default for name, option in self.options.items()}
        self.chosen: dict[str, Any] = {
            **defaults,
            **check_values(self.options, options, self.name, "option"),
        }

    def info(self) -> DatasetInfo:
        """What is known before reading, for these options."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise a UserError if the files are missing or damaged; cheap, called before any run starts."""

    def content(self) -> str:
        """A digest of the files behind the data set (not of its options); cheap, embedded data may return ''."""
        return ""

    def train_size(self) -> int | None:
        """Number of training images, where it is known before the data are built, else None."""
        return None

    def build(self, seed: int) -> dict[str, Split]:
        """The splits of one trial. ``seed`` depends on the data set and the trial alone, never on the algorithm."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """What is wrong with the data beside what their arrays show, for ``benchmark.data check``; a sentence each."""
        return []

    def notes(self) -> list[str]:
        """What ``benchmark.data check`` says without calling it a problem, such as files left out; a sentence each."""
        return []

    def file_of(self, name: str, split: Split, row: int) -> str:
        """A picture of a split, for people: its file where that is known, else its row."""
        return f"row {row} of {name}"

    def fingerprint(self) -> str:
        """What identifies the data: name, version, options and content, in 16 hexadecimal digits."""
        return f"{seed_for('data', self.name, self.version, sorted(self.chosen.items()), self.content()):016x}"

    def load(self, trial: int) -> GroupedDataset:
        """The data of one trial, checked against what ``info`` promises.

        Raises:
            UserError: files are missing or damaged.
            ValueError: a programming error in ``build``: a split missing, a shape or an annotation not as declared.
        """
        self.check()
        info = self.info()
        splits = self.build(seed_for("data", self.name, trial))
        if tuple(splits) != info.splits:
            raise ValueError(
                f"{self.name}: build returned splits {tuple(splits)}, expected {info.splits}"
            )
        for name, split in splits.items():
            self._check_split(info, name, split)
        return GroupedDataset(self.name, dict(self.chosen), info, splits, self.fingerprint())

    def _check_split(self, info: DatasetInfo, name: str, split: Split) -> None:
        if len(split) == 0:
            raise UserError(
                f"{self.name}: split {name} has no images with these options ({self.chosen})."
            )
        if split.image.shape[1:] != info.image_size:
            raise ValueError(
                f"{self.name}: images of {name} are {split.image.shape[1:]}, expected {info.image_size}"
            )
        if split.label.shape[1:] != ((len(info.label_names),) if info.multi_label else ()):
            raise ValueError(
                f"{self.name}: labels of {name} have shape {split.label.shape}, which info does not say"
            )
        labels = ("no", "yes") if info.multi_label else info.label_names
        bounded = [("label", labels), ("confounder", info.confounder_names)]
        if (
            name == "train" and info.environment_names
        ):  # a test split may be an environment of its own
            bounded.append(("environment", info.environment_names))
        for what, names in bounded:
            value = getattr(split, what)
            if value is not None and (value.min() < 0 or value.max() >= len(names)):
                raise ValueError(f"{self.name}: {what} of {name} is outside 0 … {len(names) - 1}")
        promised = {
            "confounder": info.provides.confounder or info.provides.groups,
            "mask": info.provides.masks,
        }
        if name == "train":
            promised["environment"] = info.provides.environments
        if name == "val":
            promised["confounder"] |= info.provides.val_groups
            promised["mask"] |= info.provides.val_masks
        if info.paired and name in (info.bias_splits or ()):
            promised["pair_id"] = True
        for what, given in promised.items():
            if given and getattr(split, what) is None:
                raise ValueError(f"{self.name}: info promises {what}, but split {name} has none")
