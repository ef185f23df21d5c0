"""Arrays from .npz files: only plain numbers of the expected type and shape, whatever the file says of itself."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from benchmark.core.errors import DamagedError
from benchmark.core.files import require_file, sha256_of

#: Bytes that an .npz file may have, and that one of its arrays may have once it is unpacked.
FILE_BYTES, ARRAY_BYTES = 1 << 34, 1 << 32
#: Characters that each text of an array may have.
TEXT_CHARACTERS = 1000
#: Kinds of numbers by NumPy's letters, for messages.
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "U": "text"}


class ArrayFile:
    """An .npz file, opened for reading. Use it in a ``with`` statement.

    Every array is checked before memory is reserved for it: its type, its shape, and that the archive declares exactly
    the bytes that these take. Objects are never unpickled.

    Args:
        path: the file.
        checksum: hexadecimal sha256 of the file; None where it is not known.
        most: bytes that an array may have once it is unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it is no archive, or not the file that the checksum was made of.
    """

    def __init__(self, path: Path, checksum: str | None = None, most: int = ARRAY_BYTES) -> None:
        self.path, self.most = path, most
        require_file(path, FILE_BYTES)
        if checksum is not None and sha256_of(path) != checksum:
            raise self._damaged("its checksum is wrong: it was changed, or is of another run")
        try:
            self._archive = zipfile.ZipFile(path)
            names = self._archive.namelist()
        except FileNotFoundError:
            raise
        except Exception as error:  # damaged archives raise nearly everything
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
        """One array.

        Args:
            name: of the array.
            kinds: letters of NumPy's kinds that it may have: ``b`` bool, ``i`` int, ``u`` unsigned, ``f`` float, ``U``
                text.
            shape: the expected shape; None stands for any length.

        Raises:
            DamagedError: there is no such array, or it is another, not finite, or cannot be unpacked.
        """
        if self.names.count(name) != 1:
            how = "has no array" if name not in self.names else "has several arrays"
            raise DamagedError(f"{self.path.name} {how} {name}.")
        try:
            info = self._archive.getinfo(f"{name}.npy")
            with self._archive.open(info) as member:
                found, fortran, dtype = _header(member)
                self._fits(name, found, dtype, kinds, shape)
                size = math.prod(found) * dtype.itemsize
                if (
                    min(found, default=0) < 0
                    or size > self.most
                    or info.file_size != member.tell() + size
                ):
                    raise self._damaged(f"the size of {name} is wrong")
                content = member.read(size + 1)  # one byte more, so that its checksum is verified
        except DamagedError:
            raise
        except Exception as error:  # damaged archives raise nearly everything
            raise self._damaged(f"{name}: {type(error).__name__}") from None
        if len(content) != size:
            raise self._damaged(f"{name} is cut off")
        array = np.frombuffer(content, dtype).reshape(found, order="F" if fortran else "C")
        array = array.astype(dtype.newbyteorder("="), copy=False)
        if dtype.kind == "f" and not np.isfinite(array).all():
            raise DamagedError(
                f"{self.path.name} is damaged: {name} holds values that are not finite."
            )
        return array

    def texts(self, name: str, shape: Sequence[int | None]) -> list[str]:
        """An array of text, flattened.

        Args:
            name: of the array.
            shape: as in ``read``.

        Raises:
            DamagedError: as in ``read``, or a text is too long or no Unicode.
        """
        array = self.read(name, "U", shape)
        if array.dtype.itemsize > 4 * TEXT_CHARACTERS:
            raise self._damaged(f"{name} holds texts of more than {TEXT_CHARACTERS} characters")
        if array.dtype.itemsize:  # NumPy does not check the code points
            codes = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
            surrogate = (codes >= 0xD800) & (codes < 0xE000)
            if (surrogate | (codes > sys.maxunicode)).any():
                raise self._damaged(f"{name} holds no text")
        return [str(text) for text in array.ravel()]

    def _fits(
        self,
        name: str,
        found: tuple[int, ...],
        dtype: np.dtype,
        kinds: str,
        shape: Sequence[int | None],
    ) -> None:
        fits = len(found) == len(shape) and all(
            want is None or want == have for want, have in zip(shape, found, strict=False)
        )
        if dtype.kind not in kinds or dtype.hasobject or not fits:
            wanted = " or ".join(_KINDS[kind] for kind in kinds)
            sizes = ", ".join("any" if n is None else str(n) for n in shape)
            raise DamagedError(
                f"{self.path.name} is damaged: {name} is {dtype.name}{list(found)}, "
                f"expected {wanted}[{sizes}]."
            )

    def _damaged(self, reason: str) -> DamagedError:
        return DamagedError(f"{self.path.name} is damaged ({reason}).")


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type at the head of an array; no object is made of it."""
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(member)
    return tuple(shape), bool(fortran), dtype
