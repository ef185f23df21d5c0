"""The precision in which a loss is computed."""

from __future__ import annotations

import torch


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in at least float32.

    Under autocast on a CPU, logits and their softmax stay in bf16. The difference of two nearly
    equal numbers with eight bits is mostly rounding, which can make a Kullback–Leibler divergence
    negative.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
