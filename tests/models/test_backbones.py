"""Every backbone: shapes, its three parts, capabilities, torchvision's number of parameters."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from benchmark.core.errors import UserError
from benchmark.core.registry import BACKBONES
from benchmark.models.base import Backbone, Capabilities, pixels_inside
from benchmark.models.convnet import ConvNet

#: (name, options, image size): the smallest sizes that exercise every layer.
CASES: list[tuple[str, dict[str, Any], tuple[int, int, int]]] = [
    ("convnet", {}, (3, 32, 32)),
    ("convnet", {"width": 4}, (2, 28, 28)),
    ("mnist_cnn", {}, (2, 28, 28)),
    ("resnet18", {}, (3, 64, 64)),
    ("resnet18", {"small_stem": True}, (1, 32, 32)),
    ("resnet50", {}, (2, 32, 32)),
    ("densenet121", {}, (3, 32, 32)),
    ("densenet121", {"small_stem": True}, (1, 16, 16)),
    ("alexnet", {}, (3, 63, 63)),
    ("convnext_base", {}, (3, 32, 32)),
    ("vit_b_16", {}, (1, 32, 32)),
    ("vit", {}, (2, 28, 28)),
    ("vit", {"patch": 7, "dim": 24, "depth": 2, "heads": 3, "mlp_ratio": 1.5}, (1, 28, 28)),
    ("vit", {"patch": 8, "dim": 24, "depth": 2, "stem": "conv"}, (3, 32, 32)),
    ("vit", {"patch": 4, "dim": 24, "depth": 2, "stem": "conv"}, (1, 16, 16)),
    ("vit_s_16", {}, (3, 32, 32)),
    ("vit_l_16", {}, (3, 16, 16)),
]
#: The largest networks, which other tests build too; tried here with --slow.
LARGEST = {"alexnet", "convnext_base", "vit_b_16", "vit_l_16"}
#: Numbers of the cases.
CASE_NUMBERS = [
    pytest.param(i, marks=[pytest.mark.slow] if name in LARGEST else [])
    for i, (name, _, _) in enumerate(CASES)
]
FEATURES = {
    "convnet": 64,
    "mnist_cnn": 128,
    "resnet18": 512,
    "resnet50": 2048,
    "densenet121": 1024,
    "alexnet": 4096,
    "convnext_base": 1024,
    "vit": 96,
    "vit_s_16": 384,
    "vit_b_16": 768,
    "vit_l_16": 1024,
}
TORCHVISION = [
    "resnet18",
    "resnet50",
    "densenet121",
    "alexnet",
    "convnext_base",
    "vit_b_16",
    "vit_l_16",
]


@cache
def network(case: int) -> Backbone:
    name, options, size = CASES[case]
    torch.manual_seed(case)
    built: Backbone = BACKBONES.get(name)(5, size, **options)
    return built.eval()


def images(case: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, *CASES[case][2], generator=torch.Generator().manual_seed(case))


def test_all_backbones_are_covered() -> None:
    # The last layer of B-cos networks is not linear; tests/models/test_bcos.py has their tests.
    known = {name for name in BACKBONES.names() if not name.startswith("bcos_")}
    assert {name for name, _, _ in CASES} == known == set(FEATURES)


@pytest.mark.parametrize("case", CASE_NUMBERS)
def test_forward_is_classifier_of_features(case: int) -> None:
    model, x = network(case), images(case)
    with torch.no_grad():
        logits, features, feature_map = model(x), model.features(x), model.feature_map(x)
    name = CASES[case][0]
    assert logits.shape == (2, 5)
    assert features.shape == (2, model.num_features)
    changed = {"width": 16, "dim": 24}
    expected = [changed[option] for option in CASES[case][1] if option in changed]
    assert model.num_features == (expected or [FEATURES[name]])[0]
    assert feature_map.dim() == 4 and len(feature_map) == 2
    by_hand = features @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits, by_hand, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # images do not meet in evaluation mode
        torch.testing.assert_close(model(x[:1]), logits[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASE_NUMBERS)
def test_cam_layer_gives_the_feature_map(case: int) -> None:
    model, x = network(case), images(case)
    seen: list[torch.Tensor] = []
    handle = model.cam_module().register_forward_hook(
        lambda module, args, output: seen.append(output.clone())
    )
    with torch.no_grad():
        model(x)
        handle.remove()
        feature_map, found = model.feature_map(x), model.cam_map(seen[0])
    assert len(seen) == 1 and found.dim() == 4 and found.shape[2:] == feature_map.shape[2:]
    if (
        not model.capabilities.attention
    ):  # a transformer's map enters the last block, its features leave it
        torch.testing.assert_close(found, feature_map)


def test_a_backbone_without_a_cam_layer_says_so() -> None:
    class Blind(BACKBONES.get("convnet")):  # type: ignore[misc]
        name = "blind"
        capabilities = Capabilities(lrp=True, min_side=8)

    with pytest.raises(UserError, match="blind declares no layer for Grad-CAM"):
        Blind(3, (3, 32, 32)).cam_module()
    assert "blind declares none" in Blind.cam_problem((3, 32, 32), {})


@pytest.mark.parametrize("case", CASE_NUMBERS)
def test_gradient_reaches_every_parameter(case: int) -> None:
    model = network(case)
    model(images(case)).square().sum().backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not torch.isfinite(p.grad).all()
    ]
    model.zero_grad(set_to_none=True)
    assert without == []


@pytest.mark.parametrize("case", CASE_NUMBERS)
def test_lrp_only_where_every_nonlinearity_is_a_relu(case: int) -> None:
    model = network(case)
    kinds = {type(m).__name__ for m in model.modules()}
    smooth = kinds & {
        "GELU",
        "Softmax",
        "Sigmoid",
        "MultiheadAttention",
        "LayerNorm",
        "LayerNorm2d",
        "GroupNorm",
    }
    assert model.capabilities.lrp == (not smooth)
    assert model.capabilities.attention == ("MultiheadAttention" in kinds)


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_are_torchvisions(name: str) -> None:
    side = 224 if name.startswith("vit") else 64
    with torch.device("meta"):  # counting needs no memory
        ours = BACKBONES.get(name)(7, (3, side, side))
        theirs = getattr(torchvision.models, name)(weights=None, num_classes=7)
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(ours) == count(theirs)


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", pytest.param("alexnet", marks=pytest.mark.slow)]
)
def test_logits_are_torchvisions(name: str) -> None:
    """With the same weights, copied by position, logits are those of torchvision's network."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None, num_classes=7).eval()
    ours = BACKBONES.get(name)(7, (3, 64, 64)).eval()
    mine, given = ours.state_dict(), theirs.state_dict()
    ours.load_state_dict(dict(zip(mine, given.values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [0, 3, 6])
def test_state_dict_round_trip(case: int) -> None:
    name, options, size = CASES[case]
    model, x = network(case), images(case)
    other: Backbone = BACKBONES.get(name)(5, size, **options).eval()
    with torch.no_grad():
        assert not torch.allclose(other(x), model(x))
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))


