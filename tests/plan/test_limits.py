"""Upper bounds of sweeps, which are checked before anything is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.dataset import ACCEPTED_BATCH_SIZE, MAX_REPEATS_PER_BATCH
from benchmark.core.errors import Problems, Refused, UserError
from benchmark.core.files import check_folder
from benchmark.core.optim import LARGEST_BATCH
from benchmark.core.spec import MAX_STEPS
from benchmark.plan.planner import MAX_RUNS, expand
from benchmark.plan.resolve import MAX_BATCH_BYTES, MAX_EVALUATIONS
from benchmark.plan.sweepfile import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_NUMBER,
    MAX_TITLE_LENGTH,
    config_from,
    find_sweep_file,
    read_sweep,
)
from tests.support.messages import mentions

GOOD = 'datasets = ["tiny"]\nalgorithms = ["erm"]\nselection = ["last"]\n'


def problem(**values: Any) -> str:
    """The one thing that is wrong with a sweep."""
    table = {"datasets": ["tiny"], "algorithms": ["erm"], "selection": ["last"], **values}
    with pytest.raises(UserError) as found:
        expand(config_from(table, "test", "here.toml"))
    problems = getattr(found.value, "problems", (str(found.value),))
    assert len(problems) == 1 and len(problems[0]) < 500
    return str(problems[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fixed": {"batch_size": 10**12}}, "batch_size = 1000000000000 is out of bounds"),
        ({"fixed": {"batch_size": 65_536}}, "96 training images 682 times"),
        ({"fixed": {"batch_size": 10**18}}, "out of bounds"),
        ({"fixed": {"lr": 10**18}}, "out of bounds"),
        ({"budget": {"steps": 10**12}}, "steps = 1000000000000 is out of bounds"),
        ({"budget": {"steps": 10, "evaluate_every": 10**12}}, "evaluate_every = 1000000000000 is"),
        ({"budget": {"steps": 10**8, "evaluate_every": 1}}, "100,000,000 evaluations"),
        ({"budget": {"patience": 10**12}}, "patience = 1000000000000 is out of bounds"),
        ({"budget": {"min_delta": 1e300}}, "min_delta = 1e+300 is out of bounds"),
        ({"trials": 10**12}, "trials = 1000000000000 is too large"),
        ({"draws": 10**12}, "draws = 1000000000000 is too large"),
        ({"trials": [2**32]}, "from 0 to 4,294,967,295"),
        ({"draws": [2**32]}, "from 0 to 4,294,967,295"),
        ({"trials": list(range(10_001))}, "expected at most 10,000 numbers"),
        ({"trials": 10_000, "draws": 10_000}, "100,000,000 runs, expected at most 100,000"),
        ({"title": "x" * 301}, "title has 301 characters"),
        ({"datasets": ["tiny:size=1000000000000"]}, "size = 1000000000000 is out of bounds"),
        ({"datasets": ["tiny:side=100000"]}, "side = 100000 is out of bounds"),
        ({"datasets": ["tiny:size=100000,side=1024"]}, "104,857,600,000 pixels"),
        ({"datasets": ["tiny:size=" + "9" * 5000]}, "is not an integer"),
        ({"datasets": ["tiny:bias=1e400"]}, "bias = inf is not finite"),
        ({"datasets": ["folder:path=" + "x" * 5000]}, "5,000 characters"),
        ({"datasets": ["folder:path=a\0b"]}, "control character"),
        ({"datasets": ["folder:path=a\udcffb"]}, "not UTF-8"),
        ({"backbone": "convnet:width=1000000"}, "width = 1000000 is out of bounds"),
        ({"backbone": "resnet18:side=1000000"}, "side = 1000000 is out of bounds"),
        (
            {"backbone": "resnet18:side=1024", "fixed": {"batch_size": 2048}},
            "use a batch_size of 1,365 or less",
        ),
        ({"algorithms": ["multitask_unet"], "fixed": {"unet_width": 10**9}}, "out of bounds"),
        (
            {"algorithms": ["multitask_unet"], "fixed": {"unet_width": 512, "unet_depth": 4}},
            "8,192 channels in its lowest map",
        ),
        (
            {"algorithms": ["segment_classify"], "fixed": {"unet_depth": 8}},
            "needs images of at least 256 pixels, and these have 16",
        ),
        ({"fixed": {"lr_milestones": "0.5," * 10_000 + "1"}}, "characters, expected at most"),
        ({"augmentation": {"rotate": 1e9}}, "rotate = 1000000000.0 is out of bounds"),
    ],
)
def test_values_above_a_limit_are_one_problem(values: dict[str, Any], message: str) -> None:
    assert message in problem(**values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, -(10**400)])
@pytest.mark.parametrize("place", ["fixed", "budget"])
def test_numbers_that_are_not_finite(value: float, place: str) -> None:
    assert problem(**{place: {"lr" if place == "fixed" else "min_delta": value}})


def test_budgets_of_upstream_runs_are_bounded_too() -> None:
    table = {"algorithms": ["dfr"], "budget": {"steps": 10**6}, "fixed": {"standard_share": 1000.0}}
    assert "steps = 1000000000 is out of bounds" in problem(**table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[fixed]\nlr = " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[fixed]\nlr = " + "[" * 50 + "]" * 50, "nested too deeply, expected at most 8 levels"),
        ("[a.b.c.d.e.f.g.h.i.j]\nlr = 1", "nested too deeply"),
        ("[fixed]\nlr = " + "9" * 5000, "is not TOML"),
        ("[fixed]\nlr = 0x" + "f" * 5000, "an integer of thousands of digits"),
        ("[fixed]\nlr = 99999999999999999999", "expected integers of 64 bits"),
        ("trials = [" + "1," * 20_000 + "]", "more than 10,000 entries"),
        ("title = '" + "x" * 2_000_000 + "'", "larger than 1,000,000 bytes"),
    ],
)
def test_files_that_are_too_large_or_too_deep(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + content)
    with pytest.raises(UserError, match=message) as found:
        read_sweep(path)
    assert len(str(found.value)) < 500


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert read_sweep(path).algorithms == ("erm",)


def test_a_folder_and_a_circular_link_are_not_sweep_files(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match="is a folder, expected a sweep file"):
        find_sweep_file(str(tmp_path / "folder.toml"))
    (tmp_path / "a.toml").symlink_to("b.toml")
    (tmp_path / "b.toml").symlink_to("a.toml")
    with pytest.raises(UserError, match="there is no sweep file"):
        find_sweep_file(str(tmp_path / "a.toml"))


def test_batches_of_one_image_are_refused_if_batch_normalisation_has_no_variance() -> None:
    message = problem(backbone="resnet18", fixed={"batch_size": 1})
    assert mentions(message, "batch_size = 1", "batch normalisation", "one value per channel")
    table = {"datasets": ["tiny"], "algorithms": ["erm"], "selection": ["last"]}
    for more in (
        {"backbone": "resnet18", "fixed": {"batch_size": 2}},
        {"backbone": "resnet18:side=64", "fixed": {"batch_size": 1}},
        {"backbone": "convnet", "fixed": {"batch_size": 1}},
        {"backbone": "mnist_cnn", "fixed": {"batch_size": 1}},
    ):
        assert expand(config_from({**table, **more}, "test", "here")).runs


def test_a_first_stage_is_asked_too_whether_it_can_learn_from_one_image() -> None:
    """The lowest map of the teacher's U-Net is one cell; the student has no such map."""
    message = problem(
        algorithms=["distill_outputs:random_start"],
        fixed={"batch_size": 1},
        override={"segment_classify": {"unet_depth": 4}},
    )
    assert message.startswith("segment_classify on tiny: with batch_size = 1")


