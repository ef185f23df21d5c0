"""Test that a report table of another package appears in every format."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.report.report import make_report
from benchmark.report.tables.report_table import (
    REPORT_TABLES,
    ReportOptions,
    ReportTable,
    report_tables,
)
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World

PLUG_IN = """
from benchmark.report.tables.numbers import percent
from benchmark.report.tables.report_table import REPORT_TABLES, ReportTable
from benchmark.report.tables.sheet import Sheet


@REPORT_TABLES.register
class BestTrial(ReportTable):
    name = "best_trial"
    switch = "--best-trial"
    help = "also the best trial of each method"
    json_key = "best_trials"

    def _best(self, table):
        return {row.method: max(row.values[0].per_trial.values()) for row in table.rows}

    def sheet_of(self, table):
        rows = [[method, percent(value, 1)] for method, value in self._best(table).items()]
        heads = [("method",), ("best trial",)]
        return Sheet("Best trials", ["Accuracy of the best trial."], heads, rows)

    def json_records(self, report):
        return [self._best(table) for table in report.tables]

    def csv_records(self, report):
        return [
            {"dataset": table.dataset, "method": method, "metric": "best_trial", "value": value}
            for table in report.tables
            for method, value in self._best(table).items()
        ]


@REPORT_TABLES.register
class Broken(ReportTable):
    name = "broken"

    def sheet_of(self, table):
        raise RuntimeError("no such column")


@REPORT_TABLES.register
class TakenSwitch(ReportTable):
    name = "taken_switch"
    switch = "--out"
"""


def install(folder: Path) -> None:
    """Write a package that declares its tables under the entry-point group."""
    (folder / "best_trials.py").write_text(PLUG_IN)
    information = folder / "best_trials-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: best_trials\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[shortcutbed.report_tables]\nbest_trials = best_trials\n"
    )


def collect(sweep: Path, packages: Path, out: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(packages)])}
    command = [sys.executable, "-m", "benchmark.collect_results", str(sweep), "--out", str(out)]
    subprocess.run(
        [*command, "--figures", "none", *arguments],
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )


def test_table_of_another_package_is_in_every_format(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    install(packages)
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60), ERM)
    fake.add(World(size=60), DRO)
    sweep = fake.finish()
    report = make_report(sweep)
    best = {
        row.method: max((row.values[0].per_trial or {}).values()) for row in report.tables[0].rows
    }
    out = tmp_path / "out"
    collect(sweep, packages, out, "--best-trial")
    for name in ("tables.txt", "tables.tex", "tables.md", "report.html"):
        text = (out / name).read_text()
        assert "Best trials" in text, name
        assert all(f"{100 * value:.1f}" in text for value in best.values()), name
        assert "no such column" in text, name
    document = json.loads((out / "tables.json").read_text())
    assert document["best_trials"] == [best]
    assert [sheet["title"] for sheet in document["sheets"]] == ["Best trials"]
    rows = list(csv.DictReader((out / "tables.csv").open()))
    assert {
        row["method"]: float(row["value"]) for row in rows if row["metric"] == "best_trial"
    } == best

    collect(sweep, packages, tmp_path / "plain")
    document = json.loads((tmp_path / "plain" / "tables.json").read_text())
    assert document["best_trials"] == []
    assert document["sheets"] == []
    assert "Best trials" not in (tmp_path / "plain" / "tables.txt").read_text()


def test_own_tables_that_fail_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ReportTable, table: Table) -> Sheet:
        raise RuntimeError("a bug")

    monkeypatch.setattr(REPORT_TABLES.get("cost"), "sheet_of", fail)
    fake = FakeSweep(tmp_path)
    fake.add(World(size=60), ERM, trials=(0,))
    with pytest.raises(RuntimeError, match="a bug"):
        make_report(fake.finish())


def test_shown_tables_depend_on_the_options() -> None:
    def names(options: ReportOptions) -> set[str]:
        return {table.name for table in report_tables() if table.is_shown(options)}

    always = names(ReportOptions())
    explanations = {"explanations", "explainer_comparisons", "metric_agreement"}
    of_models = {
        "cost",
        "hyperparameters",
        "label_auc",
        "latent_space",
        "localization",
        "sensitivity",
    }
    assert always == of_models | explanations
    assert names(ReportOptions(reference="erm")) == always | {"comparisons"}
    requested = ReportOptions(tables=("class_scores", "published"))
    assert names(requested) == always | {"class_scores", "published"}
