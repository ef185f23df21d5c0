"""Test names that attack terminals, spreadsheets, browsers and LaTeX, and notes on damage."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
from pathlib import Path

import pytest

from benchmark import collect_results, sweep
from benchmark.report.external.foreign_results import ForeignResults, Score, flat_records, sheets
from benchmark.report.formats.latex import COMMANDS
from benchmark.report.formats.report_format import file_names
from benchmark.report.records.sweep_records import load_sweep
from benchmark.report.records.tidy_export import export
from benchmark.report.render import PAGE, render, render_sheets, write_page, write_sheets
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import Report, ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

CONTROL = "x\x1b[2J\u202e\x9b31m\r\x00\u2028y"
FORMULA = "=HYPERLINK(A1)"
MARKUP = "<script>alert(1)</script>|`$x$`[a](javascript:b)*_#&lt;"
LATEX = r"\input{/etc/passwd}%$&#_{}~^^M"
NAMES = (f"{FORMULA}{CONTROL}", f"@{MARKUP}", f"-{LATEX}")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep in which every text of its files is hostile."""
    fake = FakeSweep(tmp_path_factory.mktemp("hostile"))
    world = World(
        f"{FORMULA}{MARKUP}{LATEX}{CONTROL}",
        size=60,
        classes=3,
        label_names=NAMES,
        splits=("biased", "deceiving", f"+{FORMULA}{MARKUP}{CONTROL}"),
    )
    fake.add(world, ERM)
    fake.add(
        world, Method(f"{FORMULA}{MARKUP}{LATEX}{CONTROL}", 0.9, 0.8, needs=(FORMULA, CONTROL))
    )
    (failed,) = fake.add(world, Method("@failed"), trials=(0,), state="failed")
    fake.refuse(world, "-refused", f"{FORMULA}{MARKUP}{LATEX}{CONTROL}")
    folder = fake.finish(title=f"{FORMULA}{MARKUP}{LATEX}{CONTROL}")
    path = folder / "runs" / failed / "failure.json"
    failure = json.loads(path.read_text())
    text = f"{FORMULA}{MARKUP}{LATEX}{CONTROL}"
    path.write_text(json.dumps({**failure, "message": text, "traceback": f"a\n{text}"}))
    return folder


@pytest.fixture(scope="module")
def report(hostile: Path) -> Report:
    return make_report(hostile, options=ReportOptions(reference="erm", tables=("class_scores",)))


def is_safe(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("form", file_names())
def test_no_format_holds_a_control_character(report: Report, form: str) -> None:
    assert is_safe(render(report, form))
    assert is_safe(render_sheets([*report.sheets, *report.appendix], form))


def is_formula(cell: str) -> bool:
    return cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not re.fullmatch(
        r"[-+]?[\d.,]+(e[-+]?\d+)?( ± [\d.]+)?( \[[-\d.]+, [-\d.]+\])?[*†%]*", cell
    )


def test_no_cell_of_a_spreadsheet_is_a_formula(
    report: Report, hostile: Path, tmp_path: Path
) -> None:
    export(load_sweep(hostile), tmp_path / "runs.csv")
    texts = [render(report, "csv"), render_sheets([*report.sheets, *report.appendix], "csv")]
    texts.append((tmp_path / "runs.csv").read_text())
    for text in texts:
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert not [cell for cell in cells if is_formula(cell)]
        assert any(cell.startswith("'=HYPERLINK") for cell in cells)


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    """A method that is better where the bias deceives has a negative gap."""
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60), Method("upside_down", 0.2, 0.9))
    rows = list(csv.DictReader(io.StringIO(render(make_report(fake.finish()), "csv"))))
    (gap,) = [row for row in rows if row["metric"] == "gap"]
    assert float(gap["value"]) < -0.3 and float(gap["low"]) < float(gap["high"]) < 0


def test_markdown_shows_the_title_and_every_name_as_they_are(report: Report) -> None:
    text = render(report, "markdown")
    assert text.startswith("## =HYPERLINK(A1)\\<script\\>alert(1)\\</script\\>\\|")
    plain = text.replace("<sup>", "").replace("</sup>", "")
    assert not re.search(r"(?<!\\)[<>`$&]", plain)
    assert not re.search(r"(?<!\\)\]\(", text)  # no link
    widths = {}
    for block in re.split(r"\n\n+", text):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        if rows:
            widths[rows[0]] = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert widths and all(len(width) == 1 for width in widths.values())


