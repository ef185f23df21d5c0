"""A run that was stopped or killed and then resumed equals an undisturbed run bit by bit."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.core.record import read_record
from benchmark.engine.loop import TrainingRun
from tests.support import threads as thread_numbers
from tests.support.messages import mentions
from tests.support.runs import assert_same_results, lines, plan_quick, plan_run, plan_runs, run
from tests.support.toy_algorithms import OwnLoop, Student, registered

#: Method, hyper-parameters and other values. IRM's penalty starts at step 6, where Adam is rebuilt.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "erm-adam": ("erm", {"optimizer": "adam", "lr": 0.01}, {}),
    "erm-sgd": (
        "erm",
        {"optimizer": "sgd", "lr": 0.1, "lr_schedule": "cosine", "weight_decay": 1e-3},
        {},
    ),
    "erm-all": (
        "erm",
        {"optimizer": "adamw", "dropout": 0.4, "clip_norm": 0.5, "lr_schedule": "step"},
        {
            "augmentation": {"flip": 0.5, "translate": 0.1, "rotate": 10.0, "crop": 0.2},
            "compute": {"precision": "bf16", "channels_last": True},
            "oracle": True,
            "selection": ["val_objective", "val_mean", "last"],
        },
    ),
    "irm-adam": (
        "irm",
        {"optimizer": "adam", "anneal_iters": 6, "penalty_weight": 50.0, "lr": 0.01},
        {},
    ),
    "irm-sgd": (
        "irm",
        {"optimizer": "sgd", "anneal_iters": 6, "lr_schedule": "step", "lr": 0.05},
        {},
    ),
    "group_dro-adam": ("group_dro", {"optimizer": "adam", "eta": 0.3}, {}),
    "group_dro-sgd": ("group_dro", {"optimizer": "sgd", "eta": 0.3, "lr": 0.05}, {}),
    "dann-adam": (
        "dann",
        {"optimizer": "adam", "d_steps": 2, "grad_penalty": 0.1, "mlp_width": 8},
        {},
    ),
    "dann-sgd": ("dann", {"optimizer": "sgd", "lr": 0.02, "mlp_width": 8}, {}),
    "patience": (
        "erm",
        {"lr": 1e-6},
        {"budget": {"steps": 40, "patience": 3}, "selection": ["val_accuracy", "last"]},
    ),
    "own-loop": ("toy_own_loop", {"lr": 0.02}, {}),
}
#: Cases that together have every part of the state; the others run with --slow.
FAST = ("erm-all", "irm-adam", "dann-adam", "patience", "own-loop")
#: Cases whose selected model is also explained and embedded.
EXPLAINED = ("erm-all",)
BUDGET = {"steps": 14, "evaluate_every": 4}


def slow_unless_fast(*cases: str) -> list[Any]:
    return [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered(OwnLoop, Student):
        yield


def _planned(root: Path, case: str) -> Path:
    algorithm, hparams, more = CASES[case]
    more = {**more, "budget": {**BUDGET, **more.get("budget", {})}}
    plan = plan_run if case in EXPLAINED else plan_quick
    return plan(root, algorithm, hparams=hparams, **more)


def _stop_after(polls: int) -> Any:
    left = iter([None] * polls)
    return lambda: next(left, "stopped")


@pytest.mark.parametrize("case", slow_unless_fast(*CASES))
def test_a_run_stopped_again_and_again_is_the_undisturbed_run(case: str, tmp_path: Path) -> None:
    whole, stopped = _planned(tmp_path / "whole", case), _planned(tmp_path / "stopped", case)
    assert whole.name == stopped.name
    assert run(whole) == "done"
    # Stops before step 1, 3, 6 (IRM's switch), 7, 9 and 12, counted from 0; each attempt continues
    # where the last one ended.
    attempt = 0
    for steps in (1, 2, 3, 1, 2, 3):
        attempt += 1
        outcome = run(stopped, attempt, stop=_stop_after(steps))
        assert outcome in ("interrupted", "done")
        if outcome == "done":
            break
    else:
        attempt += 1
        assert run(stopped, attempt) == "done"
    assert attempt >= 5
    assert_same_results(whole, stopped)
    assert read_record(stopped).attempt == attempt and not (stopped / "checkpoint.pt").exists()


def _killed(folder: Path, attempt: int, at: int) -> None:
    """Run an attempt that dies at step ``at``, in its own process, with regular checkpoints."""

    steps = itertools.count(_checkpointed(folder))  # stop is asked once per step

    def kill() -> None:
        if next(steps) == at:
            os._exit(9)

    true = TrainingRun.save

    def save(self: TrainingRun) -> None:
        if self.step % 3 == 0:
            true(self)

    child = os.fork()
    if child == 0:  # never returns into the test
        try:
            TrainingRun.save = save  # type: ignore[method-assign]
            run(folder, attempt, checkpoint_seconds=-1, stop=kill)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9


def _checkpointed(folder: Path) -> int:
    path = folder / "checkpoint.pt"
    return int(torch.load(path, weights_only=True)["step"]) if path.exists() else 0


@pytest.mark.parametrize(
    "case",
    [
        "erm-all",
        *(
            pytest.param(case, marks=pytest.mark.slow)
            for case in ("own-loop", "erm-adam", "irm-adam", "group_dro-adam", "dann-adam")
        ),
    ],
)
def test_a_run_killed_again_and_again_is_the_undisturbed_run(case: str, tmp_path: Path) -> None:
    whole, killed = _planned(tmp_path / "whole", case), _planned(tmp_path / "killed", case)
    assert run(whole) == "done"
    found = []
    for attempt, at in enumerate((2, 5, 8, 7, 13), 1):
        _killed(killed, attempt, at)
        found.append(_checkpointed(killed))
        assert not any(name.endswith(".tmp") for name in os.listdir(killed))
    assert found == [
        0,
        3,
        6,
        6,
        12,
    ]  # a death costs what came after the last checkpoint, and nothing else
    assert run(killed, 6) == "done"
    assert_same_results(whole, killed)


def test_a_student_resumes_too(tmp_path: Path) -> None:
    teacher, whole = plan_runs(tmp_path / "whole", "toy_student", budget=BUDGET)
    other_teacher, stopped = plan_runs(tmp_path / "stopped", "toy_student", budget=BUDGET)
    assert run(teacher) == run(other_teacher) == run(whole) == "done"
    assert run(stopped, stop=_stop_after(5)) == "interrupted" and run(stopped, 2) == "done"
    assert_same_results(teacher, other_teacher)
    assert_same_results(whole, stopped)


def test_a_damaged_checkpoint_costs_work_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stopped = (
        _planned(tmp_path / "whole", "erm-adam"),
        _planned(tmp_path / "stopped", "erm-adam"),
    )
    assert run(whole) == "done"
    assert run(stopped, stop=_stop_after(9)) == "interrupted"
    path = stopped / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    assert run(stopped, 2) == "done"
    assert "the run starts from the beginning" in capsys.readouterr().err
    assert_same_results(whole, stopped)


def test_the_log_of_a_stopped_attempt_stays_beside(tmp_path: Path) -> None:
    """An attempt that lost its run writes to its own file, never to that of a later attempt."""
    folder = _planned(tmp_path, "erm-adam")
    assert run(folder, stop=_stop_after(9)) == "interrupted"
    first = (folder / "attempts" / "1" / "log.jsonl").read_text()
    assert first.count("\n") == 2
    assert run(folder, 2) == "done"
    assert (folder / "attempts" / "1" / "log.jsonl").read_text() == first
    assert (folder / "log.jsonl").read_text().startswith(first)


def test_times_of_all_attempts_add_up(tmp_path: Path) -> None:
    folder = _planned(tmp_path, "erm-adam")
    seconds = []
    for attempt, steps in enumerate((3, 3, 3), 1):
        assert run(folder, attempt, stop=_stop_after(steps)) == "interrupted"
        seconds.append(
            torch.load(folder / "checkpoint.pt", weights_only=True)["seconds"]["training"]
        )
    assert run(folder, 4) == "done"
    record = read_record(folder)
    assert 0 < seconds[0] < seconds[1] < seconds[2] < record.seconds.training + 1e-3
    assert record.images_per_second == pytest.approx(14 * 16 / record.seconds.training, rel=0.05)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads of this process, as a slot does."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "case",
    [
        "erm-all",
        *(pytest.param(c, marks=pytest.mark.slow) for c in ("erm-adam", "irm-adam", "own-loop")),
    ],
)
def test_a_run_goes_on_with_the_threads_that_it_began_with(
    case: str, tmp_path: Path, threads: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped under two threads and resumed under one and three, it equals a run with two."""
    whole, single = _planned(tmp_path / "whole", case), _planned(tmp_path / "single", case)
    stopped = _planned(tmp_path / "stopped", case)
    threads(2)
    assert run(whole) == "done"
    assert run(stopped, stop=_stop_after(5)) == "interrupted"
    threads(1)
    assert run(single) == "done"
    assert lines(single) != lines(whole), "the number of threads changes nothing here"
    assert run(stopped, 2, stop=_stop_after(3)) == "interrupted"
    assert mentions(capsys.readouterr().err, "2 threads", "1")
    assert torch.get_num_threads() == 1  # of this process, for the runs that follow
    threads(3)
    assert run(stopped, 3) == "done"
    assert_same_results(whole, stopped)
    records = [read_record(folder) for folder in (whole, single, stopped)]
    assert [record.machine.threads for record in records] == [2, 1, 2]
    assert all(record.machine.resumed == () for record in records)


