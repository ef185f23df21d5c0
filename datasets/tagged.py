"""A text tag on a share of the images with one finding, as in Attri-Net's shortcut experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from benchmark.core.cache_folder import cache_folder
from benchmark.core.class_masks import ClassMasks, LabelledShape, RelativeBox, SparseClassMasks
from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io.cache import Cache
from datasets._io.cache_entry import CacheColumn
from datasets._sources import bias_assignment, compositing
from datasets._sources.underlying import underlying_title
from datasets.planted import PlantedData

SPLITS = ("train", "val", "clean", "biased", "deceiving")
CONFOUNDERS = ("no tag", "tag")
#: Distance of the tag from the top left corner, as a share of the side.
MARGIN = 0.03


@DATASETS.register
class TaggedData(PlantedData):
    """Another data set, in which a share of the images with one finding has a text tag.

    Source, licence, layout and counts are those of the underlying data set, which may have several
    labels per image. Its own confounder and environments are not used. In ``train`` and ``val``, a
    share of the images with the finding has the tag. The tests show the same images: ``clean``
    without tags, ``biased`` with the tag on all images with the finding, ``deceiving`` with the tag
    on all others.

    Class masks are those of the underlying data without the area of the tag. For data without
    masks they are everything outside that area.
    """

    name = "tagged"
    title = "Tagged data"
    description = "any data set with a text tag on a share of the images with one finding"
    options: ClassVar[Mapping[str, HParam]] = {
        "on": HParam("tiny", doc="the underlying data set"),
        "options": HParam("", doc="its options: NAME=VALUE;NAME=VALUE"),
        "finding": HParam("", doc="the label of the tagged images; empty: the last one"),
        "share": HParam(
            0.5, doc="share of the training images with the finding that have the tag", low=0.0,
            high=1.0,
        ),
        "others": HParam(
            0.0, doc="share of the training images without the finding that have the tag", low=0.0,
            high=1.0,
        ),
        "shape": HParam(
            "text", doc="what the tag looks like; block: a white rectangle, for small images",
            choices=("text", "block"),
        ),
        "text": HParam("CXR-ROOM1", doc="the text of the tag", form=r".{1,40}"),
        "size": HParam(0.4, doc="width of the tag, as a share of the image", low=0.05, high=0.9),
        "test": HParam(
            "", doc="the split of which the tests are made; empty: test, unbiased, or the last one"
        ),
    }  # fmt: skip

    @classmethod
    def title_of(cls, options: Mapping[str, str], title: str = "") -> str:
        finding = options.get("finding")
        start = title or f"{underlying_title(options)}, tagged{f' {finding}' if finding else ''}"
        return super().title_of(options, start)

    def info(self) -> DatasetInfo:
        base = self.base.info()
        single = not base.multi_label
        masks = base.provides.masks and single
        return replace(
            base,
            confounder_names=CONFOUNDERS,
            environment_names=(),
            splits=SPLITS,
            provides=Needs(
                masks=masks,
                class_masks=not masks,
                confounder=True,
                groups=single,
                val_groups=True,
                val_masks=masks,
            ),
            bias_splits=("biased", "deceiving"),
            paired=True,
            unmasked_splits=(),
            unlabelled_splits=(),
            source=f"{base.source}, with a tag planted",
        )

    def check(self) -> None:
        self.base.check()
        info = self.base.info()
        finding = self.chosen["finding"]
        if finding and finding not in info.label_names:
            raise UserError(
                f"{self.name}: finding={finding} is no label of {self.base.name}, which has "
                f"{', '.join(info.label_names)}."
            )
        self._test_split(info)

    def build(self, seed: int) -> dict[str, Split]:
        base_splits = self.base.build(seed)
        info = self.base.info()
        finding = self.chosen["finding"]
        k = info.label_names.index(finding) if finding else len(info.label_names) - 1
        splits: dict[str, Split] = {}
        for part in ("train", "val"):
            has = _has_label(base_splits[part], k)
            tagged = self._assign(seed, part, has)
            splits[part] = self._paste(seed, part, base_splits[part], tagged, info)
        test = base_splits[self._test_split(info)]
        has = _has_label(test, k)
        for name, tagged in (("clean", np.zeros_like(has)), ("biased", has), ("deceiving", ~has)):
            splits[name] = self._paste(seed, name, test, tagged, info)
        return splits

    def _assign(self, seed: int, part: str, has: np.ndarray) -> np.ndarray:
        """Return which images of train or val get the tag, bool[N]; the shares are exact."""
        tagged = np.zeros_like(has)
        for side, share in ((True, self.chosen["share"]), (False, self.chosen["others"])):
            rng = bias_assignment.random_stream(seed, part, "tag", side)
            rows = rng.permutation(np.flatnonzero(has == side))
            tagged[rows[: round(share * len(rows))]] = True
        return tagged

    def _paste(
        self, seed: int, name: str, base_split: Split, tagged: np.ndarray, info: DatasetInfo
    ) -> Split:
        height, width = base_split.image.shape[2:]
        text = self.chosen["text"] if self.chosen["shape"] == "text" else ""
        layer = draw_tag(text, (height, width), self.chosen["size"])
        area = tag_area(layer)
        pixels = np.zeros((height, width), bool)
        pixels[area[0], area[1]] = True

        def compute(start: int, stop: int) -> dict[str, np.ndarray]:
            image = np.array(base_split.image[start:stop])
            for row in np.flatnonzero(tagged[start:stop]):
                compositing.paste(image[row], layer)
            return {"image": image}

        identity = [self.fingerprint(), seed, name]
        columns = {"image": CacheColumn(base_split.image.shape[1:])}
        cache = Cache(cache_folder(self.data_dir))
        arrays = cache.generate(self.name, identity, len(tagged), columns, compute)
        own = base_split.mask if not info.multi_label else None
        shown = tagged[:, None, None, None] & pixels
        pair_id = np.arange(len(tagged)) if base_split.pair_id is None else base_split.pair_id
        return replace(
            base_split,
            image=arrays["image"],
            confounder=tagged.astype(np.int64),
            environment=None,
            mask=None if own is None else np.asarray(own) & ~pixels,
            class_masks=None if own is not None else self._class_masks(base_split, info, area),
            pair_id=pair_id,
            shortcut=shown if name in SPLITS[2:] else None,
        )

    def _class_masks(
        self, base_split: Split, info: DatasetInfo, area: tuple[slice, slice]
    ) -> ClassMasks:
        """Return the masks of the base without the tag's area, or everything outside that area."""
        height, width = base_split.image.shape[2:]
        if base_split.class_masks is not None:
            excluded = np.zeros((1, 1, height, width), bool)
            excluded[:, :, area[0], area[1]] = True
            everywhere = np.broadcast_to(excluded, (len(base_split), 1, height, width))
            return base_split.class_masks.without(everywhere)
        top, bottom = area[0].start / height, area[0].stop / height
        left, right = area[1].start / width, area[1].stop / width
        allowed = (
            RelativeBox(0.0, bottom, 1.0, 1.0),
            RelativeBox(right, top, 1.0, bottom),
            RelativeBox(0.0, top, left, bottom),
            RelativeBox(0.0, 0.0, 1.0, top),
        )
        classes = len(info.label_names)
        present = [np.flatnonzero(row) for row in _all_labels(base_split, classes)]
        shapes = [[LabelledShape(int(k), box) for k in row for box in allowed] for row in present]
        return SparseClassMasks(shapes, classes, (height, width))


