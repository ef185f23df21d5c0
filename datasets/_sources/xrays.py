"""Chest X-rays of six public collections, each read from the layout in which it is published."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmark.core.errors import UserError, shown
from datasets._io.image_source import ImageSource
from datasets._io.table import Row, read_table

#: Patients below this age are left out.
ADULT = 18
#: Brixia gives ages in groups of five years; the first three are wholly below 18. (15 to 19 cannot be told.)
MINOR_GROUPS = (0, 1, 2)
FRONTAL = ("AP", "PA")


class Shot(NamedTuple):
    """One X-ray: its file below the data folder, its patient, and what it shows."""

    file: str
    patient: str
    finding: str


def brixia(source: ImageSource) -> list[Shot]:
    """COVID-19 with visible signs: Brixia score above 0 (4,644 of 4,703; DICOM)."""
    table = _find(
        source,
        ("brixia", "BrixIA", "Brixia", "BRIXIA"),
        ("metadata_global_v2.csv",),
        "BrixIA's archive",
    )
    ages = "AgeAtStudyDateFiveYear"
    rows = read_table(table, ("Filename", "BrixiaScoreGlobal", "Subject", ages), delimiter=";")
    folder = _below(source, table.parent)
    return [
        Shot(f"{folder}/dicom_clean/{row['Filename']}", f"brixia-{row['Subject']}", "covid")
        for row in rows
        if _number(table, "BrixiaScoreGlobal", row) > 0
        and not (row[ages].strip() and _number(table, ages, row) in MINOR_GROUPS)
    ]


def chexpert(source: ImageSource) -> list[Shot]:
    """Normal (No Finding) and pneumonia, frontal, adults, training part; uncertain labels count as negative (JPEG)."""
    folders = (
        "CheXpert-v1.0",
        "CheXpert-v1.0-small",
        "chexpert/CheXpert-v1.0",
        "chexpert/CheXpert-v1.0-small",
    )
    table = _find(source, folders, ("train.csv",), "CheXpert's archive")
    rows = read_table(table, ("Path", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Pneumonia"))
    above = _below(source, table.parent.parent)
    shots = []
    for row in rows:
        if (
            row["Frontal/Lateral"] != "Frontal"
            or row["AP/PA"] not in FRONTAL
            or _number(table, "Age", row) < ADULT
        ):
            continue
        pneumonia, normal = (row[name] in ("1", "1.0") for name in ("Pneumonia", "No Finding"))
        if pneumonia == normal:
            continue
        patient = re.search(r"patient\d+", row["Path"])
        if patient is None:
            raise UserError(
                f"{table} has the path {row['Path']!r}, which names no patient; take it as published."
            )
        file = f"{above}/{row['Path']}".lstrip("./")
        shots.append(Shot(file, f"chexpert-{patient[0]}", "pneumonia" if pneumonia else "normal"))
    return shots


def bimcv(source: ImageSource) -> list[Shot]:
    """COVID-19, iterations 1 and 2: a positive test and a report that says so; frontal views of adults (16-bit PNG)."""
    folders = ("covid19_posi", "bimcv/covid19_posi", "BIMCV-COVID19/covid19_posi")
    participants = _find(source, folders, ("participants.tsv",), "BIMCV-COVID19+'s archives")
    root = participants.parent
    labels = _first(
        root / "derivatives/labels", ("labels_covid_posi.tsv", "labels_covid19_posi.tsv")
    )
    tests = _first(root / "derivatives/EHR", ("sil_reg_covid_posi.tsv", "sil_reg_covid.tsv"))
    ages = {
        row["participant"]: row["age"]
        for row in read_table(participants, ("participant", "age"), "\t")
    }
    positive = {
        row["participant"]
        for row in read_table(tests, ("participant", "result"), "\t")
        if row["result"] == "POSITIVO"
    }
    shots = []
    for row in read_table(labels, ("PatientID", "ReportID", "Labels"), "\t"):
        patient = row["PatientID"]
        years = [int(age) for age in re.findall(r"\d+", ages.get(patient, ""))]
        if (
            patient not in positive
            or "COVID 19" not in _texts(labels, row["Labels"])
            or min(years, default=0) < ADULT
        ):
            continue
        folder = root / patient / row["ReportID"] / "mod-rx"
        for path in sorted(folder.glob("*.png")):
            if re.search(r"_vp-(ap|pa)[_.]", path.name):
                shots.append(Shot(_below(source, path), f"bimcv-{patient}", "covid"))
    return shots


def chestxray14(source: ImageSource) -> list[Shot]:
    """Pneumonia, adults, from all of the collection (1,295 images of 941 patients; PNG)."""
    folders = ("ChestX-ray14", "CXR8", "chestxray14", "NIH")
    names = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "labels/Data_Entry_2017.csv")
    table = _find(source, folders, names, "ChestX-ray14's archives")
    rows = read_table(table, ("Image Index", "Finding Labels", "Patient ID", "Patient Age"))
    root = table.parent if table.parent.name != "labels" else table.parent.parent
    pieces = [root / "images", *sorted(root.glob("images_0*/images"))]
    where = {path.name: path for piece in pieces if piece.is_dir() for path in piece.iterdir()}
    return [
        Shot(
            _below(source, where.get(row["Image Index"], root / "images" / row["Image Index"])),
            f"chestxray14-{row['Patient ID']}",
            "pneumonia",
        )
        for row in rows
        if "Pneumonia" in row["Finding Labels"].split("|")
        and _number(table, "Patient Age", row) >= ADULT
    ]


def montgomery(source: ImageSource) -> list[Shot]:
    """Normal X-rays of adults (80 normal; PNG)."""
    return _tuberculosis(source, "MontgomerySet", "MCUCXR", "the Montgomery set")


def shenzhen(source: ImageSource) -> list[Shot]:
    """Normal X-rays of adults (326 normal; PNG)."""
    return _tuberculosis(source, "ChinaSet_AllFiles", "CHNCXR", "the Shenzhen set")


SOURCES: Mapping[str, Callable[[ImageSource], list[Shot]]] = {
    "brixia": brixia, "chexpert": chexpert, "bimcv": bimcv, "chestxray14": chestxray14,
    "montgomery": montgomery, "shenzhen": shenzhen,
}  # fmt: skip


def _tuberculosis(source: ImageSource, folder: str, prefix: str, what: str) -> list[Shot]:
    """Files that end in _0 are normal; the age is in ClinicalReadings, after words or before 'yrs'."""
    pictures = _find(source, (folder,), ("CXR_png",), what)
    shots = []
    for path in sorted(pictures.glob(f"{prefix}_*_0.png")):
        reading = pictures.parent / "ClinicalReadings" / f"{path.stem}.txt"
        if not reading.is_file():
            raise UserError(
                f"{reading} is not there, which says how old the patient was; unpack {what} again."
            )
        if not _minor(reading.read_text(encoding="utf-8", errors="replace")):
            shots.append(Shot(_below(source, path), path.stem, "normal"))
    return shots


def _minor(reading: str) -> bool:
    """Whether a clinical reading gives an age below 18: "Patient's Age: 027Y", "male 45yrs", "5 months", "3 days"."""
    if re.search(r"\d+\s*-?\s*(month|day|week|d\b|m\b)", reading, re.IGNORECASE):
        return True
    years = re.search(r"(\d+)\s*-?\s*(y|Y)", reading)
    return years is not None and int(years[1]) < ADULT


def _find(source: ImageSource, folders: Iterable[str], names: Iterable[str], what: str) -> Path:
    names = tuple(names)
    paths = [f"{folder}/{name}" for folder in folders for name in names]
    return source.folder() / source.find(*paths, how=f"unpack {what} there")


def _first(folder: Path, names: Iterable[str]) -> Path:
    paths = [folder / name for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def _below(source: ImageSource, path: Path) -> str:
    return path.relative_to(source.folder()).as_posix()


def _number(table: Path, column: str, row: Row) -> int:
    """A whole number; ages may end in Y."""
    found = re.fullmatch(r"\s*0*([0-9]{1,9})(\.0*)?Y?\s*", row[column])
    if found is None:
        raise UserError(
            f"{table} has {column} = {shown(row[column])} in {row.place}, expected a number; take the file as "
            "published."
        )
    return int(found[1])


def _texts(table: Path, text: str) -> list[str]:
    """A list written in Python's way, such as "['COVID 19', 'pneumonia']"; a report without labels gives none."""
    try:
        value = ast.literal_eval(text) if text.strip() else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []  # a few of the published reports are cut off
    return [str(item).strip() for item in value] if isinstance(value, list) else []
