"""Test that predictions are read, checked against the record, and not used if damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.report.formats.report_format import file_names
from benchmark.report.records.model_selection import SelectedRun, cells_of
from benchmark.report.records.predictions import (
    Predictions,
    PredictionStore,
    pair_order,
    same_images,
)
from benchmark.report.records.sweep_records import load_sweep
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.metric import SAMPLED_IMAGES
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World

WORLD = World(size=80)


def selected_run_of(folder: Path) -> SelectedRun:
    return cells_of(load_sweep(folder), "val_accuracy")[0].selected_runs[0]


def test_answers_are_those_of_the_counts(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    selected_run, store = selected_run_of(fake.finish()), PredictionStore()
    answers = store.get(selected_run, "biased")
    assert answers is not None and answers.pair_id is not None
    assert answers.right.sum() == np.einsum("zll->", selected_run.at.counts["biased"].astype(int))
    scores = store.scores(selected_run, "biased")
    assert scores is not None and scores[1].shape == (80, 2)
    assert store.problems == {}


def rewritten(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        with np.load(path) as file:
            arrays = dict(file)
        change(arrays)
        np.savez(path, **arrays)  # type: ignore[arg-type]

    return edit


def flip(arrays: dict[str, np.ndarray]) -> None:
    arrays["val_accuracy/unbiased/score"] = -arrays["val_accuracy/unbiased/score"]


def put_nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["val_accuracy/unbiased/score"][0, 0] = np.nan


def shorten(arrays: dict[str, np.ndarray]) -> None:
    arrays["unbiased/label"] = arrays["unbiased/label"][:-1]


def relabel(arrays: dict[str, np.ndarray]) -> None:
    arrays["unbiased/label"] = arrays["unbiased/label"] + 7


def drop(arrays: dict[str, np.ndarray]) -> None:
    del arrays["val_accuracy/unbiased/score"]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:300]), "is damaged"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "not an archive": (lambda path: path.write_text("hello"), "is damaged"),
    "contradicts the counts": (rewritten(flip), "contradicts record.json on unbiased"),
    "NaN": (rewritten(put_nan), "not finite"),
    "lengths differ": (rewritten(shorten), "expected int[80]"),
    "labels out of range": (rewritten(relabel), "unbiased/label holds 7 to 8, expected 0 to 1"),
    "no scores": (rewritten(drop), "has no scores of unbiased"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_predictions_cost_only_their_intervals(tmp_path: Path, kind: str) -> None:
    fake = FakeSweep(tmp_path)
    key = fake.add(WORLD, ERM)[0]
    fake.add(WORLD, DRO)
    folder = fake.finish()
    whole = make_report(folder).tables[0]
    damage, note = DAMAGES[kind]
    damage(folder / "runs" / key / "predictions.npz")
    report = make_report(folder)
    (table,) = report.tables
    assert [row.values[0].estimate.value for row in table.rows] == [
        r.values[0].estimate.value for r in whole.rows
    ]
    assert whole.rows[0].values[0].estimate.kind.startswith("crossed")
    assert table.rows[0].values[0].estimate.kind == SAMPLED_IMAGES
    assert any(n.startswith("1 of 6 selected runs") and note in n for n in table.notes)
    for form in file_names():
        assert "nan" not in render(report, form).lower()


def test_trials_with_other_images_are_not_crossed(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=80, same_images=False), ERM)
    (table,) = make_report(fake.finish()).tables
    own = "t over trials, each with test images of its own"
    assert {v.estimate.kind for v in table.rows[0].values} == {
        own,
        "bounds of all groups and t over trials",
    }


def test_pairs_are_found_by_their_id() -> None:
    label, right = np.zeros(3, np.int64), np.array([True, False, True])
    a = Predictions(right, label, np.array([5, 3, 9]), None)
    b = Predictions(right, label, np.array([9, 5, 3]), None)
    rows = pair_order(a, b)
    assert rows is not None and a.pair_id is not None and b.pair_id is not None
    assert np.array_equal(a.pair_id[rows[0]], b.pair_id[rows[1]])
    assert pair_order(a, Predictions(right, label, np.array([9, 5, 4]), None)) is None
    assert pair_order(a, Predictions(right, label, None, None)) is None
    assert (
        pair_order(*[Predictions(right, label, np.array([1, 1, 2]), None)] * 2) is None
    )  # not one to one
    assert same_images([a, a]) and not same_images([a, b])
