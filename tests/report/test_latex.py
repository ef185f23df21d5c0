"""Test that LaTeX compiles with any name, alone and inside another document."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmark.report.formats.latex_escape import escape
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.tables.numbers import decimals_of, plain
from tests.support.fake_sweep import ERM, FakeSweep, Method, World
from tests.support.hostile_names import HOSTILE_NAMES, sweep_with_hostile_names


def test_escaping_leaves_no_active_character() -> None:
    for text in HOSTILE_NAMES:
        bare = re.sub(r"\\[a-zA-Z]+(\{\})?|\\.|\{[\[\]*-]\}|\$\S*\$", "", escape(text))
        assert bare.isascii()
        assert not set(bare) & set("%&#$_~^\\"), (text, bare)
        assert escape(text).count("{") - escape(text).count("\\{") == escape(text).count(
            "}"
        ) - escape(text).count("\\}")


def test_no_digit_is_lost(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=123), ERM)
    report = make_report(fake.finish())
    latex = render(report, "latex")
    for row in report.tables[0].rows:
        for value in row.values:
            assert value.estimate.value is not None and value.estimate.sd is not None
            if value.shows_bounds:
                continue
            mean, sd = f"{value.estimate.value * 100:.1f}", f"{value.estimate.sd * 100:.1f}"
            assert re.search(rf"{mean}\}}? & (\\textbf\{{)?\\ensuremath\S*{sd}", latex)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("spread", ["sd", "interval"])
def test_ugly_names_compile(tmp_path: Path, spread: str) -> None:
    report = make_report(sweep_with_hostile_names(tmp_path), spread=spread)
    (tmp_path / "tables.tex").write_text(render(report, "latex"))
    compile_tex(tmp_path, "tables.tex")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_input_into_a_paper(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60), ERM)
    fake.add(World(size=60), Method("a_" * 40), trials=(0,))
    (tmp_path / "tables.tex").write_text(render(make_report(fake.finish()), "latex"))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{textcomp,array,booktabs,graphicx}\n"
        "\\begin{document}before \\input{tables} after\\end{document}\n"
    )
    assert "tables.tex" in compile_tex(tmp_path, "paper.tex")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")
def test_every_number_is_on_the_page(tmp_path: Path) -> None:
    """The table keeps ± 0.0 and wraps very long names."""
    fake = FakeSweep(tmp_path)
    for method in (ERM, Method("perfect", 1.0, 1.0), Method("x" * 90, 0.9, 0.1)):
        fake.add(World(size=60), method, trials=(0, 1))
    report = make_report(fake.finish())
    (tmp_path / "tables.tex").write_text(render(report, "latex"))
    compile_tex(tmp_path, "tables.tex")
    command = ["pdftotext", "-layout", str(tmp_path / "tables.pdf"), "-"]
    page = re.sub(
        r"\s+", " ", subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    for row in report.tables[0].rows:
        for value in row.values:
            assert f"{plain(value, decimals_of(report.tables[0]))}".replace("-", "−") in page
    assert "100.0 ± 0.0" in page
    assert (
        max(map(len, re.findall("x{16,}", page))) < 60
    )  # broken into lines, not one that covers the numbers


def compile_tex(folder: Path, name: str) -> str:
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name],
        cwd=folder,
        capture_output=True,
        timeout=120,
    )
    log = done.stdout.decode("latin-1")
    assert done.returncode == 0, "\n".join(
        line for line in log.splitlines() if line.startswith(("!", "l."))
    )
    assert "Missing character" not in log
    assert (folder / name).with_suffix(".pdf").stat().st_size > 10_000
    return log
