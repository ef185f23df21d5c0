"""TokenCut masks of a data set, from a vision transformer: ``python -m benchmark.data masks``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from benchmark.core.mask_file import MaskFile, image_digests, packed
from benchmark.explain.tokencut import tokencut
from benchmark.explain.vit_keys import last_keys
from benchmark.models.vit import VisionTransformer

#: The number of images in a forward pass.
BATCH = 16


@dataclass
class MaskMaker:
    """Makes one mask for each distinct image.

    Args:
        network: A vision transformer in evaluation mode, on ``device``.
        mean: The mean of each channel, by which the network's images are normalised.
        std: The standard deviation of each channel, likewise.
        threshold: The similarity above which TokenCut connects two patches.
        device: Where the network is.

    Attributes:
        bits: The packed masks so far, by the digest of the image.
        num_empty: The number of images without a cut, whose mask is empty.
    """

    network: VisionTransformer
    mean: tuple[float, ...]
    std: tuple[float, ...]
    threshold: float
    device: torch.device
    bits: dict[bytes, np.ndarray] = field(default_factory=dict)
    num_empty: int = 0

    def add(self, image: np.ndarray, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the masks of images that have none yet.

        Args:
            image: uint8[N,C,H,W].
            progress: Called with the number of images done and their total number.

        Raises:
            UserError: If the network does not accept such images.
        """
        digests = list(image_digests(image))
        first_row = {digest: row for row, digest in reversed(list(enumerate(digests)))}
        new = sorted(row for digest, row in first_row.items() if digest not in self.bits)
        for start in range(0, len(new), BATCH):
            rows = new[start : start + BATCH]
            if progress is not None:
                progress(start, len(new))
            for row, mask in zip(rows, self.masks(np.asarray(image[rows])), strict=True):
                self.num_empty += not mask.any()
                self.bits[digests[row]] = packed(mask)

    def masks(self, image: np.ndarray) -> Iterable[np.ndarray]:
        """Yield the mask bool[H,W] of each image of uint8[B,C,H,W]."""
        channels, side, _ = self.network.image_size
        batch = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).float() / 255
        if batch.shape[1] == 1 and channels == 3:
            batch = batch.expand(-1, 3, -1, -1)
        mean, std = (
            torch.tensor(v, device=self.device)[:, None, None] for v in (self.mean, self.std)
        )
        batch = (batch - mean) / std
        if batch.shape[-1] != side:
            batch = F.interpolate(batch, (side, side), mode="bilinear", align_corners=False)
        keys = last_keys(self.network, batch).float().cpu().numpy()
        grid = self.network.token_grid()
        for features in keys:
            yield enlarged(tokencut(features, grid, threshold=self.threshold), image.shape[-2:])

    def to_file(self, size: tuple[int, int], about: str) -> MaskFile:
        """Return the masks as the content of a file."""
        return MaskFile(size, self.bits, about)


def enlarged(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Enlarge a mask bool[h,w] to (H, W) by the nearest patch, so that no pixel is in between."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, mask.shape, strict=True))
    return np.asarray(mask[rows[:, None], columns])
