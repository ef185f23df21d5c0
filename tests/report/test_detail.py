"""AUC and calibration against scikit-learn and a dense loop; details of degenerate runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from benchmark.collect_results import main
from benchmark.core.counts import group_accuracy
from benchmark.core.errors import UserError
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.statistics.calibration import calibration_error, reliability
from benchmark.report.statistics.stratified_mean import crossed_variance
from benchmark.report.tables.report_table import ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World
from tests.support.messages import each_mentions, mentions


def test_calibration_error_is_the_sum_over_bins() -> None:
    rng = np.random.default_rng(0)
    label, logits = rng.integers(3, size=500), rng.normal(size=(500, 3)) * 2
    probability = softmax(logits, axis=1)
    confidence, right = probability.max(1), probability.argmax(1) == label
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(label, logits) == pytest.approx(expected)
    bins = reliability(label, logits, 5)
    assert sum(n for _, _, n in bins) == 500
    assert sum(n * accuracy for _, accuracy, n in bins) == pytest.approx(right.sum())


@pytest.mark.parametrize("logits", [[[800.0, -800.0]], [[0.0, 0.0]], [[1.0, 1.0]]])
def test_calibration_of_extreme_and_constant_scores(logits: list[list[float]]) -> None:
    error = calibration_error(np.zeros(10, np.int64), np.repeat(logits, 10, axis=0))
    assert 0.0 <= error <= 1.0


def cell(text: str) -> float:
    return float(text.split(" ")[0])


def test_sheets_against_sklearn(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=300, classes=3), ERM, trials=(0,))
    report = make_report(fake.finish(), options=ReportOptions(tables=("class_scores",)))
    scores, per_class, groups = report.sheets
    found = report.store.scores(report.tables[0].rows[0].selected_runs[0], "unbiased")
    assert found is not None
    label, logits = found
    areas = [roc_auc_score(label == k, logits[:, k]) for k in range(3)]
    assert cell(scores.rows[0][5]) == pytest.approx(100 * np.mean(areas), abs=0.051)
    shown = [cell(row[5]) for row in per_class.rows if len(row) > 1]
    assert shown == pytest.approx([100 * area for area in areas], abs=0.051)
    recall = [100 * (logits.argmax(1)[label == k] == k).mean() for k in range(3)]
    assert [cell(row[1]) for row in per_class.rows if len(row) > 1] == pytest.approx(
        recall, abs=0.051
    )
    *of_groups, of_validation = groups.rows
    assert len(of_groups) == 9 and sum(int(row[1]) for row in of_groups) == 300
    run = report.tables[0].rows[0].selected_runs[0]
    worst = int(np.nanargmin(group_accuracy(run.at.counts["val"])))
    assert cell(of_validation[2]) == cell(of_groups[worst][2])


def test_groups_without_images_are_left_out_and_counted(tmp_path: Path) -> None:
    """Only images with the confounder of their class are in the split biased."""
    fake = FakeSweep(tmp_path)
    fake.add(World(size=300, classes=3), ERM, trials=(0,))
    options = ReportOptions(tables=("class_scores",), splits=("biased", "unbiased"))
    report = make_report(fake.finish(), options=options)
    per_group = [sheet for sheet in report.sheets if sheet.title.endswith("per group")]
    biased, unbiased = per_group
    sizes = [int(row[1]) for row in biased.rows[:-1]]
    assert all(sizes) and 0 < len(sizes) < 9
    assert any(f"{9 - len(sizes)} of 9" in note for note in biased.notes)
    assert len(unbiased.rows) == 10 and not unbiased.notes


def test_intervals_over_trials_count_trials_and_images(tmp_path: Path) -> None:
    """Compare macro F1 and mean AUC with scikit-learn, and the width with a jackknife."""
    fake = FakeSweep(tmp_path)
    fake.add(World(size=300, classes=3), ERM, trials=(0, 1, 2))
    options = ReportOptions(tables=("class_scores",), splits=("biased", "deceiving"))
    report = make_report(fake.finish(), spread="interval", options=options)
    selected_runs = report.tables[0].rows[0].selected_runs
    for split, sheet in zip(options.splits, report.sheets[::3], strict=False):
        assert sheet.caption[0].startswith(f"Split {split}, ")
        scores = [report.store.scores(w, split) for w in selected_runs]
        f1 = [
            f1_score(label, logits.argmax(1), average="macro")
            for label, logits in filter(None, scores)
        ]
        values = np.stack([pseudo_values(*found) for found in filter(None, scores)])
        error = crossed_variance(values).error
        assert error is not None
        half = error.half_width()
        value, low, high = map(float, re.findall(r"[\d.]+", sheet.rows[0][4]))
        assert [value, low, high] == pytest.approx(
            [100 * np.mean(f1), 100 * (np.mean(f1) - half), 100 * (np.mean(f1) + half)], abs=0.35
        )
        area = np.mean(
            [roc_auc_score(a == k, b[:, k]) for a, b in filter(None, scores) for k in range(3)]
        )
        value, low, high = map(float, re.findall(r"[\d.]+", sheet.rows[0][5]))
        assert value == pytest.approx(100 * area, abs=0.051) and low < value < high
    assert report.sheets[0].rows != report.sheets[3].rows


def pseudo_values(label: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return the jackknife's n F1 − (n − 1) F1 without image i, of which the mean is macro F1."""
    predicted = logits.argmax(1)
    whole = f1_score(label, predicted, average="macro")
    table = confusion_matrix(label, predicted).astype(float)
    found = np.empty(len(label))
    for i, (j, k) in enumerate(zip(label, predicted, strict=True)):
        table[j, k] -= 1
        without = (2 * np.diag(table) / (table.sum(0) + table.sum(1))).mean()
        table[j, k] += 1
        found[i] = len(label) * whole - (len(label) - 1) * without
    return found


