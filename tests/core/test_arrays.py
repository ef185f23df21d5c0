"""Safe reading of .npz files, at limited cost."""

from __future__ import annotations

import io
import os
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.arrays import ArrayFile
from benchmark.core.errors import DamagedError
from benchmark.core.files import sha256_of

GOOD = {
    "label": np.arange(6),
    "score": np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2),
    "split": np.array(["val"] * 6),
    "name": np.array("lrp"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">i4"),
}


@pytest.fixture(params=["savez", "savez_compressed"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    getattr(np, request.param)(tmp_path / "a.npz", **GOOD)
    return tmp_path / "a.npz"


def test_good_arrays_come_back(path: Path) -> None:
    with ArrayFile(path, sha256_of(path)) as file:
        assert set(file.names) == set(GOOD)
        assert np.array_equal(file.read("label", "i", [6]), GOOD["label"])
        assert np.array_equal(file.read("score", "f", [6, None]), GOOD["score"])
        assert np.array_equal(file.read("fortran", "f", [2, 3]), GOOD["fortran"])
        found = file.read("big_endian", "iu", [None])
        assert found.dtype.isnative and found.tolist() == [0, 1, 2]
        assert file.texts("split", [6]) == ["val"] * 6 and file.texts("name", []) == ["lrp"]


@pytest.mark.parametrize(
    ("name", "kinds", "shape", "message"),
    [
        ("label", "f", [6], r"label is int64\[6\], expected float\[6\]"),
        ("label", "i", [7], r"label is int64\[6\], expected int\[7\]"),
        ("label", "i", [6, 1], r"expected int\[6, 1\]"),
        ("split", "iu", [6], r"expected int or uint\[6\]"),
        ("nothing", "i", [6], "has no array nothing"),
    ],
)
def test_another_type_or_shape(
    path: Path, name: str, kinds: str, shape: list[int], message: str
) -> None:
    with ArrayFile(path) as file, pytest.raises(DamagedError, match=message):
        file.read(name, kinds, shape)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", score=np.array([1.0, np.nan]))
    with ArrayFile(tmp_path / "a.npz") as file, pytest.raises(DamagedError, match="not finite"):
        file.read("score", "f", [2])


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", label=np.array([Bomb()], dtype=object))
    for kinds in ("i", "O", "iOV"):
        with ArrayFile(tmp_path / "a.npz") as file, pytest.raises((DamagedError, KeyError)):
            file.read("label", kinds, [1])
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("label.npy", pickle.dumps(Bomb()))
    with ArrayFile(tmp_path / "b.npz") as file, pytest.raises(DamagedError, match="is damaged"):
        file.read("label", "i", [1])
    assert not (tmp_path / "unpickled").exists()


def header(shape: str, descr: str = "'<i8'") -> bytes:
    """The head of an .npy file that claims a shape."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


LIES = {
    "huge": header("(1000000000000,)"),
    "overflowing": header("(4611686018427387904, 4)"),
    "negative": header("(-1, -1)"),
    "one negative": header("(-6,)"),
    "a word": header("('a',)"),
    "objects": header("(6,)", "'|O'"),
    "records": header("(6,)", "[('a', '<i8')]"),
    "no type": header("(6,)", "'nonsense'"),
    "deep": header("(" * 4000 + ")" * 4000),
    "code": header("__import__('os').mkdir('ran')"),
    "another version": b"\x93NUMPY\x09\x00" + header("(6,)")[8:],
    "no magic": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("kind", LIES)
def test_headers_that_lie_cost_no_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("label.npy", LIES[kind] + bytes(48))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for shape in ([6], [None], [None, None]):
        with ArrayFile(tmp_path / "a.npz") as file, pytest.raises(DamagedError):
            file.read("label", "i", shape)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert not (tmp_path / "ran").exists()


def test_a_compressed_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """40 MB of zeros in 40 kB: the array is real, and larger than it may be."""
    np.savez_compressed(tmp_path / "a.npz", label=np.zeros(5_000_000))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 17
    with (
        ArrayFile(tmp_path / "a.npz", max_bytes=1 << 20) as file,
        pytest.raises(DamagedError, match="the size of label is wrong"),
    ):
        file.read("label", "f", [None])


def test_an_archive_that_understates_its_size(tmp_path: Path) -> None:
    """The directory says 48 bytes, the stream holds more: reading stops at what was declared."""
    np.savez_compressed(tmp_path / "a.npz", label=np.arange(6), other=np.zeros(10**6))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.getinfo("other.npy").file_size
    low = (10**3).to_bytes(4, "little")
    place = content.rfind(size.to_bytes(4, "little"))
    content[place : place + 4] = low
    (tmp_path / "a.npz").write_bytes(content)
    with ArrayFile(tmp_path / "a.npz") as file:
        with pytest.raises(DamagedError, match=r"is wrong|is damaged"):
            file.read("other", "f", [None])
        assert file.read("label", "i", [6]).tolist() == list(range(6))


def test_every_cut_and_flipped_byte_is_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", label=np.arange(6), score=np.ones((6, 2), np.float32))
    good = (tmp_path / "a.npz").read_bytes()
    checksum = sha256_of(tmp_path / "a.npz")
    path = tmp_path / "b.npz"
    rng = np.random.default_rng(0)
    for at in [*range(0, len(good), 7), *rng.integers(0, len(good), 100)]:
        for bad in (good[:at], good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :]):
            path.write_bytes(bad)
            with pytest.raises(DamagedError, match="checksum"):
                ArrayFile(path, checksum)
            try:
                with ArrayFile(path) as file:
                    label = file.read("label", "i", [6])
            except DamagedError:
                continue
            assert label.tolist() == list(range(6))  # the flaw was in bytes that say nothing


def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for value in (0, 1):
            buffer = io.BytesIO()
            np.save(buffer, np.full(3, value))
            with pytest.warns(UserWarning) if value else open(os.devnull):
                archive.writestr("label.npy", buffer.getvalue())
    with ArrayFile(tmp_path / "a.npz") as file, pytest.raises(DamagedError, match="several"):
        file.read("label", "i", [3])


def test_invalid_strings(tmp_path: Path) -> None:
    for codes in ([0x110000], [0xD800]):
        array = np.array(codes, np.uint32).view("<U1")
        np.savez(tmp_path / "a.npz", split=array)
        with ArrayFile(tmp_path / "a.npz") as file, pytest.raises(DamagedError, match="split"):
            file.texts("split", [1])
    np.savez(tmp_path / "a.npz", split=np.array(["x" * 1001]))
    with ArrayFile(tmp_path / "a.npz") as file, pytest.raises(DamagedError, match="1000"):
        file.texts("split", [1])


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ArrayFile(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("folder.npz", "loop.npz", "pipe.npz"):
        with pytest.raises(DamagedError):
            ArrayFile(tmp_path / name)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DamagedError, match=r"text\.npz is damaged"):
        ArrayFile(tmp_path / "text.npz")
