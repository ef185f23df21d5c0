"""Weights in the layout of DINO, DeiT and timm for the ``vit`` backbones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from benchmark.core.errors import UserError
from benchmark.core.registry import BACKBONES
from benchmark.models.vit import VisionTransformer

#: Tables in which training scripts wrap the weights: DINO's, DeiT's and MAE's, others'.
_WRAPPERS = ("teacher", "model", "state_dict")
#: Prefixes of names in such tables.
_PREFIXES = ("module.", "backbone.")
#: Parts that masks and features do not need: heads, and what serves pre-training only.
_UNUSED = re.compile(
    r"(head|head_dist|fc_norm|pre_logits|mask_token|decoder\w*|projection_head|proto\w*)(\.|$)"
)
#: Names outside the blocks, and in a block: those of the file and torchvision's.
_OUTSIDE = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj": "conv_proj",
    "norm": "encoder.ln",
}
_INSIDE = {
    "norm1": "ln_1",
    "attn.qkv": "self_attention.in_proj",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def vit_with_weights(
    backbone: str, options: Mapping[str, Any], weights: Any, side: int
) -> VisionTransformer:
    """Return a vision transformer with weights in the layout of DINO, without its last layer.

    Args:
        backbone: Name of a ``vit`` backbone of the same shape, such as ``"vit_s_16"``.
        options: Its options, such as ``{"patch": 8, "dim": 384}`` of ``vit``.
        weights: What ``torch.load`` read: a state dict, or a table that contains one.
        side: Height and width of the images. Position embeddings are interpolated to it.

    Returns:
        The network in evaluation mode.

    Raises:
        UserError: If the backbone is no vision transformer, or the weights do not fit it.
    """
    from torchvision.models.vision_transformer import interpolate_embeddings

    kind = BACKBONES.get(backbone)
    if not issubclass(kind, VisionTransformer):
        raise UserError(f"{backbone} is no vision transformer; use vit_s_16 or vit_b_16.")
    network = kind(1, (3, side, side), **options)
    state = torchvision_names(weights)
    patch = network.shape(network.chosen).patch
    try:
        fitted: Any = interpolate_embeddings(side, patch, state)  # type: ignore[arg-type]
        network.net.load_state_dict(fitted)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(
            f"the weights do not fit {backbone} ({reason}); choose a backbone and options of the "
            "same patch, width, depth and heads."
        ) from None
    return network.eval()


def torchvision_names(weights: Any) -> dict[str, torch.Tensor]:
    """Return a state dict in the layout of DINO under torchvision's names, without its last layer.

    Raises:
        UserError: If it is no such state dict.
    """
    state = {}
    unknown = []
    for name, value in _plain_names(weights).items():
        if _UNUSED.match(name) or not isinstance(value, torch.Tensor):
            continue
        new_name = _new_name(name)
        if new_name is None:
            unknown.append(name)
        else:
            state[new_name] = value
    if unknown or "class_token" not in state:
        found = unknown[0] if unknown else "no cls_token"
        raise UserError(
            f"the weights are not in the layout of DINO (found {found}), expected cls_token, "
            "pos_embed, patch_embed.proj, blocks.0.attn.qkv and so on."
        )
    return state


def last_layer(weights: Any) -> dict[str, torch.Tensor]:
    """Return ``weight`` and ``bias`` of the last layer of a state dict; empty if it has none.

    Raises:
        UserError: If there is no state dict.
    """
    state = _plain_names(weights)
    found = {part: state.get(f"head.{part}") for part in ("weight", "bias")}
    return {part: value for part, value in found.items() if isinstance(value, torch.Tensor)}


def _plain_names(weights: Any) -> dict[str, Any]:
    """Return the innermost table of a file, without the prefixes of its names."""
    for name in _WRAPPERS:
        if isinstance(weights, Mapping) and isinstance(weights.get(name), Mapping):
            weights = weights[name]
    if not isinstance(weights, Mapping):
        raise UserError("the file contains no state dict, expected one in the layout of DINO.")
    plain = {}
    for key, value in weights.items():
        name = str(key)
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        plain[name] = value
    return plain


def _new_name(name: str) -> str | None:
    """Return torchvision's name of a parameter, or None if it is unknown."""
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block is not None:
        part = _INSIDE.get(block[2])
        if part is None:
            return None
        # In torchvision the joint projection is a parameter and not a layer.
        joint = "_" if part.endswith("in_proj") else "."
        return f"encoder.layers.encoder_layer_{block[1]}.{part}{joint}{block[3]}"
    stem, _, ending = name.rpartition(".")
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    return f"{_OUTSIDE[stem]}.{ending}" if stem in _OUTSIDE else None
