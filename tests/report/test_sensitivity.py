"""Test the sensitivity table: means, intervals, chance levels, and what stands beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import ReportOptions
from benchmark.report.tables.sensitivity import SensitivityTable, sensitivity_sheet
from benchmark.report.tables.sheet import Sheet
from tests.support.fake_sweep import ERM, FakeSweep, Method, World

WORLD = World(size=40)


def entry(measure: str, value: float | None, label: int = 0, **more: Any) -> dict[str, Any]:
    images = 0 if value is None else 50
    given = {"split": "", "error": 0.04, "left_out": 0, "chance": None, "area": None, **more}
    return {"measure": measure, "label": label, "value": value, "images": images, **given}


def entries(trial: int) -> list[dict[str, Any]]:
    return [
        entry("class_sensitivity", 0.4, 0, split="unbiased", chance=0.25),
        entry("class_sensitivity", 0.6 + 0.2 * trial, 1, split="unbiased", chance=0.25),
        entry("disease_sensitivity", 0.3, split="biased", area=0.2, chance=0.2, left_out=3),
        entry("confounder_sensitivity", 0.8, split="biased", area=0.04, chance=0.1),
        entry("confounder_sensitivity", 0.7, split="deceiving", area=0.04, chance=0.1),
        entry("confounder_sensitivity", None, 1, split="biased", chance=0.1),
        entry("explanation_ncc", -0.5),
        entry("tag_effect", 1.25),
        entry("flips", 0.3),
    ]


def write(folder: Path, key: str, found: list[dict[str, Any]]) -> None:
    path = folder / "runs" / key / "record.json"
    record = json.loads(path.read_text())
    record["extra"] = {"explanations": {"explainer": "lrp", "splits": {}, "sensitivity": found}}
    path.write_text(json.dumps(record))


def sheet_of(folder: Path, spread: str = "sd") -> Sheet:
    report = make_report(folder, spread=spread)
    (table,) = report.tables
    sheet = sensitivity_sheet(table, report)
    assert sheet is not None
    return sheet


def cells(sheet: Sheet) -> dict[str, str]:
    return dict(zip((" ".join(head) for head in sheet.heads), sheet.rows[0], strict=True))


@pytest.fixture
def two_trials(tmp_path: Path) -> Path:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, ERM, trials=(0, 1))
    folder = fake.finish()
    for trial, key in enumerate(keys):
        write(folder, key, entries(trial))
    return folder


def test_means_over_classes_and_trials(two_trials: Path) -> None:
    found = cells(sheet_of(two_trials))
    # 0.5 in the first trial and 0.6 in the second
    assert found["unbiased class sensitivity %"] == f"55.0 ± {100 * 0.1 / math.sqrt(2):.1f}"
    assert found["biased evidence sensitivity %"] == "30.0 ± 0.0"
    assert found["biased confounder sensitivity %"] == "80.0 ± 0.0"
    assert found["correlation of heatmaps"] == "−0.50 ± 0.00"
    assert found["shortcut effect / sd"] == "1.25 ± 0.00"
    assert found["predictions flipped %"] == "30.0 ± 0.0"


def test_the_score_on_the_reversed_split_is_beside_confounder_sensitivity(
    two_trials: Path,
) -> None:
    values = []
    for path in sorted(two_trials.glob("runs/*/record.json")):
        selected = json.loads(path.read_text())["selected"]
        counts = np.array(next(iter(selected.values()))["splits"]["deceiving"]["counts"])
        values.append(100 * counts.trace(axis1=1, axis2=2).sum() / counts.sum())
    text = cells(sheet_of(two_trials))["deceiving accuracy %"]
    assert text.startswith(f"{np.mean(values):.1f} ± ")
    assert [" ".join(head) for head in sheet_of(two_trials).heads[2:6]] == [
        "biased confounder sensitivity %",
        "deceiving accuracy %",
        "shortcut effect / sd",
        "predictions flipped %",
    ]


def test_columns_of_the_effect_are_there_even_if_it_was_not_measured(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (key,) = fake.add(WORLD, ERM, trials=(0,))
    folder = fake.finish()
    found = entry("confounder_sensitivity", 0.8, split="biased", area=0.04)
    write(folder, key, [found])
    sheet = sheet_of(folder)
    assert {"deceiving accuracy %", "shortcut effect / sd", "predictions flipped %"} <= set(
        cells(sheet)
    )
    assert cells(sheet)["shortcut effect / sd"] == "–"
    assert cells(sheet)["biased confounder sensitivity %"] == "80.0 ± 4.0"  # over images
    assert any("show the same objects" in sentence for sentence in sheet.caption)


def test_intervals_count_images_in_a_single_trial(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (key,) = fake.add(WORLD, ERM, trials=(0,))
    folder = fake.finish()
    write(folder, key, entries(0))
    found = cells(sheet_of(folder, "interval"))
    half = 100 * 1.959964 * 0.04
    assert found["biased evidence sensitivity %"] == f"30.0 [{30 - half:.1f}, {30 + half:.1f}]"
    both = half / math.sqrt(2)  # two classes
    assert found["unbiased class sensitivity %"] == f"50.0 [{50 - both:.1f}, {50 + both:.1f}]"


def test_chance_areas_and_what_does_not_count(two_trials: Path) -> None:
    sheet = sheet_of(two_trials)
    text = " ".join(sheet.caption)
    assert (
        "chance 25 %" in text
        and "its area, 20.0 %" in text
        and "it covers 4.0 % of the image" in text
    )
    notes = " ".join(sheet.notes)
    assert "undefined for 6 of 106" in notes and "no value for class1" in notes


def test_every_entry_is_in_the_json_file(two_trials: Path) -> None:
    report = make_report(two_trials)
    records = json.loads(render(report, "json"))["sensitivity"]
    assert len(records) == 2 * len(entries(0))
    assert records[0]["label"] == "class0" and records[0]["error"] == 0.04


def test_no_sheet_without_measures(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    report = make_report(fake.finish())
    assert sensitivity_sheet(report.tables[0], report) is None


def test_upstream_runs_are_rows_only_if_asked_for(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (teacher,) = fake.add(WORLD, Method("segment_classify", requested=False), trials=(0,))
    (student,) = fake.add(WORLD, Method("tea"), trials=(0,), upstream={"teacher": teacher})
    folder = fake.finish()
    for key in (teacher, student):
        write(folder, key, entries(0))
    for asked, methods in ((False, ["tea"]), (True, ["tea", "segment_classify (upstream)"])):
        report = make_report(folder, options=ReportOptions(upstream=asked))
        (sheet,) = SensitivityTable().sheets(report)
        assert [row[0] for row in sheet.rows] == methods
