"""Other systems: macOS does everything, Windows trains, plans and reports.

Both are simulated on Linux, without what they lack; see ``simulate_macos`` and ``simulate_windows``
in ``tests/support``.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmark.core import files
from benchmark.core.errors import UserError
from benchmark.core.files import commit_once
from benchmark.engine.environment_info import peak_memory_bytes
from benchmark.launch import lease, start_method

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "tests" / "support"


def run(*arguments: str, folder: Path, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Python with ``arguments`` in ``folder``."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.mark.parametrize(
    ("system", "factor"), [("linux", 1024), ("darwin", 1), ("freebsd14", 1024)]
)
def test_memory_is_bytes_on_every_system(
    system: str, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS counts the peak in bytes, Linux and the BSDs in KiB."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("resource.getrusage", lambda who: SimpleNamespace(ru_maxrss=50_000_000))
    assert peak_memory_bytes() == 50_000_000 * factor


def test_memory_is_unknown_where_there_is_no_module_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_bytes() == 0


def test_a_process_is_never_signalled_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """There os.kill(process, 0) sends Ctrl-C, since that is signal 0."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    assert lease._is_alive(1)


def test_without_a_fork_server_nothing_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    start_method.require_fork_server()
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    with pytest.raises(UserError, match=r"use Linux, macOS or WSL"):
        start_method.require_fork_server()


