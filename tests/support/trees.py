"""Small data sets in the layouts of the published ones; no two images are equal."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets import coco_on_places, spawrious
from datasets._sources import cub as _cub
from datasets._sources import places as _places
from datasets.dogs_with_ties import BREEDS


def write_image(path: Path, seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    """Write an image of random blocks of colour, of this width and height, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    shape = (4, 5, 3) if mode == "RGB" else (4, 5)
    small = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def mask(path: Path, seed: int, size: tuple[int, int] = (40, 30), value: int = 255) -> Path:
    """A mask: a rectangle somewhere in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(size[::-1], np.uint8)
    top, left = np.random.default_rng(seed).integers(1, 8, 2)
    array[top : top + size[1] // 2, left : left + size[0] // 2] = value
    Image.fromarray(array).save(path)
    return path


def table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ","
) -> Path:
    """A table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def waterbirds(root: Path) -> Mapping[str, Any]:
    """Write the release of group_DRO with the counts in ``WATERBIRDS``, and CUB's segmentations."""
    species = ("001.Black_footed_Albatross", "002.Boat_tailed_Grackle")
    rows, number = [], 0
    for split, counts in enumerate(WATERBIRDS):
        for (y, place), count in counts.items():
            for _ in range(count):
                number += 1
                name = f"{species[1 - y]}/{species[1 - y][4:]}_{number:04d}.jpg"
                rows.append((number, name, y, split, place, f"/o/ocean/{number:08d}.jpg"))
                write_image(root / "waterbird_complete95_forest2water2" / name, number)
                mask(root / "CUB_200_2011/segmentations" / Path(name).with_suffix(".png"), number)
    header = ("img_id", "img_filename", "y", "split", "place", "place_filename")
    table(root / "waterbird_complete95_forest2water2/metadata.csv", header, rows)
    return {"side": 16}


WATERBIRDS = (
    {(0, 0): 34, (0, 1): 12, (1, 0): 4, (1, 1): 10},
    {(0, 0): 6, (0, 1): 6, (1, 0): 3, (1, 1): 3},
    {(0, 0): 4, (0, 1): 4, (1, 0): 3, (1, 1): 3},
)


def cub_and_places(root: Path, birds: int = 40) -> Mapping[str, Any]:
    """CUB-200-2011 with segmentations, and the places that Waterbirds is made with."""
    species = (
        "001.Black_footed_Albatross",
        "002.Indigo_Bunting",
        "003.Baltimore_Oriole",
        "004.Mallard",
    )
    names = [f"{species[i % 4]}/bird_{i:04d}.jpg" for i in range(birds)]
    cub = root / "CUB_200_2011"
    for i, name in enumerate(names):
        write_image(cub / "images" / name, 1000 + i)
        mask(cub / "segmentations" / Path(name).with_suffix(".png"), i)
    (cub / "images.txt").write_text("".join(f"{i + 1} {name}\n" for i, name in enumerate(names)))
    (cub / "train_test_split.txt").write_text(
        "".join(f"{i + 1} {int(i % 8 < 5)}\n" for i in range(birds))
    )
    places(root, dict.fromkeys(sum(_cub.CATEGORIES.values(), ()), birds))
    return {"setting": "tea", "side": 16}


def places(root: Path, counts: Mapping[str, int], folder: str = "data_256") -> None:
    """Photographs of places, as Places365's archives are unpacked."""
    assert folder in _places.FOLDERS
    for number, (place, count) in enumerate(counts.items()):
        for i in range(count):
            write_image(
                root / folder / place[0] / place / f"{i:08d}.jpg",
                10_000 * (number + 1) + i,
                (32, 32),
            )


