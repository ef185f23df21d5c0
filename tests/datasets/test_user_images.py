"""Users' own images: nothing is lost or confused, and `check` counts files left out."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.core.dataset import UNKNOWN, GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from benchmark.data import main
from tests.support.dataset_equality import same
from tests.support.messages import each_mentions, mentions

Split = tuple[str, Sequence[str]]


def save(path: Path, seed: int, size: tuple[int, int] = (12, 10), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(array).save(path, **options)
    return path


def tree(root: Path, count: int = 2, groups: Sequence[str] = ("x", "y")) -> Path:
    """Make train, val and test of classes a and b; all images differ."""
    base, seed = root / "my_data", 0
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            for group in groups:
                for i in range(count):
                    seed += 1
                    save(base / split / label / group / f"{i}.png", seed)
    return base


def add_masks(base: Path) -> None:
    """Make a mask for every image."""
    images = [path for path in base.rglob("*.png") if "masks" not in path.parts]
    for path in images:
        mask = base / "masks" / path.relative_to(base)
        mask.parent.mkdir(parents=True, exist_ok=True)
        array = np.zeros((10, 12), np.uint8)
        array[2:7, 3:9] = 255
        Image.fromarray(array).save(mask)


HEADER = "file,split,confounder,mass,effusion"


def table(root: Path, header: str = HEADER, rows: Callable[[list[str]], list[str]] = list) -> Path:
    """Make a table with both values of both labels for both confounders in each split."""
    base, lines = root / "my_table", []
    for number in range(24):
        save(base / f"p/{number}.png", 500 + number)
        split = ("train", "val", "test")[number // 8]
        bits = f"{number // 2 % 2},{number // 4 % 2}"
        lines.append(f"p/{number}.png,{split},{'AB'[number % 2]},{bits}")
    (base / "labels.csv").write_text("\n".join([header, *rows(lines)]) + "\n", encoding="utf-8")
    return base


def folder_data(root: Path, **options: Any) -> GroupedDataset:
    return DATASETS.get("folder")(root, side=8, **options).load(0)


def listed_data(root: Path, **options: Any) -> GroupedDataset:
    return DATASETS.get("listed")(root, side=8, **options).load(0)


class Check:
    """The exit code and the output of `benchmark.data check`."""

    def __init__(self, capsys: pytest.CaptureFixture[str], root: Path, name: str) -> None:
        self.code = main(["check", f"{name}:side=8", "--data-dir", str(root)])
        captured = capsys.readouterr()
        self.out, self.error = captured.out, captured.err
        lines = [line.strip() for line in self.out.splitlines()]
        self.problems = [line[9:] for line in lines if line.startswith("problem: ")]
        self.notes = [line[6:] for line in lines if line.startswith("note: ")]
        assert ("no problem found" in self.out) == (self.code == 0 and not self.problems)
        assert (self.code == 1) == bool(self.problems) and "Traceback" not in self.error


@pytest.fixture
def check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Check]:
    monkeypatch.setenv("SHORTCUTBED_CACHE", "")
    return lambda name="folder": Check(capsys, tmp_path, name)


def test_valid_data(check: Callable[..., Check], tmp_path: Path) -> None:
    add_masks(tree(tmp_path))
    table(tmp_path)
    for name in ("folder", "listed"):
        found = check(name)
        assert (found.code, found.problems, found.notes) == (0, [], [])


# --- links ---


def link_group(base: Path, away: Path) -> None:
    shutil.move(base / "train/b/y", away / "y")
    (base / "train/b/y").symlink_to(away / "y")


def link_split(base: Path, away: Path) -> None:
    shutil.move(base / "val", away / "val")
    (base / "val").symlink_to(os.path.relpath(away / "val", base))


def link_root(base: Path, away: Path) -> None:
    shutil.move(base, away / "tree")
    base.symlink_to(away / "tree")


def link_files(base: Path, away: Path) -> None:
    for number, path in enumerate(sorted((base / "test").rglob("*.png"))):
        shutil.move(path, away / f"{number}.png")
        path.symlink_to(away / f"{number}.png")


def chain_of_links(base: Path, away: Path) -> None:
    link_group(base, away)
    (away / "link").symlink_to(away / "y")
    (base / "train/b/y").unlink()
    (base / "train/b/y").symlink_to(away / "link")


def link_masks(base: Path, away: Path) -> None:
    shutil.move(base / "masks", away / "m")
    (base / "masks").symlink_to(away / "m")


@pytest.mark.parametrize(
    "link",
    [link_group, link_split, link_root, link_files, chain_of_links, link_masks],
)
def test_links_are_followed(
    link: Callable[[Path, Path], None], check: Callable[..., Check], tmp_path: Path
) -> None:
    base = tree(tmp_path)
    add_masks(base)
    whole = folder_data(tmp_path)
    (tmp_path / "away").mkdir()
    link(base, tmp_path / "away")
    assert same(folder_data(tmp_path), whole)
    found = check()
    assert (found.code, found.notes) == (0, [])


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("train/a/x/0.png", "gone.png", "is a link to 'gone.png', which cannot be followed"),
        ("train/b/z", "/gone/away", "is a link to '/gone/away', which cannot be followed"),
        ("train/b/z", "z", "is a link to 'z', which cannot be followed"),
        ("train/b/z", "..", "a folder that contains it"),
        ("train/b/z", "../../..", "a folder that contains it"),
        ("train/b/z", "/", "a folder that contains it"),
        ("other", ".", "a folder that contains it"),
    ],
)
def test_broken_and_circular_links_are_refused(
    name: str, target: str, words: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    link = tree(tmp_path) / name
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    found = check()
    assert found.code == 2 and words in found.error and str(link) in found.error


def test_a_folder_that_cannot_be_listed(
    monkeypatch: pytest.MonkeyPatch, check: Callable[..., Check], tmp_path: Path
) -> None:
    """Its images must not be lost. Root may list any folder, so the refusal is simulated."""
    closed, scandir = tree(tmp_path) / "train/b/y", os.scandir

    def refusing(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = check()
    assert found.code == 2 and f"{closed} cannot be listed (Permission denied)" in found.error


def test_deeply_nested_folders_are_refused(check: Callable[..., Check], tmp_path: Path) -> None:
    (tree(tmp_path) / "/".join(["train", *["deep"] * 600])).mkdir(parents=True)
    found = check()
    assert found.code == 2 and "more than 32 folders deep" in found.error


# --- files left out ---


@pytest.mark.parametrize(
    "ending",
    ["PNG", "Jpg", "JPEG", "jpe", "jfif", "bmp", "dib", "tif", "TIFF", "webp", "gif", "ppm", "jp2"],
)
def test_supported_endings(ending: str, tmp_path: Path) -> None:
    base = tree(tmp_path)
    save(base / f"train/a/x/new.{ending}", 999)
    assert len(folder_data(tmp_path).splits["train"]) == 9


def test_files_left_out_are_counted(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    (base / "train/a/notes.txt").write_text("BM is how these begin")
    (base / "train/a/Thumbs.db").write_text("x")
    (base / "README.txt").write_text("x")
    (base / ".DS_Store").write_text("x")
    save(base / "train/b/x/._0.png", 7)
    save(base / ".thumbnails/train/b/x/0.png", 8)
    found = check()
    assert found.code == 0
    assert each_mentions(
        found.notes,
        ["left out", "hidden", "3", "2", "png", "1", "DS_Store"],
        ["left out", "not images", "3", "txt", "2", "db", "1", "README.txt"],
    )


@pytest.mark.parametrize("ending", ["heic", "HEIF", "dng", "nii.gz", "npy"])
def test_unsupported_formats_are_problems(
    ending: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    (tree(tmp_path) / f"train/a/x/new.{ending}").write_bytes(b"x")
    (problem,) = check().problems
    assert mentions(problem, "left out", "unsupported format", "1", f"train/a/x/new.{ending}")
    assert mentions(problem, "convert")


@pytest.mark.parametrize("name", ["new", "new.jpg_large", "new.png.bak", "new.dat"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "DICOM"])
def test_images_with_a_wrong_ending_are_problems(
    name: str, kind: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    path = tree(tmp_path) / "train/a/x" / name
    if kind == "DICOM":
        path.write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 9)
    else:
        save(path, 999, format=kind)
    found = check()
    (problem,) = found.problems
    assert mentions(problem, "left out", "ending", "1", f"train/a/x/{name}") and not found.notes


def test_folders_without_images_are_problems(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    (base / "train/b/z").mkdir()
    (base / "train/c/x").mkdir(parents=True)
    (problem,) = check().problems
    assert mentions(problem, "2", "without images", "train/b/z", "train/c")


def test_special_files_are_problems(
    check: Callable[..., Check], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tree(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(base)  # the path of a socket must be short
        server.bind("s.png")
        os.mkfifo(base / "train/a/x/pipe.png")
        (problem,) = check().problems
    assert mentions(problem, "left out", "not regular files", "2", "png", "2", "s.png")
    table(tmp_path, rows=lambda lines: [lines[0].replace("p/0.png", "p/pipe.png"), *lines[1:]])
    os.mkfifo(tmp_path / "my_table/p/pipe.png")
    found = check("listed")
    assert found.code == 2 and "is a folder or a device" in found.error


def test_unused_images_and_columns_are_noted(check: Callable[..., Check], tmp_path: Path) -> None:
    base = table(tmp_path)
    save(base / "p/more/extra.jpg", 999)
    found = check("listed")
    assert each_mentions(found.notes, ["left out", "1 image", "labels.csv", "p/more/extra.jpg"])
    (base / "p/more/gone.png").symlink_to("nowhere.png")
    found = check("listed")
    assert found.code == 0 and "were not counted: " in found.notes[0]
    source = DATASETS.get("listed")(tmp_path, side=8, labels="mass")
    source.load(0)
    assert "left out: columns of labels.csv: effusion." in source.notes()
    with pytest.raises(UserError, match="names 'mass' more than once"):
        listed_data(tmp_path, labels="mass;effusion; mass")
    base = tree(tmp_path)
    names = [p.relative_to(base).as_posix() for p in sorted(base.rglob("*.png"))]
    rows = [f"{name},p{i},{i % 90}" for i, name in enumerate(names)]
    (base / "metadata.csv").write_text("\n".join(["file,patient,age", *rows]) + "\n")
    assert each_mentions(check().notes, ["left out", "columns of metadata.csv", "age"])


# --- names ---


def test_names_of_folders_are_normalised(check: Callable[..., Check], tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    base = tree(tmp_path, groups=(composed, "y"))
    add_masks(base)
    whole = folder_data(tmp_path)
    for root in (base, base / "masks"):
        (root / "train/b" / composed).rename(root / "train/b" / f"{apart} ")
        (root / "train/a").rename(root / "train/ a")
        (root / "val").rename(root / "val ")
    changed = folder_data(tmp_path)
    assert changed.info == whole.info and changed.info.confounder_names == ("café", "y")
    for name, split in whole.splits.items():  # the order is that of the names on the disk
        other = changed.splits[name]
        rows = lambda s: sorted(  # noqa: E731
            (s.image[i].tobytes(), s.label[i], s.confounder[i]) for i in range(len(s))
        )
        assert rows(split) == rows(other)
    assert check().code == 0


def test_cells_of_a_table_are_normalised(check: Callable[..., Check], tmp_path: Path) -> None:
    table(tmp_path)
    whole = listed_data(tmp_path)

    def padded(lines: list[str]) -> list[str]:
        return [",".join(f" {cell}\u00a0" for cell in line.split(",")) for line in lines]

    table(tmp_path, header=", ".join(HEADER.split(",")) + " ", rows=padded)
    assert same(listed_data(tmp_path), whole) and check("listed").code == 0


def test_a_file_name_with_decomposed_accents(tmp_path: Path) -> None:
    base = table(tmp_path, rows=lambda lines: [x.replace("p/3.png", "p/\u00e9.png") for x in lines])
    whole = [*listed_data_after(base, "p/\u00e9.png", tmp_path)]
    (base / "p/\u00e9.png").rename(base / "p/e\u0301.png")
    assert [*listed_data_after(base, None, tmp_path)] == whole


def listed_data_after(base: Path, name: str | None, root: Path) -> list[bytes]:
    if name:
        (base / "p/3.png").rename(base / name)
    return [split.image.tobytes() for split in listed_data(root).splits.values()]


@pytest.mark.parametrize(
    "spelling", ["Train", "training", "TRAIN", "validation", "Valid", "dev", "Test"]
)
def test_misspelled_splits_are_refused(
    spelling: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    base = tree(tmp_path)
    save(base / spelling / "a/x/0.png", 999)
    found = check()
    assert found.code == 2 and f"the split '{spelling}', which would become a test" in found.error
    table(tmp_path, rows=lambda lines: [lines[0].replace("train", spelling), *lines[1:]])
    found = check("listed")
    assert found.code == 2 and f"the split '{spelling}', which would become a test" in found.error


def test_a_misspelled_and_a_missing_val(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    (base / "val").rename(base / "validation")
    assert "rename it to val" in check().error
    shutil.rmtree(base / "validation")
    assert "no images in val/" in check().error


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "NA", "null", "<NA>", "n/a"])
def test_names_of_missing_values_are_problems(
    name: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    """They remain groups of their own, and `check` reports them."""
    sentence = f"the confounder '{name}' of 12 images usually stands for a missing value"
    if "/" not in name:
        tree(tmp_path, groups=("x", name))
        assert folder_data(tmp_path).info.confounder_names == tuple(sorted(("x", name)))
        (problem,) = check().problems
        assert problem.startswith(sentence)
    table(tmp_path, rows=lambda lines: [line.replace(",A,", f",{name},") for line in lines])
    assert set(listed_data(tmp_path).info.confounder_names) == {"B", name}
    (problem,) = check("listed").problems
    assert problem.startswith(sentence)


@pytest.mark.parametrize(
    "pair", [("1", "1.0"), ("1", "01"), ("True", "TRUE"), ("x", "X"), ("a b", "a  b")]
)
def test_similar_names_are_counted_as_two_and_reported(
    pair: tuple[str, str], check: Callable[..., Check], tmp_path: Path
) -> None:
    tree(tmp_path, groups=pair)
    (problem,) = check().problems
    assert problem.startswith("the confounders ") and "differ in spelling only" in problem
    assert all(repr(name) in problem for name in pair)
    table(tmp_path, f"file,split,confounder,{pair[0]},{pair[1]}")
    (problem,) = check("listed").problems
    assert problem.startswith("the labels ") and all(repr(name) in problem for name in pair)


def test_missing_and_similar_patients(check: Callable[..., Check], tmp_path: Path) -> None:
    people = ["7", "7.0", "nan"]

    def rows(lines: list[str]) -> list[str]:
        return [f"{x},{people[i % 3] if i < 3 else f'p{i}'}" for i, x in enumerate(lines)]

    table(tmp_path, f"{HEADER},patient", rows)
    one, other = check("listed").problems
    assert one.startswith("the patient 'nan' of 1 image usually") and "'7' and '7.0'" in other


@pytest.mark.parametrize("place", ["train/a/", "train/", ""])
def test_names_that_are_not_utf8(place: str, check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    old = {"train/a/": "train/a/x", "train/": "train/b", "": "test"}[place]
    os.rename(os.fsencode(base / old), os.fsencode(base / place) + b"/caf\xe9")
    found = check()
    assert found.code == 2 and r"'caf\udce9' is not UTF-8" in found.error
    with pytest.raises(UserError, match="is not UTF-8"):  # planning asks this, before any run
        DATASETS.get("folder")(tmp_path).check()


def test_a_file_name_that_is_not_utf8(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    os.rename(base / "train/a/x/0.png", os.fsencode(base / "train/a/x") + b"/\xff.png")
    assert r"'\udcff.png' is not UTF-8" in check().error


def test_names_with_control_characters(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    (base / "train/a/x").rename(base / "train/a/x\x1b[31m")
    assert "holds a control character" in check().error
    for cell in ('"A\nB"', "A\x07B"):
        table(tmp_path, rows=lambda lines, c=cell: [lines[0].replace(",A,", f",{c},"), *lines[1:]])  # type: ignore[misc]
        assert "the confounder" in (error := check("listed").error) and "control" in error
    table(tmp_path, header=HEADER.replace("mass", '"ma\nss"'))
    assert "the label" in (error := check("listed").error) and "control" in error


@pytest.mark.parametrize("name", ["Metadata.csv", "METADATA.CSV", "Masks", "source.txt"])
def test_misspelled_special_files_are_refused(
    name: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    (tree(tmp_path) / name).mkdir()
    found = check()
    assert found.code == 2 and f"has the entry '{name}'; rename it to" in found.error


@pytest.mark.parametrize("name", ["metadata.csv", "SOURCE.txt", "masks"])
@pytest.mark.parametrize("kind", ["link", "other"])
def test_special_files_of_the_wrong_kind_are_refused(
    name: str, kind: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    """A table or masks behind a broken link must not be ignored."""
    path = tree(tmp_path) / name
    if kind == "link":
        path.symlink_to("nowhere")
    elif name == "masks":
        path.write_text("x")
    else:
        path.mkdir()
    found = check()
    assert found.code == 2 and f"{path} is not a " in found.error


@pytest.mark.parametrize("column", ["File", "SPLIT", "Confounder", "Patient", "environ ment"])
def test_misspelled_columns_are_refused(
    column: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    """A column Patient of 0 and 1 would become a label."""
    table(tmp_path, f"{HEADER},{column}", rows=lambda lines: [f"{x},1" for x in lines])
    found = check("listed")
    assert found.code == 2 and f"has the column '{column}'; rename it to" in found.error


# --- tables and texts ---


@pytest.mark.parametrize("cell", ["²", "+-1", "7" * 5000, "1e400", "0x10", "inf", "", "yes"])
def test_invalid_label_cells_are_refused(
    cell: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    """Messages give the row of the user's file, although rows are sorted by split."""
    rows = lambda lines: [*lines[::-1][:-1], f"{lines[0].rpartition(',')[0]},{cell}"]  # noqa: E731
    table(tmp_path, rows=rows)
    found = check("listed")
    assert found.code == 2 and "effusion = " in found.error
    assert "in row 25, expected one of 0, 1" in found.error and len(found.error) < 600


