"""Store the values of Quantus that ``tests/explain/test_quantus_values.py`` compares with ours.

Run it where Quantus 0.5.3 is installed, which removes whole pixels. Later versions treat the
channels of a pixel as features of their own::

    python tests/benchmarks/quantus_values.py tests/explain/quantus_values.npz
"""

from __future__ import annotations

import builtins
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

IMAGES, CHANNELS, SIDE, CLASSES = 3, 3, 14, 3
RUNS, SUBSET = 12, 30


class Network(nn.Module):
    """A smooth function of the image with one logit for each class."""

    def __init__(self, weight: np.ndarray) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        z = image.flatten(1).double() @ self.weight.T
        return z + 0.3 * torch.sin(3 * z)


def inputs() -> dict[str, np.ndarray]:
    """Return images, maps without ties, masks, weights and classes."""
    rng = np.random.default_rng(16)
    image = rng.normal(size=(IMAGES, CHANNELS, SIDE, SIDE)).astype(np.float32)
    relevance = rng.random((IMAGES, SIDE, SIDE))
    relevance[0, 4, 5] = 1.2
    relevance[1] **= 6
    relevance[2] += 0.5
    mask = np.zeros((IMAGES, SIDE, SIDE), bool)
    for i in range(IMAGES):
        mask[i, 1 + i : 8 + i, 2 : 11 - i] = True
    weight = (rng.normal(size=(CLASSES, CHANNELS * SIDE**2)) / SIDE).astype(np.float32)
    return {
        "image": image.astype(np.float64),
        "relevance": relevance,
        "mask": mask,
        "weight": weight.astype(np.float64),
        "target": np.arange(IMAGES) % CLASSES,
    }


def main(path: Path) -> None:
    """Write inputs and values to a file."""
    quantus = importlib.import_module("quantus")
    for name in ("faithfulness_estimate", "faithfulness_correlation"):
        module: Any = importlib.import_module(f"quantus.metrics.faithfulness.{name}")
        module.float = lambda value: builtins.float(np.ravel(value)[0])  # for numpy 2
    given = inputs()
    network = Network(given["weight"]).double().eval()

    def values(metric: Any) -> np.ndarray:
        found: list[float] = []
        for i in range(IMAGES):  # one by one, since Quantus may normalise over a batch
            part = slice(i, i + 1)
            result = metric(
                model=network,
                x_batch=given["image"][part],
                y_batch=given["target"][part],
                a_batch=given["relevance"][part, None],
                s_batch=given["mask"][part, None],
                device="cpu",
            )
            found += [float(value) for value in np.ravel(result)]
        return np.array(found)

    common = {"disable_warnings": True, "display_progressbar": False, "abs": False}
    plain = {**common, "normalise": False}
    expected = {
        "rank": values(quantus.RelevanceRankAccuracy(**plain)),
        "mass": values(quantus.RelevanceMassAccuracy(**plain)),
        "pointing": values(quantus.PointingGame(**plain)),
        "complexity": values(quantus.Complexity(**plain)),
        "sparseness": values(quantus.Sparseness(normalise=True, **common)),
        "faithfulness": values(
            quantus.FaithfulnessEstimate(features_in_step=4, perturb_baseline="black", **plain)
        ),
    }
    drawn: list[np.ndarray] = []
    choice = np.random.choice
    np.random.choice = lambda *args, **kwargs: drawn.append(choice(*args, **kwargs)) or drawn[-1]
    np.random.seed(3)
    correlation = quantus.FaithfulnessCorrelation(
        nr_runs=RUNS,
        subset_size=SUBSET,
        perturb_baseline="black",
        return_aggregate=False,
        **plain,
    )
    expected["faithfulness_correlation"] = values(correlation)
    np.savez_compressed(
        path,
        version=np.array(quantus.__version__),
        subsets=np.stack(drawn).reshape(IMAGES, RUNS, SUBSET),
        **given,
        **{f"expected/{name}": value for name, value in expected.items()},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
