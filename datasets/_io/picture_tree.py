"""The files of a folder with pictures: links followed, everything that is left out counted."""

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

#: Endings of pictures, in small letters. Endings that are not here are left out, and `check` says so.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".dcm", ".dicom",
)  # fmt: skip
#: Endings of pictures that cannot be read here.
_FOREIGN = (
    ".heic", ".heif", ".jxl", ".psd", ".exr", ".hdr", ".nii", ".mha", ".mhd", ".nrrd", ".npy", ".raw",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2",
)  # fmt: skip
#: How files of pictures begin; DICOM has its mark behind 128 bytes.
_SIGNATURES = (
    b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ",
)  # fmt: skip
_DICOM_MARK = slice(128, 132)
#: Folders inside each other; more are a mistake, or a link to somewhere else.
_DEEPEST = 32


class Reason(Enum):
    """Why a file is left out; the value begins the sentence, and after ``;`` ends it."""

    HIDDEN = "hidden, by a dot before the name"
    OTHER = "no pictures"
    FOREIGN = "pictures of a kind that cannot be read here; convert"
    DISGUISED = "pictures without an ending of pictures; rename"
    DEVICE = "no plain files; remove"


@dataclass
class Tree:
    """What a folder holds.

    Args:
        pictures: files with an ending of pictures, from the folder on with / between the parts, sorted.
        left_out: all other files, by reason.
        empty: folders without any picture in or below them; of several inside each other only the outermost.
    """

    pictures: list[str] = field(default_factory=list)
    left_out: dict[Reason, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def leave_out(self, reason: Reason, name: str) -> None:
        self.left_out.setdefault(reason, []).append(name)

    def problems(self, root: Path) -> list[str]:
        """Pictures that are left out, and folders without any. Files without a known ending are looked into."""
        found = dict(self.left_out)
        disguised = [n for n in found.get(Reason.OTHER, []) if _looks_like_picture(root / n)]
        found[Reason.DISGUISED] = disguised
        wrong = (Reason.FOREIGN, Reason.DISGUISED, Reason.DEVICE)
        problems = [_sentence(found[r], r) for r in wrong if found.get(r)]
        if self.empty:
            names = _some(self.empty)
            problems.append(
                f"{len(self.empty):,} folder{'s' * (len(self.empty) != 1)} without any picture: {names}."
            )
        return problems

    def notes(self, root: Path) -> list[str]:
        """Files that are left out and are no pictures."""
        plain = [
            n for n in self.left_out.get(Reason.OTHER, []) if not _looks_like_picture(root / n)
        ]
        found = {Reason.HIDDEN: self.left_out.get(Reason.HIDDEN, []), Reason.OTHER: plain}
        return [_sentence(names, reason) for reason, names in found.items() if names]


def read_tree(root: Path, skip: tuple[str, ...] = ()) -> Tree:
    """Everything below a folder, links followed.

    Args:
        root: the folder.
        skip: names of files and folders directly in it that are accounted for elsewhere.

    Raises:
        UserError: a link leads nowhere or to a folder that it lies in, a folder cannot be listed or lies too deep, or a
            name is not UTF-8.
    """
    tree = Tree()
    ancestors = [_identity(folder) for folder in (root.resolve(), *root.resolve().parents)]
    _read(root, "", ancestors, tree, skip)
    tree.pictures.sort()
    tree.empty.sort()
    return tree


def _read(
    root: Path,
    below: str,
    ancestors: list[tuple[int, int]],
    tree: Tree,
    skip: tuple[str, ...] = (),
) -> bool:
    """Read one folder; returns whether there are pictures in or below it."""
    if below.count("/") > _DEEPEST:
        raise UserError(f"{root / below} is more than {_DEEPEST} folders deep; take it away.")
    before, empty = len(tree.pictures), []
    for entry in _entries(root / below):
        if entry.name in skip:
            continue
        name = f"{below}{entry.name}"
        if entry.name.startswith("."):
            tree.leave_out(Reason.HIDDEN, name)
            continue
        check_name(entry.name, f"in {root / below}, the name")
        kind = _mode(entry)
        if stat.S_ISDIR(kind):
            identity = _identity(Path(entry.path))
            if identity in ancestors:
                raise UserError(
                    f"{entry.path} is a link to {os.path.realpath(entry.path)}, a folder that it lies in; take it away."
                )
            if not _read(root, f"{name}/", [*ancestors, identity], tree):
                empty.append(name)
        elif stat.S_ISREG(kind):
            _sort_file(entry.name, name, tree)
        else:
            tree.leave_out(Reason.DEVICE, name)
    found = len(tree.pictures) > before
    if found or not below:
        tree.empty += empty
    return found


def _mode(entry: os.DirEntry[str]) -> int:
    """What kind of file an entry is, links followed."""
    try:
        if entry.is_file():  # known without asking the disk again
            return stat.S_IFREG
        return entry.stat().st_mode
    except OSError as error:
        if not entry.is_symlink():
            raise UserError(
                f"{entry.path} cannot be read ({error.strerror}); make it readable, or take it away."
            ) from None
        raise UserError(
            f"{entry.path} is a link to {os.readlink(entry.path)!a}, which cannot be followed ({error.strerror}); "
            "restore what it leads to, or take the link away."
        ) from None


def _sort_file(file: str, name: str, tree: Tree) -> None:
    ending = os.path.splitext(file)[1].lower()
    if ending in ENDINGS:
        tree.pictures.append(name)
    elif ending in _FOREIGN or file.lower().endswith(".nii.gz"):
        tree.leave_out(Reason.FOREIGN, name)
    else:
        tree.leave_out(Reason.OTHER, name)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be listed ({error.strerror}); make it readable, or take it away."
        ) from None


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _looks_like_picture(path: Path) -> bool:
    """Whether a file begins as pictures do, whatever its name."""
    try:
        with path.open("rb") as file:
            start = file.read(_DICOM_MARK.stop)
    except OSError:
        return False
    bmp = start[:2] == b"BM" and start[6:10] == b"\0\0\0\0"
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    heif = start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"avif")
    return bmp or webp or heif or start[_DICOM_MARK] == b"DICM" or start.startswith(_SIGNATURES)


def _sentence(names: list[str], reason: Reason) -> str:
    """``left out as no pictures: 3 files (.txt 2, .db 1), the first is train/a/notes.txt.``"""
    endings = Counter(os.path.splitext(name)[1].lower() or "no ending" for name in names)
    common = sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{ending} {count:,}" for ending, count in common[:6])
    more = ", …" if len(common) > 6 else ""
    files = f"{len(names):,} file{'s' * (len(names) != 1)}"
    what, _, advice = reason.value.partition(";")
    end = f";{advice} them" if advice else ""
    return f"left out as {what}: {files} ({shown}{more}), the first is {min(names)}{end}."


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
