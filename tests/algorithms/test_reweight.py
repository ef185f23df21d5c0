"""The controls: the standard loss, and batches that are balanced over groups or environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.core.batch import Batch
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS
from tests.support.runs import failure, plan_run, run
from tests.support.threads import threads
from tests.support.tiny import build, make_batch


@pytest.mark.parametrize("name", ["reweight", "reweight_environments"])
def test_the_loss_is_that_of_erm(name: str) -> None:
    batch = make_batch()
    ours, plain = build(name), build("erm")
    stripped = batch.strip(plain.needs)
    assert stripped.group is None and stripped.environment is None
    expected = plain.loss(stripped)["classification"]
    assert torch.equal(ours.loss(batch.strip(ours.needs))["classification"], expected)


def test_irm_without_its_penalty_minimises_the_controls_loss() -> None:
    """With equal shares the mean of the environments' risks is the mean over the batch."""
    batch = make_batch()
    control = build("reweight_environments")
    irm = build("irm", penalty_weight=0.0, anneal_iters=0)
    terms = irm.loss(batch.strip(irm.needs))
    assert terms["penalty"] == 0
    expected = control.loss(batch.strip(control.needs))["classification"]
    torch.testing.assert_close(terms["classification"], expected)


def test_it_samples_as_the_methods_that_it_controls_for() -> None:
    control = ALGORITHMS.get("reweight_environments")
    for name in ("irm", "mmd", "coral", "dann", "cdan"):
        kind = ALGORITHMS.get(name)
        assert (kind.sampling, kind.needs) == (control.sampling, control.needs), name


def test_every_batch_holds_equally_many_images_of_every_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = ALGORITHMS.get("reweight_environments")
    seen: list[list[int]] = []
    loss = kind.loss

    def spy(self: Any, batch: Batch) -> dict[str, torch.Tensor]:
        assert batch.environment is not None and batch.group is None
        seen.append(torch.bincount(batch.environment, minlength=2).tolist())
        return loss(self, batch)  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "loss", spy)
    folder = plan_run(tmp_path, "reweight_environments", selection=["val_accuracy", "last"])
    with threads(1):
        assert run(folder) == "done", failure(folder)
    assert seen == [[8, 8]] * 20
    method = read_record(folder).method
    assert method.needs == ("environments",) and method.sampling == "environment"
