"""Another data set whose masks come from a network instead of an annotator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from benchmark.core.dataset import (
    DatasetInfo,
    DatasetSource,
    ImageConversion,
    ImageProgress,
    Split,
)
from benchmark.core.errors import UserError
from benchmark.core.files import sha256_of
from benchmark.core.hparam import HParam
from benchmark.core.mask_file import read_mask_file
from benchmark.core.registry import DATASETS
from datasets._sources.underlying import OPTIONS, make_underlying, underlying_title

#: Splits whose masks are replaced. The tests keep their annotated masks, for measurements.
REPLACED = ("train", "val")


@DATASETS.register
class Masked(DatasetSource):
    """Another data set with masks of the file that ``benchmark.data masks`` wrote.

    Source, licence, layout and counts are those of the underlying data set. Masks of ``train`` and
    ``val`` are replaced, or added if there are none. Tests keep the masks that they have. Tables
    say that a method that needs masks used no annotation.
    """

    name = "masked"
    title = "Masked data"
    description = (
        "any data set with masks without annotation, as `data masks` writes them (TokenCut)"
    )
    options: ClassVar[Mapping[str, HParam]] = {
        **OPTIONS,
        "masks": HParam(
            "masks/tokencut.npz", doc="the file of masks, below the data folder", form=r"[^/\\].*"
        ),
    }
    masks_may_be_empty = True

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self.base = make_underlying(self, self.chosen["on"], self.chosen["options"])
        self.classes_may_be_missing = self.base.classes_may_be_missing

    @classmethod
    def title_of(cls, options: Mapping[str, str], title: str = "") -> str:
        return super().title_of(options, title or f"{underlying_title(options)}, masks added")

    def info(self) -> DatasetInfo:
        base = self.base.info()
        provides = replace(base.provides, masks=True, val_masks=True, class_masks=False)
        unmasked = base.test_splits if not base.provides.masks else base.unmasked_splits
        return replace(base, provides=provides, unmasked_splits=unmasked, unannotated_masks=True)

    def check(self) -> None:
        self.base.check()
        masks = read_mask_file(self._file())
        size = self.base.info().image_size[1:]
        if masks.size != size:
            raise UserError(
                f"{self.name}: the masks in {self._file()} have {masks.size[0]}×{masks.size[1]} "
                f"pixels, but the images of {self.base.name} {size[0]}×{size[1]}; write masks with "
                "the same options of the data set."
            )

    def content(self) -> str:
        return f"{self.base.fingerprint()} {sha256_of(self._file())}"

    def build(self, seed: int) -> dict[str, Split]:
        masks = read_mask_file(self._file())
        splits = self.base.build(seed)
        for name in REPLACED:
            split = splits[name]
            mask, known = masks.masks(split.image)
            if not known.all():
                raise UserError(
                    f"{self.name}: {self._file()} has no mask of {int((~known).sum()):,} of "
                    f"{len(split):,} images of {name}; write masks with the same options of "
                    f"{self.base.name}, for all trials of the sweep (--trials)."
                )
            splits[name] = replace(split, mask=mask, class_masks=None)
        return splits

    def seed_name(self) -> str:
        """Return the name of the underlying data set, so that every trial shows its images."""
        return self.base.seed_name()

    def conversion(self) -> ImageConversion:
        return self.base.conversion()

    def train_size(self) -> int | None:
        return self.base.train_size()

    def decoded(self) -> bool:
        return self.base.decoded()

    def prepare(self, progress: ImageProgress | None = None) -> bool:
        return self.base.prepare(progress)

    def problems(self) -> list[str]:
        return self.base.problems()

    def notes(self) -> list[str]:
        return self.base.notes()

    def warnings(self) -> list[str]:
        return self.base.warnings()

    def file_of(self, name: str, split: Split, row: int) -> str:
        return self.base.file_of(name, split, row)

    def _file(self) -> Path:
        if self.data_dir is None:
            raise UserError(
                f"{self.name} needs a file of masks, but no data folder was given; pass "
                "--data-dir DIR."
            )
        path = Path(self.data_dir) / self.chosen["masks"]
        if not path.is_file():
            raise UserError(
                f"{self.name}: there is no {self.chosen['masks']} in {self.data_dir}; write it "
                f"with `python -m benchmark.data masks {self.chosen['on']}`."
            )
        return path
