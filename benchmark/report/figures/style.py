"""Colours and markers that every figure shares."""

from __future__ import annotations

#: Colours of Okabe and Ito. Each is used with a marker, so that figures are legible without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
