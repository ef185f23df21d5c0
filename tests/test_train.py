"""`python -m benchmark.train`: exit codes, sentences, and runs that go on where they ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmark import train
from benchmark.core.batch import Batch
from benchmark.core.record import read_record
from benchmark.core.registry import DATASETS
from benchmark.launch.lease import Claim
from tests.support.messages import mentions
from tests.support.runs import lines
from tests.support.signals import only_ignoring
from tests.support.threads import threads
from tests.support.toy_algorithms import Accident, Pupil, registered

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1), registered(Accident, Pupil):
        yield


def _arguments(
    output: Path, *more: str, dataset: str = "tiny:size=32", algorithm: str = "erm"
) -> list[str]:
    return [
        "--dataset", dataset, "--algorithm", algorithm, "--backbone", "convnet:width=2",
        "--steps", "6", "--hparam", "batch_size=8", "--device", "cpu",
        "--output", str(output), *more,
    ]  # fmt: skip


def _main(output: Path, *more: str, **names: str) -> int:
    return train.main(_arguments(output, *more, **names))


def _folders(output: Path) -> list[Path]:
    return sorted((output / "runs").iterdir()) if (output / "runs").exists() else []


def test_a_run_prints_its_progress_and_the_second_time_that_it_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(tmp_path, "--evaluate-every", "3") == 0
    output = capsys.readouterr().out
    (folder,) = _folders(tmp_path)
    assert output.count("step ") == 4 and "step      3/6  classification" in output
    record = read_record(folder)
    assert f"selected by last step: step {record.selected['last'].step}:" in output
    for value in record.selected["last"].counts.values():
        (dark, bright) = value.tolist()
        right = dark[0][0] + dark[1][1] + bright[0][0] + bright[1][1]
        assert f"{100 * right / 16:.1f} %" in output
    assert record.spec.hparams["batch_size"] == 8 and record.spec.budget["evaluate_every"] == 3
    assert not (folder / "lease.json").exists()
    assert _main(tmp_path, "--evaluate-every", "3") == 0
    said = capsys.readouterr().out
    assert mentions(said, "erm on tiny", "trial 0", "already done", str(folder / "record.json"))
    assert (
        _main(tmp_path, "--evaluate-every", "3", "--trial", "1") == 0
        and len(_folders(tmp_path)) == 2
    )


def test_a_student_brings_its_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(tmp_path, "--hparam", "weight=1.5", algorithm="toy_pupil") == 0
    output = capsys.readouterr().out
    assert output.index("erm on tiny, trial 0:") < output.index("toy_pupil on tiny, trial 0:")
    records = {r.spec.algorithm: r for r in map(read_record, _folders(tmp_path))}
    assert records["toy_pupil"].spec.hparams["weight"] == 1.5
    assert records["toy_pupil"].upstream["teacher"].key == records["erm"].key


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--hparam", "lr=fast"], "lr = 'fast' is not a number such as 0.001."),
        (["--hparam", "lr"], "--hparam 'lr' has no value; expected NAME=VALUE"),
        (["--hparam", "lrr=1"], "erm has no hparam 'lrr'; did you mean lr?"),
        (["--hparam", "lr=-1"], "lr = -1.0 is out of bounds"),
        (["--hparam", "lr=x", "--hparam", "momentum=y"], "2 problems:"),
        (["--steps", "0"], "steps = 0 is out of bounds, expected 1 or more."),
        (["--trial", "-1"], "trials = [-1] is not a count or a list"),
        (["--selection", "best"], "unknown criterion 'best'"),
        (["--backbone", "convnett"], "unknown backbone 'convnett'"),
        (["--dataset", "tiny:bais=1"], "tiny has no option 'bais'; did you mean bias?"),
        (["--dataset", "tinny"], "unknown dataset 'tinny'; did you mean tiny?"),
        (["--algorithm", "ermm"], "unknown algorithm 'ermm'; did you mean erm"),
        (["--algorithm", "erm:best"], "erm has no variant 'best'"),
        (
            ["--algorithm", "irm", "--dataset", "tiny:bias=1"],
            "irm on tiny: the method needs at least two training",
        ),
    ],
)
def test_a_mistake_is_a_sentence_code_2_and_nothing_is_written(
    more: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(tmp_path / "out", *more) == 2
    captured = capsys.readouterr()
    assert (
        captured.err.startswith("error: ")
        and expected in captured.err
        and "Traceback" not in captured.err
    )
    assert captured.out == "" and not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _main(tmp_path / "out", "--device", "cuda") == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_arguments_that_argparse_refuses_are_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as found:
        train.main(["--dataset", "tiny"])
    assert found.value.code == 2
    with pytest.raises(SystemExit) as found:
        train.main(["--help"])
    assert found.value.code == 0 and "examples:" in capsys.readouterr().out


def test_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").touch()
    assert _main(tmp_path) == 2 and "is not empty and holds no sweep" in capsys.readouterr().err


def test_a_run_that_somebody_else_works_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(tmp_path) == 0
    (folder,) = _folders(tmp_path)
    (folder / "record.json").unlink()
    claim = Claim(folder)
    assert claim.take()
    try:
        assert _main(tmp_path) == 2
    finally:
        claim.release()
    assert "another process is working on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "expected"),
    [("nan", "term other of the loss became NaN or infinite at step 5"), ("bug", "KeyError")],
)
def test_a_run_that_fails_is_code_1_and_is_tried_again(
    how: str,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(2):
        assert _main(tmp_path, "--hparam", f"how={how}", algorithm="toy_accident") == 1
        (folder,) = _folders(tmp_path)
        assert expected in capsys.readouterr().err and (folder / "failure.json").exists()
        assert not (folder / "lease.json").exists()
    monkeypatch.setattr(Accident, "loss", Accident.__mro__[1].loss)  # type: ignore[attr-defined]  # mended
    assert _main(tmp_path, "--hparam", f"how={how}", algorithm="toy_accident") == 0
    assert not (folder / "failure.json").exists() and read_record(folder).attempt == 3


def test_a_failed_teacher_stops_its_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DATASETS.get("tiny"), "load", lambda self, trial: 1 / 0)
    assert _main(tmp_path, algorithm="toy_pupil") == 1
    assert sum((folder / "attempts").exists() for folder in _folders(tmp_path)) == 1


def test_out_of_memory_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(tmp_path, "--hparam", "how=memory", algorithm="toy_accident") == 1
    error = capsys.readouterr().err
    assert "out of memory" in error and "batch_size" in error


def test_a_full_disk_is_a_sentence_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(tmp_path, "--hparam", "how=disk", algorithm="toy_accident") == 2
    assert "error: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["runs", "run"])
def test_a_folder_removed_during_the_run_is_a_sentence_and_code_2(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Accident.__mro__[1].loss  # type: ignore[attr-defined]

    def remove(self: Accident, batch: Batch) -> dict[str, torch.Tensor]:
        for folder in _folders(tmp_path):
            shutil.rmtree(folder.parent if what == "runs" else folder)
        return loss(self, batch)  # type: ignore[no-any-return]

    monkeypatch.setattr(Accident, "loss", remove)
    assert _main(tmp_path, algorithm="toy_accident") == 2
    error = capsys.readouterr().err
    assert "was removed during the run" in error and error.count("\n") == 1
    assert not any(tmp_path.glob("runs/*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_stop_it_saves_the_run_and_the_same_command_ends_it_as_if_nothing_had_been(
    tmp_path: Path, number: signal.Signals
) -> None:
    more = ("--steps", "200", "--evaluate-every", "10", "--hparam", "dropout=0.2")
    command = [sys.executable, "-m", "benchmark.train", *_arguments(tmp_path / "a", *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=only_ignoring(),
    )
    assert process.stdout is not None
    shown = [process.stdout.readline() for _ in range(2)]
    process.send_signal(number)
    _, error = process.communicate(timeout=100)
    assert shown[1].startswith("step     10/200") and process.returncode == 130, error
    assert error.startswith("interrupted") and error.count("\n") == 1
    (folder,) = _folders(tmp_path / "a")
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert 10 <= saved["step"] < 200 and not (folder / "lease.json").exists()
    assert train.main(_arguments(tmp_path / "a", *more)) == 0
    assert train.main(_arguments(tmp_path / "b", *more)) == 0
    (other,) = _folders(tmp_path / "b")
    assert (
        lines(folder) == lines(other)
        and read_record(folder).selected == read_record(other).selected
    )
    assert read_record(folder).attempt == 2


@pytest.mark.slow
def test_a_request_to_stop_that_is_ignored_from_the_start_does_not_stop_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmark.train", *_arguments(tmp_path, "--steps", "60")]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=only_ignoring(signal.SIGINT, signal.SIGHUP),
    )
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    (folder,) = _folders(tmp_path)
    assert read_record(folder).attempt == 1
