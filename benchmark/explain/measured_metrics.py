"""The metrics that the [explanations] table of a sweep may name."""

from __future__ import annotations

import torch

from benchmark.core.registry import EXPLANATION_METRICS
from benchmark.core.seeds import seed_for
from benchmark.explain import metrics
from benchmark.explain.metrics import ExplainedImages, ExplanationMetric
from benchmark.explain.segmentation import relevance_segmentation


class MeasuredMetric(ExplanationMetric):
    """Base class of metrics that are computed on request only."""

    recorded = False
    higher_is_better = True


@EXPLANATION_METRICS.register
class Mass(MeasuredMetric):
    """The share of the relevance in the foreground (``relevance_mass``)."""

    name = "mass"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return metrics.relevance_mass(relevance, mask)


@EXPLANATION_METRICS.register
class ScaledMass(MeasuredMetric):
    """The share in the foreground of the relevance minus its smallest value in the image.

    The NEMt paper scales maps to [0, 1] first. For maps that are nowhere 0, such as those of RISE,
    this is larger than ``mass``.
    """

    name = "mass_minmax"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        lowest = relevance.flatten(1).amin(1)[:, None, None]
        return metrics.relevance_mass(relevance - lowest, mask)


@EXPLANATION_METRICS.register
class Rank(MeasuredMetric):
    """The share of the k most relevant pixels in a foreground of k pixels (``relevance_rank``)."""

    name = "rank"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return metrics.relevance_rank(relevance, mask)


@EXPLANATION_METRICS.register
class Pointing(MeasuredMetric):
    """1 if the most relevant pixel is in the foreground, else 0 (``pointing_game``)."""

    name = "pointing"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return metrics.pointing_game(relevance, mask)


@EXPLANATION_METRICS.register
class AveragePrecision(MeasuredMetric):
    """The average precision of the relevance as a segmentation (``relevance_segmentation``)."""

    name = "average_precision"
    title = "AP"

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = relevance_segmentation(relevance, mask).average_precision
        return found.to(relevance.device)


@EXPLANATION_METRICS.register
class Complexity(MeasuredMetric):
    """The entropy of the relevance in nats (``complexity``); lower is better."""

    name = "complexity"
    higher_is_better = False
    needs_mask = False

    def of(self, explained: ExplainedImages) -> torch.Tensor:
        return metrics.complexity(explained.relevance)

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return metrics.complexity(relevance)


@EXPLANATION_METRICS.register
class Sparseness(MeasuredMetric):
    """The Gini index of the relevance (``sparseness``)."""

    name = "sparseness"
    needs_mask = False

    def of(self, explained: ExplainedImages) -> torch.Tensor:
        return metrics.sparseness(explained.relevance)

    def __call__(self, relevance: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return metrics.sparseness(relevance)


class ModelMetric(MeasuredMetric):
    """Base class of metrics that ask the model; they implement ``of`` only."""

    needs_mask = False

    def of(self, explained: ExplainedImages) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not implement of")


@EXPLANATION_METRICS.register
class Faithfulness(ModelMetric):
    """Relevance and drop of the logit, by chunks of sorted pixels (``faithfulness_estimate``)."""

    name = "faithfulness"

    def of(self, explained: ExplainedImages) -> torch.Tensor:
        return metrics.faithfulness_estimate(
            explained.model, explained.image, explained.relevance, explained.target
        )


@EXPLANATION_METRICS.register
class FaithfulnessCorrelation(ModelMetric):
    """Relevance and drop of the logit, by random subsets (``faithfulness_correlation``)."""

    name = "faithfulness_correlation"
    title = "faithfulness (random subsets)"

    def of(self, explained: ExplainedImages) -> torch.Tensor:
        return metrics.faithfulness_correlation(
            explained.model,
            explained.image,
            explained.relevance,
            explained.target,
            generator=torch.Generator().manual_seed(seed_for("faithfulness_correlation")),
        )


@EXPLANATION_METRICS.register
class Randomization(ModelMetric):
    """The mean rank correlation with heatmaps of networks that become random; lower is better.

    It is the mean over the layers of ``randomization_check`` for which it is defined.
    """

    name = "randomization"
    title = "similarity after randomization"
    higher_is_better = False

    def of(self, explained: ExplainedImages) -> torch.Tensor:
        found = metrics.randomization_check(
            explained.explain,
            explained.network,
            explained.image,
            explained.target,
            generator=torch.Generator().manual_seed(seed_for("randomization")),
        )
        return torch.stack(list(found.values())).nanmean(0)


@EXPLANATION_METRICS.register
class Seconds(ModelMetric):
    """Seconds that the explanation of one image takes, alone in its batch; lower is better."""

    name = "seconds"
    title = "seconds per image"
    higher_is_better = False
    is_timing = True


class ClassMetric(ModelMetric):
    """Base class of metrics of explained classes, which ``benchmark.engine.sensitivity`` measures.

    Each class is explained, whether it is predicted or not, in at most 50 images of each split.
    """

    of_classes = True


@EXPLANATION_METRICS.register
class ClassSensitivity(ClassMetric):
    """The share of the evidence in the image that has the class (``class_sensitivity``)."""

    name = "class_sensitivity"


@EXPLANATION_METRICS.register
class DiseaseSensitivity(ClassMetric):
    """The share of the evidence of a class in its mask (``disease_sensitivity``)."""

    name = "disease_sensitivity"
