"""Loss terms, the log, damaged and foreign checkpoints, and the record of the machine."""

from __future__ import annotations

import errno
import json
import math
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core.log_line import LogLine
from benchmark.core.summaries import DataSummary
from benchmark.engine.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from benchmark.engine.environment_info import commit, versions
from benchmark.engine.exceptions import NonFiniteError
from benchmark.engine.log import Log
from benchmark.engine.loss_meter import LossMeter

# --- terms ---


def test_means_are_over_the_steps_that_had_a_term() -> None:
    terms = LossMeter()
    terms.add(1, {"a": torch.tensor(1.0, requires_grad=True), "b": 4})
    terms.add(2, {"a": torch.tensor(2.0)})
    terms.add(3, {"a": torch.tensor(6.0, dtype=torch.bfloat16), "b": 5.0})
    assert terms.means() == {"a": 3.0, "b": 4.5}
    terms.clear()
    assert terms.means() == {}


def test_sums_are_kept_in_double() -> None:
    terms = LossMeter()
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for step, value in enumerate(values, 1):
        terms.add(step, {"a": torch.tensor(value)})
    assert terms.means()["a"] == pytest.approx(
        math.fsum(values.astype(np.float64)) / 1000, rel=1e-12
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [torch.tensor, float])
def test_what_is_not_finite_names_step_and_term(value: float, kind: Any) -> None:
    terms = LossMeter()
    terms.add(1, {"classification": torch.tensor(1.0), "penalty": kind(1.0)})
    with pytest.raises(NonFiniteError, match=r"^term penalty of the loss .*step 7"):
        terms.add(7, {"classification": torch.tensor(1.0), "penalty": kind(value)})


def test_the_state_survives_a_checkpoint_bit_by_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=20)
    whole, first, second = LossMeter(), LossMeter(), LossMeter()
    for step, value in enumerate(values, 1):
        whole.add(step, {"a": value})
        if step <= 13:
            first.add(step, {"a": value})
    torch.save(first.state(), tmp_path / "t.pt")
    second.restore(torch.load(tmp_path / "t.pt", weights_only=True), torch.device("cpu"))
    for step, value in enumerate(values[13:], 14):
        second.add(step, {"a": value})
    assert second.means() == whole.means()


@pytest.mark.gpu
def test_on_a_gpu_the_watch_is_late_but_names_the_right_step() -> None:
    terms = LossMeter()
    with pytest.raises(NonFiniteError) as found:
        for step in range(1, 30):
            terms.add(step, {"a": torch.tensor(math.nan if step >= 7 else 1.0, device="cuda")})
    assert found.value.step == 7


# --- log ---


def test_a_log_writes_each_line_at_once_and_tells_of_it(tmp_path: Path) -> None:
    path, logged = tmp_path / "log.jsonl", list[LogLine]()
    log = Log(path, '{"step": 1}\n', logged.append)
    assert path.read_text() == '{"step": 1}\n'
    line = LogLine(step=2, steps=4, terms={}, splits={"val": np.array([[[3, 1], [0, 2]]])})
    log.line(line)
    first, second = path.read_text().splitlines()
    assert path.read_text() == log.text and first == '{"step": 1}' and logged == [line]
    value = json.loads(second)
    assert (value["step"], value["steps"]) == (2, 4) and "objective" not in value
    assert value["splits"] == {"val": {"counts": [[[3, 1], [0, 2]]]}}
    data = DataSummary(label_names=("a", "b"), splits={"val": 6})
    assert LogLine.from_json(value, data, "log.jsonl").to_json() == value
    log.close()


def test_a_log_of_an_earlier_attempt_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("earlier\n")
    with pytest.raises(FileExistsError):
        Log(path)
    assert path.read_text() == "earlier\n"


def test_a_line_that_is_no_json_is_a_bug_and_is_not_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.line(LogLine(step=1, terms={"loss": math.nan}))
    assert log.text == "" == (tmp_path / "log.jsonl").read_text()


# --- checkpoints ---


def _state() -> dict[str, Any]:
    model = torch.nn.Linear(8, 8)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    return {
        "step": 3,
        "algorithm": model.state_dict(),
        "optimizers": {"main": optimizer.state_dict()},
        "log": "{}\n",
    }


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "key") is None
    state = _state()
    save_checkpoint(tmp_path, "key", state)
    found = load_checkpoint(tmp_path, "key")
    assert found is not None and found["step"] == 3 and found["log"] == "{}\n"
    assert all(torch.equal(found["algorithm"][n], v) for n, v in state["algorithm"].items())
    moments = found["optimizers"]["main"]["state"][0]["exp_avg"]
    assert torch.equal(moments, state["optimizers"]["main"]["state"][0]["exp_avg"])


