"""TokenCut: a foreground mask from the features of image patches, without annotation."""

from __future__ import annotations

import numpy as np

#: Similarity above which two patches are connected (the paper's).
THRESHOLD = 0.2
#: Weight of all other edges (the paper's).
WEAK_EDGE = 1e-5
#: Differences of the eigenvector below this share of its largest entry count as ties.
TIE = 1e-6


def tokencut(
    features: np.ndarray, grid: tuple[int, int], *, threshold: float = THRESHOLD
) -> np.ndarray:
    """Separate the salient object of an image from its background (Wang et al. 2022, TokenCut).

    Patches are the nodes of a graph, whose edges have weight 1 where the cosine similarity of two
    features exceeds ``threshold`` and 1e-5 elsewhere. The second-smallest generalised eigenvector
    of the normalised cut, (D − W) v = λ D v, is cut at its mean. The foreground is the
    4-connected component of the patch with the largest |v|, in the part that contains it.

    A graph with two weights often has ties of |v|. Of the patches that tie, the one in the largest
    component is taken, and of equal components the one with the lowest index.

    Args:
        features: float[h·w, D], row by row, such as the keys of the last block of a
            self-supervised vision transformer, heads concatenated, without the class token.
        grid: (h, w), rows and columns of patches.
        threshold: similarity above which patches are connected.

    Returns:
        bool[h,w], True on the foreground; all False where no cut exists, since all patches are
        alike.

    Raises:
        ValueError: the features do not fill the grid, or are not finite.
    """
    height, width = grid
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or len(features) != height * width:
        raise ValueError(
            f"the features have shape {list(features.shape)}, expected [{height * width}, D] for a "
            f"grid of {height}×{width}"
        )
    if not np.isfinite(features).all():
        raise ValueError("the features have values that are not finite")
    vector = second_eigenvector(features, threshold)
    if vector is None:
        return np.zeros(grid, dtype=bool)
    return component_of_seed(vector.reshape(grid))


def second_eigenvector(features: np.ndarray, threshold: float) -> np.ndarray | None:
    """Return the second-smallest generalised eigenvector of the graph, float64[n].

    None if the graph has one weight only, so that every cut is as good as any other.
    """
    if len(features) < 2:
        return None
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(norms > 0, norms, 1.0)
    weights = np.where(unit @ unit.T > threshold, 1.0, WEAK_EDGE)
    off_diagonal = weights[~np.eye(len(weights), dtype=bool)]
    if off_diagonal.min() == off_diagonal.max():
        return None
    degree = np.diag(weights.sum(axis=1))
    import scipy.linalg  # It starts threads, which break later forks.

    _, vectors = scipy.linalg.eigh(degree - weights, degree, subset_by_index=[1, 1])
    found: np.ndarray = vectors[:, 0]
    return found


def component_of_seed(vector: np.ndarray) -> np.ndarray:
    """Return the component of the patch with the largest absolute value, bool[h,w].

    The sign of an eigenvector is arbitrary and does not change the result.

    Args:
        vector: float64[h,w].
    """
    import scipy.ndimage  # Imported here for the same reason.

    part = vector > vector.mean()
    size = np.abs(vector)
    candidates = np.flatnonzero(size.ravel() >= size.max() * (1 - TIE))
    best = np.zeros(vector.shape, dtype=bool)
    for side in (part, ~part):
        components, _ = scipy.ndimage.label(side)
        labels = components.ravel()
        sizes = np.bincount(labels)
        inside = candidates[labels[candidates] > 0]
        if not len(inside):
            continue
        seed = inside[np.argmax(sizes[labels[inside]])]
        component = components == labels[seed]
        if _is_better(component, best):
            best = component
    return best


def _is_better(component: np.ndarray, than: np.ndarray) -> bool:
    """Return True if a component is larger, or as large and earlier in reading order."""
    if component.sum() != than.sum():
        return bool(component.sum() > than.sum())
    return bool(np.flatnonzero(component)[0] < np.flatnonzero(than)[0])
