"""Workers that share a sweep folder: every run once, ends in time, no waiting without a reason."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import pytest

from benchmark.cli.options import time_span
from benchmark.cli.working import expected_seconds
from benchmark.core.layout import RunFolder, SweepFolder
from benchmark.launch.run_queue import Node, RunQueue
from tests.support.launcher_process import (
    Launcher,
    expected_value,
    leases,
    make,
    record,
    run,
    spec,
    until,
)


def test_three_workers_do_every_run_once(tmp_path: Path) -> None:
    specs = [spec(trial, sleep=0.05) for trial in range(9)]
    make(tmp_path, *specs)
    workers = [Launcher(tmp_path, workers=1, shift={}) for _ in range(3)]
    for worker in workers:
        worker.wait()
    done = [key for worker in workers for key in worker.summary()["done"]]
    assert sorted(done) == sorted(one.key for one in specs)
    for one in specs:
        assert record(tmp_path, one.key)["value"] == expected_value(one)
    assert leases(tmp_path) == []


@pytest.mark.slow
def test_a_worker_leaves_runs_of_others_unless_it_needs_them(tmp_path: Path) -> None:
    slow = spec(0, steps=200, sleep=0.1)
    make(tmp_path, slow)
    first = Launcher(tmp_path, workers=1, shift={})
    until(lambda: first.events("start"))
    until(lambda: (tmp_path / "runs" / slow.key / "lease.json").exists())
    second = run(tmp_path, workers=1, shift={})
    assert second.summary()["done"] == [] and first.process.poll() is None
    student = spec(1, upstream={"teacher": slow.key})
    make(tmp_path, student)
    third = run(tmp_path, workers=1, shift={})  # waits for the teacher
    assert third.summary()["done"] == [student.key]
    assert first.wait() == 0


def test_runs_are_saved_when_the_time_is_up(tmp_path: Path) -> None:
    one = spec(0, steps=50, sleep=0.05)
    make(tmp_path, one)
    worker = Launcher(tmp_path, workers=1, shift={"seconds": 1.5})
    until(lambda: worker.events("start"))
    worker.wait()
    assert worker.summary()["done"] == []
    assert worker.events("interrupted")
    assert leases(tmp_path) == []
    assert run(tmp_path, workers=1, shift={}).summary()["done"] == [one.key]
    assert record(tmp_path, one.key)["value"] == expected_value(one)


@pytest.mark.slow
def test_no_run_is_started_that_would_not_end_in_time(tmp_path: Path) -> None:
    make(tmp_path, spec(0, steps=120, sleep=0.1), spec(1, steps=120, sleep=0.1))
    worker = run(tmp_path, workers=1, shift={"seconds": 20.0, "expected": 10.0})
    assert len(worker.events("start")) == len(worker.summary()["done"]) == 1
    assert worker.summary()["time_is_up"]


@pytest.mark.slow
def test_runs_that_are_longer_than_the_time_of_a_worker_are_done_in_parts(tmp_path: Path) -> None:
    one = spec(0, steps=30, sleep=0.1)
    make(tmp_path, one)
    shifts = 0
    while not RunFolder(tmp_path / "runs" / one.key).record.exists() and shifts < 30:
        worker = run(tmp_path, workers=1, shift={"seconds": 2.0, "expected": 100.0})
        assert worker.events("start")
        shifts += 1
    assert 1 < shifts < 30 and record(tmp_path, one.key)["value"] == expected_value(one)


def test_workers_take_different_orders_and_first_what_others_need() -> None:
    nodes = {key: Node(key, Path(key), key) for key in "abcdefgh"}
    nodes["i"] = Node("i", Path("i"), "i", ("g", "h"))
    orders = []
    for seed in range(3):
        queue = RunQueue(nodes)
        queue.shuffle(random.Random(seed))
        orders.append(list(queue.waiting))
    assert all(sorted(order) == sorted(nodes) for order in orders)
    assert all(set(order[:2]) == {"g", "h"} for order in orders)
    assert len(set(map(tuple, orders))) == 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("00:01:30", 90), ("12:00:00", 43200), ("2-01:00:00", 176400)],
)
def test_times_are_those_of_slurm(text: str, seconds: float) -> None:
    assert time_span(text) == seconds


@pytest.mark.parametrize("text", ["", "1h", "-5", "1:2", "00:61:00", "1e3", "²"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="HH:MM:SS"):
        time_span(text)


def test_without_finished_runs_nothing_is_expected(tmp_path: Path) -> None:
    assert expected_seconds(SweepFolder(tmp_path), ["0" * 16]) == 0.0
