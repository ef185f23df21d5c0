"""A convolution with faster derivatives, for explanations that are part of a loss.

It computes what ``torch.conv2d`` computes. PyTorch computes the weights' part of a second
derivative by a convolution with exchanged axes, which is slow, although it is the ordinary weight
gradient of another input. On a CPU, two shapes for which the vendor's kernels are slow are computed
by matrix products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

#: Input channels up to which a matrix product computes the input gradient faster (measured).
_FEW_CHANNELS = 4
#: Output positions of all images up to which it computes the weight gradient faster (measured).
_FEW_POSITIONS = 128
#: Unfolded elements above which images are folded one by one, so that they fit into the cache.
MAX_COLUMNS = 1_000_000


class Geometry(NamedTuple):
    """Geometry of a convolution."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class Conv(torch.autograd.Function):
    """y = W ∗ x + b. The rule for heatmaps computes the gradient to the input only."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: Geometry,
        is_image: bool,
        rules: Any,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias_shape = None if bias is None else list(bias.shape)
        ctx.geometry = geometry
        ctx.is_image = is_image
        ctx.rules = rules
        return torch.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        if ctx.rules.explaining:
            gx = ConvInputGradient.apply(  # type: ignore[no-untyped-call]
                g, weight, x.shape, ctx.geometry
            )
            return gx, None, None, None, None, None
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        to_x = to_x and not ctx.is_image  # a loss of the heatmap needs no gradient to the image
        gw = weight_gradient(g, x, weight, ctx.geometry) if to_weight else None
        gx = gb = None
        if to_x or to_bias:
            gx, _, gb = _vendor(g, x, weight, ctx.bias_shape, ctx.geometry, [to_x, False, to_bias])
        return gx, gw, gb, None, None, None


class ConvInputGradient(torch.autograd.Function):
    """The gradient to a convolution's input, with derivatives to ``g`` and to the weight."""

    @staticmethod
    def forward(
        ctx: Any, g: torch.Tensor, weight: torch.Tensor, shape: torch.Size, geometry: Geometry
    ) -> torch.Tensor:
        ctx.save_for_backward(g, weight)
        ctx.geometry = geometry
        return input_gradient(g, weight, shape, geometry)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, h: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        g, weight = ctx.saved_tensors
        to_g = torch.conv2d(h, weight, None, *ctx.geometry) if ctx.needs_input_grad[0] else None
        to_weight = weight_gradient(g, h, weight, ctx.geometry) if ctx.needs_input_grad[1] else None
        return to_g, to_weight, None, None


def input_gradient(
    g: torch.Tensor,
    weight: torch.Tensor,
    shape: torch.Size,
    geometry: Geometry,
    max_columns: int = MAX_COLUMNS,
) -> torch.Tensor:
    """Return the gradient to a convolution's input.

    Args:
        g: gradient at the output.
        weight: kernel of the convolution.
        shape: [B,C,H,W] of the input.
        geometry: geometry of the convolution.
        max_columns: unfolded elements above which images are folded one by one.
    """
    if g.device.type != "cpu" or geometry.groups != 1 or shape[1] > _FEW_CHANNELS or g.numel() == 0:
        like = g.new_empty(1).expand(shape)  # only its shape is used
        gx = _vendor(g, like, weight, None, geometry, [True, False, False])[0]
        assert gx is not None
        return gx
    kernel = tuple(weight.shape[2:])
    across = weight.flatten(1).T

    def fold(columns: torch.Tensor) -> torch.Tensor:
        return F.fold(
            columns, shape[2:], kernel, geometry.dilation, geometry.padding, geometry.stride
        )

    if across.shape[0] * g[:, 0].numel() <= max_columns:
        return fold(torch.bmm(across.expand(len(g), -1, -1), g.flatten(2)))
    return torch.stack([fold(across @ part) for part in g.flatten(2)])


def weight_gradient(
    g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, geometry: Geometry
) -> torch.Tensor:
    """Return the gradient to a convolution's weight from ``g`` at its output and input ``x``."""
    if g.device.type != "cpu" or geometry.groups != 1 or g[:, 0].numel() > _FEW_POSITIONS:
        gw = _vendor(g, x, weight, None, geometry, [False, True, False])[1]
        assert gw is not None
        return gw
    kernel = tuple(weight.shape[2:])
    # [B, C·k·k, positions]
    columns = F.unfold(x, kernel, geometry.dilation, geometry.padding, geometry.stride)
    flat = columns.transpose(1, 2).reshape(-1, columns.shape[1])
    # not a view, so that autograd can accumulate in place
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    torch.mm(
        g.flatten(2).transpose(0, 1).reshape(len(weight), -1), flat, out=out.view(len(weight), -1)
    )
    return out


def _vendor(
    g: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: list[int] | None,
    how: Geometry,
    needs: list[bool],
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients to input, weight and bias that ``needs`` asks for."""
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        g, x, weight, bias, how.stride, how.padding, how.dilation, False, (0, 0), how.groups, needs
    )
