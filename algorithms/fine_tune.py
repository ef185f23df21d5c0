"""Fine-tuning of a standard classifier: by cross-entropy, RRR or GradMask."""

from __future__ import annotations

from algorithms._fine_tuned import FineTuned
from algorithms.erm import ERM
from algorithms.rrr import RRR, GradMask
from benchmark.core import ALGORITHMS, HParam, LogUniform

#: AdamW at a small learning rate, as for RobustViT, whose baselines these methods are.
FINE_TUNE_HPARAMS = {
    "optimizer": HParam("adamw", choices=("adam", "adamw", "sgd"), doc="optimiser"),
    "lr": HParam(
        3e-4,
        LogUniform(-4.5, -3),
        "learning rate",
        low=0.0,
        high=1e3,
        large=HParam(3e-6, LogUniform(-6.3, -5.3), low=0.0, high=1e3),
    ),
    "weight_decay": HParam(1e-4, doc="weight decay", low=0.0, high=1e3),
}


@ALGORITHMS.register
class FineTunedERM(FineTuned, ERM):
    """Cross-entropy, continued from an ERM run: the control of methods that fine-tune."""

    name = "erm_fine_tuned"
    hparams = FINE_TUNE_HPARAMS
    variants = {}


@ALGORITHMS.register
class FineTunedRRR(FineTuned, RRR):
    """RRR, starting from an ERM run.

    The relevance term has a gradient here. In the code of the RobustViT paper it has none, so that
    the rows "RRR" and "GradMask" of its tables are fine-tuning by cross-entropy.
    """

    name = "rrr_fine_tuned"
    hparams = {**RRR.hparams, **FINE_TUNE_HPARAMS}


@ALGORITHMS.register
class FineTunedGradMask(FineTuned, GradMask):
    """GradMask, starting from an ERM run; see ``FineTunedRRR``."""

    name = "gradmask_fine_tuned"
    hparams = {**GradMask.hparams, **FINE_TUNE_HPARAMS}
