"""Runs in TensorBoard, MLflow and wandb without a server, read back from what was written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.core.record import read_record
from benchmark.core.registry import TRACKERS
from benchmark.launch.events import Event, EventKind
from benchmark.tracking.follow import Follower, SweepFolder
from tests.support.runs import plan_run, run

pytestmark = pytest.mark.slow

#: Length of a block, and kinds of pieces that end a record, in offline files of wandb.
_BLOCK = 32768
_WHOLE, _LAST = 1, 4
ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
datasets = ["tiny:size=64"]
algorithms = ["erm", "group_dro"]
backbone = "convnet:width=2"
trials = 1
[budget]
steps = 60
evaluate_every = 5
"""


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def follow(name: str, folder: Path, *kinds: EventKind) -> None:
    """Follow a launch with these events of one run."""
    sweep = SweepFolder(folder.parents[1])
    follower = Follower(TRACKERS.get(name)(sweep.path), sweep, interval=0.01)
    follower.start()
    for kind in kinds:
        follower.on_event(Event(kind, folder.name, ""))
    follower.finish()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = plan_run(tmp_path_factory.mktemp("sweep"), "group_dro")
    assert run(folder) == "done"
    return folder


def in_two_launches(name: str, finished: Path, root: Path) -> Path:
    """Follow a run in two launches, the first of which ends after two evaluations."""
    shutil.copytree(finished.parents[1], root / "sweep")
    folder = root / "sweep" / "runs" / finished.name
    text = (folder / "log.jsonl").read_text()
    (folder / "record.json").rename(folder / "record.txt")
    (folder / "log.jsonl").write_text("".join(text.splitlines(keepends=True)[:2]))
    follow(name, folder, EventKind.START)
    (folder / "log.jsonl").write_text(text)
    (folder / "record.txt").rename(folder / "record.json")
    follow(name, folder, EventKind.START, EventKind.DONE)
    follow(name, folder, EventKind.ALREADY)
    return folder


def check(points: dict[str, list[tuple[int, float]]], folder: Path) -> None:
    """Compare the scalars with the log of the run, each step once."""
    lines = logged(folder)
    for term in lines[0]["terms"]:
        expected = [(line["step"], line["terms"][term]) for line in lines]
        assert points[f"loss/{term}"] == [(s, pytest.approx(v, rel=1e-6)) for s, v in expected]
    steps = [line["step"] for line in lines]
    for name in ("val/accuracy", "val/worst_group_accuracy"):
        assert [step for step, _ in points[name]] == steps


def selected_step(folder: Path) -> int:
    return next(iter(read_record(folder).selected.values())).step


def events(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def scalars(found: Any) -> dict[str, list[tuple[int, float]]]:
    return {n: [(e.step, e.value) for e in found.Scalars(n)] for n in found.Tags()["scalars"]}


def test_tensorboard(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = in_two_launches("tensorboard", finished, tmp_path)
    (written,) = (tmp_path / "sweep" / "tensorboard").iterdir()
    found = events(written)
    points = scalars(found)
    check(points, folder)
    name = next(iter(read_record(folder).selected))
    assert [value for _, value in points[f"selected/{name}/step"]] == [selected_step(folder)]
    images = [tag for tag in found.Tags()["images"] if tag.startswith("heatmaps/")]
    assert len(images) == 8
    assert all(len(found.Images(tag)) == 1 for tag in images)


def test_mlflow(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    folder = in_two_launches("mlflow", finished, tmp_path)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("sweep")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name.startswith("group_dro on tiny")
    spec = read_record(folder).spec
    assert float(found.data.params["hparams/lr"]) == spec.hparams["lr"]
    points = {
        name: [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
    check(points, folder)
    name = next(iter(read_record(folder).selected))
    assert found.data.metrics[f"selected/{name}/step"] == selected_step(folder)
    assert len(client.list_artifacts(found.info.run_id, "heatmaps")) == 8


def test_wandb(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = in_two_launches("wandb", finished, tmp_path)
    points: dict[str, list[tuple[int, float]]] = {}
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    files = sorted((tmp_path / "sweep" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1
    for file in files:
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = items(record.history.item)
                for name, value in row.items():
                    points.setdefault(name, []).append((row["_step"], value))
            elif kind == "summary":
                summary |= items(record.summary.update)
            elif kind == "run":
                config |= items(record.run.config.update)
    check(points, folder)
    spec = read_record(folder).spec
    assert config["hparams/lr"] == spec.hparams["lr"]
    name = next(iter(read_record(folder).selected))
    assert summary[f"selected/{name}/step"] == selected_step(folder)
    assert [count for _, count in points["heatmaps/count"]] == [8]


def records(file: Path) -> list[Any]:
    """The records of an offline file of wandb: LevelDB's log format after a header of 7 bytes.

    Blocks of 32 KiB hold pieces of records; the header of a piece is its checksum (4 bytes), its
    length (2) and whether it is whole, the first, a middle or the last one (1).
    """
    from wandb.proto import wandb_internal_pb2

    data = file.read_bytes()
    assert data[:4] == b":W&B"
    found, content, place = [], b"", 7
    while place + 7 <= len(data):
        if place % _BLOCK > _BLOCK - 7:  # too short for a header
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        content += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (_WHOLE, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            found.append(record)
            content = b""
    return found


def items(given: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in given}


def test_a_launch_that_is_killed_and_repeated_writes_every_point_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "small.toml").write_text(SWEEP)
    command = [sys.executable, "-m", "benchmark.sweep", "launch", "small.toml"]
    command += ["--output", "out", "--device", "cpu", "--workers", "1", "--log", "tensorboard"]
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
    }
    notes = tmp_path / "out" / "trackers" / "tensorboard"
    with subprocess.Popen(command, start_new_session=True, **options) as first:
        deadline = time.monotonic() + 120
        while not list(notes.glob("*.json")) and first.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
    done = subprocess.run(command, timeout=240, check=False, **options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    runs = sorted((tmp_path / "out" / "runs").iterdir())
    written = {path.name[-8:]: path for path in (tmp_path / "out" / "tensorboard").iterdir()}
    assert len(runs) == 2 and written.keys() == {folder.name[:8] for folder in runs}
    for folder in runs:
        points = scalars(events(written[folder.name[:8]]))
        steps = [line["step"] for line in logged(folder)]
        assert [step for step, _ in points["val/accuracy"]] == steps
        assert len(points["selected/val_accuracy/step"]) == 1
