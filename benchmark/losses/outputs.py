"""Losses of logits: against labels, and against the logits of another classifier."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.losses.precision import exact


def classification_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy, averaged over images.

    With several labels per image it is ``binary_loss``.

    Args:
        logits: float[B,K].
        label: int64[B], or float[B,K] of 0 and 1, NaN where a label is not known.
    """
    if label.is_floating_point():
        return binary_loss(logits, label)
    return F.cross_entropy(logits, label)


def binary_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy, averaged over the known labels of all images.

    It is 0 if no label is known.

    Args:
        logits: float[B,K].
        label: float[B,K] of 0 and 1, NaN where a label is not known.
    """
    known = ~label.isnan()
    target = label.nan_to_num(0.0).to(logits.dtype)
    mean = F.binary_cross_entropy_with_logits(logits, target, weight=known.to(logits.dtype))
    return mean * (known.numel() / known.sum().clamp_min(1))


def softened_divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return T² · KL(softmax(t / T) ‖ softmax(s / T)), averaged over images.

    Source: Hinton, Vinyals, Dean 2015.

    The factor T² keeps the size of the gradient roughly independent of the temperature.

    Args:
        student: logits float[B,K].
        teacher: logits float[B,K].
        temperature: T, above 0.
    """
    log_t = F.log_softmax(exact(teacher) / temperature, 1)
    log_s = F.log_softmax(exact(student) / temperature, 1)
    return temperature**2 * F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)
