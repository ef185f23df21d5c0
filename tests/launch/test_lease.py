"""Leases: who may take them and when, whatever the clocks say, and what killed writers leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.files import write_json
from benchmark.core.layout import names_in
from benchmark.launch.lease import Claim, has_leftovers, remove_stale_lease
from tests.support.kernel_without_exchange import POSSIBLE
from tests.support.launcher_process import ROOT, until

HOLD = """
import sys, time, pathlib
from benchmark.launch.lease import Claim
claim = Claim(pathlib.Path(sys.argv[1]), float(sys.argv[2]), lambda: print("lost", flush=True))
assert claim.take()
print("taken", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(folder: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "taken\n"
            yield process
        finally:
            process.kill()


def test_one_at_a_time_and_gone_after_release(tmp_path: Path) -> None:
    first, second = Claim(tmp_path, 30), Claim(tmp_path, 30)
    assert first.take()
    assert not second.take()
    assert second.owner() == os.getpid()
    first.release()
    assert list(tmp_path.iterdir()) == []
    assert second.take()
    second.release()


def test_the_lease_of_a_dead_process_is_taken_at_once(tmp_path: Path) -> None:
    with holder(tmp_path, 1000) as process:
        claim = Claim(tmp_path, 1000)
        assert not claim.take()
        process.kill()
        process.wait()
        assert claim.take()
    claim.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_so_is_the_lease_of_a_zombie(tmp_path: Path) -> None:
    with holder(tmp_path, 1000) as process:
        process.kill()
        stat = Path(f"/proc/{process.pid}/stat")
        until(
            lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z"
        )  # its parent has not waited for it
        claim = Claim(tmp_path, 1000)
        assert claim.take()
    claim.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_zombie_elsewhere_says_nothing_about_an_owner_here(tmp_path: Path) -> None:
    """Two machines that share a folder have processes of equal numbers."""
    lease = tmp_path / "lease.json"
    with holder(tmp_path, 1000):
        record = lease.read_text()
    host = next(line for line in record.splitlines() if line.startswith("host="))
    with subprocess.Popen(["true"]) as zombie:
        stat = Path(f"/proc/{zombie.pid}/stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
        lines = [
            {"pid": f"pid={zombie.pid}", "host": "host=elsewhere"}.get(line.partition("=")[0], line)
            for line in record.splitlines()
        ]
        lease.write_text("\n".join(lines) + "\n")
        claim = Claim(tmp_path, 1000)
        assert not claim.take()
        lease.write_text(lease.read_text().replace("host=elsewhere", host))
        assert claim.take()
    claim.release()


def test_a_silent_owner_loses_it_and_learns_so(tmp_path: Path) -> None:
    with holder(tmp_path, 0.6) as process:
        os.kill(process.pid, signal.SIGSTOP)  # alive, but its heartbeat is not
        claim, started = Claim(tmp_path, 0.6), time.monotonic()
        until(claim.take, 5)
        assert time.monotonic() - started >= 0.6
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline() == "lost\n"
        assert claim.owner() == os.getpid()
        claim.release()


@pytest.mark.parametrize("shift", [-(10**6), 10**6])
def test_a_clock_that_jumps_neither_expires_a_lease_nor_keeps_it(
    tmp_path: Path, shift: int
) -> None:
    with holder(tmp_path, 0.6) as process:
        os.kill(process.pid, signal.SIGSTOP)
        now = time.time()
        os.utime(
            tmp_path / "lease.json", (now + shift, now + shift)
        )  # written by a clock that is far off
        claim, started = Claim(tmp_path, 0.6), time.monotonic()
        assert not claim.take()
        until(claim.take, 5)
        assert 0.6 <= time.monotonic() - started < 2
        claim.release()


TAKE_WITHOUT_EXCHANGE = """
import os, pathlib, sys
from benchmark.launch.lease import Claim
from tests.support.kernel_without_exchange import exchange, refuse_exchange
folder = pathlib.Path(sys.argv[1])
names = str(folder / "a"), str(folder / "b")
for name in names:
    open(name, "w").close()
possible = exchange(*names)
refuse_exchange()
print(possible, exchange(*names), flush=True)
for name in names:
    os.unlink(name)
claim = Claim(folder, float(sys.argv[2]))
for _ in sys.stdin:
    print(claim.take(), flush=True)
claim.release()
"""


@pytest.mark.skipif(not POSSIBLE, reason="needs a Linux kernel whose system calls can be filtered")
def test_where_names_cannot_be_exchanged_a_stale_lease_is_broken_all_the_same(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TAKE_WITHOUT_EXCHANGE, str(tmp_path), "0.4"]
    with (
        holder(tmp_path, 0.4) as process,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        ) as taker,
    ):
        assert taker.stdin is not None and taker.stdout is not None
        assert taker.stdout.readline() == "True False\n"  # the filter works

        def take() -> bool:
            assert taker.stdin is not None and taker.stdout is not None
            taker.stdin.write("\n")
            taker.stdin.flush()
            return {"True\n": True, "False\n": False}[taker.stdout.readline()]

        for _ in range(10):
            assert not take()  # alive and refreshed
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGSTOP)
        assert not take()  # it must be seen silent for at least its time
        until(take, 5)
        taker.stdin.close()
        assert taker.wait() == 0
    assert list(tmp_path.iterdir()) == []


DIE_DURING_TAKEOVER = """
import os, pathlib, signal, sys
from benchmark.launch.lease import Claim
folder = pathlib.Path(sys.argv[1])

def die(event, arguments):
    if event == "os.remove" and os.path.basename(str(arguments[0])).startswith("lease.json."):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
Claim(folder, 1000).take()
"""


def test_a_takeover_that_was_killed_half_way_leaves_nothing(tmp_path: Path) -> None:
    with holder(tmp_path, 1000) as process:
        process.kill()
        process.wait()
    command = [sys.executable, "-c", DIE_DURING_TAKEOVER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert any(path.name != "lease.json" for path in tmp_path.iterdir()), "nothing was put aside"
    assert has_leftovers(tmp_path, names_in(tmp_path))
    assert remove_stale_lease(Claim(tmp_path, 1000))
    assert list(tmp_path.iterdir()) == []


def test_two_lease_times_are_a_mistake_with_a_sentence(tmp_path: Path) -> None:
    claim = Claim(tmp_path, 30)
    assert claim.take()
    with pytest.raises(UserError, match=r"40 seconds"):
        Claim(tmp_path, 40).take()
    claim.release()


@pytest.mark.parametrize("content", ["", "filelock/2\npid=1"])
def test_a_torn_lease_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "lease.json").write_text(content)
    claim = Claim(tmp_path, 30)
    assert not claim.take()  # a live process may be writing it
    until(claim.take, 5)
    claim.release()
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_goes_with_their_lease(tmp_path: Path) -> None:
    for name in (
        ".checkpoint.pt.abc.tmp",
        ".record.json.x.tmp",
        ".heatmaps.npz.x.tmp",
        ".of_a_later_version.x.tmp",
        ".spec.json.y.tmp",
        "spec.json",
        "mine.tmp",
    ):
        (tmp_path / name).write_text("{")
    with subprocess.Popen(["true"]) as gone:
        pass
    by_the_dead, old, young = (
        tmp_path / f"lease.json.break.{pid}.{digit * 32}"
        for pid, digit in ((gone.pid, "0"), (1, "1"), (1, "2"))
    )
    own = Claim(tmp_path, 30)
    assert own.take()
    (host,) = [
        line for line in (tmp_path / "lease.json").read_text().splitlines() if "host=" in line
    ]
    own.release()
    elsewhere = tmp_path / f"lease.json.break.{gone.pid}.{'3' * 32}"
    for path in (by_the_dead, old, young):
        path.write_text(f"{host}\n")
    elsewhere.write_text(f"{host}x\n")  # there, another process may have this number
    os.utime(old, (0, 0))
    assert has_leftovers(tmp_path, names_in(tmp_path))
    assert remove_stale_lease(Claim(tmp_path, 30))
    left = sorted(path.name for path in tmp_path.iterdir())
    kept = sorted([".spec.json.y.tmp", young.name, elsewhere.name, "mine.tmp", "spec.json"])
    assert left == kept, "what the living do is left alone"
    young.unlink()
    elsewhere.unlink()
    assert not has_leftovers(tmp_path, names_in(tmp_path))


def test_a_commit_that_was_killed_before_tidying_is_tidied(tmp_path: Path) -> None:
    home = tmp_path / "attempts" / "2"
    home.mkdir(parents=True)
    write_json(tmp_path / "record.json", {"attempt": 2})
    (tmp_path / "checkpoint.pt").write_text("much")
    (home / "output.txt").write_text("said")
    (home / "log.jsonl").write_text("{}\n")
    assert remove_stale_lease(Claim(tmp_path, 30))
    assert (tmp_path / "output.txt").read_text() == "said"
    assert not (tmp_path / "checkpoint.pt").exists()
    assert list(home.iterdir()) == []


def test_a_damaged_record_is_left_to_its_reader(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{")
    (tmp_path / "checkpoint.pt").write_text("much")
    assert remove_stale_lease(Claim(tmp_path, 30))
    assert (tmp_path / "checkpoint.pt").exists()
