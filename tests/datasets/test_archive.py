"""Unpacking archives from elsewhere: what is good arrives whole, what is bad writes nothing."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from datasets._io import archive as _archive
from datasets._io.archive import unpack

FILES = {"set/a.txt": b"one", "set/deep/b.txt": b"two" * 1000, "c.txt": b""}


def tar(
    path: Path, change: Callable[[tarfile.TarFile], object] = lambda t: None, mode: str = "w:gz"
) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in FILES.items():
            add(archive, name, content)
        change(archive)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"x", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content) if info.isreg() else None)


def zipped(path: Path, change: Callable[[zipfile.ZipFile], object] = lambda z: None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/", "")
        for name, content in FILES.items():
            archive.writestr(name, content)
        change(archive)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.tar.xz", "a.zip"])
def test_good_archives(name: str, tmp_path: Path) -> None:
    modes = {"a.tar.gz": "w:gz", "a.tar": "w", "a.tar.xz": "w:xz"}
    path = tmp_path / name
    zipped(path) if name.endswith(".zip") else tar(path, mode=modes[name])
    seen: list[tuple[int, int]] = []
    assert unpack(path, tmp_path / "out", lambda done, total: seen.append((done, total))) == len(
        FILES
    )
    assert tree(tmp_path / "out") == FILES
    assert seen[-1] == (3003, 3003)
    assert unpack(path, tmp_path / "out") == len(FILES)  # again: the same files take their places
    assert tree(tmp_path / "out") == FILES


def test_clutter_is_left_out(tmp_path: Path) -> None:
    names = ("__MACOSX/a", "set/._a.txt", ".DS_Store")
    path = zipped(tmp_path / "a.zip", lambda z: [z.writestr(name, "x") for name in names])
    unpack(path, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES


def symlink(target: str) -> Callable[[tarfile.TarFile], object]:
    return lambda t: add(t, "set/link", b"", type=tarfile.SYMTYPE, linkname=target)


def zip_link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("set/link")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


BAD_TARS: dict[str, tuple[Callable[[tarfile.TarFile], object], str]] = {
    "up and out": (lambda t: add(t, "../evil"), "leads outside"),
    "up in the middle": (lambda t: add(t, "set/../../evil"), "leads outside"),
    "absolute": (lambda t: add(t, "/tmp/evil"), "leads outside"),
    "a drive": (lambda t: add(t, "C:/evil"), "leads outside"),
    "backslashes": (lambda t: add(t, "..\\evil"), "leads outside"),
    "a link out": (symlink("/etc"), "holds the link"),
    "a link within": (symlink("a.txt"), "holds the link"),
    "a hard link": (
        lambda t: add(t, "set/hard", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        "holds the link",
    ),
    "a device": (lambda t: add(t, "set/null", b"", type=tarfile.CHRTYPE), "holds the device"),
    "a pipe": (lambda t: add(t, "set/pipe", b"", type=tarfile.FIFOTYPE), "holds the device"),
}
BAD_ZIPS: dict[str, tuple[Callable[[zipfile.ZipFile], object], str]] = {
    "up and out": (lambda z: z.writestr("../evil", "x"), "leads outside"),
    "absolute": (lambda z: z.writestr("/tmp/evil", "x"), "leads outside"),
    "a link": (zip_link, "holds the link"),
}


@pytest.mark.parametrize("case", list(BAD_TARS))
def test_bad_tars_write_nothing(case: str, tmp_path: Path) -> None:
    change, words = BAD_TARS[case]
    with pytest.raises(UserError, match=words):
        unpack(tar(tmp_path / "a.tar.gz", change), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("case", list(BAD_ZIPS))
def test_bad_zips_write_nothing(case: str, tmp_path: Path) -> None:
    change, words = BAD_ZIPS[case]
    with pytest.raises(UserError, match=words):
        unpack(zipped(tmp_path / "a.zip", change), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "FREE", 1000)
    path = zipped(tmp_path / "a.zip", lambda z: z.writestr("zeros", bytes(5_000_000)))
    with pytest.raises(UserError, match="times its own size"):
        unpack(path, tmp_path / "out")
    monkeypatch.setattr(_archive, "MEMBERS", 2)
    with pytest.raises(UserError, match="more than the 2 that are allowed"):
        unpack(tar(tmp_path / "b.tar"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_size_that_lies(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", lambda z: z.writestr("zeros", bytes(100_000)))
    data = path.read_bytes()
    path.write_bytes(data.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"cannot be unpacked|longer than the archive says"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out/zeros").exists()


def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive.shutil, "disk_usage", lambda path: type("U", (), {"free": 100}))
    with pytest.raises(UserError, match="make room"):
        unpack(tar(tmp_path / "a.tar"), tmp_path / "out")


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_cut_off(kind: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    zipped(path) if kind == "zip" else tar(path, mode="w:gz" if kind == "tar.gz" else "w")
    data = path.read_bytes()
    path.write_bytes(data[: min(int(keep * len(data)), 5000)])
    with pytest.raises(UserError):
        unpack(path, tmp_path / "out")
    assert not list(tmp_path.rglob(".unpack-*"))


def test_a_file_where_a_folder_must_be(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/set").write_text("")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(tar(tmp_path / "a.tar"), tmp_path / "out")


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        unpack(tmp_path / "a.tar", tmp_path)
    (tmp_path / "a.tar").write_text("hello")
    with pytest.raises(UserError, match="neither"):
        unpack(tmp_path / "a.tar", tmp_path)
