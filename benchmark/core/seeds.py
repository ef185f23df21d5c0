"""Seeds that are derived from names, so that a new random quantity does not change others."""

from __future__ import annotations

import hashlib
import json


def seed_for(*parts: object) -> int:
    """Return a 63-bit seed that depends on all parts and on nothing else.

    Args:
        parts: Strings and numbers that name the quantity, such as ``("hparam", trial, draw,
            "lr")``.

    Returns:
        An integer in [0, 2**63), the same on every machine and in every process.
    """
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
