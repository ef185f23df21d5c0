"""Every algorithm, explainer and run on a pretended GPU: device mistakes are found without one.

The results must be those of the CPU, which computes both. A step must not make the host wait for
the GPU, except where ``WAITS`` says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark import explain
from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.core.registry import ALGORITHMS, BACKBONES, EXPLAINERS
from benchmark.core.run_states import AttemptEnd
from benchmark.core.spec import ComputeOptions
from benchmark.engine.build import place
from tests.support import pretended_gpu as module
from tests.support.every_algorithm import AT_ONCE, METHODS, SIDE, make
from tests.support.explained import QUICK_EXPLAINERS, SMALL_BACKBONES
from tests.support.pretended_gpu import Note, PretendedGpu, WrongDeviceError, pretended_gpu
from tests.support.runs import lines, plan_runs, run
from tests.support.tiny import TinyRun, build, train

pytestmark = pytest.mark.skipif(
    not module.AVAILABLE, reason="this PyTorch has no backend for Python"
)

STEPS = 3
#: Methods of the fast suite: one for each way of training.
FAST = {"cdan:cdann", "erm", "ex2l", "irm", "isnet", "pgi:colour", "rrr", "tea"}
#: Operations of a step that wait for the GPU, and why they stay.
WAITS: dict[str, set[str]] = {
    # the images with and without the class of the step are different numbers of images
    "attri_net": {"index", "index_put", "_local_scalar_dense", "nonzero"},
    "attri_net_guided": {"index", "index_put", "_local_scalar_dense", "nonzero"},
    # only the images with a mask of the explained class are guided
    "bcos_guided": {"index", "index_put"},
    # the optimiser is that of the package prodigyopt, which reads its estimate
    "nemt:prodigy": {"_local_scalar_dense"},
}


def moved(batch: Batch) -> Batch:
    """Return a batch on the GPU."""
    tensors: dict[str, Any] = {
        name: value.to("cuda", non_blocking=True)
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor)
    }
    return replace(batch, **tensors)


def on_gpu(algorithm: Algorithm) -> Algorithm:
    """Move an algorithm and its upstream algorithms as the engine does."""
    for each in algorithm.setting.upstream.values():
        place(each, torch.device("cuda"), ComputeOptions())
    place(algorithm, torch.device("cuda"), ComputeOptions())
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm


class GpuRun(TinyRun):
    """Batches on the GPU; ``waits`` has the notes of all steps but the first, which may prepare."""

    def __init__(self, algorithm: Algorithm, stop: int, gpu: PretendedGpu, side: int = SIDE):
        super().__init__(algorithm, 0, stop, side=side)
        self.gpu = gpu
        self.waits: set[Note] = set()

    def steps(self) -> Iterator[Batch]:
        for batch in super().steps():
            on_device = moved(batch)
            self.gpu.clear()
            yield on_device

    def batches(self, split: str) -> Iterator[Batch]:
        return map(moved, super().batches(split))

    def class_mask_counts(self) -> torch.Tensor:
        return super().class_mask_counts()

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        if self.algorithm.current_step > 0:
            self.waits.update(self.gpu.notes)
        super().log(terms)


def trained_on_gpu(algorithm: Any, steps: int = STEPS) -> GpuRun:
    """Train an algorithm, made on the CPU, on the pretended GPU."""
    with pretended_gpu() as gpu:
        run_on_gpu = GpuRun(on_gpu(algorithm), steps, gpu)
        algorithm.fit(run_on_gpu)
    return run_on_gpu


def full(name: str, variant: str) -> str:
    return f"{name}:{variant}".removesuffix(":")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(*m, marks=[] if full(*m) in FAST else [pytest.mark.slow], id=full(*m))
        for m in METHODS
    ],
)
def test_every_algorithm_trains_on_a_gpu_without_waiting(name: str, variant: str) -> None:
    steps = 1 if name in AT_ONCE else STEPS
    expected = train(make(name, variant), 0, steps, side=SIDE)
    found = trained_on_gpu(make(name, variant), steps)
    assert len(found.logged) == len(expected)
    for one, other in zip(found.logged, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    allowed = WAITS.get(full(name, variant), set()) | WAITS.get(name, set())
    assert {note for note in found.waits if note.operation not in allowed} == set()


def has_explainer(explainer: str, backbone: str) -> bool:
    return bool(EXPLAINERS.get(explainer).suits(BACKBONES.get(backbone).capabilities))


#: Backbones that are small enough, with the side of their images.
SIDES = {"alexnet": 64, "bcos_convnet": 32, "convnet": 32, "mnist_cnn": 32, "resnet18": 32}
SIDES |= {"bcos_resnet18": 64, "densenet121": 32, "vit": 32}
EXPLAINED = [
    (explainer, backbone)
    for explainer in EXPLAINERS.names()
    for backbone in SIDES
    if explainer != "native" and has_explainer(explainer, backbone)
]


@pytest.mark.parametrize(
    ("explainer", "backbone"),
    [
        pytest.param(*each, marks=[] if each[1] in ("convnet", "vit") else [pytest.mark.slow])
        for each in EXPLAINED
    ],
)
def test_every_explainer_explains_on_a_gpu(explainer: str, backbone: str) -> None:
    side = SIDES[backbone]
    torch.manual_seed(0)
    network = BACKBONES.get(backbone)(
        3, (3, side, side), **SMALL_BACKBONES.get(backbone, {})
    ).eval()
    torch.nn.init.normal_(network.classifier.weight)
    image, target = torch.randn(2, 3, side, side), torch.tensor([2, 0])
    chosen = explain.get(explainer, **QUICK_EXPLAINERS.get(explainer, {}))
    torch.manual_seed(1)
    expected = chosen(network, image, target)
    with pretended_gpu():
        network.to("cuda")
        torch.manual_seed(1)
        heatmap = chosen(network, image.to("cuda"), target.to("cuda"))
        assert heatmap.is_cuda
        found = heatmap.cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def assert_close(found: Any, expected: Any) -> None:
    """Compare nested values of a log."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            assert_close(found[key], expected[key])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n == "irm" else [pytest.mark.slow])
        for n in ALGORITHMS.names()
        if not {"gals", "zero_shot_clip", "bcos", "bcos_guided", "robust_vit"} & {n}
    ],
)
def test_a_run_is_that_of_the_cpu_and_a_resumed_one_is_the_undisturbed_one(
    name: str, tmp_path: Path
) -> None:
    """With augmentation, evaluation, explanations, checkpoints and the record.

    The logs are those of the CPU up to the first evaluation. A GPU takes other paths through the
    code, whose rounding grows in some losses.
    """
    values: dict[str, Any] = {
        "budget": {"steps": 6, "evaluate_every": 3},
        "augmentation": {"flip": 0.5, "translate": 0.1},
    }
    expected = plan_runs(tmp_path / "cpu", name, **values)
    found = plan_runs(tmp_path / "gpu", name, **values)
    resumed = plan_runs(tmp_path / "resumed", name, **values)
    for folder in expected:
        assert run(folder) == "done"
    asked = iter([None, None, None, None, AttemptEnd.STOPPED.value])
    with pretended_gpu():
        for folder in (*found, *resumed[:-1]):
            assert run(folder, device="cuda") == "done"
        stopped = run(resumed[-1], device="cuda", stop=lambda: next(asked, None))
        if stopped == "interrupted":
            assert run(resumed[-1], 2, device="cuda") == "done"
        else:
            assert name in AT_ONCE
    assert lines(resumed[-1]) == lines(found[-1])
    assert_close(lines(found[-1])[:1], lines(expected[-1])[:1])
    record = json.loads((found[-1] / "record.json").read_text())
    assert record["machine"]["device"] == "pretended GPU"


