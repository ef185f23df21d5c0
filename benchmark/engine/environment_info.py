"""What a result is made with: versions, and how this process asks the system for memory."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import benchmark

#: Parameters of glibc's mallopt (malloc.h), and what they are set to.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = (-1, 2**31 - 1), (-3, 2**30)

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
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude",
        "*",
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def peak_memory_bytes() -> int:
    """Most memory that this process has held at a time, or 0 on Windows, which does not say so here."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def keep_memory() -> bool:
    """Have this process keep up to 2 GiB of the memory that it frees; whether that could be arranged.

    A training step frees its activations and asks for as much again in the next one. By default glibc hands large
    blocks back to the system each time, which then clears every page anew: up to a tenth of a step's processor time.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(*parameter) for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
