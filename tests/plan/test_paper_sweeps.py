"""The papers' sweeps can be planned without their data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from algorithms import _clip
from algorithms.attri_net import Schedule
from benchmark.core.dataset import DatasetSource
from benchmark.core.registry import BACKBONES, DATASETS
from benchmark.losses.similarity import SIMILARITIES
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweepfile import find_sweep_file, read_sweep

#: Numbers of training images of the complete data sets, from which epochs are computed.
IMAGES = {"cmnist": 37_333, "waterbirds": 4_795, "celeba": 162_770, "spawrious": 20_275}
#: Of TEA's table 1.
TEA_IMAGES = {
    "coco_on_places": 7_200,
    "waterbirds": 4_315,
    "covid_xray": 10_449,
    "coloured_mnist": 54_000,
    "dogs_with_ties": 180,
}
#: Of Attri-Net's data.
ATTRI_NET_IMAGES = {"chexpert": 191_027, "chestxray14": 77_871, "vindr_cxr": 13_500}
#: Epochs of its students and other methods (F.3).
TEA_EPOCHS = {
    "coco_on_places": 10_000,
    "waterbirds": 400,
    "covid_xray": 500,
    "coloured_mnist": 100,
    "dogs_with_ties": 20_000,
}
#: Runs that each sweep asks for itself.
ASKED = {
    "ex2l_table1": 2 * 12 * 3 * 20,
    "ex2l_table2": 2 * 12 * 3 * 20,
    "ex2l_celeba": 12 * 3 * 20,
    "ex2l_screening": 2 * 22 * 20,
    "ex2l_backbones": 2 * 3 * 3 * 20,
    "tea_table2": 2 * 16,
    "tea_table3": 13,
    "tea_table4": 2 * 11,
    "tea_table5": 17,
    "attri_net_table2": 3 * 7,
    "attri_net_table3": 3 * (1 + 6),
    "attri_net_table4": 5,
    "attri_net_table6": 6,
    "attri_net_shortcut": 7,
    "robustvit_table1": 14 * 4 * 3,
    "robustvit_table2": 14 * 4 * 3,
    "robustvit_table3": 7 * 2 * 3 * 2,  # the measurements of relevance are runs too
    "robustvit_table4": 2 * 8 * 3,
    # three trials of each model, and of the measurements of its explainers
    "nemt_table1": 3 * (1 + 3),
    "nemt_table2": 2 * 3 * (1 + 9),
    "nemt_table_a1": 3 * (1 + 5),
    "nemt_table_a2": 3 * (1 + 5),
    "nemt_table_a3": 3 * (1 + 2),
}
#: Methods that a sweep leaves out on some of its data, with a footnote.
LEFT_OUT = {
    "tea_table4": {"gals"},
    "tea_table2": {"gals"},
    "attri_net_table2": {
        "bcos_guided",
        "attri_net_guided",
        "attri_net_guided:pseudo_mask",
        "attri_net_guided:mixed",
    },
}


@pytest.fixture(autouse=True, scope="module")
def nothing_downloaded() -> Iterator[None]:
    """Plan as if all data were there: what is promised of them before reading is enough."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in (
            "cmnist",
            "waterbirds",
            "celeba",
            "spawrious",
            "coco_on_places",
            "covid_xray",
            "coloured_mnist",
            "dogs_with_ties",
            "chexpert",
            "chestxray14",
            "vindr_cxr",
            "imagenet",
            "masked",
            "rsna",
            "ham10000",
        ):
            kind: Any = DATASETS.get(name)
            monkeypatch.setattr(kind, "check", DatasetSource.check)
            monkeypatch.setattr(kind, "content", DatasetSource.content)
        monkeypatch.setattr(_clip, "is_installed", lambda: True)
        yield


@cache
def plan_of(name: str) -> Plan:
    return expand(read_sweep(find_sweep_file(name)))


def specs(name: str, **wanted: Any) -> list[Any]:
    found = [run.spec for run in plan_of(name).runs.values() if run.requested]
    return [s for s in found if all(getattr(s, key) == value for key, value in wanted.items())]


#: Sweeps that are planned whole with --slow only; another one has the same methods.
LARGE = {"ex2l_table1", "ex2l_celeba"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in ASKED]
)
def test_it_can_be_planned_whole(name: str) -> None:
    plan = plan_of(name)
    assert sum(run.requested for run in plan.runs.values()) == ASKED[name] - len(plan.refused)
    assert {refused.method for refused in plan.refused} <= LEFT_OUT.get(name, set())


