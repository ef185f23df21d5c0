"""Test learning curves of intact and damaged logs, and the figures of the results."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmark.core.layout import RunFolder
from benchmark.core.summaries import DataSummary
from benchmark.report.figures.accuracy_scatter import draw_scatter
from benchmark.report.figures.label_placement import place_labels
from benchmark.report.figures.style import method_style
from benchmark.report.figures.summary_plots import draw_all
from benchmark.report.records.learning_curves import mean_curve, range_curve, read_curves
from benchmark.report.report import make_report
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

WORLD = World(size=80)
DATA = DataSummary(
    label_names=("a", "b"), confounder_names=("x", "y"), splits={"val": 12, "test": 12}
)


def line(step: int, **splits: list[list[list[int]]]) -> str:
    content = {split: {"counts": counts} for split, counts in splits.items()}
    return json.dumps({"step": step, "terms": {"loss": 1.0 / step}, "splits": content}) + "\n"


def test_curves_are_those_of_the_log(tmp_path: Path) -> None:
    text = line(10, val=[[[3, 1], [0, 4]], [[1, 1], [2, 0]]]) + line(
        20, val=[[[4, 0], [0, 4]], [[2, 0], [0, 2]]]
    )
    (tmp_path / "log.jsonl").write_text(text)
    curves = read_curves(RunFolder(tmp_path), DATA)
    assert (curves.steps, curves.note) == ([10, 20], "")
    assert curves.accuracy == {"val": [8 / 12, 1.0]} and curves.worst == {"val": [0.0, 1.0]}
    plain = [json.loads(line_) for line_ in text.splitlines()]
    for value in plain:  # the same without confounders
        value["splits"]["val"]["counts"] = value["splits"]["val"]["counts"][:1]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(value) + "\n" for value in plain))
    without = replace(DATA, confounder_names=())
    assert read_curves(RunFolder(tmp_path), without).worst == {"val": [None, None]}


COUNTS = [[[1, 0], [0, 1]]]


@pytest.mark.parametrize(
    ("text", "steps", "note"),
    [
        (line(1, val=COUNTS) + line(2, val=COUNTS)[:30], [1], "torn last line ignored"),
        (line(1, val=COUNTS) + "{}\n" + line(2, val=COUNTS), [1], "damaged from line 2 on"),
        (line(1, val=COUNTS) + line(2, val=[[[1]], [[1, 2]]]), [1], "damaged from line 2 on"),  # type: ignore[list-item]
        ("\x00\x01\n", [], "damaged from line 1 on"),
        ("", [], ""),
        (None, [], "log.jsonl is missing"),
    ],
)
def test_damaged_logs(tmp_path: Path, text: str | None, steps: list[int], note: str) -> None:
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    curves = read_curves(RunFolder(tmp_path), DATA)
    assert curves.steps == steps and note in curves.note and bool(note) == bool(curves.note)


def test_splits_that_come_and_go_keep_their_places(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(
        line(1, val=COUNTS) + line(2, val=COUNTS, test=COUNTS) + line(3, val=COUNTS)
    )
    assert read_curves(RunFolder(tmp_path), DATA).accuracy == {
        "val": [1.0, 1.0, 1.0],
        "test": [None, 1.0, None],
    }


def test_mean_over_runs_of_different_length() -> None:
    steps, values = mean_curve(
        [([1, 2, 3], [0.0, 0.2, 0.4]), ([1, 2], [1.0, 0.6]), ([1, 2, 3], [0.5, None, 0.4])]
    )
    assert steps == [1] and values == [0.5]
    assert mean_curve([]) == ([], [])


def test_range_over_runs() -> None:
    found = [([1, 2], [0.0, 0.2]), ([1, 2], [1.0, 0.6]), ([1, 2], [0.5, None])]
    assert range_curve(found) == ([1], [0.0], [1.0])  # only two runs have step 2
    assert range_curve([]) == ([], [], [])


def test_figures_are_drawn_and_described(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO, trials=(0,))
    fake.add(WORLD, Method("x_$y$_{z}" * 6, requested=False), trials=(0,))
    fake.add(WORLD, Method("broken"), state="failed")
    report = make_report(fake.finish())
    drawn = draw_all(report.tables, report.store, tmp_path / "figures")[0]
    names = ["accuracy_worst_group_1", "gap_1", "learning_curves_1", "reliability_1"]
    assert [figure.name for figure in drawn] == names
    for figure in drawn:
        pdf, png = (tmp_path / "figures" / f"{figure.name}.{form}" for form in ("pdf", "png"))
        assert pdf.read_bytes().startswith(b"%PDF") and png.read_bytes().startswith(b"\x89PNG")
        ElementTree.fromstring(figure.svg)
        assert "broken" not in figure.description
    if shutil.which("pdffonts"):
        command = ["pdffonts", str(tmp_path / "figures" / "gap_1.pdf")]
        fonts = subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.splitlines()[2:]
        assert fonts and all(" yes " in font and "Type 3" not in font for font in fonts)  # embedded
    gap = report.tables[0].rows[0].values[-1].estimate.value
    assert gap is not None and f"erm {gap * 100:.1f}" in drawn[1].description
    assert f">{gap * 100:.1f}</text>" in drawn[1].svg


def test_only_what_there_is_to_show(tmp_path: Path) -> None:
    """Figures without content are left out: no gap, groups, predictions or log."""
    fake = FakeSweep(tmp_path, predictions=False)
    key = fake.add(World("plain", size=40, splits=("test",), confounders=False), ERM, trials=(0,))[
        0
    ]
    fake.add(World("nothing", size=40), DRO, state="failed")
    folder = fake.finish()
    (folder / "runs" / key / "log.jsonl").unlink()
    report = make_report(folder)
    assert draw_all(report.tables, report.store, tmp_path / "figures") == {}


def test_oracle_runs_show_biased_and_deceiving_data(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    folder = fake.finish()
    for path in folder.glob("runs/*/log.jsonl"):
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        for content in lines:
            content["splits"] |= dict.fromkeys(("biased", "deceiving"), content["splits"]["val"])
        path.write_text("".join(json.dumps(content) + "\n" for content in lines))
    report = make_report(folder)
    out = tmp_path / "figures"
    found = draw_all(report.tables, report.store, out, figures=("learning_curves",))[0]
    drawn = {f.name: f for f in found}
    assert "accuracy on biased and accuracy on deceiving" in drawn["learning_curves_1"].description


def test_auc_and_distance_of_heatmaps_have_panels_if_they_were_logged(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, Method("tea"), trials=(0,))
    folder = fake.finish()
    for path in folder.glob("runs/*/log.jsonl"):
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        student = json.loads((path.parent / "spec.json").read_text())["algorithm"] == "tea"
        for i, content in enumerate(lines):
            content["curves"] = {"auc": {"val": 0.5 + i / 10}}
            if student:
                content["curves"]["distance"] = {"val": 2.0 / (i + 1)}
        path.write_text("".join(json.dumps(content) + "\n" for content in lines))
    report = make_report(folder)
    run = report.tables[0].rows[0].selected_runs[0].run
    assert run.record is not None
    curves = read_curves(run.folder, run.record.data)
    assert curves.auc["val"][:2] == [0.5, 0.6] and curves.distance == {}
    out = tmp_path / "figures"
    figures = draw_all(report.tables, report.store, out, figures=("learning_curves",))[0]
    (drawn,) = (figure for figure in figures if figure.name == "learning_curves_1")
    assert "mean AUC in %, validation and distance of heatmaps, validation" in drawn.description
    assert "distance of heatmaps, validation</text>" in drawn.svg


@pytest.mark.parametrize("curves", [[], {"auc": 0.5}, {"auc": {"val": "high"}}])
def test_damaged_measurements_end_the_curves(tmp_path: Path, curves: object) -> None:
    damaged = json.dumps({**json.loads(line(2, val=COUNTS)), "curves": curves}) + "\n"
    (tmp_path / "log.jsonl").write_text(line(1, val=COUNTS) + damaged + line(3, val=COUNTS))
    found = read_curves(RunFolder(tmp_path), DATA)
    assert found.steps == [1] and "damaged from line 2" in found.note


def test_labels_cover_neither_each_other_nor_points() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal((200, 150), 6, (6, 2)), [[20, 20], [380, 280]]])
    sizes = np.stack([rng.uniform(30, 90, len(points)), np.full(len(points), 11.0)], 1)
    corners = place_labels(points, sizes, np.zeros((0, 2)), (0, 0, 400, 300))
    ends = corners + sizes
    assert (corners >= 0).all() and (ends <= (400, 300)).all()
    for i, j in itertools.combinations(range(len(points)), 2):
        assert (ends[i] <= corners[j]).any() or (ends[j] <= corners[i]).any()
    covered = (points > corners[:, None]) & (points < ends[:, None])
    assert not covered.all(2).any()
    nearest = np.clip(points[-2:], corners[-2:], ends[-2:])
    assert np.hypot(*(nearest - points[-2:]).T).max() < 10, "lonely points have theirs beside them"


def test_a_label_avoids_dots_where_there_is_room() -> None:
    dots = np.array([[112.0, 100.0], [120.0, 101.0]])
    (corner,) = place_labels(
        np.array([[100.0, 100]]), np.array([[40.0, 10]]), dots, (0, 0, 300, 300)
    )
    end = corner + np.array([40, 10])
    assert not ((dots > corner) & (dots < end)).all(1).any()
    assert place_labels(np.zeros((0, 2)), np.zeros((0, 2)), dots, (0, 0, 1, 1)).shape == (0, 2)


def test_a_method_has_one_colour_in_all_figures(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    fake.add(WORLD, DRO, trials=(0,))
    fake.add(World("second", size=80), DRO, trials=(0,))
    fake.add(World("second", size=80), ERM, trials=(0,))
    tables = make_report(fake.finish()).tables
    styles = [{row.label: method_style(row)["color"] for row in table.rows} for table in tables]
    assert styles[0] == styles[1] and len(set(styles[0].values())) == 2
    assert [list(style) for style in styles] == [["erm", "group_dro"], ["group_dro", "erm"]]


def test_the_scatter_has_equal_scales_names_and_trials(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO)
    table = make_report(fake.finish()).tables[0]
    canvas = Figure()
    description = draw_scatter(canvas, table)
    (axes,) = canvas.axes
    assert axes.get_xlim() == axes.get_ylim() and axes.get_aspect() == 1.0
    assert [text.get_text() for text in axes.texts] == ["erm", "group_dro"]
    trials = [line for line in axes.lines if line.get_marker() == "."]
    for row, line in zip(table.rows, trials, strict=True):
        expected = [value.per_trial or {} for value in row.values[:2]]
        shown = np.sort(np.array(line.get_xydata()) / 100, axis=0)
        np.testing.assert_allclose(shown.T, [sorted(each.values()) for each in expected])
    assert axes.get_legend() is None and "single trials" in description


def test_the_gap_has_the_minus_sign_of_the_tables(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, Method("reversed", 0.5, 0.9))
    report = make_report(fake.finish())
    (found,) = draw_all(report.tables, report.store, tmp_path / "out", figures=["gap"]).values()
    at = [column.name for column in report.tables[0].columns].index("gap")
    value = report.tables[0].rows[1].values[at].estimate.value
    assert value is not None and value < -0.01
    shown = f"−{-100 * value:.1f}"
    gap = next(figure for figure in found if figure.name.startswith("gap"))
    assert f"reversed {shown}." in gap.description and f">{shown}<" in gap.svg
