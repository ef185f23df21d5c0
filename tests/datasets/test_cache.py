"""The cache of decoded images: built once, verified, rebuilt after damage, and continued."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.cache_folder import cache_folder
from benchmark.core.errors import UserError
from datasets._io import cache as _cache
from datasets._io.cache import Cache
from datasets._io.cache_entry import CacheColumn

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = {"image": CacheColumn((3, 8, 8)), "mask": CacheColumn((1, 8, 8), "bool")}
ROWS = 200


def content(start: int, stop: int) -> dict[str, np.ndarray]:
    """Compute rows that depend only on their number."""
    image = np.stack(
        [np.random.default_rng(i).integers(0, 256, (3, 8, 8), np.uint8) for i in range(start, stop)]
    )
    return {"image": image, "mask": image[:, :1] > 100}


def get(
    folder: Path, compute: Callable[[int, int], dict[str, np.ndarray]] = content
) -> dict[str, np.ndarray]:
    return small_cache(folder).get("thing", "0123", ROWS, COLUMNS, compute)


def small_cache(folder: Path, memory_limit: int | None = None) -> Cache:
    """A cache whose entries have many chunks."""
    return Cache(folder, chunk_bytes=2048, memory_limit=memory_limit)


def is_correct(found: dict[str, np.ndarray]) -> bool:
    wanted = content(0, ROWS)
    return all(np.array_equal(found[name], wanted[name]) for name in COLUMNS)


def forbidden(start: int, stop: int) -> dict[str, np.ndarray]:
    raise AssertionError(f"rows {start} to {stop} were computed again")


def test_built_once_and_mapped(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        calls.append((start, stop))
        return content(start, stop)

    assert is_correct(get(tmp_path, compute))
    assert len(calls) > 10 and [row for call in calls for row in range(*call)] == list(range(ROWS))
    found = get(tmp_path, forbidden)
    assert is_correct(found)
    for array in found.values():
        assert isinstance(array, np.memmap) and not array.flags.writeable


def test_the_files_are_plain_numpy(tmp_path: Path) -> None:
    get(tmp_path)
    assert np.array_equal(np.load(tmp_path / "thing-0123/image.npy"), content(0, ROWS)["image"])
    assert sorted(p.name for p in (tmp_path / "thing-0123").iterdir()) == [
        "entry.json", "image.npy", "mask.npy", "verified.json",
    ]  # fmt: skip


def truncate(folder: Path) -> None:
    os.truncate(folder / "image.npy", (folder / "image.npy").stat().st_size - 1)


def lengthen(folder: Path) -> None:
    with (folder / "image.npy").open("ab") as file:
        file.write(b"\0")


def flip(folder: Path) -> None:
    """Flip a bit and restore the modification time."""
    path, stat = folder / "mask.npy", (folder / "mask.npy").stat()
    data = bytearray(path.read_bytes())
    data[-77] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def hole(folder: Path) -> None:
    """Imitate a copy that was truncated by a full disk and then extended."""
    size = (folder / "image.npy").stat().st_size
    os.truncate(folder / "image.npy", size // 2)
    os.truncate(folder / "image.npy", size)


def swap(folder: Path) -> None:
    (folder / "image.npy").write_bytes((folder / "mask.npy").read_bytes())


def not_an_array(folder: Path) -> None:
    (folder / "image.npy").write_bytes(b"\x93NUMPY garbage")


def edit_entry(change: Callable[[dict], object]) -> Callable[[Path], None]:  # type: ignore[type-arg]
    def damage(folder: Path) -> None:
        entry = json.loads((folder / "entry.json").read_text())
        change(entry)
        (folder / "entry.json").write_text(json.dumps(entry))

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "longer": lengthen,
    "a flipped bit": flip,
    "a hole": hole,
    "another file": swap,
    "no array": not_an_array,
    "a file is gone": lambda folder: (folder / "mask.npy").unlink(),
    "entry is cut off": lambda folder: os.truncate(folder / "entry.json", 30),
    "entry is no table": lambda folder: (folder / "entry.json").write_text("[1, 2]"),
    "entry of another version": edit_entry(lambda entry: entry.update(version=0)),
    "entry without sums": edit_entry(lambda entry: entry["arrays"].pop("mask")),
}


@pytest.mark.parametrize("case", list(DAMAGE))
def test_damage_is_detected_and_repaired(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    get(tmp_path)
    before = (tmp_path / "thing-0123/verified.json").read_text()
    DAMAGE[case](tmp_path / "thing-0123")
    assert small_cache(tmp_path).verify("thing", "0123", ROWS, COLUMNS)
    assert is_correct(get(tmp_path))
    assert "is damaged" in capsys.readouterr().err
    assert is_correct(get(tmp_path, forbidden))
    assert (tmp_path / "thing-0123/verified.json").read_text() != before or "entry" in case
    assert small_cache(tmp_path).verify("thing", "0123", ROWS, COLUMNS) is None


def test_checksums_are_compared_once_per_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damage of a file whose verified stamps are still its own is found after the next change."""
    get(tmp_path)
    folder = tmp_path / "thing-0123"
    with (folder / "image.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    stats = {name: (folder / f"{name}.npy").stat() for name in COLUMNS}
    stamps = {
        name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()
    }
    assert json.loads((folder / "verified.json").read_text()).keys() == stamps.keys()
    (folder / "verified.json").write_text(json.dumps(stamps))
    assert not is_correct(get(tmp_path, forbidden))
    assert capsys.readouterr().err == ""
    os.utime(folder / "image.npy")
    assert is_correct(get(tmp_path))
    assert "is damaged" in capsys.readouterr().err
    assert is_correct(get(tmp_path, forbidden))


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_build_continues_after_its_intact_part(
    damaged: bool, tmp_path: Path
) -> None:
    def stops(start: int, stop: int) -> dict[str, np.ndarray]:
        if start > ROWS // 2:
            raise KeyboardInterrupt
        return content(start, stop)

    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, stops)
    assert not small_cache(tmp_path).has("thing", "0123", ROWS, COLUMNS)
    if damaged:
        with (tmp_path / "thing-0123/mask.npy.part").open("r+b") as file:
            file.seek(128 + 64 * 20)
            file.write(b"\2")
    starts_computed: list[int] = []

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        starts_computed.append(start)
        return content(start, stop)

    assert is_correct(get(tmp_path, compute))
    assert (starts_computed[0] > ROWS // 2) is not damaged
    if damaged:
        assert starts_computed[0] <= 20


BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.datasets.test_cache import content, get, is_correct
def slow(start, stop):
    time.sleep({seconds})
    print(start, flush=True)
    return content(start, stop)
assert is_correct(get(Path({folder!r}), slow))
print("done", flush=True)
"""


def builder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    code = textwrap.dedent(BUILD).format(root=str(ROOT), folder=str(folder), seconds=seconds)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_a_killed_build_is_not_read_and_is_continued(tmp_path: Path) -> None:
    process = builder(tmp_path, 0.02)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not small_cache(tmp_path).has("thing", "0123", ROWS, COLUMNS)
    starts_computed: list[int] = []

    def compute(start: int, stop: int) -> dict[str, np.ndarray]:
        starts_computed.append(start)
        return content(start, stop)

    assert is_correct(get(tmp_path, compute))
    assert starts_computed[0] > 0  # the finished part was kept


def test_two_processes_build_an_entry_once(tmp_path: Path) -> None:
    processes = [builder(tmp_path, 0.01) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    starts = [line for out, _ in answers for line in out.splitlines() if line != "done"]
    assert len(starts) == len(set(starts)) > 10
    assert is_correct(get(tmp_path, forbidden))


def _limited(folder: Path, answer: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    """Limit files to 8 kB, as if the disk were full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    try:
        get(folder)
    except UserError as error:
        answer.put(str(error))


def test_a_full_disk_is_a_user_error_and_leaves_no_files(tmp_path: Path) -> None:
    answer: multiprocessing.Queue[str] = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(target=_limited, args=(tmp_path, answer))
    process.start()
    text = answer.get(timeout=60)
    process.join(60)
    assert "there is no room" in text and "--cache-dir" in text
    assert not [p for p in (tmp_path / "thing-0123").iterdir() if p.stat().st_size]
    assert is_correct(get(tmp_path))


def test_too_little_space_is_reported_before_rows_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(_cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="there is no room"):
        get(tmp_path, forbidden)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of 32 kB in its own mount namespace, with the check of the free space off."""
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from datasets._io import cache as _cache
        _cache.shutil.disk_usage = lambda path: type("Usage", (), {{"free": 1 << 40}})
        from tests.datasets.test_cache import get
        get(Path({str(tmp_path)!r}) / "mounted")
    """)
    (tmp_path / "mounted").mkdir()
    script = f'mount -t tmpfs -o size=32k tmpfs "{tmp_path}/mounted" || exit 77; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, code],
        capture_output=True, text=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine does not allow a mount of one's own")
    assert done.returncode == 1 and "UserError: there is no room" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written to"):
        get(tmp_path / "cache")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cannot be written to"):
        Cache(tmp_path / "cache").check_writable()
    with pytest.raises(UserError, match="cannot be written to"):
        get(tmp_path / "cache")


