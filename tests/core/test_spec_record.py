"""RunSpec and RunRecord: keys, round trips and schema versions; states of run folders."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.errors import DamagedError, UserError
from benchmark.core.failure import FailureKind, failure_json
from benchmark.core.files import to_json
from benchmark.core.layout import LEASE_SECONDS, State, state_of
from benchmark.core.record import RunRecord, read_record
from benchmark.core.spec import (
    SCHEMA,
    Budget,
    ComputeOptions,
    Measurement,
    RunSpec,
    before_switch,
    check_schema,
    read_spec,
    read_upstream,
)
from benchmark.core.summaries import (
    DataSummary,
    MachineSummary,
    MethodSummary,
    SelectedStep,
    Timing,
    UpstreamSummary,
)
from benchmark.plan.sweepfile import BUDGET, COMPUTE

ROOT = Path(__file__).resolve().parents[2]

SPEC = RunSpec(
    dataset="tiny",
    dataset_options={"bias": 0.9, "size": 96},
    data_fingerprint="0123456789abcdef",
    algorithm="cdan",
    variant="cdann",
    backbone="convnet",
    backbone_options={"width": 16},
    hparams={"lr": 1e-3, "batch_size": 64},
    trial=1,
    draw=2,
    budget={"steps": 100, "evaluate_every": 10, "patience": 0, "min_delta": 0.0},
    selection=("val_accuracy", "last"),
    augmentation={"flip": 0.5},
    compute={"precision": "fp32"},
    upstream={"teacher": "fedcba9876543210"},
)

RECORDED = RunRecord(
    key=SPEC.key,
    spec=SPEC,
    attempt=1,
    selected={"last": SelectedStep(100, 100.0, {"val": np.array([[[1, 0], [0, 1]]])})},
    data=DataSummary(label_names=("a", "b"), splits={"train": 8, "val": 2}),
    method=MethodSummary(needs=(), sampling="random"),
    seconds=Timing(training=1.5, evaluation=0.5, total=2.0),
    steps=100,
    stopped_early=False,
    images_per_second=10.5,
    peak_memory_bytes=1,
    parameters=2,
    machine=MachineSummary(device="cpu"),
    started=1.0,
    finished=2.0,
    upstream={"teacher": UpstreamSummary(SPEC.upstream["teacher"], "erm")},
)


def test_the_speed_of_inference_is_optional() -> None:
    assert "inference_images_per_second" not in RECORDED.to_json()
    timed = replace(RECORDED, inference_images_per_second=123.4)
    assert RunRecord.from_json(json.loads(json.dumps(timed.to_json()))) == timed
    for wrong in (-1.0, "fast", math.inf):
        with pytest.raises(DamagedError, match="inference_images_per_second"):
            RunRecord.from_json({**RECORDED.to_json(), "inference_images_per_second": wrong})


def test_the_key_does_not_depend_on_the_order_of_tables() -> None:
    backwards = replace(
        SPEC,
        hparams=dict(reversed(list(SPEC.hparams.items()))),
        dataset_options=dict(reversed(list(SPEC.dataset_options.items()))),
        budget=dict(reversed(list(SPEC.budget.items()))),
    )
    assert backwards.key == SPEC.key
    assert len(SPEC.key) == 16 and int(SPEC.key, 16) >= 0


def test_the_key_never_changes() -> None:
    assert (
        SPEC.key == "566d57d9628f7c7a"
    )  # of schema 1: a change of this digest orphans every stored result


def test_the_key_is_the_same_in_another_process() -> None:
    code = (
        "import json, sys; from benchmark.core.spec import RunSpec; "
        "print(RunSpec.from_json(json.load(sys.stdin)).key)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(SPEC.to_json()),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        assert done.stdout.strip() == SPEC.key


CHANGED: dict[str, Any] = {
    "dataset": "other",
    "dataset_options": {"bias": 0.8, "size": 96},
    "data_fingerprint": "1123456789abcdef",
    "algorithm": "dann",
    "variant": "",
    "backbone": "resnet18",
    "backbone_options": {},
    "hparams": {"lr": 1e-4, "batch_size": 64},
    "trial": 2,
    "draw": 0,
    "budget": {"steps": 101},
    "selection": ("last", "val_accuracy"),
    "augmentation": {},
    "oracle": True,
    "compute": {"precision": "bf16"},
    "upstream": {},
    "select_before_switch": True,
    "evaluate_train": True,
    "curves": ("auc",),
    "measurement": Measurement("lrp", {}, ("mass",), 512, ("unbiased",)),
    "schema": 2,
}


def test_the_key_changes_with_every_field() -> None:
    assert set(CHANGED) == {f.name for f in fields(RunSpec)}
    keys = {name: replace(SPEC, **{name: value}).key for name, value in CHANGED.items()}
    assert SPEC.key not in keys.values() and len(set(keys.values())) == len(keys)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, select_before_switch=True),
        replace(SPEC, curves=("auc", "distance")),
        replace(SPEC, evaluate_train=True),
        replace(SPEC, measurement=CHANGED["measurement"]),
        replace(SPEC, measurement=replace(CHANGED["measurement"], target="label")),
    ],
)
def test_a_spec_survives_json(spec: RunSpec) -> None:
    again = RunSpec.from_json(json.loads(to_json(spec.to_json())))
    assert again == spec and again.key == spec.key


def test_a_spec_from_before_a_run_could_be_selected_early_is_read() -> None:
    assert "select_before_switch" not in SPEC.to_json()
    assert RunSpec.from_json(SPEC.to_json()).select_before_switch is False


@pytest.mark.parametrize(
    ("step", "switch", "before"),
    [(0, 0, False), (7, 0, False), (100, 500, True), (500, 500, True), (501, 500, False)],
)
def test_a_model_after_as_many_steps_as_come_before_the_switch_has_made_none_of_its_method(
    step: int, switch: int, before: bool
) -> None:
    """Steps are counted from 0: after 500 steps, step 500 is the next one."""
    assert before_switch(step, switch) is before


def _stored(spec: RunSpec, root: Path, **changes: object) -> Path:
    folder = root / spec.key
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_bytes(to_json({**spec.to_json(), **changes}))
    return folder


def test_upstream_alone_is_read_as_with_the_whole_spec(tmp_path: Path) -> None:
    first = SPEC.key
    for upstream in ({}, {"teacher": first}, {"teacher": first, "first": "0" * 16, "again": first}):
        spec = replace(SPEC, upstream=upstream, select_before_switch=bool(upstream))
        folder = _stored(spec, tmp_path)
        expected = tuple(dict.fromkeys(read_spec(folder).upstream.values()))
        assert read_upstream(folder) == expected and len(expected) == len({*upstream.values()})


@pytest.mark.parametrize(
    "changes",
    [
        {"trial": 5},
        {"upstream": {"teacher": "1" * 16}},
        {"upstream": []},
        {"more": 1},
        {"schema": 9},
    ],
)
def test_upstream_of_an_edited_spec_is_not_read(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = _stored(SPEC, tmp_path, **changes)
    with pytest.raises(UserError) as whole:
        read_spec(folder)
    with pytest.raises(UserError) as alone:
        read_upstream(folder)
    assert str(alone.value) == str(whole.value)


@pytest.mark.parametrize(
    "upstream", [5, ["0" * 16], {"teacher": 5}, {"teacher": ["0" * 16]}, {"teacher": "../.."}]
)
def test_an_invalid_table_of_upstream_runs_is_damaged(upstream: object, tmp_path: Path) -> None:
    """Even in a folder whose name was made to fit."""
    spec = replace(SPEC, upstream=upstream)  # type: ignore[arg-type]
    with pytest.raises(DamagedError, match="upstream"):
        read_upstream(_stored(spec, tmp_path))


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff", b"NaN"])
def test_upstream_of_an_invalid_spec(content: bytes, tmp_path: Path) -> None:
    folder = _stored(SPEC, tmp_path)
    (folder / "spec.json").write_bytes(content)
    with pytest.raises(UserError):
        read_upstream(folder)
    (folder / "spec.json").unlink()
    with pytest.raises(FileNotFoundError):
        read_upstream(folder)


def test_typed_views_of_budget_and_compute_have_the_values_of_the_tables() -> None:
    spec = replace(
        SPEC,
        budget={"steps": 30, "evaluate_every": 7, "patience": 2, "min_delta": 0.5, "extra": 1},
        compute={"precision": "bf16", "channels_last": True, "deterministic": "true"},
    )
    assert spec.training_budget == Budget(30, 7, 2, 0.5)
    assert spec.compute_options == ComputeOptions("bf16", True, False, "true", True)
    older = replace(spec, budget={"steps": 30}, compute={})
    assert older.training_budget == Budget(30, evaluate_every=1, patience=0, min_delta=0.0)
    assert older.compute_options == ComputeOptions()
    assert asdict(ComputeOptions()) == COMPUTE and list(BUDGET) == [f.name for f in fields(Budget)]


def test_names_for_people() -> None:
    assert SPEC.method == "cdan:cdann" and replace(SPEC, variant="").method == "cdan"
    assert SPEC.label() == "cdan:cdann on tiny, trial 1 draw 2"
    assert replace(SPEC, draw=0).label() == "cdan:cdann on tiny, trial 1"


@pytest.mark.parametrize(
    "value", [{"schema": 99}, {}, [], None, "text", {"schema": "1"}, {"schema": True}]
)
def test_another_schema_version_is_a_user_error(value: object) -> None:
    for read in (RunSpec.from_json, RunRecord.from_json, lambda v: check_schema(v, "here.json")):
        with pytest.raises(UserError, match=r"schema version .*expected 1.*version of ShortcutBed"):
            read(value)


def test_missing_and_unknown_fields_are_named() -> None:
    value = SPEC.to_json()
    del value["trial"]
    with pytest.raises(UserError, match=r"spec\.json .*fields \(extra_field, trial\)"):
        RunSpec.from_json({**value, "extra_field": 1})
    record = RECORDED.to_json()
    del record["steps"]
    with pytest.raises(UserError, match=r"record\.json .*fields \(steps\)"):
        RunRecord.from_json(record)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of the run, named after its key."""
    (tmp_path / SPEC.key).mkdir()
    return tmp_path / SPEC.key


