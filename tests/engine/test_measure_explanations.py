"""Measurements of explanations as runs: values, records, resumes, mismatches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core.record import RunRecord, read_record
from benchmark.core.registry import DATASETS
from benchmark.engine import measure_explanations
from benchmark.engine.build import load_upstream
from benchmark.engine.device_split import DeviceSplit
from benchmark.explain import get
from benchmark.explain.metrics import complexity, faithfulness_estimate, relevance_mass
from benchmark.report.report import make_report
from benchmark.report.tables.sensitivity import sensitivity_sheet
from tests.support.messages import mentions
from tests.support.runs import failure, lines, plan_runs, run, spec_of

METRICS = ["mass", "rank", "complexity", "sparseness", "faithfulness", "seconds"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained model."""
    (folder,) = plan_runs(tmp_path_factory.mktemp("trained"), budget={"steps": 4})
    assert run(folder) == "done", failure(folder)
    return folder


def measured(root: Path, trained: Path, **explanations: Any) -> list[Path]:
    """The folders of a trained model and of its measurements, which are not executed yet."""
    table = {"metrics": METRICS, "images": 12, "splits": ["unbiased"], **explanations}
    folders = plan_runs(root, budget={"steps": 4}, explanations=table)
    assert folders[0].name == trained.name
    shutil.copytree(trained, folders[0], dirs_exist_ok=True)
    for folder in folders[1:]:
        if spec_of(folder).measurement is None:
            assert run(folder) == "done", failure(folder)
    return folders


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "explanations.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> tuple[Path, Path]:
    """The folders of a model and of the measurement of LRP."""
    root = tmp_path_factory.mktemp("measured")
    model, folder = measured(root, trained, explainers=["lrp"])
    assert run(folder) == "done", failure(folder)
    return model, folder


def test_values_are_those_of_the_metrics(finished: tuple[Path, Path]) -> None:
    model, folder = finished
    spec = spec_of(model)
    data = DATASETS.get("tiny")(None, **spec.dataset_options).load(spec.trial)
    split = DeviceSplit(data, "unbiased", torch.device("cpu"))
    found = arrays_of(folder)
    rows = found["unbiased/row"]
    assert len(rows) == 12 and rows[0] == 0 and rows[-1] == split.size - 1
    batch = split.batch(rows)
    algorithm = load_upstream(model, torch.device("cpu"))
    target = algorithm.predict(batch.image).argmax(1)
    relevance = get("lrp")(algorithm.network, batch.image, target).sum(1).double().abs()
    assert batch.mask is not None
    expected = {
        "mass": relevance_mass(relevance, batch.mask[:, 0]),
        "complexity": complexity(relevance),
        "faithfulness": faithfulness_estimate(algorithm.predict, batch.image, relevance, target),
    }
    for name, values in expected.items():
        defined = values.isfinite().numpy()
        np.testing.assert_array_equal(found[f"unbiased/{name}/defined"], defined)
        np.testing.assert_allclose(found[f"unbiased/{name}"][defined], values[defined], rtol=1e-5)
    np.testing.assert_array_equal(found["unbiased/prediction"], target)
    np.testing.assert_array_equal(found["unbiased/label"], batch.label)


def test_the_record_describes_itself(finished: tuple[Path, Path]) -> None:
    model, folder = finished
    record = read_record(folder)
    assert RunRecord.from_json(record.to_json()) == record
    assert record.selected == {} and record.steps == 0
    assert record.upstream["model"].key == model.name
    summary = record.measurement
    assert summary is not None and summary.explainer == "lrp" and not summary.note
    assert summary.metrics["complexity"].higher_is_better is False
    found = arrays_of(folder)
    defined = found["unbiased/mass/defined"]
    split = summary.splits["unbiased"]
    assert split.images == 12 and split.undefined["mass"] == (~defined).sum()
    assert split.means["mass"] == pytest.approx(found["unbiased/mass"][defined].mean())
    assert len(found["seconds"]) == measure_explanations.TIMED_IMAGES
    assert summary.seconds_per_image == pytest.approx(found["seconds"].mean())
    assert set(record.checksums) == {"explanations.npz", "heatmaps.npz"}
    assert not (folder / "checkpoint.pt").exists() and (folder / "output.txt").exists() is False


def test_sensitivity_of_an_explainer(tmp_path: Path, trained: Path) -> None:
    """That of the method's own explainer is in the record of the model too."""
    table = {
        "explainers": ["lrp", "gradcam"],
        "metrics": ["class_sensitivity", "disease_sensitivity", "mass"],
        "splits": ["deceiving", "unbiased"],
    }
    model, lrp, gradcam = measured(tmp_path, trained, **table)
    found = {}
    for folder in (lrp, gradcam):
        assert run(folder) == "done", failure(folder)
        record = read_record(folder)
        assert RunRecord.from_json(record.to_json()) == record
        assert record.measurement is not None
        assert set(record.measurement.metrics) == {"mass"}
        found[record.measurement.explainer] = record.measurement.sensitivity
    own = read_record(model).explanations
    assert own is not None and own.explainer == "lrp"
    names = ("class_sensitivity", "disease_sensitivity")
    expected = [e for e in own.sensitivity if e.measure in names and e.split in table["splits"]]
    assert {(e.measure, e.split) for e in expected} == {
        ("class_sensitivity", "unbiased"),
        ("disease_sensitivity", "unbiased"),
        ("disease_sensitivity", "deceiving"),
    }
    assert sorted(found["lrp"], key=str) == sorted(expected, key=str)
    assert len(found["gradcam"]) == len(expected)
    assert found["gradcam"] != found["lrp"]

    report = make_report(model.parent.parent)
    (table_,) = report.tables
    sheet = sensitivity_sheet(table_, report)
    assert sheet is not None
    assert [row[1] for row in sheet.rows] == ["LRP", "LRP", "Grad-CAM"]
    assert sheet.rows[0][2:][-2:] == sheet.rows[1][2:][-2:] != sheet.rows[2][2:][-2:]


