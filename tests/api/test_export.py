"""Exported networks give the logits of the run, and carry what is needed to use them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark import load_exported, load_run
from benchmark.api.metadata import KEY
from benchmark.api.run import Run
from benchmark.core.errors import UserError
from tests.support.runs import plan_run
from tests.support.runs import run as execute_run

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(sweep: Path) -> Run:
    return load_run(sweep, method="erm")


def check(run: Run, path: Path) -> None:
    assert run.export(path) == path
    exported = load_exported(path)
    np.testing.assert_allclose(exported.logits(IMAGES), run.logits(IMAGES), atol=1e-5)
    np.testing.assert_allclose(exported.logits(IMAGES[:1]), run.logits(IMAGES[:1]), atol=1e-5)
    assert exported.labels == ("lying", "standing")
    assert exported.accepts == run.accepts
    assert exported.metadata.run == run.record.key
    assert exported.metadata.licence == run.record.data.licence
    assert list(exported.predict(IMAGES)["predicted"]) == list(run.predict(IMAGES)["predicted"])


def test_pt2(run: Run, tmp_path: Path) -> None:
    check(run, tmp_path / "deep" / "model.pt2")


def test_onnx(run: Run, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    check(run, tmp_path / "model.onnx")


def test_safetensors(run: Run, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    check(run, tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as opened:
        assert KEY in opened.metadata()


def test_weights_alone_are_refused_where_predictions_need_more(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    folder = plan_run(tmp_path, "ex2l:one_logit", budget={"steps": 2, "evaluate_every": 2})
    assert execute_run(folder) == "done"
    with pytest.raises(UserError, match=r"\.pt2"):
        load_run(folder).export(tmp_path / "model.safetensors")


def test_mistakes(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.pt2, \.onnx"):
        run.export(tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"missing\.pt2"):
        load_exported(tmp_path / "missing.pt2")
    (tmp_path / "model.pt2").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"model\.pt2"):
        load_exported(tmp_path / "model.pt2")
    (tmp_path / "model.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"\.safetensors"):
        load_exported(tmp_path / "model.zip")
