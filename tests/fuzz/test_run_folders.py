"""Mutated sweep folders: `status` and reports end, and every number has its source."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmark import collect_results, sweep
from tests.fuzz.mutators import mutate_bytes, mutate_json, mutate_log, mutate_npz
from tests.fuzz.oracle import CODES, CONTROL, ROOT, Tally, run
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

SWEEP, SPEC, RECORD, FAILURE = "sweep.json", "spec.json", "record.json", "failure.json"
LOG, PREDICTIONS = "log.jsonl", "predictions.npz"
REAL = """
datasets = ["tiny:size=24,side=8"]
algorithms = ["erm", "jtt", "rrr"]
trials = 2
selection = ["val_accuracy", "last"]
[budget]
steps = 4
evaluate_every = 2
"""


@dataclass(frozen=True)
class Base:
    """A sweep folder before its mutations, and what is reported of it."""

    folder: Path
    report: Report

    @property
    def keys(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "runs").iterdir())


@dataclass(frozen=True)
class Report:
    """The output of the commands for a folder.

    Args:
        tables: tables.json.
        rows: the rows of the tidy export, by key, criterion and split.
    """

    tables: Mapping[str, Any]
    rows: Mapping[tuple[str, str, str], Mapping[str, str]]

    def per_trial(self) -> Iterator[tuple[str, str, float | None]]:
        """Key, metric and value of every number that is printed of one run."""
        for table in self.tables["tables"]:
            for row in table["rows"]:
                for metric, cell in row["values"].items():
                    for trial, value in ((cell or {}).get("per_trial") or {}).items():
                        yield row["runs"][trial], f"{table['dataset']} {metric}", value

    def cells(self) -> dict[tuple[str, str, str], tuple[tuple[str, ...], list[Any]]]:
        """By data set, method and metric: the keys of the runs and the numbers made from them."""
        return {
            (table["dataset"], row["method"], metric): (
                tuple(sorted(row["runs"].values())),
                [cell[name] for name in ("value", "sd", "low", "high", "trials")],
            )
            for table in self.tables["tables"]
            for row in table["rows"]
            for metric, cell in row["values"].items()
            if cell is not None and cell["trials"]
        }


@dataclass
class Mutation:
    """The changes to a copy of a base.

    Args:
        what: in words.
        touched: keys of the runs whose files were changed.
        plan: whether sweep.json was changed.
        launch: whether the sweep should be launched again on the folder.
        lost: keys of runs whose results must not be shown any more.
    """

    what: str
    touched: set[str] = field(default_factory=set)
    plan: bool = False
    launch: bool = False
    lost: set[str] = field(default_factory=set)


Mutate = Callable[[random.Random, Path, list[str]], Mutation]


def change_file(name: str, mutate: Callable[[random.Random, bytes], tuple[str, bytes]]) -> Mutate:
    """A mutation of one file of a random run that has it."""

    def change(chance: random.Random, folder: Path, keys: list[str]) -> Mutation:
        having = [key for key in keys if (folder / "runs" / key / name).is_file()]
        if not having:
            return change_plan(chance, folder, keys)
        key = chance.choice(having)
        path = folder / "runs" / key / name
        what, content = mutate(chance, path.read_bytes())
        path.write_bytes(content)
        return Mutation(f"{name} of {key}: {what}", {key})

    return change


def change_plan(chance: random.Random, folder: Path, keys: list[str]) -> Mutation:
    path = folder / SWEEP
    what, content = mutate_json(chance, path.read_bytes())
    path.write_bytes(content)
    return Mutation(f"{SWEEP}: {what}", plan=True)


def exchange(chance: random.Random, folder: Path, keys: list[str]) -> Mutation:
    """One run's file in another run's folder, or two folders exchanged."""
    runs = folder / "runs"
    name = chance.choice((RECORD, RECORD, SPEC, PREDICTIONS, LOG, "folder"))
    if name == "folder":
        one, other = chance.sample(keys, 2)
        (runs / one).rename(runs / "aside")
        (runs / other).rename(runs / one)
        (runs / "aside").rename(runs / other)
        done = {key for key in (one, other) if (runs / key / RECORD).exists()}
        return Mutation(f"{one} and {other} exchanged", {one, other}, lost=done)
    having = [key for key in keys if (runs / key / name).exists()]
    one, other = chance.sample(having, 2)
    shutil.copy(runs / one / name, runs / other / name)
    lost = {other} if name == RECORD else set()
    return Mutation(f"{name} of {one} in {other}", {other}, lost=lost)


def misplace(chance: random.Random, folder: Path, keys: list[str]) -> Mutation:
    """A file that is a folder, a link to itself or to nothing, or that is not there."""
    runs = folder / "runs"
    key = chance.choice(keys)
    names = sorted(path.name for path in (runs / key).iterdir())
    name = chance.choice([*names, ".", "attempts"])
    target = folder / SWEEP if chance.random() < 0.1 else runs / key / name
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    kind = chance.choice(("gone", "folder", "loop", "dangling", "empty", "file"))
    if kind == "folder":
        target.mkdir()
    elif kind == "loop":
        target.symlink_to(target)
    elif kind == "dangling":
        target.symlink_to("nowhere")
    elif kind in ("empty", "file"):
        target.write_bytes(b"" if kind == "empty" else b"hello\n")
    lost = {key} if name in (RECORD, ".") and target.name != SWEEP else set()
    return Mutation(
        f"{target.relative_to(folder)} {kind}", {key}, plan=target.name == SWEEP, lost=lost
    )


def add_strangers(chance: random.Random, folder: Path, keys: list[str]) -> Mutation:
    """Something that belongs to no run."""
    names = (b"x", b"\xff\xfe", b".hidden", "ü\n".encode(), b"\x1b[31m", b"a" * 200, b"0" * 16)
    name = os.fsdecode(chance.choice(names))
    key = chance.choice(keys)
    places = (folder, folder / "runs", folder / "runs" / key, folder / "runs" / key / "attempts")
    place = chance.choice(places)
    place.mkdir(exist_ok=True)
    kind = chance.choice(("file", "folder", "run", "tries"))
    if kind == "file":
        (place / name).write_bytes(b"?")
    elif kind == "folder":
        (place / name).mkdir()
    elif kind == "run":
        shutil.copytree(folder / "runs" / key, folder / "runs" / name, symlinks=True)
    else:
        tries = folder / "runs" / key / "attempts"
        for number in ("1", "9" * 30, "\u0663", "-1", "2.5"):
            (tries / number).mkdir(parents=True, exist_ok=True)
    return Mutation(f"{kind} {name!r} in {place.relative_to(folder)}", {key})


def damage_upstream(chance: random.Random, folder: Path, keys: list[str]) -> Mutation:
    """The weights that another run starts from, and that run is to be made again."""
    for key in chance.sample(keys, len(keys)):
        upstream = json.loads((folder / "runs" / key / SPEC).read_text())["upstream"]
        weights = [folder / "runs" / other / "selected.pt" for other in upstream.values()]
        if weights and weights[0].is_file():
            what, content = mutate_bytes(chance, weights[0].read_bytes(), (b"", b"hello"))
            weights[0].write_bytes(content)
            (folder / "runs" / key / RECORD).unlink()
            name = f"selected.pt of {weights[0].parent.name}: {what}; {key} again"
            return Mutation(name, {key, weights[0].parent.name}, lost={key}, launch=True)
    return change_plan(chance, folder, keys)


MUTATIONS: dict[Mutate, int] = {
    change_file(RECORD, mutate_json): 30,
    change_file(SPEC, mutate_json): 10,
    change_file(FAILURE, mutate_json): 5,
    change_file(LOG, mutate_log): 10,
    change_file(PREDICTIONS, mutate_npz): 14,
    change_file("heatmaps.npz", mutate_npz): 5,
    change_file("embeddings.npz", mutate_npz): 5,
    change_file("lease.json", mutate_bytes): 2,
    change_plan: 14,
    exchange: 7,
    misplace: 10,
    damage_upstream: 3,
    add_strangers: 5,
}


def fake_base(root: Path) -> Path:
    """A folder with two data sets, draws, an upstream run, and runs that failed, run and wait."""
    fake = FakeSweep(root)
    world, other = World(size=40), World("other", classes=3, size=42)
    teacher = fake.add(world, ERM, trials=(0, 1))
    fake.add(world, DRO, trials=(0, 1), draws=(0, 1))
    fake.add(world, Method("student", 0.93, 0.6), trials=(0,), upstream={"teacher": teacher[0]})
    fake.add(other, ERM, trials=(0, 1))
    fake.add(other, DRO, trials=(0,), state="failed")
    fake.add(other, DRO, trials=(1,), state="running")
    fake.add(other, DRO, trials=(2,), state="pending")
    fake.refuse(world, "irm", "no environments here")
    return fake.finish()


def real_base(root: Path) -> Path:
    """A folder that the engine wrote, with heatmaps and embeddings."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "real.toml").write_text(REAL)
    arguments = [
        "launch",
        str(root / "real.toml"),
        "--output",
        str(root / "real"),
        "--device",
        "cpu",
    ]
    assert sweep.main([*arguments, "--workers", "2"]) == 0
    return root / "real"


