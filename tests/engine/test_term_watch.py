"""A term without gradient ends a run with an error; a term that stays 0 is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.core.batch import Batch
from benchmark.core.errors import UserError
from benchmark.core.files import read_json
from benchmark.core.hparam import HParam
from benchmark.core.record import read_record
from benchmark.engine.term_watch import CHECKED_STEPS, TermWatch
from tests.support import tiny
from tests.support.messages import mentions
from tests.support.runs import failure, lines, plan_quick, run
from tests.support.toy_algorithms import Plain, registered


class Penalised(Plain):
    """Cross-entropy and a term that ``how`` makes."""

    name = "toy_penalised"
    hparams = {"how": HParam("good"), "from_step": HParam(0)}
    may_be_zero = frozenset({"excused"})

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        terms = super().loss(batch)
        weight = self.network.classifier.weight
        how = self.hp["how"] if self.current_step >= self.hp["from_step"] else "good"
        if how == "good":
            return {**terms, "other": weight.square().mean()}
        made: dict[str, Callable[[], torch.Tensor]] = {
            "detached": lambda: weight.detach().square().mean(),
            "leaf": lambda: torch.zeros(3, requires_grad=True).square().sum(),
            "missing": lambda: torch.zeros(()),
            "of_the_teacher": lambda: nn.Linear(2, 2)(torch.ones(1, 2)).sum(),
            "weight_of_0": lambda: 0.0 * weight.square().mean(),
            "excused": lambda: torch.zeros(()),
        }
        name = "excused" if how in ("excused", "excused_but_constant") else "other"
        if how == "excused_but_constant":
            return {**terms, name: torch.ones(())}
        return {**terms, name: made[how]()}


class Monitored(Plain):
    """Logs, beside the loss, what is no part of it."""

    name = "toy_monitored"

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        terms = super().step(batch)
        return {**terms, "norm": self.network.classifier.weight.detach().norm(), "half": 0.5}


class Still(Plain):
    """A loss whose gradient is exactly 0."""

    name = "toy_still"

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"constant": 1 + 0.0 * self.predict(batch.image).sum()}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered(Plain, Penalised, Monitored, Still):
        yield


def outcome(root: Path, how: str, **hparams: Any) -> tuple[str, Path]:
    folder = plan_quick(root, "toy_penalised", hparams={"how": how, **hparams})
    return run(folder), folder


@pytest.mark.parametrize(
    "how", ["detached", "leaf", "missing", "of_the_teacher", "excused_but_constant"]
)
def test_a_term_that_nothing_moves_is_a_users_error(how: str, tmp_path: Path) -> None:
    ended, folder = outcome(tmp_path, how)
    found = failure(folder)
    name = "excused" if how.startswith("excused") else "other"
    assert ended == "failed" and found["kind"] == "user_error"
    assert f"the term {name} of toy_penalised" in found["message"]
    assert "may_be_zero" in found["message"] and "traceback" not in found


def test_a_term_that_appears_later_is_looked_at_then(tmp_path: Path) -> None:
    """A term that loses its graph later ends the run CHECKED_STEPS steps afterwards."""
    ended, folder = outcome(tmp_path, "missing", from_step=10)
    assert ended == "done"  # good at first: the price of looking at first steps alone
    ended, folder = outcome(tmp_path, "excused_but_constant", from_step=10)  # a new term at step 10
    assert ended == "failed" and "the term excused" in failure(folder)["message"]


def test_a_term_of_weight_0_is_on_record_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, folder = outcome(tmp_path, "weight_of_0")
    assert ended == "done"
    (sentence,) = read_record(folder).extra["warnings"]
    assert mentions(sentence, "term other", "0", f"{CHECKED_STEPS} steps")
    assert f"warning: {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["good", "excused"])
def test_nothing_is_said_of_terms_that_are_as_they_should_be(how: str, tmp_path: Path) -> None:
    ended, folder = outcome(tmp_path, how)
    assert ended == "done" and "warnings" not in read_record(folder).extra


def test_what_is_only_logged_is_no_term(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path, "toy_monitored")
    assert run(folder) == "done" and "warnings" not in read_record(folder).extra
    assert {"norm", "half"} <= set(lines(folder)[0]["terms"])


def test_a_loss_without_gradient_is_on_record(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path, "toy_still")
    assert run(folder) == "done"
    (sentence,) = read_record(folder).extra["warnings"]
    assert mentions(sentence, "gradient", "0", f"{CHECKED_STEPS} steps")


def test_too_short_a_run_is_warned_of(tmp_path: Path) -> None:
    folder = plan_quick(
        tmp_path,
        "toy_penalised",
        hparams={"how": "missing"},
        budget={"steps": 2, "evaluate_every": 1},
    )
    assert run(folder) == "done"
    (sentence,) = read_record(folder).extra["warnings"]
    assert "the term other" in sentence


def test_a_resumed_run_does_not_look_again(tmp_path: Path) -> None:
    """Else a term that has become 0 by then would be taken for one that was 0 from the start."""
    stops = iter([None] * 4 + ["stopped"] * 100)
    folder = plan_quick(tmp_path, "toy_penalised", hparams={"how": "weight_of_0", "from_step": 4})
    assert run(folder, stop=lambda: next(stops)) == "interrupted"
    assert run(folder, 2) == "done"
    assert "warnings" not in read_record(folder).extra


def test_a_warning_survives_a_resume(tmp_path: Path) -> None:
    stops = iter([None] * 5 + ["stopped"] * 100)
    folder = plan_quick(tmp_path, "toy_penalised", hparams={"how": "weight_of_0"})
    assert run(folder, stop=lambda: next(stops)) == "interrupted"
    assert run(folder, 2) == "done"
    assert len(read_record(folder).extra["warnings"]) == 1
    assert read_json(folder / "record.json")["extra"]["warnings"]


def test_the_state_is_what_a_checkpoint_may_hold() -> None:
    algorithm = tiny.build("erm")
    watch = TermWatch(algorithm)
    for step in range(2):
        watch.observe(algorithm.step(tiny.make_batch(seed=step)))
    again = TermWatch(algorithm)
    again.restore(watch.state())
    assert again.state() == watch.state()
    assert watch.state()["terms"] == {"classification": [2, 0, 0]}


def test_terms_of_networks_that_run_at_the_same_time_have_their_parameters() -> None:
    from tests.support.threads import threads

    with threads(2):
        algorithm = tiny.build("ex2l", side=32)
        watch = TermWatch(algorithm)
        for step in range(CHECKED_STEPS):
            watch.observe(algorithm.step(tiny.make_batch(side=32, seed=step)))
    assert algorithm.parallel_forward.overlaps
    assert set(watch.terms) == {"classification", "confounder", "similarity"}
    assert all(seen.constant == 0 for seen in watch.terms.values())


def test_a_similarity_that_moves_nothing_is_found() -> None:
    """eX2L with both maps detached, as the paper's sentence taken literally would have it."""
    algorithm = tiny.build("ex2l", side=32)
    explain = algorithm.explain

    def detached(*arguments: Any) -> Any:
        cam, logits = explain(*arguments)
        return cam.detach(), logits

    algorithm.explain = detached
    watch = TermWatch(algorithm)
    with pytest.raises(UserError, match="the term similarity of ex2l"):
        for step in range(CHECKED_STEPS):
            watch.observe(algorithm.step(tiny.make_batch(side=32, seed=step)))
