"""The image files below a folder: links are followed, and files that are left out are counted."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from benchmark.core.errors import UserError
from datasets._io.names import check_name

#: Endings of images, in lower case. Files with other endings are left out, and reported.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".dcm", ".dicom",
)  # fmt: skip
#: Endings of image formats that are not supported.
_UNSUPPORTED_ENDINGS = (
    ".heic", ".heif", ".jxl", ".psd", ".exr", ".hdr", ".nii", ".mha", ".mhd", ".nrrd", ".npy",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
)  # fmt: skip
#: The first bytes of image files. DICOM has its signature after 128 bytes.
_SIGNATURES = (
    b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ",
)  # fmt: skip
_DICOM_SIGNATURE = slice(128, 132)
#: The largest depth of nested folders. More are a mistake, or a link to another place.
_MAX_DEPTH = 32
#: The largest number of endings, and of folders, that a message lists.
_MAX_LISTED_ENDINGS = 6
_MAX_LISTED_FOLDERS = 5


class Reason(Enum):
    """The reason why files are left out.

    The value completes ``left out as …``. A part after ``;`` is an advice that ends the sentence.
    """

    HIDDEN = "hidden (the name begins with a dot)"
    OTHER = "not images"
    UNSUPPORTED = "images of an unsupported format; convert them"
    WRONG_ENDING = "images without the ending of an image; rename them"
    SPECIAL = "not regular files; remove them"


@dataclass
class ImageTree:
    """The files below a folder.

    Args:
        images: Files with the ending of an image, sorted, as paths below the folder with / between
            the parts.
        left_out: All other files, by reason.
        empty: The outermost folders without images.
    """

    images: list[str] = field(default_factory=list)
    left_out: dict[Reason, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def leave_out(self, reason: Reason, name: str) -> None:
        """Record a file that is left out."""
        self.left_out.setdefault(reason, []).append(name)

    def problems(self, root: Path) -> list[str]:
        """Return sentences about images that are left out and folders without images.

        Files without a known ending are opened to see whether they are images.
        """
        left_out = dict(self.left_out)
        others = left_out.get(Reason.OTHER, [])
        left_out[Reason.WRONG_ENDING] = [n for n in others if _looks_like_image(root / n)]
        sentences = [
            _sentence(left_out[reason], reason)
            for reason in (Reason.UNSUPPORTED, Reason.WRONG_ENDING, Reason.SPECIAL)
            if left_out.get(reason)
        ]
        if self.empty:
            count = f"{len(self.empty):,} folder{'s' * (len(self.empty) != 1)}"
            sentences.append(f"{count} without images: {_listed(self.empty)}.")
        return sentences

    def notes(self, root: Path) -> list[str]:
        """Return sentences about files that are left out and are not images."""
        others = self.left_out.get(Reason.OTHER, [])
        left_out = {
            Reason.HIDDEN: self.left_out.get(Reason.HIDDEN, []),
            Reason.OTHER: [n for n in others if not _looks_like_image(root / n)],
        }
        return [_sentence(names, reason) for reason, names in left_out.items() if names]


def read_image_tree(root: Path, skip: tuple[str, ...] = ()) -> ImageTree:
    """List all files below a folder, following links.

    Args:
        root: The folder.
        skip: Names of files and folders directly in it that are ignored.

    Raises:
        UserError: If a link is broken or leads to a folder that contains it, a folder cannot be
            listed or is nested too deeply, or a name is not UTF-8.
    """
    tree = ImageTree()
    resolved = root.resolve()
    ancestors = [_identity(folder) for folder in (resolved, *resolved.parents)]
    _read_folder(root, "", ancestors, tree, skip)
    tree.images.sort()
    tree.empty.sort()
    return tree


def _read_folder(
    root: Path,
    below: str,
    ancestors: list[tuple[int, int]],
    tree: ImageTree,
    skip: tuple[str, ...] = (),
) -> bool:
    """Read one folder; return True if it contains images, at any depth."""
    if below.count("/") > _MAX_DEPTH:
        raise UserError(f"{root / below} is more than {_MAX_DEPTH} folders deep; remove it.")
    images_before = len(tree.images)
    empty = []
    for entry in _entries(root / below):
        if entry.name in skip:
            continue
        name = f"{below}{entry.name}"
        if entry.name.startswith("."):
            tree.leave_out(Reason.HIDDEN, name)
            continue
        check_name(entry.name, f"in {root / below}, the name")
        mode = _mode(entry)
        if stat.S_ISDIR(mode):
            identity = _identity(Path(entry.path))
            if identity in ancestors:
                raise UserError(
                    f"{entry.path} is a link to {os.path.realpath(entry.path)}, a folder that "
                    "contains it; remove it."
                )
            if not _read_folder(root, f"{name}/", [*ancestors, identity], tree):
                empty.append(name)
        elif stat.S_ISREG(mode):
            _add_file(entry.name, name, tree)
        else:
            tree.leave_out(Reason.SPECIAL, name)
    has_images = len(tree.images) > images_before
    if has_images or not below:
        tree.empty += empty
    return has_images


def _mode(entry: os.DirEntry[str]) -> int:
    """Return the mode of an entry, following links."""
    try:
        if entry.is_file():  # known without another system call
            return stat.S_IFREG
        return entry.stat().st_mode
    except OSError as error:
        if not entry.is_symlink():
            raise UserError(
                f"{entry.path} cannot be read ({error.strerror}); make it readable or remove it."
            ) from None
        raise UserError(
            f"{entry.path} is a link to {os.readlink(entry.path)!a}, which cannot be followed "
            f"({error.strerror}); restore the target or remove the link."
        ) from None


def _add_file(file: str, name: str, tree: ImageTree) -> None:
    ending = os.path.splitext(file)[1].lower()
    if ending in ENDINGS:
        tree.images.append(name)
    elif ending in _UNSUPPORTED_ENDINGS or file.lower().endswith(".nii.gz"):
        tree.leave_out(Reason.UNSUPPORTED, name)
    else:
        tree.leave_out(Reason.OTHER, name)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be listed ({error.strerror}); make it readable or remove "
            "it."
        ) from None


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _looks_like_image(path: Path) -> bool:
    """Return True if the first bytes of a file are those of an image."""
    try:
        with path.open("rb") as file:
            start = file.read(_DICOM_SIGNATURE.stop)
    except OSError:
        return False
    bmp = start[:2] == b"BM" and start[6:10] == b"\0\0\0\0"
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    heif = start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"avif")
    dicom = start[_DICOM_SIGNATURE] == b"DICM"
    return bmp or webp or heif or dicom or start.startswith(_SIGNATURES)


def _sentence(names: list[str], reason: Reason) -> str:
    """Return, for example, ``left out as not images: 1 file (.txt 1), the first is a.txt.``"""
    endings = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in names)
    common = sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))
    listed = ", ".join(f"{ending} {count:,}" for ending, count in common[:_MAX_LISTED_ENDINGS])
    if len(common) > _MAX_LISTED_ENDINGS:
        listed += ", …"
    files = f"{len(names):,} file{'s' * (len(names) != 1)}"
    description, _, advice = reason.value.partition(";")
    end = f";{advice}" if advice else ""
    return f"left out as {description}: {files} ({listed}), the first is {min(names)}{end}."


def _listed(names: list[str]) -> str:
    listed = ", ".join(names[:_MAX_LISTED_FOLDERS])
    more = len(names) - _MAX_LISTED_FOLDERS
    return f"{listed} and {more} more" if more > 0 else listed
