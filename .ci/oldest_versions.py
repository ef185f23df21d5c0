"""Print the oldest version of every dependency that setup.py allows, as constraints for pip."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import setuptools  # noqa: F401  (it brings distutils from Python 3.12 on)
from packaging.requirements import Requirement

SETUP = Path(__file__).resolve().parents[1] / "setup.py"


def requirements() -> list[str]:
    """Everything that setup.py requires, extras included."""
    from distutils.core import run_setup

    found = run_setup(str(SETUP), stop_after="init")
    return [
        *found.install_requires,
        *(one for extra in found.extras_require.values() for one in extra),
    ]


def constraints(required: Iterable[str]) -> list[str]:
    """One constraint per package: ``name==version`` with its lower bound.

    Raises:
        ValueError: a requirement has no lower bound, or a package has two.
    """
    bounds: dict[str, str] = {}
    for text in required:
        one = Requirement(text)
        lowest = [specifier.version for specifier in one.specifier if specifier.operator == ">="]
        if len(lowest) != 1 or bounds.setdefault(one.name, lowest[0]) != lowest[0]:
            raise ValueError(f"{text} must have one lower bound, such as {one.name}>=1.0")
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


if __name__ == "__main__":
    sys.stdout.write("\n".join(constraints(requirements())) + "\n")
