"""The memory format of a run with ``channels_last = "auto"``: chosen once, recorded, and kept."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.api.run import load_run
from benchmark.core.conditions import Conditions
from benchmark.core.errors import StopRequestedError
from benchmark.core.record import read_record
from benchmark.core.registry import DATASETS
from benchmark.engine import memory_format
from benchmark.engine.build import load_upstream
from benchmark.engine.memory_format import Workload, with_memory_format
from tests.support.messages import mentions
from tests.support.networks import backbone
from tests.support.runs import assert_same_results, plan_quick, plan_runs, run, spec_of

CPU = torch.device("cpu")
FASTER = 0.5
SLOWER = 1.5


@dataclass
class Stopwatch:
    """Takes the place of the measurement: returns given ratios, the last one again and again."""

    ratios: list[float]
    calls: list[Workload] = field(default_factory=list)

    def __call__(self, work: Workload, device: torch.device) -> float:
        self.calls.append(work)
        return self.ratios[min(len(self.calls), len(self.ratios)) - 1]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SHORTCUTBED_CACHE", str(folder))
    return folder


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Callable[..., Stopwatch]:
    def use(*ratios: float) -> Stopwatch:
        watch = Stopwatch(list(ratios))
        monkeypatch.setattr(memory_format, "time_ratio", watch)
        return watch

    return use


def planned(root: Path, choice: object = "auto", algorithm: str = "erm", **values: Any) -> Path:
    compute = {"channels_last": choice, **values.pop("compute", {})}
    budget = {"steps": 6, "evaluate_every": 3, **values.pop("budget", {})}
    return plan_quick(root, algorithm, compute=compute, budget=budget, **values)


def conditions_for(folder: Path) -> Conditions:
    """Return the conditions of a run with its memory format, from scratch."""
    spec = spec_of(folder)
    info = DATASETS.get(spec.dataset)(None, **spec.dataset_options).info()
    return with_memory_format(Conditions(device="cpu", threads=1), spec, info, CPU)


def is_channels_last(module: torch.nn.Module) -> bool:
    weights = [p for p in module.parameters() if p.dim() == 4 and p.shape[1] > 1]
    assert weights
    return all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


@pytest.mark.parametrize(("ratio", "chosen"), [(FASTER, True), (0.97, False), (SLOWER, False)])
def test_the_choice_is_made_once_and_recorded(
    ratio: float, chosen: bool, tmp_path: Path, measure: Callable[..., Stopwatch]
) -> None:
    watch = measure(ratio)
    folders = [planned(tmp_path / str(trial), trials=[trial]) for trial in (0, 1)]
    for folder in folders:
        assert run(folder) == "done"
        machine = read_record(folder).machine
        assert machine.channels_last is chosen
        assert machine.time_ratios == {"channels_last": ratio}
    assert len(watch.calls) == 1 and watch.calls[0].images == 16
    fixed = planned(tmp_path / "fixed", chosen)
    assert fixed.name != folders[0].name
    assert run(fixed) == "done"
    assert_same_results(folders[0], fixed)
    machine = read_record(fixed).machine
    assert machine.channels_last is None and "time_ratios" not in machine.to_json()


def test_a_resumed_run_keeps_its_choice(
    tmp_path: Path, measure: Callable[..., Stopwatch], cache: Path
) -> None:
    whole, stopped = planned(tmp_path / "whole"), planned(tmp_path / "stopped")
    watch = measure(FASTER)
    assert run(whole) == "done"
    polls = itertools.count()
    assert run(stopped, stop=lambda: "stopped" if next(polls) > 3 else None) == "interrupted"
    for file in cache.rglob("*.json"):
        file.unlink()
    watch = measure(SLOWER)
    assert run(stopped, 2) == "done"
    assert not watch.calls
    assert_same_results(whole, stopped)
    machine = read_record(stopped).machine
    assert machine.channels_last is True and machine.time_ratios == {"channels_last": FASTER}
    assert machine.resumed == ()


def test_a_loaded_model_has_the_recorded_format(
    tmp_path: Path, measure: Callable[..., Stopwatch]
) -> None:
    measure(FASTER)
    folder = planned(tmp_path)
    assert run(folder) == "done"
    watch = measure(SLOWER)
    assert is_channels_last(load_upstream(folder, CPU))
    assert is_channels_last(load_run(folder).algorithm)
    assert not watch.calls


def test_explanations_are_measured_of_a_model_in_the_recorded_format(
    tmp_path: Path, measure: Callable[..., Stopwatch]
) -> None:
    watch = measure(FASTER)
    folders = plan_runs(
        tmp_path,
        compute={"channels_last": "auto"},
        budget={"steps": 4, "evaluate_every": 4},
        explanations={"explainers": ["gradcam"], "metrics": ["mass"], "images": 4},
    )
    assert [run(folder) for folder in folders] == ["done", "done"]
    assert len(watch.calls) == 1
    assert [read_record(folder).machine.channels_last for folder in folders] == [True, None]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"ratio": "0.5"}', b'{"ratio": -1.0}', b'{"ratio": NaN}']
)
def test_a_damaged_file_is_measured_again(
    content: bytes, tmp_path: Path, measure: Callable[..., Stopwatch], cache: Path
) -> None:
    folder = planned(tmp_path)
    watch = measure(FASTER, SLOWER)
    assert conditions_for(folder).channels_last is True
    (file,) = cache.rglob("*.json")
    file.write_bytes(content)
    assert conditions_for(folder).channels_last is False
    assert conditions_for(folder).channels_last is False
    assert len(watch.calls) == 2 and json.loads(file.read_bytes()) == {"ratio": SLOWER}


def test_runs_that_measure_at_once_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    folder = planned(tmp_path)
    ratios = [SLOWER, FASTER]

    def measured(work: Workload, device: torch.device) -> float:
        own = ratios.pop(0)
        if ratios:  # another run stores its ratio meanwhile
            assert conditions_for(folder).channels_last is True
        return own

    monkeypatch.setattr(memory_format, "time_ratio", measured)
    assert conditions_for(folder).channels_last is True
    assert not ratios


@pytest.mark.parametrize(
    "error", [RuntimeError("no kernel for this\nand more"), torch.cuda.OutOfMemoryError("full")]
)
def test_it_stays_off_where_a_step_cannot_be_timed(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(work: Workload, device: torch.device) -> float:
        raise error

    monkeypatch.setattr(memory_format, "time_ratio", fail)
    folder = planned(tmp_path)
    assert run(folder) == "done"
    machine = read_record(folder).machine
    assert machine.channels_last is False and not machine.time_ratios
    assert mentions(capsys.readouterr().err, "channels_last", type(error).__name__)
    assert not list(cache.rglob("*.json"))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("CUDA error: an illegal memory access"), "device_error"),
        (StopRequestedError("stopped"), "interrupted"),
    ],
)
def test_a_failing_device_and_a_request_to_stop_end_the_run(
    error: BaseException, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def fail(work: Workload, device: torch.device) -> float:
        raise error

    monkeypatch.setattr(memory_format, "time_ratio", fail)
    folder = planned(tmp_path)
    assert run(folder) == outcome
    assert not (folder / "record.json").exists()


def test_a_cache_that_cannot_be_written_costs_a_measurement_per_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measure: Callable[..., Stopwatch],
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = measure(FASTER)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHORTCUTBED_CACHE", str(tmp_path / "file" / "cache"))
    folder = planned(tmp_path / "sweep")
    assert [conditions_for(folder).channels_last for _ in range(2)] == [True, True]
    assert len(watch.calls) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_what_a_ratio_belongs_to(
    tmp_path: Path, measure: Callable[..., Stopwatch], cache: Path
) -> None:
    """A ratio serves runs with the same network, images, batch and precision only."""
    watch = measure(FASTER)
    changes: list[dict[str, Any]] = [
        {},
        {"backbone": "convnet:width=3"},
        {"datasets": ["tiny:side=20,size=64"]},
        {"hparams": {"batch_size": 8}},
        {"compute": {"precision": "bf16"}},
    ]
    for number, change in enumerate(changes):
        folder = planned(tmp_path / str(number), **change)
        conditions_for(folder)
        conditions_for(folder)
    assert len(watch.calls) == len(changes)
    conditions_for(planned(tmp_path / "other", algorithm="group_dro", hparams={"lr": 0.02}))
    assert len(watch.calls) == len(changes)


@pytest.mark.parametrize("exact", ["true", "false"])
def test_a_step_is_timed_as_the_run_computes(
    exact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    seen = []

    def note(work: Workload, device: torch.device) -> float:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return FASTER

    monkeypatch.setattr(memory_format, "time_ratio", note)
    assert run(planned(tmp_path, compute={"deterministic": exact})) == "done"
    assert seen == [exact == "true"]


def test_nothing_is_measured_of_a_compiled_network_or_without_steps(
    tmp_path: Path, measure: Callable[..., Stopwatch]
) -> None:
    watch = measure(FASTER)
    compiled = planned(tmp_path / "compiled", compute={"compile": True})
    assert conditions_for(compiled).channels_last is False
    spec = spec_of(planned(tmp_path / "plain"))
    info = DATASETS.get(spec.dataset)(None, **spec.dataset_options).info()
    stepless = replace(spec, budget={**spec.budget, "steps": 0})
    found = with_memory_format(Conditions(device="cpu", threads=1), stepless, info, CPU)
    assert found.channels_last is False
    assert not watch.calls


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_timing_a_step_changes_nothing_else(name: str) -> None:
    made: list[torch.nn.Module] = []
    shapes: list[list[int]] = []

    def build() -> torch.nn.Module:
        network = backbone(name, (3, 32, 32), classes=3).float()
        network.register_forward_pre_hook(lambda _, given: shapes.append(list(given[0].shape)))
        made.append(network)
        return network

    work = Workload(build, (3, 32, 32), images=2, autocast=nullcontext)
    before = torch.random.get_rng_state()
    ratio = memory_format.time_ratio(work, CPU)
    assert ratio > 0.0 and ratio == round(ratio, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(made) == 1 and not is_channels_last(made[0])
    assert all(parameter.grad is None for parameter in made[0].parameters())
    assert shapes and all(shape == [2, 3, 32, 32] for shape in shapes)


def test_a_timed_step_on_a_cpu_has_few_large_images() -> None:
    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            sizes.add(len(image))
            return self.conv(image).mean(dim=(2, 3))

    sizes: set[int] = set()
    memory_format.time_ratio(Workload(Mean, (1, 896, 896), 1000, nullcontext), CPU)
    assert sizes == {2}