def test_spread_of_position_embeddings() -> None:
    options: dict[str, Any] = {"dim": 64, "depth": 2}
    for std in (0.02, 0.5):
        torch.manual_seed(0)
        built: Any = BACKBONES.get("vit")(3, (3, 32, 32), position_std=std, **options)
        found = built.net.encoder.pos_embedding.std().item()
        assert found == pytest.approx(std, rel=0.05)


def test_a_stem_of_convolutions_halves_the_image_to_the_patches() -> None:
    built: Any = BACKBONES.get("vit")(
        3, (3, 32, 32), patch=8, dim=32, depth=2, stem="conv", position_std=0.5
    )
    convolutions = [m for m in built.net.conv_proj.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [8, 16, 32, 32]
    assert [c.stride for c in convolutions] == [(2, 2)] * 3 + [(1, 1)]
    assert built.net.conv_proj(torch.zeros(2, 3, 32, 32)).shape == (2, 32, 4, 4)
    with pytest.raises(UserError, match="patch must be one of 2, 4, 8"):
        BACKBONES.get("vit")(3, (3, 28, 28), patch=7, stem="conv")


def test_dropout_acts_in_training_only() -> None:
    model: Backbone = BACKBONES.get("convnet")(3, (3, 32, 32), dropout=0.5).eval()
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(model(x), model(x))
    model.dropout.train()
    assert not torch.equal(model(x), model(x))


def test_mnist_cnn_against_its_mathematics() -> None:
    model: Any = BACKBONES.get("mnist_cnn")(10, (2, 28, 28)).eval()
    x = images(2)
    out = x
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 128, 128, 128]
    for conv, stride in zip(convs, (1, 2, 1, 1), strict=True):
        out = nn.functional.conv2d(out, conv.weight, conv.bias, stride=stride, padding=1).clamp(
            min=0
        )
        groups = out.unflatten(1, (8, -1)).flatten(2)
        groups = (groups - groups.mean(2, keepdim=True)) / (
            groups.var(2, correction=0, keepdim=True) + 1e-5
        ).sqrt()
        out = groups.view_as(out)  # fresh scale 1, shift 0
    torch.testing.assert_close(model.features(x), out.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "options", "sentence"),
    [
        ("convnet", (4, 32, 32), {}, "4 channels, expected 1, 2 or 3"),
        ("convnet", (3, 32, 4), {}, "at least 8×8 pixels, got 32×4"),
        ("convnet", (3, 32, 32), {"widht": 3}, "did you mean width"),
        ("convnet", (3, 32, 32), {"width": 0}, "out of bounds"),
        ("alexnet", (3, 62, 62), {}, "at least 63×63 pixels, got 62×62; .* or side = 63 or more"),
        ("alexnet", (3, 28, 28), {"side": 40}, "at least 63×63 pixels, got 40×40"),
        ("resnet18", (3, 64, 64), {"side": 32}, "side = 32 is smaller than the images, 64×64"),
        ("densenet121", (3, 28, 28), {}, "at least 29×29"),
        ("vit_b_16", (3, 48, 32), {}, "square images"),
        ("vit", (3, 30, 30), {}, "a side that 4 divides"),
        ("vit", (3, 32, 32), {"dim": 50}, "dim = 50 is not a multiple of heads = 4"),
        (
            "resnet18",
            (3, 32, 32),
            {"weights": "IMAGENET1K_V7"},
            "'IMAGENET1K_V7'; did you mean IMAGENET1K_V1",
        ),
        (
            "resnet18",
            (1, 32, 32),
            {"weights": "IMAGENET1K_V1"},
            "cannot be used with images of 1 channels",
        ),
        (
            "resnet18",
            (3, 32, 32),
            {"weights": "IMAGENET1K_V1", "small_stem": True},
            "cannot be used with small_stem",
        ),
    ],
)
def test_mistakes_are_answered_in_one_sentence(
    name: str, size: tuple[int, int, int], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        BACKBONES.get(name)(5, size, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "densenet121",
        "alexnet",
        pytest.param("convnext_base", marks=pytest.mark.slow),
    ],
)
def test_side_enlarges_the_images_and_changes_nothing_else(name: str) -> None:
    torch.manual_seed(0)
    large = BACKBONES.get(name)(5, (3, 64, 64)).eval()
    small = BACKBONES.get(name)(5, (3, 20, 20), side=64).eval()
    small.load_state_dict(large.state_dict())
    x = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        enlarged = nn.functional.interpolate(x, (64, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(small(x), large(enlarged))
    x.requires_grad_(True)
    small(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape and x.grad.abs().sum() > 0


@pytest.mark.parametrize("case", CASE_NUMBERS)
def test_the_size_of_the_map_is_known_without_weights(case: int) -> None:
    name, options, size = CASES[case]
    state = torch.get_rng_state()
    found = BACKBONES.get(name).map_size(size, options)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        assert found == tuple(network(case).feature_map(images(case)).shape[2:])


class Numbers(ConvNet):
    """Cannot be built without memory, as networks that read numbers from tensors cannot."""

    name = "numbers"

    def build(self) -> nn.Linear:
        self.rates = [x.item() for x in torch.linspace(0, 1, 3)]
        return super().build()


def test_the_size_of_the_map_where_a_network_needs_memory() -> None:
    state = torch.get_rng_state()
    assert Numbers.map_size((3, 32, 32), {}) == ConvNet.map_size((3, 32, 32), {})
    assert torch.equal(state, torch.get_rng_state())


def test_how_many_images_pass_at_once_follows_what_the_network_sees() -> None:
    small, large = (BACKBONES.get("resnet18")(2, (3, 28, 28), side=side) for side in (0, 224))
    assert pixels_inside(small, 28, 28) == 28 * 28
    assert (
        pixels_inside(nn.ModuleList([small, large]), 28, 28)
        == 224 * 224
        == pixels_inside(nn.Identity(), 224, 224)
    )


def test_the_map_of_an_enlarged_image_and_with_published_weights() -> None:
    kind = BACKBONES.get("resnet50")
    assert kind.map_size((3, 28, 28), {}) == (1, 1)
    assert kind.map_size((3, 28, 28), {"side": 224, "weights": "IMAGENET1K_V2"}) == (7, 7)


def test_wrong_images_are_refused_at_the_call() -> None:
    model = network(0)
    with pytest.raises(UserError, match="3 channels"):
        model(torch.zeros(2, 1, 32, 32))
    with pytest.raises(UserError, match="at least 8×8"):
        model(torch.zeros(2, 3, 4, 4))
    with pytest.raises(UserError, match="at least 1"):
        BACKBONES.get("convnet")(0, (3, 32, 32))
