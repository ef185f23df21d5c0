"""Plans of sweeps: priorities of values, draws, upstream runs, refusals and problems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.errors import Problems
from benchmark.core.hparam import HParam
from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.core.spec import RunSpec
from benchmark.core.sweep_plan import Refusal
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweepfile import config_from
from tests.support.messages import mentions
from tests.support.toy_algorithms import Choosy, Circle, Pupil, Student, registered


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered(Student, Pupil, Circle, Choosy):
        yield


def _plan(skip: bool = False, **values: Any) -> Plan:
    least = {"datasets": ["tiny"], "algorithms": ["erm"], "backbone": "convnet:width=2"}
    return expand(config_from({**least, **values}, "test", "here"), skip_impossible=skip)


def _problems(**values: Any) -> tuple[str, ...]:
    with pytest.raises(Problems) as found:
        _plan(**values)
    return found.value.problems


def _specs(plan: Plan, requested: bool = True) -> list[RunSpec]:
    return [run.spec for run in plan.runs.values() if run.requested == requested]


def _only(**values: Any) -> RunSpec:
    (spec,) = _specs(_plan(**values))
    return spec


def test_every_default_is_resolved() -> None:
    spec = _only()
    assert spec.dataset_options == {"bias": 0.9, "size": 96, "side": 16}
    assert set(spec.hparams) == set(ALGORITHMS.get("erm").all_hparams(16))
    assert spec.backbone_options == {"width": 2}
    assert spec.budget == {"steps": 1000, "evaluate_every": 100, "patience": 0, "min_delta": 0.0}
    assert spec.compute == {
        "precision": "fp32",
        "channels_last": False,
        "compile": False,
        "deterministic": "auto",
        "explanations": True,
    }
    assert (spec.trial, spec.draw, spec.oracle, spec.upstream) == (0, 0, False, {})


def test_explicit_defaults_make_the_same_run() -> None:
    written = _only(
        datasets=["tiny:bias=0.9"],
        fixed={"lr": 0.001},
        budget={"steps": 1000, "evaluate_every": 100},
    )
    assert written.key == _only().key


def test_a_memory_format_that_the_run_chooses() -> None:
    chosen = _only(compute={"channels_last": "auto"})
    assert chosen.compute["channels_last"] == "auto"
    keys = [_only(compute={"channels_last": fixed}).key for fixed in (False, True)]
    assert keys[0] == _only().key
    assert len({chosen.key, *keys}) == 3


def test_data_sets_times_methods_times_trials_times_draws() -> None:
    plan = _plan(
        datasets=["tiny", "tiny:bias=0.5"], algorithms=["erm", "irm"], trials=[7, 3], draws=[0, 2]
    )
    found = [
        (r.dataset, s.algorithm, s.trial, s.draw) for r in plan.runs.values() for s in (r.spec,)
    ]
    assert len(found) == len(set(found)) == 16
    assert found[:3] == [("tiny", "erm", 7, 0), ("tiny", "erm", 7, 2), ("tiny", "erm", 3, 0)]


def test_draws_are_random_shared_between_methods_and_the_same_every_time() -> None:
    plan = _plan(algorithms=["erm", "irm"], draws=3)
    of = {(s.algorithm, s.draw): s.hparams for s in _specs(plan)}
    assert len({of["erm", d]["lr"] for d in (1, 2, 3)}) == 3
    for draw in (1, 2, 3):
        assert all(of["irm", draw][name] == of["erm", draw][name] for name in of["erm", draw])
    assert of == {
        (s.algorithm, s.draw): s.hparams for s in _specs(_plan(algorithms=["irm", "erm"], draws=3))
    }


def test_large_images_take_the_other_regime() -> None:
    assert _only(datasets=["tiny:side=64"]).hparams["lr"] == 1e-3
    assert _only(datasets=["tiny:side=65"]).hparams["lr"] == 5e-5


@pytest.mark.parametrize(
    ("override", "lr"),
    [
        ({}, 0.1),
        ({"tiny": {"lr": 0.2}}, 0.2),
        ({"tiny": {"lr": 0.2}, "tiny:bias=0.8": {"lr": 0.3}}, 0.3),
        ({"tiny:bias=0.8": {"lr": 0.3}, "cdan": {"lr": 0.4}}, 0.4),
        ({"cdan": {"lr": 0.4}, "cdan:cdann": {"lr": 0.5}}, 0.5),
        ({"cdan:cdann": {"lr": 0.5}, "cdan@tiny": {"lr": 0.6}}, 0.6),
        ({"cdan@tiny": {"lr": 0.6}, "cdan@tiny:bias=0.8": {"lr": 0.7}}, 0.7),
        ({"cdan@tiny:bias=0.8": {"lr": 0.7}, "cdan:cdann@tiny": {"lr": 0.8}}, 0.8),
        ({"cdan:cdann@tiny": {"lr": 0.8}, "cdan:cdann@tiny:bias=0.8": {"lr": 0.9}}, 0.9),
        ({"irm": {"lr": 0.4}, "cdan@tiny:bias=0.5": {"lr": 0.7}}, 0.1),
    ],
)
def test_the_more_special_override_wins(override: dict[str, Any], lr: float) -> None:
    datasets, algorithms = ["tiny:bias=0.8"], ["cdan:cdann"]
    for order in (override, dict(reversed(list(override.items())))):
        spec = _only(datasets=datasets, algorithms=algorithms, fixed={"lr": 0.1}, override=order)
        assert spec.hparams["lr"] == lr


def test_fixed_beats_a_draw_and_the_variant_beats_fixed() -> None:
    (spec,) = _specs(_plan(algorithms=["erm"], draws=1, fixed={"lr": 0.25}))
    assert spec.hparams["lr"] == 0.25
    spec = _only(algorithms=["toy_student:strong"], fixed={"weight": 0.1})
    assert spec.hparams["weight"] == 2.0
    spec = _only(algorithms=["toy_student:strong"], override={"toy_student": {"weight": 0.1}})
    assert spec.hparams["weight"] == 0.1


def test_fixed_reaches_only_those_that_declare_it() -> None:
    plan = _plan(algorithms=["erm", "irm"], fixed={"penalty_weight": 7.0})
    of = {s.algorithm: s.hparams for s in _specs(plan)}
    assert of["irm"]["penalty_weight"] == 7.0 and "penalty_weight" not in of["erm"]


def test_overrides_of_data_budget_augmentation_and_backbone() -> None:
    spec = _only(
        budget={"steps": 50, "evaluate_every": 7},
        augmentation={"flip": 0.5},
        override={
            "tiny": {"budget": {"patience": 3}, "augmentation": {"translate": 0.1}},
            "erm": {"dataset": {"bias": 0.6}, "budget": {"steps": 30}, "backbone": "mnist_cnn"},
            "erm@tiny": {"dataset": {"size": 48}},
        },
    )
    assert spec.dataset_options == {"bias": 0.6, "size": 48, "side": 16}
    assert spec.budget == {"steps": 30, "evaluate_every": 7, "patience": 3, "min_delta": 0.0}
    assert spec.augmentation == {"translate": 0.1}
    assert (spec.backbone, spec.backbone_options) == ("mnist_cnn", {})


def test_evaluations_default_to_a_tenth_of_the_steps() -> None:
    assert _only(budget={"steps": 55}).budget["evaluate_every"] == 5
    assert _only(budget={"steps": 3}).budget["evaluate_every"] == 1
    assert _only(override={"erm": {"budget": {"steps": 70}}}).budget["evaluate_every"] == 7


def test_augmentation_that_is_zero_is_none() -> None:
    assert _only(augmentation={"flip": 0, "rotate": 10}).augmentation == {"rotate": 10.0}


def test_augmentation_by_transforms_of_torchvision() -> None:
    jitter = {"brightness": 0.3, "hue": 0.1}
    spec = _only(augmentation={"flip": 0.5, "ColorJitter": jitter, "RandomGrayscale": 0})
    assert spec.augmentation == {"flip": 0.5, "ColorJitter": jitter}
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))).key == spec.key
    override = {"tiny": {"augmentation": {"ColorJitter": 0}}}
    assert not _only(augmentation={"ColorJitter": jitter}, override=override).augmentation


@pytest.mark.parametrize(
    ("augmentation", "words"),
    [
        ({"ColorJiter": {}}, "no kind 'ColorJiter'"),
        ({"Transform": 1}, "Transform = 1 is not a table"),
        ({"ColorJitter": 0.3}, "ColorJitter = 0.3 is not a table"),
        ({"ColorJitter": {"brigtness": 0.3}}, "did you mean brightness"),
        ({"ColorJitter": {"hue": 3.0}}, "ColorJitter cannot be used with"),
        ({"Resize": {"size": 7}}, "Resize changes the shape"),
        ({"Resize": {"size": 1_000_000}}, "expected numbers from -1,000 to 1,000"),
        ({"RandomRotation": {"degrees": [0, 1e9]}}, "RandomRotation has the option value"),
        ({"CutMix": {}}, "CutMix cannot be used with"),
        ({"ToDtype": {"dtype": "float64"}}, "ToDtype"),
    ],
)
def test_unsuitable_transforms(augmentation: dict[str, Any], words: str) -> None:
    (problem,) = _problems(augmentation=augmentation)
    assert words in problem


def test_all_problems_of_all_kinds_are_told_together() -> None:
    problems = _problems(
        datasets=["tiny:bais=1,size=x", "tinny"],
        algorithms=["erm", "irmm", "cdan:nosuch"],
        backbone="convnet:depth=3",
        fixed={"lr": "fast", "budget": 1},
        augmentation={"flip": 2, "swirl": 1},
        override={
            "erm": {"lrr": 1, "momentum": "x"},
            "irn": {"lr": 1.0},
            "erm:none": {},
            "erm@tinny2": {},
        },
    )
    expected = [
        "tiny has no option 'bais'; did you mean bias?",
        "tiny: size = 'x' is not an integer such as 96.",
        "unknown dataset 'tinny'; did you mean tiny?",
        "unknown algorithm 'irmm'; did you mean irm",
        "cdan has no variant 'nosuch'; there are: cdann.",
        "convnet has no option 'depth'",
        "erm: lr = 'fast' is a text, expected a number such as 0.001.",
        "[fixed] budget is not a hyper-parameter; give budget its own table or line.",
        "augmentation: flip = 2.0 is out of bounds, expected a value from 0 to 1.",
        "augmentation has no kind 'swirl'",
        "erm has no hparam 'lrr'; did you mean lr?",
        "erm: momentum = 'x' is a text, expected a number such as 0.9.",
        "[override.irn]: 'irn' is neither an algorithm nor a data set; did you mean irm",
        "[override.erm:none]: 'erm:none' is neither an algorithm nor a data set",
        "[override.erm@tinny2]: 'tinny2' is neither an algorithm nor a data set",
    ]
    for sentence in expected:
        assert sum(p.startswith(sentence) for p in problems) == 1, (sentence, problems)
    assert len(set(problems)) == len(problems)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"override": {"erm": {"budget": 3}}},
            "override: budget = 3 is not a table, expected budget = { name = value }",
        ),
        (
            {"override": {"erm": {"budget": {"stepz": 3}}}},
            "[budget] has no key 'stepz'; did you mean steps?",
        ),
        ({"override": {"erm": {"dataset": {"bias": 2}}}}, "tiny: bias = 2.0 is out of bounds"),
        (
            {"override": {"erm": {"backbone": "convnett"}}},
            "unknown backbone 'convnett'; did you mean convnet",
        ),
        (
            {"fixed": {"penalty": 3}},
            "[fixed] no algorithm of this sweep has a hyper-parameter 'penalty'; there are:",
        ),
        (
            {"override": {"tiny": {"dataset": {"bias": 0.5}}}},
            "options of a data set are written in its name",
        ),
        ({"backbone": "resnet18:small_stem=7"}, "resnet18: small_stem = '7' is not true or false"),
        (
            {"backbone": "densenet121"},
            "densenet121 needs images of at least 29×29 pixels, got 16×16; use ",
        ),
        (
            {"budget": {"patience": 2}, "selection": ["last"]},
            "(patience)",
        ),
        (
            {"fixed": {"lr_milestones": "0.5;0.7"}},
            "erm: lr_milestones = '0.5;0.7' has the wrong form",
        ),
        (
            {"datasets": ["tiny", "tiny:bias=0.9"]},
            "erm on tiny and erm on tiny:bias=0.9 are the same runs",
        ),
        ({"algorithms": ["erm", "erm:"]}, "erm on tiny and erm: on tiny are the same runs"),
    ],
)
def test_each_mistake_is_one_problem(values: dict[str, Any], message: str) -> None:
    (problem,) = _problems(**values)
    assert message in problem


def test_a_backbone_may_ask_for_less_with_its_options() -> None:
    assert _only(backbone="densenet121:small_stem=true").backbone_options["small_stem"] is True


def test_missing_data_are_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Problems) as found:
        expand(
            config_from({"datasets": ["cmnist"], "algorithms": ["erm", "irm"]}, "test", "here"),
            tmp_path,
        )
    (problem,) = found.value.problems
    assert str(tmp_path) in problem and problem.endswith((".", "download"))


# --- upstream runs ---


def test_two_students_share_a_teacher_and_it_comes_first() -> None:
    plan = _plan(algorithms=["toy_student", "toy_student:strong"], trials=2)
    teachers = _specs(plan, requested=False)
    assert [t.trial for t in teachers] == [0, 1]
    assert all(
        (t.algorithm, t.dataset_options["bias"], t.budget["steps"]) == ("erm", 0.5, 4)
        for t in teachers
    )
    order = list(plan.runs)
    for student in _specs(plan):
        assert student.upstream == {"teacher": teachers[student.trial].key}
        assert order.index(student.upstream["teacher"]) < order.index(student.key)
    assert len(plan.runs) == 6


@pytest.mark.parametrize("algorithms", [["erm", "toy_pupil"], ["toy_pupil", "erm"]])
def test_a_teacher_that_is_a_row_too_is_one_run(algorithms: list[str]) -> None:
    plan = _plan(algorithms=algorithms)
    assert len(plan.runs) == 2 and all(run.requested for run in plan.runs.values())
    of = {s.algorithm: s for s in _specs(plan)}
    assert of["toy_pupil"].upstream == {"teacher": of["erm"].key}
    order = list(plan.runs)
    assert order.index(of["erm"].key) < order.index(of["toy_pupil"].key)


def test_a_random_student_has_a_teacher_with_default_hyper_parameters() -> None:
    plan = _plan(algorithms=["toy_pupil"], draws=2)
    (teacher,) = _specs(plan, requested=False)
    assert teacher.draw == 0 and teacher.hparams["lr"] == 1e-3
    assert len({s.hparams["lr"] for s in _specs(plan)}) == 2


def test_two_stages_share_their_draw_and_dfr_starts_from_erms_row() -> None:
    plan = _plan(algorithms=["erm", "dfr", "jtt"], draws=3)
    erm = {s.draw: s for s in _specs(plan) if s.algorithm == "erm"}
    assert len({s.hparams["lr"] for s in erm.values()}) == 3
    for spec in _specs(plan):
        if spec.algorithm == "dfr":
            assert spec.upstream == {"standard": erm[spec.draw].key}
        elif spec.algorithm == "jtt":
            first = plan.runs[spec.upstream["identification"]].spec
            assert (
                first.hparams == erm[spec.draw].hparams
                and first.budget["steps"] < spec.budget["steps"]
            )


@pytest.mark.parametrize("method", ["jtt", "dfr"])
def test_both_stages_learn_as_the_method_is_told_to(method: str) -> None:
    """As a file that trains a winner again does: the draw's values, written down, at draw 0."""
    plan = _plan(
        algorithms=[method],
        override={method: {"lr": 0.0005, "batch_size": 16}, "erm": {"lr": 0.25}},
    )
    found = [(run.spec.hparams["lr"], run.spec.hparams["batch_size"]) for run in plan.runs.values()]
    assert found == [(0.0005, 16)] * 2


