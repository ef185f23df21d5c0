"""Registries: names to classes, found by importing every module of a package and every installed plug-in."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from benchmark.core.errors import UserError, shown

T = TypeVar("T")

#: Characters that are kept of the reason why a class of another package cannot be used.
_LONGEST_REASON = 300


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

    Ours are those of the package. A class of another package, found through an entry point, never stops ours: one that
    cannot be used is listed in ``broken`` with the reason.

    Args:
        kind: what they are, as error messages call it: ``"algorithm"``.
        package: the package whose modules are all imported, by name, on first use.
        group: the entry-point group through which installed packages add theirs.
        base: ``"module:Class"`` that every class of another package must inherit from; ``""`` for none. It is imported
            when there are such classes.
    """

    def __init__(self, kind: str, package: str, group: str, base: str = "") -> None:
        self.kind, self.package, self.group, self.base = kind, package, group, base
        #: Module, class or entry point -> why it cannot be used.
        self.broken: dict[str, str] = {}
        self._items: dict[str, T] = {}
        self._origin: dict[str, str] = {}
        self._claimed: dict[str, str] = {}  # name -> why no class has it: two packages claim it
        self._loaded, self._lock = False, threading.RLock()

    def register(self, item: T) -> T:
        """Add a class under its ``name``; use as a decorator.

        Raises:
            UserError: it has no name, or another class has it; both are named. One of ours keeps its name, whichever
                came first; of two classes of other packages neither can be used, since the choice between them would
                depend on the order in which they were installed.
        """
        name = getattr(item, "name", "")
        origin = _origin_of(item)
        if not isinstance(name, str) or not name:
            raise UserError(
                f'{origin} has no name, expected a class attribute such as name = "my_{self.kind}".'
            )
        if name in self._claimed:
            raise UserError(f"{self._claimed[name]} ({origin} too).")
        first = self._origin.get(name, origin)
        if first != origin:
            conflict = (
                f"two {self.kind}s are called {name!r}: {first} and {origin}; "
                "rename or uninstall one of them"
            )
            if self._is_of_package(first):
                raise UserError(f"{conflict}.")
            self._remove(name, conflict)
            if not self._is_of_package(origin):
                self._claimed[name] = conflict
                raise UserError(f"{conflict}.")
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
        if name in self._claimed:
            raise UserError(f"{self._claimed[name]}.")
        unusable = "".join(
            f" ({origin} cannot be used: {why})" for origin, why in sorted(self.broken.items())
        )
        raise UserError(
            f"unknown {self.kind} {shown(name)}{did_you_mean(name, self._items)}{unusable}"
        )

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

    def is_ours(self, name: str) -> bool:
        """Whether the class called ``name`` belongs to this project, and not to another installed package."""
        return self._is_of_package(self.origin(name))

    def withdraw(self, name: str, error: Exception) -> None:
        """Take a class of another package out because it does not work, and list it as broken.

        Raises:
            Exception: ``error`` itself, where the class is ours: that is a bug to be seen.
        """
        if self.is_ours(name):
            raise error
        self._remove(name, _reason(error))

    def _remove(self, name: str, why: str) -> None:
        self.broken[self._origin.pop(name)] = why
        del self._items[name]

    def _is_of_package(self, origin: str) -> bool:
        return origin.startswith(f"{self.package}.")

    def _load(self) -> None:
        with self._lock:  # another thread waits until all are there
            if self._loaded:
                return
            self._loaded = True  # before importing: a module may itself look something up
            try:
                self._load_package()
                self._load_entry_points()
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

    def _load_entry_points(self) -> None:
        try:
            points = list(importlib.metadata.entry_points(group=self.group))
        except Exception as error:  # metadata of some installed package that cannot be read
            self.broken[f"entry points {self.group}"] = _reason(error)
            return
        for point in points:
            before = dict(self._items)
            try:
                self._load_entry_point(point)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # even sys.exit: a foreign package must not stop ours
                self.broken[f"entry point {point.value}"] = _reason(error)
                for name in self._items.keys() - before.keys():
                    del self._items[name], self._origin[name]

    def _load_entry_point(self, point: importlib.metadata.EntryPoint) -> None:
        """A plug-in names a class (registered here if its module did not) or a module that registers its own."""
        thing = point.load()
        if isinstance(thing, type):
            self.register(thing)  # type: ignore[arg-type]
        elif not isinstance(thing, ModuleType):
            raise UserError(
                f"{point.value} is {type(thing).__name__}, expected a class or a module."
            )
        module = thing.__module__ if isinstance(thing, type) else thing.__name__
        added = [
            name
            for name, origin in self._origin.items()
            if origin == module or origin.startswith(f"{module}.")
        ]
        if not added:
            raise UserError(f"{point.value} registers no {self.kind}.")
        for name in added:
            self._check_declaration(self._items[name], self._origin[name])

    def _check_declaration(self, item: T, origin: str) -> None:
        """Raise a UserError unless a class of another package can be used like ours."""
        if self.base:
            module, _, name = self.base.partition(":")
            base = getattr(importlib.import_module(module), name)
            if not isinstance(item, type) or not issubclass(item, base):
                raise UserError(f"{origin} is no {name}, expected a subclass of {module}.{name}.")
        from benchmark.core.hparam import HParam  # which needs this module

        for attribute, entry in (("hparams", HParam), ("options", HParam), ("variants", Mapping)):
            table = getattr(item, attribute, {})
            if not isinstance(table, Mapping):
                raise UserError(f"{attribute} of {origin} is {type(table).__name__}, not a table.")
            wrong = [key for key, value in table.items() if not isinstance(value, entry)]
            if wrong:
                raise UserError(f"{attribute} of {origin}: {wrong[0]!r} is no {entry.__name__}.")


def _origin_of(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"


def _reason(error: BaseException) -> str:
    """Why something of another package cannot be used, on one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "an error without a text"
    if isinstance(error, UserError):
        return text.rstrip(".")[:_LONGEST_REASON]
    kind = type(error).__name__
    return (f"{kind}: {text}" if text else kind)[:_LONGEST_REASON]


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


ALGORITHMS: Registry = Registry(
    "algorithm", "algorithms", "shortcutbed.algorithms", "benchmark.core.algorithm:Algorithm"
)
DATASETS: Registry = Registry(
    "dataset", "datasets", "shortcutbed.datasets", "benchmark.core.dataset:DatasetSource"
)
BACKBONES: Registry = Registry(
    "backbone", "benchmark.models", "shortcutbed.backbones", "benchmark.models.base:Backbone"
)
EXPLAINERS: Registry = Registry(
    "explainer",
    "benchmark.explain",
    "shortcutbed.explainers",
    "benchmark.explain.base:HeatmapExplainer",
)
EXPLANATION_METRICS: Registry = Registry(
    "explanation metric",
    "benchmark.explain",
    "shortcutbed.explanation_metrics",
    "benchmark.explain.metrics:ExplanationMetric",
)
LAUNCHERS: Registry = Registry(
    "launcher",
    "benchmark.launch.executors",
    "shortcutbed.launchers",
    "benchmark.launch.executor:Executor",
)
