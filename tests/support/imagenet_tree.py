"""A small ImageNet with ImageNet-S and all test sets, in the layouts of their archives.

The colour of an image is the number of its class, so that tests see whether files and labels agree.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets._sources.imagenet import MERGED
from datasets._sources.imagenet_classes import NAMES, NUMBERS, WNIDS

SIDE = 8
#: The number of classes of each test set in the tree, of 1,000 or 200.
CLASSES = 40
#: Classes of ImageNet-S in the tree; the last two are merged ones.
ANNOTATED = (*WNIDS[10:20], "n04355933", "n02808440")
#: ObjectNet's classes: folder, label, ImageNet's classes.
OBJECTNET = {
    "alarm_clock": ("Alarm clock", (409, 530)),
    "banana": ("Banana", (954,)),
    "chair": ("Chair", (423, 559, 765)),
}
SI_SCORE = {"banana": 954, "pitcher (container)": 725}


_count = itertools.count()


def picture(number: int, width: int = 12, height: int = 10, border: int = 0) -> bytes:
    """Return a PNG file whose middle has the colour of a class; no two are equal.

    It is noise around the middle, and perhaps has a red border.
    """
    rng = np.random.default_rng(next(_count))
    array = np.full((height, width, 3), (255, 0, 0), np.uint8)
    inside = array[border : height - border, border : width - border]
    inside[:] = rng.integers(0, 200, inside.shape)
    array[2:-2, 3:-3] = (number % 256, number // 256, 7)
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", compress_level=1)
    return file.getvalue()


def number_of(image: np.ndarray) -> np.ndarray:
    """Return the class of decoded images uint8[N,3,H,W] by the colour of their centre."""
    centre = image[:, :, image.shape[2] // 2, image.shape[3] // 2].astype(int)
    assert (centre[:, 2] == 7).all()
    return np.asarray(centre[:, 0] + 256 * centre[:, 1])


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def everything(root: Path) -> Mapping[str, Any]:
    """Write all test sets; return options that use them."""
    imagenet_s(root)
    for number, wnid in enumerate(WNIDS[:CLASSES]):
        put(root / f"imagenet/val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG", picture(number))
        put(root / f"sketch/{wnid}/sketch_0.JPEG", picture(number))
        folder = f"imagenetv2-matched-frequency-format-val/{number}"
        put(root / folder / "ab12.jpeg", picture(number))
    for wnid in WNIDS[100 : 100 + CLASSES]:
        put(root / f"imagenet-a/{wnid}/0.003_fox_0.9.jpg", picture(NUMBERS[wnid]))
    for wnid in WNIDS[200 : 200 + CLASSES]:
        put(root / f"imagenet-r/{wnid}/art_0.jpg", picture(NUMBERS[wnid]))
    put(root / "imagenet-r/README.txt", b"about")
    objectnet(root)
    for folder in ("location20_area02_min0pc", "rotation", "area"):
        for name, number in SI_SCORE.items():
            put(root / f"si-score/{folder}/{name}/0.jpg", picture(number))
    segmentation(root / "gtsegs_ijcv.mat")
    tests = (
        "imagenet+imagenet_a+imagenet_r+imagenet_sketch+imagenet_v2+objectnet+si_score+imagenet_s+"
        "imagenet_segmentation"
    )
    return {"side": SIDE, "train_classes": 6, "tests": tests}


def small(root: Path) -> Mapping[str, Any]:
    """Write ImageNet-S with its validation images and ObjectNet; return options that use them."""
    imagenet_s(root)
    objectnet(root)
    return {"side": SIDE, "train_classes": 6, "tests": "imagenet_s+objectnet"}


def imagenet_s(root: Path) -> None:
    for part, count in (("train-semi", 3), ("validation", 2)):
        for row, wnid in enumerate(ANNOTATED):
            for i in range(count):
                name = f"{wnid}_{i}"
                image = picture(NUMBERS[wnid])
                put(root / f"ImageNetS919/{part}/{wnid}/{name}.JPEG", image)
                file = io.BytesIO()
                Image.fromarray(class_ids(300 + row)).save(file, "PNG")
                folder = f"ImageNetS919/{part}-segmentation/{wnid}"
                put(root / folder / f"{name}.png", file.getvalue())


def class_ids(number: int, width: int = 12, height: int = 10) -> np.ndarray:
    """Return a mask of ImageNet-S: the category on the left, an ignored edge, other on the right.

    Category 512 has R = 0, and 1000 is ignored.
    """
    ids = np.zeros((height, width), int)
    ids[:, : width // 2] = number
    ids[:, width // 2] = 1000
    ids[: height // 2, : width // 4] = 512
    return np.stack([ids % 256, ids // 256, 0 * ids], axis=2).astype(np.uint8)


def objectnet(root: Path) -> None:
    """Write ObjectNet; the rows of its list of labels are in another order than the classes."""
    base = root / "objectnet-1.0"
    for folder, (_, classes) in OBJECTNET.items():
        for i in range(2):
            image = picture(classes[0], 14, 11, border=1)
            put(base / f"images/{folder}/{i}.png", image)
    put(base / "images/air_freshener/0.png", picture(0, border=1))
    rows = np.random.default_rng(0).permutation(1000)
    lines = [""] * 1000
    for number, row in enumerate(rows.tolist()):
        lines[row] = label_text(number)
    mappings: dict[str, Any] = {
        "objectnet_to_imagenet_1k.json": {
            label: "; ".join(map(label_text, classes)) for label, classes in OBJECTNET.values()
        },
        "folder_to_objectnet_label.json": {
            **{folder: label for folder, (label, _) in OBJECTNET.items()},
            "air_freshener": "Air freshener",
        },
        "pytorch_to_imagenet_2012_id.json": dict(enumerate(rows.tolist())),
    }
    for name, value in mappings.items():
        put(base / "mappings" / name, json.dumps(value).encode())
    put(base / "mappings/imagenet_to_label_2012_v2", "\n".join([*lines, ""]).encode())


def label_text(number: int) -> str:
    return f"{NAMES[number]}, number {number}"


def segmentation(path: Path, images: int = 3) -> None:
    """Write ImageNet-Segmentation: references to arrays whose axes MATLAB has turned around."""
    import h5py

    with h5py.File(path, "w") as file:
        table = {
            name: file.create_dataset(f"value/{name}", (images, 1), dtype=h5py.ref_dtype)
            for name in ("img", "gt")
        }
        for row in range(images):
            width, height = 12 + row, 10
            image = np.zeros((3, width, height), np.uint8)
            image[0], image[2] = row, 7
            mask = np.zeros((width, height), np.uint8)
            mask[: width // 2] = 1
            table["img"][row, 0] = file.create_dataset(f"#refs#/i{row}", data=image).ref
            inner = file.create_dataset(f"#refs#/m{row}", data=mask)
            cell = file.create_dataset(f"#refs#/c{row}", (1, 1), dtype=h5py.ref_dtype)
            cell[0, 0] = inner.ref
            table["gt"][row, 0] = cell.ref


assert set(MERGED.values()) & set(ANNOTATED)