def test_latex_runs_no_command_of_a_name(report: Report) -> None:
    text = render(report, "latex")
    body = text.replace(COMMANDS, "").partition(r"\makeatother")[2]  # before it, comments
    assert r"\input" not in body and r"\textbackslash{}" in body
    head = text.partition(r"\makeatletter")[0]
    assert all(line.startswith("%") for line in head.strip().splitlines())
    assert not re.search(r"(?<!\\)[#$]", body) and "^^" not in body
    assert all(
        not re.search(r"(?<!\\)%.", line) for line in body.splitlines() if not line.startswith("%")
    )


class Tags(html.parser.HTMLParser):
    """Collect tags, attributes, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts = 0
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_holds_no_markup_of_a_name(report: Report, tmp_path: Path) -> None:
    write_page(report, tmp_path, figures="none")
    text = (tmp_path / PAGE).read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.scripts == 1 and not any(name.startswith("on") for name in tags.attributes)
    assert "a" in tags.names and "javascript:" not in "".join(re.findall(r'href="[^"]*"', text))
    assert is_safe(text) and any(MARKUP in data for data in tags.text)


def test_json_holds_the_texts_themselves(report: Report) -> None:
    value = json.loads(render(report, "json"))
    assert value["title"] == f"{FORMULA}{MARKUP}{LATEX}{CONTROL}"


def test_nothing_commands_the_terminal(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in file_names():
        assert collect_results.main([str(hostile), "--format", form, "--tables-only"]) == 0
    assert sweep.main(["status", str(hostile), "--once"]) == 1
    assert sweep.main(["retry", str(hostile)]) == 0
    captured = capsys.readouterr()
    assert is_safe(captured.out) and is_safe(captured.err)
    assert "HYPERLINK" in captured.out


def damaged(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with four kinds of damage, and a text for each that every format must contain."""
    fake = FakeSweep(tmp_path)
    world = World(size=60)
    keys = fake.add(world, ERM)
    others = fake.add(world, DRO)
    folder = fake.finish()
    runs = folder / "runs"
    text = (runs / keys[0] / "record.json").read_text()
    (runs / keys[0] / "record.json").write_text(
        text.replace('"parameters": 12345', '"parameters": "many"')
    )
    (runs / others[0] / "predictions.npz").write_bytes(b"PK")
    (runs / others[1] / "failure.json").write_text("{")
    (runs / others[1] / "record.json").unlink()
    plan = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**plan, "created": "yesterday"}))
    messages = [
        f"{keys[0]} (record.json is damaged: parameters is 'many', expected a whole number)",
        "predictions.npz is damaged",
        "failure.json is not JSON",
        "sweep.json is damaged: created is 'yesterday', expected a finite number",
    ]
    return folder, messages


def test_every_format_names_every_damage(tmp_path: Path) -> None:
    folder, messages = damaged(tmp_path)
    report = make_report(folder)
    write_page(report, tmp_path, figures="none")
    texts = {form: render(report, form) for form in file_names()}
    texts["html"] = html.unescape((tmp_path / PAGE).read_text())
    texts["markdown"] = texts["markdown"].replace("\\", "")
    texts["latex"] = re.sub(r"\\allowbreak\{\}|\{-\}", "", texts["latex"])
    for word in (r"\textquotesingle{}", r"\_"):
        texts["latex"] = texts["latex"].replace(word, "'" if "quote" in word else "_")
    for form, text in texts.items():
        flat_text = " ".join(text.replace("\n    ", " ").split())
        for sentence in messages:
            assert sentence in flat_text, f"{form}: {sentence}"


def test_notes_on_other_benchmarks_are_in_every_format(tmp_path: Path) -> None:
    found = ForeignResults(
        "DomainBed", [Score("PACS", "s", "ERM", "A", {0: 0.5})], 1, ["3 torn lines"]
    )
    made = sheets(found)
    for form in file_names():
        assert "3 torn lines" in render_sheets(made, form)
    for path in write_sheets(made, tmp_path, flat_records(found)):
        assert "3 torn lines" in path.read_text()
