"""Keeps the processes of runs from importing the main module of the program that launches.

``multiprocessing`` imports the main module again in every process that it starts. A script that
launches without ``if __name__ == "__main__"`` would run again from its beginning in each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from benchmark.core.criteria import CRITERIA
from benchmark.core.errors import UserError
from benchmark.core.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    EXPLAINERS,
    EXPLANATION_METRICS,
    Registry,
)

_MAIN = "__main__"


class _Stub(ModuleType):
    """A stand-in for the main module without a file; its other attributes are the real ones."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(_MAIN)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":
            raise AttributeError(name)
        return getattr(self.__dict__["_real"], name)


@contextmanager
def hidden_main() -> Iterator[None]:
    """Keep the processes that are started meanwhile from importing the main module."""
    real = sys.modules[_MAIN]
    sys.modules[_MAIN] = _Stub(real)
    try:
        yield
    finally:
        sys.modules[_MAIN] = real


def modules_to_import(runs: Iterable[tuple[str, str, str] | None]) -> tuple[str, ...]:
    """Return the modules that the processes of these runs must import.

    They define classes that the runs use and that the registries would not find in another process.
    A program may import such a module before it launches.

    Args:
        runs: the names of the algorithm, backbone and data set of each run; None stands for a run
            that may use any of them.

    Raises:
        UserError: the main module itself defines one of the classes.
    """
    kinds = (ALGORITHMS, BACKBONES, DATASETS)
    known = [_modules_outside(registry) for registry in kinds]
    found: set[str] = set()
    for registry in (EXPLAINERS, EXPLANATION_METRICS, CRITERIA.registry):
        found.update(_modules_outside(registry).values())
    found.discard(_MAIN)
    for names in dict.fromkeys(runs):
        if names is None:
            found.update(module for modules in known for module in modules.values())
            found.discard(_MAIN)
            continue
        for registry, modules, name in zip(kinds, known, names, strict=True):
            if modules.get(name) == _MAIN:
                raise UserError(
                    f"the {registry.kind} {name!r} is defined in the program that launches, which "
                    "the runs do not import; move its class to a module and import that module."
                )
            if name in modules:
                found.add(modules[name])
    return tuple(sorted(found))


def _modules_outside(registry: Registry[Any]) -> dict[str, str]:
    """Return the modules of the classes outside the package of the registry, by name."""
    own = f"{registry.package}."
    return {
        name: module
        for name, module in registry.known_modules().items()
        if not f"{module}.".startswith(own)
    }
