"""Test the command line: exit codes, files, messages, and no import of torch."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark import collect_results
from benchmark.cli.report_folder import folder_name
from benchmark.core.errors import UserError, exit_code
from benchmark.report.formats.report_format import file_names
from benchmark.report.formats.text import text_table
from benchmark.report.report import make_report
from benchmark.report.tables.provenance import provenance
from benchmark.report.tables.report_table import ReportOptions
from benchmark.report.tables.results_table import Table
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

WORLD = World(size=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fake = FakeSweep(tmp_path / "results")
    fake.add(WORLD, ERM)
    return fake.finish()


def run(*arguments: str) -> int:
    return exit_code(lambda: collect_results.main(arguments))


def test_prints_and_writes_every_format(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert run() == 0
    out, err = capsys.readouterr()
    assert (
        (folder / "report" / "tables.txt").read_text().startswith(out)
    )  # the file has an appendix
    assert "erm" in out and "±" in out and "written to" in err
    assert {path.name for path in (folder / "report").iterdir()} == {
        *file_names().values(),
        "report.html",
        "figures",
        "options.json",
        "tables",
    }
    for form, name in file_names().items():
        assert run("demo", "--format", form, "--tables-only") == 0
        assert (folder / "report" / name).read_text().startswith(capsys.readouterr().out)


def test_the_markdown_page_says_where_it_comes_from(folder: Path) -> None:
    page = folder / "report" / "tables.md"
    assert run(str(folder), "--tables-only", "--spread", "interval") == 0
    origin = page.read_text().splitlines()[3].replace("\\", "")
    assert origin.startswith("sweep demo; commit " + "0" * 40 + "; command python -m benchmark.")
    assert origin.endswith(" --tables-only --spread interval")
    for number, path in enumerate(sorted(folder.glob("runs/*/record.json"))):
        record = json.loads(path.read_text())
        record["machine"]["commit"] = None if number == 0 else f"{number:040d}-dirty"
        path.write_text(json.dumps(record))
    report = make_report(folder)
    (sweep, commit) = provenance(report)
    assert sweep == ("sweep", "demo") and commit[0] == "commit"
    count = len(list(folder.glob("runs/*/record.json")))
    assert commit[1].count("-dirty") == count - 1


def test_out_leaves_the_sweep_alone(folder: Path, tmp_path: Path) -> None:
    before = sorted(folder.rglob("*"))
    assert run(str(folder), "--out", str(tmp_path / "elsewhere"), "--figures", "none") == 0
    assert sorted(folder.rglob("*")) == before
    assert (tmp_path / "elsewhere" / "report.html").exists() and not (
        tmp_path / "elsewhere" / "figures"
    ).exists()


def test_no_finished_run_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, state="failed")
    assert run(str(fake.finish())) == 1
    assert "NaN at step 30" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["{}", "--selection", "val_acuracy"], "did you mean val_accuracy"),
        (["{}", "--selection", "last"], "recorded are: val_accuracy, val_worst_group"),
        (["{}/runs"], "expected the folder of a sweep"),
        ([], "there is no sweep in results"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    folder: Path,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run(*(argument.format(folder) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and sentence in err and "Traceback" not in err
    assert not (folder / "report").exists()


def test_an_empty_plan_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(FakeSweep(tmp_path).finish())) == 2
    assert "plans no run" in capsys.readouterr().err


def test_ascii_terminal_and_no_torch(folder: Path) -> None:
    """A new process does not import torch, and a terminal without UTF-8 gets ``+-``."""
    code = (
        "import sys; from benchmark.collect_results import main;"
        "code = main([sys.argv[1], '--tables-only']);"
        "bad = sorted({'torch', 'pymc', 'pandas', 'sklearn', 'scipy.stats'} & set(sys.modules));"
        "sys.exit(f'imported: {bad}' if bad else code)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "+-" in done.stdout and "±" not in done.stdout


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        collect_results.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    for part in (
        "examples:",
        "selection criteria:",
        "val_worst_group",
        "exit codes:",
        "--format latex",
    ):
        assert part in text


def test_a_reader_that_stops_costs_no_file(folder: Path) -> None:
    """All files are written if the reader of a pipe stops, as in ``collect_results | head``."""
    command = [sys.executable, "-m", "benchmark.collect_results", str(folder), "--figures", "none"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read().decode()
    assert process.wait(60) == 0 and "Traceback" not in error and "BrokenPipe" not in error
    assert (folder / "report" / "report.html").exists()


def test_a_folder_that_cannot_be_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run(str(folder), "--out", str(out)) == 2
        printed, err = capsys.readouterr()
        assert printed == "" and err.startswith("error: ") and "Traceback" not in err


def test_a_report_with_other_options_leaves_the_first_one_alone(folder: Path) -> None:
    report = folder / "report"
    assert run(str(folder), "--tables-only") == 0
    first = (report / "tables.txt").read_bytes()
    again = ("--tables-only", "--spread", "interval", "--decimals", "2")
    assert run(str(folder), *again) == 0
    assert (report / "tables.txt").read_bytes() == first
    (other,) = (path for path in report.iterdir() if path.is_dir() and path.name != "tables")
    made = json.loads((other / "options.json").read_text())
    assert made["options"] == {"decimals": 2, "spread": "interval"}
    assert "--spread interval" in made["command"]
    assert run(str(folder), *again) == 0
    assert run(str(folder), "--tables-only", "--format", "latex") == 0
    folders = {path.name for path in report.iterdir() if path.is_dir()}
    assert folders == {"tables", other.name}


def test_names_of_folders() -> None:
    assert folder_name({}) == "default"
    assert folder_name({"spread": "interval", "transpose": True}) == "spread-interval_transpose"
    long = folder_name({"columns": ["a/b"] * 40})
    assert len(long) < 80 and "/" not in long
    assert long != folder_name({"columns": ["a/b"] * 41})


@pytest.mark.parametrize(
    ("old", "new"),
    [(("--audit", "tea_table4"), ("audit", "tea_table4"))],
)
def test_old_flags_still_work_and_say_so(
    old: tuple[str, ...], new: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*old) == 0
    shown, said = capsys.readouterr()
    assert "benchmark.collect_results audit tea_table4" in said
    assert run(*new) == 0
    assert capsys.readouterr() == (shown, "")


def test_export_is_a_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", str(tmp_path / "new.csv"), str(folder)) == 0
    assert "collect_results export" not in capsys.readouterr().err
    assert run(str(folder), "--export", str(tmp_path / "old.csv")) == 0
    assert "collect_results export" in capsys.readouterr().err
    assert (tmp_path / "new.csv").read_bytes() == (tmp_path / "old.csv").read_bytes() != b""


def test_rows_columns_and_decimals(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    for method in (ERM, DRO, Method("irm", 0.8, 0.4)):
        fake.add(WORLD, method)
    folder = fake.finish()

    def table(**options: Any) -> Table:
        (found,) = make_report(folder, options=ReportOptions(**options)).tables
        return found

    everything = table()
    some = table(rows=("irm", "erm"), columns=("gap", "average_accuracy"), decimals=3)
    assert [row.method for row in some.rows] == ["irm", "erm"]
    assert [column.name for column in some.columns] == ["gap", "average_accuracy"]
    gap = [column.name for column in everything.columns].index("gap")
    assert some.rows[1].values[0].estimate == everything.rows[0].values[gap].estimate
    assert re.search(r"\d\.\d{3} ± \d+\.\d{3}", text_table(some))
    more = table(columns=("+seen_worst_group",))
    assert [c.name for c in everything.columns] == [
        c.name for c in more.columns if c in everything.columns or "seen" not in type(c).name
    ]
    split = everything.columns[-2].splits[0]
    assert [column.splits for column in table(columns=(split,)).columns] == [(split,)]
    with pytest.raises(UserError, match="unknown metric"):
        table(columns=("nonsense",))
    with pytest.raises(UserError, match="did you mean irm"):
        table(rows=("irn",))


def test_a_workbook_has_numbers_and_no_formula(folder: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="needs openpyxl")
    assert run(str(folder), "--tables-only", "--format", "excel") == 0
    book = openpyxl.load_workbook(folder / "report" / "tables.xlsx")
    cells = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert len(book.sheetnames) > 1 and any(isinstance(cell.value, float) for cell in cells)
    assert not any(cell.data_type == "f" for cell in cells)


def test_without_openpyxl_one_sentence_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "openpyxl" else find(name, *a)
    )
    assert run(str(folder), "--tables-only", "--format", "excel") == 2
    assert "pip install openpyxl" in capsys.readouterr().err
