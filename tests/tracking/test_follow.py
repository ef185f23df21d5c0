"""Following a launch: each evaluation once, also after a kill, whatever the tracker does."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.counts import accuracy, worst_group_accuracy
from benchmark.core.errors import UserError
from benchmark.core.layout import SweepFolder
from benchmark.core.record import read_record
from benchmark.core.registry import TRACKERS
from benchmark.launch.events import Event, EventKind
from benchmark.sweep import main
from benchmark.tracking import follow
from benchmark.tracking.base import Picture, RunWriter, TrackedRun, Tracker
from benchmark.tracking.follow import Follower, followed
from benchmark.tracking.values import side_by_side
from tests.support.messages import mentions
from tests.support.runs import plan_run, run


class Notebook(Tracker):
    """A tracker that remembers everything."""

    name = "notebook"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runs: dict[str, TrackedRun] = {}
        self.points: list[tuple[int, Mapping[str, float]]] = []
        self.found: list[tuple[Mapping[str, float], Sequence[Picture]]] = []
        self.closed: list[tuple[bool, bool]] = []

    def open(self, run: TrackedRun, last_step: int) -> RunWriter:
        self.runs[run.key] = run
        return _Page(self, last_step)


class _Page(RunWriter):
    def __init__(self, book: Notebook, last_step: int) -> None:
        self.book, self.last_step = book, last_step

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.book.points.append((step, values))

    def results(self, steps: int, values: Mapping[str, float], pictures: Sequence[Picture]) -> None:
        self.book.found.append((values, pictures))

    def close(self, *, ended: bool, failed: bool = False) -> None:
        self.book.closed.append((ended, failed))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of GroupDRO."""
    folder = plan_run(tmp_path_factory.mktemp("sweep"), "group_dro")
    assert run(folder) == "done"
    return folder


def launched(folder: Path, *kinds: EventKind) -> Notebook:
    """Follow a launch with these events of one run, and return what was written."""
    sweep = SweepFolder(folder.parent.parent)
    book = Notebook(sweep.path)
    follower = Follower(book, sweep, interval=0.01)
    follower.start()
    for kind in kinds:
        follower.on_event(Event(kind, folder.name, ""))
    follower.finish()
    return book


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(finished.parents[1], tmp_path / "sweep")
    return tmp_path / "sweep" / "runs" / finished.name


def test_every_evaluation_and_the_results_once(folder: Path) -> None:
    book = launched(folder, EventKind.START, EventKind.DONE)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [step for step, _ in book.points] == [line["step"] for line in lines]
    for line, (_, values) in zip(lines, book.points, strict=True):
        assert {n: values[f"loss/{n}"] for n in line["terms"]} == line["terms"]
        counts = np.array(line["splits"]["val"]["counts"])
        assert values["val/accuracy"] == accuracy(counts)
        assert values["val/worst_group_accuracy"] == worst_group_accuracy(counts)
    record = read_record(folder)
    ((results, pictures),) = book.found
    for criterion, selected in record.selected.items():
        assert results[f"selected/{criterion}/step"] == selected.step
        for split, counts in selected.counts.items():
            assert results[f"selected/{criterion}/{split}/accuracy"] == accuracy(counts)
    side = record.data.input.image_size[1]  # type: ignore[union-attr]
    assert len(pictures) == 8
    assert all(p.pixels.shape == (side, 2 * side, 3) for p in pictures)
    assert book.closed == [(True, False)]
    named = book.runs[folder.name]
    assert named.name == "group_dro on tiny, trial 0" and named.sweep == "sweep"
    assert named.settings["hparams/lr"] == record.spec.hparams["lr"]
    again = launched(folder, EventKind.ALREADY)
    assert not again.runs and not again.points and not again.found


