"""Tables for papers: panels, parts, marks and notes, and LaTeX without overfull boxes."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.report.formats.grid import Cell, Grid, grid_of_sheet, grid_of_table, transposed
from benchmark.report.formats.latex import latex_cell, latex_document, latex_files, latex_grid
from benchmark.report.formats.latex_width import (
    MOST_LINES,
    PAGE,
    column_widths,
    panels_of,
    parts_of,
    row_lines,
    stub_widths,
)
from benchmark.report.render import render, write_all
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import ReportOptions
from benchmark.report.tables.sheet import Sheet
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

PREAMBLE = r"\usepackage[T1]{fontenc}\usepackage{textcomp,array,booktabs,graphicx}"


def _sheet(columns: int, rows: int) -> Sheet:
    heads = [("method",), *((f"column {i}", "of numbers") for i in range(columns))]
    body = [[f"method_{r}", *(f"{r + i}.5 ± {r}.1" for i in range(columns))] for r in range(rows)]
    return Sheet("Title", ["What it shows.", "A remark."], heads, body, notes=["a note"])


def test_wide_tables_become_panels_that_fit_and_lose_no_column() -> None:
    grid = grid_of_sheet(_sheet(15, 4))
    panels = panels_of(grid)
    assert len(panels) > 1
    for panel in panels:
        assert sum(column_widths(panel)) <= PAGE and panel.heads[0] == ("method",)
    assert [head for panel in panels for head in panel.heads[1:]] == list(grid.heads[1:])


def test_tall_tables_are_divided_and_only_the_last_part_has_notes() -> None:
    grid = grid_of_sheet(_sheet(3, 130))
    parts = parts_of(grid)
    assert [row for part in parts for row in part.rows] == list(grid.rows)
    assert all(len(part.rows) <= MOST_LINES for part in parts) and len(parts) > 2
    assert [bool(part.remarks) for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(latex_files([grid])) == len(parts)


def test_long_names_are_wrapped() -> None:
    sheet = Sheet("T", ["C."], [("name",), ("text",)], [["a", "word " * 60]] * 3, stub=2)
    grid = grid_of_sheet(sheet)
    assert sum(stub_widths(grid)) <= PAGE and r"\linewidth}" in latex_grid(grid)


def test_a_table_of_many_panels_is_divided_by_columns_too() -> None:
    grid = grid_of_sheet(_sheet(60, 20))
    parts = parts_of(grid)
    for part in parts:
        panels = panels_of(part)
        assert len(panels) * (len(part.rows) + 4) <= MOST_LINES
    shown = {(row[0].text, head) for part in parts for row in part.rows for head in part.heads}
    assert shown == {(row[0].text, head) for row in grid.rows for head in grid.heads}


def test_the_lines_of_long_names_count() -> None:
    rows = [[f"{i} a name of a method that takes two lines", f"{i}.5"] for i in range(34)]
    grid = grid_of_sheet(Sheet("T", ["C."], [("method",), ("score",)], rows))
    widths = stub_widths(grid)
    assert {row_lines(row, widths) for row in grid.rows} == {2}
    short = replace(grid, rows=tuple((Cell(str(i)), row[1]) for i, row in enumerate(grid.rows)))
    assert len(parts_of(short)) == 1 and len(parts_of(grid)) == 2


def test_a_document_of_many_tables_leaves_no_float_waiting() -> None:
    document = latex_document([grid_of_sheet(_sheet(2, 2))] * 35, "T")
    waiting = document.split(r"\clearpage")
    assert [part.count(r"\caption{") for part in waiting] == [10, 10, 10, 5]


def test_constant_and_equal_columns_are_printed_once() -> None:
    heads = [("method",), ("trials",), ("recall",), ("accuracy",), ("F1",)]
    rows = [["a", "3", "0.5", "0.5", "0.1"], ["b", "3", "0.6", "0.6", "0.1 ± 0.1"]]
    grid = grid_of_sheet(Sheet("T", ["C."], heads, rows))
    assert grid.heads == (("method",), ("recall",), ("F1",))
    assert grid.caption == "T. C. The same in all rows: trials: 3."
    assert grid.remarks == ("accuracy: the same as recall in all rows.",)
    rows = [[name, "3", "x" * 200, name, name] for name in ("a", "b")]
    grid = grid_of_sheet(Sheet("T", ["C."], heads, rows))
    assert grid.caption == "T. C." and "trials: 3; recall: xxx" in grid.remarks[0]


def test_one_minus_sign() -> None:
    sheet = Sheet("T", ["C."], [("a-1",), ("b",)], [["x-1", "-1.5 ± 1e-05 [-2, -1]"]])
    assert sheet.rows == [["x-1", "−1.5 ± 1e-05 [−2, −1]"]]


def test_the_best_is_bold_and_others_are_marked(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    for method in (ERM, DRO, Method("close", 0.9, 0.7)):
        fake.add(World(size=200), method)
    report = make_report(fake.finish())
    (table,) = report.tables
    for i in range(len(table.columns)):
        top = [row for row in table.rows if row.values[i].is_top]
        assert len(top) == 1 and top[0].values[i].mark == ""
        marked = [row.values[i].mark for row in table.rows if row is not top[0]]
        told = [row.values[i].best for row in table.rows if row is not top[0]]
        assert marked == ["≈" if best else "" for best in told]
    grid = grid_of_table(table)
    assert "*" not in "".join(grid.remarks) and grid.caption.count(".") < 6
    assert len(grid.caption) < 200 and "3 trials" in grid.caption and "±" in grid.caption
    assert render(report, "markdown").count("**") == 2 * len(table.columns)
    assert render(report, "latex").count(r"\textbf{") >= len(table.columns)
    assert "•" in render(report, "text")


def test_transposed() -> None:
    rows = ((Cell("x"), Cell("1")), (Cell("y"), Cell("2", is_best=True)))
    grid = transposed(Grid("n", "t", "c", (("method",), ("first", "score")), rows))
    assert grid.heads == (("metric",), ("x",), ("y",))
    assert grid.rows == ((Cell("first score"), Cell("1"), Cell("2", is_best=True)),)


def test_cells_in_latex() -> None:
    assert latex_cell(Cell("−9.5 ± 0.4")) == r"\ensuremath{-}9.5 & \ensuremath{{}\pm{}}0.4"
    best = latex_cell(Cell("9.5", is_best=True, footnotes="a"))
    assert best == r"\textbf{9.5} & \textsuperscript{a}"
    assert latex_cell(Cell("–")) == r"\multicolumn{2}{c}{--}"


def test_files_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60), ERM)
    folder, out = fake.finish(), tmp_path / "out"
    write_all(make_report(folder, options=ReportOptions(tables=("class_scores",))), out)
    more = set((out / "tables").iterdir())
    write_all(make_report(folder), out)
    assert set((out / "tables").iterdir()) < more


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize(
    "document", ["article", "[twocolumn]{article}", "beamer"], ids=["one", "two", "slides"]
)
def test_no_box_is_overfull(tmp_path: Path, document: str) -> None:
    if document == "beamer" and not _has_beamer():
        pytest.skip("the LaTeX class beamer is not installed")
    fake = FakeSweep(tmp_path)
    for name in ("erm", "group_dro", *(f"a_method_with_a_name_{i}:variant" for i in range(22))):
        fake.add(World(size=80), Method(name, 0.9, 0.5, needs=("groups", "environments")))
    options = ReportOptions(reference="erm", tables=("class_scores",))
    report = make_report(fake.finish(), spread="interval", options=options)
    write_all(report, tmp_path)
    inputs = [rf"\input{{tables/{path.stem}}}" for path in sorted((tmp_path / "tables").iterdir())]
    if document == "beamer":
        inputs = [rf"\begin{{frame}}{{A frame}}{line}\end{{frame}}" for line in inputs]
    else:
        inputs = [line + r"\clearpage" * (i % 10 == 9) for i, line in enumerate(inputs)]
    kind = document if document.startswith("[") else f"{{{document}}}"
    text = [rf"\documentclass{kind}{PREAMBLE}", r"\begin{document}", *inputs, r"\end{document}"]
    (tmp_path / "paper.tex").write_text("\n".join(text))
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
    )
    log = done.stdout.decode("latin-1")
    assert done.returncode == 0, log[-2000:]
    assert not re.findall(r"Overfull.*|Float too large.*", log)


def _has_beamer() -> bool:
    found = subprocess.run(["kpsewhich", "beamer.cls"], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip())
