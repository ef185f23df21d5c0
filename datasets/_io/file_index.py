"""Sizes and modification times of many files, looked up once."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from benchmark.core.errors import UserError
from datasets._io.image_pool import Item


class FileIndex:
    """The files below a folder.

    Every folder is listed once, which is much faster than asking for each file. Files that are
    created or changed later are not noticed.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, dict[str, os.stat_result | None]] = {}

    def stat(self, path: str) -> os.stat_result | None:
        """Return the status of a file below the root, or None if it does not exist."""
        parent, _, name = path.rpartition("/")
        if parent not in self._folders:
            self._folders[parent] = dict.fromkeys(self._list(parent))
        listed = self._folders[parent]
        if name not in listed:
            return None
        if listed[name] is None:
            try:
                listed[name] = os.stat(self.root / path)
            except OSError:  # a broken link
                del listed[name]
                return None
        return listed[name]

    def sizes(self, item: Item, *, times: bool = False) -> list[int]:
        """Return the sizes of an item's files; -1 for a missing one.

        Args:
            item: The item.
            times: Add the modification time, in nanoseconds, after each size.
        """
        numbers = []
        for path in filter(None, (item.image, item.mask)):
            found = self.stat(path)
            if found is None:
                numbers.append(-1)
            else:
                numbers.append(found.st_size)
                if times:
                    numbers.append(found.st_mtime_ns)
        return numbers

    def check(self, files: Sequence[str], kind: str, name: str) -> None:
        """Check that all files exist and are not empty.

        Args:
            files: Paths below the root.
            kind: ``images`` or ``masks``, for messages.
            name: The name of the data set, for messages.

        Raises:
            UserError: If files are missing, are not regular files, or are empty.
        """
        found = {file: self.stat(file) for file in files}
        missing = [file for file in files if found[file] is None]
        if missing:
            raise UserError(
                f"{name}: {len(missing)} of {len(files)} {kind} are not in {self.root}, the first "
                f"is {missing[0]}; unpack the data set again, or correct its list of files."
            )
        for file, status in found.items():
            if status is not None and not stat.S_ISREG(status.st_mode):
                raise UserError(
                    f"{name}: {file} in {self.root} is a folder or a device, expected an image "
                    "file; correct the list of files."
                )
        empty = [file for file in files if (status := found[file]) and status.st_size == 0]
        if empty:
            raise UserError(
                f"{name}: {len(empty)} of {len(files)} {kind} are empty files, the first is "
                f"{empty[0]}; unpack the data set again."
            )

    def _list(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return [entry.name for entry in entries]
        except PermissionError:
            raise
        except (OSError, ValueError):  # missing, not a folder, a loop of links, or an invalid name
            return []
