"""RELAX and U-RELAX: which pixels a representation depends on, without a class."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.evaluation import EvaluationExplainer, Scores, random_masks
from benchmark.explain.rise import IMAGES_PER_PASS, MASK_OPTIONS


@EXPLAINERS.register
class Relax(EvaluationExplainer):
    """RELAX (Wickstrøm et al. 2023): Σ_n s(x, x ⊙ m_n) m_n / (N p), float[B,1,H,W].

    s is the cosine similarity of the features before the last layer. The target has no influence.
    A masked pixel has the mean colour of the data.

    Args:
        masks: number of masks N.
        grid: rows and columns of the grid of a mask.
        share: p, the share of the image that a mask keeps.
    """

    name = "relax"
    title = "RELAX"
    repetitions = "masks"
    options = {
        **MASK_OPTIONS,
        "masks": HParam(3000, doc="number of random masks", low=1, high=100_000),
    }

    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.importance_and_uncertainty(scores, image)[0]

    @torch.no_grad()
    def importance_and_uncertainty(
        self, scores: Scores, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return R and U = Σ_n (s_n − R)² m_n / (N p), float[B,1,H,W] each.

        Expanding the square, both follow from sums of m, s m and s² m over the masks.

        Raises:
            UserError: the network has no features before its last layer.
        """
        network = scores.network
        if not hasattr(network, "features"):
            raise UserError(
                f"{self.name} needs a network with features(image), as every backbone has."
            )
        batch = len(image)
        size = (image.shape[2], image.shape[3])
        whole = network.features(image)  # type: ignore[operator]
        sums = torch.zeros(3, batch, *size, device=image.device, dtype=torch.float64)
        left = self.chosen["masks"]
        while left:
            count = min(left, max(IMAGES_PER_PASS // batch, 1))
            left -= count
            masks = random_masks(
                count, self.chosen["grid"], self.chosen["share"], size, image.device
            )
            masked = (image[:, None] * masks[None].to(image.dtype)).flatten(0, 1)
            kept = network.features(masked).unflatten(0, (batch, count))  # type: ignore[operator]
            similarity = F.cosine_similarity(kept, whole[:, None], dim=2).double()
            for power in range(3):
                sums[power] += torch.einsum("bn,nhw->bhw", similarity**power, masks[:, 0].double())
        sums /= self.chosen["masks"] * self.chosen["share"]
        ones, first, second = sums
        uncertainty = second - 2 * first * first + first.square() * ones
        return first[:, None].to(image.dtype), uncertainty[:, None].to(image.dtype)


@EXPLAINERS.register
class URelax(Relax):
    """U-RELAX: RELAX where its uncertainty is below the mean of the image, else 0."""

    name = "u_relax"
    title = "U-RELAX"

    def attribute(self, scores: Scores, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        importance, uncertainty = self.importance_and_uncertainty(scores, image)
        certain = uncertainty < uncertainty.mean((1, 2, 3), keepdim=True)
        return importance * certain
