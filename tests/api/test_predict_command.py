"""The command ``python -m benchmark.predict``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import load_run
from benchmark.predict import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{'=' * number}{number}.png")
    return path


def test_a_table_on_standard_output(
    sweep: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(sweep), str(folder), "--method", "erm"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = load_run(sweep, method="erm").predict(sorted(folder.iterdir()))
    assert [row["predicted"] for row in rows] == list(expected["predicted"])
    assert [float(row["p(lying)"]) for row in rows] == pytest.approx(
        list(expected["p(lying)"]), abs=1e-5
    )


def test_files_with_heatmaps(sweep: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = [str(folder / "0.png"), str(folder / "0.png")]
    options = ["--method", "erm", "--explain", "input_gradient", "--out", str(out)]
    assert main([str(sweep), *images, *options]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "0_heatmap.png",
        "0_heatmap_2.png",
        "predictions.csv",
    ]
    assert np.asarray(Image.open(out / "0_heatmap.png")).std() > 0


def test_heatmaps_without_a_named_folder(
    sweep: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(sweep), str(folder / "0.png"), "--method", "erm", "--explain", "lrp"]) == 0
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["0_heatmap.png"]
    assert len(capsys.readouterr().out.splitlines()) == 2  # the table is still printed


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["--method", "erm", "--explain", "lpr"], "lrp"),
        ([], "group_dro"),
        (["--method", "erm", "--trial", "3"], "3"),
    ],
)
def test_mistakes_end_with_2(
    sweep: Path,
    folder: Path,
    arguments: list[str],
    fact: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(sweep), str(folder), *arguments]) == 2
    assert fact in capsys.readouterr().err
