"""Embeddings of test images: silhouettes and axes against scikit-learn, and real runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from benchmark.core.record import read_record
from benchmark.core.registry import DATASETS
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.embeddings import principal_components, silhouette
from tests.support.runs import built, failure, plan_run, plan_runs, run, spec_of
from tests.support.toy_algorithms import Undeclared, registered


@pytest.mark.parametrize("clusters", [2, 5])
def test_silhouette_against_scikit_learn(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    labels = rng.integers(0, clusters, 60)
    labels[0] = 99  # alone with its label
    features = rng.normal(size=(60, 7)) + labels[:, None] % 3
    expected = silhouette_score(features, labels)
    assert silhouette(torch.from_numpy(features), labels) == pytest.approx(expected, rel=1e-10)


def test_silhouettes_without_an_answer_and_extremes() -> None:
    features = torch.tensor([[0.0], [0.0], [5.0], [5.0]]).double()
    assert silhouette(features, np.array([0, 0, 1, 1])) == 1.0
    assert silhouette(features, np.array([0, 1, 0, 1])) == pytest.approx(
        -0.5
    )  # a = 5, b = 2.5 for every image
    assert silhouette(torch.zeros(4, 3).double(), np.array([0, 0, 1, 1])) == 0.0
    assert silhouette(features, np.array([3, 3, 3, 3])) is None
    assert silhouette(features, None) is None
    assert silhouette(features, np.eye(4, dtype=np.int64)) is None


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)])
def test_axes_against_scikit_learn(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 4, shape[1]) + 3
    ours, share = principal_components(torch.from_numpy(features), 4)
    pca = PCA(4, svd_solver="full").fit(features)
    theirs = pca.transform(features)
    theirs *= np.sign(theirs[np.abs(theirs).argmax(0), np.arange(4)])
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(share.numpy(), pca.explained_variance_ratio_, rtol=1e-9)


def test_features_that_never_vary_have_axes_of_zeros() -> None:
    ours, share = principal_components(torch.full((5, 3), 2.0).double(), 50)
    assert ours.shape == (5, 3) and not ours.any() and not share.any()


def test_a_run_keeps_what_its_selected_step_sees(tmp_path: Path) -> None:
    """The stored rows, labels and silhouettes are those of the selected weights."""
    folders = [
        plan_run(tmp_path, "erm", budget={"steps": 4}),
        *plan_runs(tmp_path, "jtt", budget={"steps": 4}),
    ]
    for folder in dict.fromkeys(folders):
        assert run(folder) == "done", failure(folder)
    folder = folders[0]
    record, spec = read_record(folder), spec_of(folder)
    data = DATASETS.get(spec.dataset)(None, **spec.dataset_options).load(spec.trial)
    algorithm = built(folder)
    algorithm.load_state_dict(torch.load(folder / "selected.pt", weights_only=True))
    algorithm.eval()
    found: Any = record.embeddings
    stored, start = dict(np.load(folder / "embeddings.npz")), 0
    assert list(found.splits) == list(data.info.test_splits) and found.dimensions == 8
    assert record.seconds.embeddings > 0 and stored["feature"].dtype == np.float32
    for name in data.info.test_splits:
        arrays, split = data.splits[name], DeviceSplit(data, name, torch.device("cpu"))
        with torch.no_grad():
            features = algorithm.network.features(split.batch(np.arange(split.size)).image).numpy()  # type: ignore[operator]
        part = slice(start, start + split.size)
        start += split.size
        assert (
            set(stored["split"][part]) == {name}
            and (stored["row"][part] == np.arange(split.size)).all()
        )
        for of in ("label", "confounder"):
            known = getattr(arrays, of)
            assert (stored[of][part] == known).all()
            assert getattr(found.splits[name], of) == pytest.approx(
                silhouette_score(features, known), abs=1e-4
            )
        # eight features, eight axes: nothing but a rotation and a shift
        gaps = np.linalg.norm(stored["feature"][part][:, None] - stored["feature"][part], axis=2)
        np.testing.assert_allclose(
            gaps, np.linalg.norm(features[:, None] - features, axis=2), atol=1e-3
        )
        score = np.load(folder / "predictions.npz")[f"{spec.selection[0]}/{name}/score"]
        assert (stored["prediction"][part] == score.argmax(1)).all()
    assert stored["share"].sum() == pytest.approx(1, abs=1e-4)
    # validation images follow, whose environments are those of training
    assert start + len(data.splits["val"]) == len(stored["feature"])
    assert set(stored["split"][start:]) == {"val"}
    environment = data.splits["val"].environment
    assert (stored["environment"][start:] == environment).all()
    number = len(data.info.environment_names)
    for i, name in enumerate(data.info.test_splits):
        own = stored["split"] == name
        assert (stored["environment"][own] == number + i).all()
        shown = own | (stored["split"] == "val")
        expected = silhouette_score(stored["feature"][shown], stored["environment"][shown])
        assert found.splits[name].environment == pytest.approx(expected, abs=1e-4)
    other = dict(np.load(folders[-1] / "embeddings.npz"))
    assert all(
        np.array_equal(stored[name], other[name])
        for name in ("split", "row", "label", "confounder")
    )


def test_without_environments_only_tests_are_embedded(tmp_path: Path) -> None:
    folder = plan_run(tmp_path, "erm", datasets=["tiny:bias=1.0,size=64"], budget={"steps": 2})
    assert run(folder) == "done", failure(folder)
    stored = np.load(folder / "embeddings.npz")
    assert "environment" not in stored.files and "val" not in stored["split"]
    record = read_record(folder)
    assert record.embeddings is not None
    assert all("environment" not in s.to_json() for s in record.embeddings.splits.values())


def test_a_network_without_features_is_noted(tmp_path: Path) -> None:
    with registered(Undeclared):
        folder = plan_run(tmp_path, "toy_undeclared", budget={"steps": 2})
        assert run(folder) == "done", failure(folder)
    found: Any = read_record(folder).embeddings
    assert found.dimensions is None and found.splits == {} and "declares no features" in found.note
    assert not (folder / "embeddings.npz").exists()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    folder = plan_run(tmp_path, "erm", budget={"steps": 2}, compute={"explanations": False})
    assert run(folder) == "done", failure(folder)
    assert (folder / "record.json").exists() and not (folder / "embeddings.npz").exists()
    assert read_record(folder).embeddings is None
