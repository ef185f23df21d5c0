"""Places365's photographs, category by category, in the layouts in which they are unpacked."""

from __future__ import annotations

from benchmark.core.errors import UserError
from datasets._io.image_pool import Item
from datasets._io.image_source import ImageSource

#: Folders that hold the categories: as the archives are unpacked (256 px or high resolution), and as torchvision
#: renames them; on their own or in a folder of their name.
FOLDERS = tuple(
    f"{above}{name}"
    for above in ("", "places365/", "places365_standard/")
    for name in ("data_256", "data_large", "data_256_standard", "data_large_standard")
)
SOURCE = "Places365: Zhou et al. (2018), Places: a 10 million image database for scene recognition"
LICENCE = "Places: free for research and education"
HOW = "unpack train_256_places365standard.tar or train_large_places365standard.tar there"


def photographs(source: ImageSource, category: str, count: int) -> list[Item]:
    """The first ``count`` photographs of a category such as ``forest/broadleaf``, by name.

    Raises:
        UserError: no Places folder, no such category, or fewer photographs.
    """
    folder = f"{source.find(*FOLDERS, how=HOW)}/{category[0]}/{category}"
    path = source.folder() / folder
    if not path.is_dir():
        raise UserError(
            f"{source.name} needs the place {category}, but there is no folder {path}; {HOW}."
        )
    names = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name.lower().endswith((".jpg", ".jpeg", ".png"))
    )
    if len(names) < count:
        raise UserError(
            f"{source.name} needs {count} photographs of the place {category}, but {path} holds {len(names)}; {HOW}."
        )
    return [Item(f"{folder}/{name}") for name in names[:count]]