def test_a_record_survives_json(home: Path) -> None:
    (home / "record.json").write_bytes(to_json(RECORDED.to_json(), indent=None))
    again = read_record(home)
    assert again == RECORDED and isinstance(again.spec, RunSpec) and again.spec.key == again.key


def test_reading_a_record_that_is_not_there_or_damaged(home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_record(home)
    for content in (b"", b"{", b"\xff"):
        (home / "record.json").write_bytes(content)
        with pytest.raises(UserError, match=r"record\.json is not JSON .*launch"):
            read_record(home)
    (home / "record.json").write_bytes(to_json({**RECORDED.to_json(), "schema": 7}))
    with pytest.raises(UserError, match="schema version 7, expected 1"):
        read_record(home)


NOW = 1_000_000.0


def _folder(path: Path, *names: str, age: float = 0.0) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        (path / name).touch()
        os.utime(path / name, (NOW - age, NOW - age))
    return path


@pytest.mark.parametrize(
    ("names", "age", "state"),
    [
        ((), 0, State.PENDING),
        (("spec.json", "checkpoint.pt", "log.jsonl"), 0, State.PENDING),
        (("lease.json",), 0, State.RUNNING),
        (("lease.json",), LEASE_SECONDS - 1, State.RUNNING),
        (("lease.json",), LEASE_SECONDS + 1, State.LOST),
        (
            ("lease.json",),
            -3600,
            State.RUNNING,
        ),  # the file server's clock is ahead: never taken for dead
        (("failure.json",), 0, State.FAILED),
        (("failure.json", "lease.json"), 0, State.FAILED),
        (("record.json",), 0, State.DONE),
        (("record.json", "failure.json"), 0, State.DONE),
        (("record.json", "lease.json"), 0, State.DONE),
        (("record.json", "lease.json", "checkpoint.pt"), LEASE_SECONDS + 1, State.DONE),
    ],
)
def test_the_state_comes_from_the_names_in_the_folder(
    names: tuple[str, ...], age: float, state: State, tmp_path: Path
) -> None:
    assert state_of(_folder(tmp_path / "run", *names, age=age), now=NOW) is state


def test_the_state_without_a_folder_and_by_the_clock(tmp_path: Path) -> None:
    assert state_of(tmp_path / "none") is State.PENDING
    (tmp_path / "file").touch()
    assert state_of(tmp_path / "file") is State.PENDING
    folder = _folder(tmp_path / "run", "lease.json")
    os.utime(folder / "lease.json", (time.time(), time.time()))
    assert state_of(folder) is State.RUNNING
    os.utime(folder / "lease.json", (time.time() - 2 * LEASE_SECONDS,) * 2)
    assert state_of(folder) is State.LOST


def test_a_lease_that_goes_away_while_we_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "listdir", lambda _: ["lease.json"])
    assert state_of(tmp_path) is State.PENDING


def test_the_content_of_a_failure() -> None:
    value = failure_json(
        SPEC.key, 3, FailureKind.NON_FINITE, "term x became NaN.", step=7, term="x"
    )
    assert value == {
        "schema": SCHEMA,
        "key": SPEC.key,
        "attempt": 3,
        "kind": "non_finite",
        "message": "term x became NaN.",
        "step": 7,
        "term": "x",
    }
