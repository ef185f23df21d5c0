"""Bounding boxes of findings in medical images, and the masks that they make."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core.class_masks import RelativeBox
from benchmark.core.errors import UserError, shown
from datasets._io.table import Row
from datasets._sources.compositing import Box

if TYPE_CHECKING:
    from PIL.Image import Image

#: A box may exceed its image by this many pixels, since published coordinates are rounded.
MAX_EXCESS = 1.0


def read_box(path: Path, row: Row, columns: Sequence[str], *, size: bool) -> Box:
    """Read a bounding box in pixels from four cells.

    Args:
        path: The table, for messages.
        row: The row.
        columns: The columns of left, top, and either width and height or right and bottom.
        size: True if the last two are width and height.

    Raises:
        UserError: If a cell is not a number, or the box is empty or has a negative coordinate.
    """
    numbers = []
    for column in columns:
        try:
            number = float(row[column])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"{path}: {column} = {shown(row[column])} in {row.place}, expected a number; use "
                "the file as it was published."
            )
        numbers.append(number)
    left, top, right, bottom = numbers
    if size:
        right += left
        bottom += top
    if left < -MAX_EXCESS or top < -MAX_EXCESS or right <= left or bottom <= top:
        raise UserError(
            f"{path}: the box in {row.place} is empty or begins outside the image (left {left:g}, "
            f"top {top:g}, right {right:g}, bottom {bottom:g}); use the file as it was published."
        )
    return Box(left, top, right, bottom)


def to_json(boxes: Sequence[Box]) -> str:
    """Return the boxes of an image for ``Item.drawn``; an empty list gives an empty mask."""
    return json.dumps(boxes)


def relative_box(box: Box, size: Sequence[int]) -> RelativeBox:
    """Return a box in shares of the width and the height of its image.

    Args:
        box: The box in pixels.
        size: Width and height of the image.
    """
    width, height = size
    return RelativeBox(box.left / width, box.top / height, box.right / width, box.bottom / height)


def draw_boxes(drawn: str, size: tuple[int, int], where: str) -> Image:
    """Draw the union of all boxes of an image.

    Args:
        drawn: The result of ``to_json``.
        size: Width and height of the image.
        where: The image, for messages.

    Returns:
        A grey image, 255 for every pixel that a box touches.

    Raises:
        UserError: If a box reaches outside the image.
    """
    from PIL import Image, ImageDraw

    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    for box in (Box(*numbers) for numbers in json.loads(drawn)):
        if box.right > size[0] + MAX_EXCESS or box.bottom > size[1] + MAX_EXCESS:
            raise UserError(
                f"a box of {where} reaches to x = {box.right:g} and y = {box.bottom:g}, but the "
                f"image has {size[0]}×{size[1]} pixels; use the images at their published size."
            )
        # Pillow includes the right and the bottom edge.
        corner = (math.ceil(box.right) - 1, math.ceil(box.bottom) - 1)
        pen.rectangle(((math.floor(box.left), math.floor(box.top)), corner), fill=255)
    return mask
