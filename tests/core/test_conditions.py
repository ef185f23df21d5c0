"""Conditions of a run: collected, stored and compared."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmark.core.conditions import MAX_THREADS, Conditions, prepare_openmp
from benchmark.core.decode import decode
from benchmark.core.errors import DamagedError
from benchmark.engine import environment_info

SOME = Conditions(
    device="cpu",
    threads=2,
    processor="A",
    instructions="AVX2",
    versions={"torch": "2.9.1", "numpy": "2.3"},
    commit="abc",
    settings={"onednn": "true"},
    environment={"MKL_CBWR": "AVX2"},
)


def test_conditions_survive_json() -> None:
    assert decode(Conditions, json.loads(json.dumps(SOME.to_json())), "here") == SOME


@pytest.mark.parametrize(
    "change",
    [
        {"threads": 0},
        {"threads": MAX_THREADS + 1},
        {"threads": 2.0},
        {"threads": True},
        {"versions": []},
        {"device": 3},
    ],
)
def test_invalid_conditions_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DamagedError):
        decode(Conditions, {**SOME.to_json(), **change}, "here")


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (SOME, []),
        (replace(SOME, threads=1), ["threads 1 after 2"]),
        (replace(SOME, device="NVIDIA H200"), ["device NVIDIA H200 after cpu"]),
        (replace(SOME, instructions="AVX512"), ["instructions AVX512 after AVX2"]),
        (replace(SOME, commit=None), ["commit unset after abc"]),
        (replace(SOME, environment={}), ["MKL_CBWR unset after AVX2"]),
        (
            replace(
                SOME, versions={"torch": "2.10.0", "numpy": "2.3"}, settings={"onednn": "false"}
            ),
            ["torch 2.10.0 after 2.9.1", "onednn false after true"],
        ),
    ],
)
def test_changes_are_told_by_name(later: Conditions, expected: list[str]) -> None:
    assert later.changes_since(SOME) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"OMP_DYNAMIC": "true"}, {}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"OMP_THREAD_LIMIT": "3"}, {"OMP_NUM_THREADS": "3"}),
        ({"OMP_THREAD_LIMIT": "3", "OMP_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "2"}),
        ({"OMP_THREAD_LIMIT": "3", "OMP_NUM_THREADS": "8,4"}, {"OMP_NUM_THREADS": "3"}),
        ({"OMP_THREAD_LIMIT": "many", "OMP_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_openmp_gives_every_operation_the_threads_that_it_asks_for(
    given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(given))
    prepare_openmp()
    assert os.environ == {"OMP_WAIT_POLICY": "PASSIVE", "OMP_DYNAMIC": "FALSE", **expected}


def test_the_conditions_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "x" * 1000)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    found = environment_info.current_conditions(torch.device("cpu"))
    assert found.device == "cpu" and found.threads == torch.get_num_threads()
    assert torch.__version__.startswith(found.versions["torch"])
    assert found.instructions == torch.backends.cpu.get_cpu_capability()
    assert found.processor
    assert found.settings["onednn"] in ("true", "false")
    assert len(found.environment["MKL_CBWR"]) == 100
    assert "ONEDNN_MAX_CPU_ISA" not in found.environment
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(not before)
    try:
        changed = environment_info.current_conditions(torch.device("cpu")).changes_since(found)
    finally:
        torch.use_deterministic_algorithms(before)
    assert changed == [f"deterministic {str(not before).lower()} after {str(before).lower()}"]


def test_a_measured_choice_is_a_setting_and_its_ratio_is_none() -> None:
    assert SOME.channels_last is None
    assert "time_ratios" not in SOME.to_json()
    chosen = SOME.with_channels_last(True, 0.82)
    assert chosen.channels_last is True
    assert decode(Conditions, json.loads(json.dumps(chosen.to_json())), "here") == chosen
    assert chosen.changes_since(SOME) == ["channels_last true after unset"]
    assert chosen.changes_since(SOME.with_channels_last(True, 0.9)) == []
    off = chosen.with_channels_last(False, None)
    assert off.channels_last is False and not off.time_ratios