def test_calibration_has_an_interval(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=300, classes=3), ERM, trials=(0,))
    fake.add(World(size=300, classes=3), DRO, trials=(0, 1))
    options = ReportOptions(tables=("class_scores",))
    report = make_report(fake.finish(), spread="interval", options=options)
    for row in report.sheets[0].rows:
        value, low, high = map(float, re.findall(r"[\d.]+", row[6]))
        assert low < value < high
    for row in report.sheets[2].rows:
        assert all("[" in text for text in row[2:])


def test_a_split_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=40), ERM, trials=(0,))
    with pytest.raises(UserError, match=r"no test split 'reversed'; --split takes .*deceiving"):
        main([str(fake.finish()), "--split", "reversed", "--tables-only"])


def test_a_score_that_some_trials_lack_is_named(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, predictions=False)
    keys = fake.add(World(size=40), ERM, trials=(0, 1))
    folder = fake.finish()
    path = folder / "runs" / keys[0] / "record.json"
    record = json.loads(path.read_text())
    for entry in record["selected"].values():
        entry["splits"]["unbiased"]["counts"] = [[[10, 0], [10, 0]], [[10, 0], [10, 0]]]
    path.write_text(json.dumps(record))
    scores, per_class, _ = make_report(
        folder, options=ReportOptions(tables=("class_scores",))
    ).sheets[:3]
    undefined = "precision is undefined", "1 of 2 trials"
    assert any(mentions(note, "erm", "macro", *undefined) for note in scores.notes)
    assert each_mentions(per_class.notes, ["erm", "class1", *undefined])


@pytest.mark.slow
def test_nuts_through_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pymc")
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60), ERM, trials=(0,))
    folder = fake.finish()
    shown = {}
    for engine in ("exact", "nuts"):
        out = str(tmp_path / engine)
        assert (
            main([str(folder), "--detail", "--tables-only", "--engine", engine, "--out", out]) == 0
        )
        shown[engine] = capsys.readouterr().out
        assert f"Posterior: {engine}, " in " ".join(shown[engine].split())
    assert "40,000 draws" in shown["nuts"] and "0 divergences" in " ".join(shown["nuts"].split())
    exact, nuts = (
        [tuple(map(float, pair)) for pair in re.findall(r"(\d+\.\d) ± (\d+\.\d)", shown[engine])]
        for engine in ("exact", "nuts")
    )
    assert len(exact) == len(nuts) > 10
    for (value, sd), (same, near) in zip(exact, nuts, strict=True):
        assert same == value and near == pytest.approx(
            sd, abs=0.11
        )  # a rounding step, and Monte Carlo error


def test_constant_scores_and_an_absent_class(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60, classes=3), ERM, trials=(0,))
    fake.add(World(size=60, classes=3), DRO, trials=(0, 1))
    folder = fake.finish()
    for path in folder.glob("runs/*/predictions.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        for name in arrays:
            arrays[name] = np.zeros_like(arrays[name]) if name.endswith("score") else arrays[name]
            if name.endswith("label"):
                arrays[name] = np.minimum(arrays[name], 1)
            if name.endswith("confounder"):
                arrays[name] = np.zeros_like(arrays[name])
        np.savez(path, **arrays)
    for path in folder.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        for entry in record["selected"].values():
            for content in entry["splits"].values():
                content["counts"] = [
                    [[20, 0, 0], [40, 0, 0], [0, 0, 0]],
                    [[0] * 3] * 3,
                    [[0] * 3] * 3,
                ]
        path.write_text(json.dumps(record))
    report = make_report(folder, options=ReportOptions(tables=("class_scores",), reference="erm"))
    for form in ("text", "latex", "markdown", "json", "csv"):
        assert "nan" not in render(report, form).lower()
    assert "class 2" in render(report, "text")
