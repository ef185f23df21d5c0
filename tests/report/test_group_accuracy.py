"""Test the table of the accuracy of every group against counts of the records."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.report.html.parts import sheet_body
from benchmark.report.report import make_report
from benchmark.report.tables.group_accuracy import group_sheet
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World


def test_accuracy_and_shade_of_every_group(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    world = World(size=120)
    fake.add(world, ERM)
    fake.add(world, DRO, trials=(0,))
    fake.add(world, Method("broken"), state="failed")
    table = make_report(fake.finish()).tables[0]
    sheet = group_sheet(table)
    assert sheet is not None and [row[0] for row in sheet.rows] == ["erm", "group_dro"]
    counts = [run.at.counts["unbiased"].astype(int) for run in table.rows[0].selected_runs]
    names = [f"class{label}/place{place}" for label in (0, 1) for place in (0, 1)]
    assert [head[0] for head in sheet.heads[1:]] == names
    for k, (label, place) in enumerate(np.ndindex(2, 2), 1):
        shares = [100 * each[place, label, label] / each[place, label].sum() for each in counts]
        mean = np.mean(shares)
        assert sheet.rows[0][k] == f"{mean:.1f} ± {np.std(shares, ddof=1):.1f}"
        depth = sheet.shades[0][k]
        assert depth is not None and abs(depth - (1 - mean / 100)) < 1e-9
        assert f"--depth:{100 - mean:.0f}%" in sheet_body(sheet)
    assert "±" not in sheet.rows[1][1]


def test_data_without_groups_have_no_such_table(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World("plain", size=40, splits=("test",), confounders=False), ERM)
    assert group_sheet(make_report(fake.finish()).tables[0]) is None
