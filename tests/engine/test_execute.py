"""One run from its spec to its record, and every way in which it can end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core import files
from benchmark.core.counts import accuracy
from benchmark.core.dataset import DatasetSource
from benchmark.core.files import read_json
from benchmark.core.layout import State, state_of
from benchmark.core.record import RunRecord, read_record
from benchmark.core.registry import DATASETS
from benchmark.core.summaries import UpstreamSummary
from benchmark.engine import evaluate, loop
from benchmark.engine.checkpoint import load_weights
from tests.support.runs import (
    TIMES,
    built,
    done,
    failure,
    lines,
    plan_quick,
    plan_run,
    plan_runs,
    run,
    spec_of,
)
from tests.support.toy_algorithms import Accident, OwnLoop, Plain, Pupil, Spy, Student, registered


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered(Plain, Spy, Accident, OwnLoop, Student, Pupil):
        yield


# --- done ---


def test_a_run_leaves_what_the_design_says_and_nothing_else(tmp_path: Path) -> None:
    folder = plan_run(tmp_path)
    assert run(folder) == "done"
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "spec.json",
        "log.jsonl",
        "record.json",
        "predictions.npz",
        "heatmaps.npz",
        "embeddings.npz",
        "selected.pt",
        "attempts",
    }
    assert list((folder / "attempts" / "1").iterdir()) == []
    assert state_of(folder) is State.DONE


def test_every_field_of_the_record_is_there_and_says_the_truth(tmp_path: Path) -> None:
    folder = plan_run(tmp_path, "group_dro", selection=["val_worst_group", "last"])
    assert run(folder) == "done"
    value = read_json(folder / "record.json")
    assert set(value) == {f.name for f in fields(RunRecord)} - {
        "explanations",
        "embeddings",
        "measurement",
    }
    record, spec = read_record(folder), spec_of(folder)
    assert (
        record.key == folder.name == record.spec.key and record.spec == spec and record.attempt == 1
    )
    assert record.steps == 20 and record.stopped_early is False
    assert record.method.needs == ("groups",) and record.method.sampling == "group"
    assert "Sagawa" in record.method.paper
    assert record.data.splits == {
        "train": 64,
        "val": 32,
        "biased": 32,
        "unbiased": 32,
        "deceiving": 32,
    }
    assert record.data.group_names == (
        "lying/dark",
        "lying/bright",
        "standing/dark",
        "standing/bright",
    )
    assert (record.data.bias_splits, record.data.paired, record.data.stand_in) == (
        ("biased", "deceiving"), True, True
    )  # fmt: skip
    parts = [value for name, value in vars(record.seconds).items() if name != "total"]
    assert record.seconds.total == pytest.approx(sum(parts), abs=3e-3)
    assert record.images_per_second > 0 and record.peak_memory_bytes > 2**20
    assert record.inference_images_per_second > 0
    assert record.parameters == sum(p.numel() for p in built(folder).network.parameters())
    assert (
        record.machine.device == "cpu"
        and record.machine.versions["torch"] == torch.__version__.split("+")[0]
    )
    assert record.started <= record.finished and record.upstream == {}
    assert (
        list(record.selected) == ["val_worst_group", "last"] and record.selected["last"].step == 20
    )


def test_the_log_keeps_counts_and_its_schema(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path, "irm", selection=["last"])
    logged: list[Any] = []
    assert run(folder, on_line=logged.append) == "done"
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert found == [line.to_json() for line in logged] and [line["step"] for line in found] == [
        5,
        10,
        15,
        20,
    ]
    for line in found:
        assert set(line) == {"step", "steps", "terms", "lr", "splits", *TIMES}
        assert (
            line["steps"] == 20
            and line["lr"] == 1e-3
            and set(line["terms"]) == {"classification", "penalty"}
        )
        counts = np.array(line["splits"]["val"]["counts"])
        assert counts.shape == (2, 2, 2) and counts.sum() == 32
        assert set(line["splits"]) == {"val"}
    assert sorted(line["seconds"] for line in found) == [line["seconds"] for line in found]


def test_predictions_and_weights_are_those_of_the_record(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path, selection=["val_accuracy", "last"], hparams={"lr": 0.03})
    assert run(folder) == "done"
    record, data = read_record(folder), DATASETS.get("tiny")(bias=0.8, size=64).load(0)
    stored = dict(np.load(folder / "predictions.npz"))
    for criterion, chosen in record.selected.items():
        for name in ("val", "biased", "unbiased", "deceiving"):
            split = data.splits[name]
            assert np.array_equal(stored[f"{name}/label"], split.label)
            assert np.array_equal(stored[f"{name}/confounder"], split.confounder)
            predicted = stored[f"{criterion}/{name}/score"].argmax(1)
            counts = np.zeros((2, 2, 2), np.int64)
            np.add.at(counts, (split.confounder, split.label, predicted), 1)
            assert counts.tolist() == chosen.counts[name].tolist()
    assert np.array_equal(stored["biased/pair_id"], stored["deceiving/pair_id"])
    algorithm = built(folder)  # the weights are those of the first criterion
    algorithm.load_state_dict(load_weights(folder / "selected.pt"))
    algorithm.eval()
    mean, std = 0.5, 0.25
    image = torch.from_numpy(
        ((data.splits["biased"].image / 255.0 - mean) / std).astype(np.float32)
    )
    with torch.no_grad():
        np.testing.assert_allclose(
            algorithm.predict(image), stored["val_accuracy/biased/score"], atol=1e-4
        )


def test_the_record_agrees_with_the_log_about_the_selected_step(tmp_path: Path) -> None:
    folder = plan_quick(
        tmp_path, selection=["val_accuracy", "val_mean", "last"], hparams={"lr": 0.03}, oracle=True
    )
    assert run(folder) == "done"
    record, log = read_record(folder), {line["step"]: line for line in lines(folder)}
    for chosen in record.selected.values():
        assert chosen.to_json()["splits"] == log[chosen.step]["splits"]
    best = {step: accuracy(np.array(line["splits"]["val"]["counts"])) for step, line in log.items()}
    first = min(step for step, value in best.items() if value == max(best.values()))
    assert (record.selected["val_accuracy"].step, record.selected["val_accuracy"].value) == (
        first,
        best[first],
    )


def test_what_a_method_reports_is_of_the_selected_step(tmp_path: Path) -> None:
    """Group weights change at every step; the report has those of the first criterion."""
    folder = plan_quick(
        tmp_path, "group_dro", selection=["val_accuracy", "last"], hparams={"eta": 0.5, "lr": 1e-5}
    )
    assert run(folder) == "done"
    record = read_record(folder)
    assert record.selected["val_accuracy"].step < record.selected["last"].step == 20
    assert record.extra["group_weights"] == load_weights(folder / "selected.pt")["q"].tolist()


def test_a_budget_that_no_evaluation_divides_is_evaluated_at_its_end(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path, budget={"steps": 7, "evaluate_every": 5})
    assert run(folder) == "done" and [line["step"] for line in lines(folder)] == [5, 7]
    folder = plan_quick(tmp_path, budget={"steps": 3, "evaluate_every": 50})
    assert run(folder) == "done" and [line["step"] for line in lines(folder)] == [3]


def test_patience_ends_a_run_early(tmp_path: Path) -> None:
    record = done(
        tmp_path,
        budget={"steps": 50, "evaluate_every": 1, "patience": 3},
        hparams={"lr": 0.0},
        selection=["val_mean"],
    )
    assert record.stopped_early and record.steps == 4 and record.selected["val_mean"].step == 1


def test_the_objective_can_select(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path, selection=["val_objective"], hparams={"lr": 0.01})
    assert run(folder) == "done"
    log = {line["step"]: line["objective"] for line in lines(folder)}
    chosen = read_record(folder).selected["val_objective"]
    assert chosen.step == min(log, key=log.__getitem__) and chosen.value == -min(log.values())


def test_schedules_reach_the_log(tmp_path: Path) -> None:
    folder = plan_quick(
        tmp_path,
        hparams={"lr": 0.1, "lr_schedule": "step", "optimizer": "sgd"},
        budget={"steps": 20},
    )
    assert run(folder) == "done"
    assert [line["lr"] for line in lines(folder)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


# --- who sees what ---


def test_a_method_sees_nothing_that_it_did_not_declare(tmp_path: Path) -> None:
    Spy.seen.clear()
    assert run(plan_quick(tmp_path, "toy_spy")) == "done"
    assert len(Spy.seen) == 20
    for batch in Spy.seen:
        assert batch.group is batch.confounder is batch.environment is batch.mask is None


def _evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    calls: list[tuple[int, str]] = []
    true = evaluate.evaluate

    def counted(algorithm: Any, split: Any, *arguments: Any, **options: Any) -> Any:
        calls.append((algorithm.current_step, split.name))
        return true(algorithm, split, *arguments, **options)

    monkeypatch.setattr(loop, "evaluate", counted)
    return calls


TESTS = ("biased", "unbiased", "deceiving")


def test_test_splits_are_evaluated_once_per_selected_step_and_never_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _evaluated(monkeypatch)
    folder = plan_quick(
        tmp_path, selection=["val_accuracy", "val_mean", "last"], hparams={"lr": 0.0}
    )
    assert run(folder) == "done"
    assert calls[:4] == [(5, "val"), (10, "val"), (15, "val"), (20, "val")]
    assert calls[4:] == [
        (step, name) for step in (5, 20) for name in ("val", *TESTS)
    ]  # two criteria share step 5


def test_training_images_are_evaluated_if_the_sweep_asks_for_it(tmp_path: Path) -> None:
    budget = {"steps": 4, "evaluate_every": 2}
    plain = plan_quick(tmp_path / "plain", budget=budget)
    folder = plan_quick(tmp_path / "train", budget=budget, evaluate_train=True)
    assert replace(spec_of(folder), evaluate_train=False).key == plain.name != folder.name
    assert run(folder) == "done", failure(folder)
    assert run(plain) == "done", failure(plain)
    for step in read_record(folder).selected.values():
        assert step.counts["train"].sum() == 64
    assert all("train" not in step.counts for step in read_record(plain).selected.values())
    with np.load(folder / "predictions.npz") as arrays:
        assert not any(name.startswith("train/") for name in arrays.files)


def test_an_oracle_sees_the_tests_along_the_way_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plan_quick(tmp_path / "plain", selection=["val_accuracy"])
    assert run(plain) == "done"
    calls = _evaluated(monkeypatch)
    folder = plan_quick(tmp_path / "oracle", selection=["val_accuracy"], oracle=True)
    assert run(folder) == "done" and folder.name != plain.name and read_record(folder).spec.oracle
    assert sum(name in TESTS for _, name in calls) == 3 * 4 + 3
    for with_tests, without in zip(lines(folder), lines(plain), strict=True):
        assert set(with_tests["splits"]) == {"val", *TESTS}
        with_tests["splits"] = {"val": with_tests["splits"]["val"]}
        assert with_tests == without  # looking at the tests changes nothing else
    assert read_record(folder).selected == read_record(plain).selected


def test_methods_of_a_trial_share_data_and_initial_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_weights: dict[tuple[str, int], bytes] = {}
    loaded: dict[int, list[bytes]] = {}
    true = DatasetSource.load

    def load(self: DatasetSource, trial: int) -> Any:
        data = true(self, trial)
        loaded.setdefault(trial, []).append(data.splits["train"].image.tobytes())
        return data

    monkeypatch.setattr(DatasetSource, "load", load)
    for trial in (0, 1):
        for algorithm in ("erm", "irm", "group_dro", "dann"):
            folder = plan_quick(
                tmp_path / f"{algorithm}{trial}", algorithm, trials=[trial], budget={"steps": 1}
            )
            assert run(folder) == "done"
            state = built(folder).network.state_dict()
            built_weights[algorithm, trial] = b"".join(
                state[name].numpy().tobytes() for name in state
            )
    assert len({built_weights[a, t] for a, t in built_weights}) == 2
    assert (
        built_weights["erm", 0]
        == built_weights["dann", 0]
        != built_weights["erm", 1]
        == built_weights["irm", 1]
    )
    assert [len(set(images)) for images in loaded.values()] == [1, 1] and loaded[0][0] != loaded[1][
        0
    ]


@pytest.mark.parametrize("algorithm", ["erm", "dann"])
def test_how_often_we_look_does_not_change_what_is_learnt(algorithm: str, tmp_path: Path) -> None:
    hparams = {"dropout": 0.3}
    often, seldom = (
        plan_quick(
            tmp_path / str(n),
            algorithm,
            budget={"evaluate_every": n},
            hparams=hparams,
            selection=["last"],
        )
        for n in (1, 20)
    )
    assert run(often, checkpoint_seconds=0) == run(seldom) == "done"
    a, b = load_weights(often / "selected.pt"), load_weights(seldom / "selected.pt")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert lines(often)[-1]["splits"] == lines(seldom)[-1]["splits"]


@pytest.mark.parametrize(
    "compute",
    [
        {"precision": "bf16"},
        {"channels_last": True},
        {"deterministic": "false"},
        {"precision": "bf16", "channels_last": True},
    ],
)
def test_ways_of_computing(compute: dict[str, Any], tmp_path: Path) -> None:
    for algorithm in ("erm", "group_dro", "dann"):
        record = done(
            tmp_path, algorithm, compute=compute, budget={"steps": 3}, hparams={"clip_norm": 1.0}
        )
        assert record.spec.compute == {**record.spec.compute, **compute}


@pytest.mark.slow
def test_a_compiled_network(tmp_path: Path) -> None:
    plain, compiled = (
        plan_quick(
            tmp_path / str(c), compute={"compile": c}, budget={"steps": 3}, selection=["last"]
        )
        for c in (False, True)
    )
    assert run(plain) == run(compiled) == "done"
    a, b = load_weights(plain / "selected.pt"), load_weights(compiled / "selected.pt")
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


# --- own loops and upstream runs ---


def test_a_loop_of_its_own(tmp_path: Path) -> None:
    folder = plan_quick(tmp_path, "toy_own_loop")
    assert run(folder) == "done"
    record = read_record(folder)
    assert record.extra["counted"] == 64 and record.steps == 20
    assert [line["step"] for line in lines(folder)] == [5, 10, 15, 20]


def test_a_loop_that_ends_early_or_never_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(self: OwnLoop, run: Any) -> None:
        self.counted = 0
        for batch in run.steps():
            run.log(self.loss(batch))
            self.counted += 1
            if self.counted == 7:
                break

    monkeypatch.setattr(OwnLoop, "fit", short)
    folder = plan_quick(tmp_path, "toy_own_loop")
    assert run(folder) == "done"
    assert read_record(folder).steps == 7 and [line["step"] for line in lines(folder)] == [5, 7]

    def none(self: OwnLoop, run: Any) -> None:
        self.counted = 0

    monkeypatch.setattr(OwnLoop, "fit", none)
    record = done(tmp_path / "none", "toy_own_loop")
    assert record.steps == 0 and record.selected["last"].step == 0


def test_a_method_may_not_look_at_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnLoop, "fit", lambda self, run: run.batches("biased"))
    folder = plan_quick(tmp_path, "toy_own_loop")
    assert run(folder) == "failed" and "train and val, not biased" in failure(folder)["message"]


@pytest.mark.parametrize("student", ["toy_student", "toy_pupil"])
def test_a_student_learns_from_the_selected_weights_of_its_teacher(
    student: str, tmp_path: Path
) -> None:
    teacher, folder = plan_runs(tmp_path, student)
    assert run(folder) == "failed"
    assert failure(folder)["kind"] == "user_error" and "is not done" in failure(folder)["message"]
    (folder / "failure.json").unlink()
    assert run(teacher) == "done" and run(folder, 2) == "done"
    record = read_record(folder)
    taught = read_record(teacher)
    assert record.upstream == {
        "teacher": UpstreamSummary(teacher.name, "erm", dict(taught.selected))
    }
    found = built(folder).setting.upstream["teacher"]
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    stored = load_weights(teacher / "selected.pt")
    assert all(torch.equal(found.state_dict()[name], stored[name]) for name in stored)
    # The teacher did not change while its student learned, and the student does not store it.
    assert set(load_weights(folder / "selected.pt")) == set(stored)


@pytest.mark.parametrize("early", [False, True])
def test_a_method_is_selected_after_its_switch(tmp_path: Path, early: bool) -> None:
    """PGI's penalty has half its weight from step 9 of 20 on; later evaluations count."""
    folder = plan_quick(
        tmp_path, "pgi", selection=["val_accuracy", "last"], select_before_switch=early
    )
    assert run(folder) == "done", failure(folder)
    record, log = read_record(folder), lines(folder)
    value = {line["step"]: accuracy(np.array(line["splits"]["val"]["counts"])) for line in log}
    allowed = [step for step in value if early or step > 9]
    best = min(s for s in allowed if value[s] == max(value[a] for a in allowed))
    assert record.selected["val_accuracy"].step == best
    assert record.method.active_from == 9
    assert record.spec.select_before_switch is early


