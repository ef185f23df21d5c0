"""Base class of data sets of users' own images: folder, masks, splits and environments."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from datasets._io.image_source import ImageSource
from datasets._io.image_tree import read_image_tree
from datasets._io.names import MISSING_VALUES, check_name, check_spelling, encode, similar_names
from datasets._io.table import Row

MASKS = "masks"
FITS = ("stretch", "crop", "pad")


def bits_option() -> HParam:
    """Return the option ``bits``."""
    return HParam(
        16,
        doc="bits in use of a 16-bit grey value: 12 for many X-rays; DICOM files declare it",
        low=8,
        high=16,
    )


class About(NamedTuple):
    """The source and the licence of a user's images."""

    source: str = "yours"
    licence: str = "yours"


@dataclass(frozen=True)
class Annotation:
    """A named value of every image, such as its patient.

    Args:
        names: The distinct names, sorted.
        numbers: The number of each image's name, int64[N].
    """

    names: tuple[str, ...]
    numbers: np.ndarray

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Annotation:
        """Number the names of all images."""
        return cls(tuple(sorted(set(names))), encode(names))


class UserImages(ImageSource):
    """Images in the folder that the option ``path`` names. ``read`` sets the attributes below.

    Attributes:
        splits: train, val and the tests.
        split_number: int64[N], the number of each image's split.
        labels: The names of the labels.
        label: int64[N], or int64[N,K] of 0 and 1 for multi-label data.
        confounder: The confounder, or None if it is unknown.
        environment: The environments that train contains, or None if they are unknown.
        patient: The patient, or None if it is unknown.
        about: The source and the licence.
    """

    designed: ClassVar[bool] = False
    multi_label: ClassVar[bool] = False

    splits: tuple[str, ...]
    split_number: np.ndarray
    labels: tuple[str, ...]
    label: np.ndarray
    confounder: Annotation | None
    environment: Annotation | None
    patient: Annotation | None
    about: About = About()

    def info(self) -> DatasetInfo:
        if self.data_dir is None or not (Path(self.data_dir) / self.chosen["path"]).is_dir():
            # No images yet: everything that they may provide.
            return self._info(
                labels=(),
                confounders=(),
                environments=(),
                splits=("train", "val", "test"),
                provides=self._provides(masks=True, confounder=True, environments=True),
            )
        masks = next(iter(self.pools().values())).masked
        environments = self.environment.names if self.environment is not None else ()
        divided = len(environments) > 1
        return self._info(
            labels=self.labels,
            confounders=self.confounder.names if self.confounder is not None else (),
            environments=environments if divided else (),
            splits=self.splits,
            provides=self._provides(
                masks=masks, confounder=self.confounder is not None, environments=divided
            ),
        )

    def train_size(self) -> int:
        self.pools()
        return int((self.split_number == 0).sum())

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        environments = self.environment
        if environments is not None and len(environments.names) < 2:
            environments = None
        splits = {}
        for number, name in enumerate(self.splits):
            rows = np.flatnonzero(self.split_number == number)
            environment = None
            if environments is not None and name in ("train", "val"):
                environment = environments.numbers[rows]
            splits[name] = self.split(
                self.name,
                rows,
                self.label[rows],
                confounder=None if self.confounder is None else self.confounder.numbers[rows],
                environment=environment,
                cluster=None if self.patient is None else self.patient.numbers[rows],
            )
        return splits

    def problems(self) -> list[str]:
        self.pools()
        sentences = []
        for kind, annotation in self._annotations():
            counts = Counter(annotation.numbers.tolist())
            for number, name in enumerate(annotation.names):
                if name.casefold() in MISSING_VALUES:
                    count = f"{counts[number]:,} image{'s' * (counts[number] != 1)}"
                    sentences.append(
                        f"the {kind} {shown(name)} of {count} usually stands for a missing value; "
                        "fill it in, or choose another name."
                    )
            pairs = similar_names(annotation.names)
            if pairs:
                first, second = pairs[0]
                more = f" ({len(pairs) - 1} more pairs do, too)" if len(pairs) > 1 else ""
                sentences.append(
                    f"the {kind}s {shown(first)} and {shown(second)} differ in spelling only and "
                    f"are counted as two{more}; use one of them."
                )
        return [*sentences, *super().problems()]

    def notes(self) -> list[str]:
        return [*self._unused_masks(), *super().notes()]

    def set_environment(self, names: Sequence[str] | None, table: Path) -> None:
        """Set ``environment`` from a column of the table.

        Args:
            names: The environment of every image, or None if it is unknown.
            table: The table, for messages.

        Raises:
            UserError: If val has an environment that train lacks.
        """
        self.environment = None
        if names is None:
            return
        in_train = {n for n, part in zip(names, self.split_number, strict=True) if part == 0}
        in_val = {n for n, part in zip(names, self.split_number, strict=True) if part == 1}
        if only_in_val := in_val - in_train:
            raise UserError(
                f"{table} has the environment {min(only_in_val)!r} in val, but not in train."
            )
        environments = tuple(sorted(in_train))
        index = {name: i for i, name in enumerate(environments)}
        # Tests may have other environments; their numbers are not used.
        numbers = np.array([index.get(name, 0) for name in names])
        self.environment = Annotation(environments, numbers)

    def column_values(self, rows: Sequence[Row], name: str, table: Path) -> list[str] | None:
        """Return the values of an optional column, or None if the table does not have it.

        Raises:
            UserError: If a value is empty or contains control characters.
        """
        if not rows or name not in rows[0].cells:
            return None
        empty = [row["file"] for row in rows if not row[name]]
        if empty:
            raise UserError(
                f"{table} has no {name} for {len(empty)} of {len(rows)} images, the first is "
                f"{empty[0]}; fill it in for all, or remove the column."
            )
        for text in {row[name] for row in rows}:
            check_name(text, f"{table}: the {name}")
        return [row[name] for row in rows]

    def mask_files(self, files: Sequence[str]) -> list[str]:
        """Return the mask of every image, or empty names if there are none.

        Args:
            files: The images, as paths below ``root()``.

        Returns:
            Paths below the data folder.

        Raises:
            UserError: If only some images have a mask, or two images would share one.
        """
        folder = self.root() / MASKS
        if not self.has_folder(MASKS):
            return [""] * len(files)
        masks = [f"{posixpath.splitext(posixpath.normpath(file))[0]}.png" for file in files]
        image_of: dict[str, str] = {}
        for file, mask in zip(files, masks, strict=True):
            if mask.startswith("../"):
                raise UserError(
                    f"{file} lies outside {self.root()}, so it can have no mask in {folder}; move "
                    "it there, or remove the folder of masks."
                )
            other = image_of.setdefault(mask, file)
            if posixpath.normpath(other) != posixpath.normpath(file):
                raise UserError(
                    f"{folder / mask} would be the mask of two images, {other} and {file}; give "
                    "them different names."
                )
        missing = [mask for mask in masks if not (folder / mask).is_file()]
        if missing:
            raise UserError(
                f"{folder} lacks the masks of {len(missing)} of {len(files)} images, the first is "
                f"{missing[0]}; add them, or remove the folder."
            )
        return [f"{self.chosen['path']}/{MASKS}/{mask}" for mask in masks]

    def root(self) -> Path:
        """Return the folder of the images.

        Raises:
            UserError: If it does not exist.
        """
        path = self.find(self.chosen["path"], how="create it, or give its name with path=…")
        return self.folder() / path

    def has_file(self, name: str) -> bool:
        """Return True if a file exists in the folder of the images.

        Raises:
            UserError: If it is a folder or a broken link, which would be ignored.
        """
        path = self.root() / name
        if os.path.lexists(path) and not path.is_file():
            raise UserError(f"{path} is not a file, or a broken link; restore it or remove it.")
        return path.is_file()

    def has_folder(self, name: str) -> bool:
        """Return True if a folder exists in the folder of the images.

        Raises:
            UserError: If it is a file or a broken link, which would be ignored.
        """
        path = self.root() / name
        if os.path.lexists(path) and not path.is_dir():
            raise UserError(f"{path} is not a folder, or a broken link; restore it or remove it.")
        return path.is_dir()

    def check_entries(self, *known: str) -> None:
        """Check that no file or folder beside the images has a misspelled special name.

        Args:
            *known: The names with a special meaning.

        Raises:
            UserError: If there is one, such as ``Metadata.csv``, which would be ignored.
        """
        root = self.root()
        try:
            names = sorted(path.name for path in root.iterdir())
        except OSError as error:
            raise UserError(
                f"the folder {root} cannot be listed ({error.strerror}); make it readable."
            ) from None
        check_spelling(names, known, str(root), "entry")

    def _info(
        self,
        *,
        labels: tuple[str, ...],
        confounders: tuple[str, ...],
        environments: tuple[str, ...],
        splits: tuple[str, ...],
        provides: Needs,
    ) -> DatasetInfo:
        side = self.chosen["side"]
        channels = self.chosen["channels"]
        has_bias_splits = {"biased", "deceiving"} <= set(splits)
        return DatasetInfo(
            label_names=labels,
            confounder_names=confounders,
            environment_names=environments,
            image_size=(channels, side, side),
            splits=splits,
            provides=provides,
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
            source=self.about.source,
            licence=self.about.licence,
            bias_splits=("biased", "deceiving") if has_bias_splits else None,
            multi_label=self.multi_label,
        )

    def _provides(self, *, masks: bool, confounder: bool, environments: bool) -> Needs:
        return Needs(
            masks=masks,
            confounder=confounder,
            groups=confounder and not self.multi_label,
            environments=environments,
            val_groups=confounder,
            val_masks=masks,
        )

    def _annotations(self) -> Iterable[tuple[str, Annotation]]:
        """Yield everything that users name, with its kind."""
        label = self.label if self.label.ndim == 1 else np.nonzero(self.label == 1)[1]
        yield "label", Annotation(self.labels, label)
        optional = {
            "confounder": self.confounder,
            "environment": self.environment,
            "patient": self.patient,
        }
        for kind, annotation in optional.items():
            if annotation is not None:
                yield kind, annotation

    def _unused_masks(self) -> list[str]:
        """Return a sentence about masks that belong to no image."""
        if not self.has_folder(MASKS):
            return []
        used = {item.mask for pool in self.pools().values() for item in pool.items}
        tree = read_image_tree(self.root() / MASKS)
        others = [name for names in tree.left_out.values() for name in names]
        prefix = f"{self.chosen['path']}/{MASKS}/"
        unused = [name for name in [*tree.images, *others] if f"{prefix}{name}" not in used]
        if not unused:
            return []
        files = f"{len(unused):,} file{'s' * (len(unused) != 1)}"
        return [
            f"left out: {files} in {MASKS}/ without an image of that name, the first is "
            f"{min(unused)}."
        ]
