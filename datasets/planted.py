"""Plant a shortcut: a tag, a border, a colour, a background or a tie, at a chosen strength, in any data.

``plant`` works on arrays; the data set ``planted`` plants in another data set, for instance in your own folder:
``planted:on=folder,options=path=my_data;side=64,shortcut=tag,bias=0.95``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, DatasetSource, ImageProgress, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.named_options import split_option
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from benchmark.core.seeds import seed_for
from datasets._io.cache import Cache, cache_folder
from datasets._io.cache_entry import CacheColumn
from datasets._sources import bias_assignment, compositing
from datasets._sources.compositing import Box, Layer

SHORTCUTS = ("tag", "border", "colour", "background", "tie")
#: Colours of the confounders, told apart by any eye; a tenth class begins again.
COLOURS = (
    (230, 30, 30), (40, 90, 240), (250, 200, 20), (30, 170, 60), (160, 40, 200),
    (250, 130, 20), (20, 200, 210), (250, 120, 190), (120, 80, 40), (240, 240, 240),
)  # fmt: skip
#: How large a shortcut of size 1 is, as a share of the picture's height or width.
TAG, BORDER, TIE = 0.16, 0.06, 0.35


@dataclass(frozen=True)
class Planted:
    """Pictures with a shortcut: ``image`` uint8[N,C,H,W], and what was pasted, bool[N,1,H,W]."""

    image: np.ndarray
    pasted: np.ndarray


def plant(
    image: np.ndarray,
    confounder: np.ndarray,
    shortcut: str,
    seed: int,
    mask: np.ndarray | None = None,
    size: float = 1.0,
    opacity: float = 1.0,
    absent: int = -1,
    first: int = 0,
) -> Planted:
    """Copies of pictures with a shortcut that tells the confounder.

    ``tag``: the confounder's number in its colour, in the corner at the top left. ``border``: a frame in its colour.
    ``colour``: the foreground (everything, without masks) is tinted with it. ``background``: everything but the
    foreground becomes stripes of its colour and direction. ``tie``: a tie in its colour in the middle of the
    foreground's width, a third of the way down; it hangs for even confounders and is a bow for odd ones.

    Args:
        image: uint8[N,C,H,W]; it is not changed.
        confounder: int64[N].
        shortcut: one of SHORTCUTS.
        seed: of what is random in it: the stripes' period and phase.
        mask: bool[N,1,H,W], foreground; ``background`` needs it.
        size: of tag, border and tie, in units of their usual size.
        opacity: of colour (0.5 of it), tag, border, tie and background.
        absent: the confounder that shows as no mark at all.
        first: number of the first picture, for whoever plants in several pieces.

    Raises:
        UserError: an unknown shortcut, or ``background`` without masks.
    """
    if shortcut not in SHORTCUTS:
        raise UserError(f"there is no shortcut {shortcut!r}, only {', '.join(SHORTCUTS)}.")
    if shortcut == "background" and mask is None:
        raise UserError(
            "the shortcut background needs masks, to know what is not background; use tag or border."
        )
    out = np.array(image)
    pasted = np.zeros((len(out), 1, *out.shape[2:]), bool)
    strength = opacity * (0.5 if shortcut == "colour" else 1.0)
    for i, kind in enumerate(confounder.tolist()):
        if kind != absent:
            foreground = None if mask is None else np.asarray(mask[i, 0])
            layer = _layer(
                shortcut, kind, (out.shape[2], out.shape[3]), foreground, size, seed + first + i
            )
            pasted[i] = layer.opacity[None] > 127
            compositing.paste(
                out[i], Layer(layer.colour, (layer.opacity * strength).astype(np.uint8))
            )
    return Planted(out, pasted)


def _layer(
    shortcut: str,
    kind: int,
    side: tuple[int, int],
    foreground: np.ndarray | None,
    size: float,
    seed: int,
) -> Layer:
    colour = COLOURS[kind % len(COLOURS)]
    if shortcut == "tag":
        return compositing.tag(side, str(kind + 1), colour, TAG * size, (0, 0))
    if shortcut == "border":
        return compositing.border(side, colour, min(BORDER * size, 0.45))
    flat = np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, *side))
    if shortcut == "colour":
        where = np.ones(side, bool) if foreground is None else foreground
        return Layer(flat, where * np.uint8(255))
    if shortcut == "background":
        assert foreground is not None
        stripes = compositing.texture(
            np.random.default_rng(seed), side, colour, angle=kind * np.pi / len(COLOURS)
        )
        return Layer(stripes, ~foreground * np.uint8(255))
    hangs = kind % 2 == 0
    return compositing.placed(
        *compositing.neck_tie(
            compositing.drawn_tie(colour, hangs), _neck(side, foreground, size), hangs
        ),
        side,
    )


def _neck(side: tuple[int, int], foreground: np.ndarray | None, size: float) -> Box:
    """Where a tie goes: the middle of what is foreground a third of the way down, or of the picture."""
    height, width = side
    top, bottom, left, right = 0, height, 0, width
    if foreground is not None and foreground.any():
        rows, columns = np.flatnonzero(foreground.any(1)), np.flatnonzero(foreground.any(0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    half = max(2.0, TIE * size * (right - left) / 2)
    across, down = (left + right) / 2, top + (bottom - top) / 3
    return Box(across - half, down - half / 2, across + half, down + half / 2)


@DATASETS.register
class PlantedData(DatasetSource):
    """Another data set with a shortcut in it, tied to the class at strength ``bias``.

    Source, licence, layout and counts are those of the data set that it is planted in. Its own confounder and
    environments are forgotten. ``train`` and ``val`` get the shortcut of the class in a share ``bias`` of the images of
    each class, and another one in the rest; ``biased``, ``unbiased`` and ``deceiving`` show one of its tests with
    the shortcut of the class, with all of them evenly, and with that of the next class. The mask of what was pasted is
    taken out of the foreground (of everything, where there are no masks), except for ``colour``, which is on the
    foreground itself.
    """

    name = "planted"
    title = "any data set with a shortcut planted in it: tag, border, colour, background or tie"
    options: ClassVar[Mapping[str, HParam]] = {
        "on": HParam("tiny", doc="the data set to plant in"),
        "options": HParam("", doc="its options: NAME=VALUE;NAME=VALUE"),
        "shortcut": HParam("tag", doc="what is planted", choices=SHORTCUTS),
        "bias": bias_assignment.bias_option(0.95),
        "marked": HParam(
            "each",
            doc="each class has its own mark, or the last alone has one",
            choices=("each", "one"),
        ),
        "size": HParam(
            1.0, doc="of tag, border and tie, in units of the usual one", low=0.1, high=5.0
        ),
        "opacity": HParam(1.0, doc="of what is planted", low=0.05, high=1.0),
        "test": HParam(
            "", doc="the split that the tests are made of; empty: test, unbiased, or the last one"
        ),
    }

    def __init__(self, data_dir: Path | None = None, **options: Any) -> None:
        super().__init__(data_dir, **options)
        if self.chosen["on"] == self.name:
            raise UserError(
                f"{self.name}: on={self.name} would plant in itself; name the data set below."
            )
        kind = DATASETS.get(self.chosen["on"])
        given = {}
        for pair in filter(None, self.chosen["options"].split(";")):
            option = split_option(pair)
            if option is None or option[0] not in kind.options:
                raise UserError(
                    f"{self.name}: options has {pair!r}, expected NAME=VALUE with a NAME of {self.chosen['on']}: "
                    f"{', '.join(kind.options) or 'it has none'}."
                )
            name, value = option
            given[name] = kind.options[name].parse(f"{self.chosen['on']}: {name}", value)
        self.below: DatasetSource = kind(data_dir, **given)

    def info(self) -> DatasetInfo:
        below, bias = self.below.info(), self.chosen["bias"]
        marks = tuple(f"mark_{name}" for name in below.label_names)
        masks = below.provides.masks or self.chosen["shortcut"] != "colour"
        return replace(
            below,
            confounder_names=marks if self.chosen["marked"] == "each" else ("no_mark", "mark"),
            environment_names=bias_assignment.environment_names(bias),
            splits=bias_assignment.SPLITS,
            provides=Needs(
                masks=masks,
                confounder=True,
                groups=True,
                environments=0 < bias < 1,
                val_groups=True,
                val_masks=masks,
            ),
            bias_splits=("biased", "deceiving"),
            paired=True,
            source=f"{below.source}, with a shortcut planted",
        )

    def check(self) -> None:
        self.below.check()
        info = self.below.info()
        if info.multi_label:
            raise UserError(
                f"{self.name}: images of {self.below.name} may have several labels, and a mark goes with one; plant in "
                "data with one label per image."
            )
        if self.chosen["shortcut"] == "background" and not info.provides.masks:
            raise UserError(
                f"{self.name}: background needs masks, which {self.below.name} does not have; use tag."
            )
        self._test(info)

    def train_size(self) -> int | None:
        return self.below.train_size()

    def content(self) -> str:
        return self.below.fingerprint()

    def decoded(self) -> bool:
        return self.below.decoded()

    def prepare(self, progress: ImageProgress | None = None) -> bool:
        return self.below.prepare(progress)

    def problems(self) -> list[str]:
        return self.below.problems()

    def notes(self) -> list[str]:
        return self.below.notes()

    def file_of(self, name: str, split: Split, row: int) -> str:
        return self.below.file_of(name, split, row)

    def build(self, seed: int) -> dict[str, Split]:
        below = self.below.build(seed)
        info = self.below.info()
        last = len(info.label_names) - 1
        each = self.chosen["marked"] == "each"
        out: dict[str, Split] = {}
        for part, name in (("train", "train"), ("val", "val"), ("test", self._test(info))):
            split = below[name]
            own = split.label if each else (split.label == last).astype(np.int64)
            kinds = last + 1 if each else 2
            for planted, mark in bias_assignment.confounders(
                seed, part, own, kinds, self.chosen["bias"]
            ).items():
                out[planted] = self._plant(seed, planted, split, own, mark)
        return {name: out[name] for name in bias_assignment.SPLITS}

    def _plant(
        self, seed: int, name: str, split: Split, own: np.ndarray, mark: np.ndarray
    ) -> Split:
        """A split below with the marks, and with what was pasted taken out of its foreground."""
        absent = 0 if self.chosen["marked"] == "one" else -1
        masked = split.mask is not None or self.chosen["shortcut"] != "colour"

        def fill(start: int, stop: int) -> dict[str, np.ndarray]:
            mask = None if split.mask is None else np.asarray(split.mask[start:stop])
            made = plant(
                split.image[start:stop], mark[start:stop], self.chosen["shortcut"], stream_seed, mask,
                self.chosen["size"], self.chosen["opacity"], absent, start,
            )  # fmt: skip
            if self.chosen["shortcut"] != "colour":
                mask = ~made.pasted if mask is None else mask & ~made.pasted
            return {"image": made.image} if mask is None else {"image": made.image, "mask": mask}

        stream_seed = seed_for(seed, name, "plant") >> 1
        columns = {"image": CacheColumn(split.image.shape[1:])}
        if masked:
            columns["mask"] = CacheColumn((1, *split.image.shape[2:]), "bool")
        what = [self.fingerprint(), seed, name]
        made = Cache(cache_folder(self.data_dir)).generate(
            self.name, what, len(mark), columns, fill
        )
        pair = np.arange(len(mark)) if split.pair_id is None else split.pair_id
        environment = bias_assignment.environments(name, own, mark, self.chosen["bias"])
        return replace(
            split,
            image=made["image"],
            confounder=mark,
            environment=environment,
            mask=made.get("mask"),
            pair_id=pair,
        )

    def _test(self, info: DatasetInfo) -> str:
        """The split below that the tests are made of."""
        asked, tests = self.chosen["test"], info.test_splits
        if asked and asked not in tests:
            raise UserError(
                f"{self.name}: test={asked} is no test of {self.below.name}, which has {', '.join(tests)}."
            )
        return asked or next((name for name in ("test", "unbiased") if name in tests), tests[-1])
