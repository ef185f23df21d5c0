"""Test that damage of any field of any file of a run is noted and affects no other run."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmark.core.errors import DamagedError, UserError
from benchmark.core.failure import FailureKind, failure_json
from benchmark.core.layout import RunFolder, State
from benchmark.report.figures.latent_space import draw_latent
from benchmark.report.formats.report_format import file_names
from benchmark.report.html.page import page
from benchmark.report.records.learning_curves import read_curves
from benchmark.report.records.stored_arrays import read_embeddings, read_heatmaps, read_predictions
from benchmark.report.records.sweep_records import Sweep, load_sweep
from benchmark.report.records.tidy_export import export
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.statistics import posterior
from benchmark.report.tables.localization import read_gallery
from benchmark.report.tables.report_table import ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

WORLD = World(size=24)
#: What no field may be, whatever its type; KeyError stands for a field that is missing.
VALUES: list[Any] = [
    None, True, "text", "", -1, -0.5, 10**400, 1e308, math.nan, math.inf, [], {}, [[]], [None],
    {"a": 1}, "\ud800",
    [[[1]]], KeyError,
]  # fmt: skip


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "MINIMUM_DRAWS", 1_000)
    monkeypatch.setattr(posterior, "TARGET_ERROR", 1.0)


@dataclass
class Made:
    """A sweep in which ERM will be damaged, GroupDRO must not change, and TEA needs ERM."""

    folder: Path
    key: str
    other: str
    student: str
    shown: str

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "runs" / self.key)


def more_of_a_record(path: Path) -> None:
    """Add the files that the engine writes for data with masks."""
    record = json.loads(path.read_text())
    explained = {
        "images": 24, "zero_maps": 1, "nonfinite_maps": 0, "empty_masks": 0, "energy": 0.5,
        "correlation": -0.5,
        "area": 0.25, "distance": 0.5,
    }  # fmt: skip
    record["extra"] = {
        "explanations": {"explainer": "lrp", "splits": {"biased": explained}},
        "embeddings": {
            "dimensions": 8,
            "splits": {"unbiased": {"images": 24, "label": 0.5, "confounder": None}},
        },
        "own": [1, {"deep": [0.5]}],
    }
    record["machine"]["versions"] = {"torch": "2.7"}
    record["method"]["active_from"] = 0
    path.write_text(json.dumps(record))


def more_arrays(folder: Path) -> None:
    n, m = 4, 24
    np.savez(
        folder / "heatmaps.npz",
        split=np.array(["biased"] * n), row=np.arange(n), label=np.arange(n) % 2,
        image=np.zeros((n, 3, 8, 8), np.uint8), mask=np.ones((n, 1, 8, 8), bool),
        scale=np.ones(n, np.float32),
        heatmap=np.ones((n, 8, 8), np.float16), prediction=np.arange(n) % 2,
        explainer=np.array("lrp"),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    np.savez(
        folder / "embeddings.npz",
        split=np.array(["unbiased"] * m), row=np.arange(m), prediction=np.arange(m) % 2,
        feature=rng.normal(size=(m, 3)).astype(np.float32), share=np.ones(3, np.float32),
        label=np.arange(m) % 2, confounder=np.arange(m) % 2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    fake = FakeSweep(tmp_path_factory.mktemp("made"))
    (key,), (other,) = fake.add(WORLD, ERM, trials=(0,)), fake.add(WORLD, DRO, trials=(0,))
    (student,) = fake.add(WORLD, Method("tea"), trials=(0,), upstream={"teacher": key})
    folder = fake.finish()
    for one in (key, other, student):
        more_of_a_record(folder / "runs" / one / "record.json")
        more_arrays(folder / "runs" / one)
    return Made(folder, key, other, student, shown_of(load_sweep(folder), other))


def shown_of(sweep: Sweep, key: str) -> str:
    """Return everything that the report shows of an undamaged run, as text."""
    (run,) = [run for run in sweep.runs if run.key == key]
    assert run.record is not None
    return json.dumps([run.state, run.record.to_json()], sort_keys=True)


def places(value: Any, path: tuple[Any, ...] = (), most: int = 3) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values in a JSON value, and of the first items of long lists."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from places(item, (*path, name), most)
    elif isinstance(value, list):
        for i, item in enumerate(value[:most]):
            yield from places(item, (*path, i), most)


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """Return a copy with another value at one path."""
    found = copy.deepcopy(value)
    at = found
    for step in path[:-1]:
        at = at[step]
    if by is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = by
    return found


def everything(folder: Path, reference: str | None = DRO.label) -> None:
    """Make everything of a report except figures, compared with a reference if there is one."""
    report = make_report(
        folder, options=ReportOptions(reference=reference, tables=("class_scores", "published"))
    )
    for form in file_names():
        assert "Traceback" not in render(report, form)
    page(report, {})
    for table in report.tables:
        read_gallery(table)
    export(report.sweep, folder / "out.csv")


def test_the_folder_as_it_is(made: Made) -> None:
    everything(made.folder)
    sweep = load_sweep(made.folder)
    assert [run.state for run in sweep.runs] == [State.DONE] * 3 and not sweep.notes


#: Fields that may be null or missing, as in records of earlier versions.
OPTIONAL = {
    "confounder_names", "environment_names", "group_names", "bias_splits", "paired", "multi_label",
    "stand_in",
    "source", "licence", "paper", "active_from", "host", "threads", "versions", "torch", "commit",
    "explanations",
    "embeddings", "explainer", "dimensions", "images", "zero_maps", "nonfinite_maps",
    "empty_masks", "energy",
    "correlation", "area", "distance", "label", "confounder", "value", "checksums",
}  # fmt: skip
#: Texts for people, which no number depends on.
TEXTS = {
    "source", "licence", "sampling", "paper", "device", "host", "torch", "commit", "explainer",
}  # fmt: skip
NAMES = {"confounder_names", "group_names"}
SILHOUETTES = {"correlation", "label", "confounder"}


def may_stand(place: tuple[Any, ...], old: Any, new: Any) -> bool:
    """Return whether a record with a new value is still valid, or notes what it lacks."""
    if new is not KeyError and type(new) is type(old) and new == old:
        return True
    name, above = place[-1], place[-2] if len(place) > 1 else None
    if place[:2] == ("extra", "own"):
        return not isinstance(new, str) or new.isprintable()
    if place == ("extra",):
        return isinstance(new, dict)
    if new is KeyError or new is None:
        if new is KeyError and (above in ("splits", "selected") or name == "train"):
            return True  # a footnote says what is missing
        if new is KeyError and above in ("counts", "group_names") and "selected" in place:
            return True  # a footnote says that the sums of a split differ
        return name in OPTIONAL and not (new is None and name in ("paired", "stand_in"))
    if name in TEXTS or above in NAMES:
        return isinstance(new, str)
    if name in SILHOUETTES:
        return new in (-1, -0.5)
    if name == "value":
        return isinstance(new, float) and not math.isfinite(new)  # no value: it wins against none
    if name in ("paired", "stand_in", "stopped_early"):
        return new is True
    if name in ("environment_names", "group_names", "versions", "splits", "upstream"):
        return new in ([], {})
    return above == "splits" and isinstance(new, dict) and "extra" in place


def item(value: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


#: The fast suite takes one of this many mutations at each path; the slow suite takes all.
THINNED = pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])


def mutations(value: Any, every: int) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield paths and their new values."""
    pairs = [(place, new) for place in places(value) for new in VALUES]
    yield from pairs[::every]


