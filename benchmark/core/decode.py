"""Decode JSON into typed dataclasses.

Types, ranges, lengths and finiteness are checked once, when a file is read.
``decode(kind, value, where)`` follows the annotations of a dataclass. A field with a default may be
missing, as in files of earlier versions. Names that the class does not have are ignored. Values are
never converted: an integer stays an integer where a float is expected, so that writing what was
read changes nothing.
"""

from __future__ import annotations

import functools
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

from benchmark.core.errors import DamagedError, shown
from benchmark.core.text import one_line

T = TypeVar("T")
Check: TypeAlias = Callable[[Any], Any]

#: Largest depth of nested tables and lists in free content.
MAX_DEPTH = 8
#: Largest number of characters of a string.
MAX_TEXT_LENGTH = 1_000_000
#: Largest number of characters of the name of an entry.
_MAX_NAME_LENGTH = 10_000


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both inclusive."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Longest:
    """Largest number of characters of a string, or of items of a list or table."""

    length: int


@dataclass(frozen=True)
class Matching:
    """Pattern that a whole string must match.

    Attributes:
        pattern: A regular expression.
        meaning: Description of such strings, for messages.
    """

    pattern: str
    meaning: str


#: Types of fields.
Count: TypeAlias = Annotated[int, Between(0, 2**60)]
Positive: TypeAlias = Annotated[int, Between(1, 2**60)]
Name: TypeAlias = Annotated[str, Longest(_MAX_NAME_LENGTH)]
Text: TypeAlias = Annotated[str, Longest(MAX_TEXT_LENGTH)]
Key: TypeAlias = Annotated[str, Matching("[0-9a-f]{16}", "the key of a run")]
Seconds: TypeAlias = Annotated[float, Between(0.0, 1e10)]
#: Seconds since 1970, up to the year 9999.
Time: TypeAlias = Annotated[float, Between(0.0, 253_402_300_799.0)]
#: Anything that JSON can hold, within bounds.
Json: TypeAlias = Any


class _WrongError(Exception):
    """A value that a check rejects.

    Args:
        reason: The value and what was expected.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def decode(kind: type[T], value: Any, where: str, place: str = "") -> T:
    """Decode parsed JSON into a value of type ``kind``.

    Args:
        kind: A dataclass, or any type that its fields may have: ``bool``, ``int``, ``float``,
            ``str``, ``None``, unions, ``tuple[X, ...]``, ``Mapping[str, X]``, ``Any``, dataclasses,
            and ``Annotated`` with bounds.
        value: The result of ``json.loads``.
        where: Name of the file, for messages.
        place: Position in the file, for messages.

    Raises:
        DamagedError: If the value has another type, is out of bounds or not finite, or if a field
            is missing.
    """
    hashable: Any = kind
    return _apply(_check(hashable), value, where, place)  # type: ignore[no-any-return]


def decode_fields(
    kind: type, value: Any, where: str, *, skip: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Decode some fields of a dataclass; the caller decodes the others.

    Args:
        kind: The dataclass.
        value: The result of ``json.loads``.
        where: Name of the file, for messages.
        skip: Names of the fields that are left out.

    Returns:
        The values by name, without fields that are missing in ``value`` and have a default.

    Raises:
        DamagedError: As in ``decode``.
    """
    return _apply(_fields(kind, skip), value, where)  # type: ignore[no-any-return]


def _apply(check: Check, value: Any, where: str, place: str = "") -> Any:
    try:
        return check(value)
    except _WrongError as error:
        path = one_line(".".join([*([place] if place else []), *reversed(error.path)]))[:200]
        raise DamagedError(f"{where} is damaged: {path or 'it'} {error.reason}.") from None