def collect(folder: Path, out: Path, tally: Tally, number: int, what: str) -> Report | None:
    """Run every command on a folder, judge how they end, and return what was reported."""
    export = out / "runs.csv"
    out.mkdir(parents=True, exist_ok=True)
    form = ("text", "latex", "csv", "markdown", "json")[number % 5]
    figures = "all" if number % 25 == 17 else "none"
    tables = ["--detail", "--reference", "erm", "--figures", figures, "--format", form]
    commands = {
        "status": (sweep.main, ["status", str(folder), "--once"]),
        "export": (collect_results.main, [str(folder), "--export", str(export)]),
        "report": (collect_results.main, [str(folder), "--out", str(out), *tables]),
    }
    before = sorted(out.iterdir())
    for name, (main, arguments) in commands.items():
        answer = run(main, arguments, 120.0 if figures == "all" else 30.0)
        tally.judge(number, answer, f"{what}: {name}")
        wrote = sorted(out.iterdir()) not in (before, [*before, export])
        if name == "report" and answer.code == 2 and wrote:
            tally.fault(number, "wrote files and ended with 2", f"{what}: {name}")
    for path in out.glob("*.*"):
        if path.suffix in (".txt", ".md", ".tex", ".csv", ".html", ".json"):
            found = CONTROL.search(path.read_bytes().decode("utf-8", "replace"))
            if found:
                tally.fault(number, f"control character in {path.name}", what)
    if not (out / "tables.json").exists() or not export.exists():
        return None
    rows = {}
    with export.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows[row["key"], row.get("criterion", ""), row.get("split", "")] = row
    return Report(json.loads((out / "tables.json").read_text()), rows)


