"""Sentences about decoded images for ``benchmark.data check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from datasets._io.pixels import SCALE_FACTS, ImageFact

#: Completes a sentence that begins with the number of images.
_PROBLEMS = {
    ImageFact.DIM: "of more than 8 bits, using fewer than 16 of 256 grey levels: nearly black or "
    "nearly uniform; convert them, or set the number of bits in use (bits=…) if the data set has "
    "that option.",
}
_NOTES = {
    ImageFact.TURNED: "turned upright according to EXIF.",
    ImageFact.TRANSPARENT: "with transparent pixels, put on white.",
    ImageFact.FRAMES: "with several frames or pages, of which the first is used.",
}


class ReportedImage(NamedTuple):
    """An image with notable properties.

    Attributes:
        file: Its path below the data folder.
        facts: Its properties.
    """

    file: str
    facts: ImageFact


def image_problems(images: Sequence[ReportedImage]) -> list[str]:
    """Return a sentence per problem: dim images, and images on different scales."""
    problems = _sentences(images, _PROBLEMS)
    scales = []
    for scale, fact in SCALE_FACTS.items():
        files = _files_with(images, fact)
        if files:
            scales.append(f"{_count(files)} as values from 0 to {scale.value:,}")
    if len(scales) > 1:
        problems.append(
            "images whose format does not define white were read on different scales: "
            f"{', '.join(scales)}; convert them to 8 or 16 bits."
        )
    return problems


def image_notes(images: Sequence[ReportedImage]) -> list[str]:
    """Return a sentence per conversion that was applied to images."""
    return _sentences(images, _NOTES)


def _sentences(images: Sequence[ReportedImage], texts: dict[ImageFact, str]) -> list[str]:
    sentences = []
    for fact, text in texts.items():
        files = _files_with(images, fact)
        if files:
            sentences.append(f"{_count(files)} {text}")
    return sentences


def _files_with(images: Sequence[ReportedImage], fact: ImageFact) -> list[str]:
    return [image.file for image in images if image.facts & fact]


def _count(files: Sequence[str]) -> str:
    """Return ``1 image (a.png)`` or ``2 images (a.png, …)``."""
    if len(files) == 1:
        return f"1 image ({files[0]})"
    return f"{len(files):,} images ({files[0]}, …)"