def test_a_teacher_takes_data_and_backbone_of_its_student_and_the_sweeps_word_on_its_own() -> None:
    plan = _plan(
        algorithms=["toy_pupil"],
        override={
            "toy_pupil": {
                "dataset": {"bias": 0.7},
                "backbone": "convnet:width=3",
                "lr": 0.5,
                "budget": {"steps": 9},
            },
            "erm": {"lr": 0.25},
        },
    )
    (teacher,) = _specs(plan, requested=False)
    assert teacher.dataset_options["bias"] == 0.7
    assert (teacher.backbone, teacher.backbone_options) == ("convnet", {"width": 3})
    assert (teacher.hparams["lr"], teacher.budget["steps"]) == (0.25, 1000)


def test_circular_upstream_runs_are_a_problem() -> None:
    (problem,) = _problems(algorithms=["toy_circle"])
    assert "toy_circle" in problem and "circular" in problem


def test_a_teacher_of_other_images_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.core.algorithm import Upstream

    monkeypatch.setattr(
        Pupil, "upstream", lambda spec: {"teacher": Upstream("erm", dataset_options={"side": 20})}
    )
    (problem,) = _problems(algorithms=["toy_pupil"])
    assert problem.startswith(
        "toy_pupil on tiny: its teacher, erm with bias=0.9, size=96, side=20,"
    )
    assert "image size" in problem