def test_explanations_are_of_the_resnet_of_the_other_table() -> None:
    trained = {spec.key for spec in specs("attri_net_table2", algorithm="erm")}
    measured = specs("attri_net_table3")
    assert {spec.key for spec in measured if spec.measurement is None} == trained
    models = {spec.upstream["model"] for spec in measured if spec.measurement is not None}
    assert models == trained
    autoencoders = [
        run.spec
        for run in plan_of("attri_net_table3").runs.values()
        if run.spec.algorithm == "latent_shift" and run.spec.measurement is None
    ]
    assert {spec.upstream["classifier"] for spec in autoencoders} == trained
    assert len(autoencoders) == 3
    for spec in autoencoders:
        epochs = spec.budget["steps"] * spec.hparams["batch_size"] / ATTRI_NET_IMAGES[spec.dataset]
        assert epochs == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize("name", [n for n in ASKED if n.startswith("ex2l")])
def test_ex2l_sweeps_ask_for_the_papers_runs(name: str) -> None:
    config = read_sweep(find_sweep_file(name))
    rows = len(config.datasets) * len(config.algorithms) * len(config.trials) * len(config.draws)
    assert rows == ASKED[name]
    assert set(config.trials) <= {42, 8, 777} and config.draws == tuple(range(1, 21))
    assert config.selection[0] == "val_mean" and config.budget["patience"] == 10
    few = config.changed(draws=(1, 2), trials=config.trials[:1])
    plan = expand(few)
    assert len(plan.runs) == rows // len(config.trials) // 10 and not plan.refused
    for run in plan.runs.values():
        spec = run.spec
        assert spec.hparams["optimizer"] == "sgd" and spec.hparams["batch_size"] == 128
        assert spec.budget["steps"] % spec.budget["evaluate_every"] == 0
        epochs = spec.budget["steps"] / spec.budget["evaluate_every"]
        assert epochs == (50 if spec.dataset == "celeba" else 300)
        assert spec.budget["evaluate_every"] == math.ceil(IMAGES[spec.dataset] / 128)  # of an epoch
        size = plan.data[spec.data_fingerprint].info.image_size
        assert min(BACKBONES.get(spec.backbone).map_size(size, spec.backbone_options)) >= 6
        assert "weights" not in spec.backbone_options or spec.backbone_options[
            "weights"
        ].startswith("IMAGENET1K")
        fixed = {"dropout": 0.0, "beta1": 0.5, "mlp_width": 256, "mlp_depth": 3}
        assert all(spec.hparams.get(key, value) == value for key, value in fixed.items()), (
            "table 6 does not draw it"
        )
        assert spec.compute["deterministic"] == "true"
        if spec.algorithm == "ex2l":
            binary = spec.dataset != "spawrious"
            assert spec.hparams["one_logit"] == binary
            weights = [spec.hparams[f"{of}_weight"] for of in ("confounder", "similarity")]
            assert all(0.1 <= w < 100 for w in weights) and weights[0] != weights[1]


@pytest.mark.parametrize("name", ["tea_table2", "tea_table3", "tea_table4", "tea_table5"])
def test_tea_sweeps_train_as_long_as_the_paper_and_clip_every_gradient(name: str) -> None:
    for run in plan_of(name).runs.values():
        spec = run.spec
        assert (spec.hparams["optimizer"], spec.hparams["clip_norm"]) == ("sgd", 1.0), spec.method
        steps = math.ceil(TEA_IMAGES[spec.dataset] / spec.hparams["batch_size"])
        if not run.requested or spec.algorithm in ("segment_classify", "vit", "ag_sononet"):
            continue
        if (spec.dataset, spec.algorithm) == ("dogs_with_ties", "erm"):
            assert spec.budget["steps"] == 200 * steps
        elif spec.dataset != "coco_on_places":  # 562,500 steps, of 56.25 batches each
            assert spec.budget["steps"] == TEA_EPOCHS[spec.dataset] * steps


@pytest.mark.parametrize("name", ["tea_table2", "tea_table3", "tea_table4", "tea_table5"])
def test_students_are_selected_by_their_own_objective_and_record_biased_accuracy(
    name: str,
) -> None:
    students = [spec for spec in specs(name) if "teacher" in spec.hparams]
    others = [spec for spec in specs(name) if "teacher" not in spec.hparams]
    assert students and others
    assert {spec.selection[:2] for spec in students} == {("val_objective", "val_accuracy")}
    assert {spec.selection[0] for spec in others} == {"val_accuracy"}