def _change_checkpoint(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)


def test_another_version_of_torch_is_told_and_stays_on_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _planned(tmp_path, "erm-adam")
    assert run(folder, stop=_stop_after(5)) == "interrupted"
    _change_checkpoint(folder, lambda saved: saved["conditions"]["versions"].update(torch="1.0"))
    assert run(folder, 2, stop=_stop_after(2)) == "interrupted"
    changed = f"torch {importlib.metadata.version('torch')} after 1.0"
    assert f"under different conditions ({changed})" in capsys.readouterr().err
    assert run(folder, 3) == "done"
    assert "different conditions" not in capsys.readouterr().err
    assert read_record(folder).machine.resumed == (changed,)


#: Number of threads of the runs of ``stopped_after_five``.
THREADS = 1


@pytest.fixture(scope="module")
def stopped_after_five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweeps of an undisturbed run and of one that was stopped."""
    root = tmp_path_factory.mktemp("five")
    with registered(OwnLoop, Student), thread_numbers.threads(THREADS):
        assert run(_planned(root / "whole", "erm-adam")) == "done"
        stopped = _planned(root / "stopped", "erm-adam")
        assert run(stopped, stop=_stop_after(5)) == "interrupted"
    return root


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved.pop("conditions"),
        lambda saved: saved["conditions"].pop("threads"),
        lambda saved: saved["conditions"].update(threads=10**9),
        lambda saved: saved["conditions"].update(threads="many"),
        lambda saved: saved.update(conditions=3),
    ],
)
def test_a_checkpoint_that_does_not_tell_its_conditions_is_used_and_said_so(
    change: Callable[[dict[str, Any]], object], stopped_after_five: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped_after_five, tmp_path / "copy")
    whole, stopped = (
        _planned(tmp_path / "copy" / name, "erm-adam") for name in ("whole", "stopped")
    )
    _change_checkpoint(stopped, change)
    with thread_numbers.threads(THREADS):  # which the changed checkpoint does not tell
        assert run(stopped, 2) == "done"
    assert_same_results(whole, stopped)
    assert read_record(stopped).machine.resumed == ("unknown conditions",)
