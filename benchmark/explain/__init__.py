"""Explanations, one per file; each can stand inside a loss where it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.explain.base import HeatmapExplainer


def get(name: str, **options: Any) -> HeatmapExplainer:
    """The explainer called ``name``, ready to be called as ``(model, image, target, create_graph=False)``.

    Raises:
        UserError: an unknown name or option, or a value of the wrong type.
    """
    from benchmark.core.registry import (
        EXPLAINERS,  # only now: importing this package loads no torch
    )

    made: HeatmapExplainer = EXPLAINERS.get(name)(**options)
    return made
