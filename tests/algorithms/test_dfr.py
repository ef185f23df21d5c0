"""DFR: logistic regression against scikit-learn, balanced rows, and the new last layer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from algorithms.dfr import INVERSE_STRENGTHS, balanced_rows, fit_logistic, worst_group
from benchmark.core.batch import Batch
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS
from tests.support.runs import failure, lines, plan_runs, run, spec_of
from tests.support.tiny import TinyRun, build, make_batch


def points(classes: int, rows: int = 60, columns: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % classes
    x = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    x[:, 0] += y
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]  # nearly the same column twice
    return (x - x.mean(0)) / x.std(0, correction=0), y


def objective(weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor, c: float) -> float:
    logits = x @ weight[:, :-1].T + weight[:, -1]
    return float(weight[:, :-1].abs().sum() + c * F.cross_entropy(logits, y, reduction="sum"))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [1.0, 0.1])
def test_the_regression_is_scikit_learns(classes: int, c: float) -> None:
    x, y = points(classes)
    found = fit_logistic(x, y, classes, c)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # saga stops at its number of iterations; penalty= is to be renamed
        peer = LogisticRegression(penalty="l1", C=c, solver="saga", max_iter=3000, tol=1e-9).fit(
            x, y
        )
    peers = torch.from_numpy(np.concatenate([peer.coef_, peer.intercept_[:, None]], 1))
    if classes == 2:  # one row w stands for −w/2 and w/2: the same probabilities, the same L1 norm
        peers = torch.cat([-peers, peers]) / 2
    assert objective(found, x, y, c) == pytest.approx(objective(peers, x, y, c), rel=1e-6)
    ours, theirs = (x @ w[:, :-1].T + w[:, -1] for w in (found, peers))
    assert torch.allclose(ours.softmax(1), theirs.softmax(1), atol=2e-3)


def test_it_is_a_minimum() -> None:
    """At the optimum under the L1 norm the gradient is −sign(w), or at most 1 where w = 0."""
    x, y = points(3)
    weight = fit_logistic(x, y, 3, 0.3).requires_grad_()
    loss = 0.3 * F.cross_entropy(x @ weight[:, :-1].T + weight[:, -1], y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, weight)
    lives = weight[:, :-1] != 0
    assert 0 < lives.sum() < lives.numel()
    assert torch.allclose(gradient[:, :-1][lives], -weight[:, :-1][lives].sign(), atol=1e-4)
    assert (gradient[:, :-1][~lives].abs() <= 1 + 1e-4).all()
    assert gradient[:, -1].abs().max() < 1e-4


def test_regressions_that_have_nothing_to_go_by_are_finite() -> None:
    x, y = points(2)
    assert (fit_logistic(x, y, 2, 1e-6)[:, :-1] == 0).all()  # all penalty
    assert fit_logistic(torch.zeros_like(x), y, 2, 1.0).isfinite().all()
    assert fit_logistic(x[:1], y[:1], 2, 1.0).isfinite().all()  # a class without images
    separable = fit_logistic(10 * x[:, :1], (x[:, 0] > 0).long(), 2, 1.0)
    assert (
        separable.isfinite().all()
        and worst_group(separable, 10 * x[:, :1], (x[:, 0] > 0).long(), y) == 1
    )


def test_balanced_rows() -> None:
    group = torch.tensor([0] * 9 + [3] * 4 + [1] * 2 + [5] * 30)
    rows = balanced_rows(group, torch.Generator().manual_seed(0))
    assert group[rows].bincount().tolist() == [2, 2, 0, 2, 0, 2] and len(rows.unique()) == 8
    drawn = torch.cat([balanced_rows(group, torch.Generator().manual_seed(n)) for n in range(200)])
    assert set(drawn.tolist()) == set(range(len(group))), "a row that is never drawn"


def test_worst_group() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)  # class 1 where x > 0
    x = torch.tensor([[1.0], [1.0], [-1.0], [-1.0], [1.0]], dtype=torch.float64)
    y, group = torch.tensor([1, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 4])
    assert worst_group(weight, x, y, group) == 0.5
    assert worst_group(weight, x[4:], y[4:], group[4:]) == 1


def test_the_last_layer_is_the_regression_on_the_features_as_they_come() -> None:
    standard = build("erm", seed=4).eval()
    algorithm = build("dfr", upstream={"standard": standard}, retrainings=3)
    body = copy.deepcopy(algorithm.network.body.state_dict())
    algorithm.fit(TinyRun(algorithm, 0, 5))
    batch = make_batch(seed=-2)
    with torch.no_grad():
        raw = standard.network.features(batch.image).double()
        x = (raw - raw.mean(0)) / raw.std(0, correction=0).clamp_min(1e-12)
        weight, c = algorithm.retrain(x, batch.label, batch.group)
        expected = x @ weight[:, :-1].T + weight[:, -1]
        assert torch.allclose(algorithm.eval().predict(batch.image).double(), expected, atol=1e-4)
    assert (
        algorithm.report() == {"c": c, "balanced": 12, "validation": 12} and c in INVERSE_STRENGTHS
    )
    assert all(torch.equal(v, body[k]) for k, v in algorithm.network.body.state_dict().items()), (
        "features moved"
    )


class Shortcut(TinyRun):
    """Validation images of two classes with a strong shortcut that is right in 90 % of them."""

    def batches(self, split: str) -> Iterator[Batch]:
        assert split == "val"
        generator = torch.Generator().manual_seed(0)
        label = torch.arange(400) % 2
        confounder = torch.where(torch.arange(400) % 20 < 2, 1 - label, label)
        image = torch.randn(400, 3, 16, 16, generator=generator)
        image[:, 0] += 2 * label[:, None, None]
        image[:, 1] += 2 * confounder[:, None, None]
        yield Batch(image, label, torch.arange(400), label * 2 + confounder, confounder)


def test_it_gives_up_the_shortcut_of_its_base() -> None:
    class Passing(torch.nn.Module):
        """Channel means for features."""

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()
            self.classifier = torch.nn.Linear(3, 2)

        def features(self, image: torch.Tensor) -> torch.Tensor:
            return image.mean((2, 3))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.features(image))  # type: ignore[no-any-return]

    base = build("erm", build_network=Passing, num_classes=2).eval()
    base.network.classifier.weight.data = torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]])
    base.network.classifier.bias.data = torch.tensor([1.0, -1.0])
    algorithm = build("dfr", build_network=Passing, num_classes=2, upstream={"standard": base})
    run = Shortcut(algorithm, 0, 1)
    (batch,) = run.batches("val")

    def worst() -> float:
        right = algorithm.predict(batch.image).argmax(1) == batch.label
        return min(right[batch.group == g].float().mean().item() for g in range(4))

    assert worst() == 0, "the base follows the shortcut"
    algorithm.fit(run)
    assert worst() > 0.95
    kept = algorithm.network.classifier.weight.abs().sum(0)
    assert kept[0] > 5 * kept[1]


def test_without_groups_it_fails_at_once() -> None:
    algorithm = build("dfr", upstream={"standard": build("erm").eval()})
    with pytest.raises(AssertionError):
        algorithm.fit(TinyRun(algorithm, 0, 1, needs=replace(algorithm.needs, val_groups=False)))


def test_a_run_in_the_engine_sees_the_groups_of_validation_and_makes_no_step(
    tmp_path: Path,
) -> None:
    first, second = plan_runs(tmp_path, "dfr", selection=["val_mean", "last"])
    assert spec_of(first).method == "erm"
    for folder in (first, second):
        assert run(folder) == "done", failure(folder)
    record = read_record(second)
    assert record.steps == 0 and record.method.needs == ("val_groups",)
    assert record.extra["validation"] == 32 and record.extra["c"] in INVERSE_STRENGTHS
    (line,) = lines(second)
    assert set(line["terms"]) == {"validation"}


def test_the_standard_training_may_be_longer(tmp_path: Path) -> None:
    """Its run is the one that ERM's row needs too, unless its length is another."""
    spec = spec_of(plan_runs(tmp_path / "alike", "dfr")[1])
    assert ALGORITHMS.get("dfr").upstream(spec)["standard"].budget == {}
    first, _ = plan_runs(tmp_path / "longer", "dfr", hparams={"standard_share": 2.5})
    longer = spec_of(first).budget
    assert longer["steps"] == round(2.5 * spec.budget["steps"])
    assert longer["evaluate_every"] == round(2.5 * spec.budget["evaluate_every"])
