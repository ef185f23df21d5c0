"""Seeded mutations of bytes, JSON, arrays and text."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

#: Values that no field expects.
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, -7, 3, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, -0.0, 1e308,
    -1e308, 1e-320, float("nan"), float("inf"), float("-inf"), "", " ", "x", "nan", "1", "erm",
    "val_accuracy", "/", "..", "a/b", "\x1b[31mred\x1b[0m", "a\nb", "a\tb", "a\x00b", "=1+1", "+1",
    "-1", "@x", "<script>alert(1)</script>", "$\\frac{1}{2}$ & % # _ { } ~ ^", "| a | b |", "ü–±∞",
    "\u202eabc", "\ud800", "x" * 5000, "9" * 5000, "²", "\u0665", [], [None], [[]], [0], [1, 2, 3],
    ["a"], [[1, 2], [3]], [[[1]]], {}, {"a": 1}, {"": None}, {"schema": 1},
)  # fmt: skip

#: Whole files that are valid JSON and nothing else that is expected.
ODD_FILES = (
    b"", b" ", b"null", b"[]", b"{}", b"3", b'"text"', b"NaN", b"true", b"[" * 100_000,
    b"[" * 3000 + b"]" * 3000, b'{"a":' * 100_000, b"9" * 6000, b"\xff\xfe", b"\xef\xbb\xbf{}",
    b"\x00" * 64, b'{"schema": 1}', b"\x1b[2J",
)  # fmt: skip


def mutate_json(chance: random.Random, text: bytes) -> tuple[str, bytes]:
    """Return a JSON text with one to three changed values or damaged bytes, and the mutation."""
    if chance.random() < 0.2:
        return mutate_bytes(chance, text, ODD_FILES)
    value = json.loads(text)
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value, what = _change(chance, value)
        done.append(what)
    return ", ".join(done), dump(value)


def dump(value: Any) -> bytes:
    """Return JSON without any check, with NaN, infinities and lone surrogates."""
    return json.dumps(value).encode()


def mutate_bytes(
    chance: random.Random, content: bytes, whole: tuple[bytes, ...] = ()
) -> tuple[str, bytes]:
    """Bytes that were cut, flipped, repeated, overwritten or replaced."""
    kinds = ["cut", "flip", "repeat", "insert", "zero", "drop", *(["replace"] * 3 if whole else [])]
    kind = chance.choice(kinds)
    if kind == "replace":
        return "replaced", chance.choice(whole)
    if not content:
        return "extended", b"\x00"
    at = chance.randrange(len(content))
    length = min(len(content) - at, chance.choice((1, 2, 8, 100)))
    if kind == "cut":
        return f"cut at {at}", content[:at]
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 3))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return "bits flipped", bytes(changed)
    if kind == "repeat":
        return f"repeated at {at}", content[: at + length] + content[at:]
    if kind == "insert":
        junk = chance.choice((b"\xff", b"\x00", b"\n", b"{", b'"', b"\xed\xa0\x80", b"\x1b[1m"))
        return f"{junk!r} inserted at {at}", content[:at] + junk + content[at:]
    if kind == "zero":
        return f"zeros at {at}", content[:at] + bytes(length) + content[at + length :]
    return f"dropped at {at}", content[:at] + content[at + length :]


def _change(chance: random.Random, value: Any) -> tuple[Any, str]:
    """One node of a JSON value changed."""
    value = copy.deepcopy(value)
    path = random_path(chance, value)
    if not path:
        return copy.deepcopy(chance.choice(ODD_VALUES)), "the whole replaced"
    parent = value
    for part in path[:-1]:
        parent = parent[part]
    last = path[-1]
    where = "/".join(map(str, path))
    kind = chance.choice(
        ("replace", "replace", "replace", "delete", "retype", "swap", "grow", "rename", "wrap")
    )
    if kind == "delete":
        del parent[last]
    elif kind == "retype":
        parent[last] = _retyped(chance, parent[last])
    elif kind == "swap":
        other = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        parent[last], parent[other] = parent[other], parent[last]
    elif kind == "grow":
        parent[last] = _grown(chance, parent[last])
    elif kind == "rename" and isinstance(parent, dict):
        parent[chance.choice(("", "x", "\x1b[0m", str(last) + "s", "a/b"))] = parent.pop(last)
    elif kind == "wrap":
        parent[last] = chance.choice(([parent[last]], {"a": parent[last]}))
    else:
        kind = "replace"
        parent[last] = copy.deepcopy(chance.choice(ODD_VALUES))
    return value, f"{kind} {where}"


def random_path(chance: random.Random, value: Any) -> list[Any]:
    """Return the path to a random node; each level is the last with probability one half."""
    path: list[Any] = []
    while isinstance(value, dict | list) and value and (not path or chance.random() < 0.65):
        key = (
            chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        )
        path.append(key)
        value = value[key]
    return path


def _retyped(chance: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int | float):
        return chance.choice(
            (str(value), float(value) + 0.5, -value, value * 10**6, [value], bool(value))
        )
    if isinstance(value, str):
        return chance.choice(
            ([value], {value: value}, len(value), value.encode().hex(), value + "\n")
        )
    if isinstance(value, list):
        return chance.choice(
            ({str(i): v for i, v in enumerate(value)}, json.dumps(value), value[::-1])
        )
    return chance.choice((list(value), list(value.items()), json.dumps(value)))


def _grown(chance: random.Random, value: Any) -> Any:
    if isinstance(value, list):
        return chance.choice(
            (value + value, [*value, chance.choice(ODD_VALUES)], value[:-1], [value, value])
        )
    if isinstance(value, dict):
        return {
            **value,
            chance.choice(("extra", "", "test\x1b[1m", "=x")): chance.choice(ODD_VALUES),
        }
    if isinstance(value, str):
        return value * 3 + chance.choice(("", "\x1b[1m", "\n", ","))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return chance.choice((value + 1, value * 1000, -value - 1))
    return [value]


def mutate_log(chance: random.Random, text: bytes) -> tuple[str, bytes]:
    """A log with one line changed, lost, repeated or moved."""
    lines = text.splitlines(keepends=True)
    if not lines or chance.random() < 0.25:
        return mutate_bytes(chance, text, ODD_FILES)
    row = chance.randrange(len(lines))
    kind = chance.choice(("value", "value", "value", "drop", "repeat", "move"))
    if kind == "value":
        what, changed = mutate_json(chance, lines[row])
        lines[row] = changed + b"\n"
        return f"line {row}: {what}", b"".join(lines)
    if kind == "drop":
        del lines[row]
    elif kind == "repeat":
        lines.insert(row, lines[row])
    else:
        lines.insert(chance.randrange(len(lines)), lines.pop(row))
    return f"line {row}: {kind}", b"".join(lines)


def mutate_npz(chance: random.Random, content: bytes) -> tuple[str, bytes]:
    """An archive of arrays with one array changed, lost or renamed, or its bytes damaged."""
    if chance.random() < 0.3:
        return mutate_bytes(
            chance, content, (b"", b"PK\x05\x06" + bytes(18), b"hello", b"\x93NUMPY")
        )
    with np.load(io.BytesIO(content)) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    name = chance.choice(list(arrays))
    kind, change = chance.choice(list(_ARRAYS.items()))
    raw: bytes | None = None
    if kind == "lost":
        del arrays[name]
    elif kind == "renamed":
        arrays[chance.choice(("x", name + "/", "../" + name, "\x1b[1m"))] = arrays.pop(name)
    elif kind == "huge":
        del arrays[name]
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
        raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    else:
        arrays[name] = change(chance, arrays[name])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    if raw is not None:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(name + ".npy", raw)
    return f"{name} {kind}", buffer.getvalue()


Change = Callable[[random.Random, np.ndarray], np.ndarray]

_ARRAYS: dict[str, Change] = {
    "lost": lambda chance, a: a,
    "renamed": lambda chance, a: a,
    "huge": lambda chance, a: a,
    "text": lambda chance, a: a.astype(str),
    "objects": lambda chance, a: a.astype(object),
    "complex": lambda chance, a: a.astype(complex) if a.dtype.kind in "iuf" else a,
    "bool": lambda chance, a: a.astype(bool) if a.dtype.kind in "iufb" else a,
    "float": lambda chance, a: a.astype(float) + 0.5 if a.dtype.kind in "iuf" else a,
    "small": lambda chance, a: a.astype(np.int8) if a.dtype.kind in "iuf" else a,
    "scalar": lambda chance, a: np.array(a.flat[0]) if a.size else np.array(0),
    "empty": lambda chance, a: np.atleast_1d(a)[:0],
    "shorter": lambda chance, a: np.atleast_1d(a)[:-1],
    "longer": lambda chance, a: np.concatenate([a, a[:1]]) if a.ndim else a,
    "deeper": lambda chance, a: a[None],
    "flat": lambda chance, a: a.reshape(-1),
    "transposed": lambda chance, a: a.T,
    "negative": lambda chance, a: -a if a.dtype.kind in "if" else a,
    "large": lambda chance, a: a.astype(float) * 1e15 if a.dtype.kind in "iuf" else a,
    "nan": lambda chance, a: np.full(a.shape, np.nan),
    "infinite": lambda chance, a: np.full(a.shape, np.inf),
    "constant": lambda chance, a: np.zeros_like(a),
    "shuffled": lambda chance, a: (
        np.random.default_rng(chance.randrange(99)).permutation(a) if a.ndim else a
    ),
    "dates": lambda chance, a: np.zeros(a.shape, "datetime64[s]"),
    "records": lambda chance, a: np.zeros(a.shape, [("a", "i4"), ("b", "f8")]),
}  # fmt: skip


def write_toml(chance: random.Random, values: dict[str, Any]) -> str:
    """A sweep file with this content, in a random one of the ways in which TOML can say it."""
    lines: list[str] = []
    plain = [(name, value) for name, value in values.items() if not isinstance(value, dict)]
    tables = [(name, value) for name, value in values.items() if isinstance(value, dict)]
    chance.shuffle(plain)
    chance.shuffle(tables)
    late: list[tuple[str, dict[str, Any]]] = []
    for name, value in tables:
        if chance.random() < 0.25:
            plain.append((name, value))
        else:
            late.append((name, value))
    for name, value in plain:
        lines += _toml_lines(chance, name, value)
    for name, value in late:
        _toml_table(chance, lines, _toml_key(chance, name), value)
    text = "\n".join(lines) + chance.choice(("\n", ""))
    return text.replace("\n", "\r\n") if chance.random() < 0.2 else text


def _toml_lines(chance: random.Random, name: str, value: Any) -> list[str]:
    if isinstance(value, dict) and value and chance.random() < 0.5:
        inner = list(value.items())
        chance.shuffle(inner)
        key = _toml_key(chance, name)
        return [f"{key}.{_toml_key(chance, k)} = {_toml_value(chance, v)}" for k, v in inner]
    space = chance.choice(("", " ", "   ", "\t"))
    comment = chance.choice(("", "", "  # a comment = [1]", " #"))
    found = [
        f"{space}{_toml_key(chance, name)}{space}={space}{_toml_value(chance, value)}{comment}"
    ]
    if chance.random() < 0.2:
        found.insert(0, chance.choice(("", "# datasets = []", "   ", "\t# ü")))
    return found


def _toml_table(chance: random.Random, lines: list[str], key: str, table: dict[str, Any]) -> None:
    lines.append(f"[{key}]{chance.choice(('', ' # table'))}")
    inner = list(table.items())
    chance.shuffle(inner)
    deeper = [
        (name, value) for name, value in inner if isinstance(value, dict) and chance.random() < 0.6
    ]
    for name, value in inner:
        if not any(name == other for other, _ in deeper):
            lines += _toml_lines(chance, name, value)
    for name, value in deeper:
        _toml_table(chance, lines, f"{key}.{_toml_key(chance, name)}", value)


def _toml_key(chance: random.Random, name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    if bare and chance.random() < 0.8:
        return name
    return f"'{name}'" if "'" not in name and chance.random() < 0.5 else json.dumps(name)


def _toml_value(chance: random.Random, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        styles = [str(value)]
        if value >= 0:
            styles += [f"+{value}", hex(value), bin(value), f"{value:_}", oct(value)]
        return chance.choice(styles)
    if isinstance(value, float):
        styles = [repr(value), f"{value:.17e}", f"+{value!r}" if value >= 0 else repr(value)]
        if value.is_integer() and abs(value) < 1e15:
            styles.append(str(int(value)))
        return chance.choice(styles)
    if isinstance(value, str):
        styles = [json.dumps(value), f'"""{value}"""', '"' + "".join(map(_escaped, value)) + '"']
        if "'" not in value:
            styles += [f"'{value}'", f"'''{value}'''"]
        return chance.choice(styles)
    if isinstance(value, list):
        between = chance.choice((", ", ",", ",\n  ", ", # one\n"))
        parts = [_toml_value(chance, v) for v in value]
        end = chance.choice(("", ",")) if parts else ""
        return "[" + between.join(parts) + end + chance.choice(("", " ", "\n")) + "]"
    inner = ", ".join(
        f"{_toml_key(chance, k)} = {_toml_value(chance, v)}" for k, v in value.items()
    )
    return "{ " + inner + " }"


def _escaped(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if letter in "ae:=" else letter


#: What may stand behind an equals sign in TOML and is not expected there.
ODD_TOML = (
    "nan", "inf", "-inf", "1e400", "-1", "0", "1", "10_000_000_000", "9" * 30, "9" * 5000,
    "1979-05-27", "07:32:00", "true", '""', '" "', '"\\u0000"', '"\\u001b[1m"', '"x"', "[]", "[[]]",
    "[1, 'a']", "{}", "{ a = 1 }", "[{ a = 1 }]", "0x7fffffffffffffffffff", "1e-400",
    '"' + "y" * 5000 + '"', "'nan'", '"1"', "[" * 500 + "]" * 500, "[" * 20_000 + "]" * 20_000,
    "{ a = " * 300 + "1" + " }" * 300, '"../../etc"', '"tiny:side=100000"',
    '"tiny:size=1000000000000"', '["tiny:bias=nan"]', '["erm:"]', '[":erm"]', "[0, -1]", "[1e3]",
    "1000000000", "[4294967296]", "[99999999999999999999]", '"²"', "1.5", "'''\n'''",
)  # fmt: skip


ODD_TABLES = (
    "budget", "fixed", "override", "override.erm", "override.x", "override.erm.budget", "a",
    "compute", "[fixed]", "override.erm.dataset", "override.tiny.augmentation", "augmentation",
)  # fmt: skip


def mutate_toml(chance: random.Random, text: str) -> tuple[str, bytes]:
    """Return a sweep file with one to three changed lines, or with damaged bytes."""
    if chance.random() < 0.15:
        return mutate_bytes(
            chance, text.encode(), (b"", b"\xff\xfe", b"\xef\xbb\xbf" + text.encode())
        )
    lines = text.splitlines()
    done = []
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        row = chance.randrange(len(lines))
        kind = chance.choice(
            ("value", "value", "value", "value", "key", "drop", "repeat", "move", "table")
        )
        name, equals, value = lines[row].partition("=")
        if kind == "value" and equals:
            lines[row] = f"{name}= {chance.choice(ODD_TOML)}"
        elif kind == "key" and equals:
            odd = chance.choice(
                ("x", '""', "steps", "lr", '"a.b"', name.strip() + "s", '"\\u001b"')
            )
            lines[row] = f"{odd} ={value}"
        elif kind == "drop":
            del lines[row]
        elif kind == "repeat":
            lines.insert(row, lines[row])
        elif kind == "move":
            lines.insert(chance.randrange(len(lines)), lines.pop(row))
        else:
            lines.insert(row, f"[{chance.choice(ODD_TABLES)}]")
        done.append(f"line {row} {kind}: {lines[min(row, len(lines) - 1)][:80] if lines else ''}")
        if not lines:
            break
    return ", ".join(done), "\n".join(lines).encode()
