"""Data sets with known groups: arrays, descriptions, and the sources that build them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.core.class_masks import ClassMasks, OwnClassMasks
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam, check_values
from benchmark.core.needs import Needs
from benchmark.core.seeds import seed_for
from benchmark.core.titles import option_phrases, own_title

#: Augmentations that a data set or the [augmentation] table of a sweep file may use, beside the
#: transforms of torchvision (see ``benchmark.core.transforms``); 0 means off.
AUGMENTATIONS = {
    "flip": HParam(0.0, doc="probability of a left-right flip", low=0.0, high=1.0),
    "translate": HParam(0.0, doc="largest shift, as a share of the side", low=0.0, high=1.0),
    "rotate": HParam(0.0, doc="largest rotation, degrees", low=0.0, high=180.0),
    "crop": HParam(0.0, doc="largest share of the side that a crop leaves out", low=0.0, high=0.9),
}

#: The largest number of times that one batch may contain each training image.
MAX_REPEATS_PER_BATCH = 10
#: Batches up to this size are always accepted: random draws of the batch size ignore the data set.
ACCEPTED_BATCH_SIZE = 1024

#: A label of images with several labels whose value is not known.
UNKNOWN = -1

#: Called with the number of units done and the total number of units.
Progress = Callable[[int, int], None]
#: Called with the name of a group of images, the number of images done, and their total number.
ImageProgress = Callable[[str, int, int], None]


def batch_size_problem(batch_size: int, images: int) -> str | None:
    """Return a message if a batch size is far too large for the number of training images.

    Args:
        batch_size: The number of images per batch.
        images: The number of training images.

    Returns:
        A complete sentence, or None if the batch size is acceptable.
    """
    if batch_size <= max(MAX_REPEATS_PER_BATCH * images, ACCEPTED_BATCH_SIZE):
        return None
    return (
        f"batch_size = {batch_size:,} contains each of the {images:,} training images "
        f"{batch_size // images} times, expected at most {MAX_REPEATS_PER_BATCH}; "
        "use a smaller batch_size."
    )


@dataclass(frozen=True)
class Split:
    """One split of a data set, held in memory or memory-mapped.

    Args:
        image: uint8[N,C,H,W].
        label: int64[N], or int64[N,K] of 0 and 1 if an image may have several of K labels, with
            UNKNOWN in train and val where the value is not known.
        confounder: int64[N].
        environment: int64[N].
        mask: bool[N,1,H,W], True for the foreground.
        pair_id: int64[N], equal in two splits for the same object with a different bias.
        cluster: int64[N], equal for images that belong together, such as those of one patient.
        accepted: bool[N,K], the classes that count as a correct prediction of each image, its label
            among them; None if only the label does. Test splits only.
        scored: bool[K], the classes among which the prediction is sought; None for all. Test splits
            only.
        class_masks: The evidence for each class, where it is known. Data with one label per image
            and masks need not give it: the foreground is the evidence for the class of its image.
        shortcut: bool[N,1,H,W], True where the confounder shows, such as the area of a tag. It is
            for the evaluation of test splits and is never part of a batch.

    Raises:
        ValueError: If an array has the wrong shape or type.
    """

    image: np.ndarray
    label: np.ndarray
    confounder: np.ndarray | None = None
    environment: np.ndarray | None = None
    mask: np.ndarray | None = None
    pair_id: np.ndarray | None = None
    cluster: np.ndarray | None = None
    accepted: np.ndarray | None = None
    scored: np.ndarray | None = None
    class_masks: ClassMasks | None = None
    shortcut: np.ndarray | None = None

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
        for name in ("mask", "shortcut"):
            value = getattr(self, name)
            if value is not None and (
                value.shape != (n, 1, height, width) or value.dtype != np.bool_
            ):
                raise ValueError(
                    f"{name} is {value.dtype}{list(value.shape)}, "
                    f"expected bool[{n},1,{height},{width}]"
                )
        if self.class_masks is not None:
            images, _, *size = self.class_masks.shape
            if (images, size) != (n, [height, width]):
                raise ValueError(
                    f"class_masks has the shape {list(self.class_masks.shape)}, "
                    f"expected [{n},K,{height},{width}]"
                )
        self._check_class_sets()

    def _check_class_sets(self) -> None:
        for name, dimensions in (("accepted", 2), ("scored", 1)):
            value = getattr(self, name)
            if value is not None and (
                value.ndim != dimensions or value.dtype != np.bool_ or self.label.ndim != 1
            ):
                raise ValueError(
                    f"{name} is {value.dtype}{list(value.shape)}, expected {dimensions} dimensions "
                    "of bool, for images with a single label"
                )
        if self.accepted is not None and (
            len(self.accepted) != len(self.label)
            or not self.accepted[np.arange(len(self.label)), self.label].all()
        ):
            raise ValueError("accepted does not contain the label of each image")
        if self.scored is not None and not self.scored[self.label].all():
            raise ValueError("scored does not contain the label of each image")

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class ImageConversion:
    """The conversion of image files to the images of a data set.

    Args:
        fit: How an image becomes square: ``"stretch"``, ``"crop"`` (the largest central square) or
            ``"pad"`` (with black).
        middle: Side of a central square that is cropped first, in pixels of the file; 0 for none.
        equalise: True if the histogram of grey values is equalised first.
        bits: Number of bits of a 16-bit grey value that are in use.
    """

    fit: str = "stretch"
    middle: int = 0
    equalise: bool = False
    bits: int = 16


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a data set, available before any image is read.

    Args:
        label_names: The classes, in the order of their numbers.
        confounder_names: The confounders, in the order of their numbers.
        environment_names: The training environments; empty if the data are not divided.
        image_size: (C, H, W).
        splits: ``train``, ``val`` and the test splits, in the order of tables.
        provides: The annotations that the data set has.
        mean: The mean of each channel for pixel values in [0, 1], used for normalisation.
        std: The standard deviation of each channel, likewise.
        source: The publication or origin of the data.
        licence: The terms of use.
        augmentation: Augmentations that preserve the label: names from AUGMENTATIONS with numbers,
            and names of transforms of ``torchvision.transforms.v2`` with their options.
        stand_in: True for generated stand-ins, which are never shown in a table with real data.
        bias_splits: (biased, deceiving), the splits whose difference in accuracy is the
            generalisation gap, or None.
        paired: True if these two splits show the same objects, with equal ``pair_id``.
        multi_label: True if an image may have several labels or none. Every label is then a binary
            task with groups of its own, so an image does not belong to a single group.
        unmasked_splits: Test splits without masks, although ``provides`` has masks.
        unlabelled_splits: Test splits whose labels are unknown or outside ``label_names``. They
            serve for measuring explanations, and tables have no accuracy of them.
        unannotated_masks: True if the masks of training and validation were made by a network
            instead of an annotator.
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
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    stand_in: bool = False
    bias_splits: tuple[str, str] | None = None
    paired: bool = False
    multi_label: bool = False
    unmasked_splits: tuple[str, ...] = ()
    unlabelled_splits: tuple[str, ...] = ()
    unannotated_masks: bool = False

    @property
    def annotations(self) -> Needs:
        """The annotations that methods can use: ``provides``, and what follows from it.

        If an image has one label, its foreground is the evidence for that class.
        """
        own = self.provides.masks and not self.multi_label
        return replace(self.provides, class_masks=self.provides.class_masks or own)

    @property
    def test_splits(self) -> tuple[str, ...]:
        return tuple(s for s in self.splits if s not in ("train", "val"))

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, in the order of ``label * num_confounders + confounder``.

        A group is written ``waterbird/land``. Multi-label data have two groups per label and
        confounder: ``no mass/scanner 2``, then ``mass/scanner 2``. If two groups would have the
        same name (labels ``mass`` and ``no mass``, or a name that contains a slash), all names are
        written out: ``'no mass': yes / 'scanner 2'``.
        """
        values = ("no", "yes") if self.multi_label else ("",)
        groups = list(itertools.product(self.label_names, values, self.confounder_names))
        short = tuple(
            f"{'no ' if value == 'no' else ''}{label}/{confounder}"
            for label, value, confounder in groups
        )
        if len(set(short)) == len(short):
            return short
        return _make_unique(
            f"{label!r}{f': {value}' if value else ''} / {confounder!r}"
            for label, value, confounder in groups
        )


