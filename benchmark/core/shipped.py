"""Files of ShortcutBed that are not Python: sweeps, and the tables that papers published.

They are at the root of a checkout. ``setup.py`` copies them into the package when it builds a
wheel.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(folder: str, package: Path = PACKAGE) -> Path:
    """Return the path of such a folder, as in ``shipped("results/published")``.

    Args:
        folder: The path of the folder in a checkout.
        package: The folder of the package ``benchmark``.
    """
    installed = package / "shipped" / folder
    return installed if installed.is_dir() else package.parent / folder
