"""The costs: seconds and ratios by hand, and what came first counted once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.report.report import make_report
from benchmark.report.tables.cost import cost_sheet
from tests.support.fake_sweep import ERM, FakeSweep, Method, World

WORLD = World(size=40)


def change(folder: Path, key: str, seconds: float) -> None:
    path = folder / "runs" / key / "record.json"
    record = json.loads(path.read_text())
    record["seconds"]["training"] = seconds
    path.write_text(json.dumps(record))


def rows_of(folder: Path) -> tuple[list[tuple[str, ...]], dict[str, list[str]], Any]:
    sheet = cost_sheet(make_report(folder).tables[0])
    assert sheet is not None
    return [tuple(head) for head in sheet.heads], {row[0]: row for row in sheet.rows}, sheet


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, dict[str, list[str]]]:
    """ERM; a helper that ERM precedes; TEA after both of them."""
    fake = FakeSweep(tmp_path)
    keys = {ERM.label: fake.add(WORLD, ERM, trials=(0, 1))}
    helper, tea = Method("helper", 0.9, 0.8), Method("tea", 0.9, 0.8)
    for trial in (0, 1):
        erm = keys[ERM.label][trial]
        keys.setdefault("helper", []).extend(
            fake.add(WORLD, helper, trials=(trial,), upstream={"biased": erm})
        )
        first = {"teacher": erm, "segmenter": keys["helper"][trial]}
        keys.setdefault("tea", []).extend(fake.add(WORLD, tea, trials=(trial,), upstream=first))
    folder = fake.finish()
    for trial in (0, 1):
        change(folder, keys[ERM.label][trial], 10.0)
        change(folder, keys["helper"][trial], 4.0)
        change(folder, keys["tea"][trial], 30.0 + 2 * trial)
    return folder, keys


def test_what_came_first_is_shown_beside_and_counted_once(
    made: tuple[Path, dict[str, list[str]]],
) -> None:
    heads, rows, sheet = rows_of(made[0])
    at = {head: i for i, head in enumerate(heads)}
    training, ratio = at[("training", "seconds")], at[("ratio", "to erm")]
    before, both = at[("upstream", "seconds")], at[("ratio with", "upstream")]
    found = {name: [row[i] for i in (training, ratio, before, both)] for name, row in rows.items()}
    assert found == {
        "erm": ["10.0", "1.00", "–", "1.00"],
        "helper": ["4.0", "0.40", "10.0", "1.40"],
        "tea": [
            "31.0",
            "3.10",
            "14.0",
            "4.50",
        ],  # ERM came before the helper too, and was trained once
    }
    assert any("several runs may share them" in sentence for sentence in sheet.caption)


def test_who_makes_no_steps_has_no_speed(made: tuple[Path, dict[str, list[str]]]) -> None:
    folder, keys = made
    for key in keys["helper"]:
        path = folder / "runs" / key / "record.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "images_per_second": 0.0}))
    heads, rows, _ = rows_of(folder)
    at = heads.index(("images", "per second"))
    assert rows["helper"][at] == "–" and rows["erm"][at] != "–"


def test_the_speed_of_inference_is_a_column_if_it_was_recorded(
    made: tuple[Path, dict[str, list[str]]],
) -> None:
    folder, keys = made
    column = ("inference,", "images/second")
    assert column not in rows_of(folder)[0], "records of earlier versions"
    for key, speed in zip(keys["tea"], (298.0, 302.0), strict=True):
        path = folder / "runs" / key / "record.json"
        record = {**json.loads(path.read_text()), "inference_images_per_second": speed}
        path.write_text(json.dumps(record))
    heads, rows, sheet = rows_of(folder)
    at = heads.index(column)
    assert (rows["tea"][at], rows["erm"][at]) == ("300", "–")
    assert any("inference" in sentence for sentence in sheet.caption)


def test_an_upstream_record_that_is_gone_is_no_zero(
    made: tuple[Path, dict[str, list[str]]],
) -> None:
    folder, keys = made
    (folder / "runs" / keys["helper"][0] / "record.json").unlink()
    heads, rows, _ = rows_of(folder)
    assert rows["tea"][heads.index(("upstream", "seconds"))] == "–"
    assert rows["tea"][heads.index(("ratio with", "upstream"))] == "–"


def test_without_upstream_runs_there_is_no_such_column(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    heads, rows, _ = rows_of(fake.finish())
    assert heads == [
        ("method",), ("training", "seconds"), ("ratio", "to erm"), ("worst group,", "minus erm"),
        ("images", "per second"), ("parameters", "(millions)"), ("peak memory", "(MB)"),
    ]  # fmt: skip
    assert rows["erm"] == ["erm", "6.0", "1.00", "0.0", "3,200", "0.01", "100"]
