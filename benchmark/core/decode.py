"""From JSON to typed dataclasses: types, ranges, lengths and finiteness are checked once, where a file is read.

``decode(Kind, value, where)`` follows the annotations of a dataclass. A field whose default is given may be missing, as
it is in files of earlier versions; names that the class does not know are ignored. Values are never converted: a whole
number stays one where a float is expected, so that what is read can be written again without a change.
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

#: How deep tables and lists of free content may be nested, and how many characters a text may have.
DEPTH, CHARACTERS = 8, 1_000_000
#: Characters that the name of an entry may have.
_NAME_CHARACTERS = 10_000


@dataclass(frozen=True)
class Between:
    """A bound on numbers, both ends included."""

    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Longest:
    """The most characters that a text may have, or the most items of a list or table."""

    length: int


@dataclass(frozen=True)
class Matching:
    """A pattern that a whole text must match.

    Attributes:
        pattern: a regular expression.
        meaning: what such a text is, for messages.
    """

    pattern: str
    meaning: str


#: Types of fields.
Count: TypeAlias = Annotated[int, Between(0, 2**60)]
Positive: TypeAlias = Annotated[int, Between(1, 2**60)]
Name: TypeAlias = Annotated[str, Longest(_NAME_CHARACTERS)]
Text: TypeAlias = Annotated[str, Longest(CHARACTERS)]
Key: TypeAlias = Annotated[str, Matching("[0-9a-f]{16}", "the key of a run")]
Seconds: TypeAlias = Annotated[float, Between(0.0, 1e10)]
#: Seconds since 1970, up to the year 9999.
Time: TypeAlias = Annotated[float, Between(0.0, 253_402_300_799.0)]
#: Anything that JSON can hold, within bounds.
Json: TypeAlias = Any


class _WrongError(Exception):
    """A value that a check refuses.

    Args:
        reason: what it is and what was expected.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def decode(kind: type[T], value: Any, where: str, place: str = "") -> T:
    """A value of type ``kind`` from parsed JSON.

    Args:
        kind: a dataclass, or any type that its fields may have: ``bool``, ``int``, ``float``, ``str``, ``None``,
            unions, ``tuple[X, ...]``, ``Mapping[str, X]``, ``Any``, dataclasses, and ``Annotated`` with bounds.
        value: what ``json.loads`` returned.
        where: the file, for messages.
        place: where in the file, for messages.

    Raises:
        DamagedError: the value has another type, is out of bounds, not finite, or lacks something.
    """
    hashable: Any = kind
    return _apply(_check(hashable), value, where, place)  # type: ignore[no-any-return]


def decode_fields(
    kind: type, value: Any, where: str, *, skip: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Decode some fields of a dataclass, for content that its caller completes.

    Args:
        kind: The dataclass.
        value: What ``json.loads`` returned.
        where: The file, for messages.
        skip: Names of the fields that are left out.

    Returns:
        The values by name; a field that has a default and is missing in ``value`` is left out.

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
    """The types of a dataclass's fields with their bounds, for ``decode``."""
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def _check(kind: Any) -> Check:
    """The function that checks values of a type and returns them as that type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _bounded(arguments[0], arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return _either(arguments)
    if origin is tuple:
        return _sequence(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _table(arguments[1])
    if is_dataclass(kind):
        return _record(kind)
    if kind is Any:
        return _free
    if kind is float:
        return _number
    if kind is str:
        return _text
    if kind in (int, bool, type(None)):
        return _exactly(kind)
    raise TypeError(f"{kind} is no type that a field of a stored file may have")


def _exactly(kind: type) -> Check:
    """Without subclasses: a bool is no int."""
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
    if len(value) > CHARACTERS:
        raise _WrongError(f"has {len(value):,} characters, expected at most {CHARACTERS:,}")
    if not value.isascii() and _SURROGATE.search(value):
        raise _WrongError("holds half a character, expected Unicode")
    return value


def _bounded(kind: Any, bounds: tuple[Any, ...]) -> Check:
    inner = _check(kind)
    for bound in bounds:
        if isinstance(bound, Between):
            inner = _within(inner, bound)
        elif isinstance(bound, Longest):
            inner = _not_longer(inner, bound.length)
        elif isinstance(bound, Matching):
            inner = _like(inner, re.compile(bound.pattern), bound.meaning)
    return inner


def _within(inner: Check, bound: Between) -> Check:
    low, high = bound.low, bound.high

    def check(value: Any) -> Any:
        found = inner(value)
        if found is not None and not low <= found <= high:
            expected = f"at least {low:,}" if found < low else f"at most {high:,}"
            raise _WrongError(f"is {_shown(value)}, expected {expected}")
        return found

    return check


def _not_longer(inner: Check, length: int) -> Check:
    def check(value: Any) -> Any:
        found = inner(value)
        if found is not None and len(found) > length:
            raise _WrongError(f"has a length of {len(found):,}, expected at most {length:,}")
        return found

    return check


def _like(inner: Check, pattern: re.Pattern[str], meaning: str) -> Check:
    def check(value: Any) -> Any:
        found = inner(value)
        if pattern.fullmatch(found) is None:
            raise _WrongError(f"is {_shown(value)}, expected {meaning}")
        return found

    return check


def _either(kinds: tuple[Any, ...]) -> Check:
    """The first type that fits; the reason of the last one is told, so None stands first or last alike."""
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
    """A list as a tuple: ``(X, ...)`` of any length, ``(X, Y)`` of exactly that."""
    size = None if kinds[-1] is Ellipsis else len(kinds)
    checks = [_check(kind) for kind in kinds if kind is not Ellipsis]

    def check(value: Any) -> Any:
        if type(value) not in (list, tuple):
            raise _WrongError(f"is {_shown(value)}, expected a list")
        if size is not None and len(value) != size:
            raise _WrongError(f"has {len(value)} items, expected {size}")
        found: list[Any] = []
        try:
            for item in value:
                found.append(checks[len(found) % len(checks)](item))
        except _WrongError as error:
            error.path.append(str(len(found)))
            raise
        return tuple(found)

    return check


def _table(kind: Any) -> Check:
    inner = _check(kind)

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise _WrongError(f"is {_shown(value)}, expected a table")
        found, name = {}, ""
        try:
            for name, item in value.items():
                if len(name) > _NAME_CHARACTERS or not name.isascii():
                    _name(name)
                found[name] = inner(item)
        except _WrongError as error:
            error.path.append(name)
            raise
        return found

    return check


def _record(kind: Any) -> Check:
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
        found: dict[str, Any] = {}
        name = ""
        try:
            for name, inner in checks:
                if name in value:
                    found[name] = inner(value[name])
        except _WrongError as error:
            error.path.append(name)
            raise
        return found

    return check


def _free(value: Any, depth: int = DEPTH) -> Any:
    """Free content: what JSON can hold, finite, of bounded depth; returned as it is."""
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
            _free(item, depth - 1)
    except _WrongError as error:
        error.path.append(str(name))
        raise
    return value


def _name(value: Any) -> Any:
    """The name of an entry in a table."""
    if len(value) > _NAME_CHARACTERS:
        raise _WrongError(
            f"is a name of {len(value):,} characters, expected at most {_NAME_CHARACTERS:,}"
        )
    return _text(value)


def _shown(value: Any) -> str:
    """A value in a message, short whatever it is."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return one_line(shown(value))


_SURROGATE = re.compile("[\ud800-\udfff]")
