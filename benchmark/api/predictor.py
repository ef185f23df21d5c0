"""Base class of trained networks that predict for images of the user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmark.api.images import ImageLike, NamedImages, normalised, read_images
from benchmark.api.predictions import prediction_table
from benchmark.core.summaries import InputSummary
from benchmark.engine.evaluate import MAX_BATCH, MAX_PIXELS

if TYPE_CHECKING:
    from pandas import DataFrame


class Predictor:
    """A trained network with the preparation of its images.

    A subclass implements ``forward``.

    Args:
        accepts: the images that the network accepts.
        labels: names of the classes, in the order of the logits.
        multi_label: True if an image may have several labels or none.
        device: where the network is.
    """

    def __init__(
        self,
        accepts: InputSummary,
        labels: Sequence[str],
        multi_label: bool,
        device: torch.device,
    ) -> None:
        self.accepts = accepts
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self.device = device

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits float[N,K] of normalised images float[N,C,H,W]."""
        raise NotImplementedError

    def pixels_inside(self) -> int:
        """Return the number of pixels of an image inside the network, for the size of batches."""
        _, height, width = self.accepts.image_size
        return height * width

    def preprocess(self, images: ImageLike | Sequence[ImageLike]) -> torch.Tensor:
        """Return images as the network accepts them: resized and normalised, float[N,C,H,W].

        Args:
            images: see ``benchmark.api.images.read_images``.

        Raises:
            UserError: an image cannot be read or has the wrong type, shape or channels.
        """
        return normalised(read_images(images, self.accepts).pixels, self.accepts).to(self.device)

    def logits(self, images: ImageLike | Sequence[ImageLike]) -> np.ndarray:
        """Return the logits of images, float32[N,K]; see ``preprocess`` for the arguments."""
        return self._logits(read_images(images, self.accepts))

    def predict(self, images: ImageLike | Sequence[ImageLike]) -> DataFrame:
        """Predict the classes of images.

        Args:
            images: see ``benchmark.api.images.read_images``.

        Returns:
            A table with one row per image and the columns ``file``, ``predicted`` and one
            ``p(<class>)`` per class, the probability of the class. For data with several labels
            per image, ``predicted`` joins all labels with a probability above ½ by ``", "``.

        Raises:
            UserError: an image cannot be read or has the wrong type, shape or channels.
        """
        read = read_images(images, self.accepts)
        return prediction_table(read.names, self._logits(read), self.labels, self.multi_label)

    def _logits(self, read: NamedImages) -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for _, image in self._batches(read, MAX_BATCH, MAX_PIXELS):
                parts.append(self.forward(image).float().cpu().numpy())
        return np.concatenate(parts)

    def _batches(
        self, read: NamedImages, most: int, most_pixels: int
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the rows and the normalised images of each batch."""
        size = max(1, min(most, most_pixels // self.pixels_inside()))
        for start in range(0, len(read.pixels), size):
            rows = slice(start, start + size)
            yield rows, normalised(read.pixels[rows], self.accepts).to(self.device)
