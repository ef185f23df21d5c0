"""Test the command line on a folder with many kinds of damage, which are all noted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmark.collect_results import main
from benchmark.report.formats.report_format import file_names
from benchmark.report.render import PAGE
from benchmark.report.statistics import posterior
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World, confusion_counts

WORLD = World(size=48, classes=3)
ALL = [
    "--detail",
    "--reference",
    "erm",
    "--published",
    "--spread",
    "interval",
    "--retrain-best",
    "2",
]
NOT_A_NUMBER = re.compile(r"\b(nan|inf|infinity)\b", re.IGNORECASE)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior, "MINIMUM_DRAWS", 4_000)
    monkeypatch.setattr(posterior, "TARGET_ERROR", 1e-2)


Rewrite = Callable[[np.ndarray, np.ndarray], Mapping[str, np.ndarray]]


def collected(folder: Path, *more: str) -> dict[str, str]:
    """Return the written texts by file, without the images and the script of the page."""
    assert main([str(folder), *ALL, *more]) == 0
    texts = {
        name: (folder / "report" / name).read_text() for name in (*file_names().values(), PAGE)
    }
    texts[PAGE] = re.sub(r"<script>.*?</script>|base64,[^\"]*", "", texts[PAGE], flags=re.DOTALL)
    for name, text in texts.items():
        text = text.replace("is NaN at step", "")  # why a run failed
        assert not NOT_A_NUMBER.search(text), f"{name}: {NOT_A_NUMBER.search(text)}"
        assert "Traceback" not in text
    return texts


def rewrite(folder: Path, answers: Rewrite) -> None:
    """Write other labels, confounders and scores for every split, with matching counts."""
    for path in folder.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        with np.load(path.parent / "predictions.npz") as file:
            arrays = dict(file)
        for split in {name.split("/")[0] for name in arrays if name.endswith("/label")}:
            changed = answers(arrays[f"{split}/label"], arrays[f"{split}/confounder"])
            arrays |= {f"{split}/{name}": changed[name] for name in ("label", "confounder")}
            for criterion, entry in record["selected"].items():
                arrays[f"{criterion}/{split}/score"] = changed["score"].astype(np.float32)
                predicted = changed["score"].argmax(1)
                counts = confusion_counts(changed["label"], changed["confounder"], predicted, 3)
                entry["splits"][split]["counts"] = counts.tolist()
        np.savez(path.parent / "predictions.npz", **arrays)
        path.write_text(json.dumps(record))


def scores(label: np.ndarray, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(len(label), 3))
    found[np.arange(len(label)), label] += 1.0
    return found


def perfect(label: np.ndarray, place: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"label": label, "confounder": place, "score": 20.0 * np.eye(3)[label]}


def always_wrong(label: np.ndarray, place: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"label": label, "confounder": place, "score": 20.0 * np.eye(3)[(label + 1) % 3]}


def constant(label: np.ndarray, place: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"label": label, "confounder": place, "score": np.zeros((len(label), 3))}


def huge(label: np.ndarray, place: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"label": label, "confounder": place, "score": 3e38 * scores(label).clip(-1, 1)}


def class_without_images(label: np.ndarray, place: np.ndarray) -> Mapping[str, np.ndarray]:
    label = label.clip(0, 1)
    return {"label": label, "confounder": place, "score": scores(label)}


def one_group(label: np.ndarray, place: np.ndarray) -> Mapping[str, np.ndarray]:
    label = np.zeros_like(label)
    return {"label": label, "confounder": np.zeros_like(place), "score": scores(label)}


def one_image_of_a_class(label: np.ndarray, place: np.ndarray) -> Mapping[str, np.ndarray]:
    label = np.where(np.arange(len(label)) == 0, 2, label.clip(0, 1))
    return {"label": label, "confounder": place, "score": scores(label)}


CASES: dict[Rewrite, str] = {
    perfect: "", always_wrong: "", huge: "", constant: "constant",
    class_without_images: "no test images of: class2", one_group: "only one group has images",
    one_image_of_a_class: "single image",
}  # fmt: skip


@pytest.mark.filterwarnings("error:constrained_layout not applied")  # a figure that shows nothing
@pytest.mark.parametrize(
    ("case", "trials"),
    [
        pytest.param(
            case,
            trials,
            marks=[] if trials == 1 or case is constant else [pytest.mark.slow],
            id=f"{case.__name__}-{trials}",
        )
        for case in CASES
        for trials in (1, 2)
    ],
)
def test_degenerate_answers(case: Rewrite, trials: int, tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    for method in (ERM, DRO):
        fake.add(WORLD, method, trials=range(trials))
    folder = fake.finish()
    rewrite(folder, case)
    texts = collected(folder, "--figures", "all" if (case, trials) == (constant, 2) else "none")
    if trials == 1:
        assert CASES[case] in " ".join(texts["tables.txt"].split())
    table = json.loads(texts["tables.json"])["tables"][0]
    assert [row["method"] for row in table["rows"]] == ["erm", "group_dro"]


def test_a_folder_with_every_accident(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeSweep(tmp_path)
    good = fake.add(WORLD, ERM, trials=(0, 1, 2, 3, 4))
    waiting = [
        *fake.add(WORLD, DRO, trials=(0,), state="running"),
        *fake.add(WORLD, DRO, trials=(1,), state="pending"),
        *fake.add(WORLD, DRO, trials=(2,), state="failed"),
    ]  # fmt: skip
    fake.add(WORLD, DRO, trials=(3,))
    fake.add(World("alone", size=30), Method("once"), trials=(0,))
    fake.refuse(WORLD, "irm", "no environments here")
    folder = fake.finish()
    runs = folder / "runs"
    (runs / good[0] / "log.jsonl").write_text((runs / good[0] / "log.jsonl").read_text()[:-20])
    (runs / good[1] / "log.jsonl").unlink()
    (runs / good[1] / "predictions.npz").unlink()
    text = (runs / good[2] / "record.json").read_text()
    (runs / good[2] / "record.json").write_text(text.replace('"schema": 1', '"schema": 2'))
    (runs / good[3] / "record.json").write_text(text[: len(text) // 2])
    (runs / good[4] / "spec.json").unlink()
    texts = collected(folder, "--figures", "none")
    tables = " ".join(texts["tables.txt"].split())
    for part in (
        "1 running", "1 pending", "1 failed", "2 unreadable", "refused: no environments here",
        "1 of 4 runs running (trial 0)", "1 of 4 runs pending (trial 1)",
        "1 of 4 runs failed (trial 2)",
        "schema version 2, expected 1", "record.json is not JSON", "predictions.npz is missing",
    ):  # fmt: skip
        assert part in tables, part
    assert "torn last line ignored" in texts[PAGE] and "log.jsonl is missing" in texts[PAGE]
    value = json.loads(texts["tables.json"])
    shown = {selected_run["key"] for selected_run in value["winners"]} | {
        run["key"] for run in value["unfinished"]
    }
    assert shown == set(fake.plan)
    assert {run["key"] for run in value["unfinished"]} == {*waiting, good[2], good[3]}
    assert len(list((folder / "report").glob("demo_retrain*.toml"))) == 2
