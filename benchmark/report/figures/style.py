"""Colours and markers that every figure shares."""

from __future__ import annotations

#: Okabe and Ito's colours, with a marker and a line style each, so that colour is never needed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
