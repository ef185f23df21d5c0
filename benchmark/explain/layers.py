"""Layers with two backward rules: one for heatmaps (``rules.explaining``) and the true derivative.

The result of the first rule can itself be differentiated, once; that later backward pass uses the
true derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


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
        ctx.epsilon = epsilon
        ctx.rules = rules
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


class Scaled(torch.autograd.Function):
    """x · scale. The rule for heatmaps takes the scale as a constant."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, rules: Any) -> torch.Tensor:
        ctx.save_for_backward(x, scale)
        ctx.rules = rules
        return x * scale

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, g: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        x, scale = ctx.saved_tensors
        to_scale = None if ctx.rules.explaining else (g * x).sum_to_size(scale.shape)
        return g * scale, to_scale, None


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
            mean = running_mean
            scale = torch.rsqrt(running_var + eps)
            ctx.mark_non_differentiable(scale)
        # running statistics change in place during training, where the derivative does not use them
        kept = (None, None) if training else (running_mean, running_var)
        ctx.save_for_backward(x, weight, mean, scale, *kept)
        ctx.training = training
        ctx.eps = eps
        ctx.rules = rules
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


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in at least float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
