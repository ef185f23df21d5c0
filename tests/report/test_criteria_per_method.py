"""Test rows that are selected by different criteria, which every format names."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.counts import correct_and_total, worst_class_accuracy
from benchmark.core.errors import UserError
from benchmark.report.records.model_selection import cells_of, choose_criterion
from benchmark.report.records.sweep_records import load_sweep
from benchmark.report.render import render, write_page
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import Report
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import mentions
from tests.support.runs import lines, plan_runs, run
from tests.support.threads import threads

WORLD = World(size=80)
TEA = Method("tea", 0.9, 0.8)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Return a sweep with ERM and GroupDRO selected by accuracy, and TEA by its worst group."""
    fake = FakeSweep(tmp_path, criteria=("val_accuracy", "val_worst_group"))
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO)
    usual, fake.criteria = fake.criteria, ("val_worst_group", "val_accuracy")
    keys = fake.add(WORLD, TEA)
    fake.criteria = usual
    folder = fake.finish()
    for key in keys:
        path = folder / "runs" / key / "record.json"
        record = json.loads(path.read_text())
        record["selected"]["val_worst_group"]["step"] = 100
        path.write_text(json.dumps(record))
    return folder


def rows(report: Report) -> dict[str, tuple[str, list[int]]]:
    (table,) = report.tables
    return {
        row.method: (row.criterion, [w.at.step for w in row.selected_runs]) for row in table.rows
    }


def test_each_row_is_chosen_by_its_first_criterion(mixed: Path) -> None:
    report = make_report(mixed)
    assert rows(report) == {
        "erm": ("val_accuracy", [200] * 3),
        "group_dro": ("val_accuracy", [200] * 3),
        "tea": ("val_worst_group", [100] * 3),
    }
    assert report.criterion == report.tables[0].criterion == "val_accuracy"


def test_a_row_with_its_own_criterion_has_its_validation_accuracy_beside_it(mixed: Path) -> None:
    report = make_report(mixed)
    (row,) = [row for row in report.tables[0].rows if row.method == "tea"]
    shares = []
    for selected in row.selected_runs:
        correct, total = correct_and_total(selected.at.counts["val"])
        shares.append(correct / total)
    (note,) = [note for note in row.notes if note.startswith("model selection: ")]
    assert f"validation accuracy {100 * sum(shares) / 3:.1f}" in note


def test_one_criterion_that_is_asked_for_chooses_every_row(mixed: Path) -> None:
    for criterion in ("val_accuracy", "val_worst_group"):
        report = make_report(mixed, criterion)
        assert {name for name, _ in rows(report).values()} == {criterion}
        assert "model selection: " not in " ".join(render(report, "text").split())


def test_every_format_says_by_what(mixed: Path) -> None:
    report = make_report(mixed)
    title = "validation worst-group accuracy"
    caption = " ".join(report.tables[0].full_caption())
    assert mentions(caption, "validation accuracy", "tea", title)
    assert mentions(caption, title, "group labels")
    for form in ("text", "markdown"):
        assert f"model selection: {title}" in " ".join(render(report, form).split())
    table = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    assert {row["method"]: row["criterion"] for row in table} == {
        "erm": "val_accuracy",
        "group_dro": "val_accuracy",
        "tea": "val_worst_group",
    }
    value = json.loads(render(report, "json"))
    assert [row["criterion"] for row in value["tables"][0]["rows"]] == [
        "val_accuracy",
        "val_accuracy",
        "val_worst_group",
    ]
    assert {w["method"]: w["criterion"] for w in value["winners"]}["tea"] == "val_worst_group"
    write_page(report, mixed, figures="none")
    assert f"selection: validation accuracy; {title}." in (mixed / "report.html").read_text()


def test_scores_are_those_at_the_steps_of_the_rows_own_criterion(mixed: Path) -> None:
    """Damaged predictions of a criterion that no row uses are not read."""
    for folder in (mixed / "runs").iterdir():
        spec = json.loads((folder / "spec.json").read_text())
        with np.load(folder / "predictions.npz") as file:
            arrays = dict(file)
        for name in arrays:
            if name.startswith(spec["selection"][1]):
                arrays[name] = np.full_like(arrays[name], np.nan)
        np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    report = make_report(mixed)
    assert report.store.problems == {} and "not compared" not in render(report, "text")
    assert len(make_report(mixed, "val_worst_group").store.problems) == 6


def test_a_table_of_one_method_is_by_its_criterion(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, criteria=("val_accuracy", "val_worst_group"))
    fake.add(World("one", size=60), ERM)
    fake.add(World("one", size=60), DRO)
    fake.criteria = ("val_worst_group",)
    fake.add(World("two", size=60), TEA)
    one, two = make_report(fake.finish()).tables
    assert (one.criterion, two.criterion) == ("val_accuracy", "val_worst_group")
    assert not two.rows[0].notes  # nothing to tell apart


def test_runs_of_one_row_with_different_criteria(tmp_path: Path) -> None:
    """A trial that recorded another criterion than the others is noted and left out."""
    fake = FakeSweep(tmp_path, criteria=("val_accuracy",))
    fake.add(WORLD, ERM, trials=(1, 2))
    fake.criteria = ("val_worst_group",)
    fake.add(WORLD, ERM, trials=(0,))
    (cell,) = cells_of(load_sweep(fake.finish()), "val_worst_group", own=True)
    assert cell.criterion == "val_accuracy" and [w.trial for w in cell.selected_runs] == [1, 2]
    assert any(mentions(note, "1", "val_accuracy", "left out") for note in cell.notes)


def test_the_default_is_what_most_requested_runs_name_first(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, criteria=("val_worst_group", "val_accuracy"))
    fake.add(WORLD, TEA, trials=(0,))
    fake.add(WORLD, replace(ERM, requested=False), trials=range(5))
    fake.criteria = ("val_accuracy", "val_worst_group")
    fake.add(WORLD, DRO, trials=(0, 1))
    sweep = load_sweep(fake.finish())
    assert choose_criterion(sweep, None) == "val_accuracy"
    with pytest.raises(UserError, match=r"no run of demo .*by last"):
        choose_criterion(sweep, "last")


def test_a_real_sweep_of_two_methods_with_criteria_of_their_own(tmp_path: Path) -> None:
    folders = plan_runs(
        tmp_path / "test",
        algorithm="erm",
        algorithms=["erm", "group_dro"],
        selection=["val_worst_class", "last"],
        override={"erm": {"selection": ["val_objective", "val_accuracy"]}},
    )
    with threads(1):
        assert [run(folder) for folder in folders] == ["done", "done"]
    report = make_report(tmp_path / "test")
    assert {row.method: row.criterion for row in report.tables[0].rows} == {
        "erm": "val_objective",
        "group_dro": "val_worst_class",
    }
    (selected_run,) = report.tables[0].rows[0].selected_runs
    objective = {line["step"]: line["objective"] for line in lines(folders[0])}
    assert selected_run.at.step == min(objective, key=lambda step: objective[step])
    assert all("objective" not in line for line in lines(folders[1]))
    (selected_run,) = report.tables[0].rows[1].selected_runs
    worst = {
        line["step"]: worst_class_accuracy(np.array(line["splits"]["val"]["counts"]))
        for line in lines(folders[1])
    }
    assert selected_run.at.value == max(worst.values()) == worst[selected_run.at.step]
