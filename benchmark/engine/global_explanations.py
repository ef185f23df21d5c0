"""Explanations of whole classes, for methods whose model has them."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.engine.explanations import ExplanationError, explaining


def global_maps(algorithm: Algorithm) -> dict[str, np.ndarray]:
    """Return the global explanations of a method, summed over channels.

    Returns:
        float32[K,H,W] for each name; nothing for methods without global explanations, and if they
        cannot be computed, which is printed.
    """
    try:
        with explaining(algorithm), torch.no_grad():
            found = algorithm.global_explanations()
            return {name: maps.sum(1).float().cpu().numpy() for name, maps in found.items()}
    except ExplanationError as error:
        print(f"no global explanations: {error}", file=sys.stderr)
        return {}


def global_arrays(maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of global_explanations.npz.

    Args:
        maps: float32[K,H,W] for each name, of the same shape.

    Returns:
        ``name`` of each of M kinds of maps, ``map`` float16[M,K,H,W], divided by their largest
        absolute value, and these values as ``scale`` float32[M,K]. Pixels that are not finite are
        0.
    """
    stacked = np.nan_to_num(np.stack(list(maps.values())), nan=0.0, posinf=0.0, neginf=0.0)
    scale = np.abs(stacked).max((2, 3))
    divided = stacked / np.where(scale > 0, scale, 1.0)[:, :, None, None]
    return {
        "name": np.array(list(maps)),
        "map": divided.astype(np.float16),
        "scale": scale.astype(np.float32),
    }
