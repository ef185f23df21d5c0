"""Tables and galleries of measured explanations, made from folders that were written by hand."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmark.core.files import sha256_of
from benchmark.core.spec import Measurement, RunSpec
from benchmark.core.titles import Titles
from benchmark.report.figures.explainer_gallery import draw_explainer_gallery, explainer_gallery
from benchmark.report.figures.heatmap_gallery import draw_gallery
from benchmark.report.render import render, write_page
from benchmark.report.report import make_report
from benchmark.report.tables.explanation_blocks import blocks_of
from benchmark.report.tables.explanations import number
from benchmark.report.tables.localization import paired_galleries
from benchmark.report.tables.report_table import Report
from benchmark.report.tables.sheet import Sheet
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World, make_record
from tests.support.messages import mentions

WORLD = World(size=60)
METRICS = {
    "mass": {"title": "mass", "higher_is_better": True},
    "complexity": {"title": "complexity", "higher_is_better": False},
    "sparseness": {"title": "sparseness", "higher_is_better": True},
    "seconds": {"title": "seconds per image", "higher_is_better": False},
}
IMAGES = 40
#: Mean of the mass of each explainer, for ERM and for GroupDRO.
MASS = {"lrp": (0.3, 0.6), "gradcam": (0.2, 0.22), "occlusion": (0.3, 0.55)}


def add_measurement(
    fake: FakeSweep,
    key: str,
    method: Method,
    explainer: str,
    values: dict[str, np.ndarray] | None,
    *,
    explainer_key: str = "",
    digest: str = "a" * 64,
    note: str = "",
    state: str = "done",
) -> Path:
    """Plan a measurement of a model and write its folder."""
    model = RunSpec.from_json(json.loads((fake.folder / "runs" / key / "spec.json").read_text()))
    upstream = {"model": key} | ({"explainer": explainer_key} if explainer_key else {})
    spec = replace(
        model,
        measurement=Measurement(explainer, {}, tuple(METRICS), IMAGES, ("unbiased",)),
        budget={**model.budget, "steps": 0},
        upstream=upstream,
    )
    fake.plan[spec.key] = {
        "dataset": WORLD.label,
        "method": method.label,
        "trial": spec.trial,
        "draw": spec.draw,
        "requested": True,
        "explainer": explainer,
    }
    folder = fake.folder / "runs" / spec.key
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec.to_json()))
    if state != "done":
        return folder
    record = make_record(spec, {}, WORLD.data(), method)
    splits: dict[str, Any] = {}
    checksums = {}
    if values is not None:
        arrays = {"seconds": values["seconds"], "unbiased/row": np.arange(IMAGES)}
        for name in METRICS:
            if name != "seconds":
                defined = np.isfinite(values[name])
                arrays[f"unbiased/{name}"] = np.where(defined, values[name], 0.0)
                arrays[f"unbiased/{name}/defined"] = defined
        np.savez(folder / "explanations.npz", **arrays)  # type: ignore[arg-type]
        checksums["explanations.npz"] = sha256_of(folder / "explanations.npz")
        _write_gallery(folder, explainer)
        checksums["heatmaps.npz"] = sha256_of(folder / "heatmaps.npz")
        named = [name for name in METRICS if name != "seconds"]
        splits["unbiased"] = {
            "images": IMAGES,
            "digest": digest,
            "means": {name: float(np.nanmean(values[name])) for name in named},
            "undefined": {name: int(np.isnan(values[name]).sum()) for name in named},
        }
    record |= {
        "upstream": {
            role: {"key": of, "method": fake.plan[of]["method"], "selected": {}}
            for role, of in upstream.items()
        },
        "steps": 0,
        "checksums": checksums,
    }
    record["extra"]["measurement"] = {
        "explainer": explainer,
        "metrics": METRICS,
        "splits": splits,
        "seconds_per_image": None,
        "note": note,
    }
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def _write_gallery(folder: Path, explainer: str) -> None:
    rng = np.random.default_rng(len(explainer))
    images = np.random.default_rng(0).integers(0, 255, (4, 3, 8, 8))
    mask = np.zeros((4, 1, 8, 8), bool)
    mask[:, :, 2:5, 2:5] = True
    np.savez(
        folder / "heatmaps.npz",
        split=np.array(["unbiased"] * 4),
        row=np.arange(4),
        image=images.astype(np.uint8),
        mask=mask,
        heatmap=rng.normal(size=(4, 8, 8)).astype(np.float16),
        label=np.array([0, 1, 0, 1]),
        prediction=np.array([0, 1, 1, 1]),
        explainer=np.array(explainer),
    )


def values_of(explainer: str, biased: bool, trial: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng((trial, len(explainer), biased))
    images = np.random.default_rng(trial).normal(0, 0.02, IMAGES)  # that all explainers share
    mean = MASS[explainer][0 if biased else 1]
    mass = mean + images + rng.normal(0, 0.005, IMAGES)
    if explainer == "gradcam":
        mass[:2] = np.nan
    quality = {"lrp": 2.0, "gradcam": 1.0, "occlusion": 3.0}[explainer]
    return {
        "mass": mass,
        "complexity": 5 - quality + rng.normal(0, 0.1, IMAGES),
        "sparseness": quality / 4 + rng.normal(0, 0.01, IMAGES),
        "seconds": np.full(3, 0.01 * quality) * (1 + 0.01 * trial),
    }


def make_sweep(root: Path, methods: Sequence[Method] = (ERM, DRO)) -> FakeSweep:
    """A sweep of two methods and three trials, measured by three explainers."""
    fake = FakeSweep(root, criteria=("val_accuracy",))
    for method in methods:
        for trial, key in enumerate(fake.add(WORLD, method)):
            for explainer in MASS:
                values = values_of(explainer, method is ERM, trial)
                digest = f"{trial}" * 64
                add_measurement(fake, key, method, explainer, values, digest=digest)
    return fake


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(make_sweep(tmp_path_factory.mktemp("explained")).finish())


def sheet_of(report: Report, ending: str) -> Sheet:
    sheets = [*report.sheets, *report.appendix]
    return next(sheet for sheet in sheets if sheet.title.endswith(ending))


def test_measurements_are_no_rows_of_the_results(report: Report) -> None:
    assert [row.method for row in report.tables[0].rows] == ["erm", "group_dro"]
    assert len(report.sweep.runs) == 6 and len(report.sweep.measurements) == 18
    assert report.sweep.states() == {"done": 24} and not report.sweep.notes


def test_values_are_means_over_images_and_trials(report: Report) -> None:
    erm, dro = blocks_of(report, report.tables[0])
    assert (erm.title, dro.title) == ("erm, unbiased", "group_dro, unbiased")
    expected = [np.nanmean(values_of("gradcam", False, trial)["mass"]) for trial in range(3)]
    cell = dro.cells["gradcam", "mass"]
    assert cell.estimate.value == pytest.approx(np.mean(expected))
    assert cell.estimate.sd == pytest.approx(np.std(expected, ddof=1))
    assert cell.undefined == 6 and cell.images == 3 * IMAGES
    assert dro.cells["lrp", "mass"].best and not dro.cells["gradcam", "mass"].best
    assert erm.cells["lrp", "mass"].best and erm.cells["occlusion", "mass"].best
    assert dro.cells["gradcam", "seconds"].best and not dro.cells["occlusion", "seconds"].best
    assert dro.cells["occlusion", "complexity"].best and not dro.cells["lrp", "complexity"].best


def test_the_auc_says_which_explainer_tells_the_methods_apart(report: Report) -> None:
    erm, dro = blocks_of(report, report.tables[0])
    assert "auc" not in erm.columns and dro.columns["auc"] == ("AUC against erm", True)
    strong, weak = dro.cells["lrp", "auc"].estimate, dro.cells["gradcam", "auc"].estimate
    assert strong.value == pytest.approx(1.0) and weak.value is not None and weak.value < 0.9
    pairs = []
    for trial in range(3):
        a, b = (values_of("gradcam", biased, trial)["mass"][2:] for biased in (True, False))
        pairs.append((b[:, None] > a[None, :]).mean())
    assert weak.value == pytest.approx(np.mean(pairs))


def test_the_iou_is_pooled_over_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the place of the share of found foreground, and is compared like other columns."""
    extra = {
        "pixel_accuracy": {"title": "pixel accuracy", "higher_is_better": True},
        "found_foreground": {"title": "found foreground", "higher_is_better": None},
    }
    monkeypatch.setattr(sys.modules[__name__], "METRICS", {**METRICS, **extra})
    fake = FakeSweep(tmp_path, criteria=("val_accuracy",))
    (key,) = fake.add(WORLD, ERM, trials=(0,))
    rng = np.random.default_rng(0)
    shares: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for explainer, level in (("lrp", 0.1), ("gradcam", 0.2)):
        found = level + rng.uniform(0, 0.1, IMAGES)
        right = found + 0.5 + rng.uniform(0, 0.1, IMAGES)
        shares[explainer] = (right, found)
        values = values_of(explainer, True, 0)
        values |= {"pixel_accuracy": right, "found_foreground": found}
        add_measurement(fake, key, ERM, explainer, values)
    report = make_report(fake.finish())
    (block,) = blocks_of(report, report.tables[0])
    assert "found_foreground" not in block.columns
    for explainer, (right, found) in shares.items():
        b = found.mean()
        a = right.mean() - b
        value = block.cells[explainer, "pooled_iou"].estimate.value
        assert value == pytest.approx((a / (1 - b) + b / (1 - a)) / 2)
    assert block.cells["gradcam", "pooled_iou"].best
    assert block.cells["lrp", "pooled_iou"].best is False
    heads = [" ".join(head) for head in sheet_of(report, ", explanations").heads]
    assert "pooled IoU ↑" in heads and "pixel accuracy ↑" in heads