def test_a_resumed_run_continues_where_the_last_launch_was_killed(folder: Path) -> None:
    text = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    record = (folder / "record.json").read_bytes()
    (folder / "record.json").unlink()
    (folder / "log.jsonl").unlink()
    first = folder / "attempts" / "1" / "log.jsonl"
    first.write_text("".join(text[:3]) + text[3][:20])  # the kill tore a line
    book = launched(folder, EventKind.START)
    assert [step for step, _ in book.points] == [5, 10, 15] and not book.found
    assert book.closed == [(False, False)]
    # it is resumed from a checkpoint before the last line
    second = folder / "attempts" / "2" / "log.jsonl"
    second.parent.mkdir()
    second.write_text("".join(text[:2]))
    assert not launched(folder, EventKind.START).points
    second.unlink()
    (folder / "log.jsonl").write_text("".join(text))
    (folder / "record.json").write_bytes(record)
    book = launched(folder, EventKind.ALREADY)
    assert [step for step, _ in book.points] == [20] and len(book.found) == 1


class Broken(Notebook):
    """A tracker whose server is gone."""

    name = "broken"

    def open(self, run: TrackedRun, last_step: int) -> RunWriter:
        raise ConnectionError("the server is gone")


class Unusable(Notebook):
    """A tracker whose package does not work."""

    name = "unusable"

    def __init__(self, folder: Path) -> None:
        raise ImportError("a library is missing")


class Silent(Notebook):
    """A tracker that never answers."""

    name = "silent"
    answer = threading.Event()

    def open(self, run: TrackedRun, last_step: int) -> RunWriter:
        self.answer.wait()
        raise ConnectionError("too late")


@pytest.fixture
def registered() -> Iterator[None]:
    with TRACKERS.only_within(Notebook, Broken, Unusable, Silent):
        yield


@pytest.mark.usefixtures("registered")
def test_a_broken_tracker_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with followed(["broken", "unusable"], folder.parents[1]) as track:
        track(Event(EventKind.START, folder.name, ""))
    said = capsys.readouterr().err
    assert mentions(said, "broken failed", "ConnectionError: the server is gone")
    assert mentions(said, "unusable failed", "ImportError: a library is missing")


def test_a_tracker_that_hangs_does_not_hold_the_launch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Silent.answer.clear()
    sweep = SweepFolder(folder.parents[1])
    follower = Follower(Silent(sweep.path), sweep, interval=0.01)
    follower.start()
    follower.on_event(Event(EventKind.START, folder.name, ""))
    started = time.monotonic()
    follower.finish(patience=0.2)
    assert time.monotonic() - started < 5
    assert "did not take everything" in capsys.readouterr().err
    Silent.answer.set()


@pytest.mark.usefixtures("registered")
def test_two_launches_of_a_folder_do_not_write_twice(tmp_path: Path) -> None:
    with followed(["notebook"], tmp_path):
        with pytest.raises(UserError, match="another launch"), followed(["notebook"], tmp_path):
            pass
        with followed(["notebook"], tmp_path, alone=False):  # single runs have leases
            pass
    with followed(["notebook"], tmp_path):
        pass


def test_mistakes_are_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "quickstart", "--log", "tensorbord"]) == 2
    assert "did you mean tensorboard" in capsys.readouterr().err
    monkeypatch.setattr(follow.TRACKERS.get("mlflow"), "package", "no_such_package")
    assert main(["launch", "quickstart", "--log", "mlflow"]) == 2
    assert "pip install 'shortcutbed[mlflow]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_heatmaps_are_red_for_a_class_and_blue_against_it() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    heatmap = np.array([[1.0, -1.0, 0.0], [0.0, 0.5, np.nan]])
    both = side_by_side(image, heatmap)
    assert both.shape == (2, 6, 3) and both.dtype == np.uint8
    assert (both[:, :3] == 100).all() and (both[0, 5] == 100).all() and (both[1, 5] == 100).all()
    red, blue, pink = both[0, 3].astype(int), both[0, 4].astype(int), both[1, 4].astype(int)
    assert red[0] > red[2] and blue[2] > blue[0]
    np.testing.assert_allclose(pink, (red + 100) / 2, atol=1)
