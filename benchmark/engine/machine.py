"""What a result was made with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import benchmark

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "scikit-image")


def versions() -> dict[str, str]:
    """Versions of Python, of ShortcutBed and of the packages that a run depends on."""
    found = {"python": platform.python_version(), "shortcutbed": benchmark.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the checkout that runs, ``-dirty`` if files differ from it, or None outside a checkout."""
    root = Path(benchmark.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