def test_the_sheet(report: Report) -> None:
    sheet = sheet_of(report, ", explanations")
    assert [" ".join(head) for head in sheet.heads] == [
        "explainer",
        "mass ↑",
        "complexity ↓",
        "sparseness ↑",
        "seconds per image ↓",
        "AUC against erm ↑",
        "not defined",
    ]
    assert sheet.rows[0] == ["erm, unbiased"] and sheet.rows[4] == ["group_dro, unbiased"]
    assert sheet.rows[1][0] == "lrp" and sheet.rows[1][-2:] == ["–", "–"]
    assert sheet.rows[6][0] == "gradcam" and sheet.rows[6][-1] == "mass: 6 of 120"
    assert any("Holm over all pairs" in sentence for sentence in sheet.caption)


def test_comparisons_with_the_best_are_in_the_appendix(report: Report) -> None:
    sheet = sheet_of(report, "compared with the best")
    assert sheet in report.appendix
    row = next(row for row in sheet.rows[4:] if row[0] == "lrp")
    assert row[1] == "best"
    other = next(row for row in sheet.rows[4:] if row[0] == "gradcam")
    assert other[1].startswith("−0.3") and ", p < 0.001" in other[1]


def test_the_metrics_agree_or_not(report: Report) -> None:
    erm, _ = blocks_of(report, report.tables[0])
    names, agreement = erm.agreement
    assert names == ["mass", "complexity", "sparseness"]
    assert agreement[1][2].value == pytest.approx(1.0)  # lower complexity is better
    sheet = sheet_of(report, "agreement of the metrics")
    assert sheet.rows[2][0] == "complexity" and sheet.rows[2][2] == "1.00 [1.00, 1.00]"


