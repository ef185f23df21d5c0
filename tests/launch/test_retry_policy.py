"""Why a process died, whether its run is retried, and what the fork server imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.core.files import read_json, write_json
from benchmark.core.layout import State, state_of
from benchmark.core.run_states import AttemptEnd
from benchmark.launch import attempts, retry_policy
from benchmark.launch.lease import Claim
from benchmark.launch.retry_policy import Decision
from benchmark.launch.run_queue import read_node
from tests.support.launcher_process import ROOT, make, spec


@pytest.mark.parametrize(
    ("code", "kills_before", "kills_now", "timed_out", "expected"),
    [
        (-9, 3, 3, False, ("signal", False)),  # a user's kill -9
        (-9, 3, 4, False, ("out_of_memory", True)),  # the kernel's, for lack of memory
        (-9, None, 4, False, ("signal", True)),  # unknown: memory may have been short
        (-9, 3, None, False, ("signal", True)),
        (-11, 3, 4, False, ("signal", False)),
        (1, 3, 4, False, ("exit", False)),
        (None, 3, 4, False, ("exit", False)),
        (-9, 3, 4, True, ("timeout", False)),
    ],
)
def test_the_cause_of_death(
    code: int | None,
    kills_before: int | None,
    kills_now: int | None,
    timed_out: bool,
    expected: tuple[str, bool],
) -> None:
    cause = retry_policy.cause_of_death(code, kills_before, kills_now, timed_out=timed_out)
    assert (cause.reason, cause.needs_device_alone) == expected


def test_the_kernels_count_of_memory_kills_is_read() -> None:
    lines = Path("/proc/vmstat").read_text().splitlines()
    if not any(line.startswith("oom_kill ") for line in lines):
        assert retry_policy.count_oom_kills() is None
    else:
        found = retry_policy.count_oom_kills()
        assert found is not None and found >= 0


def judge(folder: Path, key: str, reason: str, code: int | None) -> retry_policy.Verdict:
    """Decide about an attempt that ended for a reason."""
    node = read_node(folder, key)
    before = max(attempts.numbers(node.folder), default=0)
    attempts.begin(node.folder)
    return retry_policy.decide(node, before, code, AttemptEnd(reason), 30.0)


def test_signals_and_memory_are_counted_apart_and_memory_is_allowed_one_more_try(
    tmp_path: Path,
) -> None:
    key = make(tmp_path, spec())[0]
    run = tmp_path / "runs" / key
    for number in (1, 2, 3):
        verdict = judge(tmp_path, key, "signal", -9)
        assert (verdict.decision, verdict.attempt) == (Decision.RETRY, number)
        assert "SIGKILL" in verdict.reason
    assert judge(tmp_path, key, "out_of_memory", -9).decision is Decision.RETRY
    assert judge(tmp_path, key, "interrupted", -15).decision is Decision.RETRY
    verdict = judge(tmp_path, key, "out_of_memory", -9)
    assert (verdict.decision, verdict.attempt) == (Decision.FAILED, 6)
    failure = read_json(run / "failure.json")
    assert (failure["kind"], failure["key"], failure["attempt"]) == ("out_of_memory", key, 6)
    assert "batch_size" in failure["message"]
    assert state_of(run) is State.FAILED
    assert judge(tmp_path, key, "signal", -9).decision is Decision.FAILED, (
        "a failed run stays failed"
    )
    assert read_json(run / "failure.json") == failure


def test_a_gpu_that_fails_again_fails_the_run_with_its_output(tmp_path: Path) -> None:
    key = make(tmp_path, spec())[0]
    assert judge(tmp_path, key, "device_error", None).decision is Decision.RETRY
    verdict = judge(tmp_path, key, "device_error", None)
    failure = read_json(tmp_path / "runs" / key / "failure.json")
    assert (verdict.decision, failure["kind"]) == (Decision.FAILED, "device_error")
    assert "attempts/2/output.txt" in failure["message"]


def test_a_run_that_was_committed_before_its_process_died_is_done(tmp_path: Path) -> None:
    key = make(tmp_path, spec())[0]
    write_json(tmp_path / "runs" / key / "record.json", {"attempt": 1})
    assert judge(tmp_path, key, "signal", -9).decision is Decision.DONE
    assert attempts.reason_of(tmp_path / "runs" / key, 1) is None


def test_a_run_whose_lease_is_held_elsewhere_is_left_alone(tmp_path: Path) -> None:
    key = make(tmp_path, spec())[0]
    claim = Claim(tmp_path / "runs" / key, 30.0)
    assert claim.take()
    assert judge(tmp_path, key, "signal", -signal.SIGKILL).decision is Decision.ELSEWHERE
    assert attempts.reason_of(tmp_path / "runs" / key, 1) is None
    claim.release()


@pytest.mark.slow
def test_the_fork_server_imports_everything_and_starts_no_thread() -> None:
    program = (
        # OpenBLAS of numpy has its own threads and handles them when a process forks.
        "import os, sys, numpy\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "import benchmark.launch.preload\n"
        "assert len(os.listdir('/proc/self/task')) == before\n"
        "from benchmark.core.registry import ALGORITHMS, DATASETS\n"
        "expected = {'torch', 'benchmark.engine.execute', 'benchmark.launch.worker'}\n"
        "assert expected <= set(sys.modules)\n"
        "assert ALGORITHMS.known_modules() and DATASETS.known_modules()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_launcher_loads_no_torch() -> None:
    program = (
        "import sys\n"
        "import benchmark.launch.display\n"
        "import benchmark.launch.launcher\n"
        "from benchmark.core.registry import LAUNCHERS\n"
        "LAUNCHERS.get('local')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
