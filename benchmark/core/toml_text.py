"""Values as TOML, which the standard library reads but does not write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def toml_document(values: Mapping[str, Any]) -> str:
    """Return a TOML document, with a table for each mapping at the top.

    Args:
        values: The content. None, which TOML does not have, is left out.
    """
    plain = {name: v for name, v in values.items() if v is not None and not isinstance(v, Mapping)}
    lines = [f"{toml_key(name)} = {toml_value(value)}" for name, value in plain.items()]
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{toml_key(name)}]"]
            lines += [
                f"{toml_key(str(key))} = {toml_value(item)}"
                for key, item in value.items()
                if item is not None
            ]
    return "\n".join(lines) + "\n"


def toml_key(name: str) -> str:
    """Return a key, in quotes if it needs them."""
    is_bare = name.replace("_", "a").replace("-", "a").isalnum() and name.isascii()
    return name if is_bare else toml_text(name)


def toml_value(value: Any) -> str:
    """Return a boolean, a number, a text, a list or an inline table."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return toml_text(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{toml_key(str(name))} = {toml_value(item)}" for name, item in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return repr(value) if isinstance(value, float) else str(value)


def toml_text(text: str) -> str:
    """Return a basic string of TOML."""
    escaped = "".join(
        {"\\": "\\\\", '"': '\\"'}.get(c, c if c.isprintable() else f"\\U{ord(c):08X}")
        for c in text
    )
    return f'"{escaped}"'