def test_every_format_has_the_numbers(report: Report) -> None:
    for form in ("text", "latex", "markdown"):
        assert "AUC against erm" in render(report, form)
    content = json.loads(render(report, "json"))
    cells = content["explanations"]
    assert len(cells) == 3 * 4 + 3 * 5
    found = next(
        c
        for c in cells
        if (c["method"], c["explainer"], c["metric"]) == ("group_dro", "gradcam", "mass")
    )
    assert found["p_holm"] < 0.05 and not found["not_distinguishable_from_best"]
    assert found["difference_from_best"] < 0 and found["undefined"] == 6
    assert {tuple(c["metrics"]) for c in content["metric_agreement"]} == {
        ("mass", "complexity"),
        ("mass", "sparseness"),
        ("complexity", "sparseness"),
    }
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    mine = [row for row in rows if row["metric"] == "explanations/lrp/mass"]
    assert len(mine) == 2 and {row["method"] for row in mine} == {"erm", "group_dro"}


def test_intervals_replace_standard_deviations(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, [ERM]).finish()
    sheet = sheet_of(make_report(folder, spread="interval"), ", explanations")
    assert "[" in sheet.rows[1][1] and "±" not in sheet.rows[1][1]
    assert any("each with images of its own" in sentence for sentence in sheet.caption)
    assert not any("AUC" in " ".join(head) for head in sheet.heads)


def test_one_trial_has_intervals_over_images(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, criteria=("val_accuracy",))
    (key,) = fake.add(WORLD, ERM, trials=(0,))
    for explainer in MASS:
        add_measurement(fake, key, ERM, explainer, values_of(explainer, True, 0))
    report = make_report(fake.finish())
    (block,) = blocks_of(report, report.tables[0])
    assert block.cells["lrp", "mass"].estimate.sd == pytest.approx(
        values_of("lrp", True, 0)["mass"].std(ddof=1) / np.sqrt(IMAGES)
    )
    assert not block.cells["gradcam", "mass"].best
    assert block.cells["lrp", "seconds"].best is None


