"""Small medical data sets in the layouts in which they are published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets import chestxray14 as chestxray14_module
from datasets import vindr_cxr as vindr_module
from tests.support import xray_tree
from tests.support.trees import mask, table, write_image

SIZE = (30, 40)
RSNA = "rsna-pneumonia-detection-challenge"
HAM = "HAM10000"
VINDR = "vindr-cxr/1.0.0"
CHESTXRAY14 = "ChestX-ray14"
CHEXPERT_LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
#: Two masks of 30×40 pixels, compressed by pycocotools: rows 10 to 19 of columns 5 to 24, and
#: rows 4 to 35 of columns 2 to 4 with rows 0 to 2 of columns 20 to 29.
RUN_LENGTHS = (
    "b6:n00000000000000000000000000000000000000n5",
    "d2P18000db0SOY^O000000000000000000",
)
#: The boxes of a patient with pneumonia in ``rsna``: left, top, width and height.
RSNA_BOXES = ((4.0, 6.0, 8.0, 12.0), (18.0, 8.0, 10.0, 16.0))


def rsna(root: Path, per_class: int = 20, ending: str = ".png") -> Mapping[str, Any]:
    """Write RSNA's challenge; every second patient has pneumonia, and half of these two boxes."""
    rows: list[tuple[object, ...]] = []
    for i in range(2 * per_class):
        name = f"{i:04d}-patient"
        file = root / RSNA / "stage_2_train_images" / f"{name}{ending}"
        write_image(file, 110_000 + i, SIZE, "L")
        if i % 2:
            rows += [(name, *box, 1) for box in RSNA_BOXES[: 1 + i % 4 // 2]]
        else:
            rows.append((name, "", "", "", "", 0))
    header = ("patientId", "x", "y", "width", "height", "Target")
    table(root / RSNA / "stage_2_train_labels.csv", header, rows)
    return {"side": 16}


def ham10000(root: Path, lesions: int = 5, segmentations: bool = True) -> Mapping[str, Any]:
    """Write HAM10000 with equally many lesions of each class, every second one in two images."""
    rows: list[tuple[object, ...]] = []
    for number, diagnosis in enumerate(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")):
        for lesion in range(lesions):
            for _ in range(1 + lesion % 2):
                name = f"ISIC_{len(rows):07d}"
                folder = root / HAM / f"HAM10000_images_part_{1 + number % 2}"
                write_image(folder / f"{name}.jpg", 120_000 + len(rows), (40, 30))
                if segmentations:
                    masks = root / HAM / "HAM10000_segmentations_lesion_tschandl"
                    mask(masks / f"{name}_segmentation.png", len(rows), (40, 30))
                rows.append((f"HAM_{number}{lesion:06d}", name, diagnosis, "histo", 60.0))
    header = ("lesion_id", "image_id", "dx", "dx_type", "age")
    table(root / HAM / "HAM10000_metadata.csv", header, rows)
    return {"side": 16}


def chexpert(
    root: Path, patients: int = 12, segmentations: bool = True, size: tuple[int, int] = SIZE
) -> Mapping[str, Any]:
    """Write CheXpert with five frontal X-rays of each patient, some lateral ones, and CheXlocalize.

    Each label is positive for two X-rays of a patient, and negative, blank and uncertain for one.
    """
    header = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS)
    values = ("1.0", "1.0", "0.0", "", "-1.0")
    segmented = {}
    for part, count, first in (("train", patients, 1), ("valid", 3, 64541)):
        rows: list[tuple[object, ...]] = []
        for patient in range(first, first + count):
            study = f"CheXpert-v1.0-small/{part}/patient{patient:05d}/study1"
            for i in range(5):
                path = f"{study}/view{i + 1}_frontal.jpg"
                write_image(root / path, 130_000 + 5 * patient + i, size, "L")
                labels = [values[(i + k) % 5] for k in range(len(CHEXPERT_LABELS))]
                if part == "valid":
                    labels = ["1.0" if label == "1.0" else "0.0" for label in labels]
                    key = f"patient{patient:05d}_study1_view{i + 1}_frontal"
                    segmented[key] = {
                        name: {"size": [40, 30], "counts": RUN_LENGTHS[k % 2]}
                        for k, name in enumerate(CHEXPERT_LABELS)
                        if labels[k] == "1.0"
                    }
                rows.append((path, "Male", 50, "Frontal", "AP", *labels))
            rows.append((f"{study}/view6_lateral.jpg", "Male", 50, "Lateral", "", *[""] * 5))
        table(root / f"CheXpert-v1.0-small/{part}.csv", header, rows)
    if segmentations:
        path = root / "CheXlocalize/gt_segmentations_val.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(segmented))
    return {"side": 16}


def official_test_of_chexpert(root: Path) -> None:
    """Write the official test of CheXpert: five frontal X-rays of each of two patients."""
    base = root / "CheXlocalize/CheXpert"
    rows: list[tuple[object, ...]] = []
    segmented = {}
    for patient in (64741, 64742):
        for i in range(5):
            path = f"test/patient{patient}/study1/view{i + 1}_frontal.jpg"
            write_image(base / path, 135_000 + 5 * patient + i, SIZE, "L")
            labels = [int((i + k) % 5 < 2) for k in range(len(CHEXPERT_LABELS))]
            segmented[f"patient{patient}_study1_view{i + 1}_frontal"] = {
                name: {"size": [40, 30], "counts": RUN_LENGTHS[k % 2]}
                for k, name in enumerate(CHEXPERT_LABELS)
                if labels[k]
            }
            rows.append((path, *labels))
        rows.append((f"test/patient{patient}/study1/view6_lateral.jpg", *[0] * 5))
    table(base / "test_labels.csv", ("Path", *CHEXPERT_LABELS), rows)
    path = root / "CheXlocalize/gt_segmentations_test.json"
    path.write_text(json.dumps(segmented))


def chestxray14(root: Path, patients: int = 12) -> Mapping[str, Any]:
    """Write ChestX-ray14 with eight images of each patient and five patients in the test.

    Every image of a patient has two findings except the last one, which has none. The images with
    findings of three test patients have a box of 10×8 pixels, and the first one another of 5×5.
    """
    base = root / CHESTXRAY14
    rows: list[tuple[object, ...]] = []
    box_rows: list[tuple[object, ...]] = []
    lists: dict[str, list[str]] = {"train_val_list.txt": [], "test_list.txt": []}
    for patient in range(patients + 5):
        part = "train_val_list.txt" if patient < patients else "test_list.txt"
        for i in range(8):
            name = f"{patient:08d}_{i:03d}.png"
            folder = base / f"images_00{1 + patient % 2}" / "images"
            write_image(folder / name, 140_000 + 8 * patient + i, SIZE, "L")
            findings = chestxray14_module.FINDINGS[2 * i : 2 * i + 2]
            rows.append((name, "|".join(findings) or "No Finding", patient, "058Y"))
            lists[part].append(name)
            if patient in (patients, patients + 1, patients + 2) and findings:
                finding = chestxray14_module.LOCATED[i].replace("Infiltration", "Infiltrate")
                box_rows.append((name, finding, 4.0, 6.0, 10.0, 8.0, "", "", ""))
                if i == 0:
                    box_rows.append((name, finding, 18.5, 20.5, 4.0, 4.0, "", "", ""))
    header = ("Image Index", "Finding Labels", "Patient ID", "Patient Age")
    table(base / "Data_Entry_2017.csv", header, rows)
    box_header = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
    table(base / "BBox_List_2017.csv", box_header, box_rows)
    for name, names in lists.items():
        (base / name).write_text("\n".join(names) + "\n")
    return {"side": 16}


def vindr_cxr(root: Path, per_part: int = 55, ending: str = ".png") -> Mapping[str, Any]:
    """Write VinDr-CXR; every fifth image has no finding, the others have eleven of the 22.

    Every finding is marked by one of two radiologists with a box of 10×8 pixels, whose place is
    the same for all. The first finding of an image has another box of 4×4 pixels.
    """
    base = root / VINDR
    names = vindr_module.FINDINGS
    for part in ("train", "test"):
        rows: list[tuple[object, ...]] = []
        for i in range(per_part):
            name = f"{part}{i:04d}"
            write_image(base / part / f"{name}{ending}", 150_000 + 1000 * len(part) + i, SIZE, "L")
            if i % 5 == 0:
                rows += [(name, f"R{k}", "No finding", "", "", "", "") for k in range(3)]
                continue
            findings = [names[(i + 2 * k) % len(names)] for k in range(11)]
            rows.append((name, "R3", findings[0], 20, 30, 24, 34))
            for k, finding in enumerate(findings):
                rows.append((name, f"R{k % 2}", finding, 4.0, 6.0, 14.0, 14.0))
        header = ("image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max")
        table(base / f"annotations/annotations_{part}.csv", header, rows)
    return {"side": 16}


def dicom(path: Path, seed: int) -> np.ndarray:
    """Write a DICOM file of 30×40 pixels and return its grey values."""
    return xray_tree.dicom(path, seed)
