"""Test the numbers, captions and footnotes of the tables, and that nothing is dropped."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.counts import worst_class_accuracy
from benchmark.report.formats.report_format import file_names
from benchmark.report.formats.text import WIDTH, display_width, wrap
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.numbers import mark, percent
from benchmark.report.tables.report_table import Report, ReportOptions
from benchmark.report.tables.results_table import Table
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import mentions

WORLD = World(size=120)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render(make_report(folder), "csv"))))


def table_of(folder: Path) -> Table:
    (table,) = make_report(folder).tables
    return table


def value(table: Table, method: str, metric: str):  # type: ignore[no-untyped-def]
    row = next(row for row in table.rows if row.method == method)
    return row.values[[column.name for column in table.columns].index(metric)]


def test_means_and_sds_are_those_of_the_records(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, ERM)
    folder = fake.finish()
    accuracy: dict[str, list[float]] = {"biased": [], "unbiased": [], "deceiving": []}
    worst = []
    for key in keys:
        splits = json.loads((folder / "runs" / key / "record.json").read_text())["selected"][
            "val_accuracy"
        ]["splits"]
        for split, found in accuracy.items():
            counts = np.array(splits[split]["counts"])
            found.append(float(np.einsum("zll->", counts) / counts.sum()))
        counts = np.array(splits["unbiased"]["counts"])
        worst.append(float((np.einsum("zll->zl", counts) / counts.sum(2)).min()))
    gaps = [b - d for b, d in zip(accuracy["biased"], accuracy["deceiving"], strict=True)]
    expected = {
        "average_accuracy": accuracy["unbiased"],
        "worst_group_accuracy": worst,
        "biased_accuracy": accuracy["biased"],
        "deceiving_accuracy": accuracy["deceiving"],
        "gap": gaps,
    }
    table = table_of(folder)
    assert [column.name for column in table.columns] == list(expected)
    for metric, values in expected.items():
        found = value(table, "erm", metric)
        assert found.per_trial == pytest.approx(dict(enumerate(values)))
        assert found.estimate.value == pytest.approx(statistics.fmean(values))
        assert found.estimate.sd == pytest.approx(statistics.stdev(values))
        assert found.estimate.low < found.estimate.value < found.estimate.high
    by_metric = {row["metric"]: float(row["value"]) for row in rows_of(folder)}
    assert by_metric["unbiased_accuracy"] == by_metric["average_accuracy"]


def test_one_trial_shows_test_sampling_only(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    table = table_of(fake.finish())
    average, worst = (
        value(table, "erm", "average_accuracy"),
        value(table, "erm", "worst_group_accuracy"),
    )
    n, p = WORLD.size, average.estimate.value
    assert average.estimate.sd == pytest.approx((p * (1 - p) / n) ** 0.5, rel=0.1)
    assert (
        worst.estimate.sd is None
        and worst.estimate.low < worst.estimate.value < worst.estimate.high
    )
    caption = " ".join(table.full_caption())
    assert "1 trial: plug-in ± posterior sd" in caption
    assert "trained networks" in caption


def test_caption_says_how(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, draws=(0, 1))
    fake.add(WORLD, DRO, trials=(0,))
    table = table_of(fake.finish())
    caption = " ".join(table.full_caption())
    for part in (
        "mean ± sd over 3 trials; rows with 1 trial: plug-in ± posterior sd",
        "Model selection: validation accuracy, then the best of 2 draws in each trial by the same",
        "Average: all images of split unbiased",
        "among 4 groups (label/confounder), the smallest of which has",
        "gap = biased − deceiving, signed; both show the same objects",
        "n: val 120, biased 120",
        "Backbone: convnet, 300 steps",
        "groups = group labels in training",
    ):
        assert part in caption
    assert "uses the group labels" not in caption
    by_groups = FakeSweep(tmp_path / "by_groups", criteria=("val_mean", "last"))
    by_groups.add(WORLD, ERM)
    caption = " ".join(table_of(by_groups.finish()).full_caption())
    assert "worst-group accuracy uses the group labels" in caption


def test_intervals_are_not_called_standard_deviations(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    table = table_of(fake.finish())
    caption = " ".join(table.full_caption("interval"))
    assert "±" not in caption and "new trials and new test images" in caption
    assert "±" in " ".join(table.full_caption("both"))


def test_the_caption_says_what_marks_compare_and_how_much_is_found(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO)
    caption = " ".join(table_of(fake.finish()).full_caption())
    assert "group by group: worst group (unbiased)" in caption
    assert "image by image: average (unbiased)" in caption
    assert re.search(r"with 3 trials and 120 images.* 5 points in \d+ %", caption)
    single = FakeSweep(tmp_path / "single")
    single.add(WORLD, ERM, trials=(0,))
    single.add(WORLD, DRO, trials=(0,))
    caption = " ".join(table_of(single.finish()).full_caption())
    assert "compares these networks" in caption


def test_a_row_that_was_not_compared_is_marked(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1))
    fake.add(WORLD, DRO, trials=(0, 1))
    fake.add(WORLD, Method("late"), trials=(7,))
    report = make_report(fake.finish())
    table = report.tables[0]
    late = next(row for row in table.rows if row.method == "late").values[0]
    assert late.best is None and late.not_compared
    text = render(report, "text")
    assert re.search(r"late +none +[\d.]+ ± [\d.]+\?", text)
    assert late.not_compared in text
    assert "? not compared" in " ".join(table.full_caption())
    for form in ("latex", "markdown"):
        assert late.not_compared in render(report, form)


def test_everything_planned_is_in_the_table(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, Method("broken"), state="failed")
    fake.add(WORLD, Method("waiting"), state="pending")
    fake.add(WORLD, Method("teacher", requested=False), trials=(0,))
    fake.refuse(WORLD, "isnet", "isnet needs masks")
    fake.add(World("nothing_yet", size=60), ERM, state="pending")
    fake.refuse(World("only_refused"), "irm", "one environment")
    folder = fake.finish()
    report = make_report(folder)
    assert [t.dataset for t in report.tables] == [WORLD.label, "nothing_yet", "only_refused"]
    assert [row.method for row in report.tables[0].rows] == [
        "erm",
        "broken",
        "waiting",
        "isnet",
        "teacher",
    ]
    for form in file_names():
        text = render(every_row(report), form)
        text = text.replace("\\_\\allowbreak{}", "_").replace("\\", "")
        text = " ".join(text.split())
        for needle in (
            "erm",
            "broken",
            "waiting",
            "isnet",
            "teacher",
            "NaN at step 30",
            "isnet needs masks",
            "pending",
            "one environment",
        ):
            assert needle in text, (form, needle)
    by_method = {(row["dataset"], row["method"]): row for row in rows_of(folder)}
    assert ("nothing_yet", "erm") in by_method and ("only_refused", "irm") in by_method
    assert by_method[(WORLD.label, "broken")]["value"] == ""


def test_stand_in_data_never_share_a_table_with_real_data(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    fake.add(World(WORLD.label, size=120, stand_in=True), DRO, trials=(0,))
    report = make_report(fake.finish())
    shown = {
        table.stand_in: [r.method for r in table.rows if r.selected_runs] for table in report.tables
    }
    assert shown == {False: ["erm"], True: ["group_dro"]}
    assert "stand-in data: generated, not real" in report.tables[1].title
    assert "(real data)" in report.tables[0].title


def test_unknown_confounders(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World("plain", size=60, splits=("test",), confounders=False), ERM)
    table = table_of(fake.finish())
    assert [column.name for column in table.columns] == [
        "average_accuracy",
        "worst_class_accuracy",
    ]
    worst = value(table, "erm", "worst_class_accuracy")
    lowest = [worst_class_accuracy(w.at.counts["test"]) for w in table.rows[0].selected_runs]
    assert list((worst.per_trial or {}).values()) == lowest
    assert worst.estimate.value == pytest.approx(np.mean(lowest)) and worst.estimate.low is not None
    assert worst.estimate.low < worst.estimate.value < 1 and worst.notes == ()
    assert "among 2 classes" in " ".join(table.full_caption())


def test_worst_class_of_a_split_without_images_of_a_class(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, predictions=False)
    fake.add(World("plain", size=60, splits=("test",), confounders=False), ERM, trials=(0,))
    folder = fake.finish()
    edit_counts(folder, {"test": [[[40, 20], [0, 0]]]})
    worst = value(table_of(folder), "erm", "worst_class_accuracy")
    assert worst.estimate.value == pytest.approx(2 / 3)
    (note,) = worst.notes
    assert mentions(note, "1 of 2 classes", "left out")


def test_main_split_without_unbiased_and_test(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World("two", size=60, splits=("biased", "deceiving")), ERM, trials=(0,))
    table = table_of(fake.finish())
    assert table.columns[0].splits == ("deceiving",)
    assert [column.name for column in table.columns] == [
        "average_accuracy",
        "worst_group_accuracy",
        "biased_accuracy",
        "gap",
    ]
    assert "Average: all images of split deceiving" in " ".join(table.full_caption())


def edit_counts(folder: Path, counts: dict[str, object]) -> None:
    for path in folder.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        for entry in record["selected"].values():
            for split, value in counts.items():
                entry["splits"][split]["counts"] = value
        path.write_text(json.dumps(record))


@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize(
    ("case", "counts", "note"),
    [
        ("perfect", [[[30, 0], [0, 30]], [[30, 0], [0, 30]]], ""),
        ("always the same class", [[[30, 0], [30, 0]], [[30, 0], [30, 0]]], ""),
        (
            "a class without images",
            [[[60, 0], [0, 0]], [[50, 10], [0, 0]]],
            "2 of 4 groups have no images",
        ),
        ("one group only", [[[110, 10], [0, 0]], [[0, 0], [0, 0]]], "only one group has images"),
        ("no images", [[[0, 0], [0, 0]], [[0, 0], [0, 0]]], "the split has no images"),
    ],
)
def test_degenerate_counts(
    tmp_path: Path, case: str, counts: object, note: str, trials: int
) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=range(trials))
    folder = fake.finish()
    edit_counts(folder, dict.fromkeys(("biased", "unbiased", "deceiving"), counts))
    report = make_report(folder)
    for form in file_names():
        for spread in ("sd", "interval"):
            report.spread = spread
            text = render(report, form)
            assert "nan" not in text.lower().replace("nano", ""), (case, form)
            assert note in text
    worst = value(report.tables[0], "erm", "worst_group_accuracy").estimate.value
    assert worst == {"perfect": 1.0, "always the same class": 0.0, "no images": None}.get(
        case, worst
    )


def test_a_split_missing_from_one_trial(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(WORLD, ERM, trials=(0, 1, 2))
    folder = fake.finish()
    path = folder / "runs" / keys[1] / "record.json"
    record = json.loads(path.read_text())
    del record["selected"]["val_accuracy"]["splits"]["deceiving"]
    path.write_text(json.dumps(record))
    found = value(table_of(folder), "erm", "deceiving_accuracy")
    (note,) = found.notes
    assert found.trials == 2 and mentions(note, "deceiving", "1 of 3 trials")


def test_counts_that_do_not_add_up_are_named(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    folder = fake.finish()
    edit_counts(folder, {"biased": [[[1, 0], [0, 1]]] * 2})
    assert any(mentions(note, "counts of biased", "add up") for note in table_of(folder).notes)


def test_text_fits_a_terminal_of_100_columns(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    wide = World(
        "wide", size=60, splits=("test", *(f"a_rather_long_split_name_{i}" for i in range(9)))
    )
    needs = ("masks", "confounder", "groups", "environments", "teacher", "val_groups", "val_masks")
    fake.add(wide, Method("an_algorithm_with_a_long_name:and_a_variant", needs=needs))
    fake.add(wide, Method("漢字" * 12), trials=(0,))
    fake.add(WORLD, Method("m" * 70), state="failed")
    folder = fake.finish()
    for spread in ("sd", "interval"):
        text = render(make_report(folder, spread=spread), "text")
        assert max(map(display_width, text.splitlines())) <= WIDTH
        for i in range(9):
            assert f"a_rather_long_split_name_{i}" in text
    assert "m" * 70 in re.sub(r"[\n –]", "", text)


def test_long_names_break_where_words_do(tmp_path: Path) -> None:
    assert wrap("segment_classify", 15) == ["segment_", "classify"]
    assert wrap("tea:epsilon_1e-1 on data", 12) == ["tea:epsilon_", "1e-1 on data"]
    assert wrap("a_" + "m" * 20, 12) == ["a_" + "m" * 10, "m" * 10]  # not after two letters
    assert wrap("m" * 25, 10) == ["m" * 10, "m" * 10, "m" * 5]
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, Method("segment_classify"))
    report = make_report(fake.finish())
    for width in (60, 80):
        text = render(replace(report, width=width), "text")
        assert (
            max(map(display_width, text.splitlines())) <= width and "segment_classif\n" not in text
        )


def test_numbers() -> None:
    assert [percent(x, 1) for x in (1.0, 0.99949, -0.0001, -0.25, 0.0)] == [
        "100.0",
        "99.9",
        "0.0",
        "−25.0",
        "0.0",
    ]
    assert [mark(i) for i in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        "a",
        "z",
        "aa",
        "ab",
        "az",
        "ba",
        "zz",
        "aaa",
    ]


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO, state="failed")
    text = render(make_report(fake.finish()), "json")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    row = found["tables"][0]["rows"][0]
    assert len(row["values"]["gap"]["per_trial"]) == 3 and set(row["runs"]) == {"0", "1", "2"}
    assert len(found["unfinished"]) == 3 and found["unit"] == "fraction"


def test_runs_that_serve_others_are_never_mixed_with_requested_ones(tmp_path: Path) -> None:
    """Upstream ERM runs of ISNet and TEA must not be selected in the row of ERM."""
    fake = FakeSweep(tmp_path)
    short = Method("erm", 1.0, 1.0, requested=False)  # better on validation than what was asked for
    warm = fake.add(WORLD, short, trials=(0,), budget={"steps": 50})[0]
    teacher = fake.add(WORLD, short, trials=(0,), options={"option": "bias=0.0"})[0]
    asked = fake.add(WORLD, ERM, trials=(0,))
    fake.add(WORLD, Method("isnet"), trials=(0,), upstream={"standard": warm})
    fake.add(WORLD, Method("tea"), trials=(0,), upstream={"teacher": teacher})
    report = make_report(fake.finish())
    table = report.tables[0]
    assert [row.label for row in table.rows] == [
        "erm",
        "isnet",
        "tea",
        "erm (upstream)",
        "erm (upstream 2)",
    ]
    assert [w.run.key for w in table.rows[0].selected_runs] == asked
    notes = {row.label: row.notes for row in table.rows}
    assert notes["erm"] == []
    assert notes["erm (upstream)"] == [
        "trained for isnet",
        "unlike the other rows: budget steps 50 (others 300)",
    ]
    other = "unlike the other rows: data option bias=0.0 (others bias=0.95)"
    assert notes["erm (upstream 2)"] == ["trained for tea", other]
    assert notes["isnet"] == ["standard: erm"] and notes["tea"] == ["teacher: erm"]
    assert not any("data changed" in note for note in table.notes)
    for form in file_names():
        assert "trained for isnet" in " ".join(render(every_row(report), form).split())
    assert "trained for isnet" not in render(report, "text")


def every_row(report: Report) -> Report:
    return replace(report, options=ReportOptions(upstream=True))


def test_a_method_on_less_biased_data_says_so(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    for method in (ERM, Method("irm"), Method("coral")):
        fake.add(WORLD, method, trials=(0,))
    fake.add(WORLD, DRO, trials=(0, 1), options={"option": "bias=0.8"})
    rows = {row.method: row for row in make_report(fake.finish()).tables[0].rows}
    assert rows["group_dro"].notes == [
        "unlike the other rows: data option bias=0.8 (others bias=0.95)"
    ]
    assert rows["erm"].notes == []


def test_changed_data_are_named(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    fake.add(WORLD, DRO, trials=(0,), fingerprint="f" * 16)
    assert any(
        "the data changed between these runs" in note for note in table_of(fake.finish()).notes
    )


def test_intervals_stay_where_accuracies_can_be(tmp_path: Path) -> None:
    """Two trials and Student's t would reach far beyond 0 and 100 %."""
    fake = FakeSweep(tmp_path, predictions=False)
    keys = fake.add(WORLD, ERM, trials=(0, 1))
    folder = fake.finish()
    for key, counts in zip(
        keys, ([[[50, 10], [10, 50]]] * 2, [[[60, 0], [0, 60]]] * 2), strict=True
    ):
        path = folder / "runs" / key / "record.json"
        record = json.loads(path.read_text())
        record["selected"]["val_accuracy"]["splits"]["unbiased"]["counts"] = counts
        path.write_text(json.dumps(record))
    for cell in table_of(folder).rows[0].values:
        low, high = cell.estimate.low, cell.estimate.high
        assert low is None or (-1.0 <= low <= high <= 1.0)  # type: ignore[operator]
    assert value(table_of(folder), "erm", "average_accuracy").estimate.high == 1.0