def loss_of(planted: Callable[[Batch, torch.Tensor], torch.Tensor]) -> Any:
    """Return ERM with a planted mistake in its loss."""

    def loss(self: Any, batch: Batch) -> dict[str, torch.Tensor]:
        logits = self.predict(batch.image)
        losses = torch.nn.functional.cross_entropy(logits, batch.label, reduction="none")
        return {"classification": planted(batch, losses)}

    algorithm = build("erm", side=SIDE)
    algorithm.loss = loss.__get__(algorithm)
    return algorithm


@pytest.mark.parametrize(
    "planted",
    [
        lambda batch, losses: (losses * torch.ones(len(losses))).mean(),
        lambda batch, losses: torch.stack([losses.sum(), torch.zeros(())]).sum(),
        lambda batch, losses: torch.cat([losses, torch.zeros(1)]).mean(),
        lambda batch, losses: losses.mean() + torch.rand(3, device="cpu") @ losses[:3],
        lambda batch, losses: torch.where(torch.ones(len(losses)) > 0, losses, 0.0).mean(),
    ],
)
def test_a_tensor_of_the_host_stops_a_step(planted: Any) -> None:
    with pytest.raises((WrongDeviceError, RuntimeError), match="same device"):
        trained_on_gpu(loss_of(planted), 1)


