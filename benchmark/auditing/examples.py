"""Examples of an audit: images with a mark or a grey patch, and the answers of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.auditing.answers import AuditImages, answers
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.pull import Mark, neutral_patch, planted_image

#: The number of images.
_EXAMPLES = 8


@dataclass(frozen=True)
class Version:
    """One version of the images.

    Attributes:
        title: What was changed.
        pixels: uint8[N,C,H,W].
        answers: The classes that the model answers, as text, for each image.
    """

    title: str
    pixels: np.ndarray
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Examples:
    """The same images unchanged, with a grey patch and with a mark.

    Attributes:
        mark: The mark.
        label: Name of the class whose mark it is, which none of the images has.
        versions: The versions of the images.
    """

    mark: Mark
    label: str
    versions: tuple[Version, ...]


def make_examples(
    model: AuditedModel, images: AuditImages, mark: Mark, label: int, names: Sequence[str]
) -> Examples:
    """Return images without a class, with and without the mark of the class.

    Args:
        model: the model.
        images: images without marks.
        mark: the kind of mark.
        label: the class.
        names: the names of all classes.
    """
    absent = np.flatnonzero(~images.truth[:, label])
    chosen = absent[
        np.linspace(0, len(absent) - 1, min(_EXAMPLES, len(absent))).round().astype(int)
    ]
    some = AuditImages(
        images.pixels[chosen],
        images.truth[chosen],
        None if images.mask is None else images.mask[chosen],
        None,
        images.multi_label,
    )
    planted = planted_image(some, mark, label)
    shown = {
        "original": some.pixels,
        "grey patch": neutral_patch(some.pixels, planted.pasted, mark),
        f"mark of {names[label]}": planted.image,
    }
    versions = []
    for title, pixels in shown.items():
        found = answers(model, some, pixels) if len(pixels) else np.zeros((0, len(names)), bool)
        told = [", ".join(names[int(k)] for k in np.flatnonzero(row)) or "none" for row in found]
        versions.append(Version(title, pixels, tuple(told)))
    return Examples(mark, names[label], tuple(versions))
