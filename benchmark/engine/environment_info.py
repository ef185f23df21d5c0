"""The versions and settings that a result is computed with."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import benchmark
from benchmark.core.conditions import VARIABLES, Conditions

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn", "scikit-image")
#: The largest number of characters that are kept of a value.
_MAX_LENGTH = 100


def current_conditions(device: torch.device) -> Conditions:
    """Return what the last digits of a result depend on, as this process is set up now."""
    return Conditions(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        processor=_processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        versions=versions(),
        commit=commit(),
        settings=_settings(device),
        environment={
            name: os.environ[name][:_MAX_LENGTH] for name in VARIABLES if name in os.environ
        },
    )


def _settings(device: torch.device) -> dict[str, str]:
    """Return the settings of PyTorch; those that this version does not have are left out."""
    asked: dict[str, Callable[[], object]] = {
        "deterministic": torch.are_deterministic_algorithms_enabled,
        "float32_matmul": torch.get_float32_matmul_precision,
        "onednn": lambda: torch.backends.mkldnn.enabled,
    }
    if device.type == "cuda":
        asked |= {
            "bf16_native": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
            "cuda": lambda: torch.version.cuda,
            "cudnn": torch.backends.cudnn.version,
            "cudnn_benchmark": lambda: torch.backends.cudnn.benchmark,
            "tf32_convolutions": lambda: torch.backends.cudnn.allow_tf32,
            "tf32_matmul": lambda: torch.backends.cuda.matmul.allow_tf32,
        }
    found = {}
    for name, ask in asked.items():
        try:
            found[name] = str(ask()).lower()
        except (AttributeError, RuntimeError, TypeError):
            continue
    return found


@functools.cache
def _processor() -> str:
    """Return the name of the processor, or its architecture if the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()[:_MAX_LENGTH]
    except OSError:
        pass
    return (platform.processor() or platform.machine())[:_MAX_LENGTH]


def versions() -> dict[str, str]:
    """Return the versions of Python, of ShortcutBed and of the packages that runs depend on."""
    found = {"python": platform.python_version(), "shortcutbed": benchmark.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of this checkout, with ``-dirty`` if files differ; None outside one."""
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
    """Return the largest amount of memory that this process has held; 0 on Windows."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
