"""Every mistake of a user: one sentence (or one list of them), exit code 2, and nothing written."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark import collect_results, data, sweep, train
from benchmark.core.errors import exit_code
from tests.support.fake_sweep import ERM, FakeSweep, World
from tests.support.messages import mentions

GOOD = (
    'datasets = ["tiny"]\nalgorithms = ["erm"]\nselection = ["last"]\n'
    "[budget]\nsteps = 4\nevaluate_every = 2\n"
)

ONE_RUN = ("--dataset", "tiny", "--algorithm", "erm", "--device", "cpu")


def collect(arguments: list[str]) -> int:
    return exit_code(lambda: collect_results.main(arguments))


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that runs a command line: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTCUTBED_DATA", raising=False)

    def call(main, *arguments: object) -> tuple[int, str, str]:  # type: ignore[no-untyped-def]
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def launch(run, folder: Path, text: str, *more: object) -> tuple[int, str]:  # type: ignore[no-untyped-def]
    """Launch a sweep whose file holds ``text``; returns exit code and standard error."""
    path = folder / "mine.toml"
    path.write_text(text)
    code, _, error = run(
        sweep.main, "launch", path, "--output", folder / "out", "--device", "cpu", *more
    )
    return code, error


def one_sentence(error: str) -> bool:
    """``error: …`` without a traceback, every line after a heading a point of a list."""
    lines = error.strip().splitlines()
    return (
        bool(lines)
        and lines[0].startswith("error: ")
        and "Traceback" not in error
        and all(line.startswith("  - ") for line in lines[1:])
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD.replace("erm", "ermm"), "did you mean erm"),
        (GOOD.replace('"tiny"', '"tinny"'), "did you mean tiny"),
        (GOOD.replace('"tiny"', '"tiny:bais=0.5"'), "did you mean bias"),
        (GOOD.replace('"tiny"', '"tiny:bias=much"'), "'much' is not a number"),
        (GOOD.replace('"tiny"', '"tiny:bias=1.5"'), "out of bounds"),
        (GOOD.replace('"erm"', '"cdan:cdanm"'), "did you mean cdann"),
        ('backbone = "convnt"\n' + GOOD, "did you mean convnet"),
        ('backbone = "resnet18:small_stm=true"\n' + GOOD, "did you mean small_stem"),
        (GOOD.replace('"last"', '"lats"'), "did you mean last"),
        (GOOD.replace("steps = 4", 'steps = "four"'), "steps = 'four' is of the wrong type"),
        (GOOD.replace("steps = 4", "stepps = 4"), "did you mean steps"),
        ("trails = 3\n" + GOOD, "did you mean trials"),
        ("trials = 0\n" + GOOD, "expected at least 1"),
        ("trials = [1, 1]\n" + GOOD, "twice"),
        (
            GOOD + "[fixed]\nlearning_rate = 1.0\n",
            "no algorithm of this sweep has a hyper-parameter 'learning_rate'",
        ),
        (GOOD + '[fixed]\nlr = "fast"\n', "expected a number"),
        (GOOD + "[override.grup_dro]\neta = 0.1\n", "did you mean group_dro"),
        (GOOD + "[override.erm]\neta = 0.1\n", "erm has no hparam 'eta'"),
        (GOOD + "[augmentation]\nflipp = 0.5\n", "did you mean flip"),
        (GOOD + '[compute]\nprecision = "fp8"\n', "not one of fp32, bf16"),
        (
            GOOD.replace("[budget]", "[budget]\npatience = 3"),
            "early stopping (patience) cannot follow the criterion last",
        ),
        (GOOD.replace("steps = 4", "steps = 4 5"), "is not TOML"),
        (GOOD.replace('datasets = ["tiny"]\n', ""), "datasets is missing"),
        (
            GOOD.replace('"tiny"', '"tiny:bias=1.0"').replace('"erm"', '"irm"'),
            "at least two training environments",
        ),
        (
            GOOD.replace('"last"', '"val_objective"').replace('"erm"', '"coral"'),
            "declares no objective",
        ),
        (GOOD.replace('"tiny"', '"cmnist"'), "--download"),
    ],
)
def test_mistakes_in_a_sweep(run, tmp_path: Path, text: str, expected: str) -> None:  # type: ignore[no-untyped-def]
    code, error = launch(run, tmp_path, text, "--data-dir", tmp_path / "nothing")
    assert code == 2
    assert expected in error
    assert one_sentence(error)
    assert not (tmp_path / "out").exists()


def test_all_mistakes_are_told_together(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = GOOD.replace('["erm"]', '["erm", "irmm"]').replace('["tiny"]', '["tiny", "tiny:sied=8"]')
    code, error = launch(run, tmp_path, text + "[override.emr]\nlr = 1.0\n")
    assert code == 2
    assert all(
        expected in error for expected in ("did you mean irm", "size or side", "did you mean erm")
    )


def test_no_such_sweep(run) -> None:  # type: ignore[no-untyped-def]
    code, _, error = run(sweep.main, "launch", "quickstrat")
    assert code == 2
    assert "did you mean quickstart" in error


def test_impossible_combinations_are_refused_or_skipped(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    text = GOOD.replace('"tiny"', '"tiny:bias=1.0"').replace('"erm"', '"erm", "irm"')
    code, error = launch(run, tmp_path, text)
    assert code == 2
    assert "--skip-impossible" in error
    code, out, _ = run(
        sweep.main, "launch", tmp_path / "mine.toml", "--dry-run", "--skip-impossible"
    )
    assert code == 0
    assert "left out" in out


def test_a_budget_that_ends_before_the_switch_is_said_before_anything_runs(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(GOOD.replace('"erm"', '"erm", "irm"'))
    for command in (("validate", "mine.toml"), ("launch", "mine.toml", "--dry-run")):
        code, _, error = run(sweep.main, *command)
        assert code == 0 and error.count("warning: ") == 1
        assert mentions(error, "irm on tiny", "1 of 1 runs")
    (tmp_path / "mine.toml").write_text(
        GOOD.replace('"erm"', '"irm"') + "[override.irm]\nanneal_iters = 2\n"
    )
    code, _, error = run(sweep.main, "validate", "mine.toml")
    assert code == 0 and "warning" not in error


@pytest.mark.parametrize("damage", ["truncated", "magic", "not gzip"])
def test_a_corrupt_mnist_file(run, tmp_path: Path, damage: str) -> None:  # type: ignore[no-untyped-def]
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        good = gzip.compress(bytes([0, 0, 8, 3]) + bytes(400))
        bad = {
            "truncated": good[:-9],
            "magic": gzip.compress(bytes([9, 9, 9, 9]) + bytes(400)),
            "not gzip": b"hello",
        }
        (raw / f"{name}-ubyte.gz").write_bytes(bad[damage])
    code, error = launch(
        run, tmp_path, GOOD.replace('"tiny"', '"cmnist"'), "--data-dir", tmp_path / "data"
    )
    assert code == 2
    assert "ubyte" in error
    assert one_sentence(error)
    assert not (tmp_path / "out").exists()


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own, where the machine lets us mount one."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine.toml").write_text(GOOD)
    with mounted(tmp_path / "readonly", "ro,size=1m") as folder:
        code, _, error = run(
            sweep.main, "launch", "mine.toml", "--output", folder / "out", "--device", "cpu"
        )
        assert code == 2
        assert "Read-only file system" in error
        assert one_sentence(error)


def test_a_full_disk(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine.toml").write_text(GOOD)
    with mounted(tmp_path / "small", "size=16k") as folder:
        (folder / "ballast").write_bytes(bytes(12 * 1024))
        code, _, error = run(
            sweep.main, "launch", "mine.toml", "--output", folder / "out", "--device", "cpu"
        )
        assert code == 2
        assert "No space left on device" in error
        assert one_sentence(error)


def test_two_sweeps_in_one_folder(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _ = launch(run, tmp_path, GOOD)
    assert code == 0
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    (tmp_path / "other.toml").write_text(GOOD)
    code, _, error = run(sweep.main, "launch", "other.toml", "--output", "out")
    assert code == 2
    assert "holds the sweep 'mine', not 'other'" in error
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_damage_to_a_finished_sweep(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """A log may end in the middle of a line; a record of another schema version is an error."""
    fake = FakeSweep(tmp_path, "out", predictions=False)
    fake.add(World(), ERM, trials=(0, 1))
    fake.finish()
    first, second = sorted((tmp_path / "out" / "runs").iterdir())
    log = first / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    code, out, error = run(collect, "out", "--tables-only")
    assert code == 0, error
    assert "2 done" in out
    record = json.loads((second / "record.json").read_text())
    (second / "record.json").write_text(json.dumps({**record, "schema": 99}))
    code, out, error = run(collect, "out", "--tables-only")
    assert "Traceback" not in out + error
    assert "99" in out + error
    stored = json.loads((tmp_path / "out" / "sweep.json").read_text())
    (tmp_path / "out" / "sweep.json").write_text(json.dumps({**stored, "schema": 99}))
    for main, arguments in (
        (sweep.main, ("status", "out", "--once")),
        (collect, ("out", "--tables-only")),
    ):
        code, _, error = run(main, *arguments)
        assert code == 2
        assert "schema version 99, expected 1" in error
        assert one_sentence(error)


@pytest.mark.parametrize("place", ["argument", "option", "path"])
@pytest.mark.parametrize(
    "main",
    [sweep.main, train.main, data.main, collect],
    ids=["sweep", "train", "data", "collect_results"],
)
def test_what_was_typed_never_commands_the_terminal(
    main,
    place: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    odd = "a\x1b[31mb\nc"
    paths = {
        sweep.main: ("status", odd),
        train.main: ("--dataset", odd, "--algorithm", odd),
        data.main: ("check", odd),
        collect: (odd,),
    }
    wrong = {"argument": (odd, odd, odd), "option": (f"--{odd}",), "path": paths[main]}[place]
    try:
        code = main(list(wrong))
    except SystemExit as end:  # argparse's errors
        code = end.code
    captured = capfd.readouterr()
    assert code == 2
    assert "\x1b" not in captured.out + captured.err
    assert place != "path" or r"\x1b[31mb\nc" in captured.err
    last = captured.err.strip().splitlines()[-1]
    assert "error: " in last or last.startswith("  - ")


def test_nothing_to_collect(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for main, arguments in (
        (collect, ()),
        (collect, ("nowhere",)),
        (sweep.main, ("status",)),
    ):
        code, _, error = run(main, *arguments)
        assert code == 2
        assert one_sentence(error)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--hparam", "lr"), "expected NAME=VALUE"),
        (("--hparam", "lrr=1"), "did you mean lr"),
        (("--hparam", "lr=fast"), "is not a number"),
        (("--device", "cuda"), "no NVIDIA GPU"),
        (("--steps", "0"), "expected 1 or more"),
        (("--selection", "best"), "unknown criterion"),
    ],
)
def test_mistakes_of_one_run(
    run, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:  # type: ignore[no-untyped-def]
    if "cuda" in arguments and __import__("shutil").which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    code, _, error = run(
        train.main, "--dataset", "tiny", "--algorithm", "erm", "--output", "out", *arguments
    )
    assert code == 2
    assert expected in error
    assert not (tmp_path / "out").exists()


#: Command lines that name a folder for a file, a file for a folder, or something too long, each
#: with a part of the message.
MISPLACED: list[tuple[object, tuple[str, ...], str]] = [
    (sweep.main, ("launch", "folder"), "is a folder, expected a sweep file"),
    (sweep.main, ("launch", "folder.toml"), "is a folder, expected a sweep file"),
    (sweep.main, ("launch", "circle.toml"), "there is no sweep file"),
    (sweep.main, ("launch", "x" * 300 + ".toml"), "File name too long"),
    (sweep.main, ("launch", "a\0b"), "there is no sweep file"),
    (sweep.main, ("launch", "mine.toml", "--output", "file"), "is a file"),
    (sweep.main, ("launch", "mine.toml", "--output", "file/out"), "is a file"),
    (sweep.main, ("launch", "mine.toml", "--output", "new/" + "x" * 300), "300 bytes"),
    (sweep.main, ("launch", "mine.toml", "--output", "circle/out"), "broken link"),
    (sweep.main, ("launch", "mine.toml", "--workers", "1000000000"), "at most 1,024"),
    (
        sweep.main,
        ("launch", "own.toml", "--data-dir", "file"),
        "file is a file; choose a folder with --data-dir",
    ),
    (sweep.main, ("launch", "own.toml", "--data-dir", "circle"), "circle is a broken link"),
    (sweep.main, ("validate", "own.toml", "--data-dir", "file"), "file"),
    (sweep.main, ("validate", "mine.toml", "--trials", "1000000000000"), "too large"),
    (sweep.main, ("validate", "mine.toml", "--draws", "1000000000000"), "too large"),
    (sweep.main, ("status", "file", "--once"), "file"),
    (sweep.main, ("status", "circle", "--once"), "circle"),
    (sweep.main, ("status", "x" * 300, "--once"), "File name too long"),
    (sweep.main, ("retry", "file"), "file"),
    (collect, ("file",), "file"),
    (collect, ("circle",), "circle"),
    (collect, ("x" * 300,), "x"),
    (collect, ("folder", "--out", "file"), "is a file"),
    (collect, ("folder", "--out", "new/" + "x" * 300), "300 bytes"),
    (collect, ("folder", "--export", "folder"), "is a folder"),
    (collect, ("import", "domainbed", "file"), "file"),
    (collect, ("import", "subpopbench", "circle"), "circle"),
    (train.main, (*ONE_RUN, "--output", "file"), "is a file"),
    (train.main, (*ONE_RUN, "--output", "x" * 300), "300 bytes"),
    (train.main, (*ONE_RUN, "--trial", str(2**40)), "from 0 to 4,294,967,295"),
    (train.main, (*ONE_RUN, "--draw", str(2**40)), "from 0 to 4,294,967,295"),
    (train.main, (*ONE_RUN, "--steps", str(10**12)), "out of bounds"),
    (train.main, (*ONE_RUN, "--hparam", f"batch_size={10**12}"), "out of bounds"),
    (train.main, (*ONE_RUN, "--hparam", "batch_size=60000"), "training images"),
    (train.main, (*ONE_RUN, "--hparam", "lr=1e400"), "not finite"),
    (train.main, (*ONE_RUN, "--hparam", "lr=" + "9" * 5000), "not finite"),
    (data.main, ("check", "folder:path=file", "--data-dir", "."), "file"),
    (data.main, ("check", "folder:path=mine", "--data-dir", "file"), "file"),
    (data.main, ("check", "listed:path=circle", "--data-dir", "."), "circle"),
    (data.main, ("check", "folder:path=" + "x" * 300, "--data-dir", "."), "x"),
    (data.main, ("check", "tiny:size=100000,side=1024"), "pixels"),
    (data.main, ("prepare", "waterbirds", "--archive", "folder", "--data-dir", "."), "folder"),
    (data.main, ("show", "tiny", "--output", "folder.png"), "folder.png"),
]


@pytest.mark.parametrize(
    ("main", "arguments", "expected"), MISPLACED, ids=[f"{i}" for i in range(len(MISPLACED))]
)
def test_a_folder_for_a_file_and_the_reverse(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, main: object, arguments: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for name in ("folder", "folder.toml", "folder.png"):
        (tmp_path / name).mkdir()
    for name in ("circle", "circle.toml"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "mine.toml").write_text(GOOD)
    (tmp_path / "own.toml").write_text(GOOD.replace('"tiny"', '"folder:path=mine"'))
    before = sorted(p.name for p in tmp_path.iterdir())
    code, _, error = run(main, *arguments)
    assert code == 2, error
    assert expected in error and len(error) < 1500
    assert one_sentence(error)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert not any((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e400", "soon"])
def test_seconds_between_checkpoints(run, seconds: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as ended:
        run(train.main, *ONE_RUN, "--checkpoint-seconds", seconds)
    assert ended.value.code == 2


#: Modules of plug-ins that do not work, and a part of the message about each.
PLUG_INS = {
    "exits": ("import sys\nsys.exit()\n", "SystemExit"),
    "foreign": ("class Thing:\n    name = 'thing'\n", "is no"),
}


@pytest.mark.slow
@pytest.mark.parametrize("plug_in", PLUG_INS)
def test_a_broken_plug_in_is_listed_and_stops_nothing_of_ours(tmp_path: Path, plug_in: str) -> None:
    """In every group at once; in processes of their own, since a registry is loaded once."""
    module, expected = PLUG_INS[plug_in]
    kinds = ("algorithms", "datasets", "backbones", "explainers")
    info = tmp_path / "packages" / "plugin_y-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-y\nVersion: 1.0\n")
    points = "".join(f"[shortcutbed.{kind}]\nany = plugin_y:Thing\n" for kind in kinds)
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "packages" / "plugin_y.py").write_text(module)
    (tmp_path / "mine.toml").write_text(GOOD)
    root = Path(sweep.__file__).resolve().parents[1]
    path = os.pathsep.join([str(tmp_path / "packages"), str(root)])

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "benchmark.sweep", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    for kind in kinds[1:2] if plug_in == "exits" else kinds:
        done = call("list", kind)
        assert done.returncode == 0, done.stderr
        assert "not available: entry point plugin_y:Thing: " in done.stdout
        assert expected in done.stdout
    done = call("launch", "mine.toml", "--output", "out", "--device", "cpu", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "runs").glob("*/record.json"))) == 1
    (tmp_path / "wrong.toml").write_text(GOOD.replace("erm", "thing"))
    done = call("launch", "wrong.toml")
    assert done.returncode == 2 and one_sentence(done.stderr)
    assert "entry point plugin_y:Thing cannot be used" in done.stderr
