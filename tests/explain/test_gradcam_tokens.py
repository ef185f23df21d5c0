"""Grad-CAM of a vision transformer, on the patch tokens that enter the last block."""

from __future__ import annotations

import copy
from typing import Any

import captum.attr
import pytest
import torch
from torch import nn

from benchmark import explain
from benchmark.core.registry import BACKBONES
from benchmark.engine.term_watch import CHECKED_STEPS, TermWatch
from benchmark.models.vit import Shape, ViTB16
from tests.support import tiny

SIDE, GRID, WIDTH = 64, 4, 8
SIZE = (3, SIDE, SIDE)
TARGET = torch.tensor([1, 0, 2])


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-B/16 of width 8 instead of 768, with all of its twelve blocks."""
    shape = Shape(patch=16, dim=WIDTH, depth=12, heads=2, mlp_dim=16)
    monkeypatch.setattr(ViTB16, "shape", classmethod(lambda cls, options: shape))


def vit(classes: int = 3, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    model = BACKBONES.get("vit_b_16")(classes, SIZE).to(dtype).eval()
    nn.init.normal_(model.classifier.weight, std=0.5)  # a fresh one is 0
    for name, parameter in model.named_parameters():
        if "self_attention" in name or "mlp" in name:  # else every block is close to the identity
            nn.init.normal_(parameter, std=0.4)
    return model


def images(count: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)


def by_hand(model: Any, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Equations 1 and 2 of Selvaraju et al. for tokens, computed with torchvision's blocks."""
    net = model.net
    patches = net.conv_proj(image).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.class_token.expand(len(image), -1, -1), patches], 1)
    tokens = tokens + net.encoder.pos_embedding
    *earlier, last = net.encoder.layers
    for block in earlier:
        tokens = block(tokens)
    tokens = tokens.detach().requires_grad_()
    logits = model.classifier(net.encoder.ln(last(tokens))[:, 0])
    gradient = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), tokens)[0]
    weight = gradient[:, 1:].mean(1, keepdim=True)  # over patches: the class token is at no place
    return (weight * tokens[:, 1:]).sum(2).relu().detach().view(len(image), 1, GRID, GRID)


def test_values_by_hand() -> None:
    model, image = vit(), images()
    expected = by_hand(model, image, TARGET)
    assert (expected > 0).any(dim=(1, 2, 3)).all() and (expected == 0).any()
    for create_graph in (False, True):
        found, logits = explain.get("gradcam").with_logits(
            model, image, lambda _: TARGET, create_graph=create_graph
        )
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(logits, model(image), rtol=1e-8, atol=1e-12)
        assert found.requires_grad == logits.requires_grad == create_graph


