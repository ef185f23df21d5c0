"""Fine-tuning of a standard classifier: by cross-entropy, RRR or GradMask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from algorithms._fine_tuned import FINE_TUNE_HPARAMS, FineTuned
from algorithms.erm import ERM
from algorithms.rrr import RRR, GradMask
from benchmark.core import ALGORITHMS

#: Variant of all three methods: three images of each class, as in the RobustViT paper.
FEW_MASKS: dict[str, Mapping[str, Any]] = {"few_masks": {"masks_per_class": 3}}


@ALGORITHMS.register
class FineTunedERM(FineTuned, ERM):
    """Cross-entropy, continued from an ERM run: the control of methods that fine-tune."""

    name = "erm_fine_tuned"
    title = "ERM, fine-tuned"
    hparams = FINE_TUNE_HPARAMS
    variants = FEW_MASKS


@ALGORITHMS.register
class FineTunedRRR(FineTuned, RRR):
    """RRR, starting from an ERM run.

    The relevance term has a gradient here. In the code of the RobustViT paper it has none, so that
    the rows "RRR" and "GradMask" of its tables are fine-tuning by cross-entropy.
    """

    name = "rrr_fine_tuned"
    title = "RRR, fine-tuned"
    hparams = {**RRR.hparams, **FINE_TUNE_HPARAMS}
    variants = {**RRR.variants, **FEW_MASKS}


@ALGORITHMS.register
class FineTunedGradMask(FineTuned, GradMask):
    """GradMask, starting from an ERM run; see ``FineTunedRRR``."""

    name = "gradmask_fine_tuned"
    title = "GradMask, fine-tuned"
    hparams = {**GradMask.hparams, **FINE_TUNE_HPARAMS}
    variants = {**GradMask.variants, **FEW_MASKS}
