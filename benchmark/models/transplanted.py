"""A backbone with the last layer of another network."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from benchmark.models.base import Backbone


class Transplanted(Backbone):
    """A backbone whose last layer is another network's, behind a 1×1 convolution of its last map.

    Not registered as a backbone: students of another architecture than their teacher's use it.

    Args:
        body: backbone whose feature map is used; its own last layer is removed.
        classifier: last layer of the other network; it is copied.
    """

    name = "transplanted"

    def __init__(self, body: Backbone, classifier: nn.Linear) -> None:
        nn.Module.__init__(self)
        with torch.no_grad():
            probe = torch.zeros(2, *body.image_size)
            channels = copy.deepcopy(body).feature_map(probe).shape[1]
        self.chosen = {}
        self.image_size = body.image_size
        self.num_outputs = body.num_outputs
        self.capabilities = replace(body.capabilities, cam="adapter")  # type: ignore[misc]
        self.body = body
        self.dropout = body.dropout
        del body.classifier
        self.num_features = classifier.in_features
        self.adapter = nn.Conv2d(channels, self.num_features, 1)
        self.classifier = copy.deepcopy(classifier).cpu().requires_grad_(True)

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.adapter(self.body.feature_map(image))  # type: ignore[no-any-return]