@THINNED
def test_every_field_of_a_record(made: Made, every: int) -> None:
    """Wrong types, values out of bounds and non-finite values are refused, other runs kept."""
    path = made.run.record
    good = path.read_text()
    value = json.loads(good)
    refused = stood = 0
    try:
        for place, new in mutations(value, every):
            path.write_text(json.dumps(replaced(value, place, new)))
            sweep = load_sweep(made.folder)
            assert shown_of(sweep, made.other) == made.shown, (place, new)
            run = sweep.runs[0]
            if run.state == State.UNREADABLE:
                refused += 1
                assert "record.json" in run.reason and len(run.reason) < 500, (place, new)
                assert run.reason.isprintable() and "Error" not in run.reason, (place, new)
                assert run.spec is not None  # spec.json still tells what it is
                continue
            stood += 1
            assert run.state == State.DONE
            assert may_stand(place, item(value, place), new), (place, new)
            if stood % 40 == 1:
                everything(made.folder)
    finally:
        path.write_text(good)
    assert refused > 3_500 // every and stood > 100 // every


@THINNED
@pytest.mark.parametrize("done", [True, False], ids=["done", "pending"])
def test_every_field_of_a_spec(made: Made, every: int, done: bool) -> None:
    """A spec with another value has another key, and therefore another folder."""
    path, record = made.run.spec, made.run.record
    good, result = path.read_text(), record.read_text()
    value = json.loads(good)
    try:
        if not done:
            record.unlink()
        for place, new in mutations(value, every):
            if new is not KeyError and item(value, place) == new and type(new) is not bool:
                continue
            path.write_text(json.dumps(replaced(value, place, new)))
            sweep = load_sweep(made.folder)
            run = sweep.runs[0]
            assert run.state == State.UNREADABLE, (place, new)
            assert "spec.json" in run.reason and run.reason.isprintable()
            assert shown_of(sweep, made.other) == made.shown
        everything(made.folder)
    finally:
        path.write_text(good)
        record.write_text(result)


