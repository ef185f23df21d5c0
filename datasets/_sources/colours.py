"""Ten colours for ten digits."""

from __future__ import annotations

import numpy as np

#: The class colours of Ahmed et al. (2020), from their published code, and purple as the tenth.
COLOURS = {
    "dark_green": (0, 100, 0),
    "rosy_brown": (188, 143, 143),
    "red": (255, 0, 0),
    "gold": (255, 215, 0),
    "lime": (0, 255, 0),
    "royal_blue": (65, 105, 225),
    "cyan": (0, 225, 225),
    "blue": (0, 0, 255),
    "pink": (255, 20, 147),
    "purple": (128, 0, 128),
}


def paint(mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Paint digits in one uniform colour each, on black.

    Args:
        mask: bool[N,1,H,W].
        colour: int64[N], indices of COLOURS.

    Returns:
        uint8[N,3,H,W].
    """
    values = np.array(list(COLOURS.values()), np.uint8)[colour]
    return mask.view(np.uint8) * values[:, :, None, None]  # type: ignore[no-any-return]
