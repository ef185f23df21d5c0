"""The ways in which a run can end: failed, out of memory, stopped, without its lease, twice."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.core.files import to_json, write_atomic
from benchmark.core.layout import State, state_of
from benchmark.core.registry import DATASETS
from benchmark.core.run_states import AttemptEnd
from tests.support.runs import done, failure, plan_quick, run, spec_of
from tests.support.toy_algorithms import Accident, Plain, registered


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered(Plain, Accident):
        yield


def _accident(root: Path, how: str, at: int = 5) -> tuple[str, Path]:
    folder = plan_quick(root, "toy_accident", hparams={"how": how, "at": at})
    return run(folder), folder


@pytest.mark.parametrize("how", ["nan", "inf"])
@pytest.mark.parametrize("at", [1, 5, 7, 20])
def test_a_loss_that_is_not_finite_names_step_and_term(how: str, at: int, tmp_path: Path) -> None:
    outcome, folder = _accident(tmp_path, how, at)
    found = failure(folder)
    assert outcome == "failed" and state_of(folder) is State.FAILED
    assert (found["kind"], found["step"], found["term"]) == (
        "non_finite",
        at,
        "term other of the loss",
    )
    assert f"at step {at}" in found["message"] and "traceback" not in found
    assert (
        found["key"] == folder.name
        and found["attempt"] == 1
        and not (folder / "record.json").exists()
    )


def test_weights_that_become_nan_are_found_at_the_next_step_or_look(tmp_path: Path) -> None:
    _, folder = _accident(tmp_path, "weights", at=20)
    assert (failure(folder)["step"], failure(folder)["term"]) == (20, "logits on split val")
    _, folder = _accident(tmp_path, "weights", at=6)
    assert (failure(folder)["step"], failure(folder)["term"]) == (
        7,
        "term classification of the loss",
    )


def test_a_learning_rate_that_explodes(tmp_path: Path) -> None:
    largest = {"lr": 1e3, "weight_decay": 1e3, "optimizer": "sgd"}  # times a million in each step
    folder = plan_quick(tmp_path, hparams=largest)
    assert run(folder) == "failed"
    found = failure(folder)
    assert (
        found["kind"] == "non_finite"
        and found["step"] <= 10
        and "a smaller lr or clip_norm = 1" in found["message"]
    )


def test_a_bug_keeps_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome, folder = _accident(tmp_path, "bug")
    found = failure(folder)
    assert outcome == "failed" and found["kind"] == "exception"
    assert found["message"] == "KeyError: 'a bug in the method'"
    assert "in loss" in found["traceback"] and "KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "expected"),
    [("memory", "out_of_memory"), ("huge", "out_of_memory"), ("device", "device_error")],
)
def test_a_lack_of_memory_and_an_error_of_the_gpu_are_no_failures(
    how: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, folder = _accident(tmp_path, how)
    assert outcome == expected and state_of(folder) is State.PENDING
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_raised_and_fails_no_run(tmp_path: Path) -> None:
    with pytest.raises(OSError) as found:
        _accident(tmp_path, "disk")
    assert found.value.errno == errno.ENOSPC
    (folder,) = (tmp_path / "runs").iterdir()
    assert state_of(folder) is State.PENDING


def test_data_that_changed_since_the_plan_are_a_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plan_quick(tmp_path)
    monkeypatch.setattr(DATASETS.get("tiny"), "version", 99)
    assert run(folder) == "failed"
    found = failure(folder)
    assert found["kind"] == "user_error" and "traceback" not in found
    assert "have changed since the sweep was planned" in found["message"]


def test_a_method_that_cannot_sample_is_a_users_error(tmp_path: Path) -> None:
    """By chance, all of so few images may be of one environment; no plan can know."""
    tiny = DATASETS.get("tiny")
    trial = next(
        t
        for t in range(200)
        if (tiny(bias=0.99, size=8).load(t).splits["train"].environment == 0).all()
    )
    folder = plan_quick(tmp_path, "irm", datasets=["tiny:bias=0.99,size=8"], trials=[trial])
    assert run(folder) == "failed" and failure(folder)["kind"] == "user_error"
    assert "at least two non-empty training environments" in failure(folder)["message"]


def test_a_checkpoint_of_other_code_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plan_quick(tmp_path, "toy")
    assert run(folder, stop=_Stop(after=7)) == "interrupted"
    true = Plain.__init__

    def edited(self: Plain, setting: Any) -> None:
        true(self, setting)
        self.extra = torch.nn.Linear(2, 2)

    monkeypatch.setattr(Plain, "__init__", edited)
    assert run(folder, 2) == "failed"
    found = failure(folder)
    assert found["kind"] == "user_error" and found["message"].count("\n") == 0
    assert "checkpoint.pt does not fit" in found["message"]
    assert "delete it" in found["message"]


def test_a_spec_of_another_schema_is_raised(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path)
    write_atomic(folder / "spec.json", to_json({**spec_of(folder).to_json(), "schema": 2}))
    with pytest.raises(UserError, match="schema version 2"):
        run(folder)


class _Stop:
    """A stop that is asked for after some polls."""

    def __init__(self, after: int, reason: str = "stopped") -> None:
        self.left, self.reason = after, reason

    def __call__(self) -> str | None:
        self.left -= 1
        return self.reason if self.left < 0 else None


def test_a_stop_saves_what_was_done(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path)
    assert run(folder, stop=_Stop(after=7)) == "interrupted"
    assert state_of(folder) is State.PENDING and (folder / "checkpoint.pt").exists()
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 7 and [
        json.loads(text)["step"] for text in saved["log"].splitlines()
    ] == [5]
    assert saved["seconds"]["training"] > 0  # also what passed since the last evaluation


def test_a_lost_lease_ends_a_run_without_a_word(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path)
    assert run(folder, stop=_Stop(after=7, reason=AttemptEnd.LEASE_LOST)) == "interrupted"
    assert {p.name for p in folder.iterdir()} == {"spec.json", "attempts"}
    # the lease goes at the very end, or while a failure is written: nothing is committed either
    assert run(folder, 2, stop=_Stop(after=20, reason=AttemptEnd.LEASE_LOST)) == "interrupted"
    assert {p.name for p in folder.iterdir()} == {"spec.json", "attempts"}
    folder = plan_quick(tmp_path / "accident", "toy_accident", hparams={"at": 5})
    assert run(folder, stop=_Stop(after=5, reason=AttemptEnd.LEASE_LOST)) == "failed"
    assert {p.name for p in folder.iterdir()} == {"spec.json", "attempts"}


def test_the_first_to_commit_wins(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path)
    assert run(folder) == "done"
    first = (folder / "record.json").read_bytes()
    assert run(folder, 2) == "settled"
    assert (folder / "record.json").read_bytes() == first


def test_a_record_of_the_same_spec_is_the_same_but_for_times(tmp_path: Path) -> None:
    one, two = (done(tmp_path / name, "dann", hparams={"dropout": 0.2}) for name in ("a", "b"))
    still: dict[str, Any] = {
        "seconds": {},
        "images_per_second": 0.0,
        "peak_memory_bytes": 0,
        "machine": {},
    }
    still |= {"started": 0.0, "finished": 0.0, "inference_images_per_second": None}
    assert replace(one, **still) == replace(two, **still)
