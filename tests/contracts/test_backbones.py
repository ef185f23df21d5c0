"""Contract of every registered network, those of installed packages included."""

from __future__ import annotations

import pytest
import torch

from benchmark.core.backbone_options import COMMON_OPTIONS
from benchmark.core.registry import BACKBONES
from benchmark.models.base import Backbone, Capabilities

#: Too large for the fast tests.
LARGE = {"vit_l_16"}
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
    for name in BACKBONES.names()
]


@pytest.mark.parametrize("name", NAMES)
def test_declaration(name: str) -> None:
    kind = BACKBONES.get(name)
    assert issubclass(kind, Backbone) and kind.name == name
    assert kind.doc and isinstance(kind.capabilities, Capabilities)
    assert all(option.doc for option in kind.all_options().values())
    assert not kind.options.keys() & COMMON_OPTIONS.keys(), "these are every backbone's"


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_features_and_the_promised_layer_exists(name: str) -> None:
    kind = BACKBONES.get(name)
    side = max(kind.capabilities.min_side, 32)
    torch.manual_seed(0)
    network = kind(3, (3, side, side)).eval()
    image = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        logits, features = network(image), network.features(image)
        expected = torch.nn.functional.linear(
            features, network.classifier.weight, network.classifier.bias
        )
    assert logits.shape == (2, 3) and features.shape == (2, network.num_features)
    torch.testing.assert_close(logits, expected)
    if kind.capabilities.cam:
        seen: list[torch.Size] = []
        handle = network.cam_module().register_forward_hook(
            lambda module, given, out: seen.append(network.cam_map(out).shape)
        )
        with torch.inference_mode():
            network(image)
        handle.remove()
        assert len(seen) == 1 and len(seen[0]) == 4 and seen[0][0] == 2
        assert tuple(seen[0][2:]) == kind.map_size((3, side, side), {})
