"""Small medical data sets in the layouts in which they are published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import xray_tree
from tests.support.trees import picture, table

SIZE = (30, 40)
RSNA = "rsna-pneumonia-detection-challenge"
#: The boxes of a patient with pneumonia in ``rsna``: left, top, width and height.
RSNA_BOXES = ((4.0, 6.0, 8.0, 12.0), (18.0, 8.0, 10.0, 16.0))


def rsna(root: Path, per_class: int = 20, ending: str = ".png") -> Mapping[str, Any]:
    """Write RSNA's challenge; every second patient has pneumonia, and half of these two boxes."""
    rows: list[tuple[object, ...]] = []
    for i in range(2 * per_class):
        name = f"{i:04d}-patient"
        file = root / RSNA / "stage_2_train_images" / f"{name}{ending}"
        picture(file, 110_000 + i, SIZE, "L")
        if i % 2:
            rows += [(name, *box, 1) for box in RSNA_BOXES[: 1 + i % 4 // 2]]
        else:
            rows.append((name, "", "", "", "", 0))
    header = ("patientId", "x", "y", "width", "height", "Target")
    table(root / RSNA / "stage_2_train_labels.csv", header, rows)
    return {"side": 16}


def dicom(path: Path, seed: int) -> np.ndarray:
    """Write a DICOM file of 30×40 pixels and return its grey values."""
    return xray_tree.dicom(path, seed)
