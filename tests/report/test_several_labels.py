"""Test a real sweep on images with several labels, from the data to the report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmark.collect_results import main as collect
from benchmark.core.algorithm import Algorithm
from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.core.thresholds import youden_threshold
from benchmark.engine.evaluate import count_cells
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import read_sweep
from benchmark.report.formats.report_format import file_names
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import ReportOptions
from benchmark.sweep import main as sweep
from tests.support.trees import listed

SWEEP = """title = "Cats, dogs, both or none"
datasets = ["listed:side=16"]
algorithms = ["erm", "multitask_unet", "group_dro"]
trials = [0, 1]
selection = ["val_worst_group", "val_objective"]
skip_impossible = true
[budget]
steps = 6
evaluate_every = 3
[override.multitask_unet]
unet_width = 2
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    listed(root / "data")
    (root / "labels.toml").write_text(SWEEP)
    where = [
        "--data-dir",
        str(root / "data"),
        "--output",
        str(root / "out"),
        "--device",
        "cpu",
        "--workers",
        "1",
    ]
    assert sweep(["launch", str(root / "labels.toml"), *where]) == 0
    return root / "out"


def test_counts_and_predictions_agree(results: Path) -> None:
    records = [json.loads(path.read_text()) for path in results.glob("runs/*/record.json")]
    assert sorted(record["spec"]["algorithm"] for record in records) == sorted(
        ["erm", "multitask_unet"] * 2
    )
    for record in records:
        assert record["data"]["multi_label"] and record["data"]["group_names"][:3] == [
            "no cat/lawn", "no cat/sofa", "cat/lawn",
        ]  # fmt: skip
        with np.load(results / "runs" / record["key"] / "predictions.npz") as file:
            label, score, place = (file[f"test/{n}"] if n[0] != "v" else file[n] for n in NAMES)
        counts = np.array(record["selected"]["val_worst_group"]["splits"]["test"]["counts"])
        assert counts.shape == (2, 2, 2, 2) and label.shape == score.shape == (8, 2)
        for k in range(2):
            for z in range(2):
                for there in range(2):
                    for predicted in range(2):
                        rows = (
                            (label[:, k] == there) & ((score[:, k] > 0) == predicted) & (place == z)
                        )
                        assert counts[k, z, there, predicted] == rows.sum()


NAMES = ("label", "val_worst_group/test/score", "confounder")