def field_types(kind: type) -> dict[str, Any]:
    """Return the types of the fields of a dataclass, including bounds, for ``decode``."""
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def _check(kind: Any) -> Check:
    """Return the function that checks values of a type and returns them as that type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _bounded(arguments[0], arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        return _sequence(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(arguments[1])
    if is_dataclass(kind):
        return _dataclass(kind)
    if kind is Any:
        return _json_value
    if kind is float:
        return _number
    if kind is str:
        return _text
    if kind in (int, bool, type(None)):
        return _exact_type(kind)
    raise TypeError(f"fields of stored files cannot have the type {kind}")


def _exact_type(kind: type) -> Check:
    """Accept a type but not its subclasses: a bool is not an int."""
    name = {int: "a whole number", bool: "true or false"}.get(kind, "null")

    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise _WrongError(f"is {_shown(value)}, expected {name}")
        return value

    return check


def _number(value: Any) -> Any:
    if type(value) is float:
        if math.isfinite(value):
            return value
    elif type(value) is int and -sys.float_info.max <= value <= sys.float_info.max:
        return value
    raise _WrongError(f"is {_shown(value)}, expected a finite number")


def _text(value: Any) -> Any:
    if type(value) is not str:
        raise _WrongError(f"is {_shown(value)}, expected a text")
    if len(value) > MAX_TEXT_LENGTH:
        raise _WrongError(f"has {len(value):,} characters, expected at most {MAX_TEXT_LENGTH:,}")
    if not value.isascii() and _SURROGATE.search(value):
        raise _WrongError("has a lone surrogate, expected valid Unicode")
    return value


def _bounded(kind: Any, bounds: tuple[Any, ...]) -> Check:
    inner = _check(kind)
    for bound in bounds:
        if isinstance(bound, Between):
            inner = _within(inner, bound)
        elif isinstance(bound, Longest):
            inner = _not_longer(inner, bound.length)
        elif isinstance(bound, Matching):
            inner = _matching(inner, re.compile(bound.pattern), bound.meaning)
    return inner


def _within(inner: Check, bound: Between) -> Check:
    low, high = bound.low, bound.high

    def check(value: Any) -> Any:
        checked = inner(value)
        if checked is not None and not low <= checked <= high:
            expected = f"at least {low:,}" if checked < low else f"at most {high:,}"
            raise _WrongError(f"is {_shown(value)}, expected {expected}")
        return checked

    return check


def _not_longer(inner: Check, length: int) -> Check:
    def check(value: Any) -> Any:
        checked = inner(value)
        if checked is not None and len(checked) > length:
            raise _WrongError(f"has a length of {len(checked):,}, expected at most {length:,}")
        return checked

    return check


def _matching(inner: Check, pattern: re.Pattern[str], meaning: str) -> Check:
    def check(value: Any) -> Any:
        checked = inner(value)
        if pattern.fullmatch(checked) is None:
            raise _WrongError(f"is {_shown(value)}, expected {meaning}")
        return checked

    return check


def _union(kinds: tuple[Any, ...]) -> Check:
    """Accept the first type that fits; a message gives the reason of the last one."""
    nullable = type(None) in kinds
    checks = [_check(kind) for kind in kinds if kind is not type(None)]

    def check(value: Any) -> Any:
        if value is None and nullable:
            return None
        for inner in checks[:-1]:
            try:
                return inner(value)
            except _WrongError:
                continue
        return checks[-1](value)

    return check


def _sequence(kinds: tuple[Any, ...]) -> Check:
    """Decode a list into a tuple: ``(X, ...)`` of any length, ``(X, Y)`` of exactly two items."""
    size = None if kinds[-1] is Ellipsis else len(kinds)
    checks = [_check(kind) for kind in kinds if kind is not Ellipsis]

    def check(value: Any) -> Any:
        if type(value) not in (list, tuple):
            raise _WrongError(f"is {_shown(value)}, expected a list")
        if size is not None and len(value) != size:
            raise _WrongError(f"has {len(value)} items, expected {size}")
        checked: list[Any] = []
        try:
            for item in value:
                checked.append(checks[len(checked) % len(checks)](item))
        except _WrongError as error:
            error.path.append(str(len(checked)))
            raise
        return tuple(checked)

    return check


def _mapping(kind: Any) -> Check:
    inner = _check(kind)

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise _WrongError(f"is {_shown(value)}, expected a table")
        checked: dict[str, Any] = {}
        name = ""
        try:
            for name, item in value.items():
                if len(name) > _MAX_NAME_LENGTH or not name.isascii():
                    _check_name(name)
                checked[name] = inner(item)
        except _WrongError as error:
            error.path.append(name)
            raise
        return checked

    return check


def _dataclass(kind: Any) -> Check:
    check_fields = _fields(kind, frozenset())
    return lambda value: kind(**check_fields(value))


@functools.cache
def _fields(kind: Any, skip: frozenset[str]) -> Check:
    """Return the function that checks the fields of a dataclass and returns them by name."""
    hints = field_types(kind)
    wanted = [f for f in fields(kind) if f.name not in skip]
    checks = [(f.name, _check(hints[f.name])) for f in wanted]
    needed = {f.name for f in wanted if f.default is MISSING and f.default_factory is MISSING}

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise _WrongError(f"is {_shown(value)}, expected a table")
        if not needed <= value.keys():
            raise _WrongError(f"lacks {', '.join(sorted(needed - value.keys()))}")
        decoded: dict[str, Any] = {}
        name = ""
        try:
            for name, inner in checks:
                if name in value:
                    decoded[name] = inner(value[name])
        except _WrongError as error:
            error.path.append(name)
            raise
        return decoded

    return check


def _json_value(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Accept any finite JSON value of limited depth and return it unchanged."""
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is int or kind is float:
        return _number(value)
    if value is None or kind is bool:
        return value
    if kind not in (list, tuple, dict):
        raise _WrongError(f"is {_shown(value)}, which JSON cannot hold")
    if depth == 0:
        raise _WrongError("is nested too deeply")
    name: Any = ""
    try:
        for name, item in value.items() if kind is dict else enumerate(value):
            if kind is dict:
                _text(name)
            _json_value(item, depth - 1)
    except _WrongError as error:
        error.path.append(str(name))
        raise
    return value


def _check_name(value: Any) -> Any:
    """Check the name of an entry in a table."""
    if len(value) > _MAX_NAME_LENGTH:
        raise _WrongError(
            f"has a name of {len(value):,} characters, expected at most {_MAX_NAME_LENGTH:,}"
        )
    return _text(value)


def _shown(value: Any) -> str:
    """Return a short representation of a value for a message."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return one_line(shown(value))


_SURROGATE = re.compile("[\ud800-\udfff]")
