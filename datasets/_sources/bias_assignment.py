"""What every data set with a chosen bias shares: which confounder each image gets, and what that lets it provide."""

from __future__ import annotations

import numpy as np

from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.seeds import seed_for

#: The splits of a biased data set, in table order.
SPLITS = ("train", "val", "biased", "unbiased", "deceiving")

#: Images whose confounder is that of their class, and the others.
ENVIRONMENTS = ("aligned", "conflicting")


def bias_option(default: float) -> HParam:
    """The option ``bias``: the share of training and validation images that have the confounder of their class."""
    return HParam(
        default,
        doc="share of training images with the confounder of their class",
        low=0.0,
        high=1.0,
    )


def stream(seed: int, *name: object) -> np.random.Generator:
    """Random numbers for one named quantity, so that an option that changes one quantity moves no other."""
    return np.random.default_rng(seed_for(seed, *name))


def tie(rng: np.random.Generator, label: np.ndarray, kinds: int, bias: float) -> np.ndarray:
    """Confounders int64[N]: for a share ``bias`` of each class that of the class, for the rest the others, evenly.

    The shares are exact up to rounding, not drawn image by image; which image gets what is random. With
    0 < bias < 1 every class of two images or more has at least one of each sort, so that no environment is empty.

    Args:
        rng: source of the order.
        label: int64[N] in 0 … kinds − 1; class c belongs to confounder c.
        kinds: number of confounders.
        bias: 1/kinds gives a confounder that is independent of the class.
    """
    confounder = label.copy()
    for c in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == c))
        conflicting = round((1 - bias) * len(rows))
        if 0 < bias < 1 and len(rows) > 1:
            conflicting = min(max(conflicting, 1), len(rows) - 1)
        others = (
            c + 1 + rng.permutation(kinds - 1)
        ) % kinds  # in random order: the remainder favours nobody
        confounder[rows[:conflicting]] = np.resize(others, conflicting)
    return confounder


def confounders(
    seed: int, part: str, label: np.ndarray, kinds: int, bias: float
) -> dict[str, np.ndarray]:
    """The confounder of every image, int64[N], for each split made of the objects of ``part``.

    ``train`` and ``val`` are biased with strength ``bias``. The three test splits show the same objects: ``biased``
    with the confounder of the class, ``unbiased`` with all equally often in each class, ``deceiving`` with that of the
    next class, so that whoever follows the confounder is always wrong. They do not depend on ``bias``.

    Args:
        seed: of the trial.
        part: ``train``, ``val`` or ``test``.
        label: int64[N].
        kinds: number of confounders, which is the number of classes.
        bias: strength in train and val.
    """
    rng = stream(seed, part, "confounder")
    if part != "test":
        return {part: tie(rng, label, kinds, bias)}
    return {
        "biased": label.copy(),
        "unbiased": tie(rng, label, kinds, 1 / kinds),
        "deceiving": (label + 1) % kinds,
    }


def environment_names(bias: float) -> tuple[str, ...]:
    """``aligned`` and ``conflicting``, or nothing where one of them would be empty."""
    return ENVIRONMENTS if 0 < bias < 1 else ()


def environments(
    split: str, label: np.ndarray, confounder: np.ndarray, bias: float
) -> np.ndarray | None:
    """Environment of every image of train and val, int64[N]; None where there is but one, and in the tests."""
    divided = split in ("train", "val") and 0 < bias < 1
    return (label != confounder).astype(np.int64) if divided else None


def provides(bias: float) -> Needs:
    """Everything is known of these data; environments exist only where the bias is neither 0 nor 1."""
    return Needs(
        masks=True,
        confounder=True,
        groups=True,
        environments=0 < bias < 1,
        val_groups=True,
        val_masks=True,
    )
