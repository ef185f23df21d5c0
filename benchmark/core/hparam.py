"""Hyper-parameters, which the class of an algorithm declares.

Each has a default, a random distribution and a line of documentation.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from benchmark.core.errors import ErrorCollector, UserError, shown
from benchmark.core.registry import did_you_mean
from benchmark.core.seeds import seed_for

#: Largest number of characters of a text.
MAX_TEXT_LENGTH = 2_000
#: Largest side of small images. Larger ones use ``HParam.large``, as DomainBed's two regimes.
SMALL_SIDE = 64


@runtime_checkable
class Distribution(Protocol):
    """A distribution that values can be drawn from."""

    def draw(self, rng: np.random.Generator) -> Any: ...

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class LogUniform:
    """``base ** U(low, high)``. The bounds are exponents, as in DomainBed.

    Args:
        low: Smallest exponent.
        high: Largest exponent.
        base: The base.
        integer: True to truncate the value to an integer.
    """

    low: float
    high: float
    base: int = 10
    integer: bool = False

    def draw(self, rng: np.random.Generator) -> float | int:
        value = self.base ** float(rng.uniform(self.low, self.high))
        return int(value) if self.integer else value

    def __str__(self) -> str:
        return f"{self.base}^U({self.low:g}, {self.high:g})"


@dataclass(frozen=True)
class Uniform:
    """A real number, uniform in [low, high)."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.low, self.high))

    def __str__(self) -> str:
        return f"U({self.low:g}, {self.high:g})"


