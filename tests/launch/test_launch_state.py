"""States, progress and retry from run folders that are written by hand."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.core.files import read_json, write_json
from benchmark.core.layout import State
from benchmark.core.run_states import AttemptEnd
from benchmark.core.spec import RunSpec, spec_bytes, spec_digest
from benchmark.core.sweep_plan import PlannedEntry
from benchmark.launch import attempts
from benchmark.launch.retry import retry
from benchmark.launch.run_queue import RunQueue, read_nodes
from benchmark.launch.status import Progress, progress, sweep_states
from tests.support.launcher_process import make, spec


def fail(folder: Path, attempt: int = 1) -> None:
    write_json(
        folder / "failure.json",
        {"attempt": attempt, "message": "loss became NaN", "kind": "non_finite"},
    )


def test_states_of_every_kind_from_listings(tmp_path: Path) -> None:
    runs = [spec(trial) for trial in range(5)]
    chain = [spec(10, upstream={"teacher": runs[1].key})]
    chain.append(spec(11, upstream={"teacher": chain[0].key}))
    chain.append(spec(12, upstream={"teacher": runs[0].key}))
    keys = make(tmp_path, *runs, *chain)
    done, failed, running, lost, _ = (tmp_path / "runs" / one.key for one in runs)
    write_json(done / "record.json", {})
    fail(failed)
    (running / "lease.json").write_text("")
    (lost / "lease.json").write_text("")
    os.utime(lost / "lease.json", (time.time() - 1000,) * 2)
    states = sweep_states(tmp_path, keys).by_key
    assert [states[key].value for key in keys] == [
        "done", "failed", "running", "lost", "pending", "blocked", "blocked", "pending",
    ]  # fmt: skip
    # a done run is done, whatever became of what it needed
    write_json(tmp_path / "runs" / chain[0].key / "record.json", {})
    states = sweep_states(tmp_path, keys).by_key
    assert [states[one.key].value for one in chain] == ["done", "pending", "pending"]


def _planned(one: RunSpec, digest: str | None) -> PlannedEntry:
    upstream = one.upstream_keys
    return PlannedEntry("fake", one.method, one.trial, upstream=upstream, spec_digest=digest)


@pytest.mark.parametrize("written", [None, "0" * 16, "as planned"])
def test_states_with_entries_of_the_plan_are_those_without(
    tmp_path: Path, written: str | None
) -> None:
    """Edited and damaged specs are found, whatever the plan says of the files."""
    first = spec(0)
    runs = [first, *(spec(trial, upstream={"teacher": first.key}) for trial in range(1, 5))]
    keys = make(tmp_path, *runs)
    entries = {}
    for one in runs:
        content = (tmp_path / "runs" / one.key / "spec.json").read_bytes()
        assert content == spec_bytes(one)
        digest = spec_digest(content) if written == "as planned" else written
        entries[one.key] = _planned(one, digest)
    fail(tmp_path / "runs" / first.key)
    edited, torn, missing = (tmp_path / "runs" / key / "spec.json" for key in keys[2:])
    edited.write_bytes(edited.read_bytes().replace(b'"trial": 2', b'"trial": 9'))
    torn.write_bytes(torn.read_bytes()[:-20])
    missing.unlink()
    states = sweep_states(tmp_path, keys, entries)
    assert list(states.by_key.values()) == [
        State.FAILED, State.BLOCKED, State.UNREADABLE, State.UNREADABLE, State.PENDING,
    ]  # fmt: skip
    assert states.without_spec == {keys[4]}
    assert states == sweep_states(tmp_path, keys)


@pytest.mark.parametrize("ahead", [-1000.0, 1000.0])
def test_states_do_not_depend_on_the_clock_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    running, lost = spec(0), spec(1)
    keys = make(tmp_path, running, lost)
    leases = [tmp_path / "runs" / key / "lease.json" for key in keys]
    for lease in leases:
        lease.write_text("")
    os.utime(leases[1], (time.time() - 500,) * 2)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    states = sweep_states(tmp_path, keys).by_key
    assert [states[key].value for key in keys] == ["running", "lost"]
    assert not list((tmp_path / "runs").glob(".*"))


def test_progress_tolerates_a_torn_line(tmp_path: Path) -> None:
    assert progress(tmp_path) == Progress()
    log = tmp_path / "attempts" / "3" / "log.jsonl"
    log.parent.mkdir(parents=True)
    (tmp_path / "attempts" / "2").mkdir()
    assert progress(tmp_path) == Progress(attempt=3)
    lines = [
        json.dumps(
            {
                "step": step,
                "steps": 100,
                "seconds": seconds,
                "images_per_second": 50.0,
                "padding": "x" * 9000,
            }
        )
        for step, seconds in ((10, 2.0), (20, 4.0), (30, 8.0))
    ]
    log.write_text("\n".join(lines) + "\n" + lines[-1][:50])
    found = progress(tmp_path)
    assert (found.step, found.steps, found.images_per_second, found.attempt) == (30, 100, 50.0, 3)
    assert found.seconds_left == pytest.approx(
        70 * 4.0 / 10
    )  # the pace of the last line: 4 s for 10 steps
    assert found.fraction == pytest.approx(0.3)
    log.write_text(lines[0] + "\n")
    assert progress(tmp_path).seconds_left == pytest.approx(90 * 0.2)
    log.write_text(lines[0])
    assert progress(tmp_path) == Progress(attempt=3), "a line without its end was not written"
    log.write_text('{"step": "ten"}\n[1]\nnull\n\xff\n')
    assert progress(tmp_path) == Progress(attempt=3)
    fail(tmp_path)
    assert progress(tmp_path).reason == "loss became NaN"
    (tmp_path / "failure.json").write_text("{")
    assert "failure.json is not JSON" in progress(tmp_path).reason


def test_retry_moves_and_never_deletes(tmp_path: Path) -> None:
    runs = [spec(trial) for trial in range(4)]
    make(tmp_path, *runs)
    folders = [tmp_path / "runs" / one.key for one in runs]
    for folder in folders[:3]:
        (folder / "attempts" / "2").mkdir(parents=True)
        fail(folder, 2)
    write_json(folders[2] / "record.json", {})  # done after all: not failed
    assert retry(tmp_path, [runs[0].key, runs[3].key]) == [runs[0].key]
    moved = folders[0] / "attempts" / "2" / "failure.json"
    assert read_json(moved)["message"] == "loss became NaN"
    assert not (folders[0] / "failure.json").exists()
    fail(folders[0], 2)
    assert sorted(retry(tmp_path)) == sorted([runs[0].key, runs[1].key])
    assert sorted(path.name for path in moved.parent.iterdir()) == [
        "failure.2.json",
        "failure.json",
    ]
    (folders[3] / "failure.json").write_text("torn")
    assert retry(tmp_path) == [runs[3].key]
    assert (folders[3] / "attempts" / "1" / "failure.json").read_text() == "torn"
    assert retry(tmp_path) == []
    with pytest.raises(UserError, match=r"no run 'nonsense'"):
        retry(tmp_path, ["nonsense"])


def test_attempts_are_numbered_and_counted(tmp_path: Path) -> None:
    assert attempts.numbers(tmp_path) == []
    assert [attempts.begin(tmp_path) for _ in range(3)] == [1, 2, 3]
    (tmp_path / "attempts" / "11").mkdir()
    (tmp_path / "attempts" / "notes").mkdir()
    assert attempts.begin(tmp_path) == 12
    for number, reason in ((1, AttemptEnd.SIGNAL), (2, AttemptEnd.STOPPED), (3, AttemptEnd.EXIT)):
        attempts.end(tmp_path, number, reason)
    attempts.end(tmp_path, 3, AttemptEnd.SIGNAL)  # the first reason is kept
    assert attempts.reason_of(tmp_path, 3) is AttemptEnd.EXIT
    write_json(tmp_path / "attempts" / "12" / "ended.json", {"reason": "of a later version"})
    assert attempts.reason_of(tmp_path, 12) is None
    assert attempts.count(tmp_path, attempts.COUNTED_ENDS) == 2
    write_json(tmp_path / "attempts" / "2" / "failure.json", {})  # a failure that was retried
    assert attempts.count(tmp_path, attempts.COUNTED_ENDS) == 1


def test_the_graph_orders_and_blocks(tmp_path: Path) -> None:
    a = spec(1)
    b = spec(2, upstream={"teacher": a.key})
    c = spec(3, upstream={"teacher": b.key, "biased": a.key})
    d = spec(4)
    make(tmp_path, a, b, c, d)
    graph = RunQueue(read_nodes(tmp_path, [c.key, d.key]))
    assert list(graph.nodes) == [a.key, b.key, c.key, d.key]
    assert [node.key for node in graph.ready()] == [a.key, d.key]
    graph.take(a.key)
    assert [node.key for node in graph.ready()] == [d.key]
    graph.requeue(a.key)
    assert [node.key for node in graph.ready()] == [d.key, a.key]
    graph.finish(a.key)
    assert [node.key for node in graph.ready()] == [b.key, d.key]
    blocked = graph.fail(b.key, "why")
    assert [(node.key, culprit.key) for node, culprit in blocked] == [(c.key, b.key)]
    assert list(graph.waiting) == [d.key]


def test_runs_cannot_need_each_other(tmp_path: Path) -> None:
    """A key is the hash of a spec that holds the keys of the upstream runs."""
    one = spec(1)
    make(tmp_path, one)
    path = tmp_path / "runs" / one.key / "spec.json"
    write_json(path, {**one.to_json(), "upstream": {"teacher": one.key}})
    with pytest.raises(UserError, match="does not belong to its folder"):
        read_nodes(tmp_path, [one.key])
