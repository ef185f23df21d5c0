"""Chest X-rays of six public collections, each read in the layout in which it is published."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmark.core.errors import UserError, shown
from datasets._io.image_source import ImageSource
from datasets._io.table import Row, read_table

#: Younger patients are left out.
ADULT_AGE = 18
#: Brixia gives ages in groups of five years. The first three are entirely below 18; the group from
#: 15 to 19 is kept.
MINOR_AGE_GROUPS = (0, 1, 2)
FRONTAL_VIEWS = ("AP", "PA")


class Xray(NamedTuple):
    """One X-ray.

    Attributes:
        file: The image, below the data folder.
        patient: The patient, unique among all collections.
        finding: ``normal``, ``pneumonia`` or ``covid``.
    """

    file: str
    patient: str
    finding: str


def read_brixia(source: ImageSource) -> list[Xray]:
    """COVID-19 with visible signs: Brixia score above 0 (4,644 of 4,703; DICOM)."""
    table = _find(
        source,
        ("brixia", "BrixIA", "Brixia", "BRIXIA"),
        ("metadata_global_v2.csv",),
        "BrixIA's archive",
    )
    age = "AgeAtStudyDateFiveYear"
    rows = read_table(table, ("Filename", "BrixiaScoreGlobal", "Subject", age), delimiter=";")
    folder = _below(source, table.parent)
    xrays = []
    for row in rows:
        if _read_number(table, "BrixiaScoreGlobal", row) == 0:
            continue
        if row[age].strip() and _read_number(table, age, row) in MINOR_AGE_GROUPS:
            continue
        file = f"{folder}/dicom_clean/{row['Filename']}"
        xrays.append(Xray(file, f"brixia-{row['Subject']}", "covid"))
    return xrays


def read_chexpert(source: ImageSource) -> list[Xray]:
    """Normal (No Finding) and pneumonia; frontal views of adults in the training part (JPEG).

    Uncertain labels count as negative.
    """
    folders = (
        "CheXpert-v1.0",
        "CheXpert-v1.0-small",
        "chexpert/CheXpert-v1.0",
        "chexpert/CheXpert-v1.0-small",
    )
    table = _find(source, folders, ("train.csv",), "CheXpert's archive")
    rows = read_table(table, ("Path", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Pneumonia"))
    parent = _below(source, table.parent.parent)
    xrays = []
    for row in rows:
        frontal = row["Frontal/Lateral"] == "Frontal" and row["AP/PA"] in FRONTAL_VIEWS
        if not frontal or _read_number(table, "Age", row) < ADULT_AGE:
            continue
        pneumonia, normal = (row[name] in ("1", "1.0") for name in ("Pneumonia", "No Finding"))
        if pneumonia == normal:
            continue
        patient = re.search(r"patient\d+", row["Path"])
        if patient is None:
            raise UserError(
                f"{table} has the path {row['Path']!r}, which names no patient; use the published "
                "file."
            )
        file = f"{parent}/{row['Path']}".lstrip("./")
        finding = "pneumonia" if pneumonia else "normal"
        xrays.append(Xray(file, f"chexpert-{patient[0]}", finding))
    return xrays


def read_bimcv(source: ImageSource) -> list[Xray]:
    """COVID-19, iterations 1 and 2; frontal views of adults (16-bit PNG).

    Patients have a positive test and a report of COVID-19.
    """
    folders = ("covid19_posi", "bimcv/covid19_posi", "BIMCV-COVID19/covid19_posi")
    participants = _find(source, folders, ("participants.tsv",), "BIMCV-COVID19+'s archives")
    root = participants.parent
    labels = _first_file(
        root / "derivatives/labels", ("labels_covid_posi.tsv", "labels_covid19_posi.tsv")
    )
    tests = _first_file(root / "derivatives/EHR", ("sil_reg_covid_posi.tsv", "sil_reg_covid.tsv"))
    ages = {
        row["participant"]: row["age"]
        for row in read_table(participants, ("participant", "age"), "\t")
    }
    positive = {
        row["participant"]
        for row in read_table(tests, ("participant", "result"), "\t")
        if row["result"] == "POSITIVO"
    }
    xrays = []
    for row in read_table(labels, ("PatientID", "ReportID", "Labels"), "\t"):
        patient = row["PatientID"]
        years = [int(age) for age in re.findall(r"\d+", ages.get(patient, ""))]
        if patient not in positive or min(years, default=0) < ADULT_AGE:
            continue
        if "COVID 19" not in _read_list(row["Labels"]):
            continue
        folder = root / patient / row["ReportID"] / "mod-rx"
        for path in sorted(folder.glob("*.png")):
            if re.search(r"_vp-(ap|pa)[_.]", path.name):
                xrays.append(Xray(_below(source, path), f"bimcv-{patient}", "covid"))
    return xrays


def read_chestxray14(source: ImageSource) -> list[Xray]:
    """Pneumonia in adults, from the complete collection (1,295 images of 941 patients; PNG)."""
    folders = ("ChestX-ray14", "CXR8", "chestxray14", "NIH")
    names = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "labels/Data_Entry_2017.csv")
    table = _find(source, folders, names, "ChestX-ray14's archives")
    rows = read_table(table, ("Image Index", "Finding Labels", "Patient ID", "Patient Age"))
    root = table.parent.parent if table.parent.name == "labels" else table.parent
    image_folders = [root / "images", *sorted(root.glob("images_0*/images"))]
    path_of_name = {
        path.name: path for folder in image_folders if folder.is_dir() for path in folder.iterdir()
    }
    xrays = []
    for row in rows:
        if "Pneumonia" not in row["Finding Labels"].split("|"):
            continue
        if _read_number(table, "Patient Age", row) < ADULT_AGE:
            continue
        name = row["Image Index"]
        path = path_of_name.get(name, root / "images" / name)
        patient = f"chestxray14-{row['Patient ID']}"
        xrays.append(Xray(_below(source, path), patient, "pneumonia"))
    return xrays


def read_montgomery(source: ImageSource) -> list[Xray]:
    """Normal X-rays of adults (80 normal; PNG)."""
    return _read_tuberculosis_set(source, "MontgomerySet", "MCUCXR", "the Montgomery set")


def read_shenzhen(source: ImageSource) -> list[Xray]:
    """Normal X-rays of adults (326 normal; PNG)."""
    return _read_tuberculosis_set(source, "ChinaSet_AllFiles", "CHNCXR", "the Shenzhen set")


COLLECTIONS: Mapping[str, Callable[[ImageSource], list[Xray]]] = {
    "brixia": read_brixia,
    "chexpert": read_chexpert,
    "bimcv": read_bimcv,
    "chestxray14": read_chestxray14,
    "montgomery": read_montgomery,
    "shenzhen": read_shenzhen,
}


def _read_tuberculosis_set(
    source: ImageSource, folder: str, prefix: str, archive: str
) -> list[Xray]:
    """Return the normal X-rays, whose files end in _0; the age is in ClinicalReadings."""
    images = _find(source, (folder,), ("CXR_png",), archive)
    xrays = []
    for path in sorted(images.glob(f"{prefix}_*_0.png")):
        reading = images.parent / "ClinicalReadings" / f"{path.stem}.txt"
        if not reading.is_file():
            raise UserError(
                f"{reading}, which gives the age of the patient, does not exist; unpack {archive} "
                "again."
            )
        if not _is_minor(reading.read_text(encoding="utf-8", errors="replace")):
            xrays.append(Xray(_below(source, path), path.stem, "normal"))
    return xrays


def _is_minor(reading: str) -> bool:
    """Return True if a clinical reading gives an age below 18.

    Examples are "Patient's Age: 027Y", "male 45yrs", "5 months" and "3 days".
    """
    if re.search(r"\d+\s*-?\s*(month|day|week|d\b|m\b)", reading, re.IGNORECASE):
        return True
    years = re.search(r"(\d+)\s*-?\s*(y|Y)", reading)
    return years is not None and int(years[1]) < ADULT_AGE


def _find(source: ImageSource, folders: Iterable[str], names: Iterable[str], archive: str) -> Path:
    """Return the first existing file of a collection."""
    names = tuple(names)
    paths = [f"{folder}/{name}" for folder in folders for name in names]
    return source.folder() / source.find(*paths, how=f"unpack {archive} there")


def _first_file(folder: Path, names: Iterable[str]) -> Path:
    """Return the first existing file, or the first candidate if there is none."""
    paths = [folder / name for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def _below(source: ImageSource, path: Path) -> str:
    return path.relative_to(source.folder()).as_posix()


def _read_number(table: Path, column: str, row: Row) -> int:
    """Read a whole number; ages may end in Y."""
    match = re.fullmatch(r"\s*0*([0-9]{1,9})(\.0*)?Y?\s*", row[column])
    if match is None:
        raise UserError(
            f"{table} has {column} = {shown(row[column])} in {row.place}, expected a number; use "
            "the published file."
        )
    return int(match[1])


def _read_list(text: str) -> list[str]:
    """Read a Python list such as "['COVID 19', 'pneumonia']"; empty if there are no labels."""
    try:
        value = ast.literal_eval(text) if text.strip() else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []  # some published reports are truncated
    return [str(item).strip() for item in value] if isinstance(value, list) else []
