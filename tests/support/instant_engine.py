"""An engine that commits a valid record at once, to measure what everything around it costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmark.core.files import commit_once, to_json
from benchmark.core.layout import RunFolder
from benchmark.core.outcome import RunOutcome
from benchmark.core.spec import read_spec
from tests.support.fake_sweep import ERM, FakeSweep, World, make_record, value_of

#: What every run measures; small, since the report reads it 10,000 times.
WORLD = World(size=40)
CRITERIA = ("val_accuracy", "val_worst_group")


def _selected() -> dict[str, Any]:
    sweep = FakeSweep(Path(), criteria=CRITERIA)
    counts = {
        split: answer["counts"]
        for split, answer in sweep._answers(
            sweep._spec(WORLD, ERM, 0, 0, {}, {}), WORLD, ERM
        ).items()
    }
    return {
        criterion: {
            "step": 200,
            "value": value_of(counts["val"], criterion),
            "splits": {split: {"counts": table.tolist()} for split, table in counts.items()},
        }
        for criterion in CRITERIA
    }


SELECTED = _selected()


def execute(folder: Path, attempt: int, **_: Any) -> RunOutcome:
    """Commit the record of a run as the real engine does, without training anything."""
    run = RunFolder(folder)
    record = make_record(read_spec(folder), SELECTED, WORLD.data(), ERM) | {"attempt": attempt}
    if run.record.exists():
        return RunOutcome.SETTLED
    if not commit_once(run.record, to_json(record, indent=None)):
        return RunOutcome.SETTLED
    os.replace(run.attempt(attempt).output, run.output)
    return RunOutcome.DONE