def celeba(root: Path, ending: str = ".txt") -> Mapping[str, Any]:
    """CelebA with 67 faces; attributes and partition as published, or as Kaggle has them."""
    groups = [
        (part, *group)
        for part, counts in CELEBA.items()
        for group, n in counts.items()
        for _ in range(n)
    ]
    order = np.random.default_rng(0).permutation(len(groups))
    rows = [
        (f"{i + 1:06d}.jpg", 1, groups[g][1], groups[g][2], groups[g][0])
        for i, g in enumerate(order)
    ]
    for i, row in enumerate(rows):
        write_image(root / "celeba/img_align_celeba" / str(row[0]), 2000 + i)
    names = ("Smiling", "Blond_Hair", "Male")
    attributes, partition = (
        root / "celeba" / f"list_{what}{ending}" for what in ("attr_celeba", "eval_partition")
    )
    if ending == ".csv":
        table(attributes, ("image_id", *names), [row[:-1] for row in rows])
        table(partition, ("image_id", "partition"), [(row[0], row[-1]) for row in rows])
    else:
        lines = [" ".join(map(str, row[:-1])) for row in rows]
        attributes.write_text("\n".join([str(len(rows)), " ".join(names), *lines]) + "\n")
        partition.write_text("".join(f"{row[0]} {row[-1]}\n" for row in rows))
    return {"side": 16}


#: Part -> (blond, male) -> images; what the two environments of eX2L need, and a little more.
CELEBA = {
    0: {(-1, -1): 18, (-1, 1): 17, (1, -1): 6, (1, 1): 2},
    1: {(-1, -1): 4, (-1, 1): 4, (1, -1): 2, (1, 1): 2},
    2: {(-1, -1): 4, (-1, 1): 4, (1, -1): 2, (1, 1): 2},
}