def test_the_model_is_as_it_was(finished: tuple[Path, Path]) -> None:
    assert not (finished[0] / "failure.json").exists()
    assert lines(finished[1])[-1]["step"] == 12 == lines(finished[1])[-1]["steps"]


@pytest.mark.parametrize(
    "explainer", ["input_gradient", "rise:masks=8", "integrated_gradients:steps=3"]
)
def test_other_explainers(tmp_path: Path, trained: Path, explainer: str) -> None:
    if explainer.startswith("integrated"):
        pytest.importorskip("captum")
    metrics = ["mass", "randomization"]
    _, folder = measured(tmp_path, trained, explainers=[explainer], metrics=metrics, images=3)
    assert run(folder) == "done", failure(folder)
    found = arrays_of(folder)
    assert found["unbiased/mass/defined"].any() and found["unbiased/randomization/defined"].any()
    assert not len(found["seconds"])


def test_a_trained_explainer(tmp_path: Path, trained: Path) -> None:
    folders = measured(tmp_path, trained, explainers=["nemt:keep"], metrics=["mass", "seconds"])
    assert run(folders[-1]) == "done", failure(folders[-1])
    record = read_record(folders[-1])
    assert record.measurement is not None and record.measurement.explainer == "nemt:keep"
    assert set(record.upstream) == {"model", "explainer"}
    assert record.measurement.splits["unbiased"].undefined["mass"] == 0
    explainer = load_upstream(folders[-2], torch.device("cpu"))
    spec = spec_of(folders[0])
    data = DATASETS.get("tiny")(None, **spec.dataset_options).load(spec.trial)
    found = arrays_of(folders[-1])
    batch = DeviceSplit(data, "unbiased", torch.device("cpu")).batch(found["unbiased/row"])
    mask = explainer.network.mask(batch.image).detach()[:, 0]  # type: ignore[operator]
    assert batch.mask is not None
    expected = relevance_mass(mask, batch.mask[:, 0])
    np.testing.assert_allclose(found["unbiased/mass"], expected, rtol=1e-5)


def test_the_label_is_explained_on_request(tmp_path: Path, trained: Path) -> None:
    _, folder = measured(tmp_path, trained, explainers=["lrp"], metrics=["mass"], target="label")
    assert run(folder) == "done", failure(folder)
    found = arrays_of(folder)
    np.testing.assert_array_equal(found["unbiased/prediction"], found["unbiased/label"])


def test_an_explainer_that_does_not_suit_the_network_is_noted(
    tmp_path: Path, trained: Path
) -> None:
    _, folder = measured(tmp_path, trained, explainers=["native"])
    assert run(folder) == "done"
    summary = read_record(folder).measurement
    assert summary is not None and not summary.splits
    assert mentions(summary.note, "native", "network", "convnet")
    assert not (folder / "explanations.npz").exists()


def test_a_resumed_measurement_is_that_of_an_uninterrupted_one(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_explanations, "MAX_BATCH", 5)
    one, other = (
        measured(
            tmp_path / name, trained, explainers=["rise:masks=8"], metrics=["mass", "faithfulness"]
        )[1]
        for name in ("one", "other")
    )
    assert run(one) == "done"
    asked = iter([None, None, "stopped"])
    assert run(other, stop=lambda: next(asked, None)) == "interrupted"
    assert (other / "checkpoint.pt").exists() and not (other / "record.json").exists()
    assert run(other, attempt=2) == "done", failure(other)
    assert not (other / "checkpoint.pt").exists()
    assert lines(one) == lines(other) and len(lines(one)) == 3
    a, b = arrays_of(one), arrays_of(other)
    assert a.keys() == b.keys()
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_a_lost_lease_writes_nothing(tmp_path: Path, trained: Path) -> None:
    _, folder = measured(tmp_path, trained, explainers=["lrp"])
    assert run(folder, stop=lambda: "lease lost") == "interrupted"
    assert not (folder / "checkpoint.pt").exists() and not (folder / "record.json").exists()


def test_a_model_without_weights_is_a_sentence(tmp_path: Path, trained: Path) -> None:
    model, folder = measured(tmp_path, trained, explainers=["lrp"])
    (model / "selected.pt").unlink()
    assert run(folder) == "failed"
    assert failure(folder)["kind"] == "user_error" and "selected.pt" in failure(folder)["message"]
