"""Networks of timm: timm's own logits, what explains them, files of weights, and refusals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmark import load_exported, load_run
from benchmark.core.errors import UserError
from benchmark.core.registry import BACKBONES
from benchmark.explain import get
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from tests.support.runs import plan_run
from tests.support.runs import run as execute_run

timm = pytest.importorskip("timm")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "timm.md"
SIDE = 64
#: Explainers of the columns of the page, beside the gradient of the image.
EXPLAINERS = {"Grad-CAM": "gradcam", "LRP": "lrp", "GAE": "gae"}
#: The network that the fast tests train.
FAST = ("resnet10t",)
#: Layers for which LRP-ε is not defined.
SMOOTH = (nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.LayerNorm)


def documented() -> dict[str, dict[str, str]]:
    """Rows of the table of families on the page by the name of the network."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    start = next(i for i, row in enumerate(cells) if row[0] == "family")
    header = cells[start]
    rows = [dict(zip(header, row, strict=True)) for row in cells[start + 2 : start + 12]]
    return {row["network"]: row for row in rows}


ROWS = documented()


def own_logits(name: str, image: torch.Tensor, fixed: bool) -> torch.Tensor:
    """The logits of timm's network that is made with seed 0."""
    torch.manual_seed(0)
    size = {"img_size": image.shape[-1]} if fixed else {}
    with torch.inference_mode():
        logits: torch.Tensor = timm.create_model(name, num_classes=3, **size).eval()(image)
    return logits


