"""Photographs of Places365, category by category, in the layouts of its archives."""

from __future__ import annotations

from benchmark.core.errors import UserError
from datasets._io.image_pool import Item
from datasets._io.image_source import ImageSource
from datasets._sources.photographs import photograph_names

#: Folders that contain the categories: as the archives are unpacked (256 px or high resolution) and
#: as torchvision renames them, on their own or in a parent folder.
FOLDERS = tuple(
    f"{parent}{name}"
    for parent in ("", "places365/", "places365_standard/")
    for name in ("data_256", "data_large", "data_256_standard", "data_large_standard")
)
SOURCE = "Places365: Zhou et al. (2018), Places: a 10 million image database for scene recognition"
LICENCE = "Places: free for research and education"
HOW = "unpack train_256_places365standard.tar or train_large_places365standard.tar there"


def category_photographs(source: ImageSource, category: str, count: int) -> list[Item]:
    """Return the first photographs of a category, by name.

    Args:
        source: The data set that uses them.
        category: A category such as ``forest/broadleaf``.
        count: The number of photographs.

    Raises:
        UserError: If Places or the category is missing, or has fewer photographs.
    """
    folder = f"{source.find(*FOLDERS, how=HOW)}/{category[0]}/{category}"
    path = source.folder() / folder
    if not path.is_dir():
        raise UserError(
            f"{source.name} needs the place {category}, but there is no folder {path}; {HOW}."
        )
    names = photograph_names(path)
    if len(names) < count:
        raise UserError(
            f"{source.name} needs {count} photographs of the place {category}, but {path} has "
            f"{len(names)}; {HOW}."
        )
    return [Item(f"{folder}/{name}") for name in names[:count]]
