"""Test that models selected before their method began are marked in every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.registry import ALGORITHMS
from benchmark.report.formats.report_format import file_names
from benchmark.report.records.model_selection import cells_of
from benchmark.report.records.sweep_records import load_sweep
from benchmark.report.records.switches import switch_of
from benchmark.report.records.tidy_export import export
from benchmark.report.render import render, write_page
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import ReportOptions
from tests.support.fake_sweep import ERM, FakeSweep, Method, World

WORLD = World(size=60)
IRM = Method("irm", 0.9, 0.7)


def edit(folder: Path, key: str, step: int | None = None, **method: Any) -> None:
    """Change the selected step and the description of the method in the record."""
    path = folder / "runs" / key / "record.json"
    record = json.loads(path.read_text())
    record["method"] |= method
    for entry in record["selected"].values():
        entry["step"] = entry["step"] if step is None else step
    path.write_text(json.dumps(record))


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """A sweep with ERM, and IRM selected at 100, 200 and 300 with a switch at 200."""
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    keys = fake.add(WORLD, IRM)
    folder = fake.finish()
    for key, step in zip(keys, (100, 200, 300), strict=True):
        edit(folder, key, step, active_from=200)
    return folder


SENTENCE = (
    "trials 0, 1: chosen after 100, 200 steps, but the first 200 steps do not train the method"
)


def test_text_markdown_and_latex_mark_the_row_and_say_why(marked: Path) -> None:
    report = make_report(marked, options=ReportOptions(reference="erm", tables=("class_scores",)))
    table = report.tables[0]
    assert [row.marked_label for row in table.rows] == ["erm", "irm†"]
    for spread in ("sd", "interval"):
        assert "† selected before" in " ".join(table.full_caption(spread))
    text = render(report, "text")
    assert "irm†" in text and SENTENCE in " ".join(text.split()) and "erm†" not in text
    markdown = render(report, "markdown")
    assert "| irm†<sup>" in markdown and SENTENCE in markdown
    latex = render(report, "latex")
    assert r"irm\textdagger{}\textsuperscript" in latex and "†" not in latex
    for sheet in [*report.sheets, *report.appendix]:
        named = [row[0] for row in sheet.rows if len(row) > 1]
        named += [" ".join(head) for head in sheet.heads]
        assert "irm" not in named, f"{sheet.title} does not mark irm"
    assert sum("irm†" in str([sheet.heads, sheet.rows]) for sheet in report.sheets) == 4


def test_csv_and_json_name_the_trials(marked: Path) -> None:
    report = make_report(marked)
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    assert {row["method"]: row["before_switch"] for row in rows} == {"erm": "", "irm": "0 1"}
    assert all(SENTENCE in row["notes"] for row in rows if row["method"] == "irm")
    value = json.loads(render(report, "json"))
    by_method = {row["method"]: row for row in value["tables"][0]["rows"]}
    assert by_method["irm"]["before_switch"] == [0, 1] and by_method["erm"]["before_switch"] == []
    assert any(SENTENCE in note for note in by_method["irm"]["notes"])
    selected_runs = {(w["method"], w["trial"]): w for w in value["winners"]}
    assert [selected_runs["irm", t]["before_switch"] for t in range(3)] == [True, True, False]
    assert (
        selected_runs["irm", 0]["active_from"] == 200
        and selected_runs["erm", 0]["active_from"] == 0
    )


def test_html_marks_the_row_and_the_run(marked: Path) -> None:
    write_page(make_report(marked), marked, figures="none")
    page = (marked / "report.html").read_text(encoding="utf-8")
    assert "irm†<sup>" in page and SENTENCE in page and "† selected before" in page
    assert page.count("† the first 200 steps") == 2


def test_the_tidy_table_has_a_column(marked: Path, tmp_path: Path) -> None:
    export(load_sweep(marked), tmp_path / "runs.csv")
    rows = list(csv.DictReader((tmp_path / "runs.csv").open(encoding="utf-8")))
    found = {(row["method"], row["trial"]): row["before_switch"] for row in rows}
    assert found["irm", "1"] == "True" and found["irm", "2"] == found["erm", "0"] == "False"
    assert {row["active_from"] for row in rows if row["method"] == "irm"} == {"200"}


def test_without_such_a_row_nothing_is_said(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    keys = [*fake.add(WORLD, ERM), *fake.add(WORLD, IRM)]
    folder = fake.finish()
    for key in keys:
        edit(folder, key, 300, active_from=299)
    report = make_report(folder)
    for form in file_names():
        text = render(report, form)
        assert (
            "†" not in text and "textdagger" not in text and "do not train the method" not in text
        )


def test_of_several_draws_one_that_reached_its_switch_is_preferred(tmp_path: Path) -> None:
    """Draw 0 has the better accuracy, but its method has not begun."""
    fake = FakeSweep(tmp_path)
    early, late = fake.add(World(size=600), IRM, trials=(0,), draws=(0, 3))
    folder = fake.finish()
    edit(folder, early, 200, active_from=500)
    edit(folder, late, 200, active_from=100)
    (cell,) = cells_of(load_sweep(folder), "val_accuracy")
    (selected_run,) = cell.selected_runs
    assert selected_run.run.draw == 3 and not selected_run.is_before_switch
    edit(folder, late, 200, active_from=500)
    (selected_run,) = cells_of(load_sweep(folder), "val_accuracy")[0].selected_runs
    assert selected_run.run.draw == 0 and selected_run.is_before_switch


@pytest.mark.parametrize("declared", [-3, "500", None, 2.5, True, [1]])
def test_a_declaration_that_is_no_step_marks_nothing(tmp_path: Path, declared: Any) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, Method("another_packages_method"))
    folder = fake.finish()
    edit(folder, keys[0], 100, active_from=declared)
    assert [switch_of(run) for run in load_sweep(folder).runs] == [0, 0, 0]


OLD = [
    ("irm", {"penalty_weight": 100.0, "anneal_iters": 250}),
    ("irm", {"penalty_weight": 1.0, "anneal_iters": 250}),
    ("pgi", {"ramp": 1.0}),
    ("pgi", {"ramp": 0.25}),
    ("pgi", {"ramp": 0.0}),
    ("segment_classify", {"segmenter_share": 0.4}),
    ("segment_classify", {"segmenter_share": 0.001}),
    ("tea", {"warmup": 0.1}),
    ("tea", {"warmup": 0.0}),
    ("group_dro", {"eta": 0.01}),
]


@pytest.mark.parametrize(("method", "hparams"), OLD)
def test_records_from_before_the_declaration_have_the_same_switch(
    tmp_path: Path, method: str, hparams: dict[str, Any]
) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, Method(method), trials=(0,), **hparams)
    (run,) = load_sweep(fake.finish()).runs
    assert run.spec is not None and run.record is not None
    assert run.record.method.active_from is None
    assert switch_of(run) == ALGORITHMS.get(method).active_from(hparams, run.spec.budget)


def test_an_old_record_without_the_hyper_parameters_is_not_judged(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, IRM, trials=(0,))
    fake.add(WORLD, Method("pgi"), trials=(0,), ramp="long")
    assert [switch_of(run) for run in load_sweep(fake.finish()).runs] == [0, 0]
