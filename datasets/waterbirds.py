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
from datasets._sources.group_environments import environments

#: The release of group_DRO, and the same one as WILDS unpacks it.
RELEASES = ("waterbird_complete95_forest2water2", "waterbirds_v1.0", "waterbirds")
LABELS, PLACES = ("landbird", "waterbird"), ("land", "water")
#: Environments of eX2L's Table 4: shares of landbird/land, landbird/water, waterbird/land and waterbird/water.
ENVIRONMENTS = {
    "land_centric": (61.80, 18.37, 8.26, 11.58),
    "balanced": (44.77, 30.20, 5.98, 19.05),
}
SETTINGS = ("standard", "tea", "ex2l")


@DATASETS.register
class Waterbirds(ImageSource):
    """Birds of CUB-200-2011, cut out and put on photographs of Places.

    Source: Sagawa, Koh, Hashimoto and Liang (2020), "Distributionally robust neural networks for group shifts"; birds:
    Wah et al. (2011), The Caltech-UCSD Birds-200-2011 dataset; backgrounds: Zhou et al. (2018), Places. Licence: the
    photographs are free for non-commercial research.

    Layout of the release, one of: ``waterbird_complete95_forest2water2/`` (group_DRO's archive) or ``waterbirds_v1.0/``
    (WILDS), with ``metadata.csv`` (img_id, img_filename, y, split, place, place_filename) and a folder per species.
    Masks, where CUB's ``segmentations/`` lie in ``CUB_200_2011/`` or beside it. Counts (landbird/land, landbird/water,
    waterbird/land, waterbird/water): train 3498, 184, 56, 1057; val 467, 466, 133, 133; test 2255, 2255, 642, 642.
    To get it: waterbird_complete95_forest2water2.tar.gz from Stanford NLP's pages, or WILDS.

    Settings:
        standard: the release as it is. ``unbiased`` is its test split, in which place and bird are independent;
            ``biased`` and ``deceiving`` are the half of it on the bird's own and on the other background.
        tea: made from ``CUB_200_2011/`` (images.txt, train_test_split.txt, images/, segmentations/) and Places, in
            which a share ``bias`` of the birds of training is on their own background (TEA, D.2: 100 %, and 95 % for
            the methods that need groups). A fifth of CUB's training birds, which group_DRO's script keeps for an
            unbiased validation, is left out; of the rest 4,315 are for training and 480, of the same distribution, for
            validation. 2,897 birds in ``biased`` and 2,897 others in ``deceiving``, as in the release. Species and
            kinds of places are those of group_DRO's script; which bird gets which photograph is drawn anew in each
            trial. Unlike that script's, these are blended at the final size.
        ex2l: the release's train and val images in two environments with the proportions of Table 4, a fifth of each
            for validation; its test split as in ``standard``. (The paper does not say from which images its
            environments are drawn; ours leave the test alone.)
    """

    name = "waterbirds"
    title = (
        "birds on land and water; the background is tied to the kind of bird (Sagawa et al. 2020)"
    )
    options: ClassVar[Mapping[str, HParam]] = {
        "setting": HParam(
            "standard", doc="the release, TEA's version, or eX2L's environments", choices=SETTINGS
        ),
        "bias": HParam(
            1.0, doc="setting tea: share of birds on their own background", low=0.0, high=1.0
        ),
        "side": side_option(64),
    }

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        if self.chosen["bias"] != 1.0 and self.chosen["setting"] != "tea":
            raise UserError(
                f"{self.name}: bias = {self.chosen['bias']} has no effect in the setting {self.chosen['setting']}, "
                "whose images are made already; use setting=tea."
            )

    def info(self) -> DatasetInfo:
        side, bias, setting = (self.chosen[name] for name in ("side", "bias", "setting"))
        divided = {
            "standard": bias_assignment.ENVIRONMENTS,
            "ex2l": tuple(ENVIRONMENTS),
            "tea": bias_assignment.environment_names(bias),
        }
        masks = setting == "tea" or self.data_dir is None or self._segmentations() is not None
        return DatasetInfo(
            label_names=LABELS,
            confounder_names=PLACES,
            environment_names=divided[setting],
            image_size=(3, side, side),
            splits=bias_assignment.SPLITS,
            provides=Needs(
                masks=masks, confounder=True, groups=True, environments=bool(divided[setting]),
                val_groups=True, val_masks=masks,
            ),
            mean=(0.485, 0.456, 0.406) if setting != "tea" else (0.0, 0.0, 0.0),  # TEA, F.2: pixels in [0, 1]
            std=(0.229, 0.224, 0.225) if setting != "tea" else (1.0, 1.0, 1.0),
            augmentation={"flip": 0.5},
            source="Sagawa et al. (2020), Distributionally robust neural networks for group shifts; CUB; Places",
            licence="photographs free for non-commercial research",
            bias_splits=("biased", "deceiving"),
        )  # fmt: skip

    def metadata(self) -> list[Path]:
        return cub.tables(self) if self.chosen["setting"] == "tea" else [self._table()]

    def read(self) -> dict[str, Pool]:
        side = self.chosen["side"]
        if self.chosen["setting"] == "tea":
            birds = cub.read(self)
            self.label, self.part = birds.water, np.where(birds.train, 0, 2)
            pools = {"birds": Pool(birds.items, Recipe(side, cutout=True, upright=False))}
            for name, categories in cub.CATEGORIES.items():
                count = -(-cub.photographs_needed(birds) // len(categories))
                photos = [item for c in categories for item in _places.photographs(self, c, count)]
                pools[name] = Pool(photos, Recipe(side, fit="crop"))
            return pools
        return {self.name: Pool(self._read_release(), Recipe(side))}

    def _read_release(self) -> list[Item]:
        table = self._table()
        rows = read_table(table, ("img_filename", "y", "split", "place")).rows
        values = {
            name: np.array([read_integer(table, row, name, allowed) for row in rows])
            for name, allowed in (("y", (0, 1)), ("place", (0, 1)), ("split", (0, 1, 2)))
        }
        missing = {0, 1, 2} - set(values["split"].tolist())
        if missing:
            raise UserError(
                f"{table} has no images of split {min(missing)}, expected 0, 1 and 2 (train, val, test)."
            )
        against = values["y"] != values["place"]
        order = np.lexsort(
            (against, values["split"])
        )  # so that every split is one piece of the cache
        self.label, self.place, self.part = (
            values[name][order] for name in ("y", "place", "split")
        )
        folder, masks = table.parent.relative_to(self.folder()).as_posix(), self._segmentations()
        names = [rows[i]["img_filename"] for i in order]
        where = [
            f"{masks}/{Path(name).with_suffix('.png').as_posix()}" if masks else ""
            for name in names
        ]
        return [Item(f"{folder}/{name}", mask) for name, mask in zip(names, where, strict=True)]

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        if self.chosen["setting"] == "tea":
            return cub.compose(self, seed, self.label, self.part, self.chosen["bias"])
        against = self.label != self.place
        tests = self.part == 2
        rows = {
            "train": np.flatnonzero(self.part == 0),
            "val": np.flatnonzero(self.part == 1),
            "biased": np.flatnonzero(tests & ~against),
            "unbiased": np.flatnonzero(tests),
            "deceiving": np.flatnonzero(tests & against),
        }
        environment: dict[str, np.ndarray] = {
            name: against[rows[name]].astype(np.int64) for name in ("train", "val")
        }
        if self.chosen["setting"] == "ex2l":
            group = np.where(tests, -1, 2 * self.label + self.place)
            for name, (chosen, number) in environments(
                seed, group, list(ENVIRONMENTS.values())
            ).items():
                rows[name], environment[name] = chosen, number
        return {
            name: self.split(self.name, r, self.label[r], self.place[r], environment.get(name))
            for name, r in rows.items()
        }

    def _table(self) -> Path:
        found = self.find(
            *(f"{release}/metadata.csv" for release in RELEASES),
            how="unpack waterbird_complete95_forest2water2.tar.gz there, or use setting=tea with CUB and Places",
        )
        return self.folder() / found

    def _segmentations(self) -> str | None:
        """CUB's masks, where they are."""
        found = (
            f
            for f in cub.SEGMENTATIONS
            if self.data_dir is not None and (Path(self.data_dir) / f).is_dir()
        )
        return next(found, None)
