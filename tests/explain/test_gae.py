"""GAE and rollout against dense products in float64, and on networks in the style of timm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark import explain
from benchmark.core.errors import UserError
from tests.support.networks import backbone, images

SIZE = (3, 16, 16)
TOKENS = 17
TARGET = torch.tensor([0, 2, 1])


def vit(seed: int = 0, **options: Any) -> Any:
    small = {"patch": 4, "dim": 24, "depth": 3, "heads": 3}
    return backbone("vit", SIZE, classes=3, seed=seed, **{**small, **options})


def forward(model: Any, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits and attention of every block, written out."""
    patches = model.net.conv_proj(image).flatten(2).transpose(1, 2)
    first = model.net.class_token.expand(len(image), -1, -1)
    token = torch.cat([first, patches], 1) + model.net.encoder.pos_embedding
    maps = []
    for block in model.net.encoder.layers:
        layer = block.self_attention
        packed = F.linear(block.ln_1(token), layer.in_proj_weight, layer.in_proj_bias)
        q, k, v = (
            part.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
            for part in packed.chunk(3, -1)
        )
        attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        maps.append(attention)
        token = token + layer.out_proj((attention @ v).transpose(1, 2).flatten(2))
        token = token + block.mlp(block.ln_2(token))
    return model.classifier(model.net.encoder.ln(token)[:, 0]), maps


def dense(model: Any, image: torch.Tensor, target: torch.Tensor, through: bool) -> torch.Tensor:
    """GAE by whole matrices, with one gradient per block, float64[B,1,4,4]."""
    logits, maps = forward(model, image)
    score = logits.gather(1, target[:, None]).sum()
    product = torch.eye(TOKENS, dtype=torch.float64).expand(len(image), -1, -1)
    for attention in maps:
        gradient = torch.autograd.grad(score, attention, retain_graph=True, create_graph=through)[0]
        product = product + (gradient * attention).clamp_min(0).mean(1) @ product
    return product[:, 0, 1:].reshape(len(image), 1, 4, 4)


@pytest.mark.parametrize("training", [False, True])
def test_gae_is_the_dense_product(training: bool) -> None:
    model = vit().train(training)
    image = images(SIZE, 3)
    heatmap = explain.get("gae")(model, image, TARGET)
    expected = dense(model, image, TARGET, through=False).detach()
    assert expected.amax() > 1e-3
    torch.testing.assert_close(heatmap, expected, rtol=1e-12, atol=1e-14)
    assert not heatmap.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("through", [False, True])
def test_gradients_to_the_weights_are_those_of_the_dense_product(through: bool) -> None:
    model = vit()
    image = images(SIZE, 3)
    weight = torch.linspace(-1, 1, 16, dtype=torch.float64).view(1, 1, 4, 4)
    explainer = explain.get("gae", constant_gradients=not through)
    ours = (explainer(model, image, TARGET, create_graph=True) * weight).sum()
    theirs = (dense(model, image, TARGET, through=through) * weight).sum()
    parameters = list(model.parameters())
    compared = 0
    for mine, other in zip(
        torch.autograd.grad(ours, parameters, allow_unused=True),
        torch.autograd.grad(theirs, parameters, allow_unused=True),
        strict=True,
    ):
        if other is not None:
            assert mine is not None
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
            compared += bool(other.any())
    assert compared > 20


def test_the_gradient_reaches_the_last_layer_only_through_the_gradient_of_the_score() -> None:
    image = images(SIZE, 3)
    for constant, reaches in ((True, False), (False, True)):
        model = vit()
        heatmap = explain.get("gae", constant_gradients=constant)(
            model, image, TARGET, create_graph=True
        )
        heatmap.square().sum().backward()
        gradient = model.classifier.weight.grad
        assert (gradient is not None and bool(gradient.any())) is reaches


@pytest.mark.parametrize("constant", [False, True])
def test_gradient_by_finite_differences(constant: bool) -> None:
    """Central differences; with constant gradients, the score's gradient is held at its start."""
    model = vit()
    image = images(SIZE, 3)
    weight = model.net.encoder.layers[1].self_attention.in_proj_weight
    direction = torch.sin(torch.arange(weight.numel(), dtype=torch.float64)).view_as(weight)
    logits, maps = forward(model, image)
    score = logits.gather(1, TARGET[:, None]).sum()
    held = [g.detach() for g in torch.autograd.grad(score, maps)]

    def value() -> torch.Tensor:
        if not constant:
            return explain.get("gae")(model, image, TARGET).square().sum()
        product = torch.eye(TOKENS, dtype=torch.float64).expand(3, -1, -1)
        for attention, gradient in zip(forward(model, image)[1], held, strict=True):
            product = product + (gradient * attention).clamp_min(0).mean(1) @ product
        return product[:, 0, 1:].square().sum()

    explainer = explain.get("gae", constant_gradients=constant)
    explainer(model, image, TARGET, create_graph=True).square().sum().backward()
    ours = (weight.grad * direction).sum()
    step = 1e-5
    with torch.no_grad():
        weight += step * direction
        above = value()
        weight -= 2 * step * direction
        below = value()
    torch.testing.assert_close(ours, (above - below).detach() / (2 * step), rtol=1e-6, atol=1e-9)


