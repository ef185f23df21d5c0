"""Mutated data folders: images and groups never vanish, move or change without a word."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import data, sweep
from benchmark.core.errors import UserError
from benchmark.core.named_options import parse_named_options
from benchmark.data import make_source
from tests.fuzz.mutators import mutate_bytes
from tests.fuzz.oracle import Tally, limited, run
from tests.support.trees import mask, table, write_image

TREE, TABLE = "folder:path=mine,side=16", "listed:path=mine,side=16"
SPLITS = ("train", "val", "biased", "deceiving")
#: split -> rows of (label, confounder), each with a share of the row's images that matters to no
#: test here.
CELLS = [("cat", "indoors"), ("cat", "outdoors"), ("dog", "indoors"), ("dog", "outdoors")]
PLAN = (
    'datasets = ["{}"]\nalgorithms = ["erm"]\nselection = ["last"]\n'
    "[budget]\nsteps = 2\nevaluate_every = 1\n"
)

#: What a data set holds: of every split, group or labels, environment, patient and a digest,
#: sorted.
Content = dict[str, list[tuple[str, ...]]]


def tree(root: Path) -> None:
    """``folder:`` with masks and a table of environments and patients."""
    rows, number = [], 0
    for split in SPLITS:
        for label, place in CELLS:
            for i in range(2):
                number += 1
                name = f"{split}/{label}/{place}/{i}.png"
                write_image(root / "mine" / name, number)
                mask(root / "mine" / "masks" / name, number)
                rows.append((name, f"site{i % 2}", f"patient{number}"))
    table(root / "mine" / "metadata.csv", ("file", "environment", "patient"), rows)
    (root / "mine" / "SOURCE.txt").write_text("a camera\nnone\n")


def bare_tree(root: Path) -> None:
    """``folder:`` without masks or a table."""
    tree(root)
    shutil.rmtree(root / "mine" / "masks")
    (root / "mine" / "metadata.csv").unlink()


def listed(root: Path) -> None:
    """``listed:`` with two labels, confounders, patients and masks."""
    rows, number = [], 0
    for split in SPLITS:
        for place in ("indoors", "outdoors"):
            for cat, dog in ((0, 0), (0, 1), (1, 0), (1, 1)):
                number += 1
                name = f"pictures/{number}.png"
                write_image(root / "mine" / name, number)
                mask(root / "mine" / "masks" / name, number)
                rows.append((name, split, place, f"patient{number}", cat, dog))
    header = ("file", "split", "confounder", "patient", "cat", "dog")
    table(root / "mine" / "labels.csv", header, rows)


def content(named: str, root: Path) -> Content | str:
    """Describe the content of a data set, or the reason why it cannot be loaded."""
    try:
        with limited(60.0):
            found = make_source(parse_named_options(named), root).load(0)
    except UserError as error:
        return str(error)
    info = found.info
    kept: Content = {}
    for name, split in found.splits.items():
        rows = []
        for i in range(len(split)):
            facts = [str(np.asarray(split.label[i]).tolist())]
            if split.confounder is not None:
                facts.append(info.confounder_names[int(split.confounder[i])])
            if split.environment is not None:
                facts.append(info.environment_names[int(split.environment[i])])
            facts.append("" if split.cluster is None else "a patient")
            bits = [split.image[i].tobytes()]
            bits += [] if split.mask is None else [split.mask[i].tobytes()]
            facts.append(hashlib.blake2b(b"".join(bits), digest_size=8).hexdigest())
            rows.append(tuple(facts))
        kept[f"{name} of {info.label_names}"] = sorted(rows)
    return kept


@dataclass(frozen=True)
class Case:
    """A copy of a base in which something is to be changed."""

    root: Path
    chance: random.Random

    @property
    def mine(self) -> Path:
        return self.root / "mine"

    def images(self, masks: bool = False) -> list[Path]:
        return [p for p in sorted(self.mine.rglob("*.png")) if ("masks" in p.parts) == masks]

    def an_image(self) -> Path:
        return self.chance.choice(self.images())

    def a_folder(self) -> Path:
        """A folder that holds images, or holds one that does."""
        inside = [p for p in sorted(self.mine.rglob("*")) if p.is_dir()]
        return self.chance.choice(inside)

    def a_table(self) -> Path | None:
        found = sorted(self.mine.glob("*.csv"))
        return found[0] if found else None

    def rows(self) -> tuple[Path, list[list[str]]]:
        path = self.a_table()
        if path is None:
            raise SkipError
        with path.open(newline="", encoding="utf-8") as file:
            return path, list(csv.reader(file))

    def write(self, path: Path, rows: Sequence[Sequence[str]], **how: str) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator=how.pop("ends", "\n"), **how).writerows(rows)  # type: ignore[arg-type]
        path.write_bytes(text.getvalue().encode())


#: Said of a change whose result is another data set that is right in itself.
OTHERWISE_RIGHT = " (another data set)"


class SkipError(Exception):
    """The base has nothing that this mutation could change."""


def junk(case: Case) -> str:
    """Files that operating systems and people leave in folders."""
    names = (
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "._0.png",
        "notes.txt",
        ".hidden/a.png",
        "empty/",
        "__MACOSX/._0.png",
        ".ipynb_checkpoints/0.png",
        "0.png~",
        "a.csv",
        "\u00fc.md",
    )
    name = case.chance.choice(names)
    path = case.chance.choice([case.mine, case.a_folder()]) / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith("/"):
        path.mkdir(exist_ok=True)
    else:
        path.write_bytes(b"\x00\x05\x16\x07 not a picture")
    return f"junk {path.relative_to(case.root)}"


def link(case: Case) -> str:
    """A folder or an image that lies elsewhere and is linked."""
    path = case.chance.choice([case.a_folder(), case.an_image(), case.mine])
    aside = case.root.parent / "elsewhere"
    path.rename(aside)
    path.symlink_to(aside)
    return f"{path.relative_to(case.root)} is a link"


def loop(case: Case) -> str:
    """A link that leads to a folder above it, or to itself, or to nothing."""
    kind = case.chance.choice(("above", "itself", "nothing"))
    path = case.a_folder() / case.chance.choice(("again", "again.png"))
    path.symlink_to({"above": case.mine, "itself": path, "nothing": Path("nowhere")}[kind])
    return f"{path.relative_to(case.root)} leads to {kind}"


def respell(case: Case) -> str:
    """A split, a class or a place spelled in another way, which people take for the same."""
    ways: tuple[Callable[[str], str], ...] = (str.upper, str.title, "{} ".format, " {}".format)
    spelled = case.chance.choice(ways)
    try:
        path, rows = case.rows()
        column = rows[0].index("split")
    except (SkipError, ValueError):
        folder = case.a_folder()
        folder.rename(folder.with_name(spelled(folder.name)))
        return f"{folder.relative_to(case.root)} is called {spelled(folder.name)!r}"
    row = case.chance.randrange(1, len(rows))
    rows[row][column] = spelled(rows[row][column])
    case.write(path, rows)
    return f"row {row} says {rows[row][column]!r}"


def rename_ending(case: Case) -> str:
    """An image whose ending is another spelling, another format's, or one that is not read."""
    path = case.an_image()
    ending = case.chance.choice(
        (".PNG", ".jpg", ".gif", ".pgm", ".heic", ".avif", ".jfif", ".png.bak", "", ".JPEG")
    )
    path.rename(path.with_name(path.stem + ending))
    return f"{path.relative_to(case.root)} ends in {ending!r}"