def test_consecutive_rows_are_a_view_and_others_a_copy(tmp_path: Path) -> None:
    found = get(tmp_path)["image"]
    cache = small_cache(tmp_path)
    view = cache.select_rows("thing", "0123", found, np.arange(10, 50))
    assert isinstance(view, np.memmap) and np.shares_memory(view, found)
    rows = np.array([7, 3, 3, 190])
    copy = cache.select_rows("thing", "0123", found, rows)
    assert type(copy) is np.ndarray and np.array_equal(copy, content(0, ROWS)["image"][rows])
    cache = small_cache(tmp_path, memory_limit=0)
    large = cache.select_rows("thing", "0123", found, rows)
    assert isinstance(large, np.memmap) and np.array_equal(large, copy)
    assert not np.array_equal(cache.select_rows("thing", "0123", found, rows[::-1]), copy)


def test_generated_arrays_are_equal_in_memory_and_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cache, "BLOCK_ROWS", 33)
    small = small_cache(tmp_path).generate("thing", ["a"], ROWS, COLUMNS, content)
    assert is_correct(small) and not list(tmp_path.iterdir())
    large = small_cache(tmp_path, memory_limit=0).generate("thing", ["a"], ROWS, COLUMNS, content)
    assert is_correct(large) and isinstance(large["image"], np.memmap)


