"""Waterbirds: birds on land and on water; the background is tied to the kind of bird."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.decode import Recipe
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.table import read_integer, read_table
from datasets._sources import bias_assignment, cub
from datasets._sources import places as _places
from datasets._sources.group_environments import assign_environments, redraw_parts
from datasets._sources.photographs import IMAGENET_MEAN, IMAGENET_STD

#: The release of group_DRO, and the same release as WILDS unpacks it.
RELEASES = ("waterbird_complete95_forest2water2", "waterbirds_v1.0", "waterbirds")
LABELS = ("landbird", "waterbird")
PLACES = ("land", "water")
#: The environments of eX2L's Table 4.
ENVIRONMENTS = ("land_centric", "balanced")
#: The share of landbird/land, landbird/water, waterbird/land and waterbird/water in the first
#: environment. With the counts of the whole release these give the percentages of the table.
LAND_CENTRIC_SHARES = (0.55, 0.35, 0.55, 0.35)
SETTINGS = ("standard", "tea", "ex2l")


@DATASETS.register
class Waterbirds(ImageSource):
    """Birds of CUB-200-2011, cut out and pasted on photographs of Places.

    Source: Sagawa, Koh, Hashimoto and Liang (2020), "Distributionally robust neural networks for
    group shifts"; birds: Wah et al. (2011), The Caltech-UCSD Birds-200-2011 dataset; backgrounds:
    Zhou et al. (2018), Places. Licence: the photographs are free for non-commercial research.

    Layout of the release, one of: ``waterbird_complete95_forest2water2/`` (group_DRO's archive) or
    ``waterbirds_v1.0/`` (WILDS), with ``metadata.csv`` (img_id, img_filename, y, split, place,
    place_filename) and a folder per species. Masks, if CUB's ``segmentations/`` are in
    ``CUB_200_2011/`` or beside it. Counts (landbird/land, landbird/water, waterbird/land,
    waterbird/water): train 3498, 184, 56, 1057; val 467, 466, 133, 133; test 2255, 2255, 642, 642.
    To get it: waterbird_complete95_forest2water2.tar.gz from Stanford NLP's pages, or WILDS.

    Settings:
        standard: The release. ``unbiased`` is its test split, in which place and bird are
            independent. ``biased`` and ``deceiving`` are its halves on the bird's own and on the
            other background.
        tea: Made from ``CUB_200_2011/`` (images.txt, train_test_split.txt, images/, segmentations/)
            and Places. A share ``bias`` of the training birds is on its own background (TEA, D.2:
            100 %, and 95 % for methods that need groups). A fifth of CUB's training birds, which
            group_DRO's script reserves for an unbiased validation, is left out. Of the rest, 4,315
            are for training and 480, with the same distribution, for validation. ``biased`` has
            2,897 birds and ``deceiving`` 2,897 others, as in the release. Species and categories of
            places are those of group_DRO's script. The photograph of each bird is drawn in each
            trial. Unlike in that script, images are blended at their final size.
        ex2l: All 11,788 images of the release in two environments with the percentages of eX2L's
            Table 4: 55 % of the images on land and 35 % of those on water are in ``land_centric``,
            the others in ``balanced``. No smaller pool, such as the published training images,
            gives these percentages, so the published test cannot be kept. Every environment and
            group is divided into train, val and test in the proportions of the release (4,795,
            1,199 and 5,794 images). The test images are the same in all trials. ``unbiased`` has
            as many of them on land as on water in each class, and ``biased`` and ``deceiving`` are
            its halves. The paper does not describe its test set.
    """

    name = "waterbirds"
    title = "Waterbirds"
    description = (
        "birds on land and water; the background is tied to the kind of bird (Sagawa et al. 2020)"
    )
    option_titles: ClassVar[Mapping[str, str]] = {
        "setting": "setting {value}",
        "bias": "{percent} % bias",
    }
    group_title = "{label} on {confounder}"
    options: ClassVar[Mapping[str, HParam]] = {
        "setting": HParam(
            "standard", doc="the release, TEA's version, or eX2L's environments", choices=SETTINGS
        ),
        "bias": HParam(
            1.0, doc="setting tea: share of birds on their own background", low=0.0, high=1.0
        ),
        "side": side_option(64),
    }

    label: np.ndarray
    place: np.ndarray
    part: np.ndarray

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        if self.chosen["bias"] != 1.0 and self.chosen["setting"] != "tea":
            raise UserError(
                f"{self.name}: bias = {self.chosen['bias']} has no effect in the setting "
                f"{self.chosen['setting']}, whose images are fixed; use setting=tea."
            )

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        setting = self.chosen["setting"]
        environments = {
            "standard": bias_assignment.ENVIRONMENTS,
            "ex2l": ENVIRONMENTS,
            "tea": bias_assignment.environment_names(self.chosen["bias"]),
        }[setting]
        masks = setting == "tea" or self.data_dir is None or self._segmentations() is not None
        # TEA, F.2: pixels in [0, 1] without further normalisation or augmentation
        is_tea = setting == "tea"
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=PLACES,
            environment_names=environments,
            image_size=(3, side, side),
            splits=bias_assignment.SPLITS,
            provides=Needs(
                masks=masks,
                confounder=True,
                groups=True,
                environments=bool(environments),
                val_groups=True,
                val_masks=masks,
            ),
            mean=(0.0, 0.0, 0.0) if is_tea else IMAGENET_MEAN,
            std=(1.0, 1.0, 1.0) if is_tea else IMAGENET_STD,
            augmentation={} if is_tea else {"flip": 0.5},
            source="Sagawa et al. (2020), Distributionally robust neural networks for group "
            "shifts; CUB; Places",
            licence="photographs free for non-commercial research",
            bias_splits=("biased", "deceiving"),
        )

    def metadata(self) -> list[Path]:
        if self.chosen["setting"] == "tea":
            return cub.metadata_files(self)
        return [self._table_path()]

    def content(self) -> str:
        """Extend the digest by the environments, which old runs had drawn from fewer images."""
        content = super().content()
        return f"{content} {LAND_CENTRIC_SHARES}" if self.chosen["setting"] == "ex2l" else content

    def read(self) -> dict[str, Pool]:
        if self.chosen["setting"] == "tea":
            return self._read_cub()
        return {self.name: Pool(self._read_release(), Recipe(self.chosen["side"]))}

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        if self.chosen["setting"] == "tea":
            return cub.make_splits(self, seed, self.label, self.part, self.chosen["bias"])
        conflicting = self.label != self.place
        part = self.part
        environment = conflicting.astype(np.int64)
        tests = np.flatnonzero(part == 2)
        if self.chosen["setting"] == "ex2l":
            group = 2 * self.label + self.place
            part = redraw_parts(seed, self.part, group)
            environment = assign_environments(seed, part, group, LAND_CENTRIC_SHARES)
            tests = _balance_places(np.flatnonzero(part == 2), self.label, self.place)
        rows = {
            "train": np.flatnonzero(part == 0),
            "val": np.flatnonzero(part == 1),
            "biased": tests[~conflicting[tests]],
            "unbiased": tests,
            "deceiving": tests[conflicting[tests]],
        }
        return {
            name: self.split(
                self.name,
                r,
                self.label[r],
                self.place[r],
                environment[r] if name in ("train", "val") else None,
            )
            for name, r in rows.items()
        }

    def _read_cub(self) -> dict[str, Pool]:
        """Return the pools of birds and of photographs for the setting tea."""
        side = self.chosen["side"]
        birds = cub.read_birds(self)
        self.label = birds.water
        self.part = np.where(birds.train, cub.TRAIN_PART, cub.TEST_PART)
        pools = {"birds": Pool(birds.items, Recipe(side, cutout=True, upright=False))}
        for name, categories in cub.CATEGORIES.items():
            count = -(-cub.photographs_needed(birds) // len(categories))
            photographs = []
            for category in categories:
                photographs += _places.category_photographs(self, category, count)
            pools[name] = Pool(photographs, Recipe(side, fit="crop"))
        return pools

    def _read_release(self) -> list[Item]:
        """Read the table of the release, and return its images ordered by split."""
        path = self._table_path()
        rows = read_table(path, ("img_filename", "y", "split", "place")).rows
        allowed = {"y": (0, 1), "place": (0, 1), "split": (0, 1, 2)}
        values = {
            name: np.array([read_integer(path, row, name, numbers) for row in rows])
            for name, numbers in allowed.items()
        }
        missing = {0, 1, 2} - set(values["split"].tolist())
        if missing:
            raise UserError(
                f"{path} has no images of split {min(missing)}, expected 0, 1 and 2 (train, val, "
                "test)."
            )
        conflicting = values["y"] != values["place"]
        # Ordered so that every split is one piece of the cache.
        order = np.lexsort((conflicting, values["split"]))
        self.label = values["y"][order]
        self.place = values["place"][order]
        self.part = values["split"][order]
        folder = path.parent.relative_to(self.folder()).as_posix()
        mask_folder = self._segmentations()
        items = []
        for i in order:
            name = rows[i]["img_filename"]
            mask = Path(name).with_suffix(".png").as_posix()
            items.append(Item(f"{folder}/{name}", f"{mask_folder}/{mask}" if mask_folder else ""))
        return items

    def _table_path(self) -> Path:
        path = self.find(
            *(f"{release}/metadata.csv" for release in RELEASES),
            how="unpack waterbird_complete95_forest2water2.tar.gz there, or use setting=tea with "
            "CUB and Places",
        )
        return self.folder() / path

    def _segmentations(self) -> str | None:
        """Return the folder of CUB's masks, or None if there is none."""
        if self.data_dir is None:
            return None
        folders = (folder for folder in cub.SEGMENTATIONS if (self.data_dir / folder).is_dir())
        return next(folders, None)


def _balance_places(rows: np.ndarray, label: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return as many of these rows on land as on water for each class, sorted."""
    selected = []
    for bird in range(len(LABELS)):
        of_class = rows[label[rows] == bird]
        by_place = [of_class[place[of_class] == p] for p in range(len(PLACES))]
        count = min(len(part) for part in by_place)
        selected += [part[:count] for part in by_place]
    return np.sort(np.concatenate(selected))
