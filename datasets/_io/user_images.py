"""What the two ways to bring one's own pictures share: a folder of their own, masks, splits and environments."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import Split
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import HParam
from datasets._io.image_source import ImageSource
from datasets._io.names import MISSING, check_name, check_spelling, encode, twins
from datasets._io.picture_tree import read_tree
from datasets._io.table import Row

MASKS = "masks"


def bits_option() -> HParam:
    """The option ``bits``."""
    return HParam(
        16,
        doc="how many bits of a 16-bit grey value are in use: 12 for many X-rays; DICOM files say it themselves",
        low=8,
        high=16,
    )


class OwnPictures(ImageSource):
    """Pictures in the folder that the option ``path`` names; ``read`` sets the arrays below, a row per picture.

    Attributes:
        splits: train, val and the tests.
        part: int64[N], number of the picture's split.
        labels, label: the names, and int64[N] or int64[N,K].
        confounders, confounder: the names, and int64[N], or None where they are not known.
        environments, environment: those of train, and int64[N], or None where they are not known.
        patients, patient: likewise.
    """

    designed: ClassVar[bool] = False

    splits: tuple[str, ...]
    part: np.ndarray
    labels: tuple[str, ...]
    label: np.ndarray
    confounders: tuple[str, ...]
    confounder: np.ndarray | None
    environments: tuple[str, ...]
    environment: np.ndarray | None
    patients: tuple[str, ...]
    patient: np.ndarray | None

    def train_size(self) -> int:
        self.pools()
        return int((self.part == 0).sum())

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        out = {}
        for number, name in enumerate(self.splits):
            rows = np.flatnonzero(self.part == number)
            confounder, environment, patient = (
                None if array is None else array[rows]
                for array in (self.confounder, self.environment, self.patient)
            )
            if len(self.environments) < 2 or name not in ("train", "val"):
                environment = None
            out[name] = self.split(
                self.name, rows, self.label[rows], confounder, environment, patient
            )
        return out

    def divide(self, names: Sequence[str] | None, table: Path) -> None:
        """Set the environments: those that pictures of train are in; None where the table does not say.

        Raises:
            UserError: val has one that train lacks.
        """
        self.environments, self.environment = (), None
        if names is None:
            return
        inside = [
            {n for n, p in zip(names, self.part, strict=True) if p == number} for number in (0, 1)
        ]
        self.environments = tuple(sorted(inside[0]))
        if odd := inside[1] - inside[0]:
            raise UserError(f"{table} has the environment {min(odd)!r} in val, but not in train.")
        index = {name: i for i, name in enumerate(self.environments)}
        self.environment = np.array([index.get(name, 0) for name in names])

    def told(self, rows: Sequence[Row], name: str, table: Path) -> list[str] | None:
        """What a column of the table says of every picture, or None where it has no such column.

        Raises:
            UserError: it says nothing of some, or something with control characters.
        """
        if not rows or name not in rows[0].cells:
            return None
        empty = [row["file"] for row in rows if not row[name]]
        if empty:
            raise UserError(
                f"{table} has no {name} for {len(empty)} of {len(rows)} pictures, the first is {empty[0]}; fill it in "
                "for all, or take the column away."
            )
        for text in {row[name] for row in rows}:
            check_name(text, f"{table}: the {name}")
        return [row[name] for row in rows]

    def masks_of(self, files: Sequence[str]) -> list[str]:
        """The mask of every picture below the data folder, or empty names where there are none.

        Raises:
            UserError: some pictures have a mask and others do not, or two pictures would share one.
        """
        folder = self.root() / MASKS
        if not self.has(MASKS, folder=True):
            return [""] * len(files)
        masks = [f"{posixpath.splitext(posixpath.normpath(file))[0]}.png" for file in files]
        belongs: dict[str, str] = {}
        for file, mask in zip(files, masks, strict=True):
            if mask.startswith("../"):
                raise UserError(
                    f"{file} lies outside of {self.root()}, where it can have no mask in {folder}; move it there, or "
                    "take the folder of masks away."
                )
            other = belongs.setdefault(mask, file)
            if posixpath.normpath(other) != posixpath.normpath(file):
                raise UserError(
                    f"{folder / mask} would be the mask of two pictures, {other} and {file}; give them different "
                    "names."
                )
        missing = [mask for mask in masks if not (folder / mask).is_file()]
        if missing:
            raise UserError(
                f"{folder} lacks the masks of {len(missing)} of {len(files)} pictures, the first is {missing[0]}; "
                "add them, or take the folder away."
            )
        return [f"{self.chosen['path']}/{MASKS}/{mask}" for mask in masks]

    def problems(self) -> list[str]:
        self.pools()
        found = []
        for what, names, numbers in self._named():
            counts = Counter(numbers.tolist())
            found += [
                f"the {what} {shown(name)} of {counts[i]:,} picture{'s' * (counts[i] != 1)} usually stands for a "
                "missing value; fill it in, or choose another name."
                for i, name in enumerate(names)
                if name.casefold() in MISSING
            ]
            pairs = twins(names)
            if pairs:
                more = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
                found.append(
                    f"the {what}s {shown(pairs[0][0])} and {shown(pairs[0][1])} differ in spelling only, and are "
                    f"counted as two{more}; use one of them."
                )
        return [*found, *super().problems()]

    def notes(self) -> list[str]:
        return [*self._orphans(), *super().notes()]

    def _named(self) -> Iterable[tuple[str, Sequence[str], np.ndarray]]:
        """Kind, names, and the number of each picture's name, of everything that users name."""
        if self.label.ndim == 1:
            yield "label", self.labels, self.label
        else:
            yield "label", self.labels, np.nonzero(self.label)[1]
        if self.confounder is not None:
            yield "confounder", self.confounders, self.confounder
        if self.environment is not None:
            yield "environment", self.environments, self.environment
        if self.patient is not None:
            yield "patient", self.patients, self.patient

    def _orphans(self) -> list[str]:
        """A sentence about masks that belong to no picture."""
        if not self.has(MASKS, folder=True):
            return []
        folder = self.root() / MASKS
        wanted = {item.mask for pool in self.pools().values() for item in pool.items}
        tree = read_tree(folder)
        others = [name for names in tree.left_out.values() for name in names]
        prefix = f"{self.chosen['path']}/{MASKS}/"
        orphans = [name for name in [*tree.pictures, *others] if f"{prefix}{name}" not in wanted]
        if not orphans:
            return []
        files = f"{len(orphans):,} file{'s' * (len(orphans) != 1)}"
        return [
            f"left out: {files} in {MASKS}/ without a picture of that name, the first is {min(orphans)}."
        ]

    def root(self) -> Path:
        """The folder of the pictures.

        Raises:
            UserError: it is not there.
        """
        return self.folder() / self.find(
            self.chosen["path"], how="make it, or give its name with path=…"
        )

    def has(self, name: str, folder: bool = False) -> bool:
        """Whether a file or folder of ours is beside the pictures.

        Args:
            name: its name.
            folder: it is to be a folder.

        Raises:
            UserError: it is there and is of another kind, or a link to nowhere, so that it would be ignored.
        """
        path = self.root() / name
        if not os.path.lexists(path):
            return False
        if not (path.is_dir() if folder else path.is_file()):
            raise UserError(
                f"{path} is not a {'folder' if folder else 'file'}, or a link to nowhere; restore it, or take it away."
            )
        return True

    def check_entries(self, *known: str) -> None:
        """Refuse files and folders beside the pictures that are spelled nearly as ours, since they would be ignored.

        Args:
            known: names of ours.

        Raises:
            UserError: there is one, such as ``Metadata.csv``.
        """
        root = self.root()
        try:
            found = sorted(path.name for path in root.iterdir())
        except OSError as error:
            raise UserError(
                f"the folder {root} cannot be listed ({error.strerror}); make it readable."
            ) from None
        check_spelling(found, known, str(root), "entry")


def coded(names: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray | None]:
    """The different names, sorted, and every picture's number among them, int64[N]; nothing of what is not known."""
    return ((), None) if names is None else (tuple(sorted(set(names))), encode(names))
