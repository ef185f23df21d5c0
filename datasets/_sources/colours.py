"""Ten colours for ten digits, and digits painted with them."""

from __future__ import annotations

import numpy as np

#: The nine class colours of Ahmed et al. (2020), from the code that they published, and purple for the tenth class.
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
    """Digits in one flat colour each on black, uint8[N,3,H,W].

    Args:
        mask: bool[N,1,H,W].
        colour: int64[N], rows of COLOURS.
    """
    values = np.array(list(COLOURS.values()), np.uint8)[colour]
    return mask.view(np.uint8) * values[:, :, None, None]  # type: ignore[no-any-return]
