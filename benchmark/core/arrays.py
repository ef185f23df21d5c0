"""Safe reading of .npz files: only numbers and strings of the expected type and shape."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.files import require_file, sha256_of

#: Largest size of an .npz file, in bytes.
MAX_FILE_BYTES = 1 << 34
#: Largest size of an unpacked array, in bytes.
MAX_ARRAY_BYTES = 1 << 32
#: Largest number of characters of a string in an array.
MAX_TEXT_LENGTH = 1000
#: Names of NumPy's kinds of data types, for messages.
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "U": "text"}


class ArrayFile:
    """An .npz file that is open for reading, to be used in a ``with`` statement.

    Every array is checked before memory is allocated for it: its type, its shape, and that the
    archive declares exactly the number of bytes that they take. Objects are never unpickled.

    Args:
        path: The file.
        checksum: Hexadecimal SHA-256 of the file, or None if it is unknown.
        max_bytes: Largest size of an unpacked array.

    Raises:
        FileNotFoundError: If the file does not exist.
        DamagedError: If it is not an archive, or its checksum differs.
    """

    def __init__(
        self, path: Path, checksum: str | None = None, max_bytes: int = MAX_ARRAY_BYTES
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        require_file(path, MAX_FILE_BYTES)
        if checksum is not None and sha256_of(path) != checksum:
            raise self._damaged("its checksum is wrong: it was changed or belongs to another run")
        try:
            self._archive = zipfile.ZipFile(path)
            names = self._archive.namelist()
        except FileNotFoundError:
            raise
        except Exception as error:  # Damaged archives raise many types of exceptions.
            raise self._damaged(type(error).__name__) from None
        self.names = [name.removesuffix(".npy") for name in names]

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()

    def read(self, name: str, kinds: str, shape: Sequence[int | None]) -> np.ndarray:
        """Read one array.

        Args:
            name: Name of the array.
            kinds: Letters of the accepted NumPy kinds: ``b`` bool, ``i`` int, ``u`` unsigned, ``f``
                float, ``U`` string.
            shape: Expected shape; None stands for any length.

        Raises:
            DamagedError: If the array is missing, has another type or shape, contains values that
                are not finite, or cannot be unpacked.
        """
        if self.names.count(name) != 1:
            count = "no array" if name not in self.names else "several arrays"
            raise DamagedError(f"{self.path.name} has {count} {name}.")
        try:
            info = self._archive.getinfo(f"{name}.npy")
            with self._archive.open(info) as member:
                stored_shape, fortran_order, dtype = _read_header(member)
                self._check_type(name, stored_shape, dtype, kinds, shape)
                size = math.prod(stored_shape) * dtype.itemsize
                if (
                    min(stored_shape, default=0) < 0
                    or size > self.max_bytes
                    or info.file_size != member.tell() + size
                ):
                    raise self._damaged(f"the size of {name} is wrong")
                # zipfile verifies the checksum when it reaches the end, so read one more byte.
                content = member.read(size + 1)
        except DamagedError:
            raise
        except Exception as error:  # Damaged archives raise many types of exceptions.
            raise self._damaged(f"{name}: {type(error).__name__}") from None
        if len(content) != size:
            raise self._damaged(f"{name} is cut off")
        order: Literal["C", "F"] = "F" if fortran_order else "C"
        array = np.frombuffer(content, dtype).reshape(stored_shape, order=order)
        array = array.astype(dtype.newbyteorder("="), copy=False)
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise DamagedError(
                f"{self.path.name} is damaged: {name} contains values that are not finite."
            )
        return array

    def texts(self, name: str, shape: Sequence[int | None]) -> list[str]:
        """Read an array of strings and flatten it.

        Args:
            name: Name of the array.
            shape: As in ``read``.

        Raises:
            DamagedError: As in ``read``, or if a string is too long or not valid Unicode.
        """
        array = self.read(name, "U", shape)
        if array.dtype.itemsize > 4 * MAX_TEXT_LENGTH:
            raise self._damaged(f"{name} has strings of more than {MAX_TEXT_LENGTH} characters")
        if array.dtype.itemsize:  # NumPy does not check the code points.
            codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
            is_surrogate = (codes >= 0xD800) & (codes < 0xE000)
            if (is_surrogate | (codes > sys.maxunicode)).any():
                raise self._damaged(f"{name} is not valid Unicode")
        return [str(text) for text in array.ravel()]

    def _check_type(
        self,
        name: str,
        stored_shape: tuple[int, ...],
        dtype: np.dtype,
        kinds: str,
        shape: Sequence[int | None],
    ) -> None:
        fits = len(stored_shape) == len(shape) and all(
            expected is None or expected == stored
            for expected, stored in zip(shape, stored_shape, strict=True)
        )
        if dtype.kind not in kinds or dtype.hasobject or not fits:
            expected_kinds = " or ".join(_KINDS[kind] for kind in kinds)
            sizes = ", ".join("any" if n is None else str(n) for n in shape)
            raise DamagedError(
                f"{self.path.name} is damaged: {name} is {dtype.name}{list(stored_shape)}, "
                f"expected {expected_kinds}[{sizes}]."
            )

    def _damaged(self, reason: str) -> DamagedError:
        return DamagedError(f"{self.path.name} is damaged ({reason}).")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether the order is Fortran's, and the data type, without making objects."""
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran_order, dtype = read(member)
    return tuple(shape), bool(fortran_order), dtype
