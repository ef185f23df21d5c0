"""Distances between the answers of two classifiers."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def softened_divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(t / T) ‖ softmax(s / T)), mean over images (Hinton, Vinyals, Dean 2015).

    The factor keeps the size of the gradient roughly independent of the temperature.

    Args:
        student, teacher: logits float[B,K].
        temperature: T, above 0.
    """
    wanted = F.log_softmax(teacher / temperature, 1)
    given = F.log_softmax(student / temperature, 1)
    return temperature**2 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)
