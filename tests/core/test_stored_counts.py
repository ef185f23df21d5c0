"""Confusion counts as JSON: small tables as nested lists, large ones as their cells."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmark.core.errors import DamagedError
from benchmark.core.stored_counts import MAX_DENSE_CELLS, counts_to_json, parse_counts
from benchmark.core.summaries import DataSummary

CLASSES = 120
DATA = DataSummary(label_names=tuple(map(str, range(CLASSES))), splits={"test": 3})


def large() -> np.ndarray:
    counts = np.zeros((1, CLASSES, CLASSES), np.int64)
    counts[0, 3, 5] = 2
    counts[0, 119, 119] = 70_000
    return counts


def test_small_tables_stay_nested_lists() -> None:
    counts = np.arange(8).reshape(2, 2, 2)
    assert counts_to_json(counts) == counts.tolist()


def test_a_large_table_survives_json() -> None:
    assert large().size > MAX_DENSE_CELLS
    text = json.dumps(counts_to_json(large()))
    assert len(text) < 200
    assert np.array_equal(parse_counts(json.loads(text), DATA, "x", "y"), large())
    assert np.array_equal(parse_counts(large().tolist(), DATA, "x", "y"), large())


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, CLASSES, CLASSES + 1]},
        {"shape": [-1, CLASSES, -CLASSES]},
        {"shape": [10**9, 10**9]},
        {"shape": "abc"},
        {"cell": [0]},
        {"cell": [7, 7]},
        {"cell": [0, CLASSES**2]},
        {"cell": [0, True]},
        {"count": [1, -1]},
        {"count": [1, 1.5]},
        {"count": None},
    ],
)
def test_damaged_tables_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match="counts of y"):
        parse_counts({**counts_to_json(large()), **change}, DATA, "x", "y")
