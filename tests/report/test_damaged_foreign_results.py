"""Test damaged results of other benchmarks: NaN, wrong types, repetitions, contradictions."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.collect_results import main
from benchmark.core.errors import exit_code
from benchmark.report.external import domainbed, subpopbench
from benchmark.report.external.foreign_results import ForeignResults, flat_records, sheets
from tests.support.messages import each_mentions

Json = dict[str, Any]


def subpop(accuracy: float, draw: int = 0, seed: int = 0, step: int = 1) -> Json:
    """Return a record of SubpopBench whose test accuracy is 0.1 below validation accuracy."""

    def part(value: float) -> Json:
        return {
            "overall": {"accuracy": value, "macro_avg": {"precision": value, "f1-score": value}},
            "min_group": {"accuracy": value},
            "per_class": {
                k: {"recall": value, "precision": value, "f1-score": value} for k in "01"
            },
            "adjusted_accuracy": value,
        }

    args = {"dataset": "Waterbirds", "algorithm": "ERM", "seed": seed, "hparams_seed": draw}
    return {"args": args, "va": part(accuracy), "te": part(accuracy - 0.1), "step": step}


def domain(accuracy: float, draw: int = 0, trial: int = 0, step: int = 1) -> Json:
    """Return a record of DomainBed that hides environment 0 of four."""
    args = {
        "dataset": "PACS", "algorithm": "ERM", "test_envs": [0], "trial_seed": trial,
        "hparams_seed": draw,
    }  # fmt: skip
    record: Json = {"args": args, "step": step}
    for e in range(4):
        record |= {f"env{e}_in_acc": accuracy - 0.1, f"env{e}_out_acc": accuracy}
    return record


SOURCES: dict[str, tuple[str, Callable[..., Json], Callable[[Path], ForeignResults]]] = {
    "subpopbench": ("results.json", subpop, subpopbench.read),
    "domainbed": ("results.jsonl", domain, domainbed.read),
}


def write(folder: Path, source: str, *lines: Any) -> None:
    """Write one folder per line; objects other than strings are written as JSON."""
    for i, line in enumerate(lines):
        (folder / str(i)).mkdir(parents=True)
        text = line if isinstance(line, str) else json.dumps(line)
        (folder / str(i) / SOURCES[source][0]).write_text(text + "\n", encoding="utf-8")


def means(found: ForeignResults) -> dict[str, float]:
    """Return the mean of the first column of every selection."""
    shown: dict[str, float] = {}
    for score in found.scores:
        shown.setdefault(score.selection, score.mean)
    return shown


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.5, -0.1])
@pytest.mark.parametrize("place", range(3))
def test_a_value_that_is_no_number_never_wins_subpopbench(
    tmp_path: Path, bad: float, place: int
) -> None:
    """The damaged record may be in any draw, and the damage in any part of it."""
    records = [subpop(0.5, 0), subpop(0.9, 1), subpop(0.7, 2)]
    clean = [record for i, record in enumerate(records) if i != place]
    write(tmp_path / "clean", "subpopbench", *clean)
    broken = records[place]
    for part in ("va", "te"):
        broken[part]["min_group"]["accuracy"] = bad
        broken[part]["per_class"]["1"]["recall"] = bad
    write(tmp_path / "broken", "subpopbench", *records)
    expected, found = (subpopbench.read(tmp_path / name) for name in ("clean", "broken"))
    assert means(found) == means(expected) and len(means(found)) == 3
    assert [note for note in found.notes if "no number to be selected by" in note]
    assert all(math.isfinite(row["value"]) for row in flat_records(found))


def test_a_class_without_a_number_has_no_least(tmp_path: Path) -> None:
    """Python's min() returns NaN or ignores it, depending on the order of the classes."""
    for order in ("01", "10"):
        record = subpop(0.9, 0)
        classes = record["va"]["per_class"]
        classes["0"]["recall"], classes["1"]["recall"] = math.nan, 0.99
        record["va"]["per_class"] = {k: classes[k] for k in order}
        write(tmp_path / order, "subpopbench", record, subpop(0.5, 1))
        found = means(subpopbench.read(tmp_path / order))
        assert found["validation set worst accuracy (without attributes)"] == pytest.approx(0.4)
        assert found["validation set worst accuracy (with attributes)"] == pytest.approx(0.8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 2.0])
@pytest.mark.parametrize("name", ["env0_in_acc", "env2_out_acc"])
def test_a_record_with_such_a_value_is_left_out_domainbed(
    tmp_path: Path, bad: float, name: str
) -> None:
    broken = {**domain(0.9, 0), name: bad}
    write(tmp_path, "domainbed", broken, domain(0.5, 1))
    found = domainbed.read(tmp_path)
    assert each_mentions(found.notes, ["1", "no numbers from 0 to 1", "left out"])
    assert (
        list(means(found).values()) == pytest.approx([0.4] * len(means(found)))
        and found.records == 1
    )