def test_the_teacher_of_coloured_mnist_is_the_papers() -> None:
    plan = plan_of("tea_table4")
    teachers = {
        s.dataset: s
        for r in plan.runs.values()
        if not r.requested and (s := r.spec).algorithm == "erm"
    }
    found = teachers["coloured_mnist"]
    kept = {name: found.hparams[name] for name in ("lr", "momentum", "weight_decay", "batch_size")}
    assert kept == {"lr": 0.001, "momentum": 0.9, "weight_decay": 0.001, "batch_size": 128}
    assert found.budget["steps"] == 200 * math.ceil(54_000 / 128) and found.backbone == "resnet50"
    assert set(teachers) == {"coloured_mnist"}


def test_the_screening_has_every_similarity_under_both_samplings() -> None:
    config = read_sweep(find_sweep_file("ex2l_screening"))
    assert set(config.algorithms) == {
        f"ex2l:{name}{end}" for name in SIMILARITIES for end in ("", "_random")
    }


def test_two_backbones_in_one_sweep() -> None:
    found = {(s.backbone, s.method) for s in specs("ex2l_backbones")}
    assert found == {
        (b, m) for b in ("alexnet", "convnext_base") for m in ("erm", "group_dro", "ex2l:mae")
    }


def test_group_methods_see_less_bias_and_students_share_a_teacher() -> None:
    for dataset, bias in (("coco_on_places", 0.8), ("waterbirds", 0.95)):
        seen = {
            s.algorithm: s.dataset_options["bias"] for s in specs("tea_table2", dataset=dataset)
        }
        assert {name for name, value in seen.items() if value == bias} == {
            "irm",
            "group_dro",
            "pgi",
        }
        assert {value for name, value in seen.items() if value != bias} == {1.0}
    plan = plan_of("tea_table2")
    teachers = {k for k, run in plan.runs.items() if run.spec.algorithm == "segment_classify"}
    named = {
        run.spec.upstream["teacher"] for run in plan.runs.values() if "teacher" in run.spec.upstream
    }
    assert len(teachers) == 2 and named == teachers
    assert {plan.runs[k].spec.budget["steps"] for k in teachers} == {75000, 135000}


def test_ablations_are_one_change_each() -> None:
    by_method = {s.method: s.hparams for s in specs("tea_table5", algorithm="tea")}
    base = by_method.pop("tea")
    for method, hparams in by_method.items():
        changed = {key for key in base if hparams[key] != base[key]}
        assert changed and changed - {"lr"} <= {
            "explanation",
            "loss",
            "epsilon_low",
            "epsilon_high",
            "output_weight",
            "representation_weight",
        }, method
        assert ("lr" in changed) == (method in ("tea:gradient_x_input", "tea:input_gradient"))


def test_gals_has_no_prompts_for_the_digits_of_table_4() -> None:
    refused = [(entry.dataset, entry.method) for entry in plan_of("tea_table4").refused]
    assert refused == [("coloured_mnist:bias=1.0", "gals")]


def test_vit_has_smaller_patches_for_the_digits_of_table_4() -> None:
    patches = {s.dataset: s.hparams.get("patch") for s in specs("tea_table4", algorithm="vit")}
    assert patches == {"coloured_mnist": 4, "dogs_with_ties": None}


def test_the_teacher_of_foreground_bias_is_a_larger_network_without_that_bias() -> None:
    plan = plan_of("tea_table4")
    students = [run.spec for run in plan.runs.values() if "teacher" in run.spec.upstream]
    assert len(students) == 8 and {spec.backbone for spec in students} == {"resnet18"}
    for spec in students:
        assert spec.dataset_options["bias"] == 1
        teacher = plan.runs[spec.upstream["teacher"]].spec
        if spec.dataset == "coloured_mnist":
            assert (teacher.algorithm, teacher.backbone) == ("erm", "resnet50")
            assert teacher.dataset_options["bias"] == 0.1
        else:
            assert teacher.algorithm == "zero_shot_clip"
            assert teacher.hparams["prompt"] == "a photo of a dog of the {class} breed"
            assert (teacher.hparams["clip_model"], teacher.hparams["temperature"]) == ("RN50", 10)


