"""Mutated command lines end with a known exit code; a refused one writes nothing."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark import collect_results, data, sweep, train
from benchmark.cli import programs
from tests.fuzz.oracle import CODES, ROOT, Main, Tally, run, snapshot
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World

SWEEP = """
datasets = ["tiny:size=16,side=8"]
algorithms = ["erm"]
selection = ["last"]
[budget]
steps = 2
evaluate_every = 1
"""

_RUN = "--dataset tiny:size=16,side=8 --output out --device cpu"

#: Valid command lines, by entry point; they run in a folder with what ``furnish`` puts there.
LINES: dict[str, tuple[str, ...]] = {
    "sweep": (
        "launch mine.toml --output out --device cpu --workers 1 --dry-run",
        "launch mine.toml --datasets tiny:size=16,side=8 --algorithms erm --trials 2 --dry-run "
        "--output new",
        "launch mine.toml --draws 1 --skip-impossible --oracle --dry-run --checkpoint-seconds 5 "
        "--per-gpu 1",
        "validate mine.toml --data-dir none --algorithms erm irm",
        "validate quickstart --trials 1",
        "status results/demo --once",
        "status --once",
        "retry results/demo",
        "retry results/demo --key 0123456789abcdef",
        "list algorithms --long",
        "list datasets",
        "list backbones --long",
        "list sweeps --long",
        "list criteria",
    ),
    "train": (
        f"{_RUN} --algorithm erm --steps 2 --evaluate-every 1",
        f"{_RUN} --algorithm group_dro --hparam lr=0.1 --hparam batch_size=4 --steps 1",
        f"{_RUN} --algorithm erm --backbone convnet:width=4 --selection last --steps 1",
        f"{_RUN} --algorithm reweight --trial 3 --draw 1 --steps 1 --oracle",
    ),
    "data": (
        "list --data-dir none",
        "check tiny:size=16",
        "check tiny --trial 2 --data-dir none",
        "check folder:path=pictures --data-dir .",
        "prepare tiny --cache-dir cache",
        "prepare waterbirds --archive damaged.tar.gz --data-dir none",
        "show tiny:size=16 --output sheet.png --splits train val --per-group 2 --groups 2",
    ),
    "shortcutbed": (
        "status results/demo --once",
        "train --dataset tiny:size=16,side=8 --algorithm erm --steps 1 --output out --device cpu",
        "data check tiny:size=16",
        "collect results/demo --tables-only --out tables",
        "list criteria",
        "--version",
    ),
    "collect_results": (
        "results/demo --tables-only",
        "demo --format latex --spread interval --out tables --figures none",
        "results/demo --detail --reference erm --split biased deceiving --tables-only",
        "--selection val_worst_group --tables-only --published",
        "results/demo --retrain-best 2 --tables-only --out tables",
        "results/demo --export runs.csv",
        "--audit tea_table4 --format csv",
        "--from domainbed elsewhere --out tables",
        "--from subpopbench elsewhere",
    ),
}

MAINS: dict[str, Main] = {
    "sweep": sweep.main,
    "train": train.main,
    "data": data.main,
    "shortcutbed": programs.main,
    "collect_results": collect_results.main,
}

#: Words that may stand anywhere.
ODD_WORDS = (
    "", " ", "-", "--", "-1", "0", "1e9", "nan", "inf", "-inf", "1e400", "9" * 30, "9" * 5000,
    "x" * 300, "x" * 5000, "a/b/c", "..", ".", "/", "/dev/null", "/proc/self/mem", "mine.toml",
    "results", "a-file", "a-file/x", "a-loop", "no such", "ü–", "a\nb", "a\x1b[31mb", "caf\udce9",
    "a\x00b", "--help", "--version", "--once", "--output", "--nope", "--trials=-3", "--trials=x",
    "tiny", "tiny:", "tiny:bias", "tiny:bias=", "tiny:bias=2", "tiny:bias=nan", ":",
    "tiny:size=100000000000000", "tiny:side=1", "tiny:side=1000000", "erm", "erm:", "lr=", "=1",
    "lr=nan", "lr=1e400", "batch_size=1000000000000", "batch_size=-1", "folder:path=..",
    "folder:path=/", "listed:path=pictures,table=..", "planted:on=tiny", "planted:on=planted",
    "planted:on=folder,options=path=pictures", "%s", "{}", "$HOME", "~", "*", "\\", "'", '"',
    "[1, 2]", "0x10", "１", "--sweep", "--device=cuda", "--format=html", "@mine.toml",
)  # fmt: skip


def furnish(folder: Path) -> None:
    """Write what the command lines name: a sweep file, results, images, and misleading files."""
    (folder / "mine.toml").write_text(SWEEP)
    fake = FakeSweep(folder / "results")
    fake.add(World(size=20), ERM, trials=(0, 1))
    fake.add(World(size=20), DRO, trials=(0,), state="failed")
    fake.finish()
    (folder / "a-file").write_text("hello\n")
    (folder / "a-loop").symlink_to("a-loop")
    (folder / "damaged.tar.gz").write_bytes(b"\x1f\x8b\x08\x00junk")
    (folder / "pictures").mkdir()
    (folder / "elsewhere" / "run").mkdir(parents=True)
    (folder / "elsewhere" / "run" / "results.jsonl").write_text('{"args": {}}\n')
    (folder / "elsewhere" / "run" / "done").touch()


def mutated(chance: random.Random, line: str) -> list[str]:
    """A command line with one to three words changed, lost, repeated or moved, or as it was."""
    words = line.split()
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        kind = chance.choice(
            ("replace", "replace", "value", "value", "insert", "drop", "repeat", "swap")
        )
        at = chance.randrange(len(words)) if words else 0
        values = [i + 1 for i, word in enumerate(words[:-1]) if word.startswith("--")]
        if kind == "insert" or not words:
            words.insert(at, chance.choice(ODD_WORDS))
        elif kind == "value" and values:
            words[chance.choice(values)] = chance.choice(ODD_WORDS)
        elif kind == "drop":
            del words[at]
        elif kind == "repeat":
            words.insert(at, words[at])
        elif kind == "swap":
            other = chance.randrange(len(words))
            words[at], words[other] = words[other], words[at]
        else:
            words[at] = chance.choice(ODD_WORDS)
    return words


def really_launches(name: str, words: list[str]) -> bool:
    """Return True if a mutation would let a command start processes or use the network."""
    if name in ("sweep", "shortcutbed") and "launch" in words and "--dry-run" not in words:
        return True
    return any(word.startswith("--down") or word in ("nuts", "--engine=nuts") for word in words)


def fuzz(cases: int, home: Path, go_to: Callable[[Path], None]) -> None:
    tally = Tally.of("command_lines", cases)
    furnished = home / "furnished"
    furnished.mkdir()
    furnish(furnished)
    _warm_up(home)
    for number in tally.numbers():
        chance = tally.chance(number)
        name = chance.choices(list(LINES), [4, 2, 3, 1, 4])[0]
        words = mutated(chance, chance.choice(LINES[name]))
        if really_launches(name, words):
            words.append("--help")
        folder = home / "here"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(furnished, folder, symlinks=True)
        go_to(folder)
        before = snapshot(folder)
        as_process = not any("\x00" in word for word in words) and number % 25 == 3
        command = f"{name} {words!r}"[:600]
        if as_process:
            tally.outcomes[_in_subprocess(tally, number, name, words, command)] += 1
        else:
            answer = run(MAINS[name], words, 60.0)
            tally.judge(number, answer, command)
            tally.outcomes[f"exit code {answer.code}"] += 1
            if answer.code == 2 and snapshot(folder) != before:
                changed = dict(snapshot(folder).items() ^ before.items())
                tally.fault(
                    number, "exit code 2 and something was written", f"{command}\n{changed}"
                )
        go_to(home)
    tally.finish()


def _warm_up(home: Path) -> None:
    """Import what a first run imports: an import that runs out of memory is not repeated."""
    assert train.main([*LINES["train"][0].replace(" out ", f" {home / 'first'} ").split()]) == 0
    assert data.main(["show", "tiny", "--output", str(home / "first.png")]) == 0


def _in_subprocess(tally: Tally, number: int, name: str, words: list[str], command: str) -> str:
    """The same in a process of its own, as users call it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    module = "benchmark.cli.programs" if name == "shortcutbed" else f"benchmark.{name}"
    program = f"import sys; from {module} import main; from benchmark.core.errors import exit_code"
    program += "; sys.exit(exit_code(lambda: main(sys.argv[1:])))"
    command = [sys.executable, "-c", program, *map(os.fsencode, words)]
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        tally.fault(number, "hang of a process", command)
        return "hang"
    if done.returncode not in CODES:
        tally.fault(
            number, f"exit code {done.returncode} of a process", f"{command}\n{done.stderr!r}"
        )
    if b"Traceback" in done.stderr + done.stdout:
        tally.fault(number, "a traceback of a process", f"{command}\n{done.stderr.decode()}")
    return f"exit code {done.returncode} of a process"


def test_mutated_command_lines_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHORTCUTBED_DATA", raising=False)
    monkeypatch.setenv("SHORTCUTBED_CACHE", "")
    fuzz(8, tmp_path, monkeypatch.chdir)


@pytest.mark.very_slow
def test_mutated_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHORTCUTBED_DATA", raising=False)
    monkeypatch.setenv("SHORTCUTBED_CACHE", "")
    fuzz(300, tmp_path, monkeypatch.chdir)