def test_a_run_that_ends_before_its_switch_is_selected_as_any_other(tmp_path: Path) -> None:
    record = done(tmp_path, "irm", selection=["val_accuracy", "last"], hparams={"lr": 0.03})
    value = {
        line["step"]: accuracy(np.array(line["splits"]["val"]["counts"]))
        for line in lines(tmp_path / "runs" / record.key)
    }
    best = min(step for step in value if value[step] == max(value.values()))
    assert record.selected["val_accuracy"].step == best
    assert record.method.active_from == 500


# --- a run that another process took over ---


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.suffix != ".pt"}


def test_a_process_that_lost_its_run_replaces_nothing_of_the_winner(tmp_path: Path) -> None:
    """It was suspended, another one committed, and it goes on before it has noticed."""
    folder = plan_run(tmp_path)
    winner: dict[str, bytes] = {}

    def commit_as_another(line: Any) -> None:
        if line.step == 20:
            (folder / "record.json").write_text('{"of": "the winner"}')
            for name in ("predictions.npz", "heatmaps.npz", "embeddings.npz", "log.jsonl"):
                (folder / name).write_bytes(b"the winner's")
            winner.update(_files(folder))

    assert run(folder, on_line=commit_as_another) == "settled"
    assert _files(folder) == winner
    assert not (folder / "selected.pt").exists()


def test_a_lease_that_is_lost_at_the_very_end_publishes_nothing(tmp_path: Path) -> None:
    folder = plan_run(tmp_path)
    lost: list[str] = []

    def stop() -> str | None:
        return "lease lost" if lost else None

    def lose(line: Any) -> None:
        lost.extend(["lost"] if line.step == 20 else [])

    before = set(folder.iterdir())
    assert run(folder, on_line=lose, stop=stop) == "interrupted"
    assert {path.name for path in set(folder.iterdir()) - before} <= {"attempts", "checkpoint.pt"}


def test_a_second_record_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process commits between the last look and the commit."""
    folder = plan_quick(tmp_path)
    publish = files.StagedFiles.publish

    def overtaken(staged: files.StagedFiles) -> None:
        publish(staged)
        (folder / "record.json").write_text("of the winner")

    monkeypatch.setattr(files.StagedFiles, "publish", overtaken)
    assert run(folder) == "settled"
    assert (folder / "record.json").read_text() == "of the winner"
    assert (folder / "attempts" / "1").is_dir(), "the output of the losing attempt is kept"
