"""COCO's annotations: the largest object of a class in each image, and its mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.core.class_masks import RunLengths
from benchmark.core.errors import UserError
from benchmark.core.files import read_json, write_json
from datasets._io.image_pool import Item

if TYPE_CHECKING:
    from PIL.Image import Image

#: Increase it if the same file gives other objects.
VERSION = 1


def largest_objects(
    path: Path, classes: Sequence[str], min_area: float, folder: str
) -> dict[str, list[Item]]:
    """Find the images of each class that show a large object, and the largest object in each.

    Crowds are ignored because they are not single objects. An image that qualifies for two classes
    is used for the first one only.

    Args:
        path: The annotations, such as ``instances_train2017.json``.
        classes: The names of the classes.
        min_area: The smallest area of an object, in pixels of the image.
        folder: The folder of the images, below the data folder.

    Returns:
        The images of each class in the order of the file.

    Raises:
        UserError: If the file is missing, is not COCO's, or lacks a class.
    """
    data = _read(path)
    try:
        files = {image["id"]: image["file_name"] for image in data["images"]}
        largest = _largest_annotations(path, data, classes, min_area, files)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a file of COCO instances ({error} is missing); use the published file."
        ) from None
    used: set[int] = set()
    items = {}
    for name in classes:
        images = [image for image in files if image in largest[name] and image not in used]
        used.update(images)
        items[name] = [
            Item(f"{folder}/{files[image]}", drawn=json.dumps(largest[name][image]["segmentation"]))
            for image in images
        ]
    return items


def _largest_annotations(
    path: Path, data: Any, classes: Sequence[str], min_area: float, files: dict[int, str]
) -> dict[str, dict[int, dict[str, Any]]]:
    """Return the annotation of the largest object, by class and image."""
    ids = {category["name"]: category["id"] for category in data["categories"]}
    missing = [name for name in classes if name not in ids]
    if missing:
        raise UserError(f"{path} has no category {missing[0]!r}; use the published file.")
    class_of_id = {ids[name]: name for name in classes}
    largest: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in classes}
    for annotation in data["annotations"]:
        name = class_of_id.get(annotation["category_id"])
        image = annotation["image_id"]
        if name is None or annotation.get("iscrowd", 0) or annotation["area"] < min_area:
            continue
        if image not in files:
            raise UserError(
                f"{path}: annotation {annotation['id']} belongs to image {image}, which the file "
                "does not list."
            )
        if image not in largest[name] or annotation["area"] > largest[name][image]["area"]:
            largest[name][image] = annotation
    return largest


def cached_largest_objects(
    cache: Path, path: Path, classes: Sequence[str], min_area: float, folder: str
) -> dict[str, list[Item]]:
    """Return ``largest_objects``, stored in the cache: COCO's file has half a gigabyte.

    Args:
        cache: The folder of the cache.
        path: As for ``largest_objects``.
        classes: Likewise.
        min_area: Likewise.
        folder: Likewise.
    """
    stat = path.stat()
    identity = [VERSION, str(path), stat.st_size, stat.st_mtime_ns, *classes, min_area, folder]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    cached = cache / f"coco-objects-{digest}.json"
    try:
        value = read_json(cached)
        if value["sum"] == _checksum(value["found"]):
            return {name: [Item(*item) for item in items] for name, items in value["found"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # missing or damaged: read the annotations again
    objects = largest_objects(path, classes, min_area, folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        write_json(cached, {"sum": _checksum(objects), "found": objects})
    except OSError:  # Without write access the annotations are read each time.
        pass
    return objects


def draw_segmentation(drawn: str, size: tuple[int, int], where: str) -> Image:
    """Draw a segmentation.

    Args:
        drawn: JSON of a list of polygons [x₀, y₀, x₁, y₁, …], or of ``{"counts": […], "size":
            [h, w]}``, the lengths of alternating runs of background and object, column by column,
            as a list or in COCO's compressed form.
        size: Width and height of the image.
        where: The image, for messages.

    Returns:
        A grey image, 255 inside.

    Raises:
        UserError: If the JSON is neither, or has another size.
    """
    from PIL import Image, ImageDraw

    value = json.loads(drawn)
    if _is_polygons(value):
        mask = Image.new("L", size)
        pen = ImageDraw.Draw(mask)
        for polygon in value:
            pen.polygon([float(number) for number in polygon], fill=255)
        return mask
    counts, height, width = read_run_lengths(value, where)
    if (width, height) != size:
        raise UserError(
            f"the segmentation of {where} has {width}×{height} pixels, but the image has "
            f"{size[0]}×{size[1]}."
        )
    inside = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8) * np.uint8(255)
    return Image.fromarray(np.ascontiguousarray(inside.reshape(width, height).T))


def read_run_lengths(value: Any, where: str) -> RunLengths:
    """Return a segmentation of COCO by run lengths, ``{"counts": […], "size": [h, w]}``.

    Args:
        value: The segmentation; the counts are a list or in COCO's compressed form.
        where: The image, for messages.

    Raises:
        UserError: If it is something else, or the runs do not add up to the size.
    """
    counts = value.get("counts") if isinstance(value, dict) else None
    if isinstance(counts, str):
        counts = decompress_run_lengths(counts)
    if not isinstance(counts, list):
        raise UserError(
            f"the segmentation of {where} is neither polygons nor a list of run lengths, as COCO "
            "publishes them."
        )
    height, width = value.get("size", (0, 0))
    if sum(counts) != width * height:
        raise UserError(
            f"the segmentation of {where} has {width}×{height} pixels, but its runs have "
            f"{sum(counts):,} in all; use the published file."
        )
    return RunLengths(counts, height, width)


def decompress_run_lengths(text: str) -> list[int] | None:
    """Decode COCO's compressed run lengths.

    Every character holds five bits of a number, the lowest first, and whether more follow. From the
    fourth number on, a number is the difference from the run before the last one.

    Returns:
        The lengths of the runs, or None if the text is not valid.
    """
    counts: list[int] = []
    number = 0
    shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:  # negative
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        if counts[-1] < 0:
            return None
        number = 0
        shift = 0
    return counts if shift == 0 else None


def _is_polygons(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(polygon, list) and len(polygon) >= 6 for polygon in value)
    )


def _checksum(objects: object) -> str:
    return hashlib.sha256(json.dumps(objects).encode()).hexdigest()


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; unpack COCO's annotations_trainval2017.zip."
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not JSON ({error}); unpack COCO's annotations again.") from None
