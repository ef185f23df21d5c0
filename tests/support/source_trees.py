"""Syntax trees of source files, parsed once for all tests of a process."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a source file, which must not be changed."""
    return ast.parse(path.read_text(encoding="utf-8"))
