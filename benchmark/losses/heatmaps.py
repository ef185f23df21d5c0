"""Distances between heatmaps, scaling of heatmaps, and the choice of the class to explain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

#: Added to norms and means in denominators, so that an empty heatmap gives a finite number.
TINY = 1e-10
#: Smallest height and width, in pixels, of the maps that the TEA loss compares.
SMALLEST = 8
#: Sum of absolute attribution below which a map counts as empty in the guidance loss.
EMPTY = 1e-7


def geometric_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return ‖S − T‖₁ / √(‖S‖₁ ‖T‖₁) of each pair of maps (Bassi et al., TEA, equation 1).

    The gradient includes that of the norms. Unlike a distance of maps that are each scaled to norm
    1, it is 0 only for maps that are equal, norms included.

    Args:
        student: float[B,…].
        teacher: float[B,…], of the same shape.

    Returns:
        float[B]; 0 for two empty maps, large but finite for one.
    """
    s, t = student.flatten(1), teacher.flatten(1)
    norms = (s.abs().sum(1) + TINY) * (t.abs().sum(1) + TINY)
    return (s - t).abs().sum(1) / norms.sqrt()


def distances_by_size(
    student: torch.Tensor, teacher: torch.Tensor, smallest: int = SMALLEST
) -> torch.Tensor:
    """Return ``geometric_distance`` at full size and after average pooling by 2, 4, ….

    This is equation 2 of the TEA paper before its mean.

    Args:
        student: float[B,C,H,W].
        teacher: float[B,C,H,W].
        smallest: smallest height and width of pooled maps, in pixels.

    Returns:
        float[S,B] for S sizes.
    """
    distances = [geometric_distance(student, teacher)]
    while min(student.shape[2:]) // 2 >= smallest:
        student, teacher = F.avg_pool2d(student, 2), F.avg_pool2d(teacher, 2)
        distances.append(geometric_distance(student, teacher))
    return torch.stack(distances)


def normed_distance(student: torch.Tensor, teacher: torch.Tensor, order: int) -> torch.Tensor:
    """Return ‖S / ‖S‖ − T / ‖T‖‖ of each pair of maps (TEA, equations C12 and C13).

    The distance does not depend on the norms of the maps.

    Args:
        student: float[B,…].
        teacher: float[B,…], of the same shape.
        order: order of all norms, 1 or 2.

    Returns:
        float[B], from 0 to 2; 1 if one map is empty.
    """
    s = F.normalize(student.flatten(1), p=order, dim=1)
    t = F.normalize(teacher.flatten(1), p=order, dim=1)
    return torch.linalg.vector_norm(s - t, ord=order, dim=1)


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return 1 − cos(S, T) of each pair of maps, taken as vectors.

    Args:
        student: float[B,…].
        teacher: float[B,…], of the same shape.

    Returns:
        float[B], from 0 to 2; 1 if a map is empty.
    """
    return 1 - torch.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1, eps=TINY)


def choose_class(logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Choose the class to explain for each image.

    It is the arg-max with probability ½, else one of the other classes with equal probabilities.
    One heatmap per image and step is enough, since all classes are explained in the course of
    training (TEA, section 4.3; ISNet's stochastic form).

    Args:
        logits: float[B,K] with K ≥ 2.
        generator: source of the random numbers, on the device of the logits; None for torch's
            default generator.

    Returns:
        int64[B].
    """
    rows, classes = logits.shape
    draws = torch.rand(2, rows, device=logits.device, generator=generator)
    # distance from the arg-max in the cyclic order of the classes
    step = 1 + (draws[1] * (classes - 1)).long().clamp_max(classes - 2)
    return (logits.argmax(1) + step * (draws[0] >= 0.5)) % classes


def average_pool(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return what ``F.adaptive_avg_pool2d`` returns.

    Its backward pass has no deterministic form on a GPU. There two matrix products compute the same
    up to rounding.

    Args:
        maps: float[B,C,H,W].
        size: (h, w) of the result.
    """
    if maps.device.type == "cpu":
        return F.adaptive_avg_pool2d(maps, size)
    rows, columns = (
        pooling_matrix(old, new).to(maps, non_blocking=True)
        for old, new in zip(maps.shape[2:], size, strict=True)
    )
    return rows @ maps @ columns.T


def pooling_matrix(old: int, new: int) -> torch.Tensor:
    """Return float64[new,old], the weight of each input in each mean of an average pooling.

    Mean i is that of the inputs from floor(i · old / new) to ceil((i + 1) · old / new) − 1.
    """
    at = torch.arange(old)
    start = torch.arange(new) * old // new
    stop = -(-(torch.arange(new) + 1) * old // new)
    inside = (at >= start[:, None]) & (at < stop[:, None])
    return inside.double() / (stop - start)[:, None]


def foreground_mean(heatmap: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of a map over the foreground and all channels, float[B].

    It is 0 for an image without foreground.

    Args:
        heatmap: float[B,C,H,W].
        mask: bool[B,1,H,W].
    """
    inside = (heatmap * mask).flatten(1).sum(1)
    return inside / (mask.flatten(1).sum(1) * heatmap.shape[1]).clamp_min(1)


def scaled_to_one(cam: torch.Tensor) -> torch.Tensor:
    """Divide each non-negative map float[B,1,h,w] by its maximum; a map of zeros stays one.

    The result is comparable with masks of zeros and ones.
    """
    return cam / cam.amax(dim=(1, 2, 3), keepdim=True).clamp_min(TINY)


def enlarged_to_unit(heatmap: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Enlarge each map to the size of the image, then scale it linearly to [0, 1].

    The gradient includes that of the smallest and the largest value.

    Args:
        heatmap: float[B,1,h,w].
        size: (H, W).

    Returns:
        float[B,1,H,W]; zeros for a map that has one value everywhere.
    """
    # compared before the enlargement, whose rounding makes a constant map uneven
    flat = heatmap.amax(dim=(1, 2, 3), keepdim=True) <= heatmap.amin(dim=(1, 2, 3), keepdim=True)
    large = F.interpolate(heatmap, tuple(size), mode="bilinear", align_corners=False)
    low = large.amin(dim=(1, 2, 3), keepdim=True)
    span = large.amax(dim=(1, 2, 3), keepdim=True) - low
    scaled = (large - low) / torch.where(flat, torch.ones_like(span), span)
    return scaled.masked_fill(flat, 0)


def guidance_loss(attribution: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the share of the absolute attribution outside the mask, float[B].

    Where a map is empty (its sum of absolute values is below 1e-7) the loss is 1 minus the sum
    inside the mask, so that it has a gradient.

    Args:
        attribution: float[B,C,H,W].
        mask: bool[B,1,H,W] or float[B,1,H,W] in [0, 1], where evidence is expected.
    """
    size = attribution.abs()
    inside = (size * mask).flatten(1).sum(1)
    total = size.flatten(1).sum(1)
    empty = total < EMPTY
    return 1 - inside / torch.where(empty, torch.ones_like(total), total)
