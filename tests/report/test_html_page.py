"""Test that the HTML page is complete, escaped and self-contained, also in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from benchmark.report.figures.summary_plots import SavedFigure
from benchmark.report.html import runs
from benchmark.report.html.parts import inline_svg
from benchmark.report.render import write_all, write_page
from benchmark.report.report import make_report
from benchmark.report.tables.finding import finding
from benchmark.report.tables.report_table import ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.hostile_names import HOSTILE_NAMES, sweep_with_hostile_names
from tests.support.messages import mentions

WORLD = World(size=60)
_VOID = {"meta", "img", "br", "line", "path", "polyline", "hr", "input"}


class Checker(HTMLParser):
    """Check that tags are closed in order, and collect texts, addresses and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")
        ]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def checked(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text())
    checker.close()
    assert checker.open == []
    return checker


def test_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, draws=(0, 1))
    fake.add(WORLD, DRO, trials=(0,))
    fake.add(WORLD, Method("broken"), state="failed")
    fake.add(WORLD, Method("waiting"), state="pending")
    fake.refuse(WORLD, "isnet", "needs masks")
    fake.add(
        World("second", size=60, stand_in=True, splits=("test",), confounders=False),
        ERM,
        trials=(0,),
    )
    folder = fake.finish()
    report = make_report(folder, options=ReportOptions(reference="erm", tables=("class_scores",)))
    message = write_page(report, folder)
    assert "report.html, 6 figures" in message and len(list((folder / "figures").iterdir())) == 12
    page = checked(folder / "report.html")
    files = {f"figures/{path.name}" for path in (folder / "figures").iterdir()}
    assert all(a.startswith("#") or a in files for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    text = " ".join(page.texts)
    for part in (
        "broken",
        "waiting",
        "refused: needs masks",
        "NaN at step 30",
        "Stand-in data",
        "batch_size = 64",
        "against erm",
        "cost",
        "3,200 images/s",
        "best of 2 draws",
    ):
        assert part in text, part
    assert sum(i.startswith("run-") for i in page.ids) == 5
    content = (folder / "report.html").read_text()
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r"base64,[^\"]*", "", content))
    assert content.count("<svg") > 6 and "<img" not in content


def test_the_finding_comes_first_and_details_are_folded(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO)
    fake.add(WORLD, Method("broken"), state="failed")
    folder = fake.finish()
    report = make_report(folder, options=ReportOptions(reference="erm"))
    report.command = "python -m benchmark.collect_results <demo>"
    write_all(report, folder)
    report.sweep.config = {"name": "demo", "trials": [0, 1, 2], "override": {"erm": {"lr": 0.5}}}
    write_page(report, folder)
    content = (folder / "report.html").read_text()
    order = [
        finding(report.tables[0])[:40],
        "collect_results &lt;demo&gt;",
        "trials = [0, 1, 2]",
        'aria-label="Accuracy and worst group',
        'class="sortable cards"',
        'aria-label="Learning curves',
        'id="side"',
        'id="runs"',
    ]
    places = [content.index(part) for part in order]
    assert places == sorted(places)
    unfolded = content
    while "<details" in unfolded:  # the innermost ones first
        unfolded = re.sub(
            r"<details[^>]*><summary>((?!<details).)*?</details>", "", unfolded, flags=re.DOTALL
        )
    for part in ("against erm", "Learning curves", "batch_size", 'data-label="state"', "<pre"):
        assert part in content and part not in unfolded, part
    assert "Accuracy and worst group" in unfolded and "sortable" in unfolded
    for name in ("tables.tex", "tables.csv", "figures/accuracy_worst_group_1.pdf"):
        assert f'<a href="{name}">' in content and (folder / name).exists()
    average = report.tables[0].rows[0].values[0].estimate.value
    assert average is not None
    assert re.search(rf"</svg>erm: average {100 * average:.1f} ± [\d.]+ %, worst", content)


