"""Grey values of any depth at eight bits, on a scale that is the same for every picture, or equalised."""

from __future__ import annotations

from enum import Enum

import numpy as np

#: A picture of more than eight bits that uses fewer of the 256 grey levels than this is reported as dim.
DIM = 16
#: Rounding errors of pictures from 0 to 1 that are let pass.
_SLACK = 1e-3
#: A picture from 0 to 255 whose brightest pixel is not above this could as well be one from 0 to 1 that overshoots.
_UNCLEAR = 8.0


class Scale(Enum):
    """What white is in a picture whose format does not say it (floating point, 32-bit integers)."""

    UNIT = 1
    BYTE = 255
    WORD = 65535


def to_eight_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """The upper eight bits of unsigned values that use ``bits`` bits, as Pillow takes them of 16-bit colours.

    Args:
        values: whole numbers, [H,W].
        bits: 1 to 32; values of fewer than eight bits are spread from 0 to 255.

    Raises:
        ValueError: a value needs more bits, or is negative.
    """
    lowest, largest = int(values.min()), int(values.max())
    if lowest < 0:
        raise ValueError(f"it has the value {lowest}, expected values from 0 on")
    if largest >> bits:
        raise ValueError(f"it has the value {largest}, which needs more than {bits} bits")
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8)
    return (values * (255 / (2**bits - 1))).round().astype(np.uint8)  # type: ignore[no-any-return]


def scale_of(values: np.ndarray) -> Scale:
    """The scale that a picture without one of its own is on: 0 to 1, 0 to 255, or 0 to 65,535.

    Raises:
        ValueError: a pixel is not a finite number, or the values fit none of them.
    """
    check_finite(values)
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind in "iu"
    if low < -_SLACK or high > Scale.WORD.value or (not whole and 1 + _SLACK < high <= _UNCLEAR):
        raise ValueError(
            f"its values from {low:g} to {high:g} are on none of the scales 0…1, 0…255 and 0…65535; convert it to 8 or "
            "16 bits"
        )
    if not whole and high <= 1 + _SLACK:
        return Scale.UNIT
    return Scale.BYTE if high <= Scale.BYTE.value else Scale.WORD


def scaled(values: np.ndarray, scale: Scale, bits: int) -> np.ndarray:
    """Values on a scale as uint8[H,W]; ``bits`` are those in use on the scale to 65,535."""
    if scale is Scale.WORD:
        return to_eight_bits(np.asarray(values).astype(np.int64), bits)
    factor = 255 / scale.value
    return (values.astype(np.float64) * factor).round().clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def ranked(values: np.ndarray) -> np.ndarray:
    """Values of any type as unsigned integers in the same order, for ``equalise``, which asks for nothing more.

    Raises:
        ValueError: a pixel is not a finite number.
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
    """Histogram equalisation: each value becomes the share of pixels that are not above it, from 0 to 255.

    With c(v) the number of pixels of value v or less, and v₀ the lowest value: round(255·(c(v) − c(v₀))/(n − c(v₀))).
    A picture of one value is returned black.

    Args:
        grey: unsigned integers of any depth, [H,W]; 16 bits keep all of their levels.
    """
    counts = np.bincount(grey.reshape(-1)).cumsum()
    lowest = counts[counts > 0][0]
    scale = 255 / (counts[-1] - lowest) if counts[-1] > lowest else 0.0
    table = ((counts - lowest).clip(0) * scale).round().astype(np.uint8)
    return table[grey]  # type: ignore[no-any-return]


def check_finite(values: np.ndarray) -> None:
    """Raise a ValueError where a pixel is NaN or infinite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"{count} of its {values.size} pixels {'is' if count == 1 else 'are'} not a finite number"
        )
