"""Conversion of grey values of any depth to eight bits, and histogram equalisation."""

from __future__ import annotations

from enum import Enum

import numpy as np

#: An image of more than eight bits that spans fewer of the 256 grey levels is reported as dim.
DIM_LEVELS = 16
#: Tolerated overshoot of images with values from 0 to 1, for rounding errors.
_TOLERANCE = 1e-3
#: A float image whose maximum lies between 1 and this value is ambiguous: it may be an image from
#: 0 to 255, or one from 0 to 1 that overshoots.
_AMBIGUOUS_MAXIMUM = 8.0


class Scale(Enum):
    """The value of white in an image whose format does not define it (float, 32-bit integer)."""

    UNIT = 1
    BYTE = 255
    WORD = 65535


def to_eight_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Return the upper eight bits of unsigned values, as Pillow does for 16-bit colours.

    Args:
        values: Whole numbers, [H,W].
        bits: The number of bits in use, 1 to 32. Fewer than eight are stretched to 0 … 255.

    Returns:
        uint8[H,W].

    Raises:
        ValueError: If a value is negative or needs more bits.
    """
    lowest = int(values.min())
    largest = int(values.max())
    if lowest < 0:
        raise ValueError(f"it has the value {lowest}, expected values from 0")
    if largest >> bits:
        raise ValueError(f"it has the value {largest}, which needs more than {bits} bits")
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8)
    return (values * (255 / (2**bits - 1))).round().astype(np.uint8)  # type: ignore[no-any-return]


def detect_scale(values: np.ndarray) -> Scale:
    """Return the scale of an image whose format does not define one, from its largest value.

    Raises:
        ValueError: If a pixel is not finite, or the values fit none of the scales.
    """
    check_finite(values)
    low = float(values.min())
    high = float(values.max())
    integral = values.dtype.kind in "iu"
    ambiguous = not integral and 1 + _TOLERANCE < high <= _AMBIGUOUS_MAXIMUM
    if low < -_TOLERANCE or high > Scale.WORD.value or ambiguous:
        raise ValueError(
            f"its values from {low:g} to {high:g} are on none of the scales 0…1, 0…255 and "
            "0…65535; convert it to 8 or 16 bits"
        )
    if not integral and high <= 1 + _TOLERANCE:
        return Scale.UNIT
    return Scale.BYTE if high <= Scale.BYTE.value else Scale.WORD


def rescale(values: np.ndarray, scale: Scale, bits: int) -> np.ndarray:
    """Convert values on a known scale to eight bits.

    Args:
        values: Finite values, [H,W].
        scale: Their scale.
        bits: The number of bits in use, for ``Scale.WORD``.

    Returns:
        uint8[H,W].
    """
    if scale is Scale.WORD:
        return to_eight_bits(np.asarray(values).astype(np.int64), bits)
    factor = 255 / scale.value
    return (values.astype(np.float64) * factor).round().clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def to_unsigned(values: np.ndarray) -> np.ndarray:
    """Convert values of any type to unsigned integers in the same order, as ``equalise`` needs.

    Raises:
        ValueError: If a pixel is not finite.
    """
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(values.dtype.newbyteorder("="))
    check_finite(values)
    shifted = values.astype(np.float64) - float(values.min())
    largest = float(shifted.max())
    exact = values.dtype.kind in "iu" and largest <= 65535
    factor = 1.0 if exact or largest == 0 else 65535 / largest
    return (shifted * factor).round().astype(np.uint16)  # type: ignore[no-any-return]


def equalise(grey: np.ndarray) -> np.ndarray:
    """Equalise the histogram of an image.

    Let c(v) be the number of pixels with a value of at most v, and v₀ the lowest value. A value v
    becomes round(255·(c(v) − c(v₀))/(n − c(v₀))). An image of one value becomes black.

    Args:
        grey: Unsigned integers of any depth, [H,W]. All levels of 16-bit images are used.

    Returns:
        uint8[H,W].
    """
    counts = np.bincount(grey.reshape(-1)).cumsum()
    lowest = counts[counts > 0][0]
    scale = 255 / (counts[-1] - lowest) if counts[-1] > lowest else 0.0
    table = ((counts - lowest).clip(0) * scale).round().astype(np.uint8)
    return table[grey]  # type: ignore[no-any-return]


def check_finite(values: np.ndarray) -> None:
    """Raise a ValueError if a pixel is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        verb = "is" if count == 1 else "are"
        raise ValueError(f"{count} of its {values.size} pixels {verb} not a finite number")