def stored_otherwise(case: Case) -> str:
    """Write the same pixels in another way: rotated with an EXIF tag, or with an alpha channel."""
    masks = case.images(masks=True)
    path = case.chance.choice(masks) if masks and case.chance.random() < 0.3 else case.an_image()
    with Image.open(path) as opened:
        image = opened.copy()
    kind = case.chance.choice(("turned", "turned", "alpha", "profile", "interlaced"))
    if kind == "turned":
        exif = Image.Exif()
        number, back = case.chance.choice(
            [
                (3, Image.Transpose.ROTATE_180),
                (6, Image.Transpose.ROTATE_90),
                (8, Image.Transpose.ROTATE_270),
            ]
        )  # fmt: skip
        exif[0x0112] = number
        image.transpose(back).save(path, exif=exif)
    elif kind == "alpha":
        image.putalpha(255)
        image.save(path)
    else:
        image.save(path, optimize=True, compress_level=1)
    return f"{path.relative_to(case.root)} {kind}"


def damaged_image(case: Case) -> str:
    """A file that is no image, half an image, or an image that says too little or too much."""
    masks = case.images(masks=True)
    path = case.chance.choice(masks) if masks and case.chance.random() < 0.3 else case.an_image()
    kind = case.chance.choice(
        (
            "empty",
            "text",
            "half",
            "bomb",
            "nan",
            "bits",
            "palette",
            "transparent",
            "large",
            "tiny",
            "folder",
        )
    )
    before = path.read_bytes()
    with Image.open(path) as opened:
        image = opened.copy()
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "half":
        path.write_bytes(before[: len(before) // 2])
    elif kind == "bomb":
        header = bytearray(before)
        header[16:24] = (60_000).to_bytes(4, "big") * 2
        path.write_bytes(header)
    elif kind == "nan":
        array = np.asarray(image.convert("L"), np.float32)
        array[:3] = case.chance.choice((np.nan, np.inf))
        path = path.with_suffix(".tif")
        Image.fromarray(array).save(path)
    elif kind == "bits":
        what, content = mutate_bytes(case.chance, before)
        path.write_bytes(content)
        kind = what
    elif kind == "palette":
        changed = image.convert("RGB").quantize(4)
        changed.info["transparency"] = 0
        changed.save(path, transparency=0)
    elif kind == "transparent":
        image.putalpha(case.chance.choice((0, 100)))
        image.save(path)
    elif kind in ("large", "tiny"):
        image.resize((1, 1) if kind == "tiny" else (900, 7)).save(path)
    elif kind == "folder":
        path.mkdir()
    right = OTHERWISE_RIGHT if kind in ("palette", "transparent", "large", "tiny") else ""
    return f"{path.relative_to(case.root)} {kind}{right}"


def odd_name(case: Case) -> str:
    """A name that is not UTF-8, or holds what no name should."""
    names = (
        b"\xff\xfe",
        b"caf\xe9",
        "ca\u0301t".encode(),
        b"a\nb",
        b"\x1b[31m",
        b"nan",
        b"-",
        b" ",
        b"a,b=c",
        b"..png",
        b"x" * 240,
    )
    name = os.fsdecode(case.chance.choice(names))
    path = case.chance.choice([case.a_folder(), case.an_image()])
    ending = path.suffix if path.is_file() else ""
    path.rename(path.with_name(name + ending))
    return f"{path.relative_to(case.root)} is called {name + ending!r}"


def misplaced(case: Case) -> str:
    """An image that is in two places, in another split, too deep, or not deep enough."""
    path = case.an_image()
    kind = case.chance.choice(("twice", "elsewhere", "deeper", "higher"))
    other = case.chance.choice([p for p in case.images() if p.parent != path.parent] or [path])
    if kind == "twice":
        shutil.copy(path, other.with_name("copy.png"))
    elif kind == "elsewhere":
        path.rename(other.with_name("moved.png"))
    elif kind == "deeper":
        (path.parent / "more").mkdir()
        path.rename(path.parent / "more" / path.name)
    else:
        path.rename(path.parent.parent / "odd.png")
    return f"{path.relative_to(case.root)} {kind}"


def lost_cell(case: Case) -> str:
    """A whole folder of images is gone."""
    folder = case.a_folder()
    parts = folder.relative_to(case.mine).parts
    shutil.rmtree(folder)
    # a training or test split may lack a group, as in data whose bias is total; masks may be there
    # or not
    right = parts == ("masks",) or (len(parts) == 3 and parts[0] not in ("val", "masks"))
    return f"{folder.relative_to(case.root)} is gone{OTHERWISE_RIGHT if right else ''}"


def table_otherwise(case: Case) -> str:
    """The same table as other programs write it."""
    path, rows = case.rows()
    kinds = ("bom", "crlf", "order", "columns", "blank", "quoted", "index", "semicolon", "tabs",
             "wide", "spaces")  # fmt: skip
    kind = case.chance.choice(kinds)
    if kind == "order":
        head, *rest = rows
        case.chance.shuffle(rest)
        case.write(path, [head, *rest])
    elif kind == "columns":
        order = list(range(len(rows[0])))
        if case.mine.joinpath("labels.csv").exists():
            order = [*case.chance.sample(order[:4], 4), *order[4:]]
        else:
            case.chance.shuffle(order)
        case.write(path, [[row[i] for i in order] for row in rows])
    elif kind == "index":
        case.write(path, [["" if i == 0 else str(i - 1), *row] for i, row in enumerate(rows)])
    elif kind == "spaces":
        case.write(path, [[f" {cell}" for cell in row] for row in rows])
    elif kind == "quoted":
        case.write(path, rows, quotechar='"', quoting=csv.QUOTE_ALL)  # type: ignore[arg-type]
    elif kind in ("semicolon", "tabs"):
        case.write(path, rows, delimiter=";" if kind == "semicolon" else "\t")
    else:
        text = path.read_text()
        changed = {
            "bom": "\ufeff" + text,
            "crlf": text.replace("\n", "\r\n"),
            "blank": text + "\n\n",
            "wide": text,
        }[kind]
        path.write_bytes(changed.encode() if kind != "wide" else changed.encode("utf-16"))
    return f"{path.name} {kind}"


def odd_table(case: Case) -> str:
    """A table with a cell, a row or a column that should not be."""
    path, rows = case.rows()
    row = case.chance.randrange(1, len(rows))
    column = case.chance.randrange(len(rows[0]))
    kind = case.chance.choice(
        ("cell", "cell", "many", "few", "twice", "column", "lost", "nul", "name")
    )
    if kind == "cell":
        odd = (
            "",
            " ",
            "²",
            "+-1",
            "9" * 5000,
            "nan",
            "../../x.png",
            "2",
            "-1",
            "1.0",
            "true",
            "\x1b[1m",
            "a\nb",
        )
        rows[row][column] = case.chance.choice(odd)
        kind = f"{rows[0][column]} of row {row} is {rows[row][column][:20]!r}"
    elif kind == "many":
        rows[row] += ["1", "more"]
    elif kind == "few":
        del rows[row][-1]
    elif kind == "twice":
        rows.append(rows[row])
    elif kind == "column":
        rows = [[*cells, cells[column]] for cells in rows]
    elif kind == "lost":
        rows = [[cell for i, cell in enumerate(cells) if i != column] for cells in rows]
    elif kind == "name":
        rows[0][column] = case.chance.choice(("", "File", "split ", "label", "environment", "x"))
        kind = f"column {column} is called {rows[0][column]!r}"
    case.write(path, rows)
    if kind == "nul":
        path.write_bytes(path.read_bytes().replace(b"png", b"p\x00g", 1))
    return f"{path.name} {kind}"


def any_bytes(case: Case) -> str:
    """Any file, damaged in any way; a table may then say something else that is right in itself."""
    path = case.chance.choice([p for p in sorted(case.mine.rglob("*")) if p.is_file()])
    what, changed = mutate_bytes(
        case.chance, path.read_bytes(), (b"", b"\xff\xfe", b"\x00" * 99, b"a,b\n")
    )
    path.write_bytes(changed)
    return f"{path.relative_to(case.root)} {what}"


Mutate = Callable[[Case], str]

#: What may be done, and how often.
MUTATIONS: dict[Mutate, int] = {
    junk: 10,
    link: 10,
    loop: 5,
    respell: 10,
    rename_ending: 8,
    stored_otherwise: 10,
    damaged_image: 14,
    odd_name: 10,
    misplaced: 8,
    lost_cell: 6,
    table_otherwise: 10,
    odd_table: 14,
    any_bytes: 8,
}
#: Mutations whose result may be another data set that is right in itself: only how commands end is
#: judged.
MAY_DIFFER = (odd_name, misplaced, odd_table, any_bytes)


def fuzz(cases: int, home: Path) -> None:
    tally = Tally.of("data_folders", cases)
    bases: list[tuple[Path, str, Content]] = []
    for make, named in ((tree, TREE), (bare_tree, TREE), (listed, TABLE)):
        folder = home / make.__name__
        make(folder)
        held = content(named, folder)
        assert not isinstance(held, str), held
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        bases.append((folder, named, held))
    (home / "mine.toml").touch()
    for number in tally.numbers():
        chance = tally.chance(number)
        base, named, held = chance.choice(bases)
        box = home / "case"
        shutil.rmtree(box, ignore_errors=True)
        shutil.copytree(base, box / "data", symlinks=True)
        cached = chance.random() < 0.3  # decoded before the change: the cache must not hide it
        if cached:
            assert content(named, box / "data") == held
        mutate, what = _mutated(Case(box / "data", chance))
        what = f"{named}{', decoded before' if cached else ''}: {what}"
        where = ["--data-dir", str(box / "data")]
        check = run(data.main, ["check", named, *where], 60.0)
        tally.judge(number, check, f"{what}: check")
        (home / "mine.toml").write_text(PLAN.format(named))
        plan = run(sweep.main, ["validate", str(home / "mine.toml"), *where], 60.0)
        tally.judge(number, plan, f"{what}: validate")
        now = content(named, box / "data")
        other = isinstance(now, str) or now != held
        if check.code == 0:
            tally.outcomes["no problem found"] += 1
            if other and mutate not in MAY_DIFFER and not what.endswith(OTHERWISE_RIGHT):
                tally.fault(
                    number, "changed without a word", f"{what}\n{check.out}\n{_changes(held, now)}"
                )
            if plan.code != 0:
                tally.fault(
                    number, "check finds nothing and planning refuses", f"{what}\n{plan.err}"
                )
        else:
            tally.outcomes["a problem reported" if check.code == 1 else "refused"] += 1
    tally.finish()


def _mutated(case: Case) -> tuple[Mutate, str]:
    """Change a case in a random way that is possible there."""
    while True:
        mutate = case.chance.choices(list(MUTATIONS), list(MUTATIONS.values()))[0]
        try:
            return mutate, mutate(case)
        except SkipError:
            continue


def _changes(before: Content, now: Content | str) -> str:
    if isinstance(now, str):
        return now
    lines = []
    for name in {**before, **now}:
        one, other = set(before.get(name, [])), set(now.get(name, []))
        if one != other:
            lines.append(f"{name}: gone {sorted(one - other)[:3]}, new {sorted(other - one)[:3]}")
    return "\n".join(lines) or "an image is there more than once"


def test_mutated_data_folders_in_short(tmp_path: Path) -> None:
    fuzz(10, tmp_path)


@pytest.mark.very_slow
def test_mutated_data_folders(tmp_path: Path) -> None:
    fuzz(200, tmp_path)
