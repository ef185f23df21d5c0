"""Registries: names to classes, found by importing every module of a package and every installed plug-in."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from benchmark.core.errors import UserError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known ones, or all of them where they are few."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    if not known:
        return "; there are none."
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"; there are: {shown}."


class Registry(Generic[T]):
    """The classes of one kind, by name.

    Args:
        kind: what they are, as error messages call it: ``"algorithm"``.
        package: the package whose modules are all imported, by name, on first use.
        group: the entry-point group through which installed packages add theirs.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self.package, self.group = kind, package, group
        self.broken: dict[str, str] = {}  # module or entry point -> why it could not be imported
        self._items: dict[str, T] = {}
        self._origin: dict[str, str] = {}
        self._loaded, self._lock = False, threading.RLock()

    def register(self, item: T) -> T:
        """Add a class under its ``name``; use as a decorator.

        Raises:
            UserError: two different classes claim the same name; both are named.
        """
        name = getattr(item, "name", "")
        origin = f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"
        if not isinstance(name, str) or not name:
            raise UserError(
                f'{origin} has no name, expected a class attribute such as name = "my_{self.kind}".'
            )
        if name in self._items and self._origin[name] != origin:
            raise UserError(
                f"two {self.kind}s are called {name!r}: {self._origin[name]} and {origin}; "
                "rename or uninstall one of them."
            )
        self._items[name], self._origin[name] = item, origin
        return item

    def get(self, name: str) -> T:
        """The class called ``name``.

        Raises:
            UserError: no such name; the sentence offers the nearest ones and says which modules could not be imported.
        """
        self._load()
        if name in self._items:
            return self._items[name]
        excuse = "".join(
            f" ({origin} could not be imported: {why})"
            for origin, why in sorted(self.broken.items())
        )
        raise UserError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._items)}{excuse}")

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._items)

    def origin(self, name: str) -> str:
        """Module and class behind a name."""
        self.get(name)
        return self._origin[name]

    def known_modules(self) -> dict[str, str]:
        """The module of every class that is registered so far, by name; imports nothing."""
        return {name: getattr(item, "__module__", "") for name, item in self._items.items()}

    def _load(self) -> None:
        with self._lock:  # another thread waits until all are there
            if self._loaded:
                return
            self._loaded = True  # before importing: a module may itself look something up
            try:
                self._load_package()
                for point in importlib.metadata.entry_points(group=self.group):
                    self._load_entry_point(point)
            except BaseException:
                self._loaded = (
                    False  # a collision or a bug must be raised each time, not only the first
                )
                raise

    def _load_package(self) -> None:
        found = importlib.util.find_spec(self.package)
        _must_be_ours(
            self.package, found.origin if found else None
        )  # before any code of a foreign package runs
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                self._import(f"{self.package}.{module.name}")

    def _import(self, module: str) -> None:
        try:
            importlib.import_module(module)
        except UserError:
            raise
        except ImportError as error:  # an optional dependency is missing: the others still work
            self.broken[module] = str(error)

    def _load_entry_point(self, point: importlib.metadata.EntryPoint) -> None:
        """A plug-in names a class (registered here if its module did not) or a module that registers its own."""
        try:
            thing = point.load()
        except UserError:
            raise
        except Exception as error:  # somebody else's package: report it, never let it stop our own
            self.broken[f"entry point {point.value}"] = f"{type(error).__name__}: {error}"
            return
        if isinstance(thing, type):
            self.register(thing)  # type: ignore[arg-type]


def _must_be_ours(package: str, file: str | None) -> None:
    """Our top-level packages have plain names; refuse a foreign package that stands in front of one."""
    if "." in package:
        return
    ours = Path(__file__).resolve().parents[2] / package / "__init__.py"
    if file is None or Path(file).resolve() != ours:
        where = file or "a folder without __init__.py"
        raise UserError(
            f"the import name {package!r} belongs to another package ({where}), expected ShortcutBed's own {package}/; "
            f"use a virtual environment without that package, or run `pip uninstall {package}`."
        )
    if package == "datasets":
        try:
            found = importlib.metadata.distribution("datasets")
        except importlib.metadata.PackageNotFoundError:
            return
        raise UserError(
            f"Hugging Face's package datasets {found.version} is installed in this environment and has the same import "
            "name as ShortcutBed's datasets/; use a virtual environment without it, or run `pip uninstall datasets`."
        )


ALGORITHMS: Registry = Registry("algorithm", "algorithms", "shortcutbed.algorithms")
DATASETS: Registry = Registry("dataset", "datasets", "shortcutbed.datasets")
BACKBONES: Registry = Registry("backbone", "benchmark.models", "shortcutbed.backbones")
EXPLAINERS: Registry = Registry("explainer", "benchmark.explain", "shortcutbed.explainers")