def coco_and_places(root: Path) -> Mapping[str, Any]:
    """Write annotations and images of COCO, and the places of Ahmed et al.

    One object is too small and one is a crowd.
    """
    images, notes, size, per_class = [], [], (150, 120), 10
    categories = [
        {"id": 5 + 2 * c, "name": name}
        for c, name in enumerate(("person", *coco_on_places.PLACE_OF))
    ]
    for c, category in enumerate(categories[1:]):
        for i in range(per_class + 2):
            number = 100 * (c + 1) + i
            name = f"{number:012d}.jpg"
            images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
            left, top = 5 + i, 5 + c
            box = [left, top, left + 110, top, left + 110, top + 100, left, top + 100]
            note = {"id": number, "image_id": number, "category_id": category["id"], "iscrowd": 0}
            if i == 0:  # too small
                notes.append({**note, "area": 25.0, "segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]]})
            elif i == 1:  # a crowd
                runs = {"counts": [0, size[0] * size[1]], "size": [120, 150]}
                notes.append({**note, "iscrowd": 1, "area": 18000.0, "segmentation": runs})
            else:
                write_image(root / "coco/train2017" / name, 30_000 + number, size)
                notes.append({**note, "area": 11000.0, "segmentation": [box]})
                notes.append(
                    {
                        **note,
                        "id": number + 5000,
                        "area": 12.0,
                        "segmentation": [[0, 0, 4, 0, 4, 3, 0, 3]],
                    }
                )
    path = root / "coco/annotations/instances_train2017.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    names = (*coco_on_places.PLACE_OF.values(), *coco_on_places.OTHERS, *coco_on_places.UNSEEN)
    places(root, {name: 3 if name in coco_on_places.UNSEEN else 21 for name in names})
    return {"per_class": per_class, "side": 16, "bias": 0.8}


def dogs(root: Path) -> Mapping[str, Any]:
    """Write Stanford Dogs with ten training and four test images per breed, neck marks and ties."""
    from scipy.io import savemat

    base, marks = root / "stanford_dogs", []
    for part, count in (("train", 10), ("test", 4)):
        names = [
            f"{breed}/{breed[:9]}_{part}{i}.jpg" for breed in BREEDS.values() for i in range(count)
        ]
        names_and_others = [*names, "n02085620-Chihuahua/n02085620_1.jpg"]
        cells = np.array([[np.array(name)] for name in names_and_others], dtype=object)
        (base / "lists").mkdir(parents=True, exist_ok=True)
        savemat(base / f"lists/{part}_list.mat", {"file_list": cells})
        for i, name in enumerate(names):
            write_image(base / "Images" / name, 40_000 + 100 * (part == "test") + i, (60, 48))
            marks.append((name, 20, 16, 40, 22))
    table(root / "dogs_with_ties/necks.csv", ("filename", "left", "top", "right", "bottom"), marks)
    for name, colour in (("red_necktie", (200, 0, 0, 255)), ("purple_bow_tie", (128, 0, 128, 255))):
        tie = np.zeros((24, 16, 4), np.uint8)
        tie[2:-2, 2:-2] = colour
        Image.fromarray(tie).save(root / f"dogs_with_ties/{name}.png")
    return {"side": 32}


def spawrious_tree(
    root: Path, challenge: str = "o2o_easy", per_folder: int = 12
) -> Mapping[str, Any]:
    """All folders of Spawrious, with twelve images each."""
    number = 50_000
    for folder in ("0", "1"):
        for place in spawrious.PLACES:
            for breed in spawrious.BREEDS:
                for i in range(per_folder):
                    number += 1
                    write_image(
                        root / "spawrious224" / folder / place / breed / f"{breed}_{i}.png",
                        number,
                        (24, 24),
                    )
    return {"challenge": challenge, "per_breed": 10, "side": 16}


def nlm(root: Path, per_group: int = 12) -> Mapping[str, Any]:
    """Write nlm_cxr with equally many X-rays in each of the four groups, one group in 16 bits."""
    rows, number = [], 60_000
    for label in ("normal", "tuberculosis"):
        for hospital in ("montgomery", "shenzhen"):
            for i in range(per_group):
                number += 1
                name = f"{hospital[:2]}_{label}_{i}.png"
                rows.append((name, label, hospital))
                write_image(root / "nlm_cxr/images" / name, number, mode="L")
                mask(root / "nlm_cxr/masks" / name, number, value=1 if i % 2 else 255)
    deep = root / "nlm_cxr/images" / rows[0][0]
    Image.fromarray(np.asarray(Image.open(deep)).astype(np.uint16) * 16).save(deep)
    table(root / "nlm_cxr/metadata.csv", ("filename", "label", "hospital"), rows)
    return {"side": 16}


def listed(root: Path, more: bool = True) -> Mapping[str, Any]:
    """Write images of cats and dogs, of both or of neither, listed in a table."""
    rows, number, base = [], 90_000, root / "my_table"
    for split, count in (("train", 12), ("val", 8), ("test", 8)):
        for i in range(count):
            number += 1
            name = f"pictures/{split}{i}.png"
            write_image(base / name, number)
            if more:
                mask(base / "masks" / name, number)
            known = (
                (("sofa", "lawn")[i // 4 % 2], f"day{i % 3}", f"{split}-patient{i // 2}")
                if more
                else ()
            )
            rows.append((name, split, *known, i % 2, i // 2 % 2))
    columns = (
        "file",
        "split",
        *(("confounder", "environment", "patient") if more else ()),
        "cat",
        "dog",
    )
    table(base / "labels.csv", columns, rows)
    return {"side": 16}


def folder(
    root: Path, masks: bool = True, confounders: bool = True, more: bool = True
) -> Mapping[str, Any]:
    """Write images of a user with optional annotations."""
    rows, number, base = [], 70_000, root / "my_data"
    for split, count in (("train", 6), ("val", 2), ("biased", 3), ("deceiving", 3)):
        for label in ("cat", "dog"):
            for place in ("sofa", "lawn") if confounders else ("",):
                for i in range(count):
                    number += 1
                    name = "/".join(part for part in (split, label, place, f"{i}.png") if part)
                    write_image(base / name, number)
                    rows.append((name, f"day{i % 2}", f"{split}-patient{number // 2}"))
                    if masks:
                        mask(base / "masks" / name, number)
    if more:
        table(base / "metadata.csv", ("file", "environment", "patient"), rows)
        (base / "SOURCE.txt").write_text("Our cats and dogs\nCC0\n")
    return {"side": 16}