@pytest.mark.parametrize(
    ("cell", "option"), [("-1", "uncertain"), ("-1.0", "uncertain"), ("", "blank")]
)
def test_labels_that_are_not_known(cell: str, option: str, tmp_path: Path) -> None:
    def rows(lines: list[str]) -> list[str]:
        """Change the last label of the first image, which is in train, and of one in val."""
        val = next(i for i, line in enumerate(lines) if ",val," in line)
        return [
            f"{line.rpartition(',')[0]},{cell}" if i in (0, val) else line
            for i, line in enumerate(lines)
        ]

    table(tmp_path, rows=rows)
    kind = DATASETS.get("listed")
    with pytest.raises(UserError, match=f"expected one of 0, 1; correct it.*{option}=ignore"):
        kind(tmp_path).load(0)
    for meaning, label in (("zero", 0), ("one", 1), ("ignore", UNKNOWN)):
        data = kind(tmp_path, **{option: meaning}).load(0)
        for name in ("train", "val"):
            assert data.splits[name].label[0, -1] == label


def test_tests_need_all_labels(tmp_path: Path) -> None:
    table(tmp_path, rows=lambda lines: [*lines[:-1], f"{lines[-1].rpartition(',')[0]},"])
    with pytest.raises(UserError, match=r"in row 25, .*test"):
        DATASETS.get("listed")(tmp_path, blank="ignore").load(0)
    label = DATASETS.get("listed")(tmp_path, blank="zero").load(0).splits["test"].label
    assert label[-1, -1] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [lines[0] + ",1", *lines[1:]], "line 2 of"),
        (lambda lines: [*lines[:5], lines[5].rpartition(",")[0], *lines[6:]], "line 7 of"),
        (lambda lines: [*lines, lines[3]], "in row 5 and in row 26"),
        (lambda lines: [*lines, lines[3].replace("p/3", "./p//3")], "in row 5 and in row 26"),
        (lambda lines: [lines[0], lines[1].replace("train", " "), *lines[2:]], "no split in row 3"),
        (lambda lines: [lines[0], lines[1].replace("p/1.png", ""), *lines[2:]], "no file in row 3"),
    ],
)
def test_invalid_rows_are_refused(
    change: Callable[[list[str]], list[str]],
    words: str,
    check: Callable[..., Check],
    tmp_path: Path,
) -> None:
    table(tmp_path, rows=change)
    found = check("listed")
    assert found.code == 2 and words in found.error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("Fotos: J. Müller\nCC0\n".encode("latin-1"), "line 1 holds the byte 0xfc"),
        ("Ours\nLizenz: frei für alle\n".encode("latin-1"), "line 2 holds the byte 0xfc"),
        ("Ours\nCC0\n".encode("utf-16"), "UTF-16"),
        (b"Ours\0\nCC0\n", "NUL bytes"),
    ],
)
def test_a_source_that_is_not_utf8(
    content: bytes, words: str, check: Callable[..., Check], tmp_path: Path
) -> None:
    (tree(tmp_path) / "SOURCE.txt").write_bytes(content)
    found = check()
    assert found.code == 2 and words in found.error and "SOURCE.txt" in found.error
    with pytest.raises(UserError, match="SOURCE"):
        DATASETS.get("folder")(tmp_path).check()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_source_in_utf8(mark: str, tmp_path: Path) -> None:
    (tree(tmp_path) / "SOURCE.txt").write_text(f"{mark}Fotos: Müller\r\nCC0\r\n", encoding="utf-8")
    info = folder_data(tmp_path).info
    assert (info.source, info.licence) == ("Fotos: Müller", "CC0")