@pytest.mark.parametrize(
    ("planted", "operation"),
    [
        (lambda batch, losses: losses.mean() * len(batch.label.tolist()), "_to_copy"),
        (lambda batch, losses: losses.mean() + 0 * losses.detach().sum().item(), "_local_scalar"),
        (lambda batch, losses: losses[batch.label == 0].mean(), "index"),
        (lambda batch, losses: losses[batch.label.nonzero()[:, 0]].mean(), "nonzero"),
        (lambda batch, losses: losses.mean() + 0 * torch.bincount(batch.label).sum(), "bincount"),
        (lambda batch, losses: losses.mean() + 0 * torch.ones(3).to("cuda").sum(), "_to_copy"),
        (lambda batch, losses: losses.mean() + 0 * torch.tensor([1.0], device="cuda")[0], "_to_co"),
        (lambda batch, losses: losses.mean() if (losses > 0).any() else losses.sum(), "_local"),
    ],
)
def test_a_step_that_waits_for_the_gpu_is_noted(planted: Any, operation: str) -> None:
    found = trained_on_gpu(loss_of(planted))
    assert any(note.operation.startswith(operation) for note in found.waits), found.waits


def test_a_loss_without_a_mistake_leaves_no_note() -> None:
    found = trained_on_gpu(loss_of(lambda batch, losses: losses.mean()))
    assert found.waits == set()


def test_a_buffer_that_does_not_move_is_found() -> None:
    algorithm = build("erm", side=SIDE)
    algorithm.weight = torch.ones(3)  # no registered buffer
    algorithm.loss = lambda batch: {
        "classification": (algorithm.predict(batch.image) * algorithm.weight).mean()
    }
    with pytest.raises(WrongDeviceError, match=r"of shape \[3\]"):
        trained_on_gpu(algorithm, 1)


def test_an_operation_without_a_deterministic_form_is_noted() -> None:
    pool = torch.nn.functional.adaptive_avg_pool2d
    found = trained_on_gpu(loss_of(lambda batch, losses: pool(losses.view(1, 3, 4), (2, 2)).mean()))
    assert {note.operation for note in found.waits} == {"_adaptive_avg_pool2d_backward"}


def test_outside_of_the_block_there_is_no_gpu() -> None:
    with pretended_gpu():
        assert torch.cuda.is_available()
        assert torch.zeros(2, device="cuda").device == torch.device("cuda", 0)
    assert not torch.accelerator.is_available() or torch.cuda.is_available()
    assert torch.zeros(2).device.type == "cpu"
