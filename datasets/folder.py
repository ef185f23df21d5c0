"""Your own pictures: a tree of folders, ``split/label/confounder/*.png``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_source import OWN, Item, Pool, numbered, read_table, side_option
from datasets._io.user_images import MASKS, OwnPictures

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm")
TABLE, ABOUT = "metadata.csv", "SOURCE.txt"
FITS = ("stretch", "crop", "pad")


@DATASETS.register
class Folder(OwnPictures):
    """Any pictures, sorted into folders; the folders' names are the splits, the classes and the confounders.

    Source, licence: yours; the first two lines of a file ``SOURCE.txt`` in the tree are shown in reports.

    Layout, in the data folder, under the name that ``path`` gives: ``split/label/confounder/*.png`` (or .jpg, .tif,
    .dcm …), where train and val must be there and every other split is a test; or ``split/label/*.png`` where
    confounders are unknown. Masks of all pictures or of none: ``masks/split/label/confounder/<same name>.png``, white
    for foreground. ``metadata.csv`` may say more: file (such as train/cat/sofa/1.png), and environment or patient or
    both. A generalisation gap is reported where tests are called ``biased`` and ``deceiving``. The guide with an
    example is docs/data.md.
    """

    name = "folder"
    title = "your own pictures in folders: split/label/confounder, masks if there are any"
    options: ClassVar[Mapping[str, HParam]] = {
        "path": HParam("my_data", doc="the tree's folder, below the data folder", form=r"[^/\\].*"),
        "side": side_option(64),
        "fit": HParam(
            "stretch",
            doc="to the square: stretch, crop the middle, or pad with black",
            choices=FITS,
        ),
        "channels": HParam(3, doc="1: grey; 3: colour", choices=(1, 3)),
        "equalise": HParam(False, doc="equalise the histogram of each picture; for channels=1"),
    }

    def info(self) -> DatasetInfo:
        side, channels = self.chosen["side"], self.chosen["channels"]
        info = DatasetInfo(
            label_names=(), confounder_names=(), environment_names=(), image_size=(channels, side, side),
            splits=("train", "val", "test"),
            provides=Needs(
                masks=True, confounder=True, groups=True, environments=True, val_groups=True, val_masks=True
            ),
            mean=(0.5,) * channels, std=(0.25,) * channels, source="yours", licence="yours",
        )  # fmt: skip
        if self.data_dir is None or not (Path(self.data_dir) / self.chosen["path"]).is_dir():
            return info  # what a tree may have
        masks = next(iter(self.pools().values())).masked
        known, divided = self.confounder is not None, len(self.environments) > 1
        paired = {"biased", "deceiving"} <= set(self.splits)
        source, licence = self._about()
        return replace(
            info,
            label_names=self.labels,
            confounder_names=self.confounders,
            environment_names=self.environments if divided else (),
            splits=self.splits,
            provides=Needs(
                masks=masks,
                confounder=known,
                groups=known,
                environments=divided,
                val_groups=known,
                val_masks=masks,
            ),
            source=source,
            licence=licence,
            bias_splits=("biased", "deceiving") if paired else None,
        )

    def metadata(self) -> list[Path]:
        return [path for name in (TABLE, ABOUT) if (path := self.root() / name).is_file()]

    def read(self) -> dict[str, Pool]:
        if self.chosen["equalise"] and self.chosen["channels"] != 1:
            raise UserError(f"{self.name}: equalise=true is for grey pictures; add channels=1.")
        root = self.root()
        files = [_Found(path, root) for path in sorted(root.rglob("*")) if _is_picture(path, root)]
        if not files:
            raise UserError(
                f"{root} holds no pictures; expected train/<label>/<confounder>/*.png and others in it."
            )
        depths = Counter(len(found.parts) for found in files)
        if not depths.keys() <= {3, 4} or len(depths) > 1:
            usual = max({3, 4}, key=lambda depth: depths[depth])
            odd = next(found for found in files if len(found.parts) != usual)
            raise UserError(
                f"{odd.path} is {len(odd.parts) - 1} folders deep in {root}; all pictures must be in "
                "split/label/confounder/, or all in split/label/."
            )
        present = {found.parts[0] for found in files}
        tests = sorted(present - {"train", "val"}, key=lambda name: (_ORDER.get(name, 9), name))
        for name in ("train", "val"):
            if name not in present:
                raise UserError(
                    f"{root} has no pictures in {name}/; expected train, val and at least one test."
                )
        if not tests:
            raise UserError(
                f"{root} has train and val and no test; put pictures in test/, or biased/ and deceiving/."
            )
        self.splits = ("train", "val", *tests)
        files.sort(key=lambda found: (self.splits.index(found.parts[0]), found.name))
        self._annotate(files)
        masks = self.masks_of([found.name for found in files])
        items = [
            Item(f"{self.chosen['path']}/{f.name}", mask)
            for f, mask in zip(files, masks, strict=True)
        ]
        recipe = Recipe(
            self.chosen["side"],
            self.chosen["channels"],
            fit=self.chosen["fit"],
            equalise=self.chosen["equalise"],
        )
        return {self.name: Pool(items, recipe)}

    def _annotate(self, files: list[_Found]) -> None:
        """What the folders' names and the table say of every picture."""
        root = self.root()
        self.part = np.array([self.splits.index(found.parts[0]) for found in files])
        self.labels = tuple(sorted({found.parts[1] for found in files}))
        self.label = np.array([self.labels.index(found.parts[1]) for found in files])
        if len(self.labels) < 2:
            raise UserError(
                f"{root} has one class only, {self.labels[0]}; expected two folders or more in each split."
            )
        absent = set(range(len(self.labels))) - set(self.label[self.part == 0].tolist())
        if absent:
            name = self.labels[min(absent)]
            raise UserError(
                f"{root} has the class {name} in a test or in val, but not in train/; add it there."
            )
        known = len(files[0].parts) == 4
        self.confounders = tuple(sorted({found.parts[2] for found in files})) if known else ()
        self.confounder = (
            np.array([self.confounders.index(found.parts[2]) for found in files]) if known else None
        )
        rows = self._rows(files)
        self.divide(self.told(rows, "environment", root / TABLE), root / TABLE)
        patients = self.told(rows, "patient", root / TABLE)
        self.patient = None if patients is None else numbered(patients)

    def _rows(self, files: list[_Found]) -> list[dict[str, str]]:
        """The table's row of every picture, or nothing where there is no table."""
        path = self.root() / TABLE
        if not path.is_file():
            return []
        table = read_table(path, ("file",), how=OWN)
        if not {"environment", "patient"} & set(table[0]):
            has = ", ".join(map(repr, table[0]))
            raise UserError(
                f"{path} has neither 'environment' nor 'patient', its columns are {has}; add one of them."
            )
        by_name = {row["file"]: row for row in table}
        for name, times in Counter(row["file"] for row in table).items():
            if times > 1:
                raise UserError(f"{path} names {name} {times} times; expected each picture once.")
        unnamed = [found.name for found in files if found.name not in by_name]
        if unnamed:
            raise UserError(
                f"{path} does not name {len(unnamed)} of {len(files)} pictures, the first is {unnamed[0]}; add them, "
                "or take the table away."
            )
        absent = by_name.keys() - {found.name for found in files}
        if absent:
            raise UserError(
                f"{path} names {len(absent)} of {len(table)} pictures that are not there, the first is {min(absent)}; "
                "add them, or take their rows away."
            )
        return [by_name[found.name] for found in files]

    def _about(self) -> tuple[str, str]:
        path = self.root() / ABOUT
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return lines[0] if lines else "yours", lines[1] if len(lines) > 1 else "yours"


#: The order of tests in tables; others follow by name.
_ORDER = {"biased": 0, "unbiased": 1, "deceiving": 2, "test": 3}


class _Found:
    """A picture of the tree: its name with /, and the parts of it."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.parts = path, path.relative_to(root).parts
        self.name = "/".join(self.parts)


def _is_picture(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    hidden = any(part.startswith(".") for part in parts)
    return path.suffix.lower() in ENDINGS and parts[0] != MASKS and not hidden and path.is_file()