def train_once(network: nn.Module, image: torch.Tensor, label: torch.Tensor) -> bool:
    """Make a training step; return whether the loss of the batch is smaller after it."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(network.train()(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[1] < losses[0]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in sorted(ROWS)],
)
def test_a_family_does_what_the_page_says(name: str) -> None:
    kind, row = BACKBONES.get(f"timm:{name}"), ROWS[name]
    torch.manual_seed(0)
    network = kind(3, (3, SIDE, SIDE))
    image, label = torch.randn(3, 3, SIDE, SIDE), torch.arange(3)
    with torch.inference_mode():
        logits = network.eval()(image)
        features = network.features(image)
        last_map = network.feature_map(image)
        torch.testing.assert_close(logits, network.classifier(features))
    torch.testing.assert_close(logits, own_logits(name, image, kind.traits.fixed))
    assert last_map.shape[2:] == kind.map_size((3, SIDE, SIDE), {})
    smooth = any(isinstance(module, SMOOTH) for module in network.modules())
    assert kind.capabilities.lrp == (not smooth)
    trained = [] if not train_once(network, image, label) else ["yes"]
    assert trained == [row["training"]]
    in_a_loss = []
    for title, explainer in {**EXPLAINERS, "input gradient": "input_gradient"}.items():
        if row.get(title) == "refused":
            with pytest.raises(UserError, match="needs a network that declares"):
                get(explainer)(network, image, label)
            continue
        network.zero_grad()
        heatmap = get(explainer)(network, image, label, create_graph=True)
        assert torch.isfinite(heatmap).all() and heatmap.any()
        heatmap.square().sum().backward()
        moved = [p for p in network.parameters() if p.grad is not None and p.grad.any()]
        in_a_loss += [title] if len(moved) > 5 else []
    assert ", ".join(in_a_loss) == row["in a loss"]


def planned(backbone: str, method: str = "erm", data: str = "tiny:side=32") -> Any:
    table = {"datasets": [data], "algorithms": [method], "backbone": backbone}
    runs = expand(config_from(table, "test", "test")).runs.values()
    return next(run.spec for run in runs if run.spec.algorithm == method)


def test_options_are_passed_through_and_only_given_ones_are_kept() -> None:
    spec = planned("timm:resnet10t:drop_path_rate=0.25,side=64")
    assert (spec.backbone, spec.backbone_options) == (
        "timm:resnet10t",
        {"side": 64, "drop_path_rate": 0.25},
    )
    kind = BACKBONES.get(spec.backbone)
    assert kind is BACKBONES.get("timm:resnet10t")
    network = kind(2, (3, 32, 32), **spec.backbone_options)
    rates = [m.drop_prob for m in network.modules() if type(m).__name__ == "DropPath"]
    assert rates and max(rates) == 0.25
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


@pytest.mark.parametrize(
    ("backbone", "fact"),
    [
        ("timm", "the name of a model"),
        ("timm:resnet19", "did you mean resnet18"),
        ("timm:resnet10t.none", "none"),
        ("timm:resnet10t:drop_path=0.1", "did you mean drop_path_rate"),
        ("timm:resnet10t:drop_path_rate=2", "out of bounds"),
        ("timm:resnet10t:file=missing.pth", "no file of weights"),
        ("timm:deit_tiny_patch16_224:depth=3,num_heads=5", "timm cannot make|cannot take"),
        ("timm:deit_tiny_distilled_patch16_224", "one linear layer"),
        ("timm:resnet10t:cam=layer5", "did you mean layer[1-4]"),
        ("timm:resnet10t:cam=fc", "one image"),
        ("timm:resnet10t:cam=global_pool", "one image"),
        ("timm:resnet10t:cam=bn1", "overwrites"),
        ("timm:resnet10t:cam=a b", "wrong form"),
        ("timm:deit_tiny_patch16_224:cam=blocks.11,side=32", "before the last block.*blocks.10"),
        ("timm:mixer_s32_224", "no map with positions"),
        ("convnet:width", "expected convnet:option=value"),
    ],
)
def test_mistakes_are_found_by_the_plan(backbone: str, fact: str) -> None:
    with pytest.raises(UserError, match=fact):
        planned(backbone)


def test_the_plan_knows_what_explains_a_network_and_its_sides() -> None:
    assert planned("timm:resnet10t:side=64", "isnet").algorithm == "isnet"
    with pytest.raises(UserError, match="mobilenetv3_small_050"):
        planned("timm:mobilenetv3_small_050", "isnet")
    with pytest.raises(UserError, match="one cell"):
        planned("timm:resnet10t", "gain", "tiny")
    with pytest.raises(UserError, match=r"16 divides.*side=48"):
        planned("timm:deit_tiny_patch16_224", data="tiny:side=40")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet10t", "layer3"),
        ("convnext_atto", "stages.2"),
        ("vit_tiny_patch16_224", "blocks.3"),
        pytest.param("swin_tiny_patch4_window7_224", "layers.2", marks=pytest.mark.slow),
    ],
)
def test_the_layer_that_gradcam_explains_can_be_chosen(name: str, layer: str) -> None:
    kind = BACKBONES.get(f"timm:{name}")
    torch.manual_seed(0)
    network = kind(3, (3, SIDE, SIDE), cam=layer).eval()
    image, label = torch.randn(2, 3, SIDE, SIDE), torch.tensor([0, 2])
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, given: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = network.net.get_submodule(layer).register_forward_hook(keep)
    logits = network(image)
    handle.remove()
    logits[torch.arange(2), label].sum().backward()
    values, gradient = seen[0].detach(), seen[0].grad
    assert gradient is not None
    if name.startswith("vit"):  # a class token, then 4×4 patches
        values, gradient = (
            part[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for part in (values, gradient)
        )
    elif name.startswith("swin"):
        values, gradient = values.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    expected = (gradient.mean((2, 3), keepdim=True) * values).sum(1, keepdim=True).relu()
    made = get("gradcam")(network, image, label)
    torch.testing.assert_close(made.reshape(expected.shape), expected, rtol=1e-3, atol=1e-6)
    options = {"cam": layer}
    assert kind.cam_size((3, SIDE, SIDE), options) == tuple(values.shape[2:])
    assert kind.cam_problem((3, SIDE, SIDE), options) is None
    torch.manual_seed(0)
    assert torch.equal(kind(3, (3, SIDE, SIDE)).eval()(image), logits.detach())


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'shortcutbed\[timm\]'"):
        BACKBONES.get("timm:resnet26t")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_of_a_file_with_their_normalisation(ending: str, tmp_path: Path) -> None:
    """A vision transformer of 64 pixels gets weights of 32 pixels, as timm itself reads them."""
    name, size = "vit_tiny_patch16_224", {"depth": 2}
    torch.manual_seed(0)
    published = timm.create_model(name, num_classes=3, img_size=32, **size)
    file = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save({"state_dict": published.state_dict()}, file)
    else:
        pytest.importorskip("safetensors.torch").save_file(published.state_dict(), file)
    kind = BACKBONES.get(f"timm:{name}")
    network = kind(3, (3, SIDE, SIDE), file=str(file), **size).eval()
    mean, std = (0.2, 0.3, 0.4), (0.1, 0.2, 0.3)
    network.set_normalisation(mean, std)
    assert network.has_trained_head
    overlay = {"file": str(file), "num_classes": 3, "custom_load": False}
    theirs = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=3, img_size=SIDE, **size
    ).eval()
    pixels = torch.rand(2, 3, SIDE, SIDE)

    def normal(mean: Any, std: Any) -> torch.Tensor:
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    with torch.inference_mode():
        expected = theirs(normal(theirs.pretrained_cfg["mean"], theirs.pretrained_cfg["std"]))
        torch.testing.assert_close(network(normal(mean, std)), expected)
    other = kind(4, (3, SIDE, SIDE), file=str(file), **size)
    assert not other.has_trained_head
    for part in ("net.norm.weight", "net.blocks.1.attn.qkv.weight", "net.patch_embed.proj.bias"):
        assert torch.equal(other.get_parameter(part), network.get_parameter(part))
    with pytest.raises(UserError, match="do not fit this network"):
        kind(3, (3, SIDE, SIDE), file=str(file), depth=3)
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="could not be read"):
        kind(3, (3, SIDE, SIDE), file=str(file))


def test_gae_starts_from_the_class_token_of_a_network_with_registers() -> None:
    """The same heatmap as from timm's network itself, whose tokens the explainer counts."""
    kind = BACKBONES.get("timm:vit_tiny_patch16_224")
    network = kind(3, (3, SIDE, SIDE), depth=2, reg_tokens=3).eval()
    theirs = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, img_size=SIDE, depth=2, reg_tokens=3
    ).eval()
    theirs.load_state_dict(network.net.state_dict(), strict=False)
    theirs.head = network.classifier
    image, target = torch.randn(2, 3, SIDE, SIDE), torch.tensor([0, 2])
    found = get("gae")(network, image, target)
    assert found.shape == (2, 1, 4, 4) and found.any()
    torch.testing.assert_close(found, get("gae")(theirs, image, target))
    assert get("gradcam")(network, image, target).shape == (2, 1, 4, 4)


@pytest.mark.slow
def test_a_run_is_loaded_and_exported_with_its_normalisation(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    backbone = "timm:deit_tiny_patch16_224:depth=2,pixels=weights"
    folder = plan_run(
        tmp_path, backbone=backbone, datasets=["tiny:side=32,size=64"], budget={"steps": 2}
    )
    assert execute_run(folder) == "done"
    run = load_run(folder)
    assert isinstance(run.network.shift, torch.Tensor)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    exported = load_exported(run.export(tmp_path / "model.safetensors"))
    np.testing.assert_allclose(exported.logits(images), run.logits(images), atol=1e-5)
    assert run.explain(images, "gae").shape == (3, 32, 32)
