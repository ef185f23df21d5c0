"""Keys of the last block of a vision transformer: the features of its patches for TokenCut."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core.errors import UserError
from benchmark.models.vit import VisionTransformer


def last_keys(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return the keys of the attention of the last block, heads concatenated.

    Args:
        network: A ``vit`` backbone. Its mode is kept.
        image: float[B,C,H,W], normalised.

    Returns:
        float[B,h·w,D], row by row, without the class token.

    Raises:
        UserError: If the network is no vision transformer.
    """
    if not isinstance(network, VisionTransformer):
        raise UserError(
            f"{getattr(network, 'name', type(network).__name__)} is no vision transformer, whose "
            "keys masks are made from; use a run with the backbone vit, vit_s_16 or vit_b_16."
        )
    attention: Any = network.net.encoder.layers[-1].self_attention
    inputs: list[torch.Tensor] = []
    handle = attention.register_forward_pre_hook(
        lambda module, positional, named: inputs.append(
            positional[0] if positional else named["query"]
        ),
        with_kwargs=True,
    )
    width = attention.embed_dim
    with torch.no_grad():
        try:
            network.tokens(image)
        finally:
            handle.remove()
        weight = attention.in_proj_weight[width : 2 * width]
        bias = attention.in_proj_bias[width : 2 * width]
        return F.linear(inputs[0][:, 1:], weight, bias)