def test_heads_without_influence_give_an_empty_map() -> None:
    model = vit()
    nn.init.zeros_(model.classifier.weight)
    heatmap = explain.get("gae")(model, images(SIZE, 3), TARGET)
    assert torch.equal(heatmap, torch.zeros(3, 1, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", ["gae", "rollout"])
def test_nothing_of_the_network_changes(name: str) -> None:
    model = vit().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with torch.inference_mode():
        explain.get(name)(model, images(SIZE, 3), TARGET)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert flags == [(p.requires_grad, p.grad is None) for p in model.parameters()]
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["gae", "rollout"])
def test_frozen_weights_and_inference_mode_give_the_same_map(name: str) -> None:
    model = vit()
    image = images(SIZE, 3)
    expected = explain.get(name)(model, image, TARGET)
    model.requires_grad_(False)
    torch.testing.assert_close(explain.get(name)(model, image, TARGET), expected)
    with torch.inference_mode():
        torch.testing.assert_close(explain.get(name)(model, image, TARGET), expected)


def test_rollout_is_the_product_of_normalised_attention() -> None:
    model = vit()
    image = images(SIZE, 3)
    product = torch.eye(TOKENS, dtype=torch.float64).expand(3, -1, -1)
    for attention in forward(model, image)[1]:
        step = attention.mean(1) + torch.eye(TOKENS, dtype=torch.float64)
        product = step / step.sum(2, keepdim=True) @ product
    expected = product[:, 0, 1:].reshape(3, 1, 4, 4).detach()
    torch.testing.assert_close(explain.get("rollout")(model, image, TARGET), expected)


def test_attention_is_that_without_dropout() -> None:
    model = vit().train()
    expected = explain.get("gae")(model, images(SIZE, 3), TARGET)
    for block in model.net.encoder.layers:
        block.self_attention.dropout = 0.5
    found = explain.get("gae")(model, images(SIZE, 3), TARGET)
    torch.testing.assert_close(found, expected)
    assert all(block.self_attention.training for block in model.net.encoder.layers)


class TimmBlock(nn.Module):
    """Attention as timm writes it: one packed layer and the fused function."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, token: torch.Tensor) -> torch.Tensor:
        packed = self.qkv(self.norm(token)).unflatten(-1, (3, self.heads, -1))
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0)
        return token + self.proj(mixed.transpose(1, 2).flatten(2))


class TimmStyle(nn.Module):
    """A network with two tokens before its 2×3 patches, as a distilled DeiT has."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 12, 4, 4)
        self.patch_embed.grid_size = (2, 3)  # type: ignore[assignment]
        self.prefix = nn.Parameter(torch.randn(1, 2, 12))
        self.blocks = nn.Sequential(TimmBlock(12, 2), TimmBlock(12, 2))
        self.head = nn.Linear(12, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed(image).flatten(2).transpose(1, 2)
        token = torch.cat([self.prefix.expand(len(image), -1, -1), patches], 1)
        return self.head(self.blocks(token)[:, 0])


def test_network_in_the_style_of_timm() -> None:
    torch.manual_seed(0)
    model = TimmStyle().double()
    image = torch.randn(3, 3, 8, 12, dtype=torch.float64)
    heatmap = explain.get("gae")(model, image, TARGET)
    assert heatmap.shape == (3, 1, 2, 3)
    patches = model.patch_embed(image).flatten(2).transpose(1, 2)
    token = torch.cat([model.prefix.expand(3, -1, -1), patches], 1)
    maps = []
    for block in model.blocks:
        packed = block.qkv(block.norm(token)).unflatten(-1, (3, 2, -1))
        q, k, v = packed.permute(2, 0, 3, 1, 4).unbind(0)
        maps.append((q @ k.transpose(-1, -2) / 6**0.5).softmax(-1))
        token = token + block.proj((maps[-1] @ v).transpose(1, 2).flatten(2))
    score = model.head(token[:, 0]).gather(1, TARGET[:, None]).sum()
    product = torch.eye(8, dtype=torch.float64).expand(3, -1, -1)
    for attention in maps:
        gradient = torch.autograd.grad(score, attention, retain_graph=True)[0]
        product = product + (gradient * attention).clamp_min(0).mean(1) @ product
    expected = product[:, 0, 2:].reshape(3, 1, 2, 3).detach()
    torch.testing.assert_close(heatmap, expected, rtol=1e-12, atol=1e-14)


def test_networks_without_attention_or_with_a_mask_are_refused() -> None:
    with pytest.raises(UserError, match="attention"):
        explain.get("gae")(backbone("convnet", SIZE), images(SIZE, 3), TARGET)
    with pytest.raises(UserError, match="no attention was found"):
        explain.get("gae")(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).double(),
                           images(SIZE, 3), TARGET)  # fmt: skip

    class Masked(TimmStyle):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            token = image.flatten(2)
            mask = torch.ones(3, 3, dtype=torch.bool)
            return F.scaled_dot_product_attention(token, token, token, mask).mean(2)

    with pytest.raises(UserError, match="mask"):
        explain.get("gae")(Masked().double(), images(SIZE, 3), TARGET)
