"""DogsWithTies: two breeds of dog, each with its tie; the bias is on the dogs themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmark.core.dataset import DatasetInfo, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import DATASETS
from datasets._io import pixels
from datasets._io.cache_entry import CacheColumn
from datasets._io.decode import Recipe, unreadable_image
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._io.table import Origin, read_table
from datasets._sources import bias_assignment
from datasets._sources.bias_assignment import random_stream
from datasets._sources.compositing import Box, TieKind, image_layer, paste, tie_box
from datasets._sources.holdout import hold_out

#: The folders of Stanford Dogs by class. ("Pekinese" is its spelling.)
BREEDS = {"tibetan_mastiff": "n02108551-Tibetan_mastiff", "pekingese": "n02086079-Pekinese"}
#: The tie of each class.
TIES = {"red_necktie": TieKind.NECKTIE, "purple_bow_tie": TieKind.BOW_TIE}
NO_TIE = len(TIES)
FOLDERS = ("stanford_dogs", "StanfordDogs", "dogs_with_ties", "")
NECKS = "dogs_with_ties/necks.csv"
#: The share of the training images of each class that is used for validation: 10 of 100.
HOLDOUT = 0.1


@DATASETS.register
class DogsWithTies(ImageSource):
    """Tibetan mastiffs with red neckties and Pekingese with purple bow ties.

    Source: Bassi, Ali, Cavalli and Decherchi (2025), "Training with explanations alone", D.5;
    Khosla et al. (2011), Stanford Dogs. Licence: Stanford Dogs for research; its photographs are
    ImageNet's.

    Layout: Stanford Dogs with ``Images/n02108551-Tibetan_mastiff/*.jpg``,
    ``Images/n02086079-Pekinese/*.jpg`` and ``train_list.mat``, ``test_list.mat`` (or in
    ``lists/``), in the data folder or in its folder ``stanford_dogs/``; and, made by you, in
    ``dogs_with_ties/``: ``necks.csv`` (filename such as n02086079-Pekinese/n02086079_1023.jpg, and
    left, top, right, bottom of the neck in pixels of the photograph) and ``red_necktie.png``,
    ``purple_bow_tie.png`` with a transparent background. To get it: images.tar and lists.tar from
    the Stanford Dogs page; the authors made the annotations and the ties by hand. Counts: 100
    training photographs of each breed, of which 20 in total are for validation (180 and 20); 52
    Tibetan mastiffs and 49 Pekingese in each test.

    In train and val, a share ``bias`` wears the tie of its breed (TEA: 1.0, and 0.8 for methods
    that need groups), and the rest the other one. The tests show the same dogs: ``biased``,
    ``unbiased`` (no tie) and ``deceiving`` (the other tie). A bow tie is as wide as the neck and
    centred on it. A necktie is half as wide and hangs from the centre. Photographs are cropped to
    the central square and not augmented (TEA, F.2). There are no masks: the bias is on the dogs.
    """

    name = "dogs_with_ties"
    title = "Dogs with ties"
    description = (
        "two breeds of dog wearing the tie of their breed: a bias in the foreground (TEA, D.5)"
    )
    options: ClassVar[Mapping[str, HParam]] = {
        "bias": bias_assignment.bias_option(1.0),
        "side": side_option(224),
    }

    neck: np.ndarray
    label: np.ndarray
    train: np.ndarray

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        bias = self.chosen["bias"]
        return DatasetInfo(
            label_names=tuple(BREEDS),
            confounder_names=(*TIES, "no_tie"),
            environment_names=bias_assignment.environment_names(bias),
            image_size=(3, side, side),
            splits=bias_assignment.SPLITS,
            provides=bias_assignment.provided_annotations(bias, masks=False),
            mean=(0.48145466, 0.4578275, 0.40821073),  # TEA, F.2: as for CLIP
            std=(0.26862954, 0.26130258, 0.27577711),
            source="Bassi et al. (2025), Training with explanations alone; "
            "Stanford Dogs: Khosla et al. (2011)",
            licence="Stanford Dogs: research; photographs as on ImageNet",
            bias_splits=("biased", "deceiving"),
            paired=True,
        )

    def metadata(self) -> list[Path]:
        ties = [self._tie_path(name) for name in TIES]
        return [self._list_path("train"), self._list_path("test"), self._necks_path(), *ties]

    def read(self) -> dict[str, Pool]:
        neck_of = _read_necks(self._necks_path())
        names: list[str] = []
        labels: list[int] = []
        train: list[bool] = []
        for part in ("train", "test"):
            listed = _read_list(self._list_path(part))
            for label, folder in enumerate(BREEDS.values()):
                selected = [name for name in listed if name.startswith(f"{folder}/")]
                if not selected:
                    raise UserError(
                        f"{self._list_path(part)} names no photograph of {folder}; use the "
                        "published file."
                    )
                names += selected
                labels += [label] * len(selected)
                train += [part == "train"] * len(selected)
        missing = [name for name in names if name not in neck_of]
        if missing:
            raise UserError(
                f"{self._necks_path()} has no neck for {len(missing)} of {len(names)} "
                f"photographs, the first is {missing[0]}; add it."
            )
        for name in TIES:
            _read_tie(self._tie_path(name))
        self.neck = np.array([neck_of[name] for name in names])
        self.label = np.array(labels, np.int64)
        self.train = np.array(train)
        image_folder = self._find_part("Images", how="images.tar")
        items = [Item(f"{image_folder}/{name}") for name in names]
        return {self.name: Pool(items, Recipe(self.chosen["side"], fit="crop"))}

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        bias = self.chosen["bias"]
        groups = []
        for c in range(len(BREEDS)):
            rows_of_class = np.flatnonzero(self.train & (self.label == c))
            groups.append(random_stream(seed, "divide", c).permutation(rows_of_class))
        train, val = hold_out(groups, HOLDOUT, minimum=1)
        tests = np.flatnonzero(~self.train)
        splits = {}
        for name in bias_assignment.SPLITS:
            rows = {"train": train, "val": val}.get(name, tests)
            label = self.label[rows]
            if name in ("train", "val"):
                rng = random_stream(seed, name, "tie")
                tie = bias_assignment.assign_confounders(rng, label, len(TIES), bias)
            else:
                ties = {
                    "biased": label,
                    "unbiased": np.full_like(label, NO_TIE),
                    "deceiving": 1 - label,
                }
                tie = ties[name]
            splits[name] = Split(
                image=self._paste_ties(rows, tie),
                label=label,
                confounder=tie,
                environment=bias_assignment.bias_environments(name, label, tie, bias),
                pair_id=rows,
            )
        return splits

    def _paste_ties(self, rows: np.ndarray, tie: np.ndarray) -> np.ndarray:
        """Paste ties on photographs, uint8[N,3,S,S]."""
        arrays = self.arrays(self.name)
        side = self.chosen["side"]
        ties = [(_read_tie(self._tie_path(name)), kind) for name, kind in TIES.items()]

        def compute(start: int, stop: int) -> dict[str, np.ndarray]:
            image = arrays.image[rows[start:stop]]
            pairs = zip(rows[start:stop], tie[start:stop], strict=True)
            for i, (row, number) in enumerate(pairs):
                if number != NO_TIE:
                    tie_image, kind = ties[number]
                    neck = _neck_in_crop(self.neck[row], arrays.size[row], side)
                    box = tie_box(tie_image, neck, kind)
                    paste(image[i], image_layer(tie_image, box, (side, side)))
            return {"image": np.asarray(image)}

        return self.generate_images([rows, tie], len(rows), CacheColumn((3, side, side)), compute)

    def _find_part(self, *names: str, how: str) -> str:
        """Return a part of Stanford Dogs, below the data folder."""
        candidates = (f"{folder}/{name}".lstrip("/") for folder in FOLDERS for name in names)
        return self.find(*candidates, how=f"unpack {how} of Stanford Dogs there")

    def _list_path(self, part: str) -> Path:
        name = f"{part}_list.mat"
        return self.folder() / self._find_part(name, f"lists/{name}", how="lists.tar")

    def _necks_path(self) -> Path:
        how = "annotate the dogs' necks: filename, left, top, right, bottom"
        return self.folder() / self.find(NECKS, how=how)

    def _tie_path(self, name: str) -> Path:
        how = "put an image of a tie with a transparent background there"
        return self.folder() / self.find(f"dogs_with_ties/{name}.png", how=how)


def _read_list(path: Path) -> list[str]:
    """Read the file names in one of Stanford Dogs' lists."""
    from scipy.io import loadmat

    try:
        cells = loadmat(path)["file_list"].reshape(-1)
        return [str(cell[0]) for cell in cells]
    except Exception as error:  # scipy raises many types on damaged files
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); unpack lists.tar again."
        ) from None


def _read_necks(path: Path) -> dict[str, tuple[float, ...]]:
    """Read left, top, right and bottom of the neck in each photograph."""
    columns = ("left", "top", "right", "bottom")
    necks: dict[str, tuple[float, ...]] = {}
    for row in read_table(path, ("filename", *columns), origin=Origin.USER):
        try:
            left, top, right, bottom = (float(row[name]) for name in columns)
        except ValueError:
            raise UserError(
                f"line {row.line} of {path} has a coordinate that is not a number; correct it."
            ) from None
        if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
            raise UserError(
                f"line {row.line} of {path} has an empty or infinite box, expected left < right "
                "and top < bottom."
            )
        if row["filename"] in necks:
            raise UserError(
                f"line {row.line} of {path} repeats {row['filename']}; expected one neck of each."
            )
        necks[row["filename"]] = (left, top, right, bottom)
    return necks


def _read_tie(path: Path) -> Any:
    """Read an image with transparency."""
    try:
        with pixels.open_image(path) as opened:
            pixels.load_first_frame(opened)
            orientation = pixels.read_orientation(opened)
            image = pixels.turn_upright(pixels.with_alpha(opened), orientation)
    except pixels.UNREADABLE as error:
        raise unreadable_image(path, error) from None
    if np.asarray(image)[..., 3].min() == 255:
        raise UserError(
            f"{path} has no transparent background, so a whole rectangle would be pasted; cut the "
            "tie out."
        )
    return image


def _neck_in_crop(neck: np.ndarray, size: np.ndarray, side: int) -> Box:
    """Return the box of a neck after the central square is cropped and resized to ``side``."""
    shorter = int(size.min())
    offset = (size - shorter) // 2
    left, top, right, bottom = (neck - np.concatenate([offset, offset])) * (side / shorter)
    return Box(float(left), float(top), float(right), float(bottom))
