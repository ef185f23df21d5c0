"""``freeze_bn``: running statistics are used in training too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark import explain
from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.core.errors import Problems, UserError
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.engine.checkpoint import load_weights
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from benchmark.report.tables.results_table import _settings
from tests.support import tiny
from tests.support.runs import lines, plan_run, plan_runs, run, spec_of
from tests.support.threads import threads

#: Without batch normalisation; alexnet has none, the others normalise each image on its own.
WITHOUT = {"alexnet", "convnext_base", "mnist_cnn", "vit", "vit_s_16", "vit_b_16", "vit_l_16"}
SIZE = (3, 32, 32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


def norms(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, BATCH_NORMS)]


def statistics(network: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for norm in norms(network) for buffer in norm.buffers()]


def frozen(name: str = "convnet", **options: Any) -> Any:
    torch.manual_seed(0)
    network = BACKBONES.get(name)(3, SIZE, freeze_bn=True, **options)
    for norm in norms(network):
        nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network


#: Networks whose blocks are those of another network, tried with --slow.
LARGE = {"bcos_resnet50", "bcos_densenet121", "resnet50"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name in sorted(set(BACKBONES.names()) - WITHOUT)
    ],
)
def test_a_training_step_uses_and_leaves_the_running_statistics(name: str) -> None:
    network, image = frozen(name), torch.randn(4, *SIZE)
    assert network.training and norms(network)
    before = statistics(network)
    expected = network.eval()(image).detach()
    for _ in range(2):  # after .train() and after .eval() and .train()
        network.eval()
        network.train()
        assert network.training and network.dropout.training
        assert not any(norm.training for norm in norms(network))
        out = network(image)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
        out.square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(network), strict=True))
    # weights and shifts still learn
    assert all(p.grad is not None and p.grad.any() for n in norms(network) for p in n.parameters())


def test_an_image_does_not_depend_on_its_batch() -> None:
    network, image = frozen(), torch.randn(4, *SIZE)
    torch.testing.assert_close(network(image)[:1], network(image[:1]))
    free = BACKBONES.get("convnet")(3, SIZE)
    assert not torch.allclose(free(image)[:2], free(image[:2]), atol=1e-3)


def test_without_the_option_nothing_changes() -> None:
    network = BACKBONES.get("convnet")(3, SIZE)
    assert all(norm.training for norm in norms(network))
    before = statistics(network)
    network(torch.randn(4, *SIZE))
    assert not all(torch.equal(a, b) for a, b in zip(before, statistics(network), strict=True))


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_a_network_without_batch_normalisation_is_refused(name: str) -> None:
    kind = BACKBONES.get(name)
    side = max(kind.capabilities.min_side, 64)
    with torch.device("meta"), pytest.raises(UserError, match="no batch normalisation whose"):
        kind(3, (3, side, side), freeze_bn=True)
    with pytest.raises(UserError, match="no batch normalisation whose"):
        kind.check_options((3, side, side), {"freeze_bn": True})
    kind.check_options((3, side, side), {})


def planned(backbone: str, **values: Any) -> Any:
    table = {"datasets": ["tiny"], "algorithms": ["erm"], "backbone": backbone, **values}
    return expand(config_from(table, "test", "test"))


def test_the_plan_refuses_it_too_and_says_so_once() -> None:
    with pytest.raises(Problems, match="mnist_cnn has no batch normalisation whose"):
        planned("mnist_cnn:freeze_bn=true")
    with pytest.raises(UserError, match="freeze_bn = 'maybe' is not true or false"):
        planned("convnet:freeze_bn=maybe")


def test_keys_of_runs_that_do_not_use_it_do_not_know_it() -> None:
    """An option with its default is not in the spec, so that keys of earlier runs stay valid."""
    (plain,) = planned("convnet").runs.values()
    (spelt,) = planned("convnet:freeze_bn=false").runs.values()
    (other,) = planned("convnet:freeze_bn=true").runs.values()
    assert plain.spec.backbone_options == {"width": 16}
    assert spelt.spec.key == plain.spec.key != other.spec.key
    assert other.spec.backbone_options == {"width": 16, "freeze_bn": True}
    texts = [_settings(one.spec)["backbone freeze_bn"] for one in (plain, other)]
    assert texts == ["False", "True"]  # so that a table can tell the rows apart


def test_runs_that_come_first_have_it_too() -> None:
    plan = planned("convnet:freeze_bn=true", algorithms=["jtt", "tea"])
    assert len(plan.runs) == 4
    assert all(one.spec.backbone_options["freeze_bn"] for one in plan.runs.values())


def test_a_run_keeps_its_statistics_and_is_resumed_bit_by_bit(tmp_path: Path) -> None:
    values = {"backbone": "convnet:width=2,freeze_bn=true", "hparams": {"lr": 0.01}}
    whole, cut = plan_run(tmp_path / "a", **values), plan_run(tmp_path / "b", **values)
    assert run(whole) == "done"
    stops = iter([None] * 7 + ["stopped"] * 100)
    assert run(cut, stop=lambda: next(stops)) == "interrupted"
    assert run(cut, 2) == "done"
    assert lines(cut) == lines(whole)
    one, other = load_weights(whole / "selected.pt"), load_weights(cut / "selected.pt")
    assert all(torch.equal(one[name], other[name]) for name in one)
    means = [value for name, value in one.items() if name.endswith("running_mean")]
    counted = [value for name, value in one.items() if name.endswith("num_batches_tracked")]
    assert means and not any(value.any() for value in (*means, *counted))
    shifts = [v for k, v in one.items() if k.startswith("network.body.1.") and k.endswith("bias")]
    assert shifts and all(value.any() for value in shifts)
    assert spec_of(whole).backbone_options["freeze_bn"] is True
    assert read_record(whole).spec.backbone_options["freeze_bn"] is True


@pytest.mark.parametrize("method", ["tea", pytest.param("isnet", marks=pytest.mark.slow)])
def test_methods_that_explain_in_training_leave_the_statistics_alone(
    method: str, tmp_path: Path
) -> None:
    folders = plan_runs(
        tmp_path,
        method,
        backbone="convnet:width=2,freeze_bn=true",
        budget={"steps": 4, "evaluate_every": 2},
    )
    for folder in folders:
        assert run(folder) == "done"
    weights = load_weights(folders[-1] / "selected.pt")
    means = [v for k, v in weights.items() if k.startswith("network.body") and "running_mean" in k]
    assert means and not any(value.any() for value in means)


@pytest.mark.parametrize("choice", ["batch", "running", "train"])
def test_tea_with_its_own_choice_of_statistics(choice: str) -> None:
    """``freeze_bn`` applies to its network; ``running`` of TEA applies to all networks."""
    make = tiny.make_setting(ALGORITHMS.get("erm")).build_network

    def build_network(num_outputs: int | None = None, **options: Any) -> nn.Module:
        return make(num_outputs, freeze_bn=True, **options)

    teacher = tiny.build("erm", build_network=build_network).eval().requires_grad_(False)
    algorithm = tiny.build(
        "tea",
        build_network=build_network,
        upstream={"teacher": teacher},
        teacher="unbiased",
        statistics=choice,
    )
    for mode in (True, False, True):
        algorithm.train(mode)
        assert algorithm.network.training == mode
        assert not any(norm.training for norm in norms(algorithm))
    before = statistics(algorithm)
    tiny.train(algorithm, 0, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(algorithm), strict=True))


@pytest.mark.parametrize("name", ["gradcam", "input_gradient", "lrp"])
def test_an_explanation_in_training_is_the_one_in_evaluation(name: str) -> None:
    network, image, target = frozen(), torch.randn(3, *SIZE), torch.tensor([0, 1, 2])
    in_training = explain.get(name)(network, image, target, create_graph=True)
    torch.testing.assert_close(in_training, explain.get(name)(network.eval(), image, target))


def test_both_networks_of_a_method_have_it() -> None:
    make = tiny.make_setting(ALGORITHMS.get("ex2l")).build_network

    def build_network(num_outputs: int | None = None, **options: Any) -> nn.Module:
        return make(num_outputs, freeze_bn=True, **options)

    for name in ("ex2l", "lff"):
        algorithm = tiny.build(name, side=32, build_network=build_network)
        before = statistics(algorithm)
        tiny.train(algorithm, 0, 2, side=32)
        assert all(torch.equal(a, b) for a, b in zip(before, statistics(algorithm), strict=True))
