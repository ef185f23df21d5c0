"""The eleven similarities of heatmaps of the eX2L paper (appendix B.5).

``SIMILARITIES[name](a, b)`` takes two batches of non-negative maps float[B,…] of one shape, such as
Grad-CAM's: ``a`` of the label model, ``b`` of the confounder model. It returns float[B], one value
for each image; larger values mean more similar maps. It is differentiable in both arguments, and
values and gradients are finite for maps that are empty, constant, equal or a single pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

#: Added to every pixel before a map is normalised to a distribution; an empty map becomes uniform.
SMOOTHING = 1e-6
#: Norms and sums below this count as zero.
TINY = 1e-12
#: Below this the square root is replaced by a line from the origin with a finite slope.
ROOT_FROM = 1e-8
#: SSIM's stabilising constants K₁ and K₂ (Wang et al. 2004), for maps scaled to [0, 1] (L = 1).
K1, K2 = 0.01, 0.03

Similarity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def guarded_root(x: torch.Tensor) -> torch.Tensor:
    """Return √x for x ≥ ROOT_FROM, else x / √ROOT_FROM; negative x counts as 0.

    The function is continuous, 0 at 0, and has a finite slope there.
    """
    x = x.clamp_min(0)  # rounding can make a divergence negative
    return torch.where(x < ROOT_FROM, x / ROOT_FROM**0.5, x.clamp_min(ROOT_FROM).sqrt())


def negative_mae(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return minus the mean absolute difference (equation 19)."""
    return -(a - b).abs().flatten(1).mean(1)


def negative_mse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return minus the mean squared difference (equation 20)."""
    return -(a - b).square().flatten(1).mean(1)


def negative_rmse(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return minus the root of the mean squared difference (equation 21).

    Its slope is finite for equal maps.
    """
    return -guarded_root((a - b).square().flatten(1).mean(1))


def soft_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return Σ ab / Σ (a + b − ab) (equation 22; Rahman & Wang 2016), from 0 to 1.

    It is 0 if both maps are empty. Pixels are degrees of membership; a map with values above 1 is
    divided by its maximum.
    """
    a, b = _memberships(a), _memberships(b)
    return _share((a * b).sum(1), (a + b - a * b).sum(1))


def soft_dice(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return 2 Σ ab / Σ (a + b) (equation 34), from 0 to 1.

    Empty maps and values above 1 are treated as in ``soft_iou``.
    """
    a, b = _memberships(a), _memberships(b)
    return _share(2 * (a * b).sum(1), (a + b).sum(1))


def negative_kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return −KL(confounder ‖ label) in nats (equation 23)."""
    return -_divergence(_distribution(b), _distribution(a))


def negative_js_divergence(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return minus the Jensen–Shannon divergence in nats (equation 24), from −log 2 to 0."""
    return -_jensen_shannon(a, b)


def negative_js_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return minus the root of the Jensen–Shannon divergence (equation 25).

    Its slope is finite for equal maps.
    """
    return -guarded_root(_jensen_shannon(a, b))


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cosine of the two maps as vectors (equation 26), from 0 to 1.

    It is 0 if a map is empty.

    The paper first divides each map by its sum, which does not change the cosine.
    """
    return (_unit(a.flatten(1)) * _unit(b.flatten(1))).sum(1)


def ncc(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation of the pixels (equation 27), from −1 to 1.

    It is 0 if a map is constant. A map whose standard deviation is below 1e-5 of its root mean
    square, which is rounding, counts as constant.
    """
    return (_unit(_centred(a)) * _unit(_centred(b))).sum(1)


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity of whole maps (equations 28 to 33), from −1 to 1.

    Exponents 1, C₃ = C₂ / 2, sample (co)variances (n − 1), dynamic range 1. There is one window,
    the whole map: the last convolutional stage has 7 × 7 pixels or fewer, less than Wang's window
    of 11 × 11, and the paper's means and covariances are those of the whole heatmap.
    """
    a, b = a.flatten(1), b.flatten(1)
    mean_a, mean_b = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
    degrees = max(a.shape[1] - 1, 1)
    variances = ((a - mean_a).square() + (b - mean_b).square()).sum(1) / degrees
    covariance = ((a - mean_a) * (b - mean_b)).sum(1) / degrees
    mean_a, mean_b = mean_a[:, 0], mean_b[:, 0]
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a.square() + mean_b.square() + K1**2)
    return luminance * (2 * covariance + K2**2) / (variances + K2**2)


SIMILARITIES: dict[str, Similarity] = {
    "mae": negative_mae,
    "mse": negative_mse,
    "rmse": negative_rmse,
    "iou": soft_iou,
    "kl": negative_kl,
    "js_divergence": negative_js_divergence,
    "js_distance": negative_js_distance,
    "cosine": cosine,
    "ncc": ncc,
    "ssim": ssim,
    "dice": soft_dice,
}


def _memberships(m: torch.Tensor) -> torch.Tensor:
    """Return float[B,n] in [0, 1]; maps without values above 1 are unchanged."""
    m = m.flatten(1)
    return m / m.amax(1, keepdim=True).clamp_min(1)


def _share(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return part / whole; 0 where the whole is 0."""
    return part / torch.where(whole > TINY, whole, torch.ones_like(whole))


def _distribution(m: torch.Tensor) -> torch.Tensor:
    """Return positive float[B,n] with sum 1 in each row."""
    m = m.flatten(1) + SMOOTHING
    return m / m.sum(1, keepdim=True)


def _divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return KL(p ‖ q) of rows without zeros, in nats."""
    return (p * (p.log() - q.log())).sum(1)


def _jensen_shannon(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    p, q = _distribution(a), _distribution(b)
    middle = (p + q) / 2
    return (_divergence(p, middle) + _divergence(q, middle)) / 2


def _centred(m: torch.Tensor) -> torch.Tensor:
    """Return rows minus their mean; exactly 0, with gradient 0, if the difference is rounding."""
    m = m.flatten(1)
    centred = m - m.mean(1, keepdim=True)
    deviation = centred.detach().norm(dim=1, keepdim=True)
    varies = deviation > 1e-5 * m.detach().norm(dim=1, keepdim=True)
    return torch.where(varies, centred, torch.zeros_like(centred))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Divide rows by their Euclidean norms; a row of zeros stays one, with a finite gradient."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norm > TINY, norm, torch.ones_like(norm))