@dataclass(frozen=True)
class Choice:
    """One of the given values, all equally likely."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]

    def __str__(self) -> str:
        return "{" + ", ".join(str(v) for v in self.values) + "}"


@dataclass(frozen=True)
class HParam:
    """A hyper-parameter, or an option of a data set or a backbone.

    Args:
        default: Value in draw 0. Its type is the type of every value.
        random: Distribution of draws 1, 2, …; None keeps the default in every draw.
        doc: Description in one line, shown by ``python -m benchmark.sweep list algorithms --long``.
        large: Default and distribution for images above 64 pixels, if they differ.
        low: Smallest value; None for no bound. A registered number has both bounds, so that a
            typing mistake does not fill the memory of the machine.
        high: Largest value; None for no bound.
        choices: The allowed values; None for any.
        form: Regular expression that the whole of a text must match; None for any text.
        omit_default: True to leave the default out of specs. A hyper-parameter that is added to a
            published method, or an option that is added to a backbone, then does not change the
            keys of runs that do not use it.
    """

    default: Any
    random: Distribution | None = None
    doc: str = ""
    large: HParam | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] | None = None
    form: str | None = None
    omit_default: bool = False

    def at(self, side: int) -> HParam:
        """Return this hyper-parameter for images of ``side`` pixels."""
        return self.large if self.large is not None and side > SMALL_SIDE else self

    def draw(self, name: str, trial: int, draw: int) -> Any:
        """Return the value in a draw of a trial: the default in draw 0, otherwise a random one.

        The seed depends on trial, draw and name, but not on the algorithm. Methods that share a
        hyper-parameter have the same draws of it, and a new hyper-parameter does not change others.
        """
        if draw == 0 or self.random is None:
            return self.default
        return self.random.draw(np.random.default_rng(seed_for("hparam", trial, draw, name)))

    def with_random(self, name: str, given: Distribution | Mapping[str, Any]) -> HParam:
        """Return this hyper-parameter with another random distribution.

        Args:
            name: Name of the hyper-parameter, for messages.
            given: A distribution, or a table of a sweep file such as ``{"log_uniform": [-1, 2]}``.

        Raises:
            UserError: the table describes no distribution, or values of it are not allowed.
        """
        if isinstance(given, Mapping):
            given = _distribution(name, given, integer=type(self.default) is int)
        if isinstance(given, Choice):
            given = Choice(tuple(self.check(name, value) for value in given.values))
        for value in _ends(given):
            self.check(name, value)
        return replace(self, random=given)

    def grid_values(self, name: str, table: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the values of a grid, ``{"grid": [...]}``, in the type of this hyper-parameter.

        Args:
            name: Name of the hyper-parameter, for messages.
            table: The table of a sweep file.

        Raises:
            UserError: the table has no list, or a value is not allowed or is repeated.
        """
        values = table["grid"]
        if len(table) > 1 or not isinstance(values, list) or not values:
            raise UserError(
                f"{name} = {shown(dict(table))} is not a grid of values, expected "
                "{ grid = [value, …] }."
            )
        checked = tuple(self.check(name, value) for value in values)
        if len(set(checked)) < len(checked):
            raise UserError(f"{name}: the grid {shown(values)} contains a value twice.")
        return checked

    def check(self, name: str, value: Any) -> Any:
        """Return a value in the type of this hyper-parameter.

        Args:
            name: Name of the hyper-parameter, for messages.
            value: The value.

        Raises:
            UserError: If the value has the wrong type, is out of bounds, or is not allowed.
        """
        kind = type(self.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) <= sys.float_info.max else math.inf
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        if kind is not type(None) and type(value) is not kind:
            raise UserError(
                f"{name} = {shown(value)} is {_kind_name(value)}, "
                f"expected {_kind_name(self.default)} such as {self.default!r}."
            )
        self._check_value(name, value)
        return value

    def _check_value(self, name: str, value: Any) -> None:
        """Raise a UserError unless a value of the right type is allowed."""
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{name} = {value!r} is not finite, expected a number such as {self.default!r}."
            )
        if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
            raise UserError(
                f"{name} = {shown(value)} has {len(value):,} characters, "
                f"expected at most {MAX_TEXT_LENGTH:,}."
            )
        if isinstance(value, str) and not _is_plain(value):
            raise UserError(
                f"{name} = {shown(value)} has a control character or is not UTF-8, "
                "expected plain text."
            )
        if self.choices is not None and value not in self.choices:
            raise UserError(
                f"{name} = {shown(value)} is not one of {', '.join(map(repr, self.choices))}."
            )
        if self.form is not None and not re.fullmatch(self.form, value):
            raise UserError(
                f"{name} = {shown(value)} has the wrong form, expected one such as "
                f"{self.default!r}."
            )
        if (self.low is not None and value < self.low) or (
            self.high is not None and value > self.high
        ):
            low = "-inf" if self.low is None else f"{self.low:g}"
            high = "inf" if self.high is None else f"{self.high:g}"
            raise UserError(
                f"{name} = {shown(value)} is out of bounds, expected a value from {low} to {high}."
            )

    def parse(self, name: str, text: str) -> Any:
        """Parse a value from a command line.

        Args:
            name: Name of the hyper-parameter, for messages.
            text: The value as text.

        Raises:
            UserError: As in ``check``.
        """
        kind = type(self.default)
        try:
            if kind is bool:
                value: Any = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            elif kind is int and re.fullmatch(r"\s*[+-]?\d+\s*", text):
                value = int(text)  # A float would lose digits beyond the sixteenth.
            elif kind in (int, float):
                value = float(text)
            else:
                value = text
        except (KeyError, ValueError, OverflowError):
            raise UserError(
                f"{name} = {shown(text)} is not {_kind_name(self.default)} such as "
                f"{self.default!r}."
            ) from None
        return self.check(name, value)


def is_grid(value: Any) -> bool:
    """Return True if a value of a sweep file is a grid, ``{ grid = [value, …] }``."""
    return isinstance(value, Mapping) and "grid" in value


