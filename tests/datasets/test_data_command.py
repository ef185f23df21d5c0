"""`python -m benchmark.data`: list, check, prepare, show."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.core.dataset import GroupedDataset
from benchmark.core.registry import DATASETS
from benchmark.data import leaks, main, oddities, sheet
from tests.support import trees
from tests.support.messages import each_mentions, mentions


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with nlm_cxr and a user's own images."""
    monkeypatch.setenv("SHORTCUTBED_CACHE", "")  # and whatever a command sets is taken back
    trees.nlm(tmp_path / "data")
    trees.folder(tmp_path / "data")
    return tmp_path / "data"


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_list(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--data-dir", data) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert re.search(r"nlm_cxr \S.*? ready", out) and re.search(r"tiny \S.*? ready", out)
    assert "not ready: waterbirds was not found" in out
    for name in DATASETS.names():
        assert name in out


def test_check(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "nlm_cxr:side=16", "folder:side=16", "tiny", "--data-dir", data) == 0
    out = capsys.readouterr().out
    assert out.count("no problem found") == 3
    assert re.search(r"train +12 images  normal/montgomery \d+, ", out)
    assert "cat/lawn 6, cat/sofa 6, dog/lawn 6, dog/sofa 6" in out


def test_check_finds_leaks_and_suspicious_images(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = data / "my_data"
    shutil.copy(mine / "train/cat/lawn/0.png", mine / "deceiving/cat/lawn/0.png")
    table = mine / "metadata.csv"
    table.write_text(
        table.read_text().replace("val-patient", "train-patient").replace("train-patient35048", "x")
    )
    table.write_text(re.sub(r"(train/cat/lawn/1.png,day.),\S+", r"\1,somebody", table.read_text()))
    table.write_text(re.sub(r"(val/cat/lawn/1.png,day.),\S+", r"\1,somebody", table.read_text()))
    trees.write_image(mine / "val/dog/sofa/0.png", 1)
    Image.new("RGB", (40, 30), (9, 9, 9)).save(mine / "val/dog/sofa/0.png")
    Image.new("L", (40, 30)).save(mine / "masks/train/dog/sofa/0.png")
    assert run("check", "folder:side=16", "--data-dir", data) == 1
    out = capsys.readouterr().out
    pair = ("my_data/train/cat/lawn/0.png", "my_data/deceiving/cat/lawn/0.png")
    assert mentions(out, "1 equal image", "train", "tests", *pair)
    assert re.search(r"\d+ patients? .*train .*val, .*my_data/train/", out)
    assert mentions(out, "1 image of val", "one value")
    assert "1 mask of train has no foreground" in out


def test_check_detects_a_damaged_cache(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed byte is detected even if no modification time changed."""
    assert run("prepare", "nlm_cxr:side=16", "--data-dir", data) == 0
    (entry,) = (data / ".cache").glob("nlm_cxr-16-*/")
    (entry / "verified.json").write_text("{}")
    content = bytearray((entry / "image.npy").read_bytes())
    content[-1] ^= 255
    (entry / "image.npy").write_bytes(content)
    capsys.readouterr()
    assert run("check", "nlm_cxr:side=16", "--data-dir", data) == 0  # rebuilt while loading
    assert "it is rebuilt" in capsys.readouterr().err


def test_prepare_decodes_once(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        assert (
            run("prepare", "nlm_cxr:side=16", "tiny", "--data-dir", data, "--cache-dir", cache) == 0
        )
    out = capsys.readouterr().out
    assert out.count("nlm_cxr:side=16: prepared") == 2 and "tiny: nothing to prepare" in out
    assert len(list(cache.glob("nlm_cxr-16-*/entry.json"))) == 1
    assert not (data / ".cache").exists()
    assert (
        run(
            "prepare",
            "planted:on=nlm_cxr,options=side=24",
            "--data-dir",
            data,
            "--cache-dir",
            cache,
        )
        == 0
    )
    assert len(list(cache.glob("nlm_cxr-24-*/entry.json"))) == 1


def test_prepare_unpacks_archives(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        archive.add(data / "nlm_cxr", "nlm_cxr")
    target = tmp_path / "new"
    target.mkdir()
    assert (
        run(
            "prepare", "nlm_cxr:side=16", "--archive", tmp_path / "set.tar.gz", "--data-dir", target
        )
        == 0
    )
    assert "97 files unpacked" in capsys.readouterr().out
    assert run("check", "nlm_cxr:side=16", "--data-dir", target) == 0
    assert run("prepare", "tiny", "--archive", tmp_path / "set.tar.gz", "--data-dir", target) == 2
    assert "leave out --archive" in capsys.readouterr().err


def test_show(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet_file = tmp_path / "sheet.png"
    command = (
        "show",
        "nlm_cxr:side=64",
        "--data-dir",
        data,
        "--output",
        sheet_file,
        "--per-group",
        "3",
    )
    assert run(*command, "--splits", "train", "deceiving") == 0
    with Image.open(sheet_file) as opened:
        sheet = np.asarray(opened.convert("RGB"))
    assert (
        sheet.shape[0] == 6 * 68 and sheet.shape[1] == 250 + 3 * 68
    )  # four groups of train, two of deceiving
    green = (sheet == (0, 230, 0)).all(axis=2)
    assert green[:, 250:].sum() > 500 and not green[:, :250].any()  # the borders of the masks
    assert run(*command, "--splits", "trian") == 2
    assert "did you mean train" in capsys.readouterr().err


def test_a_sheet_of_any_data_set() -> None:
    for name, options in (("tiny", {}), ("digits_on_photos", {"repeats": 1})):
        made = sheet(DATASETS.get(name)(**options).load(0), ["train"], 2, 4)
        assert made.size[1] == 4 * 68


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "nothing"), "unknown dataset 'nothing'"),
        (("check", "tiny:sise=3"), "did you mean"),
        (("check", "tiny:size=x"), "size = 'x'"),
        (("show", "tiny", "cmnist", "--output", "a.png"), "takes one file"),
        (("prepare", "nlm_cxr", "--archive", "no.zip"), "no.zip does not exist"),
        (("check", "waterbirds"), "unpack waterbird_complete95"),
        (("show", "tiny", "--output", "sheet.txt"), "is not an image file"),
        (("show", "tiny", "--output", "/dev/null/sheet.png"), "cannot be written"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--data-dir", tmp_path) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and "Traceback" not in error


@pytest.mark.parametrize("option", ["--per-group", "--groups"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_an_empty_sheet(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("show", "tiny", option, value)
    assert ended.value.code == 2 and f"'{value}' is not an integer" in capsys.readouterr().err


def test_show_creates_the_folder(tmp_path: Path) -> None:
    assert run("show", "tiny", "--output", tmp_path / "new/one/sheet.png") == 0
    assert (tmp_path / "new/one/sheet.png").stat().st_size > 1000


def test_show_leaves_the_working_directory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    assert run("show", "tiny") == 0
    assert (tmp_path / "temporary" / "tiny.png").stat().st_size > 1000
    assert not list((tmp_path / "here").iterdir())


def test_a_cache_folder_that_cannot_be_created(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prepare", "folder:side=16", "--data-dir", data, "--cache-dir", "/proc/nothing")
    assert run(*arguments) == 2
    assert "which cannot be written to" in capsys.readouterr().err


def test_leaks_of_a_constructed_example() -> None:
    data = DATASETS.get("tiny")().load(0)
    assert leaks(data) == [] and oddities(data) == []

    def with_split(name: str, **changes: np.ndarray) -> GroupedDataset:
        return replace(data, splits={**data.splits, name: replace(data.splits[name], **changes)})

    image = data.splits["val"].image.copy()
    image[:3] = data.splits["train"].image[5:8]
    assert each_mentions(
        leaks(with_split("val", image=image)),
        ("3 equal images", "train", "val", "row 5 of train", "row 0 of val"),
    )
    label = np.zeros_like(data.splits["val"].label)
    assert each_mentions(oddities(with_split("val", label=label)), ("val", "standing"))
    mask = np.ones_like(data.splits["val"].mask)  # type: ignore[arg-type]
    assert each_mentions(oddities(with_split("val", mask=mask)), ("48 masks of val", "background"))
