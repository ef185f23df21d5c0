"""The network of Attri-Net, which predicts from attribution maps of every class."""

from __future__ import annotations

import torch
from torch import nn

from benchmark.core import Setting
from benchmark.models.attribution_generator import AttributionGenerator, LinearHeads
from benchmark.models.base import Capabilities


class AttriNetwork(nn.Module):
    """Attribution generator and linear heads: the network that predicts and explains itself.

    Args:
        setting: sizes, normalisation and hyper-parameters.
    """

    capabilities = Capabilities(native=True)
    name = "attri_net"
    mean: torch.Tensor
    std: torch.Tensor
    centres: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        hp = setting.hparams
        channels, height, width = setting.image_size
        classes = setting.num_classes
        self.generator = AttributionGenerator(classes, channels, hp["width"], hp["blocks"])
        self.heads = LinearHeads(classes, setting.image_size, hp["pool"])
        mean = torch.tensor(setting.mean or (0.5,) * channels)
        std = torch.tensor(setting.std or (0.5,) * channels)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)
        # four dimensions, so that the buffer can be laid out with the channels last
        self.register_buffer("centres", torch.zeros(2 * classes, channels, height, width))

    def centres_of(self, k: int) -> torch.Tensor:
        """Return the centres of the maps of negatives and positives of a class, float[2,C,H,W]."""
        return self.centres[2 * k : 2 * k + 2]

    def unit(self, image: torch.Tensor) -> torch.Tensor:
        """Return normalised images with values from −1 to 1."""
        return 2 * (image * self.std + self.mean) - 1

    def attribution(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the maps M float[B,C,H,W] of classes int64[B] for normalised images."""
        return self.generator(self.unit(image), label)  # type: ignore[no-any-return]

    def native_heatmap(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return what each pixel adds to the logit of ``target``, float[B,C,H,W].

        The sum of a map is the logit without the bias of its head.
        """
        return self.heads.contributions(self.attribution(image, target), target)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits float[B,K]; the generator runs once for each class."""
        logits = []
        for k in range(len(self.heads.bias)):
            label = torch.full((len(image),), k, dtype=torch.long, device=image.device)
            logits.append(self.heads(self.attribution(image, label), label))
        return torch.stack(logits, dim=1)
