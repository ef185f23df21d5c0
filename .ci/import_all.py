"""Import every module of the installed packages, to find names that old dependencies lack."""

from __future__ import annotations

import importlib
import pkgutil

OURS = ("benchmark", "algorithms", "datasets")


def main() -> None:
    """Import all; says how many there were.

    Raises:
        Exception: whatever a module raises when it is imported.
    """
    names = list(OURS)
    for package in OURS:
        path = importlib.import_module(package).__path__
        names += [module.name for module in pkgutil.walk_packages(path, f"{package}.")]
    for name in names:
        importlib.import_module(name)
    print(f"{len(names)} modules imported")


if __name__ == "__main__":
    main()
