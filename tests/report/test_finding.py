"""Test the sentence that answers the question of a sweep, on sweeps of every kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.report.report import make_report
from benchmark.report.tables.finding import finding, overall_finding
from benchmark.report.tables.report_table import Report
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import mentions

WORLD = World(size=200)
MISLED = Method("erm", 0.95, 0.1)
ROBUST = Method("group_dro", 0.92, 0.84)
ALIKE = Method("irm_", 0.92, 0.84)


def report_of(
    root: Path, methods: Sequence[Method], *worlds: World, trials: Sequence[int] = (0, 1, 2)
) -> Report:
    fake = FakeSweep(root)
    for world in worlds or (WORLD,):
        for method in methods:
            fake.add(world, method, trials=trials)
    return make_report(fake.finish())


def test_the_misled_method_and_those_that_cannot_be_told_apart(tmp_path: Path) -> None:
    table = report_of(tmp_path, (ROBUST, MISLED, ALIKE)).tables[0]
    sentence = finding(table)
    columns = {column.name: i for i, column in enumerate(table.columns)}
    gap = columns["gap"]
    erm = table.rows[1].values
    fall = re.match(
        r"erm falls from (\d+) % on biased to (\d+) % on deceiving images, .*: "
        r"by (\d+) points \(95 % interval (\d+) to (\d+)\); ",
        sentence,
    )
    assert fall is not None
    biased, deceiving, points, low, high = map(int, fall.groups())
    for printed, column in ((biased, "biased_accuracy"), (deceiving, "deceiving_accuracy")):
        assert printed == round(100 * (erm[columns[column]].estimate.value or 0))
    estimate = erm[gap].estimate
    assert estimate.value is not None and estimate.low is not None and estimate.high is not None
    assert points == round(100 * estimate.value)
    assert low <= 100 * estimate.low and 100 * estimate.high <= high < 100 * estimate.high + 1
    alike = sorted(round(100 * (table.rows[i].values[gap].estimate.value or 0)) for i in (0, 2))
    span = " to ".join(map(str, dict.fromkeys(alike)))
    assert [row.values[gap].best for row in table.rows] == [True, False, True]
    assert re.search(rf"(group_dro and irm_|irm_ and group_dro) lose {span} points", sentence)
    assert "with no clear best among them" in sentence


def test_nothing_told_apart_names_no_loser(tmp_path: Path) -> None:
    sentence = finding(report_of(tmp_path, (ROBUST, ALIKE)).tables[0])
    assert sentence.startswith("From biased to deceiving images, ")
    assert "falls" not in sentence and "with no clear best among them" in sentence


def test_a_method_without_gap_that_is_wrong_everywhere_is_no_winner(tmp_path: Path) -> None:
    table = report_of(tmp_path, (ROBUST, MISLED, Method("guesses", 0.5, 0.5))).tables[0]
    assert table.rows[2].values[-1].best and table.rows[2].values[0].best is False
    assert mentions(finding(table), "guesses", "less accurate")


def test_one_method_in_one_trial(tmp_path: Path) -> None:
    sentence = finding(report_of(tmp_path, (MISLED,), trials=(0,)).tables[0])
    assert sentence.startswith("erm falls from ") and ";" not in sentence
    assert mentions(sentence, "one trial", "this network")


def test_a_clear_winner_loses_least(tmp_path: Path) -> None:
    sentence = finding(report_of(tmp_path, (ROBUST, MISLED)).tables[0])
    assert "; group_dro loses least, " in sentence and "no clear best" not in sentence


@pytest.mark.parametrize(
    ("confounders", "words"), [(True, "in the worst group"), (False, "on average")]
)
def test_without_a_deceiving_split(tmp_path: Path, confounders: bool, words: str) -> None:
    world = World("plain", size=300, splits=("test",), confounders=confounders)
    table = report_of(tmp_path, (Method("good", 0.97, 0.95), Method("bad", 0.6, 0.4)), world)
    sentence = finding(table.tables[0])
    assert sentence.startswith("bad reaches ") and words in sentence
    assert re.search(r"good .*\d+ % \(95 % interval \d+ to \d+\).*best", sentence)


def test_stand_in_data_and_missing_results_are_said(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    world = replace(WORLD, stand_in=True)
    fake.add(world, ERM)
    fake.add(world, DRO, state="failed")
    sentence = finding(make_report(fake.finish()).tables[0])
    assert "stand-in data" in sentence and "No result yet: group_dro." in sentence


def test_no_result_at_all(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, state="failed")
    assert finding(make_report(fake.finish()).tables[0]).startswith("No run has finished")


def test_many_data_sets_are_counted(tmp_path: Path) -> None:
    worlds = [World(name, size=200) for name in ("first", "second", "third")]
    report = report_of(tmp_path, (ROBUST, MISLED), *worlds)
    sentence = overall_finding(report.tables)
    assert mentions(sentence, "group_dro on all 3 data sets", "erm on none of 3")
    assert overall_finding(report.tables[:1]) == finding(report.tables[0])
    alone = report_of(tmp_path / "alone", (MISLED,), *worlds)
    assert "not compared" in overall_finding(alone.tables)


def test_signs_and_small_numbers(tmp_path: Path) -> None:
    """A negative gap rises, and is no loss in a range."""
    sentence = finding(report_of(tmp_path, (Method("odd", 0.3, 0.9),)).tables[0])
    assert sentence.startswith("odd rises from ") and "−" not in sentence
    both = finding(
        report_of(tmp_path / "both", (Method("one", 0.8, 0.83), Method("two2", 0.8, 0.82))).tables[
            0
        ]
    )
    assert "have gaps of " in both or " lose " in both
    assert "-" not in both
