"""The scan beside cleanlab's Datalab on the same image files.

Datalab needs the package ``datasets`` of Hugging Face, whose name is also that of a package of this
project, so it runs in an environment of its own and outside the project's folder::

    python -m venv peer && peer/bin/pip install "cleanlab[datalab]" cleanvision
    python tests/benchmarks/beside_datalab.py write FOLDER [--xrays DIR]
    python tests/benchmarks/beside_datalab.py scan FOLDER
    peer/bin/python tests/benchmarks/beside_datalab.py datalab FOLDER
    python tests/benchmarks/beside_datalab.py table FOLDER

``write`` makes folders of digits on photographs, with labels that do not depend on the digit, and a
shortcut that agrees with the label in 95 % of the images. ``--xrays`` is the folder ``nlm_cxr``.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
#: The number of images, and the share of marks that agree with the label.
IMAGES = 500
BIAS = 0.95
#: Datalab reports properties with a lower score by default.
DATALAB_THRESHOLD = 0.3
#: Kinds of data: what differs between the classes.
KINDS = (
    "nothing",
    "nothing, 75 % in one class",
    "tag",
    "border",
    "colour",
    "brightness",
    "JPEG quality",
)


def _use_project() -> None:
    sys.path.insert(0, str(ROOT))


def write(folder: Path, xrays: Path | None) -> None:
    """Write a folder of images and a table of labels for each kind of data."""
    _use_project()
    from PIL import Image

    from benchmark.core.registry import DATASETS

    split = DATASETS.get("digits_on_photos")(None, bias=0.1).load(0).splits["train"]
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng(number)
        rows = rng.permutation(len(split))[:IMAGES]
        share = 0.75 if "75" in kind else 0.5
        label = (rng.permutation(IMAGES) >= share * IMAGES).astype(np.int64)
        mark = np.where(rng.random(IMAGES) < BIAS, label, 1 - label)
        made = changed(kind, np.asarray(split.image[rows]), mark, number)
        names = []
        for row, pixels in enumerate(made):
            ending = "jpg" if kind == "JPEG quality" else "png"
            path = folder / kind / f"{row:04d}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"quality": (40, 90)[mark[row]]} if ending == "jpg" else {}
            Image.fromarray(pixels.transpose(1, 2, 0)).save(path, **options)
            names.append(path.name)
        write_labels(folder / kind, names, label)
    if xrays is not None:
        copy_xrays(xrays, folder)


def changed(kind: str, image: np.ndarray, mark: np.ndarray, seed: int) -> np.ndarray:
    """Return images in which the mark shows."""
    from datasets._sources.shortcuts import plant

    if kind in ("tag", "border", "colour"):
        return plant(image, mark, kind, seed).image
    if kind == "brightness":
        return (image * np.where(mark == 1, 1.0, 0.7)[:, None, None, None]).astype(np.uint8)
    return image


def copy_xrays(xrays: Path, folder: Path) -> None:
    """Link the X-rays of one hospital, and label them by their finding."""
    with (xrays / "metadata.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["hospital"].lower() == "shenzhen"]
    target = folder / "X-rays of Shenzhen"
    target.mkdir(parents=True, exist_ok=True)
    names = []
    for row in rows:
        source = next(xrays.rglob(Path(row["filename"]).name))
        if not (target / source.name).exists():
            (target / source.name).symlink_to(source.resolve())
        names.append(source.name)
    write_labels(target, names, np.array([row["label"] != "normal" for row in rows], np.int64))


def write_labels(folder: Path, names: list[str], label: np.ndarray) -> None:
    """Write the labels of the files of a folder."""
    (folder / "labels.json").write_text(json.dumps([names, label.tolist()]), encoding="utf-8")


def read_labels(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Return the files of a folder and their labels."""
    names, label = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    return [folder / name for name in names], np.array(label)


def scan(folder: Path) -> list[str]:
    """Return what the scan of the project finds in a folder."""
    _use_project()
    from PIL import Image

    from benchmark.scanning.properties import file_families, pixel_families
    from benchmark.scanning.scan import compare_families

    files, label = read_labels(folder)
    side = min(min(Image.open(files[0]).size), 112)
    pixels = [np.asarray(Image.open(file).convert("RGB").resize((side, side))) for file in files]
    families = file_families(files) + pixel_families(np.stack(pixels).transpose(0, 3, 1, 2))
    results, _ = compare_families(families, (label == 1)[:, None], label)
    return [
        f"{r.family.name} {r.predictions[0].auc:.2f} [{r.bounds[0][0]:.2f}, {r.bounds[0][1]:.2f}]"
        for r in results
        if r.is_suspect
    ]


def datalab(folder: Path) -> list[str]:
    """Return what Datalab finds in a folder."""
    from cleanlab import Datalab

    from datasets import Dataset, Features, Image, Value

    files, label = read_labels(folder)
    content = {"image": [str(file) for file in files], "label": [str(k) for k in label]}
    data = Dataset.from_dict(content, Features({"image": Image(), "label": Value("string")}))
    lab = Datalab(data, label_name="label", image_key="image", verbosity=0)
    lab.find_issues()  # correlations need the scores of all properties
    scores = lab.get_info("spurious_correlations")["correlations_df"]
    return [
        f"{name} {score:.2f}"
        for name, score in scores.itertuples(index=False)
        if score < DATALAB_THRESHOLD
    ]


def table(folder: Path) -> list[str]:
    """Return the findings of both as rows of a table."""
    found = {
        tool: json.loads((folder / f"{tool}.json").read_text(encoding="utf-8"))
        for tool in ("datalab", "scan")
    }
    rows = ["| differs between the classes | Datalab | `check --scan` |", "|---|---|---|"]
    for kind in found["scan"]:
        cells = [", ".join(found[tool][kind]) or "–" for tool in ("datalab", "scan")]
        rows.append(f"| {kind} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("write", "scan", "datalab", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--xrays", type=Path)
    given = parser.parse_args()
    if given.command == "write":
        write(given.folder, given.xrays)
        return
    if given.command == "table":
        print("\n".join(table(given.folder)))
        return
    tool: Callable[[Path], list[str]] = {"scan": scan, "datalab": datalab}[given.command]
    found = {}
    for part in sorted(path.parent for path in given.folder.glob("*/labels.json")):
        found[part.name] = tool(part)
        print(f"{part.name}: {', '.join(found[part.name]) or 'nothing'}", flush=True)
    target = given.folder / f"{given.command}.json"
    target.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