def _make_unique(names: Iterable[str]) -> tuple[str, ...]:
    """Append `` (2)``, `` (3)``, ... to repeated names."""
    unique: dict[str, None] = {}
    for name in names:
        number = 1
        candidate = name
        while candidate in unique:
            number += 1
            candidate = f"{name} ({number})"
        unique[candidate] = None
    return tuple(unique)


@dataclass(frozen=True)
class GroupedDataset:
    """The data of one trial: arrays and their description.

    Args:
        name: The registry name of the data set.
        options: All options, including those at their defaults, see ``DatasetSource.identity``.
        info: The description.
        splits: The splits by name, in the order of ``info.splits``.
        fingerprint: The identity of the data, from ``DatasetSource.fingerprint``.
        conversion: The conversion of other image files, from ``DatasetSource.conversion``.
    """

    name: str
    options: Mapping[str, Any]
    info: DatasetInfo
    splits: Mapping[str, Split]
    fingerprint: str
    conversion: ImageConversion = ImageConversion()

    def group(self, split: str) -> np.ndarray | None:
        """Return the group of every image of a split.

        Returns:
            int64[N], or None if the confounder is unknown or the data are multi-label.
        """
        data = self.splits[split]
        if data.confounder is None or self.info.multi_label:
            return None
        return data.label * len(self.info.confounder_names) + data.confounder


