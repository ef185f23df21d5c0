"""Global explanations: from the method to the file and the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core.errors import DamagedError
from benchmark.core.record import read_record
from benchmark.engine.global_explanations import global_arrays, global_maps
from benchmark.report.figures.summary_plots import draw_all
from benchmark.report.records.stored_arrays import read_global_maps
from benchmark.report.report import make_report
from tests.support.runs import failure, plan_run, run
from tests.support.tiny import build


def test_maps_are_divided_by_their_largest_value() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    blank = np.zeros_like(maps)
    blank[0, 0, 0] = np.nan
    arrays = global_arrays({"one": maps, "blank": blank})
    assert list(arrays["name"]) == ["one", "blank"]
    restored = arrays["map"][0] * arrays["scale"][0][:, None, None]
    np.testing.assert_allclose(restored, maps, atol=1e-2)
    assert not arrays["map"][1].any() and not arrays["scale"][1].any()


def test_other_methods_have_none() -> None:
    assert global_maps(build("erm")) == {}


def test_an_error_is_no_failure_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    algorithm = build("erm")

    def fail() -> dict[str, torch.Tensor]:
        raise RuntimeError("no memory\nmore")

    algorithm.global_explanations = fail
    assert global_maps(algorithm) == {}
    assert "no global explanations: RuntimeError: no memory\n" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("global")
    hparams = {"width": 2, "critic_width": 2, "blocks": 1, "burst": 1, "critic_steps": 1}
    folder = plan_run(
        root,
        "attri_net",
        datasets=["planted:on=tiny,options=size=48,shortcut=tag,marked=one"],
        hparams={**hparams, "batch_size": 4},
        budget={"steps": 16, "evaluate_every": 16},
    )
    assert run(folder, data_dir=root) == "done", failure(folder)
    return folder


def test_the_record_names_them_and_measures_the_first(finished: Path) -> None:
    summary = read_record(finished).explanations
    assert summary is not None and summary.explainer == "native"
    names = ("class centre", "centre without the class", "head weights", "centre × weights")
    assert summary.global_maps == names
    measured = [s for s in summary.sensitivity if s.measure == "global_confounder_sensitivity"]
    assert [(s.label, s.images, s.chance) for s in measured] == [(1, 1, 0.1)]


def test_the_report_has_a_figure_and_a_column(finished: Path, tmp_path: Path) -> None:
    report = make_report(finished.parent.parent)
    (selected,) = report.tables[0].rows[0].selected_runs
    stored = read_global_maps(selected.run)
    assert stored.maps.shape == (4, 2, 16, 16) and stored.names[0] == "class centre"
    figures = draw_all(report.tables, report.store, tmp_path)[0]
    (drawn,) = (figure for figure in figures if figure.name.startswith("global_"))
    assert "associates with each class" in drawn.description
    assert (tmp_path / f"{drawn.name}.png").exists()
    (sheet,) = (sheet for sheet in report.sheets if "sensitivity" in sheet.title)
    assert ("confounder,", "global %") in [tuple(head) for head in sheet.heads]


def test_damage_is_named(finished: Path) -> None:
    (selected,) = make_report(finished.parent.parent).tables[0].rows[0].selected_runs
    path = finished / "global_explanations.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    try:
        with pytest.raises(DamagedError, match=r"global_explanations.npz is damaged"):
            read_global_maps(selected.run)
    finally:
        path.write_bytes(content)
