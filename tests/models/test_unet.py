"""The U-Net and the AG-Sononet: shapes at odd sides, what sees what, the gate by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmark.core.errors import UserError
from benchmark.models.ag_sononet import AGSononet, GridAttention
from benchmark.models.unet import TwoHeadedUNet, UNet


@pytest.mark.parametrize(("side", "depth"), [(16, 3), (28, 3), (19, 2), (21, 4), (8, 3)])
def test_the_map_is_as_large_as_the_image(side: int, depth: int) -> None:
    net = UNet((2, side, side + 3), 1, width=2, depth=depth).eval()
    assert net(torch.randn(2, 2, side, side + 3)).shape == (2, 1, side, side + 3)


def test_width_doubles_and_parameters_are_counted_by_hand() -> None:
    net = UNet((3, 16, 16), 1, width=4, depth=2)
    wide = [4, 8, 16]
    convolutions = sum(9 * a * b + 9 * b * b for a, b in zip([3, 4, 8], wide, strict=True))  # down
    convolutions += sum(9 * 2 * b * b + 9 * b * b for b in (8, 4))  # merge
    convolutions += sum(4 * a * b + b for a, b in ((16, 8), (8, 4)))  # up, with bias
    norms = sum(2 * 2 * c for c in (*wide, 8, 4))
    assert sum(p.numel() for p in net.parameters()) == convolutions + norms + 4 + 1
    assert net.num_features == 16


def test_every_parameter_learns_and_skips_carry_detail() -> None:
    torch.manual_seed(0)
    net = UNet((1, 16, 16), 1, width=2, depth=2)
    net(torch.randn(3, 1, 16, 16)).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for n, p in net.named_parameters()
        if "merge" in n
    )
    net.eval()
    maps = net.encode(torch.randn(1, 1, 16, 16))
    before = net.decode(maps)
    assert not torch.allclose(before, net.decode([maps[0] + 1, *maps[1:]]))


def test_an_image_that_is_too_small_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"depth 4 .* at least 16 pixels.* 12; .* at most 3",
    ):
        UNet((3, 12, 30), depth=4)


def test_two_heads_answer_as_one_and_share_the_encoder() -> None:
    torch.manual_seed(0)
    net = TwoHeadedUNet(5, (3, 16, 16), width=2, depth=2).eval()
    x = torch.randn(2, 3, 16, 16)
    logits, foreground = net.both(x)
    assert logits.shape == (2, 5) and foreground.shape == (2, 1, 16, 16)
    assert torch.equal(net(x), logits)
    assert torch.equal(net.unet(x), foreground)
    by_hand = (
        net.unet.encode(x)[-1].mean(dim=(2, 3)) @ net.classifier.weight.T + net.classifier.bias
    )
    torch.testing.assert_close(logits, by_hand)


def test_gate_by_hand() -> None:
    torch.manual_seed(0)
    gate = GridAttention(3, 4, 5).double()
    x, g = (
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
        torch.randn(2, 4, 2, 2, dtype=torch.float64),
    )
    asked = F.interpolate(gate.phi(g), size=(4, 4), mode="bilinear", align_corners=False)
    q = torch.einsum("oi,bihw->bohw", gate.theta.weight[:, :, 0, 0], x) + asked
    q = torch.einsum(
        "i,bihw->bhw", gate.psi.weight[0, :, 0, 0], q.clamp_min(0)
    )  # ψ's bias moves q and its minimum
    above = q - q.flatten(1).min(1).values[:, None, None]
    expected = above / above.sum((1, 2), keepdim=True)
    found = gate(x, g)
    assert found.shape == (2, 1, 4, 4)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))
    alike = gate(torch.ones(1, 3, 4, 4).double(), torch.ones(1, 4, 2, 2).double())
    torch.testing.assert_close(alike, torch.full((1, 1, 4, 4), 1 / 16).double())


@pytest.mark.parametrize("side", [16, 28, 32])
def test_ag_sononet_parts_and_gradients(side: int) -> None:
    torch.manual_seed(0)
    net = AGSononet(5, (3, side, side), width=2)
    x = torch.randn(3, 3, side, side)
    assert net.features(x).shape == (3, net.num_features) == (3, 2 * 4 + 2 * 8 + 2 * 8)
    net(x).square().sum().backward()
    assert [
        name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ] == []
    assert all(gate.psi.weight.grad.abs().sum() > 0 for gate in net.gates)
    net.eval()
    torch.testing.assert_close(
        net(x), net.features(x) @ net.classifier.weight.T + net.classifier.bias
    )
    torch.testing.assert_close(net(x[:1]), net(x)[:1])
    seen: list[torch.Tensor] = []
    net.cam_module().register_forward_hook(lambda module, args, output: seen.append(output))
    net(x)
    assert torch.equal(seen[0], net.feature_map(x))
    with pytest.raises(UserError, match="at least 16×16"):
        AGSononet(5, (3, 15, 15))