def test_what_is_missing_is_noted(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, criteria=("val_accuracy",))
    (key,) = fake.add(WORLD, ERM, trials=(0,))
    trained = Method("nemt:keep", requested=False)
    (explainer,) = fake.add(WORLD, trained, trials=(0,), upstream={"classifier": key})
    path = fake.folder / "runs" / explainer / "record.json"
    record = json.loads(path.read_text())
    record["extra"]["better_than_constant"] = False
    path.write_text(json.dumps(record))
    for name in ("lrp", "gradcam"):
        add_measurement(fake, key, ERM, name, values_of(name, True, 0))
    add_measurement(
        fake, key, ERM, "nemt:keep", values_of("occlusion", True, 0), explainer_key=explainer
    )
    add_measurement(fake, key, ERM, "native", None, note="native does not suit convnet")
    add_measurement(fake, key, ERM, "rise", None, state="pending")
    broken = add_measurement(fake, key, ERM, "occlusion", values_of("occlusion", True, 0))
    (broken / "explanations.npz").write_bytes(b"nothing")
    fake.refused.append(
        {
            "dataset": WORLD.label,
            "method": "erm",
            "trial": 0,
            "draw": 0,
            "reason": "it has no maps",
            "explainer": "nemt:nem",
        }
    )
    report = make_report(fake.finish())
    notes = "\n".join(sheet_of(report, ", explanations").notes)
    assert mentions(notes, "native of erm", "convnet")
    assert "rise of erm: trial 0 pending" in notes
    assert "occlusion of erm: trial 0: explanations.npz" in notes
    assert mentions(notes, "nemt:keep of erm", "trial 0")
    assert "nemt:nem of erm: it has no maps" in notes
    assert [row.method for row in report.tables[0].rows] == ["erm"]
    assert "rise of erm" in json.dumps(json.loads(render(report, "json"))["unfinished"])


def test_the_gallery_has_a_row_for_each_image(report: Report) -> None:
    canvas = Figure()
    row = report.tables[0].rows[0]
    description = draw_explainer_gallery(canvas, row, report.measurements)
    assert mentions(description, "erm", "3 explainers", "4 images")
    assert [axes.get_title() for axes in canvas.axes[:4]] == [
        "image",
        "lrp",
        "gradcam",
        "occlusion",
    ]
    assert all(
        ("✓" in axes.get_ylabel()) != ("✗" in axes.get_ylabel()) for axes in canvas.axes[:16:4]
    )
    assert len(canvas.axes) == 4 * 4 + 1


def test_many_explainers_are_in_blocks(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    canvas = Figure()
    row = report.tables[0].rows[0]
    gallery = explainer_gallery(row, report.measurements)
    assert gallery is not None
    many = replace(gallery, methods=(gallery.methods * 4)[:11])
    monkeypatch.setattr(
        "benchmark.report.figures.explainer_gallery.explainer_gallery", lambda *_: many
    )
    description = draw_explainer_gallery(canvas, row, report.measurements)
    assert mentions(description, "11 explainers")
    places = [axes.get_position() for axes in canvas.axes[:-1]]
    assert len(places) == 2 * 4 + 4 * 11  # the images stand in both blocks
    assert len({round(place.x0, 6) for place in places}) == 1 + 6
    assert len({round(place.y0, 6) for place in places}) == 2 * 4
    assert all(place.y0 >= 0 and place.y1 <= 1 for place in places)


def test_two_explainers_stand_side_by_side(report: Report) -> None:
    galleries = paired_galleries(report.tables[0], report.measurements)
    assert [gallery.methods[0].explainer for gallery in galleries] == ["lrp", "gradcam"]
    assert all([one.method for one in g.methods] == ["erm", "group_dro"] for g in galleries)
    assert not np.array_equal(*(gallery.methods[0].heatmap for gallery in galleries))
    canvas = Figure()
    titled = replace(report.tables[0], titles=Titles({"lrp": "LRP"}))
    text = draw_gallery(canvas, titled, measurements=report.measurements)
    assert mentions(text, "predicted class", "LRP", "gradcam", "4 images")
    assert len(canvas.axes) == 3 * 8 + 1


@pytest.mark.slow
def test_the_page_shows_the_gallery(report: Report, tmp_path: Path) -> None:
    write_page(report, tmp_path)
    assert (tmp_path / "figures" / "explainers_1_1.png").stat().st_size > 10_000
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert mentions(page, "erm", "3 explainers", "4 images", "unbiased")


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [(0.12345, "mass", "0.123"), (-0.0001, "mass", "0.000"), (0.0123456, "seconds", "0.0123")],
)
def test_numbers(value: float, name: str, text: str) -> None:
    assert number(value, name) == text
