"""AG-Sononet (Schlemper et al. 2019): a VGG-like network whose last map gates two earlier ones."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.hparam import HParam
from benchmark.models.base import Backbone, Capabilities


class GridAttention(nn.Module):
    """An additive attention gate: weights of the positions of a map x, given a coarser map g.

    q = ψ(ReLU(θ(x) + φ(g))), and the coefficients are (q − min q) / Σ(q − min q), which the paper
    uses for classification because a softmax would be too sparse.

    Args:
        channels: channels of x.
        gate_channels: channels of g.
        inner: channels of the projections θ(x) and φ(g).
    """

    def __init__(self, channels: int, gate_channels: int, inner: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(gate_channels, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Return coefficients float[B,1,h,w] that sum to 1; uniform if all q are equal."""
        projected = F.interpolate(
            self.phi(gate), size=x.shape[2:], mode="bilinear", align_corners=False
        )
        q = self.psi(F.relu(self.theta(x) + projected))
        weight = q - q.amin(dim=(2, 3), keepdim=True) + 1e-6 / q[0].numel()
        return weight / weight.sum(dim=(2, 3), keepdim=True)  # type: ignore[no-any-return]


class AGSononet(Backbone):
    """Five blocks of 3×3 convolutions with attention gates on the third and the fourth.

    The features are the sums of the two gated maps and the mean of the last map, concatenated. At
    width 64, convolutions and channels are those of Sononet-16 (Baumgartner et al. 2017). A
    max-pool halves the side between two blocks. Not registered as a backbone, since the gates
    define the method ``ag_sononet``.
    """

    name = "ag_sononet"
    doc = "attention-gated Sononet"
    options = {"width": HParam(64, low=1, high=256, doc="channels of the first block")}
    capabilities = Capabilities(cam="last", min_side=16)

    def build(self) -> nn.Linear:
        width = self.chosen["width"]
        wide = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        blocks = []
        channels = self.image_size[0]
        for count, c in zip((2, 2, 3, 3, 3), wide, strict=True):
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [
                    nn.Conv2d(channels, c, 3, padding=1, bias=False),
                    nn.BatchNorm2d(c),
                    nn.ReLU(),
                ]
                channels = c
            blocks.append(nn.Sequential(*layers))
        *earlier, self.last = blocks
        self.blocks = nn.ModuleList(earlier)
        self.gates = nn.ModuleList(GridAttention(c, wide[4], wide[4]) for c in wide[2:4])
        return nn.Linear(wide[2] + wide[3] + wide[4], self.num_outputs)

    def maps(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the third, fourth and last block."""
        kept = []
        out = image
        for i, block in enumerate(self.blocks):
            out = block(out if i == 0 else F.max_pool2d(out, 2))
            if i >= 2:
                kept.append(out)
        return [*kept, self.last(F.max_pool2d(out, 2))]

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.maps(image)[-1]

    def features(self, image: torch.Tensor) -> torch.Tensor:
        self.sides_inside(self.chosen, image.shape[2], image.shape[3])
        *gated, last = self.maps(image)
        sums = [
            (gate(x, last) * x).sum(dim=(2, 3)) for gate, x in zip(self.gates, gated, strict=True)
        ]
        return torch.cat([*sums, last.mean(dim=(2, 3))], dim=1)