#: Columns of the export that are computed from the run's own files.
MEASURED = ("step", "n", "accuracy", "balanced_accuracy", "worst_group_accuracy", "worst_group")


def compare(base: Base, done: Mutation, report: Report) -> Iterator[tuple[str, str]]:
    """Return what is reported and must not be: a signature and the details."""
    before = base.report
    text = json.dumps(report.tables)
    reported = {run["key"] for run in report.tables["unfinished"]}
    for where, row in before.rows.items():
        key = where[0]
        now = report.rows.get(where)
        measured = bool(row["accuracy"])
        if now is None or not now["accuracy"]:
            if measured and key not in done.touched and not done.plan:
                yield "an untouched run lost its numbers", f"{where}"
            elif measured and key not in text and not report.tables["notes"]:
                yield "a run vanished without a note", f"{where}"
        elif key in done.lost:
            if any(now[name] != row[name] for name in MEASURED):
                yield "numbers of one run shown as another's", f"{where}: {now}"
        elif key not in done.touched and any(now[name] != row[name] for name in MEASURED):
            yield "an untouched run has other numbers", f"{where}: {now}, expected {row}"
    mentioned = {where[0] for where in report.rows}
    planned = {where[0] for where in before.rows}
    if not done.plan:
        for key in (done.touched & planned) - mentioned:
            yield "a planned run is not mentioned at all", key
    known = {(key, metric): value for key, metric, value in before.per_trial()}
    for key, metric, value in report.per_trial():
        if key in done.touched or (key, metric) not in known:
            continue
        if value != known[key, metric]:
            yield "a table shows another number of an untouched run", f"{key} {metric}: {value}"
    cells = report.cells()
    changed = {
        (row["dataset"], row["method"])
        for where, row in before.rows.items()
        if where[0] in done.touched
    }
    for place, (keys, numbers) in before.cells().items():
        found = cells.get(place)
        if place[:2] in changed or done.plan:  # also by a draw that was not chosen
            continue
        if found is None:
            yield "a row of untouched runs is gone", f"{place}, unfinished are {reported}"
        elif found != (keys, numbers):
            yield "a row of untouched runs has other numbers", f"{place}: {found} not {numbers}"


