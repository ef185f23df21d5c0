"""Published figures beside ours, and the audit of published claims, on small tables whose answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.report.audit import allowed_by_n, audit, standard_error
from benchmark.report.collect import make_report
from benchmark.report.published import FOLDER, beside, read_table, tables
from tests.report.fake_sweep import DRO, ERM, FakeSweep, Method, World

HEAD = "dataset,method,metric,value,pm,n,table,note\n"


def write(folder: Path, name: str, *rows: str) -> None:
    (folder / f"{name}.csv").write_text(HEAD + "\n".join(rows) + "\n")


def test_every_published_table_is_read() -> None:
    assert len(tables()) >= 31
    assert sum(len(read_table(name)) for name in tables()) >= 2300
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
        c.metric: v.estimate.value
        for c, v in zip(report.tables[0].columns, report.tables[0].rows[0].values, strict=True)
    }
    ours, difference = next(row for row in sheet.rows if row[0] == "erm" and row[2] == "90 ± 1")[3:]
    assert ours.startswith(f"{values['biased_accuracy'] * 100:.1f} ±")
    assert float(difference) == pytest.approx(values["biased_accuracy"] * 100 - 90, abs=0.051)
    assert "no published figure of: new_one" in sheet.notes[0]


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
    assert "printed ± 2, n = 10,000 gives ± 0.5 (more than n can make)" in notes
    assert "printed gap 45 ± 1, its accuracies differ by 40" in notes


def test_rounding_alone_can_make_a_difference(tmp_path: Path) -> None:
    rows = [f"d,{m},biased_accuracy,{v},0,10000,Table 9,x" for m, v in (("tea", 99), ("b", 100))]
    write(tmp_path, "tea_table9", *rows)
    (sheet,) = audit("tea_table9", folder=tmp_path)
    assert [row[-1] for row in sheet.rows if len(row) > 1] == ["if not rounded"]


def test_the_real_table_4() -> None:
    """TEA's table 4: on Coloured MNIST its gap is told from every other's; on DogsWithTies (n = 101) from five only."""
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