@pytest.mark.parametrize("name", ["ENOTSUP", "EINVAL", "EPERM", None])
def test_the_first_writer_wins_without_hard_links(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have none, and so have some systems."""

    def link(*_: object) -> None:
        raise OSError(getattr(errno, str(name)), "no links")

    if name is None:
        monkeypatch.delattr(os, "link")
    else:
        monkeypatch.setattr(os, "link", link)
    path = tmp_path / "record.json"
    assert commit_once(path, b"first") and not commit_once(path, b"second")
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["record.json"]


def test_a_link_that_fails_otherwise_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="broken"):
        commit_once(tmp_path / "record.json", b"first")
    assert os.listdir(tmp_path) == []


def test_the_folder_is_synchronised_where_folders_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(path: object, *_: object) -> int:
        asked.append(path)
        raise PermissionError(errno.EACCES, "Windows opens no folders")

    monkeypatch.setattr(files.os, "open", refuse)
    files._sync_folder(tmp_path)
    assert asked == [tmp_path]


@pytest.mark.slow
def test_on_macos_the_fork_server_loads_no_system_library(tmp_path: Path) -> None:
    """A process that is forked from one that has loaded them may not use them."""
    code = (
        "import sys; sys.platform = {!r}\n"
        "import benchmark.launch.preload\n"
        "print(sorted({{'torch', 'numpy'}} & set(sys.modules)))"
    )
    assert run("-c", code.format("darwin"), folder=tmp_path).stdout.strip() == "[]"
    assert run("-c", code.format("linux"), folder=tmp_path).stdout.strip() == "['numpy', 'torch']"


def test_the_simulation_of_macos_takes_something_away(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path\n"
        "print(hasattr(os, 'pidfd_open'), hasattr(os, 'sched_setaffinity'))\n"
        "Path('/proc/self/stat').read_text(encoding='utf-8')"
    )
    done = run("-c", code, folder=tmp_path, path=SUPPORT / "simulate_macos")
    assert done.stdout.split() == ["False", "False"] and "no /proc on macOS" in done.stderr


def sweep(folder: Path, steps: int = 4) -> Path:
    path = folder / "small.toml"
    path.write_text(
        'datasets = ["tiny"]\nalgorithms = ["erm"]\ntrials = 2\nselection = ["last"]\n'
        f"[budget]\nsteps = {steps}\nevaluate_every = {steps // 4}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.slow
def test_a_sweep_on_a_system_like_macos(tmp_path: Path) -> None:
    """Launched, watched and collected, and its results are those of Linux."""
    mac = SUPPORT / "simulate_macos"
    arguments = ["-m", "benchmark.sweep", "launch", str(sweep(tmp_path)), "--workers", "2"]
    done = run(*arguments, "--output", "mac", folder=tmp_path, path=mac)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run(*arguments, "--output", "linux", folder=tmp_path).returncode == 0
    status = run("-m", "benchmark.sweep", "status", "mac", folder=tmp_path, path=mac)
    assert status.returncode == 0 and "2 done" in status.stdout
    assert run("-m", "benchmark.collect_results", "mac", folder=tmp_path, path=mac).returncode == 0
    ours = sorted((tmp_path / "mac" / "runs").glob("*/predictions.npz"))
    theirs = sorted((tmp_path / "linux" / "runs").glob("*/predictions.npz"))
    assert [p.parent.name for p in ours] == [p.parent.name for p in theirs] and len(ours) == 2
    assert [p.read_bytes() for p in ours] == [p.read_bytes() for p in theirs]
    assert not list((tmp_path / "mac" / "runs").rglob("lease*"))


@pytest.mark.slow
def test_runs_end_with_their_launcher_on_a_system_like_macos(tmp_path: Path) -> None:
    """Killed with SIGKILL, it cannot tell its runs; they notice by the pipe that it held."""
    long = str(sweep(tmp_path, 40_000))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark.sweep", "launch", long, "--workers=1", "--output=out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{SUPPORT / 'simulate_macos'}{os.pathsep}{ROOT}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    runs = tmp_path / "out" / "runs"
    try:
        end = time.monotonic() + 120
        while not list(runs.glob("*/lease.json")) and time.monotonic() < end:
            time.sleep(0.05)
        assert len(list(runs.glob("*/lease.json"))) == 1
    finally:
        process.kill()
        process.wait()
    end = time.monotonic() + 20
    while list(runs.glob("*/lease.json")) and time.monotonic() < end:
        time.sleep(0.05)
    assert not list(runs.glob("*/lease.json")), "the run lives on, or kept its lease"


def windows(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run(str(SUPPORT / "simulate_windows.py"), *arguments, folder=folder)


#: Runs in one process, since importing all libraries takes most of the time.
WINDOWS = """
import importlib, json, os, sys
from pathlib import Path
from tests.support.simulate_windows import import_everything, narrow

narrow()
import_everything()
print("fork", hasattr(os, "fork"))
file = open("opened", "w")
for act in (
    lambda: Path("a:b").write_text(""),
    lambda: Path("nul.").mkdir(),
    lambda: os.open(".", 0),
    lambda: __import__("fcntl"),
    lambda: os.replace("opened", "other"),
):
    try:
        act()
    except (OSError, ImportError) as error:
        print(type(error).__name__)
for module, arguments in json.loads(sys.argv[1]):
    print("command", flush=True)
    sys.stderr.flush()
    print("exit code", importlib.import_module(f"benchmark.{module}").main(arguments), flush=True)
"""


@pytest.fixture(scope="module")
def on_windows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """Return the folder, the output in parts, and the errors of commands on a simulated Windows."""
    folder = tmp_path_factory.mktemp("windows")
    train = ["--algorithm", "gradmask", "--selection", "last", "--output", "out"]
    train += ["--steps", "4", "--evaluate-every", "2", "--checkpoint-seconds", "0"]
    train += ["--dataset", "digits_on_photos:places=2"]
    commands = [
        ("train", train),
        ("train", train),
        ("sweep", ["status", "out"]),
        ("collect_results", ["out", "--figures", "none"]),
        ("sweep", ["launch", str(sweep(folder)), "--output", "swept"]),
    ]
    done = run("-c", WINDOWS, json.dumps(commands), folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.split("command\n"), done.stderr


@pytest.mark.slow
def test_every_module_is_imported_on_windows(on_windows: tuple[Path, list[str], str]) -> None:
    imported, *checks = on_windows[1][0].splitlines()
    assert int(imported.split()[0]) > 180
    assert checks == [
        "fork False", "OSError", "OSError", "PermissionError", "ModuleNotFoundError",
        "PermissionError",
    ], "the simulation takes away what Windows lacks"  # fmt: skip


@pytest.mark.slow
def test_a_run_on_windows(on_windows: tuple[Path, list[str], str]) -> None:
    """Training, a second call, the status and the report work; launching is refused.

    Decoded images are cached and read again.
    """
    folder, (_, first, second, status, report, refused), errors = on_windows
    for text, fact in (
        (first, "step 4"),
        (second, "already done"),
        (status, "1 done"),
        (report, "GradMask"),
    ):
        assert fact in text
        assert text.endswith("exit code 0\n")
    assert (folder / "out" / "report" / "report.html").exists()
    assert refused == "exit code 2\n"
    assert errors.splitlines()[-1].startswith("error: ")
    assert not (folder / "swept").exists()


@pytest.mark.slow
def test_commands_on_windows_in_processes_of_their_own(tmp_path: Path) -> None:
    train = ["benchmark.train", "--algorithm", "erm", "--steps", "2", "--output", "out"]
    done = windows(*train, "--dataset", "tiny", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    done = windows("benchmark.collect_results", "out", folder=tmp_path)
    assert done.returncode == 0 and "ERM" in done.stdout, done.stderr
    launch = ["benchmark.sweep", "launch", str(sweep(tmp_path))]
    done = windows(*launch, "--output", "swept", folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    done = windows(*launch, "--dry-run", folder=tmp_path)
    assert done.returncode == 0 and "estimate: " in done.stdout, done.stderr


@pytest.mark.slow
def test_pictures_on_windows(tmp_path: Path) -> None:
    """The cache of decoded images is written, read, and written again after a change."""
    from PIL import Image

    for split in ("train", "val", "test"):
        for number in range(8):
            folder = tmp_path / "data" / "pics" / split / "ab"[number % 2] / "xy"[number // 2 % 2]
            folder.mkdir(parents=True, exist_ok=True)
            shade = 30 * number + len(split)
            Image.new("RGB", (16 + number, 16), (shade, number, 0)).save(folder / f"{number}.png")
    for _ in range(2):
        done = windows("benchmark.data", "check", "folder:path=pics,side=16", folder=tmp_path)
        assert "train            8 images" in done.stdout, done.stderr
        shade = Image.effect_noise((40, 40), 50).convert("RGB")
        shade.save(tmp_path / "data" / "pics" / "train" / "a" / "x" / "0.png")
    done = windows(
        "benchmark.train", "--dataset", "folder:path=pics,side=16", "--algorithm", "erm",
        "--steps", "2", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
