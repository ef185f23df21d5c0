"""JTT: the weighted loss against a training set with copies, and whose errors they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from algorithms.jtt import upweighted_mean
from benchmark.core.record import read_record
from benchmark.core.registry import DATASETS
from tests.support.runs import built, failure, plan_runs, run, spec_of
from tests.support.tiny import TinyRun, build, make_batch


def test_the_weights_are_copies_of_the_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(20, dtype=torch.float64, generator=generator)
    wrong = torch.arange(20) % 7 == 0
    copies = torch.cat([losses, *[losses[wrong]] * 4])  # five of each in all
    found = upweighted_mean(losses, wrong, 5.0, wrong.double().mean().item())
    assert found.item() == pytest.approx(copies.mean().item(), rel=1e-12)


def test_its_mean_over_batches_is_that_of_the_set_however_the_errors_fall() -> None:
    losses, wrong = torch.arange(12, dtype=torch.float64), torch.arange(12) < 3
    share = 3 / 12
    batches = [
        upweighted_mean(losses[rows], wrong[rows], 50.0, share)
        for rows in torch.arange(12).view(4, 3)
    ]
    whole = upweighted_mean(losses, wrong, 50.0, share)
    assert torch.stack(batches).mean().item() == pytest.approx(whole.item(), rel=1e-12)


@pytest.mark.parametrize(("wrong", "upweight"), [(False, 50.0), (True, 50.0), (True, 1.0)])
def test_no_errors_nothing_but_errors_and_no_weight_are_the_mean(
    wrong: bool, upweight: float
) -> None:
    losses = torch.rand(6, dtype=torch.float64)
    found = upweighted_mean(losses, torch.full((6,), wrong), upweight, float(wrong))
    assert found.item() == pytest.approx(losses.mean().item(), rel=1e-12)


def test_the_loss_looks_the_errors_up_by_row() -> None:
    algorithm = build(
        "jtt", upweight=4.0, upstream={"identification": build("erm", seed=5).eval()}
    ).eval()
    algorithm.fit(TinyRun(algorithm, 0, 0))
    seen, batch = make_batch(seed=-1), make_batch(seed=1)
    wrong = algorithm.setting.upstream["identification"].predict(seen.image).argmax(1) != seen.label
    assert 0 < wrong.sum() < len(wrong) and algorithm.report() == {
        "errors": int(wrong.sum()),
        "of": 12,
    }
    chosen = torch.tensor([7, 0, 11, 4])
    losses = F.cross_entropy(algorithm.predict(batch.image), batch.label, reduction="none")
    weight = torch.where(wrong, 4.0, 1.0)
    expected = (weight * losses)[chosen].mean() / weight.mean()
    assert len(weight[chosen].unique()) == 2
    assert algorithm.loss(batch.rows(chosen))["classification"].item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_a_run_after_its_short_first_training(tmp_path: Path) -> None:
    first, second = plan_runs(
        tmp_path, "jtt", hparams={"identification_share": 0.3}, selection=["val_accuracy"]
    )
    asked = spec_of(first)
    assert asked.method == "erm" and asked.budget["steps"] == asked.budget["evaluate_every"] == 6
    for folder in (first, second):
        assert run(folder) == "done", failure(folder)
    record = read_record(second)
    data = DATASETS.get("tiny")(bias=0.8, size=64).load(0)
    assert record.extra["of"] == len(data.splits["train"]) and 0 < record.extra["errors"] < 64
    assert record.method.needs == ()
    assert read_record(first).selected["val_accuracy"].step == 6
    assert built(second).report() == {}  # before its fit nothing is known
