"""The precision in which a loss is computed."""

from __future__ import annotations

import torch


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in at least float32.

    Under autocast a CPU leaves the logits and their softmax in bf16, and what subtracts two nearly equal numbers of
    eight bits is their rounding: a Kullback–Leibler divergence comes out negative.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
