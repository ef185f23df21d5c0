"""The medical data sets: labels, masks and divisions in the layouts of the published files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.cli.data_checks import examine, oddities
from benchmark.core.dataset import UNKNOWN, GroupedDataset, Split
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from datasets import chestxray14, ham10000
from datasets._sources.boxes import draw_boxes, to_json
from datasets._sources.coco import decompress_run_lengths, draw_segmentation
from datasets._sources.compositing import Box
from datasets._sources.holdout import divide_by_cluster
from tests.support import medical_trees

MULTI_LABEL = ("chexpert", "chestxray14", "vindr_cxr")


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


def evidence(split: Split) -> np.ndarray:
    """Return the class masks of a split, bool[N,K,H,W]."""
    assert split.class_masks is not None
    return split.class_masks.rasterise(np.arange(len(split)))


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

    def test_the_boxes_are_evidence_for_pneumonia_only(self, tmp_path: Path) -> None:
        options = medical_trees.rsna(tmp_path)
        data = load("rsna", tmp_path, options, side=40)
        for split in data.splits.values():
            drawn = evidence(split)
            assert not drawn[:, 0].any()
            assert (drawn[:, 1] ^ masks(split)).mean() < 0.01
        planted = {"on": "rsna", "options": "side=40", "shortcut": "tag"}
        split = DATASETS.get("planted")(tmp_path, **planted).load(0).splits["biased"]
        assert split.shortcut is not None
        assert not (evidence(split) & split.shortcut).any() and not evidence(split)[:, 0].any()

    def test_a_mask_without_foreground_is_no_problem(self, tmp_path: Path) -> None:
        medical_trees.rsna(tmp_path)
        planted = {"on": "rsna", "options": "side=16", "shortcut": "tag"}
        for name, options in (("rsna", {"side": 16}), ("planted", planted)):
            source = DATASETS.get(name)(tmp_path, **options)
            data = source.load(0)
            assert examine(source, data).problems == []
            problems = oddities(data)  # of a data set that does not declare it
            assert any("no foreground" in problem for problem in problems)

    def test_dicom(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        options = medical_trees.rsna(tmp_path)
        folder = tmp_path / medical_trees.RSNA / "stage_2_train_images"
        for number, path in enumerate(sorted(folder.iterdir())):
            medical_trees.dicom(path.with_suffix(".dcm"), number)
            path.unlink()
        assert len(load("rsna", tmp_path, options).splits["train"]) == 32


class TestCompressedRunLengths:
    def test_masks_of_pycocotools(self) -> None:
        expected = np.zeros((2, 40, 30), bool)
        expected[0, 10:20, 5:25] = True
        expected[1, 4:36, 2:5] = True
        expected[1, 0:3, 20:30] = True
        for counts, mask in zip(medical_trees.RUN_LENGTHS, expected, strict=True):
            drawn = json.dumps({"size": [40, 30], "counts": counts})
            assert np.array_equal(np.asarray(draw_segmentation(drawn, (30, 40), "x")) > 0, mask)

    def test_an_empty_mask(self) -> None:
        assert decompress_run_lengths("`U1") == [1200]

    @pytest.mark.parametrize("text", ["b6:n é", "b6:nP", "O"])
    def test_damaged_text(self, text: str) -> None:
        """An unknown character, a number that is cut off, and a negative length."""
        assert decompress_run_lengths(text) is None


class TestCheXpert:
    def test_frontal_images_by_patient(self, tmp_path: Path) -> None:
        data = load("chexpert", tmp_path, medical_trees.chexpert(tmp_path))
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 55,
            "val": 5,
            "test": 15,
        }
        found = clusters(data, "train", "val", "test")
        assert len(set().union(*found)) == sum(map(len, found)) == 15

    @pytest.mark.parametrize(("uncertain", "positive"), [("zero", 2), ("one", 3)])
    def test_uncertain_labels(self, uncertain: str, positive: int, tmp_path: Path) -> None:
        """Two of the five X-rays of a patient are positive, one is uncertain and one blank."""
        options = medical_trees.chexpert(tmp_path)
        data = load("chexpert", tmp_path, options, uncertain=uncertain)
        val = data.splits["val"]
        assert val.label.sum(axis=0).tolist() == [positive] * 5
        assert data.splits["test"].label.sum(axis=0).tolist() == [6] * 5

    def test_labels_that_are_not_known(self, tmp_path: Path) -> None:
        options = medical_trees.chexpert(tmp_path)
        for more, unknown in (
            ({"uncertain": "ignore"}, 1),
            ({"blank": "ignore"}, 1),
            ({"uncertain": "ignore", "blank": "ignore"}, 2),
        ):
            data = load("chexpert", tmp_path, options, **more)
            val = data.splits["val"].label
            assert (val == UNKNOWN).sum(axis=0).tolist() == [unknown] * 5
            assert (val == 1).sum(axis=0).tolist() == [2] * 5
            source = DATASETS.get("chexpert")(tmp_path, **options, **more)
            assert examine(source, data).problems == []

    def test_keys_of_earlier_runs_stay_the_same(self, tmp_path: Path) -> None:
        options = medical_trees.chexpert(tmp_path)
        source = DATASETS.get("chexpert")(tmp_path, **options)
        assert "blank" not in source.identity()
        assert (
            source.identity()
            == DATASETS.get("chexpert")(tmp_path, **options, blank="zero").identity()
        )
        assert "blank" in DATASETS.get("chexpert")(tmp_path, **options, blank="ignore").identity()

    def test_tests_need_all_labels(self, tmp_path: Path) -> None:
        options = medical_trees.chexpert(tmp_path)
        path = tmp_path / "CheXpert-v1.0-small/valid.csv"
        path.write_text(path.read_text().replace(",1.0,", ",-1.0,", 1))
        with pytest.raises(UserError, match="a test needs all labels"):
            load("chexpert", tmp_path, options, uncertain="ignore")

    def test_the_official_test_and_guidance_by_the_validation_images(self, tmp_path: Path) -> None:
        options = medical_trees.chexpert(tmp_path)
        with pytest.raises(UserError, match=r"there is no CheXlocalize/CheXpert/test_labels.csv"):
            load("chexpert", tmp_path, options, test="test")
        medical_trees.official_test_of_chexpert(tmp_path)
        data = load("chexpert", tmp_path, options, test="test", side=40)
        assert data.info.annotations.class_masks
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 55 + 15,
            "val": 5,
            "test": 10,
        }
        train, test = data.splits["train"], data.splits["test"]
        drawn = evidence(train)
        assert not drawn[:55].any()
        assert np.array_equal(drawn[55:].any(axis=(2, 3)), train.label[55:] == 1)
        assert np.array_equal(evidence(test).any(axis=(2, 3)), test.label == 1)
        assert (evidence(test).any(axis=1) ^ masks(test)).mean() < 0.01
        found = clusters(data, "train", "val", "test")
        assert len(set().union(*found)) == sum(map(len, found)) == 17
        before = DATASETS.get("chexpert")(tmp_path, **options, test="test").fingerprint()
        path = tmp_path / "CheXlocalize/gt_segmentations_val.json"
        path.write_text(path.read_text().replace(medical_trees.RUN_LENGTHS[0], "`U1", 1))
        after = DATASETS.get("chexpert")(tmp_path, **options, test="test").fingerprint()
        assert before != after
        (tmp_path / "CheXlocalize/gt_segmentations_test.json").unlink()
        with pytest.raises(UserError, match="test=test needs CheXlocalize's gt_segmentations_val"):
            load("chexpert", tmp_path, options, test="test")

    def test_masks_are_those_of_the_selected_findings(self, tmp_path: Path) -> None:
        options = medical_trees.chexpert(tmp_path)
        data = load("chexpert", tmp_path, options, labels="Atelectasis", side=40)
        test = data.splits["test"]
        assert data.info.label_names == ("Atelectasis",) and data.splits["train"].mask is None
        area = masks(test).mean(axis=(1, 2))
        assert np.array_equal(area > 0, test.label[:, 0] == 1)
        assert area.max() == pytest.approx(200 / 1200, abs=0.01)
        both = load("chexpert", tmp_path, options, labels="Atelectasis;Cardiomegaly", side=40)
        assert masks(both.splits["test"]).mean(axis=(1, 2)).max() > area.max()

    def test_the_evidence_for_each_finding(self, tmp_path: Path) -> None:
        data = load("chexpert", tmp_path, medical_trees.chexpert(tmp_path), side=40)
        test = data.splits["test"]
        drawn = evidence(test)
        assert np.array_equal(drawn.any(axis=(2, 3)), test.label == 1)
        area = drawn.mean(axis=(2, 3)).max(axis=0)
        assert area[::2] == pytest.approx(200 / 1200, abs=0.01)
        assert area[1::2] == pytest.approx(126 / 1200, abs=0.01)
        assert (drawn.any(axis=1) ^ masks(test)).mean() < 0.01
        assert data.splits["train"].class_masks is None and not data.info.annotations.class_masks

    def test_segmentations_of_larger_images(self, tmp_path: Path) -> None:
        options = medical_trees.chexpert(tmp_path, size=(15, 20))
        test = load("chexpert", tmp_path, options, labels="Atelectasis", side=20).splits["test"]
        assert masks(test).mean(axis=(1, 2)).max() == pytest.approx(200 / 1200, abs=0.02)

    def test_without_segmentations(self, tmp_path: Path) -> None:
        options = medical_trees.chexpert(tmp_path, segmentations=False)
        assert load("chexpert", tmp_path, options).splits["test"].mask is None


class TestChestXray14:
    def test_the_official_lists(self, tmp_path: Path) -> None:
        data = load("chestxray14", tmp_path, medical_trees.chestxray14(tmp_path))
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 88,
            "val": 8,
            "test": 40,
            "boxes": 21,
        }
        found = clusters(data, "train", "val", "test")
        assert len(set().union(*found)) == sum(map(len, found)) == 17
        (with_boxes,) = clusters(data, "boxes")
        assert with_boxes < found[2]

    def test_findings(self, tmp_path: Path) -> None:
        data = load("chestxray14", tmp_path, medical_trees.chestxray14(tmp_path))
        label = data.splits["val"].label
        assert label.sum(axis=0).tolist() == [1] * 14
        assert sorted(label.sum(axis=1).tolist()) == [0] + [2] * 7
        assert data.info.label_names == chestxray14.FINDINGS

    def test_every_box_of_a_selected_finding_counts(self, tmp_path: Path) -> None:
        options = medical_trees.chestxray14(tmp_path)
        data = load("chestxray14", tmp_path, options, side=40)
        areas = sorted(set((masks(data.splits["boxes"]).mean(axis=(1, 2)) * 1200).tolist()))
        assert areas[0] == pytest.approx(80, abs=8) and areas[-1] == pytest.approx(105, abs=10)
        assert data.splits["test"].mask is None and data.splits["train"].mask is None
        one = load("chestxray14", tmp_path, options, labels="Infiltration;Edema")
        assert len(one.splits["boxes"]) == 3
        none = load("chestxray14", tmp_path, options, labels="Hernia")
        assert tuple(none.splits) == ("train", "val", "test")

    def test_patients_with_boxes_can_be_moved_to_train(self, tmp_path: Path) -> None:
        options = medical_trees.chestxray14(tmp_path)
        usual = load("chestxray14", tmp_path, options)
        data = load("chestxray14", tmp_path, options, guiding=0.34)  # one of three patients
        assert data.info.provides.class_masks and not usual.info.provides.class_masks
        assert len(data.splits["test"]) == len(usual.splits["test"]) - 8
        located = {name: split.class_masks for name, split in data.splits.items()}
        counts = {n: int(m.known().any(1).sum()) for n, m in located.items() if m is not None}
        assert counts["boxes"] == 14 and counts["train"] + counts["val"] == 7
        clusters = [set(split.cluster.tolist()) for split in data.splits.values()]  # type: ignore[union-attr]
        assert not clusters[0] & clusters[2] and not clusters[1] & clusters[2]

    def test_boxes_are_evidence_for_their_finding(self, tmp_path: Path) -> None:
        data = load("chestxray14", tmp_path, medical_trees.chestxray14(tmp_path), side=40)
        boxes = data.splits["boxes"]
        drawn = evidence(boxes)
        assert (drawn.any(axis=1) ^ masks(boxes)).mean() < 0.01
        assert (drawn.any(axis=(2, 3)).sum(axis=1) == 1).all()
        assert evidence(data.splits["test"]).any(axis=(1, 2, 3)).sum() == len(boxes)
        assert not evidence(data.splits["train"]).any()

    def test_boxes_and_images_that_are_left_out(self, tmp_path: Path) -> None:
        options = medical_trees.chestxray14(tmp_path)
        path = tmp_path / medical_trees.CHESTXRAY14 / "BBox_List_2017.csv"
        path.write_text(path.read_text() + "00000000_000.png,Mass,1,1,5,5,,,\n")
        test_list = tmp_path / medical_trees.CHESTXRAY14 / "test_list.txt"
        test_list.write_text(test_list.read_text().replace("00000016_007.png\n", ""))
        source = DATASETS.get("chestxray14")(tmp_path, **options)
        assert len(source.load(0).splits["boxes"]) == 21
        boxes, images = source.notes()
        assert "boxes" in boxes and "(1)" in boxes and "neither" in images and "(1)" in images


class TestVinDrCXR:
    def test_the_official_parts(self, tmp_path: Path) -> None:
        data = load("vindr_cxr", tmp_path, medical_trees.vindr_cxr(tmp_path))
        counts = {name: len(split) for name, split in data.splits.items()}
        assert counts == {"train": 50, "val": 5, "test": 55}
        label = data.splits["test"].label
        assert label.shape == (55, 22)
        assert sorted(set(label.sum(axis=1).tolist())) == [0, 11]

    def test_a_finding_of_any_radiologist_and_all_boxes(self, tmp_path: Path) -> None:
        data = load("vindr_cxr", tmp_path, medical_trees.vindr_cxr(tmp_path), side=40)
        for split in data.splits.values():
            area = masks(split).mean(axis=(1, 2)) * 1200
            assert np.array_equal(area > 0, split.label.any(axis=1))
            assert area.max() == pytest.approx(96, abs=9)

    def test_all_boxes_of_a_finding_are_its_evidence(self, tmp_path: Path) -> None:
        data = load("vindr_cxr", tmp_path, medical_trees.vindr_cxr(tmp_path), side=40)
        assert data.info.annotations.class_masks
        for split in data.splits.values():
            drawn = evidence(split)
            assert np.array_equal(drawn.any(axis=(2, 3)), split.label == 1)
            areas = drawn.mean(axis=(2, 3)) * 1200
            counts = (areas > 88).sum(axis=1)
            assert np.array_equal(counts > 0, split.label.any(axis=1)) and counts.max() == 1

    def test_boxes_of_other_findings_do_not_count(self, tmp_path: Path) -> None:
        options = medical_trees.vindr_cxr(tmp_path)
        data = load("vindr_cxr", tmp_path, options, labels="Edema;Nodule/Mass")
        for split in data.splits.values():
            assert np.array_equal(masks(split).any(axis=(1, 2)), split.label.any(axis=1))

    def test_dicom(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        options = medical_trees.vindr_cxr(tmp_path)
        for number, path in enumerate(sorted((tmp_path / medical_trees.VINDR).glob("t*/*.png"))):
            medical_trees.dicom(path.with_suffix(".dicom"), number)
            path.unlink()
        assert len(load("vindr_cxr", tmp_path, options).splits["test"]) == 55


@pytest.mark.parametrize("name", MULTI_LABEL)
def test_unknown_and_repeated_findings(name: str) -> None:
    with pytest.raises(UserError, match="no finding 'Headache'"):
        DATASETS.get(name)(labels="Edema;Headache").info()
    with pytest.raises(UserError, match="'Edema' more than once"):
        DATASETS.get(name)(labels="Edema;Edema").info()


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
