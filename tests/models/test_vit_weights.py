"""Weights of vision transformers from files, with their last layer and their normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.core.registry import BACKBONES
from benchmark.models.vit import WEIGHTS_OPTIONS, Shape, VisionTransformer

timm = pytest.importorskip("timm")
CLASSES = 5
SIZE = (3, 16, 16)


class Tiny(VisionTransformer):
    """A transformer that reads files of weights."""

    name = "tiny"
    options = WEIGHTS_OPTIONS

    @classmethod
    def shape(cls, options: Mapping[str, Any]) -> Shape:
        return Shape(patch=8, dim=16, depth=2, heads=2, mlp_dim=64)


@pytest.fixture(scope="module")
def reference() -> Any:
    torch.manual_seed(0)
    network = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=CLASSES
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Any) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"model": reference.state_dict()}, tmp_path / "checkpoints" / "tiny.pth")
    (tmp_path / "checkpoints" / "damaged.pth").write_bytes(b"PK")


def test_published_network_with_its_last_layer_is_timms(reference: Any) -> None:
    image = torch.randn(2, *SIZE)
    network = Tiny(CLASSES, SIZE, file="tiny.pth", head="published").eval()
    with torch.no_grad():
        torch.testing.assert_close(network(image), reference(image), rtol=0, atol=1e-5)


def test_without_the_published_head_the_last_layer_is_new() -> None:
    network = Tiny(3, SIZE, file="tiny.pth")
    assert network.classifier.out_features == 3
    assert not network.classifier.weight.any()


def test_normalisation_belongs_to_the_weights(reference: Any) -> None:
    mean = (0.4, 0.5, 0.3)
    std = (0.2, 0.25, 0.3)
    network = Tiny(CLASSES, SIZE, file="tiny.pth", head="published", pixels="half").eval()
    network.set_normalisation(mean, std)
    pixels = torch.rand(2, *SIZE)
    image = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        expected = reference((pixels - 0.5) / 0.5)
        torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-5)
    assert not {"scale", "shift"} & network.state_dict().keys()


@pytest.mark.parametrize(
    ("options", "outputs", "message"),
    [
        ({"file": "absent.pth"}, CLASSES, "there is no file of weights"),
        ({"file": "damaged.pth"}, CLASSES, "could not be read"),
        ({"file": "tiny.pth", "head": "published"}, 3, "a last layer of 5 classes"),
        ({"file": "../tiny.pth"}, CLASSES, "file"),
    ],
)
def test_mistakes(options: dict[str, Any], outputs: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Tiny(outputs, SIZE, **options)


def test_mistakes_that_planning_finds() -> None:
    size = (3, 224, 224)
    kind: Any = BACKBONES.get("vit_b_16")
    kind.check_options(size, {"weights": "IMAGENET1K_V1", "head": "published"})
    with pytest.raises(UserError, match="leave one out"):
        kind.check_options(size, {"weights": "IMAGENET1K_V1", "file": "tiny.pth"})
    with pytest.raises(UserError, match="needs weights"):
        kind.check_options(size, {"weights": "none", "head": "published"})


def test_shape_is_known_without_the_file() -> None:
    options = {"file": "absent.pth", "head": "published"}
    assert Tiny.map_size(SIZE, options) == (2, 2)
    assert Tiny.fewest_rows(SIZE, options) == 1
