"""Test the localization table and the heatmap gallery: values, damage and descriptions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.report.figures.heatmap_gallery import (
    RULE,
    by_disagreement,
    chosen_images,
    file_name,
    scaled,
)
from benchmark.report.figures.summary_plots import draw_all
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.localization import localization_sheet, read_gallery
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import mentions

WORLD = World(size=40)


def content(energy: float | None, **more: Any) -> dict[str, Any]:
    counted = {"images": 40, "zero_maps": 0, "nonfinite_maps": 0, "empty_masks": 0}
    return {**counted, "energy": energy, "correlation": 0.5, "area": 0.25, **more}


def add_heatmaps(folder: Path, key: str, energy: float | None, seed: int = 0, **more: Any) -> None:
    path = folder / "runs" / key / "record.json"
    record = json.loads(path.read_text())
    splits = {split: content(energy, **more) for split in ("biased", "deceiving")}
    record["extra"] = {"explanations": {"explainer": "lrp", "splits": splits}}
    path.write_text(json.dumps(record))
    rng, n = np.random.default_rng(seed), 4
    mask = np.zeros((n, 1, 8, 8), bool)
    mask[:, :, 2:5, 1:7] = True
    np.savez(
        path.parent / "heatmaps.npz",
        split=np.array(["biased"] * 2 + ["deceiving"] * 2),
        row=np.arange(n),
        label=np.array([0, 1, 0, 1]),
        image=rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8),
        mask=mask,
        scale=np.ones(n, np.float32),
        heatmap=np.random.default_rng(len(key)).uniform(-1, 1, (n, 8, 8)).astype(np.float16),
        prediction=np.array([0, 1, 1, 1]),
        explainer=np.array("lrp"),
    )


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[Path, dict[str, list[str]]]:
    fake = FakeSweep(tmp_path)
    keys = {m.label: fake.add(WORLD, m, trials=(0, 1)) for m in (ERM, DRO, Method("tea"))}
    folder = fake.finish()
    for trial, key in enumerate(keys[ERM.label]):
        add_heatmaps(folder, key, 0.2 + 0.1 * trial)
    for key in keys["tea"]:
        add_heatmaps(folder, key, None, zero_maps=40, distance=0.75)
    return folder, keys


def test_the_side_table(sweep: tuple[Path, dict[str, list[str]]]) -> None:
    report = make_report(sweep[0])
    sheet = localization_sheet(report.tables[0])
    assert sheet is not None
    rows = {row[0]: row for row in sheet.rows}
    assert set(rows) == {"erm", "tea"}
    assert rows["erm"][1:4] == [
        "lrp",
        f"25.0 ± {100 * np.std([0.2, 0.3], ddof=1):.1f}",
        "0.50 ± 0.00",
    ]
    assert rows["tea"][2] == "–" and "0.75 ± 0.00" in rows["tea"]
    assert "has 25.0 % in the foreground" in " ".join(sheet.caption)
    assert any(mentions(note, "tea", "160 of 160 maps", "zero") for note in sheet.notes)
    assert any(note.startswith("group_dro") and "no explanations" in note for note in sheet.notes)
    for form in ("text", "latex", "csv", "markdown", "json"):
        assert "where the networks look" in render(report, form) or form == "csv"


def test_intervals_of_shares_stay_between_0_and_100(
    sweep: tuple[Path, dict[str, list[str]]],
) -> None:
    sheet = localization_sheet(make_report(sweep[0]).tables[0], "interval")
    assert sheet is not None
    erm = next(row for row in sheet.rows if row[0] == "erm")
    # Student's t with 1 degree of freedom: 25 ± 12.7 * 5
    assert erm[2] == "25.0 [0.0, 88.5]"


def test_without_masks_the_mark_is_shown_beside_its_area(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (key,) = fake.add(WORLD, ERM, trials=(0,))
    folder = fake.finish()
    of_mark = {"on_shortcut": 0.31, "shortcut_area": 0.0125}
    add_heatmaps(folder, key, 0.69, **of_mark, foreground_is_rest=True)
    sheet = localization_sheet(make_report(folder).tables[0])
    assert sheet is not None
    assert [head[-1] for head in sheet.heads[2:]] == ["shortcut %"] * 2
    assert sheet.rows[0][2] == "31.0"
    caption = " ".join(sheet.caption)
    assert "1.2 %" in caption and "foreground" not in caption.lower()
    add_heatmaps(folder, key, 0.69, **of_mark)
    with_masks = localization_sheet(make_report(folder).tables[0])
    assert with_masks is not None and ("biased", "foreground %") in with_masks.heads
    assert "25.0 %" in " ".join(with_masks.caption)


def test_a_metric_of_an_installed_package_is_a_column(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (key,) = fake.add(WORLD, ERM, trials=(0,))
    folder = fake.finish()
    add_heatmaps(folder, key, 0.2, metrics={"spread": 0.125, "undefined": None})
    sheet = localization_sheet(make_report(folder).tables[0])
    assert sheet is not None
    column = sheet.heads.index(("biased", "spread"))
    assert sheet.rows[0][column] == "0.125"
    assert not any("undefined" in head for head in sheet.heads)


def test_a_record_of_another_form_is_no_traceback(sweep: tuple[Path, dict[str, list[str]]]) -> None:
    folder, keys = sweep
    for key, odd in zip(
        keys[ERM.label], ([1], {"explainer": None, "splits": {"biased": 3}}), strict=True
    ):
        path = folder / "runs" / key / "record.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "extra": {"explanations": odd}})
        )
    report = make_report(folder)
    sheet = localization_sheet(report.tables[0])
    assert sheet is not None and [row[0] for row in sheet.rows] == ["tea"]
    notes = report.tables[0].rows[0].notes
    for key, field in zip(
        keys[ERM.label], ("explanations", "explanations.splits.biased"), strict=True
    ):
        assert any(f"{key} (record.json is damaged: {field} is " in note for note in notes)


def test_the_gallery_is_drawn(sweep: tuple[Path, dict[str, list[str]]], tmp_path: Path) -> None:
    report = make_report(sweep[0])
    figure = draw_all(report.tables, report.store, tmp_path / "figures", figures=())[0][-1]
    assert figure.name == file_name(report.tables[0]) and figure.name.startswith("heatmaps_")
    for form, magic in (("pdf", b"%PDF"), ("png", b"\x89PNG")):
        assert (tmp_path / "figures" / f"{figure.name}.{form}").read_bytes().startswith(magic)
    assert RULE in figure.svg and RULE in figure.description and "erm 3 of 4" in figure.description
    assert figure.svg.count("✗") == 2 + 1  # one image of two methods, and the legend


def test_images_of_disagreement_are_first(sweep: tuple[Path, dict[str, list[str]]]) -> None:
    gallery = read_gallery(make_report(sweep[0]).tables[0])
    assert gallery is not None
    right = [[1, 1, 0, 0], [1, 0, 0, 1]]  # of two methods on four images
    methods = [
        replace(one, prediction=np.where(answers, gallery.label, 1 - gallery.label))
        for one, answers in zip(gallery.methods, right, strict=True)
    ]
    order = by_disagreement(replace(gallery, methods=methods))
    assert order.tolist() == [1, 3, 0, 2]
    chosen = chosen_images(gallery, order[:2])
    assert np.array_equal(chosen.image, gallery.image[[1, 3]])
    assert np.array_equal(chosen.methods[1].heatmap, gallery.methods[1].heatmap[[1, 3]])


def test_other_images_and_damage_are_named(sweep: tuple[Path, dict[str, list[str]]]) -> None:
    folder, keys = sweep
    add_heatmaps(folder, keys["tea"][0], 0.5, seed=1)
    (folder / "runs" / keys[DRO.label][0] / "heatmaps.npz").write_bytes(b"PK\x03\x04 torn")
    gallery = read_gallery(make_report(folder).tables[0])
    assert (
        gallery is not None
        and [heatmaps.method for heatmaps in gallery.methods] == ["erm"]
        and gallery.trial == 0
    )
    assert sorted(gallery.notes)[1].startswith("tea: ")
    assert sorted(gallery.notes)[0].startswith("group_dro: heatmaps.npz is damaged")


def test_the_scale_rule() -> None:
    heatmap = np.linspace(-2, 1, 10_000).reshape(100, 100)
    found = scaled(heatmap)
    by = np.percentile(np.abs(heatmap), 99)
    np.testing.assert_allclose(found, np.clip(heatmap / by, -1, 1))
    assert not scaled(np.zeros((4, 4))).any()
    lone = np.zeros((20, 20))
    lone[3, 3] = -5.0
    assert scaled(lone)[3, 3] == -1.0


def test_names_of_files() -> None:
    table = make_table("digits_on_photos:bias=1.0,size=64")
    assert file_name(table) == "heatmaps_digits_on_photos-bias-1-0-size-64"
    assert file_name(table, [file_name(table)]) == file_name(table) + "_2"
    assert file_name(make_table("../…")) == "heatmaps_data"


def make_table(dataset: str) -> Any:
    return type("NamedOptions", (), {"dataset": dataset})()
