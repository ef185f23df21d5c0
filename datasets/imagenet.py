"""ImageNet with the masks of ImageNet-S, tested on photographs that differ from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from benchmark.core.dataset import DatasetInfo, ImageConversion, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS, did_you_mean
from datasets._io.decode import DecodedImage, Recipe, decode_array, read_class_ids
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource, side_option
from datasets._sources import imagenet_segmentation
from datasets._sources.bias_assignment import random_stream
from datasets._sources.imagenet import (
    MERGED,
    Photographs,
    annotated_images,
    class_folders,
    objectnet_images,
    validation_images,
)
from datasets._sources.imagenet_classes import NAMES, NUMBERS
from datasets._sources.photographs import IMAGENET_MEAN, IMAGENET_STD
from datasets._sources.si_score import CLASSES as SI_SCORE_CLASSES

#: The usual evaluation: resize the shorter side to 256, crop the central 224.
CROP_SHARE = 224 / 256
#: The value of pixels of ImageNet-S's masks that belong to no category, and that are ambiguous.
OTHER, IGNORED = 0, 1000
IMAGENET_S = tuple(
    f"{parent}ImageNetS919" for parent in ("", "imagenet-s/", "ImageNet-S/", "imagenet/")
)
IMAGENET_S_HOW = (
    "make train-semi with datapreparation_train.py of ImageNet-S and unpack the annotations of "
    "ImageNetS919 there"
)


class TestSet(NamedTuple):
    """A test set.

    Attributes:
        folders: Where it may be, below the data folder.
        how: How to get it; the end of messages.
        classes: The number of classes that must be present; 0 for any.
        subset: True if it has fewer classes than ImageNet and is often scored over these only.
        border: The number of pixels to cut off at the edges.
    """

    folders: tuple[str, ...]
    how: str
    classes: int = 0
    subset: bool = False
    border: int = 0


def _v2_folders(version: str) -> tuple[str, ...]:
    return tuple(
        f"{parent}imagenetv2-{version}-format-val" for parent in ("", "imagenetv2/", "imagenet_v2/")
    )


def _si_folders(name: str, unpacked: str) -> tuple[str, ...]:
    """Return the folders as the archives unpack and as the bucket names them."""
    folders = (unpacked, f"object_{name}", f"object_{name}/{unpacked}", name)
    return tuple(f"{parent}{folder}" for parent in ("si-score/", "si_score/") for folder in folders)


_SI_HOW = "fetch {} from the bucket of SI-Score (google-research/si-score)"
#: The test sets, in the order of tables.
TEST_SETS = {
    "imagenet": TestSet(
        (
            "imagenet/val", "imagenet/ILSVRC2012_img_val", "ILSVRC2012_img_val",
            "ILSVRC/Data/CLS-LOC/val", "imagenet/ILSVRC/Data/CLS-LOC/val",
        ),
        "unpack ILSVRC2012_img_val.tar and sort its images into folders named by wnid, or keep the "
        "labels of Kaggle or of the devkit beside it",
        classes=1000,
    ),
    "imagenet_a": TestSet(
        ("imagenet-a",), "unpack imagenet-a.tar again", classes=200, subset=True
    ),
    "imagenet_r": TestSet(
        ("imagenet-r",), "unpack imagenet-r.tar again", classes=200, subset=True
    ),
    "imagenet_sketch": TestSet(
        ("imagenet-sketch/sketch", "ImageNet-Sketch/sketch", "sketch", "imagenet-sketch"),
        "unpack ImageNet-Sketch.zip again",
        classes=1000,
    ),
    "imagenet_v2": TestSet(
        _v2_folders("matched-frequency"),
        "unpack imagenetv2-matched-frequency.tar.gz again",
        classes=1000,
    ),
    "objectnet": TestSet(
        ("objectnet-1.0", "objectnet/objectnet-1.0", "objectnet"),
        "unpack objectnet-1.0.zip again",
        subset=True,
        border=1,
    ),
    "si_score_location": TestSet(
        _si_folders("location", "location20_area02_min0pc"), _SI_HOW.format("location")
    ),
    "si_score_rotation": TestSet(
        _si_folders("rotation", "rotation"), _SI_HOW.format("rotation")
    ),
    "si_score_size": TestSet(_si_folders("size", "area"), _SI_HOW.format("size")),
    "imagenet_s": TestSet(
        IMAGENET_S,
        "make validation with datapreparation_val.py of ImageNet-S and unpack the annotations of "
        "ImageNetS919 there",
    ),
    "imagenet_segmentation": TestSet(
        tuple(
            f"{parent}{imagenet_segmentation.FILE}"
            for parent in ("", "imagenet_segmentation/", "imagenet-segmentation/")
        ),
        imagenet_segmentation.HOW.removesuffix(" again"),
    ),
}  # fmt: skip
#: Names that stand for several test sets.
GROUPS = {"si_score": ("si_score_location", "si_score_rotation", "si_score_size")}
#: Test sets with masks.
MASKED = ("imagenet_s", "imagenet_segmentation")


@DATASETS.register
class ImageNet(ImageSource):
    """ImageNet's photographs with masks for training, and test sets that differ from them.

    Training and validation images are those of ImageNet-S (``train-semi``, ten of each class, with
    masks), as RobustViT uses them: ``train_classes`` random classes are for training, and one image
    of each other class is for validation. Training images are stretched to the square. All others
    are cropped as usual: the central 224 of 256 pixels. The option ``tests`` names the test sets,
    joined by ``+``. Layout and counts:

    =====================  ====================================================================
    for training           ``ImageNetS919/train-semi/<wnid>/*.JPEG`` with masks in
                           ``train-semi-segmentation/<wnid>/*.png``, 9,190 images
    imagenet               validation images of ILSVRC 2012, ``imagenet/val/<wnid>/*.JPEG``, or
                           a flat folder with ``LOC_val_solution.csv`` (Kaggle) or the devkit
    imagenet_a             ``imagenet-a/<wnid>/*.jpg``, 7,500 images of 200 classes
    imagenet_r             ``imagenet-r/<wnid>/*.jpg``, 30,000 images of 200 classes
    imagenet_sketch        ``sketch/<wnid>/*.JPEG``, 50,889 images
    imagenet_v2            ``imagenetv2-matched-frequency-format-val/<0 … 999>/*.jpeg``, 10,000
                           images; the folders are class numbers
    objectnet              ``objectnet-1.0/images/<class>/*.png`` with ``mappings/``; the 113 of
                           313 classes that ImageNet has, 18,574 images, without their red border
    si_score               location, rotation and size: ``si-score/<factor>/<class name>/*.jpg``
    imagenet_s             validation images of ImageNet-S with masks, 12,419 images
    imagenet_segmentation  ``gtsegs_ijcv.mat``, 4,276 images with masks; no accuracy is shown
    =====================  ====================================================================

    Source: Russakovsky et al. (2015), ImageNet; Gao et al. (2022), ImageNet-S; Hendrycks et al.
    (2021), ImageNet-A and ImageNet-R; Wang et al. (2019), ImageNet-Sketch; Recht et al. (2019),
    ImageNetV2; Barbu et al. (2019), ObjectNet; Djolonga et al. (2021), SI-Score; Guillaumin, Küttel
    and Ferrari (2014), ImageNet-Segmentation. Licence: ImageNet for non-commercial research;
    ObjectNet for evaluation only.

    An image of ObjectNet counts as correct if any of the classes is predicted to which its class is
    mapped (the authors of RobustViT count the first one only: ``objectnet=first``). With
    ``scoring=subset`` predictions for ImageNet-A, ImageNet-R and ObjectNet are sought among their
    own classes, else among all 1,000. A mask is the union of ImageNet-S's categories in the image.
    The ten classes that ImageNet-S merges are not used for training.
    """

    name = "imagenet"
    title = "ImageNet"
    description = (
        "ImageNet with the masks of ImageNet-S, tested on ImageNet-A, -R, -Sketch and others"
    )
    classes_may_be_missing = True
    option_titles: ClassVar[Mapping[str, str]] = {"tests": "tests {value}"}
    options: ClassVar[Mapping[str, HParam]] = {
        "tests": HParam(
            "imagenet",
            doc="test sets, joined by +: " + ", ".join((*TEST_SETS, *GROUPS)),
            form=r"[a-z0-9_]+(\+[a-z0-9_]+)*",
        ),
        "scoring": HParam(
            "all",
            doc="classes among which predictions for ImageNet-A, ImageNet-R and ObjectNet are "
            "sought: all 1,000, or those of the test set",
            choices=("all", "subset"),
        ),
        "objectnet": HParam(
            "any",
            doc="accept any class to which a class of ObjectNet is mapped, or the first only",
            choices=("any", "first"),
        ),
        "train_classes": HParam(
            500, doc="number of classes for training; the others validate", low=1, high=1000
        ),
        "per_class": HParam(
            10, doc="largest number of training images of each class", low=1, high=10_000
        ),
        "side": side_option(224),
    }

    found: dict[str, Photographs]

    def info(self) -> DatasetInfo:
        side = self.chosen["side"]
        tests = self.tests()
        return DatasetInfo(
            label_names=NAMES,
            confounder_names=(),
            environment_names=(),
            image_size=(3, side, side),
            splits=("train", "val", *tests),
            provides=Needs(masks=True, val_masks=True),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            augmentation={"crop": 1 - CROP_SHARE, "flip": 0.5},
            source="Russakovsky et al. (2015), ImageNet; Gao et al. (2022), ImageNet-S",
            licence="non-commercial research only; ObjectNet for evaluation only",
            unmasked_splits=tuple(name for name in tests if name not in MASKED),
            unlabelled_splits=tuple(name for name in tests if name == "imagenet_segmentation"),
        )

    def tests(self) -> tuple[str, ...]:
        """Return the names of the test sets, in the order of tables.

        Raises:
            UserError: If a name is unknown or repeated.
        """
        named: list[str] = []
        for name in self.chosen["tests"].split("+"):
            if name not in TEST_SETS and name not in GROUPS:
                known = (*TEST_SETS, *GROUPS)
                raise UserError(
                    f"{self.name}: tests names the unknown test set {name}"
                    f"{did_you_mean(name, known)}"
                )
            named += GROUPS.get(name, (name,))
        if len(set(named)) < len(named):
            raise UserError(
                f"{self.name}: tests = {self.chosen['tests']} names a test set twice; name each "
                "once."
            )
        return tuple(name for name in TEST_SETS if name in named)

    def read(self) -> dict[str, Pool]:
        side = self.chosen["side"]
        root = self.find(*(f"{folder}/train-semi" for folder in IMAGENET_S), how=IMAGENET_S_HOW)
        annotated = annotated_images(
            self, root.removesuffix("/train-semi"), "train-semi", IMAGENET_S_HOW
        )
        used = _without_merged(annotated)
        self.found = {"train": used}
        cropped = Recipe(side, fit="crop", upright=False, share=CROP_SHARE)
        pools = {
            "train": Pool(used.items, Recipe(side, upright=False)),
            "val": Pool(used.items, cropped),
        }
        for name in self.tests():
            test = TEST_SETS[name]
            self.found[name] = self._read_test(name, test)
            recipe = Recipe(side, fit="crop", upright=False, share=CROP_SHARE, border=test.border)
            pools[name] = Pool(self.found[name].items, recipe)
        return pools

    def content(self) -> str:
        """Extend the digest by the labels, which are not all in the names of files."""
        digest = hashlib.sha256(super().content().encode())
        for name, photographs in self.found.items():
            digest.update(name.encode())
            digest.update(photographs.label.tobytes())
            if photographs.accepted is not None:
                digest.update(np.packbits(photographs.accepted).tobytes())
        return digest.hexdigest()[:32]

    def build(self, seed: int) -> dict[str, Split]:
        self.pools()
        label = self.found["train"].label
        train, val = self._divide(seed, label)
        splits = {
            "train": self.split("train", train, label[train]),
            "val": self.split("val", val, label[val]),
        }
        for name in self.tests():
            splits[name] = self._test_split(name)
        return splits

    def conversion(self) -> ImageConversion:
        """Return the conversion of tests. Training images are stretched, as those of RobustViT."""
        return ImageConversion(fit="crop")

    def decode_item(self, item: Item, recipe: Recipe) -> DecodedImage:
        if item.image.endswith(".mat"):
            path = self.folder() / item.image
            return decode_array(
                imagenet_segmentation.read_photograph(path, int(item.drawn)), recipe
            )
        return super().decode_item(item, recipe)

    def load_mask(self, item: Item, size: tuple[int, int]) -> Any:
        from PIL import Image

        if item.drawn:
            path = self.folder() / item.image
            mask = imagenet_segmentation.read_foreground(path, int(item.drawn), size)
        else:
            ids = read_class_ids(self.folder() / item.mask, size)
            mask = (ids != OTHER) & (ids != IGNORED)
        return Image.fromarray(mask.astype(np.uint8) * 255)

    def file_of(self, name: str, split: Split, row: int) -> str:
        items = self.pools()[name].items
        if split.pair_id is None:
            return super().file_of(name, split, row)
        item = items[int(split.pair_id[row])]
        return f"image {item.drawn} of {item.image}" if item.drawn else item.image

    def _read_test(self, name: str, test: TestSet) -> Photographs:
        """List the images of a test set."""
        if name == "imagenet_s":
            folders = [f"{folder}/validation" for folder in test.folders]
            root = self.find(*folders, how=test.how).removesuffix("/validation")
            return annotated_images(self, root, "validation", test.how)
        root = self.find(*test.folders, how=test.how)
        special: dict[str, Callable[[], Photographs]] = {
            "imagenet": lambda: validation_images(self, root, test.how, test.classes),
            "objectnet": lambda: objectnet_images(
                self, root, test.how, first_only=self.chosen["objectnet"] == "first"
            ),
            "imagenet_segmentation": lambda: imagenet_segmentation.read_index(
                self.folder() / root, root
            ),
        }
        if name in special:
            return special[name]()
        numbers: Mapping[str, int] = NUMBERS
        if name == "imagenet_v2":
            numbers = {str(number): number for number in range(len(NAMES))}
        elif name in GROUPS["si_score"]:
            numbers = SI_SCORE_CLASSES
        return class_folders(self, root, numbers, test.how, expected=test.classes)

    def _divide(self, seed: int, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of train and val: all images of some classes, one of each other class."""
        classes = np.unique(label)
        count = self.chosen["train_classes"]
        if count >= len(classes):
            raise UserError(
                f"{self.name}: train_classes = {count} leaves no class for validation, since "
                f"ImageNet-S has {len(classes)} here; use a smaller number."
            )
        order = random_stream(seed, "classes").permutation(classes)
        limits = [self.chosen["per_class"] if i < count else 1 for i in range(len(order))]
        rows = [np.flatnonzero(label == c)[:limit] for c, limit in zip(order, limits, strict=True)]
        return np.sort(np.concatenate(rows[:count])), np.sort(np.concatenate(rows[count:]))

    def _test_split(self, name: str) -> Split:
        photographs = self.found[name]
        rows = np.arange(len(photographs.items))
        split = self.split(name, rows, photographs.label)
        subset = self.chosen["scoring"] == "subset" and TEST_SETS[name].subset
        return replace(
            split,
            accepted=photographs.accepted,
            scored=photographs.classes if subset else None,
        )


def _without_merged(photographs: Photographs) -> Photographs:
    """Leave out the classes that ImageNet-S merges, whose images have one of two labels."""
    merged = [NUMBERS[wnid] for pair in MERGED.items() for wnid in pair]
    rows = np.flatnonzero(~np.isin(photographs.label, merged))
    return Photographs([photographs.items[row] for row in rows], photographs.label[rows])
