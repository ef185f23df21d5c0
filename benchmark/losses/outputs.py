"""What answers cost: against the label, and against another classifier's answers."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.losses.precision import exact


def classification_loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, mean over images; of several labels per image the binary one, mean over images and labels.

    Args:
        logits: float[B,K].
        label: int64[B], or float[B,K] of 0 and 1.
    """
    if label.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype))
    return F.cross_entropy(logits, label)


def softened_divergence(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T² · KL(softmax(t / T) ‖ softmax(s / T)), mean over images (Hinton, Vinyals, Dean 2015).

    The factor keeps the size of the gradient roughly independent of the temperature.

    Args:
        student, teacher: logits float[B,K].
        temperature: T, above 0.
    """
    wanted = F.log_softmax(exact(teacher) / temperature, 1)
    given = F.log_softmax(exact(student) / temperature, 1)
    return temperature**2 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)