@pytest.mark.parametrize("method", ["irm", "coral"])
def test_penalties_of_pairs_need_two_images_of_every_environment(method: str) -> None:
    message = problem(algorithms=[method], fixed={"batch_size": 3})
    assert "needs two images of every environment" in message
    table = {"datasets": ["tiny"], "algorithms": [method], "fixed": {"batch_size": 4}}
    assert expand(config_from(table, "test", "here")).runs


def test_impossible_batches_can_be_left_out() -> None:
    table = {
        "datasets": ["tiny"],
        "algorithms": ["erm", "irm"],
        "backbone": "resnet18",
        "fixed": {"batch_size": 1},
    }
    with pytest.raises(Problems):
        expand(config_from(table, "test", "here"))
    with pytest.raises(UserError, match="none of these methods can run"):
        expand(config_from(table, "test", "here"), skip_impossible=True)
    assert issubclass(Refused, UserError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("a/" + "y" * 300 + "/b", "300 bytes"),
        ("/".join(["long"] * 1000), "the path"),
        ("file/inside", "is a file; choose a folder with --output"),
        ("file", "is a file; choose a folder with --output"),
        ("circle", "is a broken link"),
        ("circle/inside", "is a broken link"),
        ("nowhere/inside", "is a broken link"),
        ("zero\0", "null character"),
    ],
)
def test_folders_that_cannot_be_made(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("not there")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match=message) as found:
        check_folder(tmp_path / name)
    assert len(str(found.value)) < 800
    assert sorted(os.listdir(tmp_path)) == before


def test_folders_that_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path)
    for name in ("there", "link", "link/new/newer", "new", ".", "x" * 255):
        check_folder(Path(name))


def test_the_page_on_sweep_files_tells_the_limits() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "sweep_files.md"
    table = page.read_text(encoding="utf-8").partition("**Limits.**")[2].partition("\n\nA batch")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    documented = [int(value.replace(",", "")) for _, value in rows[1:]]
    assert documented == [
        MAX_STEPS,
        MAX_EVALUATIONS,
        MAX_ENTRIES,
        MAX_NUMBER,
        MAX_RUNS,
        LARGEST_BATCH,
        MAX_REPEATS_PER_BATCH,
        MAX_BATCH_BYTES // 2**30,
        MAX_BYTES,
        MAX_DEPTH,
        MAX_TITLE_LENGTH,
    ]
    assert f"above {ACCEPTED_BATCH_SIZE:,}" in table
