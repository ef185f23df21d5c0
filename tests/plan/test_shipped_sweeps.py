"""In sweeps without downloads, every method is active and has its control."""

from __future__ import annotations

import pytest

from benchmark.core.registry import ALGORITHMS
from benchmark.plan.planner import expand
from benchmark.plan.resolve import switch_of
from benchmark.plan.sweepfile import find_sweep_file, read_sweep


@pytest.mark.parametrize("name", ["quickstart", "digits_on_photos", "background_bias"])
def test_every_method_reaches_its_switch_by_default(name: str) -> None:
    config = read_sweep(find_sweep_file(name)).changed(draws=(0,), trials=(0,))
    plan = expand(config)
    assert not plan.warnings
    late = [run for run in plan.runs.values() if switch_of(run.spec)]
    assert late
    for run in late:
        budget = run.spec.budget
        evaluated = [*range(0, budget["steps"], budget["evaluate_every"])[1:], budget["steps"]]
        after = [step for step in evaluated if step > switch_of(run.spec)]
        assert len(after) >= 3, f"{run.spec.method} can be selected at {after} alone"


def test_the_quickstart_has_the_controls_of_its_methods() -> None:
    methods = read_sweep(find_sweep_file("quickstart")).algorithms
    sampled = {ALGORITHMS.get(name).sampling for name in methods}
    assert sampled == {"random", "group", "environment"}
    assert {"erm", "reweight", "reweight_environments"} <= set(methods)


def test_explainers_small_measures_every_model_by_every_explainer() -> None:
    config = read_sweep(find_sweep_file("explainers_small"))
    assert len(config.trials) == 3
    plan = expand(config.changed(trials=(0,)))
    assert not plan.warnings and not plan.refused
    measured = [run for run in plan.runs.values() if run.explainer]
    models = [run for run in plan.runs.values() if run.requested and not run.explainer]
    assert len(models) == 2 * 3
    assert {run.dataset.partition("bias=")[2] for run in models} == {"0.1", "0.95"}
    for model in models:
        of_model = {
            run.explainer for run in measured if run.spec.upstream["model"] == model.spec.key
        }
        assert of_model >= {"lrp", "gradcam", "integrated_gradients", "rise:masks=400", "nemt"}
        assert of_model >= {"nemt:batch", "nemt:printed", "nemt:keep", "nemt:nem"}
