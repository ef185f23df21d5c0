"""B-cos layers against few lines of torch, and networks against the package of their authors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark import explain
from benchmark.core.registry import BACKBONES
from benchmark.models.bcos import BcosConv2d, Encode, LogitBias, UncentredBatchNorm2d

NAMES = ["bcos_convnet", "bcos_densenet121", "bcos_resnet18", "bcos_resnet50"]


def network(name: str, side: int, channels: int = 3, classes: int = 4, **options: Any) -> Any:
    """Return a B-cos network in float64 and evaluation mode, with random scales."""
    torch.manual_seed(0)
    model = BACKBONES.get(name)(classes, (channels, side, side), **options).double().eval()
    for module in model.modules():
        if isinstance(module, UncentredBatchNorm2d):
            nn.init.uniform_(module.running_var, 0.01, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def test_a_layer_multiplies_the_projection_by_the_cosine() -> None:
    torch.manual_seed(0)
    layer = BcosConv2d(2, 3, 3, stride=2, padding=1).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    out = layer(x)
    patch = F.pad(x, (1, 1, 1, 1))[1, :, 2:5, 0:3].flatten()  # of the output at (1, 0)
    for k in range(3):
        weight = layer.weight[k].flatten()
        projection = weight @ patch / weight.norm()
        cosine = projection / (patch.square().sum() + 1e-6).sqrt()
        torch.testing.assert_close(out[1, k, 1, 0], projection * cosine.abs())


def test_a_blank_patch_gives_zero_and_a_finite_gradient() -> None:
    layer = BcosConv2d(2, 3, 3, padding=1)
    x = torch.zeros(1, 2, 4, 4, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert not out.any() and x.grad is not None and x.grad.isfinite().all()


def test_normalisation_divides_by_the_biased_deviation_and_keeps_the_mean() -> None:
    norm = UncentredBatchNorm2d(2).double()
    assert norm.bias is None
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 0.5]))
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64) + 5
    variance = ((x - x.mean((0, 2, 3), keepdim=True)) ** 2).mean((0, 2, 3))
    factor = norm.weight / (variance + norm.eps).sqrt()
    torch.testing.assert_close(norm(x), x * factor.view(1, 2, 1, 1))
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_var, 0.9 * torch.ones(2).double() + 0.1 * variance)
    norm.eval()
    used = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(norm(x), x * used.view(1, 2, 1, 1))
    assert norm.num_batches_tracked == 1
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm.train()(torch.ones(1, 2, 1, 1).double())


def test_images_are_encoded_by_their_values_from_0_to_1() -> None:
    model = BACKBONES.get("bcos_convnet")(3, (3, 8, 8), width=2)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    model.set_normalisation(tuple(mean), tuple(std))
    pixels = torch.rand(2, 3, 8, 8)
    image = (pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(model.encode(image), torch.cat([pixels, 1 - pixels], 1))
    assert not model.encode.state_dict(), "they belong to the data, not to the weights"
    assert Encode(1)(torch.zeros(1, 1, 2, 2)).shape == (1, 2, 2, 2)


@pytest.mark.parametrize(("classes", "bias"), [(1, 0.0), (2, 0.0), (5, -math.log(4))])
def test_the_bias_is_the_logit_of_chance(classes: int, bias: float) -> None:
    layer = LogitBias(classes)
    torch.testing.assert_close(layer(torch.zeros(1, classes)), torch.full((1, classes), bias))
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_no_part_of_a_network_is_nonlinear_or_has_a_bias(name: str) -> None:
    """Other layers would take part of the logit that no pixel explains."""
    with torch.device("meta"):
        model = BACKBONES.get(name)(3, (1, 32, 32))
    leaves = {type(m) for m in model.modules() if not list(m.children())}
    assert leaves <= {
        BcosConv2d,
        UncentredBatchNorm2d,
        Encode,
        LogitBias,
        nn.AvgPool2d,
        nn.Dropout,
        nn.Identity,
    }
    assert not [n for n, _ in model.named_parameters() if n.endswith(".bias") and "class" not in n]


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_drops_features_of_the_map_not_logits(rate: float) -> None:
    model = BACKBONES.get("bcos_convnet")(3, (3, 16, 16), dropout=rate, width=2).train()
    assert model.dropout.p == 0
    torch.manual_seed(0)
    out = model(torch.rand(8, 3, 16, 16))
    assert out.all(), "a dropped logit would be its bias"
    assert torch.equal(model(torch.rand(8, 3, 16, 16)), out) is False


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bcos_resnet18", "resnet18"),
        pytest.param("bcos_resnet50", "resnet50", marks=pytest.mark.slow),
        pytest.param("bcos_densenet121", "densenet121", marks=pytest.mark.slow),
    ],
)
def test_networks_are_those_of_the_package_bcos(name: str, kind: str) -> None:
    """Logits, contributions and numbers of parameters, with six channels as published."""
    reason = "bcos is not installed"
    family = "resnet" if "resnet" in kind else "densenet"
    models = pytest.importorskip(f"bcos.models.{family}", reason=reason)
    norms = pytest.importorskip("bcos.modules.norms", reason=reason)
    side = 32
    mine = network(name, side)
    torch.manual_seed(1)
    theirs = getattr(models, kind)(
        num_classes=4, norm_layer=norms.NoBias(norms.BatchNormUncentered2d)
    ).double()
    theirs.eval()

    own = [p for n, p in mine.named_parameters() if not n.startswith("classifier")]
    other = list(theirs.parameters())
    assert [p.shape for p in own] == [p.shape for p in other]
    with torch.no_grad():
        for p, q in zip(own, other, strict=True):
            q.copy_(p)
    variances = [m.running_var for m in mine.modules() if isinstance(m, UncentredBatchNorm2d)]
    layers = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    for variance, layer in zip(variances, layers, strict=True):
        layer.running_var.copy_(variance)

    pixels = torch.rand(2, 3, side, side, dtype=torch.float64)
    encoded = torch.cat([pixels, 1 - pixels], 1).requires_grad_()
    evidence = theirs(encoded) + math.log(3)  # the bias of theirs is in float64
    torch.testing.assert_close(mine.features(pixels), evidence, rtol=1e-9, atol=1e-9)
    target = torch.tensor([1, 3])
    with theirs.explanation_mode():
        score = theirs(encoded).gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, encoded)
    expected = (encoded * gradient).sum(1, keepdim=True).detach()
    heatmap = explain.get("bcos")(mine, pixels, target)
    torch.testing.assert_close(heatmap, expected, rtol=1e-9, atol=1e-9)