def test_the_policy_allows_the_script_of_the_page_alone(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    folder = fake.finish()
    write_page(make_report(folder), folder, figures="none")
    content = (folder / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", content, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in content
    assert not re.search(r"\son\w+=", content), "the policy forbids attributes with scripts"


def test_figures_of_a_page_share_no_ids() -> None:
    svg = (
        '<svg width="1"><metadata><a/></metadata><defs><path id="p"/></defs>'
        '<g id="series-2"><use href="#p" clip-path="url(#c)" style="fill: #000000"/></g></svg>'
    )
    drawn = [
        inline_svg(SavedFigure("name", title, "", svg.replace("1", title), adapts=title == "2"))
        for title in ("1", "2")
    ]
    ids = [re.findall(r'id="([^"]*)"', each) for each in drawn]
    assert len({*ids[0], *ids[1]}) == 2
    for each, (own,) in zip(drawn, ids, strict=True):
        assert f'href="#{own}"' in each and f"url(#{own[:-1]}c)" in each
        assert 'class="series-2"' in each and "metadata" not in each
    assert "#000000" in drawn[0] and "fill: currentColor" in drawn[1]


def test_ugly_names_are_text(tmp_path: Path) -> None:
    folder = sweep_with_hostile_names(tmp_path)
    report = make_report(folder)
    attack = '<script>alert("x")</script><img src=x onerror=alert(1)>'
    report.sweep.title = attack
    report.sweep.notes.append(attack)
    report.tables[0].rows[0].label = attack
    write_page(report, folder, figures="none")
    page = checked(folder / "report.html")
    assert page.tags["script"] == 1 and "img" not in page.tags
    text = " ".join(page.texts)
    assert attack in text
    for name in HOSTILE_NAMES[1:6]:
        assert " ".join("".join(c if c.isprintable() else " " for c in name).split()) in text


def test_tracebacks_and_their_text(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    key = fake.add(WORLD, ERM, trials=(0,), state="failed")[0]
    folder = fake.finish()
    path = folder / "runs" / key / "failure.json"
    path.write_text(
        json.dumps(
            {**json.loads(path.read_text()), "traceback": "Traceback:\n  File <x>\n    y & z"}
        )
    )
    write_page(make_report(folder), folder, "none")
    assert (
        "Traceback:\n  File &lt;x&gt;\n    y &amp; z</pre>" in (folder / "report.html").read_text()
    )
    checked(folder / "report.html")


def test_thousands_of_runs_do_not_make_a_page_nobody_can_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.report.html.page.MAX_RUNS_SHOWN", 4)
    monkeypatch.setattr(runs, "MAX_RUNS_SHOWN", 4)
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=range(3))
    fake.add(World("second", size=60), ERM, trials=range(3))
    folder = fake.finish()
    write_page(make_report(folder), folder, figures="none")
    page = checked(folder / "report.html")
    assert sum(i.startswith("run-") for i in page.ids) == 4
    assert any(text.startswith("2 more") for text in page.texts)


def test_figures_are_drawn_unasked_only_where_that_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.report.render.FIGURE_RUNS", 1)
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=range(2))
    folder = fake.finish()
    message = write_page(make_report(folder), folder)
    assert mentions(message, "report.html", "1 data sets", "--figures all")
    assert not (folder / "figures").exists() and (folder / "report.html").exists()


def test_a_student_shows_its_teacher_and_the_teachers_scores(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (teacher,) = fake.add(
        WORLD, Method("segment_classify", 0.97, 0.9, ("masks",), requested=False), trials=(0,)
    )
    (student,) = fake.add(WORLD, Method("tea"), trials=(0,), upstream={"teacher": teacher})
    folder = fake.finish()
    write_page(make_report(folder), folder, "none")
    page = (folder / "report.html").read_text()
    record = json.loads((folder / "runs" / teacher / "record.json").read_text())["selected"][
        "val_accuracy"
    ]
    counts = np.array(record["splits"]["deceiving"]["counts"])
    accuracy = f"deceiving {100 * np.einsum('zll->', counts) / counts.sum():.1f} %"
    assert (
        f"segment_classify ({teacher}), step {record['step']}; accuracy: " in page
        and accuracy in page
    )
    table, _, runs_part = page.partition('id="runs"')
    assert "segment_classify (upstream)" in runs_part and "teacher: segment_classify" in table
    assert "segment_classify (upstream)" not in table and "masks = " not in table
    write_page(make_report(folder, options=ReportOptions(upstream=True)), folder, "none")
    table = (folder / "report.html").read_text().partition('id="runs"')[0]
    assert "segment_classify (upstream)" in table and "masks = " in table
    path = folder / "runs" / student / "record.json"
    torn = json.loads(path.read_text())
    torn["upstream"]["teacher"]["selected"] = {"val_accuracy": 3}
    path.write_text(json.dumps(torn))
    write_page(make_report(folder), folder, "none")
    assert f"{teacher}; its scores are not in record.json" in (folder / "report.html").read_text()


def test_columns_that_say_nothing_new_are_named_in_the_caption(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    fake.add(WORLD, Method("irm", 0.9, 0.8))
    folder = fake.finish()
    write_page(make_report(folder), folder, "none")
    page = (folder / "report.html").read_text()
    assert 'data-label="needs"' not in page and 'data-label="method"' in page
    assert "The same in all rows: needs: none." in page


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)

_PROBE = """<script>
addEventListener("load", () => {
  const table = document.querySelector("table.sortable");
  const column = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.startsWith("gap"));
  const order = () => [...table.tBodies[0].rows].map(r => r.cells[0].textContent);
  const button = table.tHead.rows[0].cells[column].querySelector("button");
  const found = {plain: order()};
  button.click(); found.ascending = order();
  button.click(); found.descending = order();
  const shown = part => getComputedStyle(part).display !== "none";
  const section = table.closest("section");
  const box = section.querySelector(".controls input[value='0']");
  box.click();
  found.hidden = ["tr[data-series='0']", ".series-0"].map(
    parts => ![...section.querySelectorAll(parts)].some(shown));
  box.click();
  found.shown = shown(section.querySelector("tr[data-series='0']"));
  section.querySelector("input[value='interval']").click();
  found.spread = [".sd", ".interval"].map(part => shown(table.querySelector(part)));
  section.querySelector("input[value='both']").click();
  const drawing = section.querySelector(".drawing");
  drawing.querySelector(".enlarge").click();
  found.enlarged = document.querySelector("dialog[open] svg") !== null;
  document.querySelector("dialog").click();
  found.sort = table.tHead.rows[0].cells[column].getAttribute("aria-sort");
  for (const d of document.querySelectorAll("details")) d.open = true;
  found.width = document.documentElement.scrollWidth;
  found.inner = innerWidth;
  found.images = [...document.querySelectorAll(".drawing svg")].map(
    i => i.getBoundingClientRect().width > 100);
  parent.postMessage(JSON.stringify(found), "*");
});
</script></body>"""
_FRAME = """<body><script>
addEventListener("message", e => { document.body.textContent = "FOUND" + e.data + "END"; });
</script><iframe src="probe.html" style="width:360px;height:800px;border:0"></iframe></body>"""


@pytest.mark.very_slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_in_a_browser_at_phone_width(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, Method("bad", 0.95, 0.1), trials=(0, 1))
    fake.add(WORLD, Method("broken"), state="failed")
    fake.add(WORLD, Method("good", 0.9, 0.85), trials=(0, 1))
    fake.add(WORLD, Method("a_name_without_any_space_" * 4, 0.9, 0.5), trials=(0, 1))
    folder = fake.finish()
    write_page(make_report(folder, options=ReportOptions(tables=("class_scores",))), folder)
    page = (folder / "report.html").read_text().replace("</body>", _PROBE)
    page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page)  # for the probe
    (tmp_path / "probe.html").write_text(page)
    (tmp_path / "frame.html").write_text(_FRAME)
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = json.loads(dom.partition("FOUND")[2].partition("END")[0])
    assert found["inner"] == 360 and found["width"] <= 360, "the page scrolls sideways on a phone"
    long = "a_name_without_any_space_" * 4
    assert found["plain"] == ["bad", "brokena", "good", long]
    assert found["ascending"] == [
        "good",
        long,
        "bad",
        "brokena",
    ]  # without a value: last, whichever way
    assert found["descending"] == ["bad", long, "good", "brokena"] and found["sort"] == "descending"
    assert found["images"] and all(found["images"])
    assert found["hidden"] == [True, True] and found["shown"]
    assert found["spread"] == [False, True] and found["enlarged"]
