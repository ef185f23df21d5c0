"""Test that values written as TOML are read back as they were."""

from __future__ import annotations

import tomllib

from benchmark.core.toml_text import toml_document


def test_a_document_is_read_back() -> None:
    values = {
        "title": 'quotes " and \\ and\nlines, ü',
        "datasets": ["a:b=1", "c"],
        "trials": [0, 1],
        "oracle": False,
        "rate": 1e-05,
        "budget": {"steps": 600, "nested": {"odd key": [1.5, True]}},
        "empty": {},
    }
    assert tomllib.loads(toml_document({**values, "none": None})) == values
