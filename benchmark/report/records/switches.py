"""The step at which a run begins to train its method, and selections before that step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from benchmark.core.spec import RunSpec, before_switch
from benchmark.core.summaries import SelectedStep
from benchmark.report.records.sweep_records import SweepRun

#: The rule of ``Algorithm.active_from`` by method, for records of versions that did not record it.
_UNDECLARED: Mapping[str, Callable[[Mapping[str, Any], int], float]] = {
    "irm": lambda hp, steps: 0 if hp["penalty_weight"] == 1 else hp["anneal_iters"],
    "pgi": lambda hp, steps: math.ceil(max(hp["ramp"] * steps, 1) / 2) - 1,
    "segment_classify": lambda hp, steps: max(round(hp["segmenter_share"] * steps), 1),
    "tea": lambda hp, steps: math.ceil(hp["warmup"] * steps),
}


def switch_of(run: SweepRun) -> int:
    """Return the first step that trains the method of a run; 0 if all steps do."""
    declared = run.record.method.active_from if run.record else None
    if declared is None and run.spec is not None:
        declared = _undeclared(run.spec)
    return max(declared or 0, 0)


def chosen_before_switch(run: SweepRun, at: SelectedStep) -> bool:
    """Return whether a selected step precedes the first step of the method."""
    return before_switch(at.step, switch_of(run))


def _undeclared(spec: RunSpec) -> int:
    rule = _UNDECLARED.get(spec.algorithm)
    if rule is None:
        return 0
    try:
        return int(rule(spec.hparams, int(spec.budget["steps"])))
    except (KeyError, TypeError, ValueError, OverflowError):  # hyper-parameters of another version
        return 0
