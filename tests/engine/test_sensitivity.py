"""Sensitivity of a trained method: the choice of images, and the entries of a real record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from benchmark.core.dataset import Split
from benchmark.core.files import read_json
from benchmark.core.record import read_record
from benchmark.core.registry import DATASETS
from benchmark.core.summaries import ExplanationSummary, Sensitivity
from benchmark.engine.build import build_algorithm
from benchmark.engine.checkpoint import load_weights
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.explanations import choose_explainer
from benchmark.engine.record_parts import about_data
from benchmark.engine.sensitivity import Answers, pairs_of_class, tied_classes
from benchmark.explain.sensitivity import confounder_sensitivity, disease_sensitivity
from benchmark.report.report import make_report
from tests.support.runs import failure, plan_run, run

DATASET = "planted:on=tiny,options=size=64,shortcut=tag,marked=one"


def test_the_margin_is_positive_for_the_predicted_class_only() -> None:
    score = np.random.default_rng(0).normal(size=(20, 4))
    margin = Answers(score, np.zeros(20, np.int64), np.zeros(4)).margin
    assert np.array_equal(margin > 0, score.argmax(1)[:, None] == np.arange(4))
    others = np.delete(score[3], 2).max()
    assert margin[3, 2] == pytest.approx(score[3, 2] - others)


def test_the_margin_of_several_labels_counts_from_the_threshold() -> None:
    answers = Answers(np.array([[1.0, 2.0]]), np.array([[0, 1]]), np.array([1.5, 0.0]))
    assert answers.margin.tolist() == [[-0.5, 2.0]] and answers.has.tolist() == [[False, True]]


def test_the_class_of_a_confounder() -> None:
    label = np.array([0, 0, 1, 1, 2, 2])
    has = label[:, None] == np.arange(3)
    tied = tied_classes(has, np.array([1, 1, 0, 0, 2, 1]))
    assert tied is not None and tied.tolist() == [1, 0, 2]
    assert tied_classes(has, None) is None


def _pair(confounder: list[int], pair_id: list[int]) -> Split:
    n = len(pair_id)
    shortcut = np.zeros((n, 1, 2, 2), bool)
    shortcut[np.array(confounder) > 0] = True
    return Split(
        image=np.zeros((n, 1, 2, 2), np.uint8),
        label=np.zeros(n, np.int64),
        confounder=np.array(confounder),
        pair_id=np.array(pair_id),
        shortcut=shortcut,
    )


def test_pairs_differ_in_the_shortcut_of_the_class() -> None:
    """Confounder 0 is no mark; 1 is tied to class 0, and 2 to class 1."""
    splits = {"a": _pair([1, 2, 0, 1], [7, 5, 3, 1]), "b": _pair([1, 1, 2, 0], [1, 3, 5, 7])}
    found = pairs_of_class(splits, ("a", "b"), np.array([1, 0, 1]), 0)
    assert [(p.with_split, p.with_rows.tolist(), p.without_rows.tolist()) for p in found] == [
        ("a", [0], [3]),
        ("b", [1], [2]),
    ]
    assert pairs_of_class(splits, ("a", "b"), np.array([1, 0, 1]), 1) == []
    other = {**splits, "b": _pair([1, 1, 2, 0], [1, 3, 5, 8])}
    assert pairs_of_class(other, ("a", "b"), np.array([1, 0, 1]), 0) == []


def entry(summary: ExplanationSummary, measure: str, split: str, label: int) -> Sensitivity:
    wanted = (measure, split, label)
    (found,) = (s for s in summary.sensitivity if (s.measure, s.split, s.label) == wanted)
    return found


def test_the_record_of_a_run(tmp_path: Path) -> None:
    folder = plan_run(tmp_path, "erm", datasets=[DATASET], budget={"steps": 10})
    assert run(folder, data_dir=tmp_path) == "done", failure(folder)
    record = read_record(folder)
    summary = record.explanations
    assert summary is not None
    names = {(each.measure, each.split) for each in summary.sensitivity}
    assert names == {
        ("tag_effect", ""),
        ("flips", ""),
        ("explanation_ncc", ""),
        ("class_sensitivity", "unbiased"),
        *(("disease_sensitivity", name) for name in ("biased", "unbiased", "deceiving")),
        *(("confounder_sensitivity", name) for name in ("biased", "unbiased", "deceiving")),
    }
    data = DATASETS.get("planted")(tmp_path, **record.spec.dataset_options).load(0)
    _check_tag_effect(folder, data.splits, summary)

    algorithm = build_algorithm(
        record.spec, data.info, torch.device("cpu"), tmp_path / "runs", tmp_path
    )
    algorithm.load_state_dict(load_weights(folder / "selected.pt"))
    algorithm.eval()
    split = data.splits["biased"]
    assert split.shortcut is not None and split.class_masks is not None
    assert split.confounder is not None
    rows = np.flatnonzero(split.confounder == 1)
    batch = DeviceSplit(data, "biased", torch.device("cpu")).batch(rows)
    explainer = choose_explainer(algorithm.network)
    heatmap = explainer(algorithm.network, batch.image, torch.ones(len(rows), dtype=torch.long))
    pixels = heatmap.sum(1)
    recall = confounder_sensitivity(pixels, torch.from_numpy(split.shortcut[rows, 0]))
    measured = entry(summary, "confounder_sensitivity", "biased", 1)
    assert measured.value == pytest.approx(recall.mean().item(), abs=1e-6)
    assert measured.chance == 0.1 and measured.area == pytest.approx(split.shortcut[rows].mean())
    assert measured.error == pytest.approx(recall.std().item() / len(rows) ** 0.5, abs=1e-6)
    mask = torch.from_numpy(split.class_masks.rasterise(rows)[:, 1])
    inside = disease_sensitivity(pixels, mask)
    measured = entry(summary, "disease_sensitivity", "biased", 1)
    assert measured.value == pytest.approx(inside.nanmean().item(), abs=1e-6)
    assert measured.chance == measured.area and measured.images + measured.left_out == len(rows)
    for k in range(2):
        groups = entry(summary, "class_sensitivity", "unbiased", k)
        assert groups.chance == 0.25 and (groups.value is None) == (groups.images == 0)
    written = read_json(folder / "record.json")["extra"]["explanations"]["sensitivity"]
    assert len(written) == len(summary.sensitivity)
    assert about_data(data).main_split == "unbiased"


def _check_tag_effect(
    folder: Path, splits: Mapping[str, Split], summary: ExplanationSummary
) -> None:
    """With the mark: class 1 in the biased split, class 0 in the deceiving one."""
    arrays = np.load(folder / "predictions.npz")
    score = {
        name: arrays[f"{read_record(folder).spec.selection[0]}/{name}/score"].astype(np.float64)
        for name in ("biased", "deceiving")
    }
    label = splits["biased"].label
    margin = {name: values[:, 1] - values[:, 0] for name, values in score.items()}
    tagged = np.where(label == 1, margin["biased"], margin["deceiving"])
    clean = np.where(label == 1, margin["deceiving"], margin["biased"])
    effect = entry(summary, "tag_effect", "", 1)
    assert effect.images == len(label)
    assert effect.value == pytest.approx((tagged - clean).mean() / clean.std(ddof=1), rel=1e-5)
    flips = entry(summary, "flips", "", 1)
    assert flips.value == pytest.approx(((tagged > 0) != (clean > 0)).mean())


def test_nothing_is_measured_if_explanations_are_switched_off(tmp_path: Path) -> None:
    folder = plan_run(
        tmp_path, datasets=[DATASET], budget={"steps": 1}, compute={"explanations": False}
    )
    assert run(folder, data_dir=tmp_path) == "done", failure(folder)
    assert read_record(folder).explanations is None


def test_several_labels(tmp_path: Path) -> None:
    """Only one label has a shortcut, and the masks are the boxes of all findings."""
    dataset = "tagged:on=generated_findings,options=size=40;side=16,shape=block"
    folder = plan_run(tmp_path, "erm", datasets=[dataset], budget={"steps": 4})
    assert run(folder, data_dir=tmp_path) == "done", failure(folder)
    record = read_record(folder)
    summary = record.explanations
    assert summary is not None
    effects = [s for s in summary.sensitivity if s.measure == "tag_effect"]
    assert [(s.label, s.images) for s in effects] == [(2, 20)]
    evidence = {s.label for s in summary.sensitivity if s.measure == "disease_sensitivity"}
    assert evidence == {0, 1, 2}

    with np.load(folder / "heatmaps.npz") as gallery:
        data = DATASETS.get("tagged")(tmp_path, **record.spec.dataset_options).load(0)
        for split, row, mask in zip(gallery["split"], gallery["row"], gallery["mask"], strict=True):
            masks = data.splits[str(split)].class_masks
            assert masks is not None
            assert np.array_equal(mask[0], masks.rasterise(np.array([row]))[0].any(0))
    with np.load(folder / "predictions.npz") as arrays:
        label = arrays["deceiving/label"][:, 2]
        score = arrays[f"{record.spec.selection[0]}/deceiving/score"][:, 2]
    (sheet,) = (s for s in make_report(tmp_path).sheets if "sensitivity" in s.title)
    heads = [" ".join(head) for head in sheet.heads]
    cell = sheet.rows[0][heads.index("deceiving AUC %")]
    assert cell.startswith(f"{100 * roc_auc_score(label, score):.1f}")
