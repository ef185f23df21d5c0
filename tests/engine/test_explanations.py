"""Records of explanations: against dense numpy, on degenerate heatmaps, and in real runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.core.dataset import Split
from benchmark.core.decode import decode
from benchmark.core.files import read_json
from benchmark.core.record import read_record
from benchmark.core.registry import DATASETS
from benchmark.core.summaries import ExplainedSplit
from benchmark.engine.explanations import (
    choose_explainer,
    evenly_spaced_rows,
    measure,
    measure_shortcut,
    pixel_map,
    summary,
)
from tests.support.runs import failure, plan_run, plan_runs, run
from tests.support.toy_algorithms import Undeclared, registered


def test_energy_and_correlation_against_numpy() -> None:
    rng = np.random.default_rng(0)
    maps, mask = rng.normal(size=(5, 6, 7)), rng.random((5, 1, 6, 7)) < 0.4
    maps[1], mask[2], mask[3] = 0.0, True, False
    found = measure(torch.from_numpy(maps), torch.from_numpy(mask))
    for i in range(5):
        h, m = np.abs(maps[i]), mask[i, 0]
        energy = np.nan if i in (1, 3) else h[m].sum() / h.sum()
        correlation = np.nan if i in (1, 2, 3) else np.corrcoef(h.ravel(), m.ravel())[0, 1]
        np.testing.assert_allclose(found["energy"][i].item(), energy, rtol=1e-12)
        np.testing.assert_allclose(found["correlation"][i].item(), correlation, rtol=1e-10)
        assert found["area"][i].item() == pytest.approx(m.mean())
    assert found["energy"][2].item() == 1.0  # a mask of ones holds everything


def test_a_further_metric_is_recorded_under_its_name() -> None:
    columns = measure(torch.ones(3, 4, 4), torch.ones(3, 1, 4, 4, dtype=torch.bool))
    assert "metrics" not in summary(columns)
    columns["evenly_spaced_rows"] = torch.tensor([1.0, float("nan"), 3.0], dtype=torch.float64)
    columns["nothing"] = torch.full((3,), float("nan"), dtype=torch.float64)
    content = summary(columns)
    assert content["metrics"] == {"nothing": None, "evenly_spaced_rows": 2.0}
    split = decode(ExplainedSplit, content, "record.json")
    assert split.value("evenly_spaced_rows") == 2.0 and split.value("nothing") is None
    assert split.value("energy") == 1.0 and split.value("unknown") is None
    assert split.to_json()["metrics"] == content["metrics"]


def test_relevance_on_the_shortcut_beside_its_area() -> None:
    rng = np.random.default_rng(5)
    shown = np.zeros((3, 1, 6, 6), bool)
    shown[:2, :, :2, :3] = True
    image = np.zeros((3, 3, 6, 6), np.uint8)
    split = Split(image, np.zeros(3, np.int64), mask=~shown, shortcut=shown)
    rows = np.array([0, 2])
    maps = rng.normal(size=(2, 6, 6))
    found = measure_shortcut(torch.from_numpy(maps), split, rows)
    by_hand = np.abs(maps[0, :2, :3]).sum() / np.abs(maps[0]).sum()
    assert found["on_shortcut"][0].item() == pytest.approx(by_hand)
    assert found["shortcut_area"][0].item() == pytest.approx(6 / 36)
    assert found["on_shortcut"][1].isnan() and found["shortcut_area"][1].isnan()
    assert not measure_shortcut(torch.ones(2, 6, 6), replace(split, shortcut=None), rows)


def test_a_map_without_preference_has_the_masks_share() -> None:
    mask = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3
    found = measure(torch.full((3, 8, 8), -2.0), mask)
    torch.testing.assert_close(found["energy"], found["area"])
    assert found["correlation"].isnan().all()


def test_what_does_not_count_is_counted() -> None:
    maps, mask = torch.ones(5, 4, 4), torch.zeros(5, 1, 4, 4, dtype=torch.bool)
    mask[:4, :, :2] = True
    maps[0, :2], maps[1], maps[2, 0, 0] = 3.0, 0.0, float("inf")
    found = summary(measure(maps, mask))
    counted = {
        name: found[name] for name in ("images", "zero_maps", "nonfinite_maps", "empty_masks")
    }
    assert counted == {"images": 5, "zero_maps": 1, "nonfinite_maps": 1, "empty_masks": 1}
    assert found["energy"] == pytest.approx((0.75 + 0.5) / 2) and found[
        "correlation"
    ] == pytest.approx(1.0)
    nothing = summary(measure(torch.zeros(2, 4, 4), mask[:2]))
    assert (
        nothing["energy"] is None and nothing["correlation"] is None and nothing["zero_maps"] == 2
    )


def test_channels_are_summed_and_small_maps_enlarged() -> None:
    heatmap = torch.tensor([[[[1.0, -2.0]], [[3.0, 2.0]]]])
    assert pixel_map(heatmap, (1, 2)).tolist() == [[[4.0, 0.0]]]
    assert pixel_map(heatmap, (2, 4)).shape == (1, 2, 4)


def test_rows_are_spread_from_the_first_to_the_last() -> None:
    assert evenly_spaced_rows(3, 8).tolist() == [0, 1, 2] and evenly_spaced_rows(1, 4).tolist() == [
        0
    ]
    rows = evenly_spaced_rows(10_001, 512)
    assert (
        len(rows) == 512 and (rows[0], rows[-1]) == (0, 10_000) and set(np.diff(rows)) <= {19, 20}
    )


def test_every_method_shows_the_same_images_and_students_their_distance(tmp_path: Path) -> None:
    folders = [
        plan_run(tmp_path, "erm", budget={"steps": 2}),
        *plan_runs(tmp_path, "tea", budget={"steps": 2}),
    ]
    for folder in dict.fromkeys(folders):
        assert run(folder) == "done", failure(folder)
    arrays = [dict(np.load(folder / "heatmaps.npz")) for folder in folders]
    record = read_record(folders[0])
    data = DATASETS.get("tiny")(None, **record.spec.dataset_options).load(0)
    for folder, found in zip(folders, arrays, strict=True):
        for name in ("split", "row", "image", "mask", "label", "confounder"):
            assert np.array_equal(found[name], arrays[0][name])
        scores = np.load(folder / "predictions.npz")
        first = read_record(folder).spec.selection[0]
        assert (
            np.abs(found["heatmap"]).max((1, 2)) == pytest.approx(1.0)
            and (found["scale"] > 0).all()
        )
        for i, (split, row) in enumerate(zip(found["split"], found["row"], strict=True)):
            assert np.array_equal(found["image"][i], data.splits[str(split)].image[row])
            assert found["prediction"][i] == scores[f"{first}/{split}/score"][row].argmax()
    assert list(arrays[0]["split"]) == ["biased"] * 4 + ["deceiving"] * 4
    for folder in folders:
        report, student = read_record(folder).explanations, folder == folders[-1]
        assert report is not None and report.explainer == "lrp"
        assert list(report.splits) == ["biased", "unbiased", "deceiving"]
        for content in report.splits.values():
            assert content.energy is not None and 0 <= content.energy <= 1
            assert (content.distance is not None) == student
            assert content.distance is None or content.distance > 0
        written = read_json(folder / "record.json")["extra"]["explanations"]["splits"]
        assert all(("distance" in content) == student for content in written.values())
    seconds = read_record(folders[0]).seconds.explanations
    assert seconds is not None and seconds > 0


def test_a_network_that_declares_nothing_is_noted(tmp_path: Path) -> None:
    with registered(Undeclared):
        folder = plan_run(tmp_path, "toy_undeclared", budget={"steps": 2})
        assert run(folder) == "done", failure(folder)
    found = read_record(folder).explanations
    assert found is not None and found.explainer is None
    assert "Sequential declares no capabilities" in found.note
    assert not (folder / "heatmaps.npz").exists()


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    folder = plan_run(tmp_path, compute={"explanations": False}, budget={"steps": 2})
    assert run(folder) == "done"
    record = read_record(folder)
    assert record.explanations is None and record.seconds.explanations is None
    assert not (folder / "heatmaps.npz").exists()


def test_the_explainer_is_what_the_network_declares() -> None:
    from benchmark.core.registry import BACKBONES

    for name, explainer in (
        ("convnet", "lrp"),
        ("convnext_base", "gradcam"),
        ("vit_b_16", "gae"),
    ):
        network = type(
            "Declares", (nn.Module,), {"capabilities": BACKBONES.get(name).capabilities}
        )()
        assert choose_explainer(network).name == explainer
        assert choose_explainer(network, "attention").name == "attention"
