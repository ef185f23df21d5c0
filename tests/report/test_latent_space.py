"""Test the table and the figure of the latent space: values, damage and descriptions."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from benchmark.report.figures import latent_space
from benchmark.report.figures.latent_space import draw_latent, project
from benchmark.report.figures.summary_plots import draw_all
from benchmark.report.html.page import page
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.latent_space import latent_sheet
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

WORLD = World(size=40)


def add_embeddings(folder: Path, key: str, score: float | None, **more: Any) -> Path:
    path = folder / "runs" / key / "record.json"
    record = json.loads(path.read_text())
    splits = [split for split in record["data"]["splits"] if split not in ("train", "val")]
    content = {split: {"images": 40, "label": score, "confounder": -0.125} for split in splits}
    record["extra"] = {"embeddings": {"dimensions": 64, "splits": content, **more}}
    path.write_text(json.dumps(record))
    rng, n = np.random.default_rng(0), 20 * len(splits)
    place = path.parent / "embeddings.npz"
    np.savez(
        place,
        split=np.repeat(splits, 20),
        row=np.tile(np.arange(20), len(splits)),
        prediction=np.zeros(n, np.int64),
        feature=rng.normal(size=(n, 5)).astype(np.float32),
        share=np.full(5, 0.2, np.float32),
        label=rng.integers(0, 2, n),
        confounder=rng.integers(0, 2, n),
    )
    return place


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[Path, dict[str, list[str]]]:
    fake = FakeSweep(tmp_path)
    keys = {m.label: fake.add(WORLD, m, trials=(0, 1)) for m in (ERM, DRO, Method("tea"))}
    folder = fake.finish()
    for trial, key in enumerate(keys[ERM.label]):
        add_embeddings(folder, key, 0.25 + 0.5 * trial)
    for key in keys["tea"]:
        add_embeddings(folder, key, None)
    return folder, keys


def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)  # importing it fails


def test_silhouettes_are_in_the_tables(sweep: tuple[Path, dict[str, list[str]]]) -> None:
    report = make_report(sweep[0])
    sheet = latent_sheet(report.tables[0])
    assert sheet is not None
    rows = {row[0]: row for row in sheet.rows}
    assert set(rows) == {"erm", "tea"} and rows["erm"][1] == "64"
    assert rows["erm"][2:4] == [f"0.50 ± {np.std([0.25, 0.75], ddof=1):.2f}", "−0.12 ± 0.00"]
    assert rows["tea"][2] == "–"
    assert any(note.startswith("group_dro") and "no embeddings" in note for note in sheet.notes)
    for form in ("text", "latex", "markdown", "json"):
        assert "latent space" in render(report, form)


def test_runs_without_features_have_neither_table_nor_figure(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    report = make_report(fake.finish())
    assert latent_sheet(report.tables[0]) is None
    assert draw_latent(None, report.tables[0]) == ""  # type: ignore[arg-type]


def test_the_figure_and_the_page(
    sweep: tuple[Path, dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_umap(monkeypatch)
    folder, keys = sweep
    add_embeddings(folder, keys[DRO.label][0], 0.1).write_bytes(b"PK\x03\x04 torn")
    report = make_report(folder)
    drawn = draw_all(report.tables, report.store, folder / "figures", figures=("latent_space",))
    (figure,) = [f for f in drawn[0] if f.name == "latent_space_1"]
    assert figure.full and "by PCA" in figure.description and "trial 0" in figure.description
    assert "group_dro: embeddings.npz is damaged" in figure.description
    for form in ("png", "pdf"):
        assert (folder / "figures" / f"latent_space_1.{form}").stat().st_size > 5000
    assert "silhouette" in page(report, drawn)


def test_methods_beyond_a_pages_width_are_named(
    sweep: tuple[Path, dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_umap(monkeypatch)
    monkeypatch.setattr(latent_space, "MAX_METHODS", 1)
    trial, views, left = latent_space._views(make_report(sweep[0]).tables[0])
    assert trial == 0 and [view.method for view in views] == ["erm"]
    assert "tea: no room" in left


def test_arrays_that_cannot_be_shown_say_why(sweep: tuple[Path, dict[str, list[str]]]) -> None:
    folder, keys = sweep
    selected_run = next(
        w
        for row in make_report(folder).tables[0].rows
        for w in row.selected_runs
        if w.run.key == keys["tea"][0]
    )
    path = folder / "runs" / keys["tea"][0] / "embeddings.npz"
    good = dict(np.load(path))
    split = str(good["split"][0])
    found = latent_space._shown(selected_run, split)
    assert not isinstance(found, str) and found.environment is None
    assert [len(array) for array in (found.feature, found.label, found.confounder)] == [20, 20, 20]
    cases: list[tuple[dict[str, np.ndarray], str]] = [
        ({k: v for k, v in good.items() if k != "confounder"}, "no known confounder"),
        ({**good, "label": np.eye(len(good["label"]), 3)}, "label is float64"),
        ({**good, "label": good["label"][:-1]}, "label is int64[59], expected int[60]"),
        ({**good, "label": good["label"] + 7}, "label holds 7 to"),
        ({**good, "feature": np.full_like(good["feature"], np.nan)}, "not finite"),
    ]
    for arrays, sentence in cases:
        np.savez(path, **arrays)  # type: ignore[arg-type]
        assert sentence in str(latent_space._shown(selected_run, split))
    np.savez(path, **good)  # type: ignore[arg-type]
    assert "too few" in str(latent_space._shown(selected_run, "no such split"))


def test_projection_against_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    without_umap(monkeypatch)
    feature = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32) * [5, 4, 1, 1, 1, 1]
    place, name = project(feature)
    expected = PCA(2, svd_solver="full").fit_transform(feature.astype(np.float64))
    assert name == "PCA"
    np.testing.assert_allclose(np.abs(place), np.abs(expected), rtol=1e-6, atol=1e-6)
    assert project(np.ones((4, 1)))[0].tolist() == [[0.0, 0.0]] * 4


def test_umap_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class UMAP:
        def __init__(self, n_neighbors: int, random_state: int) -> None:
            assert (n_neighbors, random_state) == (15, 0)

        def fit_transform(self, feature: np.ndarray) -> np.ndarray:
            if not feature.any():
                raise ValueError("nothing to embed")
            return feature[:, :2] + 7

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    place, name = project(np.ones((16, 3)))
    assert name == "UMAP" and (place == 8).all()
    assert project(np.ones((15, 3)))[1] == "PCA"
    assert project(np.zeros((16, 3)))[1] == "PCA"


def test_environments_have_a_row_and_columns(
    sweep: tuple[Path, dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_umap(monkeypatch)
    folder, keys = sweep
    for key in keys[ERM.label]:
        path = folder / "runs" / key / "record.json"
        record = json.loads(path.read_text())
        record["data"]["environment_names"] = ["north", "south"]
        for summary in record["extra"]["embeddings"]["splits"].values():
            summary["environment"] = 0.5
        path.write_text(json.dumps(record))
        stored = path.parent / "embeddings.npz"
        arrays = dict(np.load(stored))
        tests = list(dict.fromkeys(arrays["split"]))
        arrays["environment"] = 2 + np.array([tests.index(name) for name in arrays["split"]])
        added = {name: value[:20] for name, value in arrays.items() if name != "share"}
        added |= {"split": np.array(["val"] * 20), "environment": np.arange(20) % 2}
        whole = {name: np.concatenate([arrays[name], value]) for name, value in added.items()}
        np.savez(stored, share=arrays["share"], **whole)
    report = make_report(folder)
    sheet = latent_sheet(report.tables[0])
    assert sheet is not None and any("By environment" in sentence for sentence in sheet.caption)
    column = [tuple(head) for head in sheet.heads].index(("unbiased", "by environment"))
    assert {row[0]: row[column] for row in sheet.rows} == {"erm": "0.50 ± 0.00", "tea": "–"}
    (figure,) = (
        f
        for f in draw_all(report.tables, report.store, folder / "figures")[0]
        if f.name == "latent_space_1"
    )
    assert "by environment" in figure.description
    for name in ("north", "south", "unbiased"):
        assert f">{name}</text>" in figure.svg
    _, views, _ = latent_space._views(report.tables[0])
    erm, tea = views
    shown = erm.colours("environment")
    assert shown is not None and len(shown[1]) == 40 and set(shown[1][:20]) != {0, 1}
    by_label = erm.colours("label")
    assert by_label is not None and len(by_label[1]) == 20
    assert tea.colours("environment") is None
