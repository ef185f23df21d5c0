"""COCO's annotations: the largest object of a class in each image, and its mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.errors import UserError
from benchmark.core.files import read_json, write_json
from datasets._io.image_pool import Item

if TYPE_CHECKING:
    from PIL.Image import Image


#: Raise it when the same file gives other objects.
VERSION = 1


def largest_objects(
    path: Path, classes: Sequence[str], smallest: float, folder: str
) -> dict[str, list[Item]]:
    """For each class the images that show it large enough, in the order of the file, with its largest object.

    Crowds are left out: they are no single object. An image that qualifies for two classes is used for the first only.

    Args:
        path: such as ``instances_train2017.json``.
        smallest: area of the object, in pixels of the image.
        folder: of the images, below the data folder.

    Raises:
        UserError: the file is missing, is not COCO's, or lacks a class.
    """
    data = _read(path)
    try:
        numbers = {category["name"]: category["id"] for category in data["categories"]}
        files = {image["id"]: image["file_name"] for image in data["images"]}
        lacking = [name for name in classes if name not in numbers]
        if lacking:
            raise UserError(
                f"{path} has no category {lacking[0]!r}; take the file as it was published."
            )
        names = {numbers[name]: name for name in classes}
        best: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in classes}
        for note in data["annotations"]:
            name, image = names.get(note["category_id"]), note["image_id"]
            if name is None or note.get("iscrowd", 0) or note["area"] < smallest:
                continue
            if image not in files:
                raise UserError(
                    f"{path}: annotation {note['id']} is of image {image}, which the file does not list."
                )
            if image not in best[name] or note["area"] > best[name][image]["area"]:
                best[name][image] = note
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a file of COCO instances ({error} is missing); take it as published."
        ) from None
    used: set[int] = set()
    found = {}
    for name in classes:
        chosen = [image for image in files if image in best[name] and image not in used]
        used.update(chosen)
        found[name] = [
            Item(f"{folder}/{files[i]}", drawn=json.dumps(best[name][i]["segmentation"]))
            for i in chosen
        ]
    return found


def remembered(
    cache: Path, path: Path, classes: Sequence[str], smallest: float, folder: str
) -> dict[str, list[Item]]:
    """``largest_objects``, kept beside the decoded images: COCO's file has half a gigabyte and takes long to read."""
    stat = path.stat()
    asked = [VERSION, str(path), stat.st_size, stat.st_mtime_ns, *classes, smallest, folder]
    kept = (
        cache / f"coco-objects-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}.json"
    )
    try:
        value = read_json(kept)
        if value["sum"] == _sum(value["found"]):
            return {name: [Item(*item) for item in items] for name, items in value["found"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not kept, or damaged: read again
    found = largest_objects(path, classes, smallest, folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"sum": _sum(found), "found": found})
    except OSError:  # somebody who may not write here reads the file again each time
        pass
    return found


def _sum(found: object) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def draw(drawn: str, size: tuple[int, int], where: str) -> Image:
    """A segmentation as a grey picture of this width and height, 255 inside.

    Args:
        drawn: JSON of a list of polygons [x₀, y₀, x₁, y₁, …], or of ``{"counts": […], "size": [h, w]}``: lengths of
            runs of background and object in turn, column by column.

    Raises:
        UserError: it is neither, or of another size.
    """
    from PIL import Image, ImageDraw

    value = json.loads(drawn)
    if (
        isinstance(value, list)
        and value
        and all(isinstance(polygon, list) and len(polygon) >= 6 for polygon in value)
    ):
        picture = Image.new("L", size)
        pen = ImageDraw.Draw(picture)
        for polygon in value:
            pen.polygon([float(number) for number in polygon], fill=255)
        return picture
    counts = value.get("counts") if isinstance(value, dict) else None
    if not isinstance(counts, list):
        raise UserError(
            f"the segmentation of {where} is neither polygons nor a list of runs, as COCO publishes them."
        )
    height, width = value.get("size", (0, 0))
    if (width, height) != size or sum(counts) != width * height:
        raise UserError(
            f"the segmentation of {where} is for {width}×{height} pixels, but the image has {size[0]}×{size[1]}."
        )
    inside = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8) * np.uint8(255)
    return Image.fromarray(np.ascontiguousarray(inside.reshape(width, height).T))


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there; unpack COCO's annotations_trainval2017.zip."
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not JSON ({error}); unpack COCO's annotations again.") from None