class OnAGrid(nn.Module):
    """The identity on tokens through a map float[B,D,h,w] of patches, for captum's hook."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        grid = self.map(tokens[:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID)))
        return torch.cat([tokens[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def test_values_of_captum() -> None:
    model, image = vit(), images()
    theirs = copy.deepcopy(model)
    blocks = list(theirs.net.encoder.layers)
    grid = OnAGrid()
    theirs.net.encoder.layers = nn.Sequential(*blocks[:-1], grid, blocks[-1])
    expected = captum.attr.LayerGradCam(theirs, grid.map).attribute(
        image, TARGET, relu_attributions=True
    )
    found = explain.get("gradcam")(model, image, TARGET)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-8, atol=1e-12)


def test_the_first_layer_norm_of_the_last_block_gets_the_same_tokens() -> None:
    """The usual layer, the input of ``ln_1`` of the last block, has the same gradient in captum."""
    model, image = vit(), images()
    seen: list[torch.Tensor] = []
    handles = [
        model.cam_module().register_forward_hook(lambda m, a, out: seen.append(out)),
        model.net.encoder.layers[-1].ln_1.register_forward_pre_hook(lambda m, a: seen.append(a[0])),
    ]
    logits = model(image)
    for handle in handles:
        handle.remove()
    assert torch.equal(seen[0], seen[1])
    gradient = torch.autograd.grad(logits[:, 1].sum(), seen[0])[0]
    assert gradient[:, 1:].any()
    after = model.tokens(image)  # what leaves the last block is not read but for the class token
    unread = torch.autograd.grad(model.classifier(after[:, 0])[:, 1].sum(), after)[0]
    assert not unread[:, 1:].any()


@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "attention"])
def test_the_gradient_by_finite_differences(name: str) -> None:
    model, image = vit(), images()
    weight = torch.randn(3, 1, GRID, GRID, generator=torch.Generator().manual_seed(2)).double()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss() -> torch.Tensor:
        found, logits = explain.get(name).with_logits(
            model, image, lambda _: TARGET, create_graph=True
        )
        return (weight * found).sum() + logits.square().sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    step = 1e-6
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        moves = [torch.randn(p.shape, generator=generator).double() for p in parameters]

        def moved(by: float, moves: list[torch.Tensor] = moves) -> torch.Tensor:
            with torch.no_grad():
                for parameter, move in zip(parameters, moves, strict=True):
                    parameter.add_(move, alpha=by)
            return loss().detach()

        expected = sum(
            (g * m).sum() for g, m in zip(gradients, moves, strict=True) if g is not None
        )
        slope = (moved(step) - moved(-2 * step)) / (2 * step)
        moved(step)
        torch.testing.assert_close(expected, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "attention"])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_of_the_model_is_changed(name: str, training: bool) -> None:
    model, image = vit(dtype=torch.float32).train(training), images(dtype=torch.float32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    found = explain.get(name)(model, image, TARGET, create_graph=True)
    assert found.shape == (3, 1, GRID, GRID) and found.dtype == torch.float32
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_constant_weights_move_the_tokens_alone() -> None:
    model, image = vit(), images()
    found = explain.get("gradcam", constant_weights=True)(model, image, TARGET, create_graph=True)
    found.sum().backward()
    assert model.classifier.weight.grad is None
    assert model.net.conv_proj.weight.grad is not None and model.net.conv_proj.weight.grad.any()
    last = model.net.encoder.layers[-1]
    assert all(p.grad is None for p in last.parameters())


def test_one_logit_takes_the_target_as_its_sign() -> None:
    model, image = vit(classes=1), images(2)
    model.net.requires_grad_(False)  # an explanation needs no parameter that is trained
    ones, zeros = (explain.get("gradcam")(model, image, torch.full((2,), c)) for c in (1, 0))
    assert ones.any() and not torch.equal(ones, zeros)
    model.classifier.weight.data.neg_()
    torch.testing.assert_close(explain.get("gradcam")(model, image, torch.zeros(2).long()), ones)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ex2l", {}),
        ("gain", {}),
        ("distill_gradcam", {"teacher": "unbiased", "start": "random"}),
        ("distill_gradcam", {"teacher": "unbiased", "start": "transplant"}),
        ("tea", {"teacher": "unbiased", "start": "random", "explanation": "gradcam"}),
        (
            "tea",
            {
                "teacher": "unbiased",
                "start": "random",
                "explanation": "attention",
                "representation_weight": 1.0,
            },
        ),
    ],
)
def test_methods_of_grad_cam_train_on_it(method: str, options: dict[str, Any]) -> None:
    def build_network(num_outputs: int | None = None, **given: Any) -> nn.Module:
        outputs = tiny.CLASSES if num_outputs is None else num_outputs
        network: nn.Module = BACKBONES.get("vit_b_16")(outputs, SIZE, **given)
        nn.init.normal_(network.classifier.weight, std=0.5)  # type: ignore[union-attr,arg-type]
        return network

    made = {"side": SIDE, "build_network": build_network}
    upstream = {}
    if "teacher" in options:
        upstream = {"teacher": tiny.build("erm", seed=1, **made).eval().requires_grad_(False)}
    algorithm = tiny.build(method, upstream=upstream, **made, **options)
    watch = TermWatch(algorithm)
    for step in range(CHECKED_STEPS):
        torch.manual_seed(step)
        terms = algorithm.step(tiny.make_batch(side=SIDE, seed=step).strip(algorithm.needs))
        watch.observe(terms)
        assert all(torch.as_tensor(value).isfinite() for value in terms.values())
    assert not watch.warnings