def draw_tag(text: str, size: tuple[int, int], share: float) -> compositing.Layer:
    """Return a white text, or a white rectangle without text, in the top left corner.

    Args:
        text: The text.
        size: Height and width of the image.
        share: Width of the tag, as a share of that of the image. A rectangle is half as high.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = size
    wide = max(2, round(share * width))
    margin = max(1, round(MARGIN * width))
    opacity = np.zeros(size, np.uint8)
    if text:
        scale = 8
        font = ImageFont.load_default(size=scale * max(4, round(1.6 * wide / len(text))))
        left, top, right, bottom = font.getbbox(text)
        drawn = Image.new("L", (round(right - left), round(bottom - top)))
        ImageDraw.Draw(drawn).text((-left, -top), text, fill=255, font=font)
        high = max(2, round(wide * drawn.height / drawn.width))
        ink = np.asarray(drawn.resize((wide, high), Image.Resampling.BOX))
    else:
        ink = np.full((max(2, round(wide / 2)), wide), 255, np.uint8)
    ink = ink[: height - margin, : width - margin]
    opacity[margin : margin + ink.shape[0], margin : margin + ink.shape[1]] = ink
    return compositing.Layer(compositing.uniform(size, (255, 255, 255)), opacity)


def tag_area(layer: compositing.Layer) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle around a layer."""
    rows = np.flatnonzero(layer.opacity.any(1))
    columns = np.flatnonzero(layer.opacity.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _all_labels(split: Split, classes: int) -> np.ndarray:
    """Return the labels of a split as bool[N,K]."""
    if split.label.ndim == 2:
        return split.label == 1
    return split.label[:, None] == np.arange(classes)  # type: ignore[no-any-return]


def _has_label(split: Split, k: int) -> np.ndarray:
    """Return which images have label k, bool[N]."""
    return split.label[:, k] == 1 if split.label.ndim == 2 else split.label == k  # type: ignore[no-any-return]