@THINNED
def test_every_field_of_a_plan(made: Made, every: int) -> None:
    """Damage in sweep.json causes a note or one unreadable run; the rest is used."""
    path = made.folder / "sweep.json"
    good = path.read_text()
    value = json.loads(good)
    value["refused"] = [
        {
            "dataset": WORLD.label,
            "method": "irm",
            "trial": 0,
            "draw": 0,
            "reason": "no environments",
        }
    ]
    value["config"] = {"datasets": [WORLD.label], "override": {"erm": {"lr": 0.5}}}
    noted = 0
    try:
        for place, new in mutations(value, every):
            path.write_text(json.dumps(replaced(value, place, new)))
            if place == ("schema",) and (new is KeyError or new is True or new != 1):
                with pytest.raises(UserError, match="has schema version"):
                    load_sweep(made.folder)
                continue
            sweep = load_sweep(made.folder)
            others = [run for run in sweep.runs if run.key == made.other]
            if made.other not in place and others:
                assert shown_of(sweep, made.other) == made.shown, (place, new)
            assert len(sweep.runs) == 3 or sweep.notes, (place, new)
            if not sweep.notes and all(run.state == State.DONE for run in sweep.runs):
                continue
            noted += 1
            if noted % 40 == 1:
                # without the run of the reference there is nothing to compare with
                kept = any(run.state == State.DONE for run in others)
                everything(made.folder, DRO.label if kept else None)
    finally:
        path.write_text(good)
    assert noted > 300 // every


@THINNED
def test_every_field_of_a_failure(made: Made, every: int) -> None:
    record, path = made.run.record, made.run.failure
    result = record.read_text()
    value = failure_json(
        made.key, 1, FailureKind.EXCEPTION, "a bug", traceback="line 1\nline 2", step=3, term="t"
    )
    try:
        record.unlink()
        for place, new in mutations(value, every):
            path.write_text(json.dumps(replaced(value, place, new)))
            sweep = load_sweep(made.folder)
            run = sweep.runs[0]
            assert run.state == State.FAILED and run.reason.isprintable(), (place, new)
            if place == ("key",) and new not in (KeyError, ""):
                assert "files of two runs were mixed" in run.reason or "damaged" in run.reason
            assert shown_of(sweep, made.other) == made.shown
            page(make_report(made.folder), {})
    finally:
        path.unlink(missing_ok=True)
        record.write_text(result)


@THINNED
def test_every_field_of_a_log(made: Made, every: int) -> None:
    path = made.run.log
    good = path.read_text()
    first, *rest = good.splitlines()
    value = json.loads(first)
    data = load_sweep(made.folder).runs[0].record
    assert data is not None
    whole = read_curves(made.run, data.data)
    try:
        for place, new in mutations(value, every):
            line = json.dumps(replaced(value, place, new))
            path.write_text("\n".join([line, *rest]) + "\n")
            curves = read_curves(made.run, data.data)
            if curves.note:
                assert curves.note == "log.jsonl: damaged from line 1 on" and not curves.steps
            else:
                assert curves.steps[1:] == whole.steps[1:]
                assert all(0 <= v <= 1 for v in curves.accuracy.get("val", []) if v is not None)
    finally:
        path.write_text(good)


