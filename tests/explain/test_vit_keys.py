"""Keys of the last block and weights in the layout of DINO, against timm's transformer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core.errors import UserError
from benchmark.core.registry import BACKBONES
from benchmark.explain.vit_keys import last_keys
from benchmark.models.dino import torchvision_names, vit_with_weights

timm = pytest.importorskip("timm")
OPTIONS = {"patch": 8, "dim": 48, "depth": 3, "heads": 3, "mlp_ratio": 4.0}


@pytest.fixture(scope="module")
def reference() -> Any:
    torch.manual_seed(0)
    network = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=5
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.double().eval()


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"teacher": {f"module.backbone.{k}": v for k, v in s.items()}}]
)
def test_tokens_and_keys_are_those_of_timm(reference: Any, wrap: Any) -> None:
    network = vit_with_weights("vit", OPTIONS, wrap(reference.state_dict()), 32).double()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = reference.forward_features(image)
        torch.testing.assert_close(network.tokens(image), expected, rtol=0, atol=1e-6)
        inputs = []
        attention = reference.blocks[-1].attn
        handle = attention.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
        reference.forward_features(image)
        handle.remove()
        keys = attention.qkv(inputs[0]).reshape(2, 17, 3, 48)[:, 1:, 1]
    torch.testing.assert_close(last_keys(network, image), keys, rtol=0, atol=1e-6)


def test_nothing_of_the_network_changes() -> None:
    network = BACKBONES.get("vit")(3, (3, 16, 16), dim=16, heads=2, depth=2)
    network.train()
    keys = last_keys(network, torch.rand(1, 3, 16, 16))
    assert keys.shape == (1, 16, 16) and network.training
    attention = network.net.encoder.layers[-1].self_attention
    assert not attention._forward_pre_hooks


def test_position_embeddings_are_interpolated(reference: Any) -> None:
    network = vit_with_weights("vit", OPTIONS, reference.state_dict(), 64)
    assert last_keys(network, torch.rand(1, 3, 64, 64)).shape == (1, 64, 48)


def test_weights_that_do_not_fit_are_refused(reference: Any) -> None:
    state = reference.state_dict()
    for backbone, options in (("vit_s_16", {}), ("vit", {**OPTIONS, "depth": 2})):
        with pytest.raises(UserError, match="do not fit"):
            vit_with_weights(backbone, options, state, 32)
    with pytest.raises(UserError, match="no state dict"):
        torchvision_names([1])
    with pytest.raises(UserError, match=r"found blocks\.0\.odd\.weight"):
        torchvision_names({**state, "blocks.0.odd.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="no cls_token"):
        torchvision_names({"head.weight": torch.zeros(1), "epoch": np.int64(3)})
    with pytest.raises(UserError, match="no vision transformer"):
        last_keys(torch.nn.Linear(2, 2), torch.zeros(1, 2))
