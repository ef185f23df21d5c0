"""Test published values beside ours, and the audit of small tables with known results."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from benchmark.core.errors import UserError
from benchmark.core.registry import ALGORITHMS
from benchmark.report.external.published_audit import allowed_by_n, audit, standard_error
from benchmark.report.records.published_values import FOLDER, read_table, table_names
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.published import beside
from benchmark.report.tables.report_table import ReportOptions
from benchmark.report.tables.sheet import Sheet
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.messages import mentions

HEAD = "dataset,method,metric,value,pm,n,table,note\n"


def write(folder: Path, name: str, *rows: str) -> None:
    (folder / f"{name}.csv").write_text(HEAD + "\n".join(rows) + "\n")


def test_every_published_table_is_read() -> None:
    assert len(table_names()) >= 31
    assert sum(len(read_table(name)) for name in table_names()) >= 2300
    assert all(0 <= f.value <= 1 for f in read_table("tea_table4") + read_table("attri_net_table2"))
    assert FOLDER.name == "published"


def test_ours_beside_theirs(tmp_path: Path) -> None:
    write(
        tmp_path,
        "tea_table9",
        "digits,erm,biased_accuracy,90,1,100,Table 9,paper: ERM",
        "digits,erm,gap,60,2,100,Table 9,paper: ERM",
        "digits,absent,biased_accuracy,80,1,100,Table 9,paper: X",
        "digits,erm,relevance,0.5,,,Table 9,fraction",
        "elsewhere,erm,gap,1,1,9,Table 9,paper: ERM",
        "digits,group_dro,biased_accuracy,N/A,,,Table 9,paper: DRO",
    )
    fake = FakeSweep(tmp_path)
    fake.add(World("digits:bias=0.95", size=100), ERM)
    fake.add(World("digits:bias=0.95", size=100), Method("new_one"), trials=(0,))
    fake.add(World("unpublished", size=60), DRO, trials=(0,))
    report = make_report(fake.finish())
    (sheet,) = beside(report.tables, tmp_path)
    rows = {(row[0], row[1]): row for row in sheet.rows if len(row) > 1}
    assert len([row for row in sheet.rows if len(row) > 1]) == 3
    assert rows["absent", "tea 9"][2:] == ["80 ± 1", "–", "–"]
    values = {
        c.name: v.estimate.value or 0.0
        for c, v in zip(report.tables[0].columns, report.tables[0].rows[0].values, strict=True)
    }
    ours, difference = next(row for row in sheet.rows if row[0] == "erm" and row[2] == "90 ± 1")[3:]
    assert ours.startswith(f"{values['biased_accuracy'] * 100:.1f} ±")
    assert float(difference) == pytest.approx(values["biased_accuracy"] * 100 - 90, abs=0.051)
    assert "new_one" in sheet.notes[0]


def test_a_row_that_was_chosen_too_early_is_marked(tmp_path: Path) -> None:
    write(
        tmp_path,
        "tea_table9",
        "digits,erm,biased_accuracy,90,1,100,Table 9,paper: ERM",
        "digits,irm,biased_accuracy,80,1,100,Table 9,paper: IRM",
    )
    fake = FakeSweep(tmp_path)
    fake.add(World("digits:bias=0.95", size=100), ERM)
    fake.add(
        World("digits:bias=0.95", size=100),
        Method("irm"),
        penalty_weight=100.0,
        anneal_iters=200,  # the fake runs are selected at step 200
    )
    (sheet,) = beside(make_report(fake.finish()).tables, tmp_path)
    ours = {row[0]: row[3] for row in sheet.rows if len(row) > 1}
    assert ours["irm"].endswith("†") and not ours["erm"].endswith("†")
    assert any(note.startswith("†") for note in sheet.notes)


def sheet_of(
    tmp_path: Path, dataset: str, methods: list[Method], rows: list[str], **options: str
) -> Sheet:
    write(tmp_path, "tea_table9", *rows)
    fake = FakeSweep(tmp_path)
    for method in methods:
        fake.add(
            World(dataset, classes=3, size=150, label_names=("a", "B", "c")),
            method,
            options=options or None,
        )
    report = make_report(fake.finish())
    (sheet,) = beside(report.tables, tmp_path, report.store)
    return sheet


def test_our_names_for_theirs(tmp_path: Path) -> None:
    rows = [
        f"spawrious_o2o_easy,{m},biased_accuracy,50,1,100,Table 9,"
        for m in ("tea", "tea:l1", "erm@convnet", "x")
    ]
    methods = [Method("tea:spawrious"), Method("tea:l1", 0.8), ERM, Method("tea_2")]
    sheet = sheet_of(tmp_path, "spawrious:challenge=o2o_easy", methods, rows, challenge="o2o_easy")
    ours = {row[0]: row[3] for row in sheet.rows if len(row) > 1}
    assert ours["x"] == "–" and all(
        ours[name][0].isdigit() for name in ("tea", "tea:l1", "erm@convnet")
    )
    assert ours["tea"] != ours["tea:l1"]
    without, renamed = sheet.notes[:2]
    assert without.endswith(": tea_2")
    assert renamed.endswith(": tea: tea:spawrious; erm@convnet: erm")


def test_test_sets_of_a_suite_are_data_sets_in_papers(tmp_path: Path) -> None:
    rows = [
        "imagenet_a,erm,top1_accuracy,50,,,Table 9,",
        "imagenet_a,erm,top5_accuracy,70,,,Table 9,",
        "imagenet_val,erm,top1_accuracy,80,,,Table 9,",
        "imagenet_r,erm,top1_accuracy,30,,,Table 9,",
        "imagenet_a,erm,top1_accuracy_change,1,,,Table 9,",
    ]
    write(tmp_path, "tea_table9", *rows)
    fake = FakeSweep(tmp_path)
    world = World(
        "imagenet:tests=imagenet+imagenet_a", classes=12, size=240, confounders=False,
        paired=False, splits=("imagenet", "imagenet_a"),
    )  # fmt: skip
    fake.add(world, ERM, trials=(0,))
    report = make_report(fake.finish())
    (sheet,) = beside(report.tables, tmp_path, report.store)
    heads = [row[0] for row in sheet.rows if len(row) == 1]
    assert heads == ["imagenet accuracy", "imagenet a accuracy", "imagenet a top5 accuracy"]
    assert all(row[3][0].isdigit() for row in sheet.rows if len(row) > 1)


def test_cmnist_stands_beside_the_papers_test_environment_and_validation_can(
    tmp_path: Path,
) -> None:
    metrics = (
        "average_accuracy",
        "worst_group_accuracy",
        "validation_worst_group_accuracy",
        "deceiving_accuracy",
    )
    write(tmp_path, "ex2l_table9", *(f"cmnist,erm,{m},50,,,Table 9," for m in metrics))
    fake = FakeSweep(tmp_path)
    fake.add(World("cmnist", size=200), ERM)
    report = make_report(fake.finish())
    (sheet,) = beside(report.tables, tmp_path, report.store)
    ours = [row[3] for row in sheet.rows if len(row) > 1]
    (row,) = report.tables[0].rows
    shown = {
        c.name: v.estimate.value or 0.0
        for c, v in zip(report.tables[0].columns, row.values, strict=True)
    }

    def worst(split: str) -> float:
        counts = [w.at.counts[split] for w in row.selected_runs]  # confounder, label, predicted
        groups = [[(c[z, y, y], c[z, y].sum()) for y in range(2) for z in range(2)] for c in counts]
        return float(
            np.mean([min(right / total for right, total in each if total) for each in groups]) * 100
        )

    assert ours[0] == ours[3] and ours[0].startswith(f"{shown['deceiving_accuracy'] * 100:.1f} ±")
    assert shown["deceiving_accuracy"] != shown["average_accuracy"]
    for found, split in ((ours[1], "deceiving"), (ours[2], "val")):
        assert abs(float(found.partition(" ")[0]) - worst(split)) < 0.051
    assert any("ex2l" in note and "split deceiving" in note for note in sheet.notes)


def test_published_scores_per_class(tmp_path: Path) -> None:
    metrics = (
        "auc/mean",
        "auc/b",
        "f1/mean",
        "f1/b",
        "sensitivity/a",
        "specificity/C",
        "sensitivity/unknown",
    )
    sheet = sheet_of(tmp_path, "xray", [ERM], [f"xray,erm,{m},50,1,100,Table 9," for m in metrics])
    report = make_report(tmp_path / "demo")
    selected_runs = report.tables[0].rows[0].selected_runs
    expected: dict[str, list[float]] = {name: [] for name in metrics[:-1]}
    for selected_run in selected_runs:
        found = report.store.scores(selected_run, "unbiased")
        assert found is not None
        label, score = found
        predicted = score.argmax(1)
        areas = [roc_auc_score(label == k, score[:, k]) for k in range(3)]
        f1 = f1_score(label, predicted, average=None)
        expected["auc/mean"].append(float(np.mean(areas)))
        expected["auc/b"].append(areas[1])
        expected["f1/mean"].append(f1.mean())
        expected["f1/b"].append(f1[1])
        expected["sensitivity/a"].append((predicted[label == 0] == 0).mean())
        expected["specificity/C"].append((predicted[label != 2] != 2).mean())
    headings = [row[0] for row in sheet.rows if len(row) == 1]
    assert headings == [name.replace("/", ", ") for name in expected]
    for heading, row in zip(headings, (row for row in sheet.rows if len(row) > 1), strict=True):
        values = expected[heading.replace(", ", "/")]
        assert row[3] == f"{np.mean(values) * 100:.1f} ± {np.std(values, ddof=1) * 100:.1f}"


#: Published rows of a method on other data here: RobustViT with masks of TokenCut is ``robust_vit``
#: on the data set ``masked``.
ON_OTHER_DATA = {"robust_vit:unsupervised"}
#: Published rows of ablations that are the method with its defaults.
DEFAULTS = {
    "attri_net:cls_adv_reg_ctr",
    "nemt:filter",
    "nemt:lambda_0.5",
    "nemt:neighbourhood_21",
}


def test_published_names_of_our_methods_exist() -> None:
    known = {a: {"", *ALGORITHMS.get(a).variants} for a in ALGORITHMS.names()}
    for name in table_names():
        for figure in read_table(name):
            method = figure.method.partition("@")[0]
            algorithm, _, variant = method.partition(":")
            if algorithm in known and method not in DEFAULTS | ON_OTHER_DATA:
                assert variant in known[algorithm], f"{name}: {figure.method}"


def test_labels_of_several_words_are_found_by_their_published_names(tmp_path: Path) -> None:
    write(tmp_path, "attri_net_table9", "xray,erm,auc/pleural_effusion,0.9,,,Table 9,x")
    fake = FakeSweep(tmp_path)
    names = ("Pleural Effusion", "Edema", "c")
    fake.add(World("xray", classes=3, size=150, label_names=names), ERM)
    report = make_report(fake.finish())
    (sheet,) = beside(report.tables, tmp_path, report.store)
    (row,) = [row for row in sheet.rows if len(row) > 1]
    assert row[0] == "erm" and row[3][0].isdigit()


def test_audit_tells_apart_what_can_be(tmp_path: Path) -> None:
    write(
        tmp_path,
        "tea_table9",
        "d,tea,biased_accuracy,80,4,100,Table 9,x",
        "d,tea,deceiving_accuracy,78,4,100,Table 9,x",
        "d,tea,gap,2,6,100,Table 9,x",
        "d,far,biased_accuracy,50,5,100,Table 9,x",
        "d,far,deceiving_accuracy,10,3,100,Table 9,x",
        "d,far,gap,40,6,100,Table 9,x",
        "d,near,biased_accuracy,82,4,100,Table 9,x",
        "d,near,deceiving_accuracy,75,4,100,Table 9,x",
        "d,near,gap,8,6,100,Table 9,x",
    )
    (sheet,) = audit("tea_table9", folder=tmp_path)
    verdicts = {(row[0], row[1]): row[-1] for row in sheet.rows if len(row) > 1}
    assert verdicts["far", "10 ± 3"] == "yes" and verdicts["far", "40 ± 6"] == "yes"
    assert verdicts["near", "8 ± 6"] == "no"
    figures = read_table("tea_table9", tmp_path)
    accuracy, gap = figures[0], figures[2]
    assert allowed_by_n(accuracy, figures) == pytest.approx(math.sqrt(0.8 * 0.2 / 100), rel=0.02)
    parts = [allowed_by_n(f, figures) for f in figures[:2]]
    assert allowed_by_n(gap, figures) == pytest.approx(math.hypot(*parts))  # type: ignore[arg-type]
    assert standard_error(accuracy, figures) == allowed_by_n(accuracy, figures)


def test_audit_names_what_cannot_be(tmp_path: Path) -> None:
    write(
        tmp_path,
        "tea_table9",
        "d,tea,biased_accuracy,60,2,10000,Table 9,x",
        "d,tea,deceiving_accuracy,20,0,10000,Table 9,x",
        "d,tea,gap,45,1,10000,Table 9,x",
        "d,b,biased_accuracy,60,0,10000,Table 9,x",
    )
    (sheet,) = audit("tea_table9", folder=tmp_path)
    notes = " ".join(sheet.notes)
    assert "± 2, n = 10,000 gives ± 0.5" in notes
    assert mentions(notes, "gap 45 ± 1", "40")


def test_rounding_alone_can_make_a_difference(tmp_path: Path) -> None:
    rows = [f"d,{m},biased_accuracy,{v},0,10000,Table 9,x" for m, v in (("tea", 99), ("b", 100))]
    write(tmp_path, "tea_table9", *rows)
    (sheet,) = audit("tea_table9", folder=tmp_path)
    assert [row[-1] for row in sheet.rows if len(row) > 1] == ["if not rounded"]


def test_the_real_table_4() -> None:
    """TEA's gap differs from all others on Coloured MNIST, on DogsWithTies from five only."""
    mnist, dogs = audit("tea_table4")
    start = next(i for i, row in enumerate(mnist.rows) if row[0].startswith("gap"))
    gaps = {row[0]: row[-1] for row in mnist.rows[start + 1 :]}
    assert all(verdict == "yes" for method, verdict in gaps.items() if method != "teacher")
    start = next(i for i, row in enumerate(dogs.rows) if row[0].startswith("gap"))
    gaps = {row[0]: row[-1] for row in dogs.rows[start + 1 :]}
    assert {method for method, verdict in gaps.items() if verdict == "yes"} == {
        "ag_sononet",
        "vit",
        "erm",
        "irm",
        "pgi",
    }


def test_tables_that_cannot_be_audited() -> None:
    with pytest.raises(UserError, match="did you mean tea_table4"):
        audit("tea_tabl4")
    with pytest.raises(UserError, match="prints no ±"):
        audit("robustvit_table1")
    with pytest.raises(UserError, match="no method"):
        audit("tea_table4", "nobody")
    assert len(audit("ex2l_table1")) == 2


def test_that_no_paper_reports_the_data_is_said(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World("unheard_of", size=60), ERM)
    folder = fake.finish()
    report = make_report(folder, options=ReportOptions(tables=("published",)))
    assert any("published" in note for note in report.sweep.notes)
    assert "no published table" in render(report, "text")
    assert "published" not in render(make_report(folder), "text")
