"""Placement of labels beside the points of a figure, so that they do not overlap."""

from __future__ import annotations

import itertools

import numpy as np

#: Distances from a point at which a label may stand, in the unit of the coordinates.
_DISTANCES = (5.0, 9.0, 15.0, 24.0, 36.0, 52.0, 72.0)
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
#: Costs of an overlap with another label, a point or a small obstacle, and of leaving the box.
_LABEL = 100.0
_POINT = 100.0
_OBSTACLE = 1.5
_OUTSIDE = 1000.0
_ROUNDS = 4


def place_labels(
    points: np.ndarray,
    sizes: np.ndarray,
    obstacles: np.ndarray,
    box: tuple[float, float, float, float],
) -> np.ndarray:
    """Return where labels stand: near their points, and on no other label and no point if possible.

    Every label takes the place of lowest cost, given the others, in a few rounds.

    Args:
        points: Points that are labelled, float[N,2].
        sizes: Width and height of each label, float[N,2].
        obstacles: Points that labels should not cover if there is room elsewhere, float[M,2].
        box: Left, bottom, right and top of the area for labels.

    Returns:
        The lower left corner of each label, float[N,2].
    """
    candidates = [_candidates(point, size) for point, size in zip(points, sizes, strict=True)]
    fixed = [
        _fixed_costs(found, size, points, obstacles, box)
        for found, size in zip(candidates, sizes, strict=True)
    ]
    best = [int(np.argmin(cost)) for cost in fixed]
    chosen = np.array([candidates[i][k] for i, k in enumerate(best)]).reshape(-1, 2)
    order = np.argsort([-float(cost.min()) for cost in fixed], kind="stable")
    for _, i in itertools.product(range(_ROUNDS), order):
        others = np.arange(len(points)) != i
        overlaps = _overlap(candidates[i], sizes[i], chosen[others], sizes[others]).sum(1)
        chosen[i] = candidates[i][np.argmin(fixed[i] + _LABEL * overlaps)]
    return chosen


def _candidates(point: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return lower left corners of a label in all directions and distances, float[C,2]."""
    found = []
    for distance, (right, up) in itertools.product(_DISTANCES, _DIRECTIONS):
        step = distance / np.hypot(right, up)
        centre = point + np.array([right, up]) * (step + size / 2)
        found.append(centre - size / 2)
    return np.array(found)


def _fixed_costs(
    corners: np.ndarray,
    size: np.ndarray,
    points: np.ndarray,
    obstacles: np.ndarray,
    box: tuple[float, float, float, float],
) -> np.ndarray:
    """Return the costs of places that do not depend on the other labels, float[C]."""
    left, bottom, right, top = box
    outside = (corners < (left, bottom)).any(1) | (corners + size > (right, top)).any(1)
    costs = np.repeat(np.array(_DISTANCES), len(_DIRECTIONS)) * 0.1
    costs += 0.01 * np.tile(np.arange(len(_DIRECTIONS)), len(_DISTANCES))
    costs += _OUTSIDE * outside
    costs += _POINT * _covered(corners, size, points, margin=4.0)
    return costs + _OBSTACLE * _covered(corners, size, obstacles, margin=1.5)


def _covered(
    corners: np.ndarray, size: np.ndarray, points: np.ndarray, margin: float
) -> np.ndarray:
    """Return the number of points that a label at each place covers, int64[C]."""
    if not len(points):
        return np.zeros(len(corners), np.int64)
    low = corners[:, None] - margin
    high = corners[:, None] + size + margin
    return ((points > low) & (points < high)).all(2).sum(1)


def _overlap(
    corners: np.ndarray, size: np.ndarray, others: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return whether a label at each place touches each of the others, bool[C,N]."""
    apart = (corners[:, None] > others + sizes + 1.0) | (corners[:, None] + size + 1.0 < others)
    return ~apart.any(2)
