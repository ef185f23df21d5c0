"""The base class of algorithms: steps, clipped gradients, and required methods."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import benchmark.core
from benchmark.core.algorithm import Algorithm, Paper, Setting
from benchmark.core.batch import Batch
from benchmark.core.hparam import HParam
from benchmark.core.optim import COMMON_HPARAMS

ROOT = Path(__file__).resolve().parents[2]
X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2


class Linear(Algorithm):
    """Mean logit of the wrong class, in two terms."""

    name = "linear"
    hparams = {"lr": HParam(0.5, doc="its own", large=HParam(0.25)), "extra": HParam(3)}

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        logits = self.predict(batch.image)
        return {"a": logits[:, 0].mean(), "b": 2 * logits[:, 1].mean()}


def _made(kind: type[Algorithm] = Linear, **changed: Any) -> Any:
    hparams = {name: h.default for name, h in {**COMMON_HPARAMS, **kind.hparams}.items()}
    torch.manual_seed(0)
    built: list[dict[str, Any]] = []

    def network(**options: Any) -> nn.Module:
        built.append(options)
        return nn.Linear(4, 2)

    algorithm = kind(Setting(2, 3, 2, (1, 2, 2), {**hparams, **changed}, 10, network))
    assert built == [{"dropout": algorithm.hp["dropout"]}]
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm


def test_a_step_minimises_the_sum_of_the_terms_and_returns_each() -> None:
    algorithm = _made(optimizer="sgd", lr=0.1, momentum=0.0)
    before = algorithm.network.weight.detach().clone()
    terms = algorithm.step(Batch(X, Y, Y))
    assert set(terms) == {"a", "b"}
    mean = X.mean(0)  # the gradients of the terms: mean, and twice the mean
    torch.testing.assert_close(
        algorithm.network.weight.detach(), before - 0.1 * torch.stack([mean, 2 * mean])
    )


@pytest.mark.parametrize("clip", [0.0, 0.01, 100.0])
def test_the_norm_of_the_gradient_is_bounded(clip: float) -> None:
    algorithm = _made(optimizer="sgd", lr=1.0, momentum=0.0, clip_norm=clip)
    before = [p.detach().clone() for p in algorithm.parameters()]
    algorithm.step(Batch(X, Y, Y))
    after = [p.detach() for p in algorithm.parameters()]
    moved = math.sqrt(
        sum(float((a - b).square().sum()) for a, b in zip(after, before, strict=True))
    )
    free = math.sqrt(5 * float(X.mean(0).square().sum()) + 5)
    assert moved == pytest.approx(min(free, clip) if clip else free, rel=1e-4)


def test_gradients_of_another_step_do_not_linger() -> None:
    one, two = _made(optimizer="sgd"), _made(optimizer="sgd")
    one.network.weight.grad = torch.full((2, 4), 1e6)
    for algorithm in (one, two):
        algorithm.step(Batch(X, Y, Y))
    assert torch.equal(one.network.weight, two.network.weight)


def test_rebuilt_optimisers_have_forgotten() -> None:
    algorithm = _made()
    algorithm.step(Batch(X, Y, Y))
    assert algorithm.optimizers["main"].state
    algorithm.rebuild_optimizers()
    assert not algorithm.optimizers["main"].state


def test_a_method_that_overrides_nothing_says_so() -> None:
    class Nothing(Algorithm):
        name = "nothing"

    algorithm = _made(Nothing)
    with pytest.raises(NotImplementedError, match="Nothing overrides none of loss, step and fit"):
        algorithm.step(Batch(X, Y, Y))
    with pytest.raises(NotImplementedError, match="Nothing declares no objective"):
        algorithm.objective(Batch(X, Y, Y))
    nowhere: Any = None
    assert (
        algorithm.report() == {}
        and Nothing.upstream(nowhere) == {}
        and Nothing.refuses(nowhere, nowhere) is None
    )


@pytest.mark.parametrize("value", [torch.tensor(1.0), {"classification": 1.0}, None])
def test_a_loss_that_is_no_dictionary_of_tensors_is_refused(value: Any) -> None:
    class Wrong(Algorithm):
        name = "wrong"

        def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
            return value  # type: ignore[no-any-return]

    with pytest.raises(TypeError, match=r"Wrong\.loss must return a dictionary"):
        _made(Wrong).step(Batch(X, Y, Y))


def test_hyper_parameters_of_the_method_come_last_and_may_replace_shared_ones() -> None:
    small, large = Linear.all_hparams(32), Linear.all_hparams(224)
    assert list(small)[:2] == list(COMMON_HPARAMS)[:2] and list(small)[-1] == "extra"
    assert (small["lr"].default, large["lr"].default, large["batch_size"].default) == (
        0.5,
        0.25,
        32,
    )


def test_a_default_that_specs_leave_out_is_filled_in() -> None:
    class Later(Linear):
        hparams = {"added": HParam(1, omit_default=True, large=HParam(2, omit_default=True))}

    assert Later.with_omitted({"lr": 0.1}, 32) == {"added": 1, "lr": 0.1}
    assert Later.with_omitted({"lr": 0.1}, 224) == {"added": 2, "lr": 0.1}
    assert Later.with_omitted({"added": 5}, 32) == {"added": 5}


def test_groups_are_classes_times_confounders_and_papers_can_be_read() -> None:
    assert _made().setting.num_groups == 6
    assert str(Paper("A title", "A, B", 2020, "https://…")) == "A, B (2020), A title"


def test_the_vocabulary_is_found_by_name_and_without_torch() -> None:
    for name in dir(benchmark.core):
        if not name.startswith("_"):
            assert getattr(benchmark.core, name) is not None
    assert benchmark.core.Algorithm is Algorithm
    with pytest.raises(
        AttributeError, match=r"module 'benchmark\.core' has no attribute 'Algoritm'"
    ):
        benchmark.core.Algoritm  # noqa: B018
    code = (
        "import sys, benchmark.core as c; c.RunSpec, c.HParam, c.Needs, c.UserError; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"
