"""Registries of classes by name.

A registry imports every module of its package and every installed plug-in.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from benchmark.core.errors import UserError, shown

T = TypeVar("T")

#: Largest number of characters of the reason why a class of another package cannot be used.
_MAX_REASON = 300


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name, which lists similar or all names."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    if not known:
        return "; there are none."
    listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"; there are: {listed}."


class Registry(Generic[T]):
    """The classes of one kind by name.

    ShortcutBed's own classes are those of the package. Classes of other packages are found through
    entry points and never stop ShortcutBed's own: those that cannot be used are listed in
    ``broken``.

    Args:
        kind: What the classes are called in messages, such as ``"algorithm"``.
        package: Package whose modules are imported on first use.
        group: Entry-point group of installed packages.
        base: ``"module:Class"`` that classes of other packages must inherit from; empty for none.
            It is imported only if there are such classes.
    """

    def __init__(self, kind: str, package: str, group: str, base: str = "") -> None:
        self.kind = kind
        self.package = package
        self.group = group
        self.base = base
        #: Why a module, class or entry point cannot be used, by its name.
        self.broken: dict[str, str] = {}
        self._items: dict[str, T] = {}
        self._origin: dict[str, str] = {}
        self._families: dict[str, Any] = {}
        #: Conflicts of two other packages, by the name that both of them use.
        self._conflicts: dict[str, str] = {}
        self._loaded = False
        self._lock = threading.RLock()

    def register(self, item: T) -> T:
        """Register a class under its ``name``. Use it as a decorator.

        Raises:
            UserError: If the class has no name, or if another class has the same name.
                ShortcutBed's own class then keeps the name. Of two classes of other packages
                neither can be used, since the choice would depend on the order of installation.
        """
        name = getattr(item, "name", "")
        origin = _origin_of(item)
        if not isinstance(name, str) or not name:
            raise UserError(
                f'{origin} has no name, expected a class attribute such as name = "my_{self.kind}".'
            )
        if name in self._conflicts:
            raise UserError(f"{self._conflicts[name]} ({origin} too).")
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
                self._conflicts[name] = conflict
                raise UserError(f"{conflict}.")
        self._items[name] = item
        self._origin[name] = origin
        return item

    def register_family(self, family: Any) -> Any:
        """Register the classes of another library under one name. Use it as a decorator.

        Args:
            family: A class with a ``name``, a ``doc``, and a static method ``member(name)`` that
                returns the class of one name of the library. ``get("timm:resnet18")`` calls
                ``member("resnet18")`` of the family ``timm``.
        """
        self._families[family.name] = family
        return family

    def families(self) -> dict[str, str]:
        """Return the documentation of each family by its name."""
        self._load()
        return {name: family.doc for name, family in sorted(self._families.items())}

    def get(self, name: str) -> T:
        """Return the class with a name, or ``family:member``.

        Raises:
            UserError: If there is none. The message contains similar names and the modules that
                could not be imported.
        """
        self._load()
        if name in self._items:
            return self._items[name]
        if name in self._conflicts:
            raise UserError(f"{self._conflicts[name]}.")
        first, colon, member = name.partition(":")
        if first in self._families:
            found: T = self._families[first].member(member)
            return found
        if colon and first in self._items:
            raise UserError(f"{name!r} has the option {member!r}, expected {first}:option=value.")
        unusable = "".join(
            f" ({origin} cannot be used: {why})" for origin, why in sorted(self.broken.items())
        )
        similar = did_you_mean(name, [*self._items, *self._families])
        raise UserError(f"unknown {self.kind} {shown(name)}{similar}{unusable}")

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._load()
        return sorted(self._items)

    def origin(self, name: str) -> str:
        """Return the module and the name of a class, joined by a dot."""
        self.get(name)
        return self._origin[name]

    def known_modules(self) -> dict[str, str]:
        """Return the modules of the classes registered so far, by name. Imports nothing."""
        return {name: getattr(item, "__module__", "") for name, item in self._items.items()}

    def is_ours(self, name: str) -> bool:
        """Return True if a class belongs to ShortcutBed and not to another installed package."""
        return self._is_of_package(self.origin(name))

    def withdraw(self, name: str, error: Exception) -> None:
        """Remove a class of another package that does not work, and list it as broken.

        Raises:
            Exception: ``error`` itself if the class is ShortcutBed's own, since that is a bug.
        """
        if self.is_ours(name):
            raise error
        self._remove(name, _reason(error))

    @contextmanager
    def only_within(self, *items: T) -> Iterator[None]:
        """Register classes inside a block only, for tests and notebooks.

        What is registered in other ways inside the block is removed at its end, too.
        """
        self._load()
        before = dict(self._items), dict(self._origin)
        try:
            for item in items:
                self.register(item)
            yield
        finally:
            self._items, self._origin = before

    def _remove(self, name: str, why: str) -> None:
        self.broken[self._origin.pop(name)] = why
        del self._items[name]

    def _is_of_package(self, origin: str) -> bool:
        return origin.startswith(f"{self.package}.")

    def _load(self) -> None:
        with self._lock:
            if self._loaded:
                return
            self._loaded = True  # Set first: a module may look up a name while it is imported.
            try:
                self._load_package()
                self._load_entry_points()
            except BaseException:
                self._loaded = False  # A conflict or a bug must be raised at every call.
                raise

    def _load_package(self) -> None:
        spec = importlib.util.find_spec(self.package)
        # Check before any code of another package runs.
        _check_package(self.package, spec.origin if spec else None)
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                self._import(f"{self.package}.{module.name}")

    def _import(self, module: str) -> None:
        try:
            importlib.import_module(module)
        except UserError:
            raise
        except ImportError as error:  # An optional dependency is missing.
            self.broken[module] = str(error)

    def _load_entry_points(self) -> None:
        try:
            points = list(importlib.metadata.entry_points(group=self.group))
        except Exception as error:  # The metadata of an installed package cannot be read.
            self.broken[f"entry points {self.group}"] = _reason(error)
            return
        for point in points:
            before = dict(self._items)
            try:
                self._load_entry_point(point)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # Even sys.exit in another package must not stop us.
                self.broken[f"entry point {point.value}"] = _reason(error)
                for name in self._items.keys() - before.keys():
                    del self._items[name], self._origin[name]

    def _load_entry_point(self, point: importlib.metadata.EntryPoint) -> None:
        """Load a plug-in: a class, or a module that registers its own classes."""
        loaded = point.load()
        if isinstance(loaded, type):
            self.register(loaded)  # type: ignore[arg-type]
        elif not isinstance(loaded, ModuleType):
            raise UserError(
                f"{point.value} is {type(loaded).__name__}, expected a class or a module."
            )
        module = loaded.__module__ if isinstance(loaded, type) else loaded.__name__
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
        """Check that a class of another package can be used.

        Raises:
            UserError: If it cannot.
        """
        if self.base:
            module, _, name = self.base.partition(":")
            base = getattr(importlib.import_module(module), name)
            if not isinstance(item, type) or not issubclass(item, base):
                raise UserError(f"{origin} is not a subclass of {module}.{name}.")
        from benchmark.core.hparam import HParam  # Imported here because it imports this module.

        for attribute, entry in (("hparams", HParam), ("options", HParam), ("variants", Mapping)):
            table = getattr(item, attribute, {})
            if not isinstance(table, Mapping):
                raise UserError(f"{attribute} of {origin} is {type(table).__name__}, not a table.")
            wrong = [key for key, value in table.items() if not isinstance(value, entry)]
            if wrong:
                raise UserError(f"{attribute} of {origin}: {wrong[0]!r} is not {entry.__name__}.")


def _origin_of(item: object) -> str:
    return f"{getattr(item, '__module__', '?')}.{getattr(item, '__qualname__', repr(item))}"


def _reason(error: BaseException) -> str:
    """Return why something of another package cannot be used, on one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "an error without a text"
    if isinstance(error, UserError):
        return text.rstrip(".")[:_MAX_REASON]
    kind = type(error).__name__
    return (f"{kind}: {text}" if text else kind)[:_MAX_REASON]


def _check_package(package: str, file: str | None) -> None:
    """Check that a top-level package is ShortcutBed's own.

    Their names are common, so that another package could come first on the path.

    Raises:
        UserError: If it is another package.
    """
    if "." in package:
        return
    ours = Path(__file__).resolve().parents[2] / package / "__init__.py"
    if file is None or Path(file).resolve() != ours:
        where = file or "a folder without __init__.py"
        raise UserError(
            f"the import name {package!r} belongs to another package ({where}), expected "
            f"ShortcutBed's own {package}/; use a virtual environment without that package, or run "
            f"`pip uninstall {package}`."
        )
    if package == "datasets":
        try:
            distribution = importlib.metadata.distribution("datasets")
        except importlib.metadata.PackageNotFoundError:
            return
        raise UserError(
            f"Hugging Face's package datasets {distribution.version} is installed in this "
            "environment and has the same import name as ShortcutBed's datasets/; use a virtual "
            "environment without it, or run `pip uninstall datasets`."
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
TRACKERS: Registry = Registry(
    "tracker",
    "benchmark.tracking",
    "shortcutbed.trackers",
    "benchmark.tracking.base:Tracker",
)
