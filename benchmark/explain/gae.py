"""Explanations of vision transformers from the attention of all blocks: GAE and rollout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.base import HeatmapExplainer, Trace, explained_score
from benchmark.explain.rules import Rules


class AttentionRecorder(TorchFunctionMode):
    """Function mode that keeps the attention of every block of a forward pass, with its graph.

    The fused attention of ``F.multi_head_attention_forward`` (torchvision) and
    ``F.scaled_dot_product_attention`` (timm) is replaced by softmax(Q Kᵀ / √d) V, so that the
    attention lies on the path to the logits. ``need_weights`` of torch would return it off that
    path.

    Attributes:
        maps: float[B,h,T,T] for each block, after dropout.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._scaled_dot_product(*args, **kwargs)
        return func(*args, **kwargs)

    def _multi_head(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: torch.Tensor | None,
        in_proj_bias: torch.Tensor | None,
        bias_k: torch.Tensor | None,
        bias_v: torch.Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: torch.Tensor,
        out_proj_bias: torch.Tensor | None,
        training: bool = True,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        use_separate_proj_weight: bool = False,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """Compute self-attention as ``F.multi_head_attention_forward``, for tokens float[T,B,D]."""
        masks = (key_padding_mask, attn_mask, bias_k, bias_v)
        plain = query is key and key is value and all(mask is None for mask in masks)
        if not plain or in_proj_weight is None or add_zero_attn or use_separate_proj_weight:
            raise UserError(
                "attention can be explained where each block attends to its own tokens, without a "
                "mask; use another explanation for this network, such as input_gradient."
            )
        packed = F.linear(query, in_proj_weight, in_proj_bias)  # [T,B,3D]
        heads = packed.unflatten(-1, (3, num_heads, -1)).permute(2, 1, 3, 0, 4)  # [3,B,h,T,d]
        dropout = dropout_p if training else 0.0
        q, k, v = heads.unbind(0)
        mixed = self._scaled_dot_product(q, k, v, dropout_p=dropout)
        joined = mixed.permute(2, 0, 1, 3).flatten(2)  # [T,B,D]
        return F.linear(joined, out_proj_weight, out_proj_bias), None

    def _scaled_dot_product(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Compute ``F.scaled_dot_product_attention`` for float[B,h,T,d] and keep the attention."""
        if attn_mask is not None or is_causal or enable_gqa:
            raise UserError(
                "attention with a mask cannot be explained; use another explanation for this "
                "network, such as input_gradient."
            )
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        attention = (query * scale @ key.transpose(-2, -1)).softmax(-1)
        if dropout_p > 0:
            attention = F.dropout(attention, dropout_p)
        self.maps.append(attention)
        return attention.to(value.dtype) @ value


@dataclass
class AttentionTrace(Trace):
    """A forward pass with the attention of every block.

    Attributes:
        attention: float[B,h,T,T] for each block, first block first.
    """

    attention: Sequence[torch.Tensor] = field(default_factory=list)


class AttentionExplainer(HeatmapExplainer):
    """Base class of explainers that multiply the attention of all blocks.

    A subclass gives ``block_relevance``.
    """

    requires = "attention"

    def watch(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool,
        track_statistics: bool,
    ) -> AttentionTrace:
        rules = Rules(track_statistics=track_statistics, create_graph=create_graph, to_image=False)
        # a network whose weights are all frozen has a graph only if the image asks for one
        frozen = not any(parameter.requires_grad for parameter in model.parameters())
        leaf = image.detach().requires_grad_() if frozen and not image.requires_grad else image
        recorder = AttentionRecorder()
        with rules.forward(model), recorder:
            logits = model(leaf)
        if not recorder.maps:
            raise UserError(
                f"{self.name}: no attention was found in this network; it must call torch's "
                "multi_head_attention_forward or scaled_dot_product_attention."
            )
        return AttentionTrace(
            self,
            model,
            rules,
            create_graph,
            source=recorder.maps[-1],
            image=image,
            logits=logits,
            attention=recorder.maps,
        )

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        """Return row of the class token in the product of the blocks, float[B,1,h,w].

        With a factor F_l for each block, the product is F_L … F_1. One row of it needs products of
        a vector and a matrix only.
        """
        assert isinstance(trace, AttentionTrace)
        kind = trace.image.device.type
        with (
            torch.inference_mode(False),
            torch.autocast(kind, enabled=False),
            torch.set_grad_enabled(True),
        ):
            blocks = self.block_relevance(trace, target)
            rows, tokens = blocks[0].shape[:2]
            row = torch.zeros(rows, tokens, dtype=blocks[0].dtype, device=blocks[0].device)
            row[:, 0] = 1
            for block in reversed(blocks):
                row = self.propagate(row, block)
        return on_grid(trace.model, row)

    def block_relevance(self, trace: AttentionTrace, target: torch.Tensor) -> list[torch.Tensor]:
        """Return the relevance between tokens of each block, float[B,T,T], first block first."""
        raise NotImplementedError

    def propagate(self, row: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        """Return the row float[B,T] times the factor of a block, I + its relevance."""
        return row + torch.bmm(row[:, None], block)[:, 0]


@EXPLAINERS.register
class GAE(AttentionExplainer):
    """Generic attention explainability of a vision transformer (Chefer et al. 2021).

    Each block contributes Ā = mean over heads of (∂score/∂A ⊙ A)⁺, and the heatmap is the row of
    the class token in (I + Ā_L) … (I + Ā_1), patches only: float[B,1,h,w], non-negative, neither
    resized nor normalised.

    Args:
        constant_gradients: in a loss, whether ∂score/∂A is a constant, so that the gradient flows
            through A alone. The published code of RobustViT does this.
    """

    name = "gae"
    title = "GAE"
    evaluation_order = 15
    options = {
        "constant_gradients": HParam(
            False, doc="in a loss, let the gradient flow through the attention alone"
        )
    }

    def block_relevance(self, trace: AttentionTrace, target: torch.Tensor) -> list[torch.Tensor]:
        through = trace.create_graph and not self.chosen["constant_gradients"]
        score = explained_score(trace.logits, target)
        if not score.requires_grad:
            raise UserError(
                f"{self.name}: the explained score does not depend on the attention: part of the "
                "network is cut off by detach() or no_grad()."
            )
        gradients = torch.autograd.grad(
            score,
            list(trace.attention),
            create_graph=through,
            retain_graph=trace.create_graph,
            allow_unused=True,
        )
        blocks = []
        for attention, gradient in zip(trace.attention, gradients, strict=True):
            kept = attention if trace.create_graph else attention.detach()
            if gradient is None:  # a block that the score does not use
                gradient = torch.zeros_like(kept)
            wide = torch.promote_types(kept.dtype, torch.float32)
            blocks.append((gradient.to(wide) * kept.to(wide)).clamp_min(0).mean(1))
        return blocks


@EXPLAINERS.register
class AttentionRollout(AttentionExplainer):
    """Attention rollout (Abnar & Zuidema 2020): the product of (I + mean attention) / 2.

    float[B,1,h,w], the row of the class token, patches only. It does not depend on the target.
    """

    name = "rollout"
    title = "Rollout"

    def block_relevance(self, trace: AttentionTrace, target: torch.Tensor) -> list[torch.Tensor]:
        kept = [a if trace.create_graph else a.detach() for a in trace.attention]
        return [a.to(torch.promote_types(a.dtype, torch.float32)).mean(1) for a in kept]

    def propagate(self, row: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        # the rows of I + A sum to 2, except under dropout
        total = 1 + block.sum(2, keepdim=True)
        return torch.bmm((row / total[..., 0])[:, None], block)[:, 0] + row / total[..., 0]


def on_grid(model: nn.Module, row: torch.Tensor) -> torch.Tensor:
    """Return the patches of a row of tokens float[B,T] on their grid, float[B,1,h,w].

    The tokens before the patches (class, distillation, registers) are left out. The grid is that
    of ``token_grid`` (our backbones, which name several such tokens by ``prefix_tokens``) or of
    ``patch_embed`` (timm), else a square.

    Raises:
        UserError: the patches do not fill a grid.
    """
    if hasattr(model, "token_grid"):
        height, width = model.token_grid()  # type: ignore[operator]
    elif hasattr(model, "patch_embed"):
        height, width = model.patch_embed.grid_size  # type: ignore[union-attr,misc]
    else:
        height = width = math.isqrt(row.shape[1] - 1)
    first = row.shape[1] - height * width
    known = hasattr(model, "patch_embed") or first == getattr(model, "prefix_tokens", 1)
    if first < 1 or (first > 1 and not known):
        raise UserError(
            f"{row.shape[1]} tokens are not a class token and a grid of patches of "
            f"{height}×{width}; give the network a method token_grid() that returns its rows and "
            "columns."
        )
    return row[:, first:].unflatten(1, (height, width))[:, None]
