"""Base class of methods that fine-tune a standard classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.core import (
    DATASETS,
    Algorithm,
    DatasetInfo,
    HParam,
    LogUniform,
    RunSpec,
    Setting,
    Upstream,
    seed_for,
)

#: Value of ``start_bias`` for a start that is trained on the data of the method itself.
SAME_BIAS = -1.0

#: AdamW at a small learning rate, as for RobustViT, whose baselines the other methods are.
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
    "start_bias": HParam(
        SAME_BIAS,
        doc="bias of the training data of the ERM start; -1: that of the data themselves",
        low=SAME_BIAS,
        high=1.0,
        omit_default=True,
    ),
    "masks_per_class": HParam(
        0,
        doc="training images of each class that are used, with their masks; 0: all",
        low=0,
        high=100_000,
        omit_default=True,
    ),
}


class FineTuned(Algorithm):
    """A method whose network starts with the weights of an ERM run of the same trial and draw.

    That run is trained first, with the hyper-parameters and the budget that the sweep gives to
    ``erm``. With ``start_bias`` it is trained on the same data set at another bias, so that a
    network that knows the object is fine-tuned on data with a strong shortcut.

    Attributes:
        images_used: number of training images, once they are chosen.
    """

    images_used: int | None = None

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.network.load_state_dict(setting.upstream["start"].network.state_dict())

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        bias = spec.hparams.get("start_bias", SAME_BIAS)
        changed = {} if bias < 0 else {"bias": bias}
        return {"start": Upstream("erm", dataset_options=changed, same_draw=True)}

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        bias = spec.hparams.get("start_bias", SAME_BIAS)
        if bias == SAME_BIAS:
            return super().refuses(spec, info)
        if bias < 0:
            return f"start_bias = {bias:g} is neither -1 nor a share from 0 to 1."
        if "bias" not in DATASETS.get(spec.dataset).options:
            return (
                f"start_bias sets the option bias of the data, which {spec.dataset} lacks; leave "
                "start_bias out."
            )
        return super().refuses(spec, info)

    def training_rows(self, label: np.ndarray, trial: int) -> np.ndarray | None:
        """Return ``masks_per_class`` rows of each class, drawn by the trial, or None for all."""
        per_class = self.hp["masks_per_class"]
        if per_class == 0:
            self.images_used = len(label)
            return None
        rows = []
        for k in np.unique(label):
            rng = np.random.default_rng(seed_for("masks", trial, int(k)))
            rows.append(rng.permutation(np.flatnonzero(label == k))[:per_class])
        chosen = np.sort(np.concatenate(rows))
        self.images_used = len(chosen)
        return chosen

    def report(self) -> dict[str, Any]:
        """Return also the number of training masks that were used, if the method uses masks."""
        if self.images_used is None or not self.needs.masks:
            return super().report()
        return {**super().report(), "training_masks": self.images_used}
