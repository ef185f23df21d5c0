"""Folders of photographs, and the normalisation that is common for them."""

from __future__ import annotations

from pathlib import Path

#: Mean and standard deviation of ImageNet's channels, for pixel values in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ENDINGS = (".jpg", ".jpeg", ".png")


def photograph_names(folder: Path) -> list[str]:
    """Return the names of the JPEG and PNG files in a folder, sorted."""
    names = [path.name for path in folder.iterdir()]
    return sorted(name for name in names if name.lower().endswith(_ENDINGS))
