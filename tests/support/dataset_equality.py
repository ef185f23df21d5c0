"""Comparing data sets array by array."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np

from benchmark.core.class_masks import ClassMasks
from benchmark.core.dataset import GroupedDataset, Split


def same_arrays(one: Split, other: Split) -> bool:
    """Return True if two splits agree in every array, bit by bit."""
    return digest_of_split(one) == digest_of_split(other)


def same(one: GroupedDataset, other: GroupedDataset) -> bool:
    """Return True if two data sets agree in every array of every split."""
    return digest(one) == digest(other)


def digest(data: GroupedDataset) -> str:
    """A digest of everything that a data set holds."""
    return hashlib.sha256(
        "".join(f"{k}{digest_of_split(v)}" for k, v in data.splits.items()).encode()
    ).hexdigest()


def digest_of_split(split: Split) -> str:
    """A digest of shapes, types and bytes."""
    total = hashlib.sha256()
    for field in fields(split):
        value = getattr(split, field.name)
        if isinstance(value, ClassMasks):
            value = value.rasterise(np.arange(len(split)))
        total.update(field.name.encode())
        if value is not None:
            total.update(f"{value.shape}{value.dtype}".encode())
            total.update(value.tobytes())
    return total.hexdigest()