def test_a_mistake_of_a_request_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.core.algorithm import Upstream

    asked = Upstream("irmm", hparams={"lrr": 1}, dataset_options={"bais": 1}, backbone="convnett")
    monkeypatch.setattr(Pupil, "upstream", lambda spec: {"teacher": asked})
    problems = _problems(algorithms=["toy_pupil"])
    assert [p.split(";")[0] for p in problems] == [
        "unknown algorithm 'irmm'",
        "tiny has no option 'bais'",
        "unknown backbone 'convnett'",
    ]


# --- refusals ---


def test_runs_that_cannot_run_are_refused_with_reason_and_advice() -> None:
    (problem,) = _problems(datasets=["tiny:bias=1"], algorithms=["erm", "irm"], trials=3)
    assert mentions(problem, "irm on tiny", "two training environments")
    assert "bias=1.0, size=96, side=16" in problem and "--skip-impossible" in problem


@pytest.mark.parametrize("values", [{"skip": True}, {"skip_impossible": True}])
def test_runs_that_cannot_run_can_be_left_out(values: dict[str, Any]) -> None:
    plan = _plan(
        datasets=["tiny:bias=1"], algorithms=["erm", "irm", "toy_choosy"], trials=2, **values
    )
    assert [(s.algorithm, s.trial) for s in _specs(plan)] == [
        ("erm", 0),
        ("erm", 1),
        ("toy_choosy", 1),
    ]
    assert [(r.method, r.trial) for r in plan.refused] == [
        ("irm", 0),
        ("irm", 1),
        ("toy_choosy", 0),
    ]
    assert plan.refused[2] == Refusal(
        dataset="tiny:bias=1",
        method="toy_choosy",
        trial=0,
        draw=0,
        reason="toy_choosy on tiny: the moon is in the wrong place.",
    )


