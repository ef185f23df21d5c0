"""Options with which tests try every explainer with every backbone quickly."""

from __future__ import annotations

from typing import Any

#: Options that make an explainer quick.
QUICK_EXPLAINERS: dict[str, dict[str, Any]] = {
    "extremal_perturbation": {"steps": 2},
    "gradient_shap": {"samples": 2},
    "integrated_gradients": {"steps": 4},
    "lime": {"samples": 4, "segments": 9},
    "occlusion": {"window": 0.5},
    "relax": {"masks": 8, "grid": 4},
    "rise": {"masks": 8, "grid": 4},
    "smoothgrad": {"samples": 2},
    "u_relax": {"masks": 8, "grid": 4},
}
#: Options that make a backbone small.
SMALL_BACKBONES: dict[str, dict[str, Any]] = {
    "bcos_convnet": {"width": 2},
    "convnet": {"width": 2},
    "vit": {"patch": 8, "dim": 16, "depth": 2, "heads": 2},
}
