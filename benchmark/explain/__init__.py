"""Explainers, one per file; those with ``differentiable = True`` can be part of a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.explain.base import HeatmapExplainer


def get(name: str, **options: Any) -> HeatmapExplainer:
    """Return the explainer called ``name``.

    Args:
        name: registry name.
        options: options of the explainer that differ from their defaults.

    Raises:
        UserError: an unknown name or option, or a value of the wrong type.
    """
    # imported here, so that importing this package does not load torch
    from benchmark.core.registry import EXPLAINERS

    explainer: HeatmapExplainer = EXPLAINERS.get(name)(**options)
    return explainer
