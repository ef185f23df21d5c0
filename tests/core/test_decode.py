"""Typed decoding of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import pytest

from benchmark.core.decode import Between, Count, Key, Longest, Name, decode
from benchmark.core.errors import DamagedError, UserError


@dataclass(frozen=True)
class Inner:
    share: Annotated[float | None, Between(0.0, 1.0)] = None


@dataclass(frozen=True)
class Outer:
    count: Count
    flag: bool
    number: float
    name: Name
    key: Key
    pair: tuple[Name, Name] | None
    names: Annotated[tuple[Name, ...], Longest(3)]
    tables: Mapping[str, Inner]
    free: Mapping[str, Any] = field(default_factory=dict)


RIGHT: dict[str, Any] = {
    "count": 3,
    "flag": True,
    "number": 2,
    "name": "ä",
    "key": "0123456789abcdef",
    "pair": ["a", "b"],
    "names": ["x"],
    "tables": {"t": {"share": 0.5}, "u": {}},
    "free": {"a": [1, {"b": None}], "c": "d"},
}


def test_valid_values_are_returned_unchanged() -> None:
    found = decode(Outer, RIGHT, "file.json")
    assert found == Outer(
        3,
        True,
        2,
        "ä",
        "0123456789abcdef",
        ("a", "b"),
        ("x",),
        {"t": Inner(0.5), "u": Inner()},
        RIGHT["free"],
    )
    assert (
        type(found.number) is int
    )  # never converted: what is read can be written without a change
    assert json.loads(json.dumps(asdict(found))) == {
        **RIGHT,
        "tables": {"t": {"share": 0.5}, "u": {"share": None}},
    }
    assert decode(Outer, {**RIGHT, "of_a_later_version": 1}, "file.json") == found
    without = {name: value for name, value in RIGHT.items() if name != "free"}
    assert decode(Outer, without, "file.json").free == {}


WRONG: list[tuple[str, Any, str]] = [
    ("count", "3", "count is '3', expected a whole number"),
    ("count", True, "count is true, expected a whole number"),
    ("count", 3.0, "count is 3.0, expected a whole number"),
    ("count", -1, "count is -1, expected at least 0"),
    ("count", 2**61, "expected at most"),
    ("count", 10**5000, "count is"),
    ("count", None, "count is null"),
    ("flag", 1, "flag is 1, expected true or false"),
    ("number", math.nan, "number is nan, expected a finite number"),
    ("number", math.inf, "number is inf"),
    ("number", 10**400, "expected a finite number"),
    ("number", False, "number is false"),
    ("number", [1.0], "number is a list"),
    ("name", 3, "name is 3, expected a text"),
    ("name", "x" * 10_001, "name has a length of 10,001"),
    ("name", "\ud800", "name has a lone surrogate"),
    ("key", "../../elsewhere", "expected the key of a run"),
    ("key", "0123456789abcdef\n", "expected the key of a run"),
    ("pair", ["a"], "pair has 1 items, expected 2"),
    ("pair", ["a", 2], "pair.1 is 2, expected a text"),
    ("pair", "ab", "pair is 'ab', expected a list"),
    ("names", ["a", "b", "c", "d"], "names has a length of 4"),
    ("names", {"0": "a"}, "names is a table"),
    ("tables", [], "tables is a list, expected a table"),
    ("tables", {"t": 1}, "tables.t is 1, expected a table"),
    ("tables", {"t": {"share": 2}}, "tables.t.share is 2, expected at most 1"),
    ("tables", {"n" * 10_001: {}}, "has a name of 10,001 characters"),
    ("free", {"a": math.nan}, "free.a is nan"),
    ("free", {"a": {"\udc00": 1}}, "lone surrogate"),
    ("free", {"a": object()}, "which JSON cannot hold"),
]


@pytest.mark.parametrize(
    ("name", "value", "message"), WRONG, ids=[message for *_, message in WRONG]
)
def test_invalid_values_are_reported_in_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(DamagedError) as found:
        decode(Outer, {**RIGHT, name: value}, "file.json")
    sentence = str(found.value)
    assert sentence.startswith("file.json is damaged: ") and message in sentence
    assert "\n" not in sentence and len(sentence) < 500
    assert isinstance(found.value, UserError) and isinstance(found.value, ValueError)


@pytest.mark.parametrize("value", [None, [], "text", 3, True])
def test_no_table_at_all(value: Any) -> None:
    with pytest.raises(DamagedError, match=r"file\.json is damaged: it is .*, expected a table"):
        decode(Outer, value, "file.json")


def test_missing_fields_are_named_with_their_place() -> None:
    with pytest.raises(DamagedError, match=r"file\.json is damaged: at lacks flag, name\."):
        decode(
            Outer, {k: v for k, v in RIGHT.items() if k not in ("flag", "name")}, "file.json", "at"
        )


def test_free_content_has_a_bounded_depth() -> None:
    deep: Any = 1
    for _ in range(8):
        deep = [deep]
    assert decode(Outer, {**RIGHT, "free": {"a": deep}}, "f").free == {"a": deep}
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(DamagedError, match="nested too deeply"):
        decode(Outer, {**RIGHT, "free": {"a": deep}}, "f")
    while isinstance(deep, list):  # taken apart: deleting it at once would recurse
        deep = deep.pop()


def test_a_type_that_no_file_can_have_is_a_programming_error() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: set[int]

    with pytest.raises(TypeError, match="cannot have the type"):
        decode(Odd, {"value": []}, "f")
