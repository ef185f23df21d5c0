"""A few X-rays of the six collections of covid_xray, and of patients that are left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.trees import mask, table, write_image

#: X-rays of each source that are to be found.
FOUND = {
    "brixia": 8,
    "chexpert_normal": 9,
    "chexpert_pneumonia": 10,
    "bimcv": 4,
    "chestxray14": 5,
    "montgomery": 3,
    "shenzhen": 4,
}
SIZE = (30, 40)


def covid(root: Path, ending: str = ".png", masks: bool = True) -> Mapping[str, Any]:
    """Write all collections; Brixia's files are PNG, or DICOM if ``ending`` is .dcm."""
    files = [
        *brixia(root, ending),
        *chexpert(root),
        *bimcv(root),
        *chestxray14(root),
        *tuberculosis(root),
    ]
    if masks:
        for number, file in enumerate(files):
            mask(root / "covid_xray/masks" / Path(file).with_suffix(".png"), number, SIZE)
    return {"side": 16}


def brixia(root: Path, ending: str) -> list[str]:
    rows, files = [], []
    for i in range(FOUND["brixia"] + 2):
        name = f"{i:04d}{ending}"
        score, ages = (
            (0, 12) if i == 0 else (5, 1) if i == 1 else (1 + i, "" if i == 2 else 9)
        )  # well, and a child
        rows.append((name, "CR", f"{score:06d}", score, f"subject{i // 2}", ages))
        files.append(f"brixia/dicom_clean/{name}")
        if ending == ".dcm":
            dicom(root / files[-1], 80_000 + i, inverted=i % 2 == 1)
        else:
            write_image(root / files[-1], 80_000 + i, SIZE, "L")
    header = (
        "Filename",
        "Modality",
        "BrixiaScore",
        "BrixiaScoreGlobal",
        "Subject",
        "AgeAtStudyDateFiveYear",
    )
    table(root / "brixia/metadata_global_v2.csv", header, rows, ";")
    return files


def dicom(path: Path, seed: int, inverted: bool = False) -> np.ndarray:
    """A 12-bit DICOM file; returns the grey values as they are to be seen."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    values = np.random.default_rng(seed).integers(100, 4000, SIZE[::-1]).astype(np.uint16)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.Rows, data.Columns, data.SamplesPerPixel, data.PixelRepresentation = *values.shape, 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.PixelData = values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return values.max() - values if inverted else values


def chexpert(root: Path) -> list[str]:
    rows, files = [], []

    def add(
        patient: int, age: int, view: str, projection: str, normal: str, pneumonia: str
    ) -> None:
        name = f"view{len(files) + 1}_frontal.jpg"
        file = f"CheXpert-v1.0-small/train/patient{patient:05d}/study1/{name}"
        write_image(root / file, 81_000 + len(files), SIZE, "L")
        rows.append((file, "Male", age, view, projection, normal, pneumonia))
        files.append(file)

    for i in range(FOUND["chexpert_normal"]):
        add(i, 40, "Frontal", "AP", "1.0", "")
    add(
        0, 40, "Frontal", "PA", "1.0", ""
    )  # the first patient again: normal images are of distinct patients
    for i in range(FOUND["chexpert_pneumonia"]):
        add(100 + i // 2, 50, "Frontal", "PA", "", "1.0")
    add(200, 17, "Frontal", "AP", "1.0", "")
    add(201, 50, "Lateral", "", "", "1.0")
    add(202, 50, "Frontal", "LL", "1.0", "")
    add(203, 50, "Frontal", "AP", "", "-1.0")
    table(
        root / "CheXpert-v1.0-small/train.csv",
        ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Pneumonia"), rows,
    )  # fmt: skip
    return files


def bimcv(root: Path) -> list[str]:
    base, files = root / "covid19_posi", []
    people = {  # age, results, labels, view; the last four are to be left out
        "sub-S1": ("[60, 61]", ("NEGATIVO", "POSITIVO"), "['COVID 19', 'pneumonia']", "ap"),
        "sub-S2": ("45", ("POSITIVO",), "[' COVID 19 ']", "pa"),
        "sub-S3": ("70", ("NEGATIVO",), "['COVID 19']", "pa"),
        "sub-S4": ("70", ("POSITIVO",), "['COVID 19 uncertain']", "pa"),
        "sub-S5": ("16", ("POSITIVO",), "['COVID 19']", "pa"),
        "sub-S6": ("70", ("POSITIVO",), "['COVID 19', 'pneu", "pa"),
    }
    tests, labels = [], []
    for patient, (_, results, text, view) in people.items():
        session = f"ses-E{patient[-1]}"
        tests += [(patient, "01.04.2020", "PCR", result) for result in results]
        labels.append((patient, session, text))
        for run in (1, 2):
            name = f"{patient}_{session}_run-{run}_bp-chest_vp-{view}_dx.png"
            file = f"covid19_posi/{patient}/{session}/mod-rx/{name}"
            write_image(root / file, 82_000 + len(files), SIZE, "L")
            deep = np.asarray(Image.open(root / file)).astype(np.uint16) * 200
            Image.fromarray(deep).save(root / file)
            files.append(file)
    write_image(
        base / "sub-S1/ses-E1/mod-rx/sub-S1_ses-E1_bp-chest_vp-ll_dx.png", 82_900, SIZE, "L"
    )  # from the side
    table(
        base / "participants.tsv",
        ("participant", "age"),
        [(k, v[0]) for k, v in people.items()],
        "\t",
    )
    table(
        base / "derivatives/EHR/sil_reg_covid_posi.tsv",
        ("participant", "date", "test", "result"),
        tests,
        "\t",
    )
    table(
        base / "derivatives/labels/labels_covid_posi.tsv",
        ("PatientID", "ReportID", "Labels"),
        labels,
        "\t",
    )
    return files


def chestxray14(root: Path) -> list[str]:
    rows, files = [], []
    odd = {
        0: ("015Y", "Pneumonia"),
        1: ("050Y", "Infiltration"),
        2: ("058Y", "Infiltration|Pneumonia"),
    }
    for i in range(FOUND["chestxray14"] + 2):
        age, finding = odd.get(i, ("058Y", "Pneumonia"))
        name = f"{i:08d}_000.png"
        file = f"ChestX-ray14/images_00{1 + i % 2}/images/{name}"
        write_image(root / file, 83_000 + i, SIZE, "L")
        rows.append((name, finding, i // 2, age))
        files.append(file)
    header = ("Image Index", "Finding Labels", "Patient ID", "Patient Age")
    table(root / "ChestX-ray14/Data_Entry_2017.csv", header, rows)
    return files


def tuberculosis(root: Path) -> list[str]:
    files = []
    sets = (
        (
            "MontgomerySet",
            "MCUCXR",
            "montgomery",
            "Patient's Sex: F \nPatient's Age: 027Y\n",
            "Patient's Age: 004Y",
        ),
        (
            "ChinaSet_AllFiles",
            "CHNCXR",
            "shenzhen",
            "male 45yrs\nnormal\n",
            "female 5-month\nnormal",
        ),
    )
    for folder, prefix, source, adult, child in sets:
        for i in range(FOUND[source] + 2):
            sick = i == 0
            name = f"{prefix}_{i:04d}_{int(sick)}"
            file = f"{folder}/CXR_png/{name}.png"
            write_image(root / file, 84_000 + 100 * (prefix == "CHNCXR") + i, SIZE, "L")
            reading = root / folder / "ClinicalReadings" / f"{name}.txt"
            reading.parent.mkdir(parents=True, exist_ok=True)
            reading.write_text(child if i == 1 else adult)
            files.append(file)
    return files
