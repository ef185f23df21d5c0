"""Files that come with ShortcutBed and are not Python: sweeps, and the tables that papers published.

They lie at the root of a checkout. ``setup.py`` copies them into the package when it builds a wheel.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(folder: str) -> Path:
    """Where a folder of the checkout is, such as ``results/published``: there, or in the installed package."""
    installed = _PACKAGE / "shipped" / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder
