"""Distances between heatmaps, their scale, and the choice of the class that a heatmap explains."""

from __future__ import annotations

import torch
from torch.nn import functional as F

#: Added to norms and means that divide, so that an empty heatmap gives a finite number.
TINY = 1e-10
#: The coarsest maps that the distance of TEA compares have at least this many pixels a side.
SMALLEST = 8


def geometric_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """‖S − T‖₁ / √(‖S‖₁ ‖T‖₁) of each pair (Bassi et al., TEA, equation 1); its gradient goes through the norms too.

    Unlike a distance of maps that are each scaled to norm 1, it is 0 only where the maps are equal, norms included.

    Args:
        student, teacher: float[B,…], of one shape.

    Returns:
        float[B]; 0 for two empty maps, large but finite for one.
    """
    s, t = student.flatten(1), teacher.flatten(1)
    norms = (s.abs().sum(1) + TINY) * (t.abs().sum(1) + TINY)
    return (s - t).abs().sum(1) / norms.sqrt()


def distances_by_size(
    student: torch.Tensor, teacher: torch.Tensor, smallest: int = SMALLEST
) -> torch.Tensor:
    """``geometric_distance`` at full size and average-pooled by 2, 4, … (TEA, equation 2, before its mean): float[S,B].

    Args:
        student, teacher: float[B,C,H,W], of one shape.
        smallest: the coarsest maps have at least this many pixels a side.
    """
    distances = [geometric_distance(student, teacher)]
    while min(student.shape[2:]) // 2 >= smallest:
        student, teacher = F.avg_pool2d(student, 2), F.avg_pool2d(teacher, 2)
        distances.append(geometric_distance(student, teacher))
    return torch.stack(distances)


def normed_distance(student: torch.Tensor, teacher: torch.Tensor, order: int) -> torch.Tensor:
    """‖S / ‖S‖ − T / ‖T‖‖ of each pair, all norms of one order (TEA, equations C12 and C13); blind to the maps' sizes.

    Args:
        student, teacher: float[B,…], of one shape.
        order: 1 or 2.

    Returns:
        float[B], from 0 to 2; 1 where one map is empty.
    """
    s, t = (torch.nn.functional.normalize(m.flatten(1), p=order, dim=1) for m in (student, teacher))
    return torch.linalg.vector_norm(s - t, ord=order, dim=1)


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 − cos(S, T) of each pair, the maps taken as vectors: from 0 to 2, and 1 where a map is empty.

    Args:
        student, teacher: float[B,…], of one shape.

    Returns:
        float[B].
    """
    return 1 - torch.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1, eps=TINY)


def choose_class(logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """The class to explain, for every image: the arg-max with probability ½, else one of the others, each as likely.

    One heatmap per image and step is enough, since all classes are explained as training goes on (TEA, section 4.3;
    ISNet's stochastic form).

    Args:
        logits: float[B,K] with K ≥ 2.
        generator: of the draws, on the device of the logits; None for torch's own.

    Returns:
        int64[B].
    """
    rows, classes = logits.shape
    draws = torch.rand(2, rows, device=logits.device, generator=generator)
    step = 1 + (draws[1] * (classes - 1)).long().clamp_max(
        classes - 2
    )  # how far round the circle of classes
    return (logits.argmax(1) + step * (draws[0] >= 0.5)) % classes


def foreground_mean(heatmap: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of a map over the foreground and all channels, float[B]; 0 for an image without foreground.

    Args:
        heatmap: float[B,C,H,W].
        mask: bool[B,1,H,W].
    """
    inside = (heatmap * mask).flatten(1).sum(1)
    return inside / (mask.flatten(1).sum(1) * heatmap.shape[1]).clamp_min(1)


def scaled_to_one(cam: torch.Tensor) -> torch.Tensor:
    """Each map float[B,1,h,w] ≥ 0 divided by its maximum, as masks of zeros and ones presuppose; 0 stays 0."""
    return cam / cam.amax(dim=(1, 2, 3), keepdim=True).clamp_min(TINY)
