"""Layers with two backward rules: one for heatmaps (``rules.explaining``) and the true derivative.

The result of the first rule can itself be differentiated, once; that later backward pass uses the
true derivatives.

The convolution has only the true derivative and is here for speed. PyTorch computes the weights'
part of a second derivative by a convolution with exchanged axes, which is slow, although it is the
ordinary weight gradient of another input. On a CPU, two shapes for which the vendor's kernels are
slow are computed by matrix products.
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
_COLUMNS = 1_000_000


class Relu(torch.autograd.Function):
    """a = max(z, 0). The rule for heatmaps multiplies by a / (a + ε)."""

    @staticmethod
    def forward(
        ctx: Any, z: torch.Tensor, epsilon: float | torch.Tensor, inplace: bool, rules: Any
    ) -> torch.Tensor:
        if inplace:
            ctx.mark_dirty(z)
        a = z.relu_() if inplace else z.relu()
        ctx.save_for_backward(a)
        ctx.epsilon, ctx.rules = epsilon, rules
        return a

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:  # type: ignore[override]
        (a,) = ctx.saved_tensors
        if ctx.rules.explaining:
            return Damp.apply(g, a, ctx.epsilon), None, None, None  # type: ignore[no-untyped-call]
        return torch.ops.aten.threshold_backward(g, a, 0), None, None, None


class Damp(torch.autograd.Function):
    """g · a / (a + ε), with derivatives to g and a; computed in at least float32."""

    @staticmethod
    def forward(
        ctx: Any, g: torch.Tensor, a: torch.Tensor, epsilon: float | torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(g, a)
        ctx.epsilon = epsilon
        wide = _wide(a)
        share = wide + epsilon
        torch.div(wide, share, out=share)
        return share.mul_(g).to(g.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, h: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        g, a = ctx.saved_tensors
        # 1 - a / (a + ε)
        rest = (_wide(a) + ctx.epsilon).reciprocal_().mul_(ctx.epsilon)
        to_g = torch.addcmul(h, h, rest, value=-1).to(h.dtype) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_g, None, None
        # derivative of a / (a + ε): ε / (a + ε)² = rest² / ε
        to_a = rest.square_().div_(ctx.epsilon).mul_(g).mul_(h)
        return to_g, to_a.to(a.dtype), None


class BatchNorm(torch.autograd.Function):
    """Batch normalisation. The rule for heatmaps multiplies by a constant factor per channel.

    The second output, 1 / sqrt(variance + eps) per channel, is that factor without the weight. It
    receives a gradient when a loss of the heatmap is differentiated.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        rules: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, mean, scale = torch.native_batch_norm(
            x, weight, bias, running_mean, running_var, training, momentum, eps
        )
        if not training:
            assert running_mean is not None and running_var is not None
            mean, scale = running_mean, torch.rsqrt(running_var + eps)
            ctx.mark_non_differentiable(scale)
        # running statistics change in place during training, where the derivative does not use them
        kept = (None, None) if training else (running_mean, running_var)
        ctx.save_for_backward(x, weight, mean, scale, *kept)
        ctx.training, ctx.eps, ctx.rules = training, eps, rules
        ctx.set_materialize_grads(False)
        return y, scale

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, g: torch.Tensor | None, g_scale: torch.Tensor | None
    ) -> tuple[Any, ...]:
        x, weight, mean, scale, running_mean, running_var = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.dim() - 2))
        nothing = [None] * 8
        if ctx.rules.explaining:
            if g is None:
                return None, *nothing
            factor = scale if weight is None else weight * scale
            return g * factor.view(shape).to(g.dtype), *nothing
        needs = list(ctx.needs_input_grad[:3])
        gx = gw = gb = None
        if g is not None:
            saved = (mean, scale) if ctx.training else (None, None)
            gx, gw, gb = torch.ops.aten.native_batch_norm_backward(
                g, x, weight, running_mean, running_var, *saved, ctx.training, ctx.eps, needs
            )
        if g_scale is not None and needs[0]:  # d scale / dx = -scale³ (x - mean) / n
            slope = g_scale * scale**3 * (-x.shape[1] / x.numel())
            shift = (slope * mean).to(x.dtype)
            slope = slope.to(x.dtype)
            start = torch.zeros_like(x) if gx is None else gx
            gx = start.addcmul_(x, slope.view(shape)).sub_(shift.view(shape))
        return gx, gw, gb, *nothing[2:]


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
        ctx.geometry, ctx.is_image, ctx.rules = geometry, is_image, rules
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
    g: torch.Tensor, weight: torch.Tensor, shape: torch.Size, geometry: Geometry
) -> torch.Tensor:
    """Return the gradient to a convolution's input of shape [B,C,H,W] from ``g`` at its output."""
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

    if across.shape[0] * g[:, 0].numel() <= _COLUMNS:
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


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in at least float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
