"""What a model answers on a split: confusion counts, and scores where they are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.exceptions import NonFiniteError
from benchmark.models.base import pixels_inside

#: Images per forward pass at most, and pixels: large images would need more memory than training does.
MAX_BATCH = 500
MAX_PIXELS = 500 * 128 * 128


@dataclass(frozen=True)
class Evaluation:
    """``counts`` int64[confounders, labels, predictions]; ``score`` float32[N,K] (logits), ``objective``: or None.

    Multi-label: counts int64[K, confounders, 2, 2], for every label a table of its own: is it there, was it predicted.
    """

    counts: np.ndarray
    score: np.ndarray | None = None
    objective: float | None = None


def evaluate(
    algorithm: Algorithm,
    split: DeviceSplit,
    num_classes: int,
    num_confounders: int,
    *,
    scores: bool = False,
    objective: bool = False,
) -> Evaluation:
    """Run the model over a split in evaluation mode, and leave it in the mode in which it was.

    Args:
        split: the images; without confounder labels the counts have one confounder row.
        scores: keep the logits.
        objective: also the method's own objective, averaged over images.

    Raises:
        NonFiniteError: a logit or the objective is NaN or infinite.
    """
    rows = num_confounders if split.confounder is not None else 1
    shape = (num_classes, rows, 2, 2) if split.label.ndim == 2 else (rows, num_classes, num_classes)
    total = torch.zeros(math.prod(shape), dtype=torch.int64, device=split.device)
    finite = torch.ones((), dtype=torch.bool, device=split.device)
    kept, objectives = [], []
    training = algorithm.training
    algorithm.eval()
    try:
        for batch in split.batches(images_per_pass(split, algorithm)):
            with torch.inference_mode(), algorithm.setting.autocast():
                logits = algorithm.predict(batch.image).float()
            total += torch.bincount(cells(batch, logits, rows).flatten(), minlength=len(total))
            finite &= logits.isfinite().all()
            if scores:
                kept.append(logits.cpu())
            if objective:
                with algorithm.setting.autocast():
                    value = algorithm.objective(
                        batch.strip(algorithm.needs.on_validation())
                    ).detach()
                objectives.append(value.double() * len(batch))
        if not bool(finite):
            raise NonFiniteError(algorithm.current_step, f"logits on split {split.name}")
        mean = float(sum(objectives)) / split.size if objective else None
        if mean is not None and not math.isfinite(mean):
            raise NonFiniteError(algorithm.current_step, f"objective on split {split.name}")
    finally:
        algorithm.train(training)
    return Evaluation(
        counts=total.view(shape).cpu().numpy(),
        score=torch.cat(kept).numpy() if scores else None,
        objective=mean,
    )


def cells(batch: Batch, logits: torch.Tensor, rows: int) -> torch.Tensor:
    """Where in the flattened counts every answer belongs, int64[B], or [B,K] with several labels (logit above 0: yes).

    Args:
        logits: float[B,K]. rows: confounders, or 1 where they are unknown.
    """
    confounder = torch.zeros_like(batch.index) if batch.confounder is None else batch.confounder
    classes = logits.shape[1]
    if batch.label.ndim == 1:
        return (confounder * classes + batch.label) * classes + logits.argmax(1)
    of_label = torch.arange(classes, device=logits.device) * rows + confounder[:, None]
    return (of_label * 2 + batch.label.long()) * 2 + (logits > 0)


def images_per_pass(
    split: DeviceSplit, module: torch.nn.Module, most: int = 0, pixels: int = 0
) -> int:
    """How many images of a split go through a network at once; a matter of memory and speed.

    Args:
        module: what holds the network.
        most, pixels: bounds on the images and on their pixels as the network sees them; 0: of a pass without gradients.
    """
    each = pixels_inside(module, *split.arrays.image.shape[-2:])
    return max(min(most or MAX_BATCH, (pixels or MAX_PIXELS) // each), 1)
