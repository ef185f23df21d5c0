"""Pools of images: lists of files that are decoded in the same way and cached together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets._io.cache_entry import CacheColumn
from datasets._io.decode import Recipe


class Item(NamedTuple):
    """One image.

    Attributes:
        image: The image file below the data folder, with / between the parts.
        mask: The mask file, likewise; empty if there is none.
        drawn: The outline of the mask as JSON, if the mask is not a file.
    """

    image: str
    mask: str = ""
    drawn: str = ""


@dataclass(frozen=True)
class Pool:
    """Images that are decoded in the same way and stored together.

    Args:
        items: The images, in the order of the decoded arrays.
        recipe: The way in which they are decoded.
    """

    items: Sequence[Item]
    recipe: Recipe

    @property
    def masked(self) -> bool:
        """True if every image has a mask."""
        return bool(self.items) and all(item.mask or item.drawn for item in self.items)

    def columns(self) -> dict[str, CacheColumn]:
        """Return the arrays of the pool's cache entry."""
        side = self.recipe.side
        channels = self.recipe.channels + self.recipe.cutout
        columns = {
            "image": CacheColumn((channels, side, side)),
            "size": CacheColumn((2,), "int32"),
            "facts": CacheColumn((1,)),
        }
        if self.masked:
            columns["mask"] = CacheColumn((1, side, side), "bool")
        return columns


class PoolArrays(NamedTuple):
    """A decoded pool.

    Attributes:
        image: uint8[N,C,H,W].
        size: int32[N,2], width and height of the files after turning upright.
        mask: bool[N,1,H,W], or None.
        facts: uint8[N], flags of ``ImageFact``.
    """

    image: np.ndarray
    size: np.ndarray
    mask: np.ndarray | None
    facts: np.ndarray
