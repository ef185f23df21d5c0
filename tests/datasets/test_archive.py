"""Unpacking: valid archives are unpacked completely, unsafe ones write nothing."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from datasets._io import archive as archive_module
from datasets._io.archive import unpack
from datasets._io.archive_members import Limits

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
def test_valid_archives_are_unpacked(name: str, tmp_path: Path) -> None:
    modes = {"a.tar.gz": "w:gz", "a.tar": "w", "a.tar.xz": "w:xz"}
    path = tmp_path / name
    zipped(path) if name.endswith(".zip") else tar(path, mode=modes[name])
    seen: list[tuple[int, int]] = []
    assert unpack(path, tmp_path / "out", lambda done, total: seen.append((done, total))) == len(
        FILES
    )
    assert tree(tmp_path / "out") == FILES
    assert seen[-1] == (3003, 3003)
    assert unpack(path, tmp_path / "out") == len(FILES)  # existing files are replaced
    assert tree(tmp_path / "out") == FILES


def test_files_added_by_systems_are_left_out(tmp_path: Path) -> None:
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


def zip_nameless(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = ""
    archive.writestr(info, "x")


UNSAFE_TARS: dict[str, tuple[Callable[[tarfile.TarFile], object], str]] = {
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
    "no name": (lambda t: add(t, ""), "a file without a name"),
    "a dot": (lambda t: add(t, "./"), "a file without a name"),
    "twice": (lambda t: add(t, "set/a.txt"), "'set/a.txt' twice"),
    "twice, spelt in two ways": (lambda t: add(t, "./set//a.txt"), "'set/a.txt' twice"),
    "a file in a file": (
        lambda t: add(t, "set/a.txt/more"),
        "'set/a.txt' as a file and as a folder",
    ),
    "a file for a folder": (lambda t: add(t, "set"), "'set' as a file and as a folder"),
    "a folder for a file": (
        lambda t: add(t, "c.txt", b"", type=tarfile.DIRTYPE),
        "'c.txt' as a file and as a folder",
    ),
    "a long name": (lambda t: add(t, "set/" + "x" * 256), "which is too long"),
    "a long path": (lambda t: add(t, "set/" + "x/" * 2000 + "y"), "which is too long"),
    "a pipe": (lambda t: add(t, "set/pipe", b"", type=tarfile.FIFOTYPE), "holds the device"),
}
UNSAFE_ZIPS: dict[str, tuple[Callable[[zipfile.ZipFile], object], str]] = {
    "up and out": (lambda z: z.writestr("../evil", "x"), "leads outside"),
    "absolute": (lambda z: z.writestr("/tmp/evil", "x"), "leads outside"),
    "a link": (zip_link, "holds the link"),
    "no name": (zip_nameless, "a file without a name"),
    "a file in a file": (
        lambda z: z.writestr("set/a.txt/more", "x"),
        "'set/a.txt' as a file and as a folder",
    ),
    "a file for a folder": (lambda z: z.writestr("set", "x"), "'set' as a file and as a folder"),
    "a folder for a file": (
        lambda z: z.writestr("c.txt/", ""),
        "'c.txt' as a file and as a folder",
    ),
    "twice": (lambda z: z.writestr("./c.txt", "x"), "'c.txt' twice"),
    "a long name": (lambda z: z.writestr("set/" + "é" * 128, "x"), "which is too long"),
}


@pytest.mark.parametrize("case", list(UNSAFE_TARS))
def test_unsafe_tars_write_nothing(case: str, tmp_path: Path) -> None:
    change, words = UNSAFE_TARS[case]
    with pytest.raises(UserError, match=words):
        unpack(tar(tmp_path / "a.tar.gz", change), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.mark.parametrize("case", list(UNSAFE_ZIPS))
def test_unsafe_zips_write_nothing(case: str, tmp_path: Path) -> None:
    change, words = UNSAFE_ZIPS[case]
    with pytest.raises(UserError, match=words):
        unpack(zipped(tmp_path / "a.zip", change), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_zip_with_unsupported_compression_writes_nothing(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02") + 10  # the method of the last member, in the directory
    data[place : place + 2] = (97).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"unknown kind of compression \(97\)"):
        unpack(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_archives_beyond_the_limits_write_nothing(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", lambda z: z.writestr("zeros", bytes(5_000_000)))
    with pytest.raises(UserError, match="times its own size"):
        unpack(path, tmp_path / "out", limits=Limits(free_bytes=1000))
    with pytest.raises(UserError, match="more than the 2 files"):
        unpack(tar(tmp_path / "b.tar"), tmp_path / "out", limits=Limits(members=2))
    assert not (tmp_path / "out").exists()


def test_a_file_longer_than_its_declared_size(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", lambda z: z.writestr("zeros", bytes(100_000)))
    data = path.read_bytes()
    path.write_bytes(data.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"cannot be unpacked|longer than the archive declares"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out/zeros").exists()


def test_too_little_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        archive_module.shutil, "disk_usage", lambda path: type("U", (), {"free": 100})
    )
    with pytest.raises(UserError, match="free some space"):
        unpack(tar(tmp_path / "a.tar"), tmp_path / "out")


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
def test_truncated_archives(kind: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    zipped(path) if kind == "zip" else tar(path, mode="w:gz" if kind == "tar.gz" else "w")
    data = path.read_bytes()
    path.write_bytes(data[: min(int(keep * len(data)), 5000)])
    with pytest.raises(UserError):
        unpack(path, tmp_path / "out")
    assert not list(tmp_path.rglob(".unpack-*"))


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/set").write_text("")
    with pytest.raises(UserError, match="out/set is not a folder"):
        unpack(tar(tmp_path / "a.tar"), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["set"]


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "out/c.txt").mkdir(parents=True)
    with pytest.raises(UserError, match=r"out/c\.txt is a folder"):
        unpack(tar(tmp_path / "a.tar"), tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["c.txt"]


@pytest.mark.parametrize(
    ("target", "words"),
    [("file", "is a file"), ("file/out", "is a file"), ("circle", "broken link")],
)
def test_a_target_that_is_not_a_folder(target: str, words: str, tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar")
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UserError, match=words):
        unpack(path, tmp_path / target)


def test_a_tar_of_a_folder_itself(tmp_path: Path) -> None:
    """The first member of an archive made by `tar -C folder .` is the folder, without a name."""
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a.txt").write_text("one")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, ".")
    assert unpack(tmp_path / "a.tar", tmp_path / "out") == 1
    assert tree(tmp_path / "out") == {"deep/a.txt": b"one"}


def test_files_longer_than_a_block(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    for mode, name in (("w", "a.tar"), ("w:gz", "a.tar.gz"), ("w:bz2", "a.tar.bz2")):
        path = tar(tmp_path / name, lambda t: add(t, "large", content), mode=mode)
        unpack(path, tmp_path / f"out {name}")
        assert tree(tmp_path / f"out {name}") == {**FILES, "large": content}


def test_a_bomb_is_not_decompressed_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a large member nor data after the end of the tar are decompressed completely."""
    limits = Limits(ratio=2, free_bytes=1000)
    read = []
    original = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int = -1) -> bytes:
        read.append(size)
        return original(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    path = tar(tmp_path / "a.tar.gz", lambda t: add(t, "zeros", bytes(20_000_000)))
    with pytest.raises(UserError, match="times its own size"):
        unpack(path, tmp_path / "out", limits=limits)
    assert sum(read) < 5_000_000
    read.clear()
    with gzip.open(tmp_path / "b.tar.gz", "wb") as file:
        file.write(tar(tmp_path / "b.tar", mode="w").read_bytes() + bytes(20_000_000))
    with pytest.raises(UserError, match="times its own size"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "out", limits=limits)
    assert sum(read) < 5_000_000
    assert not (tmp_path / "out").exists()


def test_a_header_that_declares_a_huge_size(tmp_path: Path) -> None:
    """A name of two gigabytes must not be read into memory."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf() + bytes(10_240))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"neither|cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_archives(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        unpack(tmp_path / "a.tar", tmp_path)
    with pytest.raises(UserError, match="is a folder"):
        unpack(tmp_path, tmp_path)
    (tmp_path / "a.tar").write_text("hello")
    with pytest.raises(UserError, match="neither"):
        unpack(tmp_path / "a.tar", tmp_path)
