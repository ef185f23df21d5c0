"""Slots: even shares of cores and GPUs, and invalid requests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.launch import slots as module
from benchmark.launch.gpus import Gpus
from benchmark.launch.slots import Placement, cpu_quota
from benchmark.launch.worker import memory_fraction


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: tuple(range(8)))
    monkeypatch.setattr(module, "cpu_quota", lambda: None)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Gpus(("GPU-aaa", "GPU-bbb"))
    monkeypatch.setattr(module, "find_gpus", lambda: found)
    monkeypatch.setattr(module, "require_gpus", lambda: found)


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8, 11])
def test_cpu_slots_share_the_cores_evenly(eight_cores: None, workers: int) -> None:
    found = Placement("cpu", workers).local_slots()
    assert [slot.index for slot in found] == list(range(workers))
    used = [core for slot in found for core in slot.cores]
    assert set(used) == set(range(8))
    if workers <= 8:
        assert len(used) == 8  # no two slots share a core
    sizes = {len(slot.cores) for slot in found}
    assert max(sizes) - min(sizes) <= 1
    assert {slot.threads for slot in found} == {max(1, 8 // workers)}
    assert all(slot.gpu is None and slot.device == "cpu" for slot in found)


def test_by_default_one_worker_per_core(eight_cores: None) -> None:
    assert len(Placement("cpu").local_slots()) == 8


def test_a_containers_quota_limits_the_default_only(
    eight_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cpu_quota", lambda: 3)
    assert len(Placement("cpu").local_slots()) == 3
    assert len(Placement("cpu", 6).local_slots()) == 6


def test_reading_a_quota(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    assert cpu_quota(file) is None
    for text, expected in (
        ("max 100000\n", None),
        ("250000 100000\n", 3),
        ("10000 100000\n", 1),
        ("", None),
    ):
        file.write_text(text)
        assert cpu_quota(file) == expected


def test_real_cores_of_this_process() -> None:
    assert set(module.available_cores()) == os.sched_getaffinity(0)


def test_runs_are_spread_over_the_gpus(eight_cores: None, two_gpus: None) -> None:
    found = Placement("auto", per_gpu=2).local_slots()
    assert [slot.gpu for slot in found] == ["GPU-aaa", "GPU-bbb", "GPU-aaa", "GPU-bbb"]
    assert {slot.share for slot in found} == {2}
    assert [slot.cores for slot in found] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    # few workers spread over the GPUs, and each then has its GPU to itself
    assert [(slot.gpu, slot.share) for slot in Placement("cuda", 2, 2).local_slots()] == [
        ("GPU-aaa", 1),
        ("GPU-bbb", 1),
    ]


def test_invalid_placements_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="workers is 0, expected at least 1"):
        Placement("cpu", 0).local_slots()
    with pytest.raises(UserError, match="per-gpu is -1"):
        Placement("cpu", 1, -1).local_slots()
    with pytest.raises(UserError, match="expected auto, cpu or cuda"):
        Placement("tpu").local_slots()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="use --device cpu"):
        Placement("cuda").local_slots()
    assert Placement("auto", 1).local_slots()[0].device == "cpu"


@pytest.mark.parametrize("share", [2, 4, 8])
def test_runs_that_share_a_gpu_leave_memory_for_their_contexts(share: int) -> None:
    total = 24 << 30
    used = share * memory_fraction(total, share) * total
    assert total - used == pytest.approx(share * 0.75 * 2**30)
    assert memory_fraction(2 << 30, share) == 0.5 / share  # most of a small GPU stays usable
