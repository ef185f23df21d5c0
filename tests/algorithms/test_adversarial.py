"""DANN and CDAN: a step by hand, the parameters that each loss trains, the gradient penalty."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms.adversarial import perceptron
from benchmark.core.batch import Batch
from tests.support.tiny import build, make_batch, train

SGD = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1, "mlp_width": 8}


def double_batch() -> Batch:
    batch = make_batch()
    return Batch(batch.image.double(), batch.label, batch.index, environment=batch.environment)


def descend(module: nn.Module, loss: torch.Tensor, lr: float) -> None:
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    with torch.no_grad():
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter -= lr * gradient


@pytest.mark.parametrize("d_steps", [1, 3])
@pytest.mark.parametrize("name", ["dann", "cdan"])
def test_a_step_by_hand(name: str, d_steps: int) -> None:
    algorithm = build(name, adversary_weight=0.3, d_steps=d_steps, **SGD).double()
    network, judge, batch = (
        copy.deepcopy(algorithm.network),
        copy.deepcopy(algorithm.discriminator),
        double_batch(),
    )
    terms = algorithm.step(batch)

    features = network.features(batch.image)
    logits = network.classifier(features)
    seen = (
        features
        if name == "dann"
        else torch.einsum("bk,bf->bkf", logits.softmax(1), features).flatten(1)
    )
    for _ in range(d_steps):
        recognised = F.cross_entropy(judge(seen.detach()), batch.environment)
        descend(judge, recognised, 0.1)
    classification = F.cross_entropy(logits, batch.label)
    fooled = F.cross_entropy(judge(seen), batch.environment)
    descend(network, classification - 0.3 * fooled, 0.1)  # the reversed gradient: minus

    for found, expected in ((algorithm.discriminator, judge), (algorithm.network, network)):
        for one, other in zip(found.parameters(), expected.parameters(), strict=True):
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    values = {
        "classification": classification,
        "adversary": -0.3 * fooled,
        "discriminator": recognised,
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {k: v.item() for k, v in values.items()}, rel=1e-10
    )


def test_a_step_of_the_network_raises_the_loss_of_the_discriminator_as_it_stands() -> None:
    batch, change = double_batch(), {}
    for weight in (0.0, 50.0):
        algorithm = build("dann", adversary_weight=weight, **{**SGD, "lr": 1e-3}).double()
        fooled = []
        for network in (
            copy.deepcopy(algorithm.network),
            algorithm.network,
        ):  # before and after the step
            if network is algorithm.network:
                algorithm.step(batch)
            fooled.append(network.features(batch.image))
        change[weight] = [
            F.cross_entropy(algorithm.discriminator(f), batch.environment).item() for f in fooled
        ]
    assert change[50.0][1] > change[50.0][0]
    assert change[50.0][1] - change[50.0][0] > 10 * abs(change[0.0][1] - change[0.0][0])


class Spy:
    """Stands in for ``minimise``: notes what a step of the discriminator does to the network."""

    def __init__(self, algorithm: Any) -> None:
        self.algorithm, self.real, self.called = algorithm, algorithm.minimise, 0
        algorithm.minimise = self

    def __call__(self, terms: dict[str, torch.Tensor], optimizer: str) -> None:
        if optimizer == "discriminator":
            self.called += 1
            network = list(self.algorithm.network.parameters())
            total = sum(terms.values())
            reached = torch.autograd.grad(total, network, retain_graph=True, allow_unused=True)
            assert all(gradient is None for gradient in reached)
            before = [p.clone() for p in network]
            self.real(terms, optimizer)
            assert all(torch.equal(p, q) for p, q in zip(network, before, strict=True))
            assert all(p.grad is None for p in network)
        else:
            self.real(terms, optimizer)
            self.algorithm.network.zero_grad()


@pytest.mark.parametrize("options", [{}, {"grad_penalty": 2.0}])
@pytest.mark.parametrize("name", ["dann", "cdan", "cdann"])
def test_the_discriminators_step_neither_moves_nor_differentiates_the_network(
    name: str, options: dict
) -> None:
    algorithm = build_named(name, d_steps=2, **options)
    spy = Spy(algorithm)
    train(algorithm, 0, 2)
    assert spy.called == 4
    assert {int(s["step"]) for s in algorithm.optimizers["discriminator"].state.values()} == {4}
    assert {int(s["step"]) for s in algorithm.optimizers["main"].state.values()} == {2}


def build_named(name: str, **options: Any) -> Any:
    more = {"condition": "embedding"} if name == "cdann" else {}
    return build("cdan" if name == "cdann" else name, mlp_width=8, **more, **options)


@pytest.mark.parametrize("name", ["dann", "cdan", "cdann"])
def test_without_weight_the_penalty_is_not_computed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("differentiated twice")

    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    train(build_named(name), 0, 1)
    with pytest.raises(AssertionError, match="differentiated twice"):
        train(build_named(name, grad_penalty=0.1), 0, 1)


def test_penalty_is_the_mean_squared_norm_of_each_rows_gradient() -> None:
    algorithm, batch = build("dann", mlp_width=8).double(), double_batch()
    joint = torch.randn(12, algorithm.network.num_features, dtype=torch.float64, requires_grad=True)
    h, squares = 1e-6, 0.0
    for row in range(12):
        for column in range(joint.shape[1]):
            moved = []
            for sign in (1, -1):
                shifted = joint.detach()[row : row + 1].clone()
                shifted[0, column] += sign * h
                moved.append(
                    F.cross_entropy(
                        algorithm.discriminator(shifted), batch.environment[row : row + 1]
                    ).item()
                )
            squares += ((moved[0] - moved[1]) / (2 * h)) ** 2
    without = algorithm.discriminator_loss(joint, batch)
    found = algorithm.discriminator_loss(joint, batch, penalty=5.0)
    assert without.item() == pytest.approx(
        F.cross_entropy(algorithm.discriminator(joint), batch.environment).item()
    )
    assert (found - without).item() == pytest.approx(5 * squares / 12, rel=1e-6)
    gradients = torch.autograd.grad(
        found - without, list(algorithm.discriminator.parameters()), allow_unused=True
    )
    assert sum(g.abs().sum() for g in gradients if g is not None) > 0


def test_outer_product_by_loops_and_the_gradient_through_both_factors() -> None:
    algorithm = build("cdan", mlp_width=8).double()
    features = torch.randn(
        2, algorithm.network.num_features, dtype=torch.float64, requires_grad=True
    )
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    joint = algorithm.joint(features, logits, torch.tensor([0, 1]))
    assert joint.shape == (2, algorithm.joint_size()) == (2, 3 * algorithm.network.num_features)
    for row in range(2):
        by_hand = [p * f for p in logits.softmax(1)[row].tolist() for f in features[row].tolist()]
        assert joint[row].tolist() == pytest.approx(by_hand, rel=1e-12)
    gradients = torch.autograd.grad(joint.square().sum(), (features, logits))
    assert all(g.abs().min() > 0 for g in gradients)


def test_cdann_adds_a_learnt_vector_and_every_class_counts_the_same() -> None:
    algorithm = build_named("cdann").double()
    label = torch.tensor([0, 0, 0, 2])
    features = torch.randn(4, algorithm.network.num_features, dtype=torch.float64)
    joint = algorithm.joint(features, torch.randn(4, 3, dtype=torch.float64), label)
    assert torch.equal(joint, features + algorithm.embedding.weight[label])
    losses = torch.tensor([1.0, 2.0, 6.0, 5.0], dtype=torch.float64)
    assert algorithm.average(losses, label) == (3 + 5) / 2
    assert build("cdan").average(losses, label) == 14 / 4
    before = algorithm.embedding.weight.clone()
    algorithm.step(double_batch())
    assert not torch.equal(algorithm.embedding.weight, before), (
        "the vectors are learnt, by the discriminator"
    )
    assert not hasattr(build("cdan"), "embedding")


@pytest.mark.parametrize("name", ["dann", "cdan", "cdann"])
def test_optimisers_share_out_the_parameters_and_take_beta_and_decay(name: str) -> None:
    algorithm = build_named(name, beta1=0.25, weight_decay=0.01, weight_decay_d=0.02)
    main, judge = (algorithm.optimizers[key].param_groups[0] for key in ("main", "discriminator"))
    assert main["betas"] == judge["betas"] == (0.25, 0.9)
    assert (main["weight_decay"], judge["weight_decay"]) == (0.01, 0.02)
    moved = [id(p) for group in (main, judge) for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in algorithm.parameters())
    assert {id(p) for p in main["params"]} == {id(p) for p in algorithm.network.parameters()}


@pytest.mark.parametrize(("lr_d", "expected"), [(0.0, 0.1), (0.02, 0.02)])
def test_the_discriminator_has_a_learning_rate_of_its_own_or_the_networks(
    lr_d: float, expected: float
) -> None:
    optimizers = build("dann", lr_d=lr_d, **SGD).make_optimizers()
    assert optimizers["main"].param_groups[0]["lr"] == 0.1
    assert optimizers["discriminator"].param_groups[0]["lr"] == expected


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_perceptron_has_depth_linear_layers(depth: int) -> None:
    layers = [layer for layer in perceptron(5, 2, 7, depth) if isinstance(layer, nn.Linear)]
    sizes = [layer.in_features for layer in layers] + [layers[-1].out_features]
    assert sizes == [5, *[7] * (depth - 1), 2]


@pytest.mark.parametrize("name", ["dann", "cdan", "cdann"])
@pytest.mark.parametrize("environment", [[0] * 11 + [1], [1] * 12])
def test_one_row_of_an_environment_or_none_stays_finite(name: str, environment: list[int]) -> None:
    algorithm, batch = build_named(name, grad_penalty=1.0), make_batch()
    terms = algorithm.step(
        Batch(batch.image, batch.label, batch.index, environment=torch.tensor(environment))
    )
    assert all(value.isfinite() for value in terms.values())
    assert all(p.isfinite().all() for p in algorithm.parameters())


@pytest.mark.parametrize(
    ("name", "plain"), [("dann_confounder", "dann"), ("cdan_confounder", "cdan")]
)
def test_the_confounder_as_domain(name: str, plain: str) -> None:
    """The method on confounders is the plain one on data whose environments are the confounders."""
    algorithm = build(name, mlp_width=8, num_confounders=4, num_environments=2)
    other = build(plain, mlp_width=8, num_confounders=2, num_environments=4)
    batch = replace(make_batch(), confounder=torch.arange(12) % 4)
    swapped = replace(batch, environment=batch.confounder, confounder=None)
    for step in range(2):
        terms = algorithm.step(batch)
        expected = other.step(swapped)
        assert terms.keys() == expected.keys()
        for term, value in terms.items():
            assert value.item() == expected[term].item(), (step, term)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in algorithm.state_dict().items())
    assert algorithm.needs.names() == ("confounder", "environments")
    assert algorithm.sampling == "environment"
