"""Damaged data: every damage is a UserError with one sentence, and no image is invented."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from tests.support import medical_trees, trees, xray_tree

Damage = Callable[[Path], object]
RSNA = f"{medical_trees.RSNA}/stage_2_train_labels.csv"
HAM = f"{medical_trees.HAM}/HAM10000_metadata.csv"
CHEXPERT = "CheXpert-v1.0-small"
CHEXLOCALIZE = "CheXlocalize/gt_segmentations_val.json"
NIH = medical_trees.CHESTXRAY14
VINDR = f"{medical_trees.VINDR}/annotations/annotations_train.csv"
WB, NLM, COCO = (
    "waterbird_complete95_forest2water2",
    "nlm_cxr",
    "coco/annotations/instances_train2017.json",
)

MAKERS: dict[str, tuple[str, Callable[[Path], Mapping[str, Any]]]] = {
    "waterbirds": ("waterbirds", trees.waterbirds),
    "made": ("waterbirds", trees.cub_and_places),
    "celeba": ("celeba", trees.celeba),
    "coco": ("coco_on_places", trees.coco_and_places),
    "dogs": ("dogs_with_ties", trees.dogs),
    "spawrious": ("spawrious", trees.spawrious_tree),
    "covid": ("covid_xray", xray_tree.covid),
    "nlm": ("nlm_cxr", trees.nlm),
    "rsna": ("rsna", medical_trees.rsna),
    "ham": ("ham10000", medical_trees.ham10000),
    "chexpert": ("chexpert", medical_trees.chexpert),
    "vindr": ("vindr_cxr", medical_trees.vindr_cxr),
    "nih": ("chestxray14", medical_trees.chestxray14),
    "folder": ("folder", trees.folder),
}


def put(path: Path, content: bytes | str) -> None:
    """Replace a file; never write into it, since the trees are hard links."""
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def edit(name: str, old: str, new: str, count: int = 1) -> Damage:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        put(root / name, text.replace(old, new, count))

    return change


def drop(pattern: str) -> Damage:
    """Remove the first file or folder that matches."""

    def change(root: Path) -> None:
        path = sorted(root.glob(pattern))[0]
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(pattern: str, keep: float = 0.5) -> Damage:
    """Cut off the end of the first file that matches."""

    def change(root: Path) -> None:
        path = sorted(root.glob(pattern))[0]
        content = path.read_bytes()
        put(path, content[: int(len(content) * keep)])

    return change


def replace_by(pattern: str, content: bytes | str) -> Damage:
    return lambda root: put(sorted(root.glob(pattern))[0], content)


def resize(pattern: str) -> Damage:
    def change(root: Path) -> None:
        path = sorted(root.glob(pattern))[0]
        small = Image.open(path).resize((12, 12))
        path.unlink()
        small.save(path)

    return change


def coco(change: Callable[[Any], object]) -> Damage:
    def damage(root: Path) -> None:
        value = json.loads((root / COCO).read_text())
        change(value)
        put(root / COCO, json.dumps(value))

    return damage


def opaque(root: Path) -> None:
    path = root / "dogs_with_ties/red_necktie.png"
    path.unlink()
    Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(path)


def split_zero_only(root: Path) -> None:
    path = root / WB / "metadata.csv"
    put(path, re.sub(r",2,([01]),/o", r",0,\1,/o", path.read_text()))


def few_photographs(root: Path) -> None:
    for path in sorted((root / "data_256/b/bamboo_forest").iterdir())[3:]:
        path.unlink()


def loose(root: Path) -> None:
    trees.write_image(root / "my_data/train/cat/stray.png", 1)


def no_patient(root: Path) -> None:
    table = root / "my_data/metadata.csv"
    lines = table.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ","
    put(table, "\n".join(lines) + "\n")


#: The data set, the damage, and words that the message must contain.
CASES: dict[str, tuple[str, Damage, str]] = {
    "no metadata": ("waterbirds", drop(f"{WB}/metadata.csv"), "unpack waterbird_complete95"),
    "a column is gone": (
        "waterbirds",
        edit(f"{WB}/metadata.csv", "place,", "spot,"),
        "no column 'place'",
    ),
    "a value out of range": (
        "waterbirds",
        edit(f"{WB}/metadata.csv", ",0,0,0,", ",7,0,0,"),
        "y = '7' in row",
    ),
    "a split is empty": ("waterbirds", split_zero_only, "no images of split 2"),
    "the table is cut off": (
        "waterbirds",
        lambda r: put(r / WB / "metadata.csv", "img_filename,y,split,place\na.jpg,1\n"),
        "line 2",
    ),
    "the table has no rows": (
        "waterbirds",
        lambda r: put(r / WB / "metadata.csv", "img_filename,y,split,place\n"),
        "no rows",
    ),
    "the table is no text": (
        "waterbirds",
        replace_by(f"{WB}/metadata.csv", b"\xff\xfe\x00" * 40),
        "cannot be read as a table",
    ),
    "an image is gone": ("waterbirds", drop(f"{WB}/*/*.jpg"), "1 of 92 images are not in"),
    "an image is empty": (
        "waterbirds",
        replace_by(f"{WB}/*/*.jpg", b""),
        "1 of 92 images are empty files",
    ),
    "an image is cut off": ("waterbirds", cut(f"{WB}/*/*.jpg"), "cannot be read as an image"),
    "an image is a web page": (
        "waterbirds",
        replace_by(f"{WB}/*/*.jpg", "<html>not found</html>"),
        "cannot be read as an image",
    ),
    "a mask is gone": (
        "waterbirds",
        drop("CUB_200_2011/segmentations/*/*.png"),
        "1 of 92 masks are not in",
    ),
    "a mask is of another size": (
        "waterbirds",
        resize("CUB_200_2011/segmentations/*/*.png"),
        "must have the size of its image",
    ),
    "CUB's lists disagree": (
        "made",
        edit("CUB_200_2011/train_test_split.txt", "40 ", "41 "),
        "do not list the same images",
    ),
    "CUB's list has a stray word": (
        "made",
        edit("CUB_200_2011/images.txt", "1 0", "1 x 0"),
        "line 1 of",
    ),
    "no segmentations": ("made", drop("CUB_200_2011/segmentations"), "segmentations.tgz"),
    "a place is gone": ("made", drop("data_256/o/ocean"), "needs the place ocean"),
    "a place has few photographs": ("made", few_photographs, "of the place bamboo_forest, but"),
    "no partition": ("celeba", drop("celeba/list_eval_partition.txt"), "list_eval_partition.csv"),
    "the number of faces is wrong": (
        "celeba",
        edit("celeba/list_attr_celeba.txt", "67\n", "99\n"),
        "promises 99 images and names 67",
    ),
    "an attribute is gone": (
        "celeba",
        edit("celeba/list_attr_celeba.txt", "Male", "Mail"),
        "no attribute Male",
    ),
    "an attribute is neither": (
        "celeba",
        edit("celeba/list_attr_celeba.txt", "000005.jpg 1 ", "000005.jpg 1 3"),
        "expected one of",
    ),
    "a line is short": (
        "celeba",
        edit("celeba/list_eval_partition.txt", "000007.jpg 2", "000007.jpg"),
        "has 0 values, expected 1",
    ),
    "a face is in one list only": (
        "celeba",
        edit("celeba/list_eval_partition.txt", "000009.jpg", "000999.jpg"),
        "do not name the same images",
    ),
    "a face is named twice": (
        "celeba",
        edit("celeba/list_attr_celeba.txt", "000009.jpg", "000008.jpg"),
        "names 000008.jpg more than once",
    ),
    "a list of faces is Latin-1": (
        "celeba",
        replace_by("celeba/list_eval_partition.txt", "00é.jpg 0\n".encode("latin-1")),
        "line 1 holds the byte 0xe9",
    ),
    "CUB's list repeats a number": (
        "made",
        edit("CUB_200_2011/images.txt", "\n2 0", "\n1 0"),
        "repeats the number 1",
    ),
    "a neck is marked twice": (
        "dogs",
        edit("dogs_with_ties/necks.csv", "n02086079_test1.jpg", "n02086079_test0.jpg"),
        "repeats n02086079-Pekinese/n02086079_test0.jpg",
    ),
    "a neck is infinite": (
        "dogs",
        edit(
            "dogs_with_ties/necks.csv",
            ",20,16,40,22",
            ",20,16,inf,22",
        ),
        "empty or infinite box",
    ),
    "no annotations": ("coco", drop("coco/annotations/*.json"), "annotations_trainval2017.zip"),
    "annotations are cut off": ("coco", cut("coco/annotations/*.json", 0.9), "is not JSON"),
    "annotations of another kind": (
        "coco",
        replace_by("coco/annotations/*.json", '{"info": 1}'),
        "is not a file of COCO instances",
    ),
    "a category is gone": ("coco", coco(lambda v: v["categories"].pop()), "no category 'bus'"),
    "too few objects": (
        "coco",
        coco(lambda v: v["annotations"].__delitem__(slice(-4, None))),
        "lower per_class",
    ),
    "an object of no image": (
        "coco",
        coco(lambda v: v["images"].pop()),
        "which the file does not list",
    ),
    "a segmentation of another kind": (
        "coco",
        coco(lambda v: v["annotations"][2].update(segmentation="abc")),
        "neither polygons nor",
    ),
    "a neck is not marked": (
        "dogs",
        edit("dogs_with_ties/necks.csv", "n02086079_test1.jpg", "n02086079_other.jpg"),
        "has no neck for 1",
    ),
    "a neck has no area": (
        "dogs",
        edit(
            "dogs_with_ties/necks.csv",
            ",20,16,40,22",
            ",20,16,20,22",
        ),
        "empty or infinite box",
    ),
    "a neck is no number": (
        "dogs",
        edit(
            "dogs_with_ties/necks.csv",
            ",20,16,40,22",
            ",20,16,4o,22",
        ),
        "is not a number",
    ),
    "a list of dogs is damaged": (
        "dogs",
        cut("stanford_dogs/lists/test_list.mat", 0.4),
        "cannot be read",
    ),
    "a tie is gone": ("dogs", drop("dogs_with_ties/purple_bow_tie.png"), "transparent background"),
    "a tie has no transparency": ("dogs", opaque, "no transparent background"),
    "a folder of dogs is gone": (
        "spawrious",
        drop("spawrious224/1/beach/corgi"),
        "no spawrious224/1/beach/corgi",
    ),
    "a folder of dogs is empty": (
        "spawrious",
        lambda r: [p.unlink() for p in (r / "spawrious224/0/dirt/bulldog").iterdir()],
        "holds no images",
    ),
    "a collection is gone": ("covid", drop("covid19_posi"), "BIMCV"),
    "no X-ray is left": (
        "covid",
        lambda r: edit("covid19_posi/derivatives/EHR/sil_reg_covid_posi.tsv", "POSITIVO", "?", 99)(
            r
        ),
        "no X-ray of bimcv",
    ),
    "an age is no number": (
        "covid",
        edit("ChestX-ray14/Data_Entry_2017.csv", "058Y", "old"),
        "Patient Age = 'old'",
    ),
    "a reading is gone": (
        "covid",
        drop("MontgomerySet/ClinicalReadings/*_0003_0.txt"),
        "age of the patient",
    ),
    "a lung mask is gone": (
        "covid",
        drop("covid_xray/masks/brixia/dicom_clean/0004.png"),
        "masks are not in",
    ),
    "a label is unknown": ("nlm", edit(f"{NLM}/metadata.csv", ",normal", ",healthy"), "line 2 of"),
    "an X-ray is named twice": (
        "nlm",
        edit(f"{NLM}/metadata.csv", "mo_normal_1.png", "mo_normal_2.png"),
        "twice",
    ),
    "a group is nearly empty": (
        "nlm",
        edit(f"{NLM}/metadata.csv", "normal,montgomery", "normal,shenzhen", 11),
        "fewer than 4",
    ),
    "RSNA: no table": ("rsna", drop(RSNA), "rsna-pneumonia-detection-challenge.zip"),
    "RSNA: a column is gone": ("rsna", edit(RSNA, "Target", "Label"), "no column 'Target'"),
    "RSNA: an unknown target": ("rsna", edit(RSNA, ",,,,0", ",,,,2"), "Target = '2' in row 2"),
    "RSNA: a box that is not a number": (
        "rsna",
        edit(RSNA, "4.0,6.0", "four,6.0"),
        "x = 'four' in row 3",
    ),
    "RSNA: a box without width": ("rsna", edit(RSNA, "8.0,12.0", "0.0,12.0"), "in row 3 is empty"),
    "RSNA: a box left of the image": ("rsna", edit(RSNA, "4.0,6.0", "-4.0,6.0"), "left -4"),
    "RSNA: a box larger than the image": (
        "rsna",
        edit(RSNA, "8.0,12.0", "80.0,12.0"),
        "reaches to x = 84",
    ),
    "RSNA: pneumonia without a box": ("rsna", edit(RSNA, ",,,,0", ",,,,1"), "no box in row 2"),
    "RSNA: a box without pneumonia": (
        "rsna",
        edit(RSNA, "12.0,1", "12.0,0"),
        "a box in row 3",
    ),
    "RSNA: a patient in two rows": (
        "rsna",
        edit(RSNA, "0002-patient", "0000-patient"),
        "names the patient 0000-patient in row 2 and row 4",
    ),
    "RSNA: an image is gone": (
        "rsna",
        drop(f"{medical_trees.RSNA}/stage_2_train_images/*"),
        "1 of 40 images are not in",
    ),
    "RSNA: no pneumonia": (
        "rsna",
        replace_by(
            RSNA,
            "patientId,x,y,width,height,Target\n"
            + "".join(f"000{i}-patient,,,,,0\n" for i in (0, 2, 4)),
        ),
        "too few patients of the class pneumonia (0)",
    ),
    "HAM10000: no table": ("ham", drop(HAM), "Harvard Dataverse"),
    "HAM10000: a column is gone": ("ham", edit(HAM, "lesion_id", "lesion"), "column 'lesion_id'"),
    "HAM10000: an unknown diagnosis": ("ham", edit(HAM, "akiec", "scc"), "dx = 'scc' in row 2"),
    "HAM10000: no lesion": ("ham", edit(HAM, "HAM_0000000", ""), "no lesion_id in row 2"),
    "HAM10000: an image in two rows": (
        "ham",
        edit(HAM, "ISIC_0000001", "ISIC_0000000"),
        "names the image ISIC_0000000 in row 2 and in row 3",
    ),
    "HAM10000: few lesions of a class": (
        "ham",
        edit(HAM, ",vasc", ",nv", 6),
        "too few lesions of the class vascular lesion (1)",
    ),
    "HAM10000: an image is gone": (
        "ham",
        drop(f"{medical_trees.HAM}/HAM10000_images_part_2/*"),
        "1 of 49 images are not in",
    ),
    "HAM10000: a segmentation is gone": (
        "ham",
        drop(f"{medical_trees.HAM}/HAM10000_segmentations_lesion_tschandl/*"),
        "1 of 49 masks are not in",
    ),
    "HAM10000: a segmentation of another size": (
        "ham",
        resize(f"{medical_trees.HAM}/HAM10000_segmentations_lesion_tschandl/*"),
        "must have the size of its image",
    ),
    "CheXpert: no table": ("chexpert", drop(f"{CHEXPERT}/valid.csv"), "CheXpert's archive"),
    "CheXpert: a finding is gone": (
        "chexpert",
        edit(f"{CHEXPERT}/train.csv", "Edema", "Oedema"),
        "no column 'Edema'",
    ),
    "CheXpert: an unknown value": (
        "chexpert",
        edit(f"{CHEXPERT}/train.csv", "-1.0", "2.0"),
        "'2.0' in row",
    ),
    "CheXpert: an unknown view": (
        "chexpert",
        edit(f"{CHEXPERT}/train.csv", ",Frontal,", ",Front,"),
        "Frontal/Lateral = 'Front' in row 2",
    ),
    "CheXpert: a path without a patient": (
        "chexpert",
        edit(f"{CHEXPERT}/train.csv", "patient00001", "1"),
        "train/1/study1/view1_frontal.jpg' in row 2",
    ),
    "CheXpert: an image in two rows": (
        "chexpert",
        edit(f"{CHEXPERT}/train.csv", "view2_frontal", "view1_frontal"),
        "in row 2 and in row 3",
    ),
    "CheXpert: no frontal X-ray": (
        "chexpert",
        edit(f"{CHEXPERT}/valid.csv", ",Frontal,", ",Lateral,", 99),
        "has no frontal X-ray",
    ),
    "CheXpert: a finding is always uncertain": (
        "chexpert",
        lambda root: put(
            root / CHEXPERT / "train.csv",
            re.sub(r"[^,\n]*\n", "-1.0\n", (root / CHEXPERT / "train.csv").read_text()).replace(
                "-1.0\n", "Pleural Effusion\n", 1
            ),
        ),
        "Pleural Effusion is the same for all training images",
    ),
    "CheXpert: an image is gone": (
        "chexpert",
        drop(f"{CHEXPERT}/train/*/*/*"),
        "1 of 60 images are not in",
    ),
    "CheXlocalize: cut off": ("chexpert", cut(CHEXLOCALIZE), "is not JSON"),
    "CheXlocalize: the wrong images": (
        "chexpert",
        edit(CHEXLOCALIZE, "patient6454", "patient9999", 99),
        "no segmentation of an image",
    ),
    "CheXlocalize: no size": ("chexpert", edit(CHEXLOCALIZE, "size", "shape"), "has no size"),
    "CheXlocalize: another aspect ratio": (
        "chexpert",
        edit(CHEXLOCALIZE, "[40, 30]", "[30, 30]"),
        "another aspect ratio",
    ),
    "CheXlocalize: damaged run lengths": (
        "chexpert",
        edit(CHEXLOCALIZE, "b6:n", "b6:\u007f"),
        "neither polygons nor",
    ),
    "CheXlocalize: too few run lengths": (
        "chexpert",
        edit(CHEXLOCALIZE, "000n5", "0n5"),
        "the segmentation of",
    ),
    "ChestX-ray14: no table": ("nih", drop(f"{NIH}/Data_Entry_2017.csv"), "NIH Clinical Center"),
    "ChestX-ray14: no list": ("nih", drop(f"{NIH}/test_list.txt"), "test_list.txt does not exist"),
    "ChestX-ray14: no boxes": ("nih", drop(f"{NIH}/BBox*"), "BBox_List_2017.csv does not exist"),
    "ChestX-ray14: an unknown finding": (
        "nih",
        edit(f"{NIH}/Data_Entry_2017.csv", "Edema", "Oedema"),
        "'Consolidation|Oedema' in row 3",
    ),
    "ChestX-ray14: a finding and none": (
        "nih",
        edit(f"{NIH}/Data_Entry_2017.csv", "|Edema", "|No Finding"),
        "'Consolidation|No Finding' in row 3",
    ),
    "ChestX-ray14: an image in two rows": (
        "nih",
        edit(f"{NIH}/Data_Entry_2017.csv", "00000000_001.png", "00000000_000.png"),
        "in row 2 and in row 3",
    ),
    "ChestX-ray14: a list names an unknown image": (
        "nih",
        edit(f"{NIH}/test_list.txt", "00000012_000.png", "x.png"),
        "names images that",
    ),
    "ChestX-ray14: a list is empty": ("nih", replace_by(f"{NIH}/test_list.txt", ""), "is empty"),
    "ChestX-ray14: a list repeats an image": (
        "nih",
        edit(f"{NIH}/test_list.txt", "00000012_000.png", "00000012_001.png"),
        "names an image twice",
    ),
    "ChestX-ray14: an image in both lists": (
        "nih",
        edit(f"{NIH}/test_list.txt", "00000012_000.png", "00000000_000.png"),
        "images in common (1), the first is 00000000_000.png",
    ),
    "ChestX-ray14: a box of an unknown image": (
        "nih",
        edit(f"{NIH}/BBox_List_2017.csv", "00000012_000.png", "x.png"),
        "a box of 'x.png' in row 2",
    ),
    "ChestX-ray14: a box of an unknown finding": (
        "nih",
        edit(f"{NIH}/BBox_List_2017.csv", "Effusion", "Edema"),
        "Finding Label = 'Edema'",
    ),
    "ChestX-ray14: a box without height": (
        "nih",
        edit(f"{NIH}/BBox_List_2017.csv", "10.0,8.0", "10.0,0.0"),
        "is empty",
    ),
    "ChestX-ray14: a box outside the image": (
        "nih",
        edit(f"{NIH}/BBox_List_2017.csv", "4.0,6.0", "24.0,6.0"),
        "reaches to x = 34",
    ),
    "ChestX-ray14: boxes of training images only": (
        "nih",
        replace_by(
            f"{NIH}/BBox_List_2017.csv",
            "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000000_000.png,Mass,1,1,5,5,,,\n",
        ),
        "has no box of a selected finding",
    ),
    "ChestX-ray14: an image is gone": (
        "nih",
        drop(f"{NIH}/images_001/images/*"),
        "images are not in",
    ),
    "VinDr-CXR: no table": ("vindr", drop(VINDR), "from PhysioNet"),
    "VinDr-CXR: a column is gone": ("vindr", edit(VINDR, "x_max", "right"), "no column 'x_max'"),
    "VinDr-CXR: an unknown finding": (
        "vindr",
        edit(VINDR, "Edema", "Oedema"),
        "class_name = 'Oedema' in row",
    ),
    "VinDr-CXR: no image": ("vindr", edit(VINDR, "train0000", ""), "has no image_id in row 2"),
    "VinDr-CXR: a box without a finding": (
        "vindr",
        edit(VINDR, "No finding,,,,", "No finding,1,1,5,5"),
        "a box in row 2",
    ),
    "VinDr-CXR: a finding without a box": (
        "vindr",
        edit(VINDR, "4.0,6.0,14.0,14.0", ",,,"),
        "x_min = '' in row",
    ),
    "VinDr-CXR: a box of no width": (
        "vindr",
        edit(VINDR, "4.0,6.0,14.0,14.0", "4.0,6.0,4.0,14.0"),
        "is empty",
    ),
    "VinDr-CXR: a box outside the image": (
        "vindr",
        edit(VINDR, "4.0,6.0,14.0,14.0", "4.0,6.0,14.0,99.0"),
        "y = 99",
    ),
    "VinDr-CXR: an image in both parts": (
        "vindr",
        edit(VINDR, "train0000", "test0000"),
        "images in common (1), the first is test0000",
    ),
    "VinDr-CXR: an image is gone": (
        "vindr",
        drop(f"{medical_trees.VINDR}/train/*"),
        "1 of 55 images are not in",
    ),
    "no validation": ("folder", drop("my_data/val"), "no images in val/"),
    "no test": (
        "folder",
        lambda r: [drop("my_data/biased")(r), drop("my_data/deceiving")(r)],
        "no test",
    ),
    "a class is new in a test": ("folder", drop("my_data/train/dog"), "but not in train/"),
    "one class only": (
        "folder",
        lambda r: [shutil.rmtree(p) for p in (r / "my_data").glob("*/dog")],
        "one class only",
    ),
    "an image lies elsewhere": ("folder", loose, "stray.png is 2 folders deep"),
    "an image has no mask": (
        "folder",
        drop("my_data/masks/train/cat/lawn/2.png"),
        "lacks the masks of 1",
    ),
    "an image is not in the table": (
        "folder",
        edit("my_data/metadata.csv", "train/cat/lawn/2.png", "x"),
        "does not name 1",
    ),
    "the table names an image that does not exist": (
        "folder",
        edit(
            "my_data/metadata.csv",
            "file,environment,patient\n",
            "file,environment,patient\nx.png,a,b\n",
        ),
        "names 1 of 57 images that do not exist, the first is x.png",
    ),
    "the table names an image twice": (
        "folder",
        edit("my_data/metadata.csv", "train/cat/lawn/2.png", "train/cat/lawn/1.png"),
        "names train/cat/lawn/1.png more than once, in row 9 and in row 10",
    ),
    "the table says nothing": (
        "folder",
        edit("my_data/metadata.csv", "environment,patient", "environments,patients"),
        "neither 'environment' nor 'patient', its columns are 'file', 'environments', 'patients'",
    ),
    "the table's columns are not apart": (
        "folder",
        edit("my_data/metadata.csv", "file,environment,patient", "file;environment;patient"),
        "expected to be separated by ','",
    ),
    "an image has no patient": ("folder", no_patient, "has no patient for 1 of 56 images"),
    "no images": (
        "folder",
        lambda r: [shutil.rmtree(p) for p in (r / "my_data").iterdir() if p.is_dir()],
        "holds no images",
    ),
}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Path, Mapping[str, Any]]]:
    made: dict[str, tuple[Path, Mapping[str, Any]]] = {}

    def get(which: str) -> tuple[Path, Mapping[str, Any]]:
        if which not in made:
            root = tmp_path_factory.mktemp(which)
            made[which] = root, MAKERS[which][1](root)
        return made[which]

    return get


@pytest.mark.parametrize("case", list(CASES))
def test_damage_is_a_user_error(
    case: str,
    whole: Callable[[str], tuple[Path, Mapping[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SHORTCUTBED_CACHE", raising=False)
    which, damage, words = CASES[case]
    root, options = whole(which)
    shutil.copytree(root, tmp_path / "data", copy_function=os.link)
    damage(tmp_path / "data")
    with pytest.raises(UserError) as error:
        DATASETS.get(MAKERS[which][0])(tmp_path / "data", **options).load(0)
    text = str(error.value)
    assert words in text
    assert text.endswith(".") and "\n" not in text and 40 < len(text) < 600


def test_undamaged_trees_load(
    whole: Callable[[str], tuple[Path, Mapping[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without damage, the same trees load."""
    monkeypatch.delenv("SHORTCUTBED_CACHE", raising=False)
    for which in ("nlm", "folder", "dogs"):
        root, options = whole(which)
        assert DATASETS.get(MAKERS[which][0])(root, **options).load(0).splits