def launch_again(folder: Path, tally: Tally, number: int, what: str) -> None:
    """Launch the sweep on a changed folder, in a process of its own, and judge how that ends."""
    file = folder.parent / "real.toml"
    file.write_text(REAL)
    command = [
        sys.executable,
        "-m",
        "benchmark.sweep",
        "launch",
        str(file),
        "--output",
        str(folder),
    ]
    command += ["--device", "cpu", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        tally.fault(number, "launch hangs", what)
        return
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    if done.returncode not in CODES or "Traceback" in output:
        tally.fault(
            number, f"launch ends with {done.returncode} or a traceback", f"{what}\n{output}"
        )
    tally.outcomes[f"launched again with exit code {done.returncode}"] += 1


def make_base(folder: Path, out: Path) -> Base:
    tally = Tally("base", 1)
    shutil.rmtree(out, ignore_errors=True)
    report = collect(folder, out, tally, 0, "before any mutation")
    tally.outcomes["reported"] += 1
    tally.finish()
    assert report is not None
    return Base(folder, report)


@dataclass
class Reference:
    """Reports of a base in which one run has the plainest damage: what is left when it is lost."""

    home: Path
    reports: dict[tuple[Path, str], Report] = field(default_factory=dict)

    def without(self, base: Base, key: str) -> Report:
        if (base.folder, key) not in self.reports:
            folder = self.home / "reference"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(base.folder, folder)
            (folder / "runs" / key / RECORD).write_bytes(b"{")
            self.reports[base.folder, key] = make_base(folder, self.home / "reference_out").report
        return self.reports[base.folder, key]


def lost_alone(done: Mutation, report: Report) -> str | None:
    """The key of the run that cannot be read any more, where that is all that has happened."""
    unreadable = [run["key"] for run in report.tables["unfinished"] if run["state"] == "unreadable"]
    alone = len(unreadable) == 1 and set(unreadable) == done.touched and not done.plan
    return unreadable[0] if alone else None


def fuzz(bases: list[Base], cases: int, home: Path) -> None:
    tally = Tally.of("run_folders", cases)
    reference = Reference(home)
    mutations, weights = list(MUTATIONS), list(MUTATIONS.values())
    for number in tally.numbers():
        chance = tally.chance(number)
        base = chance.choice(bases)
        folder, out = home / "copy", home / "out"
        for path in (folder, out):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(base.folder, folder)
        done = chance.choices(mutations, weights)[0](chance, folder, base.keys)
        if base.folder.name == "real" and (done.launch or number % 12 == 0):
            launch_again(folder, tally, number, done.what)
        report = collect(folder, out, tally, number, done.what)
        if report is None:
            tally.outcomes["refused"] += 1
            continue
        found = list(compare(base, done, report))
        for signature, detail in found[:1]:
            tally.fault(number, signature, f"{done.what}: {detail}")
        lost = lost_alone(done, report)
        if lost is not None and reference.without(base, lost).cells() != report.cells():
            tally.fault(number, "a lost run changes the numbers of others", done.what)
        states = report.tables["states"]
        tally.outcomes["with unreadable runs" if "unreadable" in states else "reported"] += 1
    tally.finish()


def test_mutated_run_folders_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = make_base(fake_base(tmp_path / "fake"), tmp_path / "before")
    fuzz([base], 8, tmp_path)


@pytest.mark.very_slow
def test_mutated_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bases = [
        make_base(fake_base(tmp_path / "fake"), tmp_path / "before"),
        make_base(real_base(tmp_path / "work"), tmp_path / "before_real"),
    ]
    fuzz(bases, 500, tmp_path)