def test_skipping_forgives_no_mistake_and_an_empty_sweep_is_one() -> None:
    with pytest.raises(Problems, match="unknown algorithm"):
        _plan(skip=True, algorithms=["erm", "irmm"])
    with pytest.raises(Problems, match="none of these methods"):
        _plan(skip=True, datasets=["tiny:bias=1"], algorithms=["irm"])


def test_an_override_can_make_a_refused_run_possible() -> None:
    plan = _plan(
        datasets=["tiny:bias=1"],
        algorithms=["erm", "irm"],
        override={"irm": {"dataset": {"bias": 0.8}}},
    )
    assert {s.algorithm: s.dataset_options["bias"] for s in _specs(plan)} == {
        "erm": 1.0,
        "irm": 0.8,
    }
    assert [run.dataset for run in plan.runs.values()] == ["tiny:bias=1", "tiny:bias=1"]


def test_a_method_may_have_criteria_of_its_own() -> None:
    selection = ["val_accuracy", "last"]
    methods = ["erm", "irm", "cdan:cdann", "cdan"]
    override = {
        "erm": {"selection": ["val_objective", "val_accuracy"]},
        "cdan": {"selection": "val_worst_class"},  # one name stands for a list
        "cdan:cdann": {"selection": ["val_mean"]},
    }
    plain = _plan(algorithms=methods, selection=selection)
    plan = _plan(algorithms=methods, selection=selection, override=override)
    assert {s.method: s.selection for s in _specs(plan)} == {
        "erm": ("val_objective", "val_accuracy"),
        "irm": ("val_accuracy", "last"),
        "cdan:cdann": ("val_mean",),
        "cdan": ("val_worst_class",),
    }
    kept = plan.runs.keys() & plain.runs.keys()
    assert [plan.runs[key].spec.method for key in kept] == ["irm"]
    assert "selection" not in _specs(plan)[0].hparams


