"""What the two ways to bring one's own pictures share: a folder of their own, masks, splits and environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmark.core.dataset import Split
from benchmark.core.errors import UserError
from datasets._io.image_source import ImageSource

MASKS = "masks"


class OwnPictures(ImageSource):
    """Pictures in the folder that the option ``path`` names; ``read`` sets the arrays below, a row per picture.

    Attributes:
        part: int64[N], number of the picture's split. label: int64[N] or int64[N,K].
        confounder, environment, patient: int64[N], or None where they are not known.
    """

    splits: tuple[str, ...]
    part: np.ndarray
    label: np.ndarray
    confounder: np.ndarray | None
    environments: tuple[str, ...]
    environment: np.ndarray | None
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

    def told(self, rows: Sequence[Mapping[str, str]], name: str, table: Path) -> list[str] | None:
        """What a column of the table says of every picture, or None where it has no such column.

        Raises:
            UserError: it says nothing of some.
        """
        if not rows or name not in rows[0]:
            return None
        empty = [row["file"] for row in rows if not (row[name] or "").strip()]
        if empty:
            raise UserError(
                f"{table} has no {name} for {len(empty)} of {len(rows)} pictures, the first is {empty[0]}; fill it in "
                "for all, or take the column away."
            )
        return [row[name] for row in rows]

    def masks_of(self, files: Sequence[str]) -> list[str]:
        """The mask of every picture below the data folder, or empty names where there are none.

        Raises:
            UserError: some pictures have a mask and others do not.
        """
        folder = self.root() / MASKS
        if not folder.is_dir():
            return [""] * len(files)
        masks = [Path(file).with_suffix(".png").as_posix() for file in files]
        missing = [mask for mask in masks if not (folder / mask).is_file()]
        if missing:
            raise UserError(
                f"{folder} lacks the masks of {len(missing)} of {len(files)} pictures, the first is {missing[0]}; "
                "add them, or take the folder away."
            )
        return [f"{self.chosen['path']}/{MASKS}/{mask}" for mask in masks]

    def root(self) -> Path:
        return self.folder() / self.find(
            self.chosen["path"], how="make it, or give its name with path=…"
        )
