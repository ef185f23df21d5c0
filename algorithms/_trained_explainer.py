"""What methods that train an explainer of a classifier have in common."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from benchmark.core import (
    Algorithm,
    Batch,
    RunSpec,
    Setting,
    TrainingRun,
    Upstream,
    UserError,
)
from benchmark.models.base import Backbone, Capabilities

#: Images of each split, at most, on which the explainer is compared with a simpler one.
COMPARED_IMAGES = 512


class ExplainedClassifier(nn.Module):
    """A frozen classifier, which stays in evaluation mode and explains itself in a subclass.

    Args:
        classifier: the classifier.
    """

    capabilities = Capabilities(native=True)

    def __init__(self, classifier: Backbone) -> None:
        super().__init__()
        self.classifier = classifier.eval()
        self.classifier.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits of the classifier, which the explainer does not change."""
        return self.classifier(image)  # type: ignore[no-any-return]


class TrainedExplainer(Algorithm):
    """Base class of methods that train an explainer of the method in their option ``explained``.

    Predictions are those of the classifier. After training, the means of ``compared`` over images
    of the training and the validation data are in ``comparison``.
    """

    explained_hparam = "explained"
    # the predictions of all steps are the classifier's, so accuracy would select the first one
    own_selection = ("val_objective", "last")
    objective = Algorithm.total_loss

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.comparison: dict[str, dict[str, float]] = {}

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        name, _, variant = spec.hparams["explained"].partition(":")
        return {"classifier": Upstream(name, variant=variant, same_draw=True)}

    def explained_classifier(self) -> Backbone:
        """Return the method's network with the weights of the explained classifier.

        Raises:
            UserError: the model of the explained method is no backbone.
        """
        classifier = self.setting.upstream["classifier"].network
        if not isinstance(classifier, Backbone):
            raise UserError(
                f"{self.name} explains backbones, and the model of {self.hp['explained']} is a "
                f"{type(classifier).__name__}; explain another method."
            )
        own: Any = self.network
        own.load_state_dict(classifier.state_dict())
        return own  # type: ignore[no-any-return]

    def compared(self, batch: Batch) -> dict[str, float]:
        """Return means over a batch, of the explainer and of what it is compared with."""
        raise NotImplementedError

    def fit(self, run: TrainingRun) -> None:
        super().fit(run)
        training = self.training
        self.eval()
        with torch.no_grad():
            self.comparison = {split: self._compare(run, split) for split in ("train", "val")}
        self.train(training)

    def _compare(self, run: TrainingRun, split: str) -> dict[str, float]:
        """Return the means over the first batches of a split that have COMPARED_IMAGES images."""
        totals: dict[str, float] = {}
        images = 0
        for batch in run.batches(split):
            for name, value in self.compared(batch).items():
                totals[name] = totals.get(name, 0.0) + value * len(batch)
            images += len(batch)
            if images >= COMPARED_IMAGES:
                break
        return {name: total / images for name, total in totals.items()}