def resolve_values(
    declared: Mapping[str, HParam], given: Mapping[str, Any], owner: str, trial: int, draw: int
) -> dict[str, Any]:
    """Return the given hyper-parameters in their declared types.

    A distribution takes the place of the declared one: draw 0 has the declared default, and other
    draws are random.

    Args:
        declared: Hyper-parameters by name.
        given: A value, a ``Distribution``, or a table that describes one, for some of the names.
        owner: Name of the method, for messages.
        trial: Number of the trial.
        draw: Number of the draw.

    Raises:
        UserError: a name is not declared, or a value is not allowed.
        Problems: there are several such errors.
    """
    distributions = {
        name: value
        for name, value in given.items()
        if name in declared and isinstance(value, Mapping | Distribution)
    }
    errors = ErrorCollector()
    plain = {name: value for name, value in given.items() if name not in distributions}
    values = errors(check_values, declared, plain, owner) or {}
    for name, value in distributions.items():
        changed = errors(declared[name].with_random, f"{owner}: {name}", value)
        values[name] = changed and changed.draw(name, trial, draw)
    errors.finish()
    return values


def _distribution(name: str, table: Mapping[str, Any], *, integer: bool) -> Distribution:
    """Return the distribution that a table of a sweep file describes."""
    if len(table) == 1:
        ((kind, values),) = table.items()
        if kind == "choice" and isinstance(values, list) and values:
            return Choice(tuple(values))
        if kind == "log_uniform" and _is_range(values):
            return LogUniform(values[0], values[1], integer=integer)
        if kind == "uniform" and _is_range(values) and not integer:
            return Uniform(values[0], values[1])
    raise UserError(
        f"{name} = {shown(dict(table))} is not a distribution of its values, expected "
        "{ log_uniform = [low, high] } with exponents of 10, { choice = [value, …] } or, unless "
        "it is an integer, { uniform = [low, high] }."
    )


def _is_range(values: Any) -> bool:
    """Return whether values are a list of two numbers in ascending order."""
    if not isinstance(values, list) or len(values) != 2:
        return False
    return all(type(value) in (int, float) for value in values) and values[0] <= values[1]


def _ends(distribution: Distribution) -> list[float | int]:
    """Return the lowest and the highest value of a range; empty for other distributions."""
    ends: list[float | int] = []
    try:
        if isinstance(distribution, Uniform):
            ends = [float(distribution.low), float(distribution.high)]
        elif isinstance(distribution, LogUniform):
            exponents = (float(distribution.low), float(distribution.high))
            powers = [distribution.base**exponent for exponent in exponents]
            ends = [int(power) for power in powers] if distribution.integer else [*powers]
    except OverflowError:
        ends = [math.inf]
    return ends


def check_values(
    declared: Mapping[str, HParam], given: Mapping[str, Any], owner: str, what: str = "hparam"
) -> dict[str, Any]:
    """Return the given values in their declared types.

    Args:
        declared: The declared hyper-parameters by name.
        given: The values by name.
        owner: Name of the class that declares them, for messages.
        what: What the values are called in messages.

    Raises:
        UserError: If a name is not declared, or a value has the wrong type or is out of bounds.
        Problems: If there are several such mistakes.
    """

    def check(name: str, value: Any) -> Any:
        if name not in declared:
            raise UserError(f"{owner} has no {what} {name!r}{did_you_mean(name, declared)}")
        return declared[name].check(f"{owner}: {name}", value)

    errors = ErrorCollector()
    checked = {name: errors(check, name, value) for name, value in given.items()}
    errors.finish()
    return checked


def parse_values(
    declared: Mapping[str, HParam], texts: Mapping[str, str], owner: str, what: str = "option"
) -> dict[str, Any]:
    """Convert values given as text, such as options of a command line, to their declared types.

    Raises:
        UserError: an undeclared name, or a value of the wrong type or range.
        Problems: several of them.
    """

    def parse(name: str, text: str) -> Any:
        if name not in declared:
            raise UserError(f"{owner} has no {what} {name!r}{did_you_mean(name, declared)}")
        return declared[name].parse(f"{owner}: {name}", text)

    collect = ErrorCollector()
    parsed = {name: collect(parse, name, text) for name, text in texts.items()}
    collect.finish()
    return parsed


def _is_plain(text: str) -> bool:
    """Return True if a text can be written to UTF-8 files and can be a file name."""
    return not any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _kind_name(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
    }
    return names.get(type(value), type(value).__name__)