def test_the_report_is_whole(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect([str(results), "--detail", "--reference", "erm", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    for part in (
        "Average: all answers, one per image and label, of split test",
        "8 groups (label, present or not, and confounder)",
        "each label, yes against no",
        "no cat/lawn",
        "takes one label per image",
    ):
        assert part in " ".join(output.split()), part
    for form in file_names():
        assert "nan" not in (tmp_path / file_names()[form]).read_text().lower().replace(
            "finance", ""
        )
    page = (tmp_path / "report.html").read_text()
    shown = re.sub(r"<script>.*?</script>|base64,[^\"]*", "", page, flags=re.DOTALL)
    assert "Heatmaps" in shown and "NaN" not in shown
    assert {path.stem.split("_")[0] for path in (tmp_path / "figures").glob("*.png")} >= {
        "heatmaps",
        "reliability",
    }


def test_values_are_those_of_the_answers(results: Path) -> None:
    report = make_report(results, options=ReportOptions(tables=("class_scores",)))
    row = next(row for row in report.tables[0].rows if row.method == "erm")
    average, worst = row.values[0].estimate, row.values[1].estimate
    answers = [report.store.get(w, "test") for w in row.selected_runs]
    assert average.value == pytest.approx(
        np.mean([a.right.mean() for a in answers if a is not None])
    )
    assert worst.low is not None and worst.high is not None and worst.value is not None
    assert worst.low <= worst.value <= worst.high
    assert render(report, "json")


def test_without_predictions_only_intervals_are_missing(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "out")
    for path in (tmp_path / "out").glob("runs/*/predictions.npz"):
        path.unlink()
    text = render(
        make_report(
            tmp_path / "out", options=ReportOptions(tables=("class_scores",), reference="erm")
        ),
        "text",
    )
    assert "predictions.npz is missing" in text and "nan" not in text.lower()


def test_auc_and_youden_of_each_label(results: Path) -> None:
    """One trial against scikit-learn, and the mean of two in the sheets."""
    report = make_report(results)
    records = json.loads(render(report, "json"))["label_auc"]
    assert len(records) == 2 * 2 * 2  # labels, methods and trials
    by_method: dict[str, list[float]] = {}
    for path in results.glob("runs/*/record.json"):
        record = json.loads(path.read_text())
        method, trial = record["spec"]["algorithm"], record["spec"]["trial"]
        criterion = record["spec"]["selection"][0]
        with np.load(path.parent / "predictions.npz") as file:
            label, score = file["test/label"], file[f"{criterion}/test/score"]
            val_label, val_score = file["val/label"], file[f"{criterion}/val/score"]
        for k, name in enumerate(("cat", "dog")):
            (found,) = (
                each
                for each in records
                if (each["method"], each["trial"], each["label"]) == (method, trial, name)
            )
            area = roc_auc_score(label[:, k], score[:, k])
            assert found["auc"] == pytest.approx(area)
            threshold = youden_threshold(val_label[:, k], val_score[:, k])
            assert found["threshold"] == threshold
            if threshold is None:  # all scores are equal
                assert found["sensitivity"] is None and found["specificity"] is None
            else:
                above = score[:, k] > threshold
                assert found["sensitivity"] == pytest.approx(above[label[:, k] == 1].mean())
                assert found["specificity"] == pytest.approx((~above)[label[:, k] == 0].mean())
            if name == "cat":
                by_method.setdefault(method, []).append(area)
    assert any(record["threshold"] is not None for record in records)
    areas, rates = (s for s in report.sheets if "per label" in s.title or "Youden" in s.title)
    assert [row[0] for row in areas.rows] == ["cat", "dog", "mean"] and areas.rows[0][1] == "4"
    by_title = {report.sweep.titles.of(method): found for method, found in by_method.items()}
    for head, cell in zip(areas.heads[2:], areas.rows[0][2:], strict=True):
        assert cell.startswith(f"{100 * np.mean(by_title[head[0]]):.1f}")
    assert len(rates.rows) == 2 * (1 + 2) and rates.rows[0] == ["cat"]


def test_methods_for_one_label_are_refused(tmp_path: Path) -> None:
    listed(tmp_path)
    named = re.sub(
        r"algorithms = .*", f"algorithms = {json.dumps(list(ALGORITHMS.names()))}", SWEEP
    )
    (tmp_path / "all.toml").write_text(named)
    config = read_sweep(tmp_path / "all.toml")
    plan = expand(config, tmp_path)
    able = {name for name in ALGORITHMS.names() if ALGORITHMS.get(name).multi_label}
    assert {"erm", "segment_classify", "multitask_unet"} <= able
    run = {planned.spec.algorithm for planned in plan.runs.values()}
    assert (
        run <= able and {entry.method for entry in plan.refused} >= set(ALGORITHMS.names()) - able
    )
    for entry in plan.refused:
        if entry.method not in able:
            assert (
                "takes one label per image" in entry.reason
                and "use ag_sononet, attri_net, " in entry.reason
            )


def test_cells_of_answers() -> None:
    import torch

    from benchmark.core.batch import Batch

    label = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    logits = torch.tensor([[0.1, -3.0], [2.0, 0.0]])
    batch = Batch(torch.zeros(2, 1), label, torch.arange(2), confounder=torch.tensor([2, 0]))
    found = torch.bincount(count_cells(batch, logits, 3).flatten(), minlength=24).view(2, 3, 2, 2)
    assert found.sum() == 4
    assert found[0, 2, 1, 1] == found[1, 2, 0, 0] == found[0, 0, 0, 1] == found[1, 0, 0, 0] == 1


def test_the_loss_is_that_of_each_label() -> None:
    import torch

    from benchmark.losses.outputs import classification_loss

    logits, label = torch.randn(5, 3, dtype=torch.float64), (torch.rand(5, 3) < 0.5).float()
    p = 1 / (1 + (-logits).exp())
    dense = -(label * p.log() + (1 - label) * (1 - p).log()).mean()
    assert classification_loss(logits, label).item() == pytest.approx(dense.item())


def test_the_data_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmark.data import main as data

    listed(tmp_path)
    assert data(["check", "listed:side=16", "--data-dir", str(tmp_path)]) == 0
    assert "cat 4, dog 4, none 2" in capsys.readouterr().out
    sheet = tmp_path / "sheet.png"
    assert (
        data(["show", "listed:side=16", "--data-dir", str(tmp_path), "--output", str(sheet)]) == 0
        and sheet.exists()
    )
    assert data(["check", "planted:on=listed,options=side=16", "--data-dir", str(tmp_path)]) == 2
    assert "planted" in capsys.readouterr().err


def change(column: str, value: str) -> Callable[[str], str]:
    def changed(text: str) -> str:
        head, first, *rest = text.splitlines()
        cells = first.split(",")
        cells[head.split(",").index(column)] = value
        return "\n".join([head, ",".join(cells), *rest]) + "\n"

    return changed


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (change("cat", "maybe"), "cat = 'maybe' in row 2, expected one of 0, 1"),
        (lambda text: text.replace(",val,", ",train,"), "in the split val"),
        (lambda text: text.replace(",test,", ",val,"), "has train and val and no test"),
        (
            lambda text: "\n".join(line.rsplit(",", 2)[0] for line in text.splitlines()) + "\n",
            "has no label",
        ),
        (lambda text: text.replace("train0.png", "absent.png"), "masks of 1 of 28"),
    ],
)
def test_tables_with_mistakes_are_sentences(
    edit: Callable[[str], str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmark.data import main as data

    listed(tmp_path)
    path = tmp_path / "my_table" / "labels.csv"
    path.write_text(edit(path.read_text()))
    assert data(["check", "listed:side=16", "--data-dir", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


#: Data sets whose images may have several labels.
SEVERAL_LABELS = {"chestxray14", "chexpert", "generated_findings", "listed", "vindr_cxr"}


def test_one_label_data_are_not_declared_otherwise() -> None:
    for name in DATASETS.names():
        info = DATASETS.get(name)().info()
        assert info.multi_label == (name in SEVERAL_LABELS)
    assert not Algorithm.multi_label
