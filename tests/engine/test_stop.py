"""A run stops while it builds data, evaluates, explains, and between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from benchmark.core.algorithm import TrainingRun
from benchmark.core.errors import StopRequestedError
from benchmark.core.layout import RunFolder, State, state_of
from benchmark.engine import execute as execute_module
from benchmark.engine import explain_run as explain_run_module
from benchmark.engine import loop as loop_module
from benchmark.launch.stop_signals import StopRequest
from datasets.tiny import Tiny
from tests.support.runs import assert_same_results, lines, plan_quick, plan_run, run
from tests.support.toy_algorithms import Plain, registered

#: Longer than a request may take to be honoured, even on a busy machine, seconds.
PATIENCE = 60.0
BUDGET = {"steps": 14, "evaluate_every": 4}


@pytest.fixture
def request_to_stop() -> Iterator[StopRequest]:
    """A stop request that SIGTERM makes to this process."""
    request = StopRequest()
    before = signal.signal(signal.SIGTERM, lambda *_: request.ask("stopped"))
    yield request
    signal.signal(signal.SIGTERM, before)


def stoppable(folder: Path, attempt: int, request: StopRequest) -> str:
    return run(folder, attempt, stop=request.reason, at_once=request.at_once)


def hang() -> None:
    """Ask this process to stop, and go on for minutes."""
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(3000):
        time.sleep(0.1)
    raise AssertionError("the request did not interrupt this")


def test_data_that_take_long_to_build(
    tmp_path: Path, request_to_stop: StopRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = (
        plan_quick(tmp_path / name, "erm", budget=BUDGET) for name in ("whole", "stopped")
    )
    assert run(whole) == "done"
    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(Tiny, "build", lambda self, seed: hang())
        assert stoppable(stopped, 1, request_to_stop) == "interrupted"
    assert time.monotonic() - started < PATIENCE
    assert state_of(stopped) is State.PENDING
    assert not RunFolder(stopped).checkpoint.exists() and not RunFolder(stopped).failure.exists()
    assert run(stopped, 2) == "done"
    assert_same_results(whole, stopped)


def test_a_request_that_came_before_anything_began(
    tmp_path: Path, request_to_stop: StopRequest
) -> None:
    folder = plan_quick(tmp_path, "erm", budget=BUDGET)
    request_to_stop.ask("stopped")
    assert stoppable(folder, 1, request_to_stop) == "interrupted"


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_evaluation_that_takes_long_is_made_when_the_run_is_resumed(
    at: int, tmp_path: Path, request_to_stop: StopRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier steps are kept, and the resumed run and its log equal the undisturbed one."""
    whole, stopped = (
        plan_quick(tmp_path / name, "irm", budget=BUDGET, hparams={"anneal_iters": 6})
        for name in ("whole", "stopped")
    )
    assert run(whole) == "done"
    true, calls = loop_module.evaluate, []

    def slow(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return hang() if len(calls) == at else true(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "evaluate", slow)
        assert stoppable(stopped, 1, request_to_stop) == "interrupted"
    saved = torch.load(RunFolder(stopped).checkpoint, weights_only=True)
    assert saved["step"] == min(4 * at, 14)
    assert saved["evaluated_at"] == (4 * (at - 1) or -1)
    assert run(stopped, 2) == "done"
    assert_same_results(whole, stopped)
    assert [line["step"] for line in lines(stopped)] == [4, 8, 12, 14]


@pytest.mark.parametrize(
    ("module", "what"),
    [(explain_run_module, "explain_splits"), (execute_module, "embed_splits")],
    ids=["explain_splits", "embed_splits"],
)
def test_explanations_that_take_long(
    module: ModuleType,
    what: str,
    tmp_path: Path,
    request_to_stop: StopRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, stopped = (
        plan_run(tmp_path / name, "erm", budget=BUDGET) for name in ("whole", "stopped")
    )
    assert run(whole) == "done"
    with monkeypatch.context() as patch:
        patch.setattr(execute_module, "MAX_CHECKPOINT_AGE", -1.0)
        patch.setattr(module, what, lambda *arguments, **options: hang())
        assert stoppable(stopped, 1, request_to_stop) == "interrupted"
    saved = torch.load(RunFolder(stopped).checkpoint, weights_only=True)
    assert saved["step"] == 14  # training is not lost
    assert run(stopped, 2) == "done"
    assert_same_results(whole, stopped)
    assert not RunFolder(stopped).checkpoint.exists()


class Looks(Plain):
    """Reads the training split before its first step, within a step, and after the last one."""

    name = "toy_looks"
    asks: ClassVar[dict[str, Callable[[], None]]] = {}

    def fit(self, run: TrainingRun) -> None:
        self._look(run, "before")
        for batch in run.steps():
            if self.current_step == 5:
                self._look(run, "within")
            run.log(self.step(batch))
        self._look(run, "after")

    def _look(self, run: TrainingRun, when: str) -> None:
        for _ in run.batches("train"):
            self.asks.get(when, lambda: None)()


@pytest.mark.parametrize(("when", "step"), [("before", 0), ("within", 6), ("after", 14)])
def test_a_method_that_looks_at_the_data_outside_its_steps(
    when: str,
    step: int,
    tmp_path: Path,
    request_to_stop: StopRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a step the run continues to its end, or its weights would be half updated."""
    monkeypatch.setattr(loop_module, "images_per_pass", lambda *_: 8)
    monkeypatch.setattr(loop_module, "POLL_SECONDS", -1.0)
    with registered(Looks):
        whole, stopped = (
            plan_quick(tmp_path / name, "toy_looks", budget=BUDGET) for name in ("whole", "stopped")
        )
        assert run(whole) == "done"
        with monkeypatch.context() as patch:
            patch.setattr(Looks, "asks", {when: lambda: request_to_stop.ask("stopped")})
            assert stoppable(stopped, 1, request_to_stop) == "interrupted"
        saved = torch.load(RunFolder(stopped).checkpoint, weights_only=True)
        assert saved["step"] == step
        assert run(stopped, 2) == "done"
        assert_same_results(whole, stopped)


def test_a_request_interrupts_once() -> None:
    """The clean-up is not interrupted again, however often a launcher asks."""
    request = StopRequest()
    cleaned = []
    with pytest.raises(StopRequestedError), request.at_once():
        try:
            request.ask("first")
        finally:
            request.ask("second")
            cleaned.append(request.reason())
    assert cleaned == ["first"]
    with pytest.raises(StopRequestedError), request.at_once():
        raise AssertionError("never entered")


def test_a_request_outside_interrupts_nothing() -> None:
    request = StopRequest()
    with request.at_once():
        pass
    request.ask("stopped")
    assert request.reason() == "stopped"
    thread = threading.Thread(target=request.lose_lease)
    thread.start()
    thread.join()
    assert request.reason() == "lease lost"
