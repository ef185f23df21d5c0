"""eX2L: equation 4 by hand, the gradient of its penalty by finite differences, and its log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from algorithms.ex2l import EX2L
from benchmark.core.errors import Problems
from benchmark.core.hparam import resolve_values
from benchmark.core.registry import BACKBONES
from benchmark.losses.similarity import SIMILARITIES
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from tests.support.runs import done
from tests.support.threads import threads
from tests.support.tiny import CONFOUNDERS, build, make_batch, train


def still(seed: int = 0, **changed: Any) -> Any:
    """eX2L in float64, its batch normalisation at rest on statistics of its own."""
    algorithm = build("ex2l", seed=seed, **changed)
    train(algorithm, 0, 1)
    return algorithm.double().eval()


def batch_of(rows: int = 6) -> Any:
    batch = make_batch(rows, seed=3)
    return replace(batch, image=batch.image.double())


def dense_map(
    network: Any, image: torch.Tensor, target: torch.Tensor, weight: Any = None
) -> tuple[Any, Any]:
    """Return Grad-CAM divided by its maximum, from ∂ logit_c / ∂ A_kij = W_ck / (h w)."""
    activation = network.feature_map(image)
    pixels = activation.shape[2] * activation.shape[3]
    weight = network.classifier.weight[target] / pixels if weight is None else weight
    cam = (weight[:, :, None, None] * activation).sum(1).clamp_min(0)
    return cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-10), weight.detach()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_terms_are_those_of_equation_4(name: str) -> None:
    algorithm, batch = (
        still(similarity=name, confounder_weight=3.0, similarity_weight=7.0),
        batch_of(),
    )
    ours, _ = dense_map(algorithm.network, batch.image, batch.label)
    theirs, _ = dense_map(algorithm.confounder, batch.image, batch.confounder)
    expected = {
        "classification": F.cross_entropy(algorithm.network(batch.image), batch.label),
        "confounder": 3 * F.cross_entropy(algorithm.confounder(batch.image), batch.confounder),
        "similarity": 7 * SIMILARITIES[name](ours, theirs).mean(),
    }
    found = algorithm.loss(batch)
    assert found.keys() == expected.keys()
    for term, value in expected.items():
        assert found[term].item() == pytest.approx(value.item(), rel=1e-9), term
    assert algorithm.objective(batch).item() == pytest.approx(
        sum(v.item() for v in expected.values()), rel=1e-9
    )


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("model", ["network", "confounder"])
def test_the_penalty_moves_both_models_as_finite_differences_with_fixed_weights_say(
    name: str, model: str
) -> None:
    algorithm, batch = still(similarity=name), batch_of()
    weights = [
        dense_map(algorithm.network, batch.image, batch.label)[1],
        dense_map(algorithm.confounder, batch.image, batch.confounder)[1],
    ]

    def penalty() -> float:
        with torch.no_grad():
            ours, _ = dense_map(algorithm.network, batch.image, batch.label, weights[0])
            theirs, _ = dense_map(algorithm.confounder, batch.image, batch.confounder, weights[1])
            return SIMILARITIES[name](ours, theirs).mean().item()

    moved = list(getattr(algorithm, model).body.parameters())
    gradients = torch.autograd.grad(algorithm.loss(batch)["similarity"], moved)
    torch.manual_seed(1)
    directions = [torch.randn_like(p) for p in moved]
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    step, values = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(moved, directions, strict=True):
                p += sign * step * d
        values.append(penalty())
        with torch.no_grad():
            for p, d in zip(moved, directions, strict=True):
                p -= sign * step * d
    assert sum(g.abs().sum().item() for g in gradients) > 1e-6, "the penalty moves nothing"
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_importance_weights_are_constants() -> None:
    """The penalty could reach the last layers only through the importance weights."""
    algorithm, batch = still(), batch_of()
    last = [algorithm.network.classifier.weight, algorithm.confounder.classifier.weight]
    assert torch.autograd.grad(algorithm.loss(batch)["similarity"], last, allow_unused=True) == (
        None,
        None,
    )
    moving = dense_map(algorithm.network, batch.image, batch.label)[0]
    fixed = dense_map(algorithm.confounder, batch.image, batch.confounder)[0].detach()
    (through,) = torch.autograd.grad(SIMILARITIES["mae"](moving, fixed).mean(), last[:1])
    assert through.abs().max() > 0


def test_the_similarity_can_be_kept_from_the_confounder_model() -> None:
    algorithm, batch = still(moves="label"), batch_of()
    theirs = list(algorithm.confounder.parameters())
    found = torch.autograd.grad(algorithm.loss(batch)["similarity"], theirs, allow_unused=True)
    assert all(gradient is None for gradient in found)


def test_what_is_logged_and_what_is_on_record() -> None:
    algorithm = build("ex2l", similarity="cosine", similarity_weight=5.0, confounder_lr=0.01)
    logged = train(algorithm, 0, 3)
    names = {"classification", "confounder", "similarity", "bare_similarity", "confounder_accuracy"}
    assert all(terms.keys() == names for terms in logged)
    assert all(
        terms["similarity"] == pytest.approx(5 * terms["bare_similarity"]) for terms in logged
    )
    running = 1 / CONFOUNDERS
    for terms in logged:
        running = 0.99 * running + 0.01 * terms["confounder_accuracy"]
    found = algorithm.report()["confounder_accuracy"]
    assert found["training"] == pytest.approx(running, rel=1e-5)
    batch = make_batch(seed=-2)
    answers = algorithm.eval().confounder(batch.image).argmax(1)
    assert found["validation_at_end"] == pytest.approx(
        (answers == batch.confounder).float().mean().item()
    )


def test_the_confounder_model_learns_with_its_own_rate_and_the_label_model_alone_predicts() -> None:
    algorithm = build("ex2l", lr=1e-2, confounder_lr=1e-4, confounder_weight_decay=0.5)
    ours, theirs = algorithm.optimizers["main"].param_groups
    assert (ours["lr"], theirs["lr"], theirs["initial_lr"]) == (1e-2, 1e-4, 1e-4)
    assert (ours["weight_decay"], theirs["weight_decay"]) == (0, 0.5)
    assert {id(p) for p in theirs["params"]} == {id(p) for p in algorithm.confounder.parameters()}
    assert algorithm.confounder.classifier.out_features == CONFOUNDERS
    image = make_batch().image
    before = algorithm.eval().predict(image)
    with torch.no_grad():
        for p in algorithm.confounder.parameters():
            p.add_(1)
    assert torch.equal(algorithm.predict(image), before)


def test_the_confounder_model_learns_the_confounder() -> None:
    algorithm = build("ex2l", confounder_lr=1e-2, side=8)
    batch = make_batch(side=8)
    assert batch.confounder is not None
    batch = replace(batch, image=batch.image + 2 * batch.confounder[:, None, None, None])
    terms = [algorithm.step(batch) for _ in range(30)]
    assert (
        terms[-1]["confounder_accuracy"] > 0.9
        and terms[-1]["confounder"] < 0.7 * terms[0]["confounder"]
    )


def test_raw_maps_have_no_bound_and_scaled_ones_do() -> None:
    """Without division by the maximum, ten times the activations give ten times the −MAE."""
    batch = batch_of()
    for scale, factor in (("none", 10.0), ("max", 1.0)):
        algorithm = still(scale=scale)
        before = algorithm.loss(batch)["similarity"]
        for network in (algorithm.network, algorithm.confounder):
            norm = network.body[-2]
            norm.weight.data *= 10
            norm.bias.data *= 10
        assert (algorithm.loss(batch)["similarity"] / before).item() == pytest.approx(factor)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_dead_networks_and_equal_ones_are_finite(name: str) -> None:
    algorithm, batch = still(similarity=name), batch_of()
    algorithm.confounder.load_state_dict(
        {
            **algorithm.network.state_dict(),
            "classifier.weight": torch.ones(2, 8),
            "classifier.bias": torch.zeros(2),
        }
    )
    algorithm.network.classifier.weight.data.fill_(1)
    for factor in (1, 0):  # equal maps, then empty ones
        algorithm.network.body[-2].weight.data *= factor
        algorithm.network.body[-2].bias.data *= factor
        terms = algorithm.loss(batch)
        sum(terms.values()).backward()
        assert all(value.isfinite() for value in terms.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in algorithm.parameters())


def test_variants_name_every_similarity_under_both_samplings() -> None:
    assert EX2L.sampling == "group"
    for name in SIMILARITIES:
        assert build("ex2l", **EX2L.variants[name]).sampling == "group"
        random = build("ex2l", **EX2L.variants[f"{name}_random"])
        assert random.sampling == "random" and random.hp["similarity"] == name


def test_draws_are_the_papers_and_on_a_log_scale_on_request() -> None:
    declared = EX2L.all_hparams(224)
    for name in ("confounder_weight", "similarity_weight"):
        drawn = torch.tensor([declared[name].draw(name, 42, draw) for draw in range(1, 201)])
        assert drawn.min() >= 0.1 and drawn.max() < 100 and 40 < drawn.median() < 60
    variant = EX2L.variants["log_draws"]
    assert resolve_values(declared, variant, "ex2l", 42, 0) == dict.fromkeys(variant, 1.0)
    draws = [resolve_values(declared, variant, "ex2l", 42, draw) for draw in range(1, 201)]
    for name in ("confounder_weight", "similarity_weight"):
        on_log = torch.tensor([values[name] for values in draws])
        assert on_log.min() >= 0.1 and on_log.max() < 100 and 1.5 < on_log.median() < 7


def test_both_models_at_the_same_time_learn_what_they_learn_one_after_another() -> None:
    learnt = []
    for overlaps in (True, False):
        algorithm = build("ex2l", seed=1)
        with threads(2 if overlaps else 1):  # one thread for each model in either case
            logged = train(algorithm, 0, 4)
        assert algorithm.parallel_forward.overlaps is overlaps
        learnt.append((algorithm.state_dict(), logged))
    (first, logged), (second, expected) = learnt
    assert all(torch.equal(first[name], value) for name, value in second.items())
    assert logged == expected


def test_with_dropout_the_models_take_turns() -> None:
    algorithm = build("ex2l", dropout=0.5)
    with threads(2):
        train(algorithm, 0, 1)
    assert algorithm.parallel_forward.overlaps is False


def one_logit_models(**changed: Any) -> tuple[Any, Any]:
    """eX2L on two classes with one logit z, and with two logits (0, z) of the same models."""
    one, two = (build("ex2l", num_classes=2, one_logit=s, **changed) for s in (True, False))
    batch = binary_batch()
    one.step(replace(batch, image=batch.image.float()))
    two.network.classifier = torch.nn.Linear(two.network.num_features, 2)
    one.double().eval()
    two.double().eval()
    for ours, theirs in ((one.network, two.network), (one.confounder, two.confounder)):
        theirs.body.load_state_dict(ours.body.state_dict())
        with torch.no_grad():
            for name in ("weight", "bias"):
                value = getattr(ours.classifier, name)
                getattr(theirs.classifier, name).copy_(torch.cat([0 * value, value]))
    return one, two


def binary_batch() -> Any:
    batch = batch_of()
    return replace(batch, label=torch.arange(6) % 2, confounder=torch.arange(6) // 2 % 2)


def test_one_logit_is_binary_cross_entropy_and_grad_cam_with_a_sign() -> None:
    algorithm, _ = one_logit_models(confounder_weight=3.0)
    batch = binary_batch()
    terms = algorithm.loss(batch)
    for network, target, term, factor in (
        (algorithm.network, batch.label, "classification", 1.0),
        (algorithm.confounder, batch.confounder, "confounder", 3.0),
    ):
        logit = network(batch.image)
        assert logit.shape == (6, 1)
        expected = F.binary_cross_entropy_with_logits(logit[:, 0], target.double())
        assert terms[term].item() == pytest.approx(factor * expected.item(), rel=1e-12)
        # ∂(±z) / ∂A_kij = ±W_k / (h w), positive for the target 1
        weight = network.classifier.weight.expand(6, -1) * (2 * target[:, None] - 1)
        pixels = network.feature_map(batch.image).shape[2:].numel()
        expected_map, _ = dense_map(network, batch.image, target, weight / pixels)
        found, _ = algorithm.explain(network, batch.image, target)
        torch.testing.assert_close(found[:, 0], expected_map)


def test_one_logit_predicts_like_two_of_which_the_first_is_zero() -> None:
    one, two = one_logit_models()
    batch = binary_batch()
    torch.testing.assert_close(one.predict(batch.image), two.predict(batch.image))
    assert one.predict(batch.image).shape == (6, 2)
    maps = [a.explain(a.network, batch.image, batch.label)[0] for a in (one, two)]
    positive = batch.label == 1
    torch.testing.assert_close(maps[0][positive], maps[1][positive])
    assert not maps[1][~positive].any(), "two logits (0, z) have no map of the first"


def test_one_logit_trains_and_reports_the_confounder_model() -> None:
    algorithm = build("ex2l", num_classes=2, one_logit=True)
    batch = replace(make_batch(), label=torch.arange(12) % 2)
    before = [p.clone() for p in algorithm.parameters()]
    terms = algorithm.step(batch)
    assert 0 <= float(terms["confounder_accuracy"]) <= 1
    moved = [not torch.equal(p, q) for p, q in zip(algorithm.parameters(), before, strict=True)]
    assert all(moved)


def test_one_logit_leaves_more_than_two_classes_alone_and_needs_one_binary_label() -> None:
    algorithm = build("ex2l", one_logit=True)
    assert algorithm.network.classifier.out_features == 3
    assert algorithm.confounder.classifier.out_features == 1
    table = {
        "datasets": ["digits_on_photos:places=10"],
        "algorithms": ["ex2l:one_logit"],
        "backbone": "convnet",
    }
    with pytest.raises(Problems, match=r"one_logit.*10 and 10"):
        expand(config_from(table, "test", "test"))


@pytest.mark.parametrize("method", ["ex2l", "gain", "distill_gradcam", "tea:attention"])
@pytest.mark.parametrize(
    ("backbone", "side", "possible"),
    [
        ("resnet50", 28, False),
        ("resnet50:side=224", 28, True),
        ("vit_b_16", 16, False),
        ("vit_b_16", 32, True),
    ],
)
def test_maps_of_one_cell_are_refused(
    method: str, backbone: str, side: int, possible: bool
) -> None:
    """A map of one cell, divided by its maximum or norm, is 1 or 0 and has no gradient."""
    table = {"datasets": [f"tiny:side={side}"], "algorithms": [method], "backbone": backbone}
    config = config_from(table, "test", "test")
    if possible:
        assert sum(run.requested for run in expand(config).runs.values()) == 1
    else:
        name = backbone.partition(":")[0]
        with pytest.raises(
            Problems,
            match=f"the maps of {name} for these images have one cell",
        ):
            expand(config)


def test_a_run_says_how_it_sampled_and_what_the_confounder_model_knows(tmp_path: Path) -> None:
    alone = sum(p.numel() for p in BACKBONES.get("convnet")(2, (3, 16, 16), width=2).parameters())
    for variant, sampling in (("js_distance", "group"), ("js_distance_random", "random")):
        record = done(tmp_path / variant, f"ex2l:{variant}", budget={"steps": 10})
        assert record.method.sampling == sampling
        assert record.method.needs == ("confounder", "groups")
        known = record.extra["confounder_accuracy"]
        assert 0 <= known["validation_at_end"] <= 1 and 0 < known["training"] < 1
        assert record.parameters == alone, (
            "the confounder model is not there when the label model predicts"
        )


def test_a_sweep_can_override_a_distribution() -> None:
    table = {
        "datasets": ["tiny"],
        "algorithms": ["ex2l", "ex2l:log_draws"],
        "backbone": "convnet:width=2",
        "draws": [0, 1],
        "fixed": {"confounder_weight": {"choice": [3, 3]}},
        "override": {"ex2l": {"similarity_weight": {"log_uniform": [-3, -2]}}},
    }
    specs = [run.spec for run in expand(config_from(table, "test", "test")).runs.values()]
    drawn = {(spec.variant, spec.draw): spec.hparams for spec in specs}
    for variant in ("", "log_draws"):
        assert drawn[variant, 0]["similarity_weight"] == 1.0
        assert 1e-3 <= drawn[variant, 1]["similarity_weight"] <= 1e-2
    assert drawn["", 1]["confounder_weight"] == 3.0
    assert drawn["log_draws", 1]["confounder_weight"] != 3.0
