"""Times that a dry run measures, for methods that step, look first or never step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.core.run_times import RunTimes
from benchmark.engine import timing
from benchmark.engine.flops import FlopCounter
from benchmark.engine.timing import measure, random_data
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweepfile import config_from
from tests.support.tiny_clip import use_tiny_clip


def plan_of(method: str, **more: Any) -> Plan:
    table = {"datasets": ["tiny:size=64"], "algorithms": [method], "backbone": "convnet:width=2",
             "budget": {"steps": 2}, **more}  # fmt: skip
    return expand(config_from(table, "test", "test"))


def measured(method: str, batch_size: int = 16, **more: Any) -> RunTimes:
    plan = plan_of(method, **more)
    specs = {key: run.spec for key, run in plan.runs.items()}
    infos = {fingerprint: known.info for fingerprint, known in plan.data.items()}
    return measure(list(specs.values())[-1], specs, infos, batch_size, "cpu")


@pytest.mark.parametrize(
    "method, train, val",
    [
        ("erm", 0, 0),
        ("jtt", 1, 0),
        ("ex2l:mae", 0, 1),
        ("tea", 0, 0),
        ("attri_net_guided", 0, 0),
    ],
)
def test_methods_that_step(method: str, train: float, val: float) -> None:
    """JTT reads all training images before its first step, eX2L validation after its last."""
    found = measured(method)
    assert (found.train_passes, found.val_passes) == (train, val)
    assert (found.look > 0) == (train + val > 0)
    assert found.step > 0 and found.image > 0 and found.heatmap > 0


@pytest.mark.parametrize("has_file", [False, True])
@pytest.mark.parametrize("method", ["gals", "zero_shot_clip"])
def test_timing_reads_no_file(
    method: str, has_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the weights of CLIP nor the maps of a file, which is not a file of maps here."""
    asked = use_tiny_clip(monkeypatch)
    hparams = {"clip_weights": "openai"}
    if method == "zero_shot_clip":
        hparams["prompt"] = "a {class}"
    else:
        hparams["prompts"] = "a bird|an image"
    if has_file:
        (tmp_path / "maps.npz").write_text("no maps")
        name = "attention_file" if method == "gals" else "clip_weights"
        hparams[name] = str(tmp_path / "maps.npz")
    found = measured(method, override={method: hparams})
    assert found.image > 0
    assert (found.step > 0) == (method == "gals")
    assert not any(load for _, _, load in asked)
    assert bool(asked) == (method == "zero_shot_clip" or not has_file)


@pytest.mark.parametrize(("longest", "steps"), [(0.0, 1), (1e9, timing.MAX_STEPS + 1)])
def test_a_first_step_that_takes_long_is_the_only_one(
    longest: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    erm, made = ALGORITHMS.get("erm"), []
    plain = erm.loss

    def loss(algorithm: Any, batch: Any) -> Any:
        made.append(len(batch))
        return plain(algorithm, batch)

    monkeypatch.setattr(erm, "loss", loss)
    monkeypatch.setattr(timing, "LONG_STEP_SECONDS", longest)
    monkeypatch.setattr(timing, "MAX_SECONDS", 1e9)
    assert measured("erm").step > 0
    assert made == [16] * steps


def test_operations_are_those_of_the_layers() -> None:
    """Compare with the formula of a convolution: training costs three passes less one.

    The gradient with respect to the images is not needed, so the backward pass of the first layer
    costs one pass and those of the others two.
    """
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    head = torch.nn.Linear(5 * 8 * 8, 2)
    first, second = 2 * 4 * 5 * 64 * 27, 2 * 4 * 320 * 2
    with FlopCounter() as counter:
        logits = head(layer(torch.rand(4, 3, 8, 8)).flatten(1))
    assert counter.total == first + second
    with counter:
        logits.sum().backward()
    assert counter.total == 2 * first + 3 * second


def test_measured_operations_count_training_and_evaluation() -> None:
    found = measured("erm")
    assert 2 < found.step_flops / found.image_flops < 3.01
    more = measured("erm", 32).step_flops
    assert more == pytest.approx(found.step_flops)


def test_a_method_without_steps() -> None:
    found = measured("dfr")
    assert found.step == 0 and found.val_passes == 1 and found.look > 0


def test_a_step_of_many_images_takes_longer() -> None:
    assert measured("erm", 512, datasets=["tiny:side=32,size=64"]).step > measured("erm", 2).step


def test_heatmaps_only_where_they_are_made() -> None:
    assert measured("erm", compute={"explanations": False}).heatmap == 0


def test_pretrained_weights_are_not_asked_for() -> None:
    """They decide nothing here, and may not be on this machine."""
    more = {"datasets": ["tiny:side=32,size=64"], "backbone": "resnet18:weights=IMAGENET1K_V1"}
    assert measured("erm", 4, **more).step > 0


def test_noise_has_what_the_data_promise() -> None:
    info = DATASETS.get("tiny")(None).info()
    data = random_data(info, 4)
    groups = len(info.label_names) * len(info.confounder_names)
    for name in info.splits:
        found = data.group(name)
        assert found is not None and set(found) == set(range(groups))
    train = data.splits["train"]
    assert train.mask is not None and set(np.unique(train.environment)) == set(
        range(len(info.environment_names))
    )
    several = random_data(replace(info, multi_label=True, paired=False), 8)
    assert several.splits["train"].label.shape == (
        len(several.splits["train"]),
        len(info.label_names),
    )
