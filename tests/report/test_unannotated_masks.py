"""What tables say of methods that need masks, on data whose masks a network made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.report.render import render
from benchmark.report.report import make_report
from tests.support.fake_sweep import ERM, FakeSweep, Method, World
from tests.support.messages import mentions


@pytest.mark.parametrize("unannotated", [True, False])
def test_needs_of_the_rows(unannotated: bool, tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    world = World(size=40)
    methods = [
        ERM,
        Method("robust_vit", needs=("masks",)),
        Method("tea", needs=("groups", "masks", "val_masks")),
    ]
    for method in methods:
        fake.add(world, method, trials=(0,))
    folder = fake.finish()
    for path in folder.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        if unannotated:
            record["data"]["unannotated_masks"] = True
        path.write_text(json.dumps(record))
    report = make_report(folder)
    needs = {row.method: row.needs for row in report.tables[0].rows}
    if unannotated:
        assert needs == {
            "erm": (),
            "robust_vit": ("no annotation",),
            "tea": ("groups", "masks without annotation"),
        }
        text = " ".join(render(report, "text").split())
        assert mentions(text, "no annotation =", "masks", "network")
    else:
        assert needs["robust_vit"] == ("masks",)
        assert needs["tea"] == ("groups", "masks", "val_masks")
        assert "no annotation" not in render(report, "text")
