"""The main module of the program that launches, be it a command, a script or a notebook: no run imports it.

``multiprocessing`` imports it again in every process that it starts. A script that launches without
``if __name__ == "__main__"`` would run again from its beginning in each of them.
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
from benchmark.core.spec import RunSpec

_MAIN = "__main__"


class _Stub(ModuleType):
    """A main module whose source nothing can find; everything else is that of the real one."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(_MAIN)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":
            raise AttributeError(name)
        return getattr(self.__dict__["_real"], name)


@contextmanager
def hidden_main() -> Iterator[None]:
    """Let the processes that are started meanwhile not import the main module."""
    real = sys.modules[_MAIN]
    sys.modules[_MAIN] = _Stub(real)
    try:
        yield
    finally:
        sys.modules[_MAIN] = real


def modules_to_import(specs: Iterable[RunSpec]) -> tuple[str, ...]:
    """The modules whose classes these runs use and that the registries would not find in another process.

    A program may import such a module before it launches; the processes of the runs then import it too.

    Raises:
        UserError: the main module itself defines one of the classes.
    """
    kinds = (ALGORITHMS, BACKBONES, DATASETS)
    known = [_elsewhere(registry) for registry in kinds]
    found: set[str] = set()
    for registry in (EXPLAINERS, EXPLANATION_METRICS, CRITERIA.registry):
        found.update(_elsewhere(registry).values())
    found.discard(_MAIN)
    for spec in specs:
        names = (spec.algorithm, spec.backbone, spec.dataset)
        for registry, modules, name in zip(kinds, known, names, strict=True):
            if modules.get(name) == _MAIN:
                raise UserError(
                    f"the {registry.kind} {name!r} is defined in the program that launches, which the processes of "
                    "the runs do not import; move its class into a module of its own and import that module."
                )
            if name in modules:
                found.add(modules[name])
    return tuple(sorted(found))


def _elsewhere(registry: Registry[Any]) -> dict[str, str]:
    """Of the classes that do not belong to the registry's own package: their names and modules."""
    own = f"{registry.package}."
    return {
        name: module
        for name, module in registry.known_modules().items()
        if not f"{module}.".startswith(own)
    }
