"""The [explanations] table of a sweep plans measurements of every trained model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.errors import Problems, UserError
from benchmark.core.needs import Needs
from benchmark.core.spec import RunSpec
from benchmark.plan.measurements import PlannedExplainer, measurement_spec
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweep_folder import read_stored, write_plan
from benchmark.plan.sweepfile import ExplanationsTable, config_from

EXPLANATIONS = {"explainers": ["lrp", "rise:masks=8"], "metrics": ["mass"], "images": 4}


def plan(explanations: dict[str, Any] | None = EXPLANATIONS, **values: Any) -> Plan:
    table = {
        "datasets": ["tiny:size=32"],
        "algorithms": ["erm", "group_dro"],
        "backbone": "convnet:width=2",
        **values,
    }
    if explanations is not None:
        table["explanations"] = explanations
    return expand(config_from(table, "test", "test.toml"))


def problems(explanations: Any, **values: Any) -> str:
    with pytest.raises(Problems) as found:
        plan(explanations, **values)
    return "\n".join(found.value.problems)


def test_every_model_is_measured_by_every_explainer() -> None:
    found = plan(trials=2)
    measured = [run for run in found.runs.values() if run.explainer]
    assert len(found.runs) == 4 + 4 * 2 and len(measured) == 8
    for run in measured:
        model = found.runs[run.spec.upstream["model"]].spec
        assert run.requested and run.spec.measurement is not None
        assert (model.method, model.trial) == (run.spec.method, run.spec.trial)
        assert run.spec.budget["steps"] == 0 and run.spec.measurement.splits == (
            "biased",
            "unbiased",
            "deceiving",
        )
    assert {run.explainer for run in measured} == {"lrp", "rise:masks=8"}


def test_the_keys_of_models_do_not_depend_on_measurements() -> None:
    without = plan(None)
    assert set(without.runs) <= set(plan().runs)
    spec = next(iter(without.runs.values())).spec
    assert "measurement" not in spec.to_json()
    assert "explanations" not in without.config.to_json()
    entries = without.to_plan().to_json()["runs"].values()
    assert all("explainer" not in entry for entry in entries)


def test_a_spec_with_a_measurement_survives_json() -> None:
    for run in plan().runs.values():
        text = json.dumps(run.spec.to_json())
        assert RunSpec.from_json(json.loads(text)) == run.spec


def test_an_option_that_is_written_out_makes_the_same_measurement() -> None:
    one = {"explainers": ["rise"], "metrics": ["mass"]}
    other = {"explainers": ["rise:masks=4096"], "metrics": ["mass"]}
    assert set(plan(one).runs) == set(plan(other).runs)
    assert "the same explainer" in problems({"explainers": ["rise", "rise:masks=4096"]})


def test_a_trained_explainer_is_trained_for_every_model() -> None:
    found = plan({"explainers": ["nemt:keep"], "metrics": ["mass"]})
    measured = [run.spec for run in found.runs.values() if run.explainer]
    assert len(measured) == 2
    for spec in measured:
        explainer = found.runs[spec.upstream["explainer"]]
        assert not explainer.requested
        assert explainer.spec.upstream == {"classifier": spec.upstream["model"]}
        assert explainer.spec.hparams["explained"] == spec.method
        assert explainer.spec.hparams["form"] == "keep"


def test_a_trained_explainer_has_the_data_and_the_network_of_its_model() -> None:
    own = {"erm": {"dataset": {"bias": 0.5}, "backbone": "convnet:width=3"}}
    found = plan({"explainers": ["nemt"]}, override=own, algorithms=["erm"])
    (spec,) = [run.spec for run in found.runs.values() if run.explainer]
    explainer = found.runs[spec.upstream["explainer"]].spec
    assert explainer.dataset_options["bias"] == 0.5 and explainer.backbone_options["width"] == 3


@pytest.mark.parametrize(
    ("explanations", "expected"),
    [
        ({"explainers": ["lpr"]}, "unknown explainer 'lpr'; did you mean lrp"),
        ({"explainers": ["erm"]}, "unknown explainer 'erm'"),
        ({"explainers": ["nemt:kep"]}, "nemt has no variant 'kep'; did you mean keep"),
        ({"explainers": ["rise:mask=3"]}, "mask"),
        ({"explainers": ["rise:masks=many"]}, "masks"),
        ({"explainers": ["lrp"], "metrics": ["mas"]}, "unknown explanation metric 'mas'"),
        ({"explainers": ["lrp"], "splits": ["test"]}, "has none of the splits test; it has: val"),
        ({"explainers": ["lrp"], "images": 0}, "images = 0 is not a whole number"),
        ({"explainers": ["lrp"], "image": 3}, "has no key 'image'; did you mean images"),
        ({"metrics": ["mass"]}, "explainers is missing"),
        ({"explainers": ["lrp", "lrp"]}, "contains lrp twice"),
        ({"explainers": ["lrp"], "target": "labels"}, "target = 'labels' is not one of"),
        ("lrp", "is not a table"),
    ],
)
def test_mistakes(explanations: Any, expected: str) -> None:
    assert expected in problems(explanations)


def test_a_metric_that_needs_masks_is_refused_without_them() -> None:
    found = plan()
    spec = next(iter(found.runs.values())).spec
    info = replace(found.data[spec.data_fingerprint].info, provides=Needs())
    lrp = PlannedExplainer("lrp", "lrp")
    with pytest.raises(UserError, match=r"metric rank needs masks.*tiny"):
        measurement_spec(ExplanationsTable(("lrp",), ("rank",)), lrp, spec, info, None)
    table = ExplanationsTable(("lrp",), ("complexity",))
    assert measurement_spec(table, lrp, spec, info, None).measurement is not None


def test_the_label_can_be_explained() -> None:
    found = plan({**EXPLANATIONS, "target": "label"})
    assert not set(plan().runs) & {key for key, run in found.runs.items() if run.explainer}
    spec = next(iter(found.runs.values())).spec
    info = replace(found.data[spec.data_fingerprint].info, multi_label=True)
    table = ExplanationsTable(("lrp",), ("complexity",), target="label")
    with pytest.raises(UserError, match="images of tiny may have several labels"):
        measurement_spec(table, PlannedExplainer("lrp", "lrp"), spec, info, None)


def test_a_refused_trained_explainer_is_left_out_on_request() -> None:
    vit = {"backbone": "vit:dim=24,depth=2,heads=2,patch=8", "algorithms": ["erm"]}
    both = {"explainers": ["nemt", "rollout"], "metrics": ["mass"]}
    assert "it decodes maps of several sizes" in problems(both, **vit)
    found = plan(both, **vit, skip_impossible=True)
    assert [run.explainer for run in found.runs.values() if run.explainer] == ["rollout"]
    (refused,) = found.refused
    assert refused.explainer == "nemt" and refused.method == "erm"


def test_a_later_explainer_adds_measurements_and_nothing_else(tmp_path: Path) -> None:
    write_plan(plan(), tmp_path)
    first = set(read_stored(tmp_path).runs)
    write_plan(plan({**EXPLANATIONS, "explainers": ["gradcam"]}), tmp_path)
    runs = read_stored(tmp_path).runs
    added = set(runs) - first
    assert first <= set(runs) and {runs[key].explainer for key in added} == {"gradcam"}


def test_measurements_of_replaced_models_are_dropped(tmp_path: Path) -> None:
    write_plan(plan(), tmp_path)
    write_plan(plan(None, budget={"steps": 7}, algorithms=["erm"]), tmp_path)
    runs = read_stored(tmp_path).runs
    assert {run.method for run in runs.values() if run.explainer} == {"group_dro"}
    models = [run for run in runs.values() if not run.explainer]
    assert sorted(run.method for run in models) == ["erm", "group_dro"]


def test_the_label_of_a_measurement_names_the_explainer(tmp_path: Path) -> None:
    write_plan(plan(algorithms=["erm"]), tmp_path)
    labels = {run.label for run in read_stored(tmp_path).runs.values()}
    assert labels == {
        "erm on tiny:size=32",
        "lrp of erm on tiny:size=32",
        "rise:masks=8 of erm on tiny:size=32",
    }


def test_a_trained_explainer_is_selected_by_its_own_objective() -> None:
    """Its predictions are those of the model at every step, so accuracy would select the first."""
    explanations = {"explainers": ["nemt"], "metrics": ["mass"]}

    def selections(**values: Any) -> dict[str, tuple[str, ...]]:
        found = plan(explanations, algorithms=["erm"], selection=["val_accuracy"], **values)
        models = [run.spec for run in found.runs.values() if not run.explainer]
        return {spec.algorithm: spec.selection for spec in models}

    assert selections() == {"erm": ("val_accuracy",), "nemt": ("val_objective", "last")}
    override = {"nemt": {"selection": ["last"]}}
    assert selections(override=override) == {"erm": ("val_accuracy",), "nemt": ("last",)}