def test_a_teacher_is_selected_by_its_own_criteria() -> None:
    override = {"segment_classify": {"selection": ["val_objective"]}}
    plan = _plan(algorithms=["distill_outputs"], selection=["last"], override=override)
    found = {run.spec.method: run.spec.selection for run in plan.runs.values()}
    assert found == {"segment_classify": ("val_objective",), "distill_outputs": ("last",)}


def test_criteria_of_one_method_are_checked_like_those_of_all() -> None:
    (problem,) = _problems(override={"erm": {"selection": ["val_acc"]}})
    assert problem.startswith("here: unknown criterion 'val_acc' in override.erm.selection; did")
    (problem,) = _problems(override={"erm": {"selection": 3}})
    assert mentions(problem, "override.erm.selection = 3", "list")
    (problem,) = _problems(
        algorithms=["group_dro"], override={"group_dro": {"selection": ["val_objective"]}}
    )
    assert "declares no objective" in problem
    (problem,) = _problems(
        budget={"patience": 2}, override={"erm": {"selection": ["last", "val_accuracy"]}}
    )
    assert "(patience)" in problem
    assert _plan(
        budget={"patience": 2}, selection=["last"], override={"erm": {"selection": "val_accuracy"}}
    ).runs


def test_a_criterion_that_cannot_be_measured_is_refused() -> None:
    assert _specs(_plan(selection=["val_objective"]))[0].algorithm == "erm"
    (problem,) = _problems(algorithms=["group_dro"], selection=["val_objective"])
    assert mentions(problem, "group_dro on tiny", "no objective")