def test_nothing_that_can_be_used_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "domainbed", {**domain(0.9), "env1_out_acc": math.nan})
    assert exit_code(lambda: main(["--from", "domainbed", str(tmp_path)])) == 2
    assert "no numbers from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("source", SOURCES)
def test_a_record_that_is_there_twice_counts_once(tmp_path: Path, source: str) -> None:
    _, make, read = SOURCES[source]
    write(tmp_path / "once", source, make(0.9, 0), make(0.5, 1))
    write(tmp_path / "twice", source, make(0.9, 0), make(0.5, 1), make(0.9, 0))
    once, twice = read(tmp_path / "once"), read(tmp_path / "twice")
    assert once.scores == twice.scores and once.records == twice.records == 2
    assert each_mentions(twice.notes, ["1", "repeat", "left out"])


@pytest.mark.parametrize("source", SOURCES)
def test_of_contradictory_records_the_first_stands(tmp_path: Path, source: str) -> None:
    _, make, read = SOURCES[source]
    write(tmp_path, source, make(0.5, 0), make(0.9, 0))
    found = read(tmp_path)
    assert list(means(found).values()) == pytest.approx([0.4] * len(means(found)))
    assert each_mentions(found.notes, ["1", "contradict", "left out"])


def test_records_with_another_number_of_environments(tmp_path: Path) -> None:
    short = {k: v for k, v in domain(0.9, 7).items() if not k.startswith("env3")}
    write(tmp_path, "domainbed", domain(0.5, 0), domain(0.4, 1), short)
    found = domainbed.read(tmp_path)
    assert each_mentions(found.notes, ["1", "number of environments", "left out"])
    assert list(means(found).values()) == pytest.approx([0.4] * len(means(found)))


@pytest.mark.parametrize("hidden", [[], [4], [-1], [0, 0], 0, "0", [0.0], [True], None])
def test_hidden_environments_that_are_none(tmp_path: Path, hidden: Any) -> None:
    odd = domain(0.9, 7)
    odd["args"]["test_envs"] = hidden
    write(tmp_path, "domainbed", domain(0.5, 0), odd)
    found = domainbed.read(tmp_path)
    assert (
        list(means(found).values()) == pytest.approx([0.4] * len(means(found)))
        and found.records == 1
    )


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in a JSON value."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from leaves(item, (*path, i))


DEEP = "[" * 100_000 + "]" * 100_000
VALUES: list[Any] = [
    None, True, "text", "", -1, 10**400, 1e308, math.nan, math.inf, [], {}, [[1]], {"a": {}},
    "\ud800", "\x1b[31m",
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_every_field_replaced_by_something_else(tmp_path: Path, source: str) -> None:
    """Another record is not affected, nothing raises, and every shown value is a number."""
    _, make, read = SOURCES[source]
    sound = make(0.5, 1)
    number = 0
    for path in leaves(make(0.9, 0)):
        for value in (*VALUES, KeyError):
            broken = copy.deepcopy(make(0.9, 0))
            at = broken
            for step in path[:-1]:
                at = at[step]
            if value is KeyError:
                del at[path[-1]]
            else:
                at[path[-1]] = value
            folder = tmp_path / str(number)
            number += 1
            write(folder, source, broken, sound)
            found = read(folder)
            assert found.scores, (path, value)
            for row in flat_records(found):
                assert 0 <= row["value"] <= 1 and math.isfinite(row["standard_error"])
            assert sheets(found)
    assert number > 100


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("line", ["{", DEEP, "[]", "null", "3", '"text"', "NaN", "{} {}", "\x00"])
def test_lines_that_are_no_record(tmp_path: Path, source: str, line: str) -> None:
    _, make, read = SOURCES[source]
    write(tmp_path, source, line, make(0.5))
    found = read(tmp_path)
    assert found.records == 1 and len(found.notes) == 1 and "left out" in found.notes[0]


@pytest.mark.parametrize("source", SOURCES)
def test_files_that_are_none(tmp_path: Path, source: str) -> None:
    name, make, read = SOURCES[source]
    write(tmp_path, source, make(0.5))
    for number, content in ((10, b"\xff\xfe\x00"), (11, None), (12, "loop")):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is None:
            path.mkdir()
        else:
            path.symlink_to(name)
    found = read(tmp_path)
    assert found.records == 1
    assert found.notes == [
        f"1 folders without {name}, left out",  # the link in a circle
        "1 torn lines, left out",
        f"1 files {name} that cannot be read, left out",
    ]


def test_a_data_set_of_one_environment(tmp_path: Path) -> None:
    """Only the oracle can select without validation environments."""
    only = {k: v for k, v in domain(0.9).items() if not k.startswith(("env1", "env2", "env3"))}
    write(tmp_path, "domainbed", only)
    assert list(means(domainbed.read(tmp_path))) == ["test-domain validation set (oracle)"]