ODD_ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "missing": lambda array: None,
    "cut": lambda array: array[:-1] if array.ndim else array.reshape(1),
    "longer": lambda array: np.concatenate([array, array]) if array.ndim else np.zeros(3),
    "empty": lambda array: array[:0] if array.ndim else np.zeros(0),
    "one number": lambda array: np.array(0),
    "one axis more": lambda array: array[None],
    "text": lambda array: np.full(array.shape, "x"),
    "bytes": lambda array: np.full(array.shape, b"x"),
    "objects": lambda array: np.full(array.shape, None, dtype=object),
    "dates": lambda array: np.full(array.shape, np.datetime64("2020-01-01")),
    "records": lambda array: np.zeros(array.shape, [("a", "i4")]),
    "complex": lambda array: np.zeros(array.shape, complex),
    "NaN": lambda array: np.full(array.shape, np.nan),
    "infinite": lambda array: np.full(array.shape, -np.inf),
    "negative": lambda array: np.full(array.shape, -1),
    "huge": lambda array: np.full(array.shape, 2**62),
    "unsigned": lambda array: np.full(array.shape, 2**63, np.uint64),
    "true": lambda array: np.ones(array.shape, bool),
}


@pytest.mark.parametrize("name", ["predictions.npz", "heatmaps.npz", "embeddings.npz"])
def test_every_array_of_every_file(made: Made, name: str) -> None:
    """Arrays that differ from the documented ones are refused with a message or not read."""
    path = made.run.path / name
    kept = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    run = load_sweep(made.folder).runs[0]
    read = {
        "predictions.npz": lambda: read_predictions(run, "val_accuracy", "unbiased"),
        "heatmaps.npz": lambda: read_heatmaps(run),
        "embeddings.npz": lambda: read_embeddings(run),
    }[name]
    whole = read()
    refused = 0
    try:
        for array in arrays:
            for kind, change in ODD_ARRAYS.items():
                new = change(arrays[array])
                changed = {k: v for k, v in arrays.items() if k != array}
                np.savez(path, **changed, **({} if new is None else {array: new}))
                try:
                    found = read()
                except DamagedError as error:
                    refused += 1
                    assert name in str(error) and len(str(error)) < 300
                else:
                    used = array.rpartition("/")[2] in vars(found) and array in USED[name]
                    assert not used or kind in STANDS.get(array, ()), (array, kind)
                    assert type(found) is type(whole)
        if name == "heatmaps.npz":
            assert read_gallery(make_report(made.folder).tables[0]) is not None
    finally:
        path.write_bytes(kept)
    assert refused > 50


#: The arrays that are read, and the changes that such an array survives as sound.
USED = {
    "predictions.npz": {
        "unbiased/label", "unbiased/confounder", "unbiased/pair_id", "val_accuracy/unbiased/score",
    },
    "heatmaps.npz": {
        "split", "row", "image", "mask", "heatmap", "label", "prediction", "explainer",
    },
    "embeddings.npz": {"split", "feature", "label", "confounder"},
}  # fmt: skip
STANDS = {
    "unbiased/confounder": {"missing"},
    "unbiased/pair_id": {"missing", "negative", "huge"},
    "val_accuracy/unbiased/score": set[str](),
    "row": {"negative", "huge"},
    "mask": {"true"},
    "image": {"empty"},
    "explainer": {"text"},
    "confounder": {"missing"},
}


FILES = ("predictions.npz", "heatmaps.npz", "embeddings.npz")
#: One kind of damage to each file; the other pairs run with --slow.
DAMAGED = [("NaN", FILES[0]), ("text", FILES[1]), ("missing", FILES[2])]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=[] if (kind, name) in DAMAGED else [pytest.mark.slow])
        for kind in ("NaN", "text", "cut", "missing", "huge")
        for name in FILES
    ],
)
def test_a_report_on_odd_arrays(made: Made, kind: str, name: str) -> None:
    """A report with a damaged file is complete, and the tables of the other run do not change."""
    path = made.run.path / name
    kept = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    changed = {k: ODD_ARRAYS[kind](v) for k, v in arrays.items()}
    whole = make_report(made.folder).tables[0].rows[1].values[0].estimate.value
    try:
        np.savez(path, **{k: v for k, v in changed.items() if v is not None})
        everything(made.folder)
        report = make_report(made.folder)
        assert report.tables[0].rows[1].values[0].estimate.value == whole
        canvas = Figure()
        assert isinstance(draw_latent(canvas, report.tables[0]), str)
    finally:
        path.write_bytes(kept)