def test_larger_than_memory(tmp_path: Path) -> None:
    """Reading a split of 64 MB batch by batch does not increase the memory of the process."""
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        import numpy as np
        from datasets._io import cache as _cache
        from datasets._io.cache_entry import CacheColumn
        rows = 64 << 10
        columns = {{"image": CacheColumn((1, 32, 32))}}
        def compute(start, stop):
            return {{"image": np.full((stop - start, 1, 32, 32), start % 251, np.uint8)}}
        cache = _cache.Cache(Path({str(tmp_path)!r}), memory_limit=0)
        image = cache.get("large", "0", rows, columns, compute)["image"]
        selected = cache.select_rows("large", "0", image, np.arange(1, rows, 2))
        def anonymous():
            status = Path("/proc/self/status").read_text()
            return int(status.split("RssAnon:")[1].split()[0]) // 1024
        before, order, total = anonymous(), np.random.default_rng(0).permutation(len(selected)), 0
        for start in range(0, len(order), 256):
            total += int(selected[order[start : start + 256]].sum())
        assert total == int(selected.sum(dtype=np.int64))
        print(anonymous() - before)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHORTCUTBED_CACHE", raising=False)
    assert cache_folder(Path("/d")) == Path("/d/.cache")
    monkeypatch.setenv("SHORTCUTBED_CACHE", "/elsewhere")
    assert cache_folder(Path("/d")) == Path("/elsewhere")


def test_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    Cache(tmp_path).get(
        "thing", "0123", ROWS, COLUMNS, content, lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (0, ROWS) and seen[-1] == (ROWS, ROWS) and seen == sorted(seen)
