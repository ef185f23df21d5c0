"""DogsWithTies: two breeds of dog, each with its tie; a bias on the dogs themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from datasets._io import pixels
from datasets._io.cache_entry import CacheColumn
from datasets._io.decode import Recipe, unreadable_image
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.table import Origin, read_table
from datasets._sources import bias_assignment
from datasets._sources.compositing import Box, neck_tie, paste, placed

#: Folders of Stanford Dogs, by class. (It spells the Pekingese so.)
BREEDS = {"tibetan_mastiff": "n02108551-Tibetan_mastiff", "pekingese": "n02086079-Pekinese"}
#: The tie of each class: its file, and whether it hangs from the neck (else it sits on it).
TIES = {"red_necktie": True, "purple_bow_tie": False}
NO_TIE = len(TIES)
FOLDERS = ("stanford_dogs", "StanfordDogs", "dogs_with_ties", "")
MARKS = "dogs_with_ties/necks.csv"
#: Training images of each class that are for validation: 10 of 100.
HELD = 0.1


@DATASETS.register
class DogsWithTies(ImageSource):
    """Tibetan mastiffs with red neckties and Pekingese with purple bow ties; the test swaps the ties or has none.

    Source: Bassi, Ali, Cavalli and Decherchi (2025), "Training with explanations alone", D.5; Khosla et al. (2011),
    Stanford Dogs. Licence: Stanford Dogs for research; its photographs are ImageNet's.

    Layout: Stanford Dogs with ``Images/n02108551-Tibetan_mastiff/*.jpg``, ``Images/n02086079-Pekinese/*.jpg`` and
    ``train_list.mat``, ``test_list.mat`` (or in ``lists/``), in the data folder or in ``stanford_dogs/`` in it; from
    you, in ``dogs_with_ties/``: ``necks.csv`` (filename such as n02086079-Pekinese/n02086079_1023.jpg, and left, top,
    right, bottom of the neck in pixels of the photograph) and ``red_necktie.png``, ``purple_bow_tie.png`` with a
    transparent ground. To get it: images.tar and lists.tar from the Stanford Dogs page; marks and ties are the user's,
    as the authors made theirs by hand. Counts: 100 training photographs of each breed, of which 20 in all are for
    validation (180 and 20); 52 Tibetan mastiffs and 49 Pekingese in each test.

    A share ``bias`` of training and validation wears the tie of its breed (TEA: 1.0, and 0.8 for the methods that need
    groups), the rest the other one. Tests, of the same dogs: ``biased``, ``unbiased`` (no tie) and ``deceiving`` (the
    other tie). A bow tie is as wide as the neck and sits in its middle; a necktie is half as wide and hangs from there.
    Photographs are cut to the square in the middle. There are no masks: the bias is on the dogs.
    """

    name = "dogs_with_ties"
    title = "two breeds of dog wearing the tie of their breed: a bias in the foreground (TEA, D.5)"
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(1.0),
        "side": side_option(224),
    }

    def info(self) -> DatasetInfo:
        side, bias = self.chosen["side"], self.chosen["bias"]
        return DatasetInfo(
            label_names=tuple(BREEDS),
            confounder_names=(*TIES, "no_tie"),
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, side, side),
            splits=bias_assignment.SPLITS,
            provides=Needs(
                confounder=True, groups=True, environments=0 < bias < 1, val_groups=True
            ),
            mean=(0.48145466, 0.4578275, 0.40821073),  # TEA, F.2: as for CLIP
            std=(0.26862954, 0.26130258, 0.27577711),
            augmentation={"flip": 0.5},
            source="Bassi et al. (2025), Training with explanations alone; Stanford Dogs: Khosla et al. (2011)",
            licence="Stanford Dogs: research; photographs as on ImageNet",
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def metadata(self) -> list[Path]:
        ties = [self._tie(name) for name in TIES]
        return [self._list("train"), self._list("test"), self._marks(), *ties]

    def read(self) -> dict[str, Pool]:
        marks = _read_marks(self._marks())
        images = self._base("Images")
        names: list[str] = []
        columns: list[tuple[int, bool]] = []
        for part in ("train", "test"):
            listed = _read_list(self._list(part))
            for label, folder in enumerate(BREEDS.values()):
                chosen = [name for name in listed if name.startswith(f"{folder}/")]
                if not chosen:
                    raise UserError(
                        f"{self._list(part)} names no photograph of {folder}; take it as published."
                    )
                names += chosen
                columns += [(label, part == "train")] * len(chosen)
        unmarked = [name for name in names if name not in marks]
        if unmarked:
            raise UserError(
                f"{self._marks()} has no neck for {len(unmarked)} of {len(names)} photographs, the first is "
                f"{unmarked[0]}; mark it there."
            )
        for name in TIES:
            _read_tie(self._tie(name))
        self.neck = np.array([marks[name] for name in names])
        self.label, train = np.array(columns, np.int64).T
        self.train = train.astype(bool)
        return {
            self.name: Pool(
                [Item(f"{images}/{n}") for n in names], Recipe(self.chosen["side"], fit="crop")
            )
        }

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        bias = self.chosen["bias"]
        train, val = [], []
        for c in range(len(BREEDS)):
            mixed = bias_assignment.stream(seed, "divide", c).permutation(
                np.flatnonzero(self.train & (self.label == c))
            )
            held = max(1, round(len(mixed) * HELD))
            val.append(mixed[:held])
            train.append(mixed[held:])
        rows = {"train": np.sort(np.concatenate(train)), "val": np.sort(np.concatenate(val))}
        rows |= dict.fromkeys(("biased", "unbiased", "deceiving"), np.flatnonzero(~self.train))
        splits = {}
        for name, chosen in rows.items():
            label = self.label[chosen]
            if name in ("train", "val"):
                tie = bias_assignment.tie(bias_assignment.stream(seed, name, "tie"), label, 2, bias)
            else:
                tie = {
                    "biased": label,
                    "unbiased": np.full_like(label, NO_TIE),
                    "deceiving": 1 - label,
                }[name]
            environment = bias_assignment.environments(name, label, tie, bias)
            splits[name] = Split(self._wear(chosen, tie), label, tie, environment, pair_id=chosen)
        return splits

    def _wear(self, rows: np.ndarray, tie: np.ndarray) -> np.ndarray:
        """The photographs uint8[N,3,S,S] with the ties pasted on."""
        arrays, side = self.arrays(self.name), self.chosen["side"]
        ties = [(_read_tie(self._tie(name)), hangs) for name, hangs in TIES.items()]

        def fill(start: int, stop: int) -> dict[str, np.ndarray]:
            image = arrays.image[rows[start:stop]]
            for i, (row, kind) in enumerate(zip(rows[start:stop], tie[start:stop], strict=True)):
                if kind != NO_TIE:
                    picture, hangs = ties[kind]
                    box = _on_square(self.neck[row], arrays.size[row], side)
                    paste(image[i], placed(*neck_tie(picture, box, hangs), (side, side)))
            return {"image": np.asarray(image)}

        return self.generate_images([rows, tie], len(rows), CacheColumn((3, side, side)), fill)

    def _base(self, what: str) -> str:
        """A part of Stanford Dogs, below the data folder."""
        found = (f"{folder}/{what}".lstrip("/") for folder in FOLDERS)
        return self.find(*found, how="unpack Stanford Dogs' images.tar and lists.tar there")

    def _list(self, part: str) -> Path:
        found = (
            f"{folder}/{at}{part}_list.mat".lstrip("/")
            for folder in FOLDERS
            for at in ("", "lists/")
        )
        return self.folder() / self.find(*found, how="unpack Stanford Dogs' lists.tar there")

    def _marks(self) -> Path:
        return self.folder() / self.find(
            MARKS, how="mark the dogs' necks: filename, left, top, right, bottom"
        )

    def _tie(self, name: str) -> Path:
        how = "put a picture of a tie on a transparent ground there"
        return self.folder() / self.find(f"dogs_with_ties/{name}.png", how=how)


def _read_list(path: Path) -> list[str]:
    """The file names of one of Stanford Dogs' lists."""
    from scipy.io import loadmat

    try:
        cells = loadmat(path)["file_list"].reshape(-1)
        return [str(cell[0]) for cell in cells]
    except Exception as error:  # scipy raises what it likes on a damaged file
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); unpack lists.tar again."
        ) from None


def _read_marks(path: Path) -> dict[str, tuple[float, ...]]:
    marks: dict[str, tuple[float, ...]] = {}
    for row in read_table(path, ("filename", "left", "top", "right", "bottom"), origin=Origin.USER):
        try:
            left, top, right, bottom = (
                float(row[name]) for name in ("left", "top", "right", "bottom")
            )
        except ValueError:
            raise UserError(
                f"line {row.line} of {path} has a coordinate that is no number."
            ) from None
        if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
            raise UserError(
                f"line {row.line} of {path} marks no area, expected left < right and top < bottom."
            )
        if row["filename"] in marks:
            raise UserError(
                f"line {row.line} of {path} marks {row['filename']} again; expected one neck of each."
            )
        marks[row["filename"]] = (left, top, right, bottom)
    return marks


def _read_tie(path: Path) -> Any:
    """A picture with transparency."""
    try:
        with pixels.open_image(path) as opened:
            pixels.load_first_frame(opened)
            picture = pixels.turn_upright(
                pixels.with_alpha(opened), pixels.read_orientation(opened)
            )
    except pixels.UNREADABLE as error:
        raise unreadable_image(path, error) from None
    if np.asarray(picture)[..., 3].min() == 255:
        raise UserError(
            f"{path} has no transparent ground: a whole rectangle would be pasted; cut the tie out."
        )
    return picture


def _on_square(neck: np.ndarray, size: np.ndarray, side: int) -> Box:
    """Where the neck is once the largest square in the middle is shown at ``side`` pixels."""
    shorter = int(size.min())
    offset = (size - shorter) // 2
    left, top, right, bottom = (neck - np.concatenate([offset, offset])) * (side / shorter)
    return Box(float(left), float(top), float(right), float(bottom))
