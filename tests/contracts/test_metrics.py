"""Contracts of every registered explanation metric, selection criterion and explainer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmark.core.criteria import CRITERIA, Validation
from benchmark.core.registry import BACKBONES, EXPLAINERS, EXPLANATION_METRICS
from benchmark.explain.metrics import ExplanationMetric

OF_RELEVANCE = [
    name
    for name in EXPLANATION_METRICS.names()
    if EXPLANATION_METRICS.get(name).__call__ is not ExplanationMetric.__call__
]


@pytest.mark.parametrize("name", OF_RELEVANCE)
def test_a_metric_of_explanations_treats_every_image_alone(name: str) -> None:
    metric = EXPLANATION_METRICS.get(name)()
    generator = torch.Generator().manual_seed(0)
    relevance = torch.rand(4, 8, 8, generator=generator).double()
    mask = torch.rand(4, 8, 8, generator=generator) < 0.4
    relevance[1] = 0.0
    mask[2] = False
    values = metric(relevance, mask)
    assert values.shape == (4,) and values.is_floating_point()
    assert values[[0, 3]].isfinite().all()
    assert not values.isinf().any()
    alone = torch.cat([metric(relevance[i : i + 1], mask[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(values, alone, equal_nan=True)


@pytest.mark.parametrize("name", list(CRITERIA))
def test_a_criterion_prefers_the_better_model(name: str) -> None:
    criterion = CRITERIA[name]
    assert criterion.name == name and str(criterion) == criterion.title != ""
    worse = Validation(step=1, counts=np.array([[[6, 4], [5, 5]]] * 2), objective=0.7)
    better = Validation(step=2, counts=np.array([[[9, 1], [2, 8]]] * 2), objective=0.2)
    values = [criterion.value(validation) for validation in (worse, better)]
    assert all(type(value) is float and math.isfinite(value) for value in values)
    assert values[0] < values[1]


def test_evaluation_orders_are_unique_and_every_backbone_has_an_explainer() -> None:
    kinds = [EXPLAINERS.get(name) for name in EXPLAINERS.names()]
    tried = [kind for kind in kinds if kind.evaluation_order is not None]
    orders = [kind.evaluation_order for kind in tried]
    assert len(set(orders)) == len(orders)
    for name in BACKBONES.names():
        assert any(kind.suits(BACKBONES.get(name).capabilities) for kind in tried), name