def test_a_budget_that_ends_before_the_switch_is_a_warning_and_no_refusal() -> None:
    plan = _plan(algorithms=["erm", "irm", "pgi"], trials=2, budget={"steps": 300})
    assert len(plan.runs) == 6 and not plan.refused
    (warning,) = plan.warnings
    assert mentions(warning, "irm on tiny", "2 of 2 runs")
    assert "step 500" in warning and "300 steps" in warning


def test_random_draws_of_the_switch_are_counted_and_one_is_named() -> None:
    plan = _plan(algorithms=["irm"], draws=20, budget={"steps": 600})
    late = {s.draw: s.hparams["anneal_iters"] for s in _specs(plan)}
    late = {draw: step for draw, step in late.items() if step >= 600}
    assert 0 < len(late) < 20
    worst = max(late, key=lambda draw: late[draw])
    (warning,) = plan.warnings
    assert f"{len(late)} of 20 runs" in warning
    assert f"trial 0, draw {worst}:" in warning and f"step {late[worst]:,}" in warning


def test_a_switch_at_the_last_step_is_too_late() -> None:
    """Step 299 of 300 is made as the method, but a switch at step 300 is never reached."""
    for step, warned in ((299, False), (300, True)):
        fixed = {"anneal_iters": step}
        plan = _plan(algorithms=["irm"], budget={"steps": 300}, fixed=fixed)
        assert bool(plan.warnings) == warned


def test_an_upstream_run_that_never_becomes_its_method_is_warned_of() -> None:
    override = {"segment_classify": {"segmenter_share": 0.99, "budget": {"steps": 1}}}
    plan = _plan(algorithms=["distill_outputs"], budget={"steps": 300}, override=override)
    (warning,) = plan.warnings
    assert mentions(warning, "segment_classify on tiny", "1 of 1 runs")


def test_selecting_before_the_switch_changes_the_keys_of_methods_with_a_switch_alone() -> None:
    methods = ["erm", "group_dro", "irm", "pgi"]
    keys = [
        {run.spec.method: key for key, run in _plan(algorithms=methods, **more).runs.items()}
        for more in ({}, {"select_before_switch": True})
    ]
    assert {m for m in methods if keys[0][m] != keys[1][m]} == {"irm", "pgi"}
    short = {"algorithms": ["irm"], "budget": {"steps": 300}}  # no step is after the switch
    assert _plan(**short).runs.keys() == _plan(**short, select_before_switch=True).runs.keys()


@pytest.mark.parametrize("declared", [-1, 2.5, None, True])
def test_an_invalid_switch_is_reported(declared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pupil, "active_from", classmethod(lambda cls, hparams, budget: declared))
    (problem,) = _problems(algorithms=["toy_pupil"])
    assert "toy_pupil.active_from returned" in problem and "whole number of steps" in problem


def test_without_groups_in_validation_the_worst_class_can_select(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = DATASETS.get("tiny")
    known = kind.info
    bare = replace(known(kind()).provides, groups=False, confounder=False, val_groups=False)
    monkeypatch.setattr(kind, "info", lambda self: replace(known(self), provides=bare))
    assert _only(selection=["val_worst_class", "last"]).selection == ("val_worst_class", "last")
    for criterion in ("val_worst_group", "val_mean"):
        (problem,) = _problems(selection=["val_accuracy", criterion])
        assert f"selection by {criterion} needs group labels in validation" in problem
        assert "val_worst_class" in problem


def test_every_hparam_of_a_plan_is_declared_with_a_type() -> None:
    for spec in _specs(_plan(algorithms=["erm", "irm", "group_dro", "cdan"], draws=5)):
        declared: dict[str, HParam] = ALGORITHMS.get(spec.algorithm).all_hparams(16)
        for name, value in spec.hparams.items():
            assert declared[name].check(name, value) == value
