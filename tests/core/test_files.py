"""Atomic writes, exclusive creation, and reads with a limited size."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import IO, NoReturn

import pytest

from benchmark.core.files import (
    StagedFiles,
    commit_once,
    parse_json,
    read_json,
    to_json,
    write_atomic,
    write_json,
)


def _torn(file: IO[bytes]) -> None:
    file.write(b"half of it")
    raise RuntimeError("killed here")


def test_a_write_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")
    write_atomic(path, lambda file: print(file.write(b"new")))
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644  # other people's launchers must be able to read it


def test_a_writer_that_fails_leaves_the_old_content_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="killed here"):
        write_atomic(path, _torn)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("where", ["os.replace", "os.fsync"])
def test_a_full_disk_leaves_the_old_content_and_no_temporary(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    monkeypatch.setattr(where, full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.txt"]


def test_the_first_commit_wins(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert commit_once(path, b"first") is True
    assert commit_once(path, b"second") is False
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["record.json"]


def _commit(path: Path, content: bytes, start: float, won: object) -> None:
    import time

    while time.monotonic() < start:
        pass
    if commit_once(path, content):
        won.put(content[:1])  # type: ignore[attr-defined]


def test_of_two_processes_exactly_one_wins(tmp_path: Path) -> None:
    import time

    context = multiprocessing.get_context("fork")
    won = context.Queue()
    contents = [bytes([65 + i]) * 100_000 for i in range(2)]
    for turn in range(5):
        path = tmp_path / f"record{turn}.json"
        start = time.monotonic() + 0.05
        processes = [
            context.Process(target=_commit, args=(path, content, start, won))
            for content in contents
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert path.read_bytes() == won.get(timeout=5) * 100_000
    assert won.empty() and len(os.listdir(tmp_path)) == 5


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "record.json"
    assert commit_once(path, b"first") is True
    assert commit_once(path, b"second") is False
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["record.json"]


def test_a_commit_that_cannot_be_written_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="Input/output"):
        commit_once(tmp_path / "record.json", b"x")
    assert os.listdir(tmp_path) == []


def test_json_round_trip_and_its_forms(tmp_path: Path) -> None:
    value = {"ä": [1, 2.5, None, True], "b": {"c": "…"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert to_json(value, indent=None).count(b"\n") == 1 and to_json(value).endswith(b"\n")
    assert json.loads(to_json(value)) == value
    odd = {"path": "caf\udce9 é"}  # a file name that is not valid text
    assert json.loads(to_json(odd)) == odd
    assert "é" in to_json({"path": "é"}).decode("utf-8")


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_json_has_no_nan(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", value)
    assert os.listdir(tmp_path) == []


def test_reading_invalid_json(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
    for content in (b"", b'{"a": 1', b"\xff\xfe"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(ValueError):
            read_json(tmp_path / "bad.json")


@pytest.mark.parametrize("has_renameat2", [True, False])
def test_without_hard_links_the_first_writer_still_wins(
    has_renameat2: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight writers at once, each of which is slow between its look and its rename."""

    def no_library(*_: object, **__: object) -> None:
        raise OSError(errno.ENOENT, "no such library")

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    rename = os.rename

    def slow_rename(*names: Path) -> None:
        time.sleep(0.05)
        rename(*names)

    monkeypatch.setattr(os, "link", no_links)
    if has_renameat2:
        monkeypatch.setattr(os.path, "exists", lambda _: False)  # the look misses another writer
    else:
        monkeypatch.setattr(ctypes, "CDLL", no_library)
        monkeypatch.setattr(os, "rename", slow_rename)
    path, won = tmp_path / "record.json", []
    together = threading.Barrier(8)

    def write(number: int) -> None:
        together.wait()
        if commit_once(path, str(number).encode()):
            won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1 and path.read_bytes() == str(won[0]).encode()
    assert path.read_text() == str(won[0])
    assert list(tmp_path.iterdir()) == [path]


def test_staged_files_are_published_together_or_not_at_all(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"old")
    with StagedFiles() as staged:
        staged.add(one, b"new")
        staged.add(other, lambda file: file.write(b"new too") and None)
        assert one.read_bytes() == b"old" and not other.exists()
    assert list(tmp_path.iterdir()) == [one]
    assert one.read_bytes() == b"old"
    with pytest.raises(RuntimeError), StagedFiles() as staged:
        staged.add(other, b"never")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [one]
    with StagedFiles() as staged:
        staged.add(one, b"new")
        staged.add(other, b"new too")
        staged.publish()
    assert (one.read_bytes(), other.read_bytes()) == (b"new", b"new too")
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_json_that_is_nested_too_deeply_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(path)
    with pytest.raises(ValueError, match="digits"):
        parse_json("9" * 5000)
    assert parse_json(b"[1]") == [1]
