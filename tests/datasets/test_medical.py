"""The medical data sets: labels, masks and divisions in the layouts of the published files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.dataset import GroupedDataset, Split
from benchmark.core.registry import DATASETS
from datasets import ham10000
from datasets._sources.boxes import draw_boxes, to_json
from datasets._sources.compositing import Box
from datasets._sources.holdout import divide_by_cluster
from tests.support import medical_trees


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHORTCUTBED_CACHE", raising=False)


def load(name: str, root: Path, options: Mapping[str, Any], **more: Any) -> GroupedDataset:
    return DATASETS.get(name)(root, **{**options, **more}).load(0)  # type: ignore[no-any-return]


def masks(split: Split) -> np.ndarray:
    assert split.mask is not None
    return split.mask[:, 0]


def clusters(data: GroupedDataset, *names: str) -> list[set[int]]:
    """Return the clusters of some splits."""
    found = []
    for name in names:
        cluster = data.splits[name].cluster
        assert cluster is not None
        found.append(set(cluster.tolist()))
    return found


class TestBoxes:
    def test_the_mask_is_the_union_of_all_boxes(self) -> None:
        drawn = to_json([Box(1, 2, 3, 4), Box(5.5, 0, 7.5, 1)])
        expected = np.zeros((6, 9), bool)
        expected[2:4, 1:3] = True
        expected[0, 5:8] = True  # every pixel that the box touches
        assert np.array_equal(np.asarray(draw_boxes(drawn, (9, 6), "x")) > 0, expected)

    def test_no_box_gives_an_empty_mask(self) -> None:
        assert not np.asarray(draw_boxes(to_json([]), (9, 6), "x")).any()

    def test_a_box_of_the_whole_image(self) -> None:
        assert np.asarray(draw_boxes(to_json([Box(0, 0, 9, 6)]), (9, 6), "x")).all()


class TestDivision:
    def test_shares_and_clusters(self) -> None:
        cluster = np.repeat(np.arange(100), 2)
        label = (cluster >= 80).astype(np.int64)
        parts = divide_by_cluster(0, label, cluster, {"val": 0.1, "test": 0.2})
        assert {name: len(rows) for name, rows in parts.items()} == {
            "train": 140,
            "val": 20,
            "test": 40,
        }
        assert label[parts["val"]].sum() == 4 and label[parts["test"]].sum() == 8
        assert sorted(np.concatenate(list(parts.values()))) == list(range(200))
        found = [set(cluster[rows]) for rows in parts.values()]
        assert len(set().union(*found)) == sum(map(len, found))

    def test_every_class_is_held_out(self) -> None:
        label = np.array([0] * 50 + [1] * 3)
        parts = divide_by_cluster(1, label, np.arange(53), {"val": 0.1, "test": 0.1})
        assert all(label[rows].sum() == 1 for rows in parts.values())


class TestRSNA:
    def test_labels_and_boxes(self, tmp_path: Path) -> None:
        data = load("rsna", tmp_path, medical_trees.rsna(tmp_path), side=40)
        assert sum(len(split) for split in data.splits.values()) == 40
        areas = set()
        for split in data.splits.values():
            area = masks(split).mean(axis=(1, 2))
            assert np.array_equal(area > 0, split.label == 1)
            areas |= set(area.tolist())
        sizes = [width * height for _, _, width, height in medical_trees.RSNA_BOXES]
        expected = sorted([0, sizes[0] / 1200, sum(sizes) / 1200])
        assert sorted(areas) == pytest.approx(expected, abs=0.01)

    def test_no_patient_is_in_two_splits(self, tmp_path: Path) -> None:
        data = load("rsna", tmp_path, medical_trees.rsna(tmp_path))
        found = clusters(data, "train", "val", "test")
        assert list(map(len, found)) == [32, 4, 4]
        assert len(set().union(*found)) == 40

    def test_dicom(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        options = medical_trees.rsna(tmp_path)
        folder = tmp_path / medical_trees.RSNA / "stage_2_train_images"
        for number, path in enumerate(sorted(folder.iterdir())):
            medical_trees.dicom(path.with_suffix(".dcm"), number)
            path.unlink()
        assert len(load("rsna", tmp_path, options).splits["train"]) == 32


class TestHAM10000:
    def test_no_lesion_is_in_two_splits(self, tmp_path: Path) -> None:
        data = load("ham10000", tmp_path, medical_trees.ham10000(tmp_path))
        found = clusters(data, "train", "val", "test")
        assert list(map(len, found)) == [21, 7, 7]
        assert len(set().union(*found)) == 35
        assert sum(len(split) for split in data.splits.values()) == 49
        for split in data.splits.values():
            assert set(split.label.tolist()) == set(range(7))

    def test_a_diagnosis_per_image_and_a_mask_of_its_lesion(self, tmp_path: Path) -> None:
        options = medical_trees.ham10000(tmp_path)
        source = DATASETS.get("ham10000")(tmp_path, **{**options, "side": 30})
        test = source.load(0).splits["test"]
        rows = (tmp_path / medical_trees.HAM / "HAM10000_metadata.csv").read_text().splitlines()
        names = source.info().label_names
        for i, label in enumerate(test.label.tolist()):
            file = source.file_of("test", test, i)
            (row,) = (row for row in rows if Path(file).stem in row)
            assert ham10000.DIAGNOSES[row.split(",")[2]] == names[label]
        assert masks(test).mean() == pytest.approx(0.25, abs=0.01)

    def test_without_segmentations(self, tmp_path: Path) -> None:
        options = medical_trees.ham10000(tmp_path, segmentations=False)
        data = load("ham10000", tmp_path, options)
        assert data.splits["train"].mask is None and not data.info.provides.masks
