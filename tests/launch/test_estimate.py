"""The estimate of a dry run: its arithmetic, its groups, and the output of the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark import sweep
from benchmark.core.errors import UserError
from benchmark.core.run_times import RunTimes
from benchmark.core.spec import RunSpec
from benchmark.launch import time_estimate
from benchmark.launch.time_estimate import (
    COMPARED,
    EXPLAINED,
    RunKind,
    batch_sizes,
    estimate,
    kinds_of,
    run_flops,
    run_seconds,
    step_seconds,
)
from benchmark.launch.time_estimate import wall_seconds as wall
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweepfile import config_from
from tests.support.messages import mentions

SIZES = {"train": 1000, "val": 100, "biased": 200, "deceiving": 700}


def plan_of(
    *algorithms: str, absent_ok: bool = False, data_dir: Path | None = None, **more: Any
) -> Plan:
    table = {
        "datasets": ["tiny:size=64"],
        "algorithms": list(algorithms),
        "backbone": "convnet:width=2",
        "budget": {"steps": 100, "evaluate_every": 30},
        **more,
    }
    return expand(config_from(table, "test", "test"), data_dir, absent_ok=absent_ok)


def test_a_step_lies_on_the_line_through_two_batch_sizes_and_is_proportional_beyond() -> None:
    found = {10: RunTimes(2.0), 30: RunTimes(3.0)}
    assert [step_seconds(found, size) for size in (10, 20, 30, 60)] == [2.0, 2.5, 3.0, 6.0]
    assert [step_seconds({8: RunTimes(4.0)}, size) for size in (4, 8, 16)] == [4.0, 4.0, 8.0]


def test_a_run_is_its_steps_evaluations_passes_and_heatmaps() -> None:
    (run,) = plan_of("erm", selection=["val_mean", "last"]).runs.values()
    kind = RunKind(
        run.spec,
        "tiny",
        times={
            64: RunTimes(step=0.5, image=0.01, look=0.1, train_passes=2, val_passes=1, heatmap=1.0)
        },
    )
    evaluations = 4 * 100 * 0.01  # steps 30, 60, 90 and 100
    at_the_end = 2 * (100 + 200 + 700) * 0.01
    passes = 0.1 * (2 * 1000 + 100)
    heatmaps = 200 + EXPLAINED
    assert run_seconds(run.spec, kind, None) == 50.0
    assert run_seconds(run.spec, kind, SIZES) == pytest.approx(
        50 + evaluations + at_the_end + passes + heatmaps
    )
    student = replace(run.spec, curves=("distance",))
    compared = 4 * 2 * COMPARED * 1.0
    assert run_seconds(student, kind, SIZES) == pytest.approx(
        run_seconds(run.spec, kind, SIZES) + compared
    )
    (oracle,) = plan_of("erm", oracle=True, selection=["last"]).runs.values()
    kind = RunKind(
        oracle.spec, "tiny", times={64: RunTimes(image=0.01)}
    )  # a method without steps: evaluated once
    assert run_seconds(oracle.spec, kind, SIZES) == pytest.approx(1000 * 0.01 + 1000 * 0.01)


def test_workers_share_the_work_but_a_student_waits_for_its_teacher() -> None:
    plan = plan_of("tea", trials=[0])
    seconds = dict(zip(plan.runs, [10.0, 4.0, 7.0][: len(plan.runs)], strict=True))
    last = list(plan.runs)[-1]
    before = [key for key in plan.runs if key != last]
    assert set(plan.runs[last].spec.upstream.values()) <= set(before)
    assert wall(plan, seconds, 1) == sum(seconds.values())
    assert wall(plan, seconds, 8) == sum(seconds.values()), (
        "one after the other, whatever the workers"
    )
    several = plan_of("erm", "group_dro", trials=[0, 1])
    assert wall(several, dict.fromkeys(several.runs, 3.0), 2) == 6.0
    assert wall(several, dict.fromkeys(several.runs, 3.0), 100) == 3.0


def test_runs_are_grouped_by_what_costs_time() -> None:
    plan = plan_of("erm", "ex2l:mae", "ex2l:ssim", trials=[0, 1, 2], draws=[1, 2])
    kinds = kinds_of(plan, set(plan.runs))
    expected = [("erm", 6), ("ex2l:mae", 6), ("ex2l:ssim", 6)]
    assert sorted((kind.spec.method, len(kind.keys)) for kind in kinds) == expected
    for kind in kinds:
        drawn = [plan.runs[key].spec.hparams["batch_size"] for key in kind.keys]
        assert batch_sizes(kind, plan, "cpu") == [min(drawn), max(drawn)]
    few = list(plan.runs)[:2]
    assert sum(len(kind.keys) for kind in kinds_of(plan, few)) == 2


@pytest.mark.parametrize(
    ("side", "backbone"), [(224, "convnet:width=2"), (28, "resnet18:side=224")]
)
def test_large_batches_are_not_timed(side: int, backbone: str) -> None:
    """Large as the network sees them."""
    plan = plan_of(
        "erm", datasets=[f"tiny:side={side},size=64"], backbone=backbone, fixed={"batch_size": 128}
    )
    (kind,) = kinds_of(plan, set(plan.runs))
    assert batch_sizes(kind, plan, "cpu") == [2] and batch_sizes(kind, plan, "cuda") == [128]


def test_it_says_what_it_found_and_what_it_leaves_out() -> None:
    plan = plan_of("erm", "group_dro", trials=[0, 1, 2])
    lines: list[str] = []

    def measure(spec: RunSpec, size: int) -> RunTimes:
        if spec.algorithm == "group_dro":
            raise UserError("no such kernel.")
        return RunTimes(step=0.5, image=0.5)

    assert (
        estimate(plan, list(plan.runs), "cpu", 2, measure, lambda fingerprint: None, lines.append)
        == 75.0
    )
    text = "\n".join(lines)
    assert mentions(text, "group_dro", "tiny:size=64", "convnet", "no such kernel")
    assert "3 × erm" in text and "500 ms with" in text and "50 s each" in text
    assert "33 min 20 s for every 1,000 validation images" in text
    assert mentions(text, "1 min 15 s", "2 workers", "CPU", "2 min 30 s")
    assert mentions(text, "Evaluations", "3 runs") and mentions(text, "3 runs", "timed")
    assert estimate(plan, [], "cpu", 2, measure, lambda fingerprint: None, lines.append) == 0.0


def test_late_kinds_are_taken_as_timed_ones_of_their_algorithm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time_estimate, "TIMING_SECONDS", -1.0)
    methods = ("ex2l:mae", "ex2l:ssim", "erm", "irm")
    plan = plan_of(*methods, fixed={"batch_size": 4})
    measured: list[str] = []
    lines: list[str] = []

    def measure(spec: RunSpec, size: int) -> RunTimes:
        measured.append(spec.method)
        assert size == 2
        return RunTimes(step=0.5 if spec.algorithm == "ex2l" else 0.25)

    total = estimate(plan, list(plan.runs), "cpu", 1, measure, lambda _: None, lines.append)
    assert measured == ["ex2l:mae", "erm", "irm"]
    assert any("ex2l:ssim" in line and "ex2l:mae" in line for line in lines)
    assert total == 100 * 2 * (0.5 + 0.5 + 0.25 + 0.25)  # two timed batches per step


def test_operations_give_the_time_on_a_gpu() -> None:
    plan = plan_of("erm", fixed={"batch_size": 32})
    (spec,) = [run.spec for run in plan.runs.values()]
    costs = RunTimes(step=1.0, step_flops=3e9, image_flops=1e9)
    kind = RunKind(spec, "tiny", times={8: costs})
    evaluated = 4 * 100 + len(spec.selection) * 1000
    assert run_flops(spec, kind, None) == 100 * 32 * 3e9
    assert run_flops(spec, kind, SIZES) == 100 * 32 * 3e9 + evaluated * 1e9
    for device, expected in (("cpu", True), ("cuda", False)):
        lines: list[str] = []
        estimate(plan, list(plan.runs), device, 1, lambda *_: costs, lambda _: SIZES, lines.append)
        assert any("TFLOP/s" in line for line in lines) == expected


def test_data_that_are_not_there_are_planned_as_promised(tmp_path: Path) -> None:
    options = {"datasets": ["waterbirds:side=64", "tiny:size=64"], "data_dir": tmp_path}
    with pytest.raises(UserError, match="waterbirds was not found"):
        plan_of("erm", **options)
    plan = plan_of("erm", absent_ok=True, **options)
    known = {plan.data[run.spec.data_fingerprint].source.name: plan.data[run.spec.data_fingerprint]
             for run in plan.runs.values()}  # fmt: skip
    assert known["tiny"].absent is None and "was not found" in str(known["waterbirds"].absent)
    assert known["waterbirds"].info.image_size == (3, 64, 64)
    with pytest.raises(
        UserError, match=r"folder.*nothing_here"
    ):  # only its files could say what it has
        plan_of("erm", absent_ok=True, datasets=["folder:path=nothing_here"], data_dir=tmp_path)


def test_the_command_times_writes_nothing_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "mine.toml", tmp_path / "out"
    file.write_text(
        'datasets = ["tiny:size=64", "cmnist"]\nalgorithms = ["erm", "jtt"]\n[budget]\nsteps = 8\n'
    )
    arguments = [
        "launch",
        str(file),
        "--dry-run",
        "--output",
        str(out),
        "--data-dir",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    before = sorted(tmp_path.rglob("*"))
    assert sweep.main(arguments) == 2
    captured = capsys.readouterr()
    assert "cmnist needs MNIST" in captured.err and "estimate:" in captured.out
    warning = captured.out.index("cmnist needs MNIST")
    assert warning < captured.out.index("ms with")  # not after minutes of timing
    assert (
        "jtt on tiny:size=64" in captured.out
        and "for every 1,000 validation images" in captured.out
    )
    assert sweep.main([*arguments, "--datasets", "tiny:size=64"]) == 0
    captured = capsys.readouterr()
    assert "Evaluations" not in captured.out and "ms with" in captured.out
    assert "a difference of 2 points between two methods" in captured.out
    assert sorted(tmp_path.rglob("*")) == before
