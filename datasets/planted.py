"""A shortcut planted in another data set, tied to the class at a chosen bias.

For example, in your own images: ``planted:on=folder,options=path=my_data;side=64,shortcut=tag``.
The function ``plant`` works on arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.core.cache_folder import cache_folder
from benchmark.core.dataset import DatasetInfo, DatasetSource, ImageProgress, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from benchmark.core.seeds import seed_for
from datasets._io.cache import Cache
from datasets._io.cache_entry import CacheColumn
from datasets._sources import bias_assignment
from datasets._sources.shortcuts import (
    COLOURS,
    JPEG_QUALITIES,
    ON_THE_OBJECT,
    SHORTCUTS,
    Planted,
    Shortcut,
    plant,
)
from datasets._sources.underlying import OPTIONS, make_underlying, underlying_title

__all__ = ["COLOURS", "JPEG_QUALITIES", "SHORTCUTS", "Planted", "PlantedData", "plant"]


@DATASETS.register
class PlantedData(DatasetSource):
    """Another data set with a planted shortcut that is tied to the class.

    Source, licence, layout and counts are those of the underlying data set. Its own confounder and
    environments are not used. In ``train`` and ``val``, a share ``bias`` of each class has the
    shortcut of the class, and the rest another one. ``biased``, ``unbiased`` and ``deceiving`` show
    one test of the underlying data: with the shortcut of the class, with all shortcuts evenly, and
    with that of the next class. The pasted pixels are removed from the foreground (from everything,
    if there are no masks), except for ``colour`` and ``jpeg``, which are on the foreground itself.
    """

    name = "planted"
    title = "Planted shortcut"
    description = (
        "any data set with a planted shortcut: tag, border, colour, background, tie or jpeg"
    )
    options: ClassVar[Mapping[str, HParam]] = {
        **OPTIONS,
        "shortcut": HParam("tag", doc="the shortcut", choices=SHORTCUTS),
        "bias": bias_assignment.bias_option(0.95),
        "marked": HParam(
            "each",
            doc="each: every class has its own mark; one: only the last class has one",
            choices=("each", "one"),
        ),
        "size": HParam(
            1.0, doc="size of tag, border and tie, relative to their default", low=0.1, high=5.0
        ),
        "opacity": HParam(1.0, doc="opacity, relative to the default", low=0.05, high=1.0),
        "test": HParam(
            "", doc="the split of which the tests are made; empty: test, unbiased, or the last one"
        ),
    }

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        self.base = make_underlying(self, self.chosen["on"], self.chosen["options"])
        self.masks_may_be_empty = self.base.masks_may_be_empty

    @classmethod
    def title_of(cls, options: Mapping[str, str], title: str = "") -> str:
        shortcut = options.get("shortcut", "tag")
        start = title or f"{underlying_title(options)}, planted {shortcut}"
        return super().title_of(options, start)

    def info(self) -> DatasetInfo:
        base = self.base.info()
        bias = self.chosen["bias"]
        marks = tuple(f"mark_{name}" for name in base.label_names)
        masks = base.provides.masks or self.chosen["shortcut"] not in ON_THE_OBJECT
        return replace(
            base,
            confounder_names=marks if self.chosen["marked"] == "each" else ("no_mark", "mark"),
            environment_names=bias_assignment.environment_names(bias),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(bias, masks=masks),
            bias_splits=("biased", "deceiving"),
            paired=True,
            source=f"{base.source}, with a shortcut planted",
        )

    def check(self) -> None:
        self.base.check()
        info = self.base.info()
        if info.multi_label:
            raise UserError(
                f"{self.name}: images of {self.base.name} may have several labels, but a shortcut "
                "belongs to one; use data with one label per image."
            )
        if self.chosen["shortcut"] == Shortcut.BACKGROUND and not info.provides.masks:
            raise UserError(
                f"{self.name}: the shortcut background needs masks, which {self.base.name} does "
                "not have; use another one, such as tag."
            )
        self._test_split(info)

    def train_size(self) -> int | None:
        return self.base.train_size()

    def content(self) -> str:
        return self.base.fingerprint()

    def decoded(self) -> bool:
        return self.base.decoded()

    def prepare(self, progress: ImageProgress | None = None) -> bool:
        return self.base.prepare(progress)

    def problems(self) -> list[str]:
        return self.base.problems()

    def notes(self) -> list[str]:
        return [*self.base.notes(), *self.warnings()]

    def warnings(self) -> list[str]:
        info = self.base.info()
        test = self._test_split(info)
        if test not in (info.bias_splits or ()):
            return []
        return [
            f"The tests are made of {test}, on which the shortcut of {self.base.name} itself helps "
            "or misleads; their accuracies show both shortcuts. Name a neutral test with "
            "test=NAME, or add one.",
        ]

    def file_of(self, name: str, split: Split, row: int) -> str:
        return self.base.file_of(name, split, row)

    def build(self, seed: int) -> dict[str, Split]:
        base_splits = self.base.build(seed)
        info = self.base.info()
        last_class = len(info.label_names) - 1
        splits: dict[str, Split] = {}
        for part, base_name in (
            ("train", "train"),
            ("val", "val"),
            ("test", self._test_split(info)),
        ):
            base_split = base_splits[base_name]
            if self.chosen["marked"] == "each":
                own_mark = base_split.label
                num_marks = last_class + 1
            else:
                own_mark = (base_split.label == last_class).astype(np.int64)
                num_marks = 2
            confounders = bias_assignment.confounders_of_splits(
                seed, part, own_mark, num_marks, self.chosen["bias"]
            )
            for name, mark in confounders.items():
                splits[name] = self._plant(seed, name, base_split, own_mark, mark)
        return {name: splits[name] for name in bias_assignment.SPLITS}

    def _plant(
        self, seed: int, name: str, base_split: Split, own_mark: np.ndarray, mark: np.ndarray
    ) -> Split:
        """Plant marks in a split and remove the pasted pixels from its foreground.

        Args:
            seed: The seed of the trial.
            name: The name of the new split.
            base_split: The underlying split.
            own_mark: int64[N], the mark of each image's class.
            mark: int64[N], the mark that each image gets.
        """
        keeps_foreground = self.chosen["shortcut"] in ON_THE_OBJECT
        plant_seed = seed_for(seed, name, "plant") >> 1

        def compute(start: int, stop: int) -> dict[str, np.ndarray]:
            mask = None if base_split.mask is None else np.asarray(base_split.mask[start:stop])
            planted = plant(
                base_split.image[start:stop],
                mark[start:stop],
                self.chosen["shortcut"],
                plant_seed,
                mask,
                size=self.chosen["size"],
                opacity=self.chosen["opacity"],
                unmarked=0 if self.chosen["marked"] == "one" else None,
                first=start,
            )
            if not keeps_foreground:
                mask = ~planted.pasted if mask is None else mask & ~planted.pasted
            computed = {"image": planted.image, "shortcut": planted.pasted}
            if mask is not None:
                computed["mask"] = mask
            return {column: computed[column] for column in columns}

        size = (1, *base_split.image.shape[2:])
        columns = {"image": CacheColumn(base_split.image.shape[1:])}
        if base_split.mask is not None or not keeps_foreground:
            columns["mask"] = CacheColumn(size, "bool")
        identity: list[object] = [self.fingerprint(), seed, name]
        is_test = name not in ("train", "val")
        class_masks = base_split.class_masks
        if is_test or (class_masks is not None and not keeps_foreground):
            columns["shortcut"] = CacheColumn(size, "bool")
            identity.append("shortcut")
        cache = Cache(cache_folder(self.data_dir))
        arrays = cache.generate(self.name, identity, len(mark), columns, compute)
        if class_masks is not None and not keeps_foreground:
            class_masks = class_masks.without(arrays["shortcut"])
        pair_id = np.arange(len(mark)) if base_split.pair_id is None else base_split.pair_id
        bias = self.chosen["bias"]
        return replace(
            base_split,
            image=arrays["image"],
            confounder=mark,
            environment=bias_assignment.bias_environments(name, own_mark, mark, bias),
            mask=arrays.get("mask"),
            pair_id=pair_id,
            class_masks=class_masks,
            shortcut=arrays["shortcut"] if is_test else None,
        )

    def _test_split(self, info: DatasetInfo) -> str:
        """Return the split of the underlying data of which the tests are made."""
        asked = self.chosen["test"]
        tests = info.test_splits
        if asked and asked not in tests:
            raise UserError(
                f"{self.name}: test={asked} is no test of {self.base.name}, which has "
                f"{', '.join(tests)}."
            )
        shifted = info.bias_splits or ()
        neutral = [name for name in tests if name not in shifted] or list(tests)
        return asked or next((n for n in ("test", "unbiased") if n in neutral), neutral[-1])
