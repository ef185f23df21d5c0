"""Assignment of confounders at a chosen bias, shared by all data sets that have such an option."""

from __future__ import annotations

import numpy as np

from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.seeds import seed_for

#: The splits of a biased data set, in the order of tables.
SPLITS = ("train", "val", "biased", "unbiased", "deceiving")

#: Environments: images with the confounder of their class, and all others.
ENVIRONMENTS = ("aligned", "conflicting")


def bias_option(default: float) -> HParam:
    """Return the option ``bias``, the share of images that have the confounder of their class."""
    return HParam(
        default,
        doc="share of training images with the confounder of their class",
        low=0.0,
        high=1.0,
    )


def random_stream(seed: int, *name: object) -> np.random.Generator:
    """Return a generator for one named quantity.

    With separate streams, an option that changes one quantity leaves all others unchanged.

    Args:
        seed: The seed of the trial.
        *name: The name of the quantity.
    """
    return np.random.default_rng(seed_for(seed, *name))


def assign_confounders(
    rng: np.random.Generator, label: np.ndarray, num_confounders: int, bias: float
) -> np.ndarray:
    """Give a share ``bias`` of each class its own confounder, and the rest the others, evenly.

    The shares are exact up to rounding. Which images are aligned is random. If 0 < bias < 1, every
    class of at least two images has aligned and conflicting ones, so no environment is empty.

    Args:
        rng: The generator of the order.
        label: int64[N] in 0 … num_confounders − 1; class c belongs to confounder c.
        num_confounders: The number of confounders.
        bias: The share; 1/num_confounders makes the confounder independent of the class.

    Returns:
        int64[N].
    """
    confounder = label.copy()
    for c in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == c))
        conflicting = num_conflicting(len(rows), bias)
        # The order is random, so that the remainder favours no confounder.
        others = (c + 1 + rng.permutation(num_confounders - 1)) % num_confounders
        confounder[rows[:conflicting]] = np.resize(others, conflicting)
    return confounder


def num_conflicting(count: int, bias: float) -> int:
    """Return how many of ``count`` images do not have the confounder of their class."""
    conflicting = round((1 - bias) * count)
    if 0 < bias < 1 and count > 1:
        return min(max(conflicting, 1), count - 1)
    return conflicting


def confounders_of_splits(
    seed: int, part: str, label: np.ndarray, num_confounders: int, bias: float
) -> dict[str, np.ndarray]:
    """Assign confounders to all splits that are made of the objects of a part.

    ``train`` and ``val`` have the given bias. The test splits show the same objects: in ``biased``
    with the confounder of their class, in ``unbiased`` with all confounders equally often in each
    class, and in ``deceiving`` with that of the next class, so that a model that follows the
    confounder is always wrong. The tests do not depend on ``bias``.

    Args:
        seed: The seed of the trial.
        part: ``train``, ``val`` or ``test``.
        label: int64[N].
        num_confounders: The number of confounders, which equals the number of classes.
        bias: The bias of train and val.

    Returns:
        The confounder of every image, int64[N], by split.
    """
    rng = random_stream(seed, part, "confounder")
    if part != "test":
        return {part: assign_confounders(rng, label, num_confounders, bias)}
    return {
        "biased": label.copy(),
        "unbiased": assign_confounders(rng, label, num_confounders, 1 / num_confounders),
        "deceiving": (label + 1) % num_confounders,
    }


def environment_names(bias: float) -> tuple[str, ...]:
    """Return ``aligned`` and ``conflicting``, or nothing if one of them would be empty."""
    return ENVIRONMENTS if 0 < bias < 1 else ()


def bias_environments(
    split: str, label: np.ndarray, confounder: np.ndarray, bias: float
) -> np.ndarray | None:
    """Return the environments ``aligned`` (0) and ``conflicting`` (1) of a split's images.

    Returns:
        int64[N], or None for tests and if there is a single environment.
    """
    if split not in ("train", "val") or not environment_names(bias):
        return None
    return (label != confounder).astype(np.int64)


def provided_annotations(bias: float, *, masks: bool = True) -> Needs:
    """Return the annotations of a data set with known confounders.

    Args:
        bias: The bias; environments are provided only if it is neither 0 nor 1.
        masks: True if the data set has masks.
    """
    return Needs(
        masks=masks,
        confounder=True,
        groups=True,
        environments=bool(environment_names(bias)),
        val_groups=True,
        val_masks=masks,
    )
