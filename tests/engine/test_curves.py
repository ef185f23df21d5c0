"""AUC and distance of heatmaps at the evaluations during training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmark.core.errors import Problems
from benchmark.core.registry import DATASETS
from benchmark.engine.curves import MAX_IMAGES, heatmap_distance, mean_auc
from benchmark.engine.device_split import DeviceSplit
from benchmark.plan.sweepfile import config_from
from benchmark.report.statistics.delong import auc_one_vs_rest
from tests.support.runs import failure, lines, plan_run, plan_runs, run, spec_of


def test_auc_of_classes_and_of_labels() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 50)
    score = rng.normal(size=(50, 3)).round(1).astype(np.float32)  # with ties
    expected = np.mean([roc_auc_score(label == k, score[:, k]) for k in range(3)])
    assert mean_auc(label, score) == pytest.approx(expected, rel=1e-12)
    of_report = auc_one_vs_rest(label, score)[1].value
    assert mean_auc(label, score) == pytest.approx(of_report, rel=1e-12)
    several = (rng.random((50, 3)) < 0.4).astype(np.float32)
    expected = np.mean([roc_auc_score(several[:, k], score[:, k]) for k in range(3)])
    assert mean_auc(several, score) == pytest.approx(expected, rel=1e-12)


def test_classes_without_images_have_no_auc() -> None:
    score = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 5.0], [1.0, 0.0, 2.0]])
    label = np.array([0, 1, 1])
    assert mean_auc(label, score) == pytest.approx((1.0 + 0.25) / 2)
    assert mean_auc(np.zeros(3, np.int64), score) is None


def test_the_distance_is_that_of_the_method_on_evenly_spaced_images() -> None:
    class Student(torch.nn.Module):
        explained_by = "input_gradient"

        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2))
            self.seen: list[int] = []

        def explainable(self, image: torch.Tensor) -> Any:
            return self.network, image

        def explanation_distance(self, heatmap: Any, explain: Any, image: torch.Tensor) -> Any:
            self.seen.append(len(image))
            return torch.full((len(image),), 0.5)

    data = DATASETS.get("tiny")(None, size=200).load(0)
    split = DeviceSplit(data, "val", torch.device("cpu"))
    student: Any = Student().train()
    predicted = np.zeros(split.size, np.int64)
    assert heatmap_distance(student, split, predicted) == pytest.approx(0.5)
    assert sum(student.seen) == min(split.size, MAX_IMAGES) and student.training
    student.explanation_distance = lambda *given: None
    assert heatmap_distance(student, split, predicted) is None


def test_runs_log_what_the_sweep_asks_for(tmp_path: Path) -> None:
    folders = plan_runs(
        tmp_path,
        "tea",
        curves=["auc", "distance"],
        override={"segment_classify": {"unet_width": 2, "unet_depth": 2}},
        oracle=True,
        budget={"steps": 4, "evaluate_every": 2},
    )
    for folder in folders:
        assert run(folder) == "done", failure(folder)
    teacher, student = map(spec_of, folders)
    assert teacher.curves == ("auc",) and student.curves == ("auc", "distance")
    splits = {"val", "biased", "unbiased", "deceiving"}
    for line in lines(folders[0]):
        assert set(line["curves"]) == {"auc"} and set(line["curves"]["auc"]) == splits
    for line in lines(folders[1]):
        assert set(line["curves"]["distance"]) == set(line["curves"]["auc"]) == splits
        assert all(0 < value < 100 for value in line["curves"]["distance"].values())
        assert all(0 <= value <= 1 for value in line["curves"]["auc"].values())


def test_they_change_the_key_and_not_the_training(tmp_path: Path) -> None:
    plain = plan_run(tmp_path / "plain", budget={"steps": 4, "evaluate_every": 2})
    curves = plan_run(tmp_path / "c", curves=["auc"], budget={"steps": 4, "evaluate_every": 2})
    assert plain.name != curves.name
    assert replace(spec_of(curves), curves=()).key == plain.name
    for folder in (plain, curves):
        assert run(folder) == "done", failure(folder)
    without = [{k: v for k, v in line.items() if k != "curves"} for line in lines(curves)]
    assert without == lines(plain)


@pytest.mark.parametrize("given", [["auk"], "loss", [1], True])
def test_unknown_names_are_refused(given: Any) -> None:
    table = {"datasets": ["tiny"], "algorithms": ["erm"], "curves": given}
    with pytest.raises(Problems, match="curves"):
        config_from(table, "test", "test")