def test_a_checkpoint_of_another_run_is_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path, "key", _state())
    assert load_checkpoint(tmp_path, "another") is None
    torch.save([1, 2], tmp_path / "checkpoint.pt")
    assert load_checkpoint(tmp_path, "key") is None
    torch.save({"schema": 99, "key": "key"}, tmp_path / "checkpoint.pt")
    assert load_checkpoint(tmp_path, "key") is None
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("checkpoint.pt belongs to another run" in line for line in lines)


@pytest.mark.parametrize("how", ["cut", "flip", "zeros"])
def test_a_damaged_checkpoint_is_never_an_error_and_never_believed(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path, "key", _state())
    good = (tmp_path / "checkpoint.pt").read_bytes()
    expected = load_checkpoint(tmp_path, "key")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        bad = bytearray(good)
        if how == "cut":
            bad = bad[: rng.integers(len(bad))]
        elif how == "flip":
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        else:
            start = rng.integers(len(bad))
            bad[start : start + 512] = bytes(len(bad[start : start + 512]))
        (tmp_path / "checkpoint.pt").write_bytes(bad)
        found = load_checkpoint(tmp_path, "key")
        refused += found is None
        if found is not None:  # the flip hit padding or a date
            assert (
                expected is not None
                and found["step"] == expected["step"]
                and found["log"] == expected["log"]
            )
            assert all(
                torch.equal(found["algorithm"][n], v) for n, v in expected["algorithm"].items()
            )
    assert refused > (30 if how == "flip" else 100)
    assert capsys.readouterr().err.count("the run starts from the beginning.") == refused


def test_a_checkpoint_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("code ran",))

    torch.save({"schema": 1, "key": "key", "evil": Evil()}, tmp_path / "checkpoint.pt")
    assert load_checkpoint(tmp_path, "key") is None
    assert "code ran" not in capsys.readouterr().out


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_is_an_os_error_and_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """torch.save alone turns it into a RuntimeError, which would count as a bug of the method."""
    save_checkpoint(tmp_path, "key", {"step": 1})
    with _file_size_limit(100_000):
        for save in (
            lambda: save_checkpoint(tmp_path, "key", {"step": 2, "x": torch.zeros(200_000)}),
            lambda: save_weights(
                tmp_path / "w.pt", {f"x{i}": torch.zeros(3_000) for i in range(50)}
            ),
        ):
            with pytest.raises(OSError) as found:
                save()
            assert found.value.errno == errno.EFBIG
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    kept = load_checkpoint(tmp_path, "key")
    assert kept is not None and kept["step"] == 1


def test_weights_come_back(tmp_path: Path) -> None:
    weights = torch.nn.BatchNorm2d(3).state_dict()
    save_weights(tmp_path / "w.pt", weights)
    found = load_weights(tmp_path / "w.pt")
    assert list(found) == list(weights) and all(torch.equal(found[n], weights[n]) for n in weights)


# --- machine ---


def test_versions_and_commit() -> None:
    found = versions()
    assert {"python", "shortcutbed", "torch", "numpy"} <= set(found)
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert json.loads(json.dumps(found)) == found
    revision = commit()
    assert revision is None or (
        len(revision.removesuffix("-dirty")) == 40 and int(revision[:40], 16) >= 0
    )


def test_outside_a_checkout_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import benchmark

    monkeypatch.setattr(benchmark, "__file__", str(tmp_path / "benchmark" / "__init__.py"))
    assert commit() is None
    (tmp_path / ".git").mkdir()  # no repository that git would know
    assert commit() is None


@pytest.mark.slow  # it imports torch in a new process
@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc hands memory back in this way"
)
def test_memory_that_is_freed_is_kept() -> None:
    """Count the page faults of a large tensor that is made and freed repeatedly, in a new process.

    It has 40 MB because glibc alone keeps no block above 32 MiB. The count begins after the first
    tensors, whose place in the heap differs between processes.
    """
    code = (
        "import resource, torch\nfrom benchmark.core.speed.memory import keep_memory\n"
        "torch.set_num_threads(1)\n"
        "def faults(times=4):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(times): torch.ones(10_000_000)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "first = faults(); assert keep_memory(); faults(16); print(first, faults())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 4