class DatasetSource:
    """Base class of data sets.

    Subclasses are registered in ``DATASETS``. They must implement ``info`` and ``build``; all other
    methods have defaults.

    Class attributes:
        name: The registry name.
        title: Title in tables and figures, such as ``Digits on photographs``; by default the name.
            A subclass does not inherit it.
        description: One line for ``list datasets``; by default the title.
        option_titles: How options appear in the title, such as ``{percent} % bias`` for a share, or
            ``challenge {value}``. Other options appear only where two titles would be equal.
        group_title: How the title of a group is made of the names of label and confounder. It is
            not used for multi-label data.
        version: Increase it if the same options produce different arrays, so that old runs are not
            mistaken for new ones.
        options: The options, declared and checked like hyper-parameters.
        later_options: Names of options that were added after runs had been made. At their defaults
            they are no part of the keys of runs, so that the keys stay the same.
        designed: True if the groups of every split are part of the design. False for data that a
            user sorted: a group that is missing from a split is then reported as a problem.

    Attributes:
        masks_may_be_empty: True if masks mark the visible signs of a label, which some images lack.
            Otherwise a mask without foreground is reported as a problem.
        classes_may_be_missing: True if a split may lack classes by design. Otherwise a class
            without images is reported as a problem.

    Args:
        data_dir: The folder of downloaded data. Data sets without files ignore it.
        options: The options that differ from their defaults.

    Raises:
        UserError: If an option is unknown or has an invalid value.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    description: ClassVar[str] = ""
    option_titles: ClassVar[Mapping[str, str]] = {"bias": "{percent} % bias"}
    group_title: ClassVar[str] = "{label}, {confounder}"
    version: ClassVar[int] = 1
    options: ClassVar[Mapping[str, HParam]] = {}
    later_options: ClassVar[frozenset[str]] = frozenset()
    designed: ClassVar[bool] = True

    masks_may_be_empty: bool = False
    classes_may_be_missing: bool = False

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        self.data_dir = data_dir
        defaults = {name: option.default for name, option in self.options.items()}
        given = check_values(self.options, options, self.name, "option")
        self.chosen: dict[str, Any] = {**defaults, **given}

    @classmethod
    def title_of(cls, options: Mapping[str, str], title: str = "") -> str:
        """Return the title of the data with these options, such as ``CelebA, setting ex2l``.

        Args:
            options: The options that the sweep file gives, as text.
            title: Title without options, in place of that of the class.
        """
        return ", ".join([title or own_title(cls), *option_phrases(options, cls.option_titles)])

    @classmethod
    def group_titles(cls, info: DatasetInfo) -> dict[str, str]:
        """Return the title of each group by its name; none for multi-label data."""
        if info.multi_label:
            return {}
        pairs = itertools.product(info.label_names, info.confounder_names)
        titles = [
            cls.group_title.format(label=label, confounder=confounder).replace("_", " ")
            for label, confounder in pairs
        ]
        if len(set(titles)) < len(titles):
            return {}
        return dict(zip(info.group_names, titles, strict=True))

    def info(self) -> DatasetInfo:
        """Return the description of the data for the current options, without reading files."""
        raise NotImplementedError

    def conversion(self) -> ImageConversion:
        """Return how other image files are converted for a network trained on these data.

        The default stretches them to the square of ``info().image_size``.
        """
        return ImageConversion()

    def build(self, seed: int) -> dict[str, Split]:
        """Build the splits of one trial.

        Args:
            seed: The seed of all random choices. It depends on the data set and the trial, never on
                the algorithm.

        Returns:
            The splits by name, in the order of ``info().splits``.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Check that the files are present and plausible. Must be fast: it runs before every run.

        Raises:
            UserError: If files are missing or damaged.
        """

    def content(self) -> str:
        """Return a digest of the files, independent of the options; empty for data without files.

        It must be as fast as ``check``.
        """
        return ""

    def train_size(self) -> int | None:
        """Return the number of training images, or None if it is unknown before ``build``."""
        return None

    def decoded(self) -> bool:
        """Return True if ``load`` is fast because all images are decoded already.

        The default is True: a data set without image files has nothing to decode.
        """
        return True

    def prepare(self, progress: ImageProgress | None = None) -> bool:
        """Do the slow work that can be done once, such as decoding images into a cache.

        Called by ``benchmark.data prepare``. The default only checks the files.

        Args:
            progress: Called as the work proceeds.

        Returns:
            True if this data set has such work, even if it was done before.

        Raises:
            UserError: If files are missing or damaged.
        """
        self.check()
        return False

    def download(self) -> None:
        """Download missing files. Called only if the user asks for it with ``--download``.

        The default does nothing: most data sets cannot be downloaded unattended.

        Raises:
            UserError: If the download fails.
        """

    def unpack(self, archive: Path, progress: Progress | None = None) -> int:
        """Unpack an archive into the data folder. Called for ``--archive``.

        Args:
            archive: A .zip or .tar file.
            progress: Called with the number of bytes unpacked and the total number of bytes.

        Returns:
            The number of files.

        Raises:
            UserError: If the archive cannot be unpacked, or, by default, because the data set is
                not made from archives.
        """
        raise UserError(f"{self.name} does not use archives; leave out --archive.")

    def problems(self) -> list[str]:
        """Return problems that the arrays do not show, one sentence each.

        ``benchmark.data check`` prints them and fails.
        """
        return []

    def notes(self) -> list[str]:
        """Return remarks that are not problems, such as files left out, one sentence each."""
        return []

    def warnings(self) -> list[str]:
        """Return what makes results hard to interpret, one sentence each.

        They are printed when runs on the data are planned. Called only if the data are complete.
        """
        return []

    def file_of(self, name: str, split: Split, row: int) -> str:
        """Return a readable reference to an image: its file if that is known, else its row."""
        return f"row {row} of {name}"

    def seed_name(self) -> str:
        """Return the name from which the seed of a trial is derived."""
        return self.name

    def identity(self) -> dict[str, Any]:
        """Return the options that identify the data and the runs on them.

        These are all of them, without ``later_options`` at their defaults.
        """
        return {
            name: value
            for name, value in self.chosen.items()
            if name not in self.later_options or value != self.options[name].default
        }

    def fingerprint(self) -> str:
        """Return the identity of the data as 16 hexadecimal digits.

        It covers the name, the version, the options and ``content``.
        """
        options = sorted(self.identity().items())
        return f"{seed_for('data', self.name, self.version, options, self.content()):016x}"

    def load(self, trial: int) -> GroupedDataset:
        """Build the data of one trial and check them against ``info``.

        Raises:
            UserError: If files are missing or damaged, or a split is empty with these options.
            ValueError: If ``build`` returns other splits, shapes or annotations than ``info``
                declares, which is a programming error.
        """
        self.check()
        info = self.info()
        splits = self.build(seed_for("data", self.seed_name(), trial))
        if tuple(splits) != info.splits:
            raise ValueError(
                f"{self.name}: build returned splits {tuple(splits)}, expected {info.splits}"
            )
        for name, split in splits.items():
            self._check_shapes(info, name, split)
            self._check_ranges(info, name, split)
            self._check_annotations(info, name, split)
        splits = {
            name: split if name in info.unlabelled_splits else _with_class_masks(info, split)
            for name, split in splits.items()
        }
        return GroupedDataset(
            self.name,
            self.identity(),
            info,
            splits,
            self.fingerprint(),
            self.conversion(),
        )

    def _check_shapes(self, info: DatasetInfo, name: str, split: Split) -> None:
        if len(split) == 0:
            raise UserError(
                f"{self.name}: split {name} has no images with these options ({self.chosen})."
            )
        if split.image.shape[1:] != info.image_size:
            raise ValueError(
                f"{self.name}: images of {name} are {split.image.shape[1:]}, "
                f"expected {info.image_size}"
            )
        for array in ("accepted", "scored"):
            value = getattr(split, array)
            if value is not None and (
                value.shape[-1] != len(info.label_names) or name not in info.test_splits
            ):
                raise ValueError(
                    f"{self.name}: {array} of {name} is {list(value.shape)}, expected a test split "
                    f"and {len(info.label_names)} classes"
                )
        masks = split.class_masks
        if masks is not None and masks.shape[1] != len(info.label_names):
            raise ValueError(
                f"{self.name}: class_masks of {name} has {masks.shape[1]} classes, expected "
                f"{len(info.label_names)}"
            )
        expected = (len(info.label_names),) if info.multi_label else ()
        if split.label.shape[1:] != expected:
            raise ValueError(
                f"{self.name}: labels of {name} have shape {split.label.shape}, "
                f"expected {(len(split), *expected)}"
            )

    def _check_ranges(self, info: DatasetInfo, name: str, split: Split) -> None:
        labels = ("no", "yes") if info.multi_label else info.label_names
        bounded = [("label", labels), ("confounder", info.confounder_names)]
        # A test split may be an environment of its own.
        if name == "train" and info.environment_names:
            bounded.append(("environment", info.environment_names))
        may_be_unknown = info.multi_label and name in ("train", "val")
        for array, names in bounded:
            value = getattr(split, array)
            lowest = UNKNOWN if array == "label" and may_be_unknown else 0
            if value is not None and (value.min() < lowest or value.max() >= len(names)):
                raise ValueError(f"{self.name}: {array} of {name} is outside 0 … {len(names) - 1}")

    def _check_annotations(self, info: DatasetInfo, name: str, split: Split) -> None:
        promised = {
            "confounder": info.provides.confounder or info.provides.groups,
            "mask": info.provides.masks and name not in info.unmasked_splits,
            "class_masks": info.provides.class_masks and name not in info.unmasked_splits,
        }
        if name == "train":
            promised["environment"] = info.provides.environments
        if name == "val":
            promised["confounder"] |= info.provides.val_groups
            promised["mask"] |= info.provides.val_masks
        if info.paired and name in (info.bias_splits or ()):
            promised["pair_id"] = True
        if name in ("train", "val") and split.shortcut is not None:
            raise ValueError(f"{self.name}: split {name} has shortcut, which is for tests only")
        for array, required in promised.items():
            if required and getattr(split, array) is None:
                raise ValueError(f"{self.name}: info promises {array}, but split {name} has none")


def _with_class_masks(info: DatasetInfo, split: Split) -> Split:
    """Return a split whose foreground is also the evidence for the class, if it has one label."""
    if split.mask is None or split.class_masks is not None or info.multi_label:
        return split
    own = OwnClassMasks(split.mask, split.label, len(info.label_names))
    return replace(split, class_masks=own)
