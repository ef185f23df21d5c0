"""Test docs/log_schema.md against the code and a real run."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.failure import FailureKind, failure_json
from benchmark.core.record import RunRecord
from benchmark.core.spec import SCHEMA, RunSpec
from benchmark.core.summaries import Sensitivity
from benchmark.report.report import make_report

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "log_schema.md").read_text(
    encoding="utf-8"
)


def documented(title: str) -> set[str]:
    """Return the names in the first column of the table under a heading."""
    section = re.split(
        r"^#+ ", DOCUMENT.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE
    )[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def documented_after(sentence: str) -> set[str]:
    """Return the names in the first column of the first table after a sentence."""
    text = DOCUMENT.partition(sentence)[2].partition("\n#")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if "|" in line]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a real run of a few steps."""
    pytest.importorskip("torch")
    from benchmark import train

    out = tmp_path_factory.mktemp("schema")
    arguments = [
        "--dataset",
        "tiny",
        "--algorithm",
        "erm",
        "--steps",
        "4",
        "--evaluate-every",
        "2",
        "--device",
        "cpu",
    ]
    assert train.main(
        [*arguments, "--selection", "val_worst_group", "last", "--output", str(out)]
    ) in (0, None)
    (record,) = out.rglob("record.json")
    return record.parent


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_record_agrees(real_run: Path) -> None:
    record = load(real_run / "record.json")
    assert documented("record.json") == set(record)
    own = {f.name for f in fields(RunRecord)} - {
        "explanations",
        "embeddings",
        "measurement",
    }  # within extra
    assert set(record) == own
    only_some_data = {"unlabelled_splits", "unannotated_masks"}
    assert documented("data") - only_some_data == set(record["data"])
    assert documented("machine") - {"time_ratios"} == set(record["machine"])
    optional = {"select_before_switch", "evaluate_train", "curves", "measurement"}
    assert documented("spec.json") == {f.name for f in fields(RunSpec)}
    assert documented("spec.json") - optional == set(record["spec"])
    assert record["spec"] == load(real_run / "spec.json")
    assert set(record["method"]) == {"needs", "sampling", "paper", "active_from"}
    for entry in record["selected"].values():
        assert set(entry) == {"step", "value", "splits"}
        for split, content in entry["splits"].items():
            counts = np.array(content["counts"])
            classes = len(record["data"]["label_names"])
            assert counts.shape == (len(record["data"]["confounder_names"]), classes, classes)
            assert counts.sum() == record["data"]["splits"][split]


def test_log_agrees(real_run: Path) -> None:
    lines = [json.loads(line) for line in (real_run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert set(line) == documented("log.jsonl") - {"objective", "curves"}
        assert set(line["splits"]) == {"val"}


def test_predictions_agree_with_the_counts(real_run: Path) -> None:
    record = load(real_run / "record.json")
    patterns = [
        re.escape(name).replace("<split>", "[^/]+").replace("<criterion>", "[^/]+")
        for name in documented("predictions.npz")
    ]
    with np.load(real_run / "predictions.npz", allow_pickle=False) as arrays:
        for name in arrays.files:
            assert any(re.fullmatch(pattern, name) for pattern in patterns), name
        for criterion, entry in record["selected"].items():
            for split, content in entry["splits"].items():
                predicted = arrays[f"{criterion}/{split}/score"].argmax(1)
                counts = np.zeros_like(np.array(content["counts"]))
                np.add.at(
                    counts, (arrays[f"{split}/confounder"], arrays[f"{split}/label"], predicted), 1
                )
                assert np.array_equal(counts, content["counts"])


def test_explanations_agree(real_run: Path) -> None:
    found = load(real_run / "record.json")["extra"]["explanations"]
    assert found["splits"] and set(found) == {"explainer", "splits", "sensitivity"}
    assert set(found) <= documented("explanations")
    for measured in found["sensitivity"]:
        assert set(measured) == {each.name for each in fields(Sensitivity)}
        assert set(measured) == documented_after("`sensitivity` is a list")
    of_shortcut = {"on_shortcut", "shortcut_area", "foreground_is_rest"}
    for content in found["splits"].values():
        recorded = documented_after("In each split:") - {"distance", "metrics"}
        assert set(content) - of_shortcut == recorded - of_shortcut
    assert of_shortcut < documented_after("In each split:")
    with np.load(real_run / "heatmaps.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == documented("heatmaps.npz")
        assert len({len(arrays[name]) for name in arrays.files if arrays[name].ndim}) == 1


def test_embeddings_agree(real_run: Path) -> None:
    found = load(real_run / "record.json")["extra"]["embeddings"]
    assert found["splits"] and set(found) == documented("embeddings") - {"note"}
    for content in found["splits"].values():
        assert set(content) == {"images", "label", "confounder", "environment"}
    with np.load(real_run / "embeddings.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == documented("embeddings.npz")
        assert len({len(arrays[name]) for name in arrays.files if name != "share"}) == 1


def test_failure_and_sweep_agree(real_run: Path) -> None:
    spec = RunSpec.from_json(load(real_run / "spec.json"))
    failure = failure_json(
        spec.key, 1, FailureKind.EXCEPTION, "x", step=1, term="t", traceback="…", signal=9
    )
    assert documented("failure.json") == set(failure)
    assert f"Schema version **{SCHEMA}**" in DOCUMENT
    plan = load(real_run.parent.parent / "sweep.json")
    assert documented("sweep.json") == set(plan)
    for entry in plan["runs"].values():
        names = {"dataset", "method", "trial", "draw", "requested", "upstream", "spec_digest"}
        assert set(entry) == names


def test_a_real_run_becomes_a_table(real_run: Path) -> None:
    (table,) = make_report(real_run.parent.parent).tables
    record = load(real_run / "record.json")
    counts = np.array(record["selected"]["val_worst_group"]["splits"]["unbiased"]["counts"])
    (row,) = table.rows
    assert (
        table.stand_in and row.values[0].estimate.value == np.einsum("zll->", counts) / counts.sum()
    )
