"""Test that the HTML page is complete, escaped and self-contained, also in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from benchmark.report.html import runs
from benchmark.report.render import write_page
from benchmark.report.report import make_report
from benchmark.report.tables.report_table import ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.hostile_names import HOSTILE_NAMES, sweep_with_hostile_names

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
    assert all(a.startswith(("#", "data:image/svg+xml;base64,")) for a in page.addresses)
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
    assert message == "report.html; 1 data sets without figures (--figures all draws them)"
    assert not (folder / "figures").exists() and (folder / "report.html").exists()


def test_a_student_shows_its_teacher_and_the_teachers_scores(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    (teacher,) = fake.add(
        WORLD, Method("segment_classify", 0.97, 0.9, requested=False), trials=(0,)
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
    assert "segment_classify (upstream)" in page and "teacher: segment_classify" in page
    path = folder / "runs" / student / "record.json"
    torn = json.loads(path.read_text())
    torn["upstream"]["teacher"]["selected"] = {"val_accuracy": 3}
    path.write_text(json.dumps(torn))
    write_page(make_report(folder), folder, "none")
    assert f"{teacher}; its scores are not in record.json" in (folder / "report.html").read_text()


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
  found.sort = table.tHead.rows[0].cells[column].getAttribute("aria-sort");
  for (const d of document.querySelectorAll("details")) d.open = true;
  found.width = document.documentElement.scrollWidth;
  found.inner = innerWidth;
  found.images = [...document.images].map(i => i.naturalWidth > 0);
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
