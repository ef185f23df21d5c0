"""Files of masks for the data set ``masked``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.core.mask_file import MaskFile, image_digests, packed, write_mask_file
from benchmark.core.registry import DATASETS

MASKS = "masks/tokencut.npz"


def tiny_masks(root: Path, trials: Sequence[int] = (0,)) -> Mapping[str, Any]:
    """Write the inverted masks of ``tiny`` as a file; return options of ``masked``."""
    bits = {}
    for trial in trials:
        data = DATASETS.get("tiny")(None).load(trial)
        for name in ("train", "val"):
            split = data.splits[name]
            for digest, mask in zip(image_digests(split.image), split.mask, strict=True):
                bits[digest] = packed(~mask[0])
    size = data.info.image_size[1:]
    write_mask_file(root / MASKS, MaskFile(size, bits, "inverted"))
    return {"on": "tiny"}
