"""Test notes on runs that were made or resumed under different conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark.report.formats.report_format import file_names
from benchmark.report.render import render
from benchmark.report.report import make_report
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World
from tests.support.messages import mentions

WORLD = World(size=60)
SAME = {
    "device": "cpu",
    "host": "a",
    "threads": 2,
    "processor": "A",
    "instructions": "AVX2",
    "versions": {"torch": "2.9.1"},
    "commit": "a" * 40,
    "settings": {"onednn": "true"},
    "environment": {},
    "resumed": [],
}


def made(root: Path, *machines: dict[str, Any]) -> str:
    """The text of a report whose runs have these machines; the first one has all the others."""
    fake = FakeSweep(root)
    keys = fake.add(WORLD, ERM) + fake.add(WORLD, DRO)
    folder = fake.finish()
    for key, machine in zip(keys, [*machines, *[{}] * len(keys)], strict=False):
        path = folder / "runs" / key / "record.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "machine": {**SAME, **machine}}))
    report = make_report(folder)
    for form in file_names():
        if form not in ("csv", "json"):
            shown = render(report, form)
            assert ("different conditions" in shown) == ("different conditions" in _text(report))
    return _text(report)


def _text(report: Any) -> str:
    return " ".join(render(report, "text").split())


def test_equal_conditions_need_no_note(tmp_path: Path) -> None:
    text = made(tmp_path, {"host": "another", "processor": "another"})
    assert "conditions" not in text


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ({"threads": 1}, "threads 1 or 2"),
        ({"device": "NVIDIA H200"}, "device NVIDIA H200 or cpu"),
        ({"instructions": "AVX512"}, "instructions AVX2 or AVX512"),
        ({"versions": {"torch": "2.10.0"}}, "torch 2.10.0 or 2.9.1"),
        ({"commit": "b" * 40 + "-dirty"}, "commit aaaaaaaaaa or bbbbbbbbbb-dirty"),
        ({"settings": {"onednn": "false"}}, "onednn false or true"),
    ],
)
def test_what_differs_is_a_footnote(machine: dict[str, Any], expected: str, tmp_path: Path) -> None:
    text = made(tmp_path, machine)
    assert f"made under different conditions ({expected}): results are equal bit for bit" in text


def test_runs_that_were_resumed_under_other_conditions_are_a_footnote(tmp_path: Path) -> None:
    change = "torch 2.9.1 after 2.9.0"
    text = made(tmp_path, {"resumed": [change]}, {"resumed": [change]})
    assert mentions(text, "2 of 6 selected runs", "resumed", f"({change})")
    assert "made under different conditions" not in text


def test_records_that_do_not_tell_are_not_compared(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    assert "conditions" not in _text(make_report(fake.finish()))