# --- masks ---


def test_one_mask_for_two_images_is_refused(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    save(base / "train/a/x/0.jpg", 999)
    assert check().code == 0  # without masks these are two ordinary images
    add_masks(base)
    found = check()
    assert found.code == 2 and "would be the mask of two images" in found.error
    base = table(tmp_path, rows=lambda lines: [x.replace("p/1.png", "p/0.jpg") for x in lines])
    save(base / "p/0.jpg", 998)
    (base / "masks").mkdir()
    found = check("listed")
    assert found.code == 2 and "p/0.png and p/0.jpg" in found.error


def test_an_image_in_two_tests_has_one_mask(tmp_path: Path) -> None:
    base = table(tmp_path, rows=lambda lines: [*lines, lines[20].replace("test", "again")])
    add_masks(base)
    data = listed_data(tmp_path)
    assert np.array_equal(data.splits["again"].mask[0], data.splits["test"].mask[4])  # type: ignore[index]


def test_masks_without_an_image_are_noted(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    add_masks(base)
    save(base / "masks/train/a/x/77.png", 1)
    save(base / "masks/train/a/x/0.jpg", 1)
    found = check()
    assert found.code == 0
    assert each_mentions(found.notes, ["left out", "2", "masks", "train/a/x/0.jpg"])


def test_an_image_outside_the_folder_has_no_mask(
    check: Callable[..., Check], tmp_path: Path
) -> None:
    rows = lambda lines: [x.replace("p/0.png", "../elsewhere/0.png") for x in lines]  # noqa: E731
    base = table(tmp_path, rows=rows)
    save(tmp_path / "elsewhere/0.png", 999)
    assert check("listed").code == 0
    add_masks(base)
    assert "can have no mask" in check("listed").error


def test_masks_that_are_empty_full_or_missing(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    add_masks(base)
    Image.new("L", (12, 10)).save(base / "masks/train/a/x/0.png")
    Image.new("L", (12, 10), 255).save(base / "masks/val/a/x/0.png")
    assert check().problems == [
        "1 mask of train has no foreground.",
        "1 mask of val has no background.",
    ]
    (base / "masks/test/a/x/0.png").unlink()
    assert "lacks the masks of 1 of 24" in check().error


# --- pixels ---


def test_check_notes_conversions(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(base / "train/a/x/0.png", 900, exif=exif)
    save(base / "train/a/x/1.png", 901, exif=exif)
    clear = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8))
    clear.save(base / "val/a/x/0.png")
    frames = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    frames[0].putpixel((3, 3), (0, 9, 0))
    frames[0].save(base / "val/a/x/more.gif", save_all=True, append_images=frames[1:])
    found = check()
    assert found.code == 0
    assert each_mentions(
        found.notes,
        ["2 images", "my_data/train/a/x/0.png", "EXIF"],
        ["1 image", "my_data/val/a/x/0.png", "transparent", "white"],
        ["1 image", "my_data/val/a/x/more.gif", "frames", "first"],
    )


def test_check_reports_dim_images(check: Callable[..., Check], tmp_path: Path) -> None:
    base = tree(tmp_path)
    deep = np.random.default_rng(0).integers(0, 4096, (9, 9)).astype(np.uint16)
    Image.fromarray(deep).save(base / "train/a/x/0.png")
    (problem,) = check().problems
    assert mentions(problem, "1 image", "my_data/train/a/x/0.png", "8 bits")
    data = folder_data(tmp_path, channels=1, bits=12)
    assert data.splits["train"].image[0].max() > 200


def test_check_reports_images_on_different_scales(
    check: Callable[..., Check], tmp_path: Path
) -> None:
    base = tree(tmp_path)
    for number, top in enumerate((1.0, 255.0)):
        values = np.random.default_rng(number).random((9, 9)).astype(np.float32) * top
        Image.fromarray(values).save(base / f"train/a/x/float{number}.tif")
    (problem,) = check().problems
    assert mentions(problem, "different scales", "1 image", "my_data/train/a/x/float0.tif")


def test_planted_data_report_problems_of_the_underlying_data(
    check: Callable[..., Check], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tree(tmp_path, count=8)
    (base / "train/a/x/0.heic").write_bytes(b"x")
    (base / "notes.txt").write_text("x")
    code = main(["check", "planted:on=folder,options=side=8,bias=0.5", "--data-dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert code == 1 and "unsupported format" in out
    assert mentions(out, "note: left out", "not images", "1 file")