@pytest.mark.parametrize("number", [2, 4, 6])
def test_attri_net_sweeps_train_100_000_iterations_at_320_pixels(number: int) -> None:
    plan = plan_of(f"attri_net_table{number}")
    for run in plan.runs.values():
        spec = run.spec
        if not run.requested:
            continue
        assert plan.data[spec.data_fingerprint].info.image_size == (1, 320, 320)
        assert not spec.augmentation and spec.hparams["lr"] == 1e-4
        if not spec.algorithm.startswith("attri_net"):
            continue
        kept = {"width": 64, "critic_width": 64, "blocks": 6, "pool": 32, "head_lr": 1e-4}
        assert {name: spec.hparams[name] for name in kept} == kept
        schedule = Schedule(spec.hparams, spec.budget["steps"])
        last = schedule.update(spec.budget["steps"] - 1)
        assert (last.part, last.count) == ("heads", 5 * 100_000 - 1)


def test_chexpert_is_guided_by_its_validation_images_and_tested_officially() -> None:
    plan = plan_of("attri_net_table2")
    assert not plan.refused
    found = [run.spec for run in plan.runs.values() if run.spec.dataset == "chexpert"]
    assert {spec.dataset_options["test"] for spec in found} == {"test"}
    assert sum("guided" in spec.algorithm for spec in found) == 4


def test_the_contaminated_chexpert_tags_half_of_one_finding() -> None:
    found = specs("attri_net_shortcut")
    assert {s.dataset for s in found} == {"tagged"}
    for spec in found:
        options = spec.dataset_options
        assert (options["finding"], options["share"]) == ("Cardiomegaly", 0.5)
        assert options["others"] == 0 and options["text"] == "CXR-ROOM1"
    weights = {s.hparams["guidance_weight"] for s in found if s.algorithm == "attri_net_guided"}
    assert weights == {30.0, 120.0, 6000.0}


@pytest.mark.parametrize("name", ["robustvit_table3", "robustvit_table4"])
def test_robustvit_sweeps_start_with_the_published_models(name: str) -> None:
    plan = plan_of(name)
    for run in plan.runs.values():
        spec = run.spec
        assert spec.backbone_options["head"] == "published"
        if spec.budget["steps"] == 0:  # a measurement
            continue
        if spec.algorithm == "erm":
            assert spec.hparams["lr"] == 0 and spec.budget["steps"] == 1
        elif run.requested:
            start = plan.runs[spec.upstream["start"]].spec
            assert (start.backbone, start.backbone_options) == (
                spec.backbone,
                spec.backbone_options,
            )
            assert 5e-7 <= spec.hparams["lr"] <= 5e-6
            assert spec.hparams["masks_per_class"] == 3 and spec.hparams["constant_gradients"]
            small_deit = "deit_small" in str(spec.backbone_options.get("file"))
            base_deit = "deit_base" in str(spec.backbone_options.get("file"))
            expected = 0.55 if small_deit else 0.65 if base_deit else 1.0
            assert spec.hparams["temperature"] == expected


@pytest.mark.parametrize("name", [n for n in ASKED if n.startswith("nemt")])
def test_nemt_trains_its_epochs_for_every_explained_classifier(name: str) -> None:
    train_images = {"rsna": 21_347, "ham10000": 8_012}  # of the paper, section 4.1
    plan = plan_of(name)
    for run in plan.runs.values():
        spec = run.spec
        if spec.measurement is not None:
            assert (spec.measurement.images, spec.measurement.target) == (1000, "label")
            continue
        epochs = spec.budget["steps"] * spec.hparams["batch_size"] / train_images[spec.dataset]
        assert plan.data[spec.data_fingerprint].info.image_size == (3, 224, 224)
        assert spec.backbone_options["weights"].startswith("IMAGENET1K")
        if spec.algorithm == "erm":
            assert run.requested and epochs == pytest.approx(10, abs=0.01)
            continue
        assert epochs == pytest.approx(10 if spec.variant == "nem" else 5, abs=0.01)
        assert (spec.hparams["optimizer"], spec.hparams["lr"]) == ("prodigy", 1.0)
        assert spec.hparams["batch_size"] == 128 and spec.hparams["decoder_width"] == 16


def test_nemt_ablations_vary_one_setting() -> None:
    def values(name: str, hparam: str) -> set[Any]:
        runs = plan_of(name).runs.values()
        return {run.spec.hparams[hparam] for run in runs if run.spec.algorithm == "nemt"}

    weights = {round(1 / value, 2) for value in values("nemt_table_a1", "trade_off")}
    assert weights == {1.0, 0.67, 0.5, 0.4, 0.33}  # the paper prints 0.66
    assert values("nemt_table_a2", "neighbourhood") == {14, 17, 21, 24, 28}
    assert values("nemt_table_a3", "neighbourhood") == {21, 0}
