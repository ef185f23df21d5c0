"""The common part of explainers that call captum."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from benchmark.core.errors import UserError
from benchmark.explain.evaluation import EvaluationExplainer, Scores

#: Images that pass the network together, at most.
IMAGES_PER_PASS = 256


class CaptumExplainer(EvaluationExplainer):
    """Base class of explainers that call captum, which is imported when it is needed."""

    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        try:
            import captum.attr
        except ImportError:
            raise UserError(
                f"{self.name} needs the package captum; install it with "
                "pip install 'shortcutbed[explain]'."
            ) from None
        with torch.enable_grad(), numpy_seeded_by_torch(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum reports the hooks that it sets
            heatmap: torch.Tensor = self.call(captum.attr, scores, image.clone(), target)
        return heatmap.detach().to(image.dtype)

    def call(
        self, methods: Any, scores: Scores, image: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Return captum's attribution float[B,C,H,W]; ``methods`` is ``captum.attr``."""
        raise NotImplementedError


@contextmanager
def numpy_seeded_by_torch() -> Iterator[None]:
    """Seed numpy's generator, from which captum draws, by torch's; its state is restored."""
    state = np.random.get_state()
    np.random.seed(int(torch.randint(2**31, ())))
    try:
        yield
    finally:
        np.random.set_state(state)
