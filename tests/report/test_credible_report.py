"""Test credible intervals in every table and format, and captions that say what a cell is."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmark.collect_results import main
from benchmark.report.formats.report_format import file_names
from benchmark.report.html.page import page
from benchmark.report.render import SPREADS, render
from benchmark.report.report import make_report
from benchmark.report.statistics import credible, posterior, posterior_nuts
from benchmark.report.statistics.credible import credible_bounds, recall_posterior
from benchmark.report.statistics.plug_in import plug_in
from benchmark.report.statistics.posterior import (
    accuracy_credible,
    closed_form,
    confusion_posterior,
    sampled_moments,
)
from benchmark.report.tables.caption import CREDIBLE_COVERAGE
from benchmark.report.tables.class_scores import detail_sheets
from benchmark.report.tables.localization import localization_sheet
from benchmark.report.tables.numbers import percent
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.published import beside
from benchmark.report.tables.report_table import Report, ReportOptions
from benchmark.report.tables.results_table import Table, tables_of
from benchmark.report.tables.sheet import Sheet
from tests.benchmarks.coverage_settings import equal
from tests.benchmarks.simulated_sweeps import CRITERION, Simulator
from tests.benchmarks.simulated_sweeps import World as Simulated
from tests.report.test_localization import add_heatmaps
from tests.support.fake_sweep import DRO, ERM, FakeSweep, World

CELL = re.compile(r"(-?[\d.]+) ± ([\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]")
DETAIL = ReportOptions(tables=("class_scores",))


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """Draw fewer samples, which is enough for printed bounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credible, "DRAWS", 20_000)
        patch.setattr(posterior, "MINIMUM_DRAWS", 20_000)
        patch.setattr(posterior, "TARGET_ERROR", 1e-3)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Sweeps of one trial, of three, and of both."""
    root = tmp_path_factory.mktemp("credible")
    found = {}
    for name, trials in (
        ("one", ((0,), (0,))),
        ("three", ((0, 1, 2),) * 2),
        ("both", ((0,), (0, 1, 2))),
    ):
        fake = FakeSweep(root, name)
        for method, numbers in zip((ERM, DRO), trials, strict=True):
            fake.add(World(size=120, classes=3), method, trials=numbers)
        found[name] = fake.finish()
    return found


@pytest.fixture(scope="module")
def report(folders: dict[str, Path]) -> Report:
    return make_report(folders["one"], spread="credible", options=DETAIL)


def numbers_of(text: str) -> list[float]:
    found = CELL.search(text)
    assert found, text
    return [float(number) for number in found.groups()]


def test_cells_are_the_posterior_of_the_counts(report: Report) -> None:
    (table,) = report.tables
    for row in table.rows:
        counts = row.selected_runs[0].at.counts["unbiased"].sum(0)
        expected = accuracy_credible(counts)
        assert row.values[0].shown("credible") == expected
        assert row.values[0].estimate.value == np.trace(counts) / counts.sum()
        assert row.values[0].shown("interval") == row.values[0].estimate
    paired = table.rows[0].values[-1].posterior
    assert paired is not None and paired.is_posterior
    assert table.columns[-1].name == "gap"


def test_every_format_prints_the_same_numbers(report: Report) -> None:
    (table,) = report.tables
    estimate = table.rows[0].values[0].posterior
    assert estimate is not None and estimate.value is not None and estimate.sd is not None
    number, sd = percent(estimate.value, 1), percent(estimate.sd, 1)
    for form in ("text", "markdown"):
        line = next(x for x in render(report, form).splitlines() if re.match(r"(\| )?erm", x))
        shown = numbers_of(line.replace("\\", ""))
        assert shown[:2] == [float(number), float(sd)]
        assert shown[2] <= 100 * (estimate.low or 0) and shown[3] >= 100 * (estimate.high or 1)
        bracket = f"[{shown[2]}, {shown[3]}]"
    latex = render(report, "latex")
    assert re.search(rf"{number}\}}? & \S*pm\S*{sd} ", latex)
    row = next(csv.DictReader(io.StringIO(render(report, "csv"))))
    fields = ("posterior_mean", "posterior_sd", "credible_low", "credible_high")
    expected = [estimate.value, estimate.sd, estimate.low, estimate.high]
    assert [float(row[name]) for name in fields] == expected
    value = json.loads(render(report, "json"))["tables"][0]["rows"][0]["values"]
    assert list(value["average_accuracy"]["posterior"].values()) == expected
    assert value["worst_group_accuracy"]["posterior"] is None
    shown_page = " ".join(re.sub(r"<[^>]*>", " ", html.unescape(page(report, {}))).split())
    assert f"{number} ± {sd}" in shown_page and bracket in shown_page


def uses_posterior(table: Table, spread: str) -> bool:
    """Return whether a cell prints the mean or the sd of a posterior."""
    shown = [value.shown(spread) for row in table.rows for value in row.values]
    if spread == "interval":
        return any("posterior" in estimate.kind for estimate in shown)
    return any(estimate.is_posterior and estimate.value is not None for estimate in shown)


@pytest.mark.parametrize("trials", ["one", "three", "both"])
@pytest.mark.parametrize("spread", SPREADS)
def test_captions_speak_of_posteriors_only_where_a_cell_is_one(
    folders: dict[str, Path], trials: str, spread: str
) -> None:
    (table,) = make_report(folders[trials], spread=spread).tables
    caption = " ".join(table.full_caption(spread)).lower()
    assert ("posterior" in caption) == uses_posterior(table, spread)
    has_credible = spread == "credible" and trials != "three"
    assert (CREDIBLE_COVERAGE in table.notes) == has_credible
    assert any(value.posterior for row in table.rows for value in row.values) == has_credible


def test_the_caption_names_the_columns_without_a_posterior(report: Report) -> None:
    (table,) = report.tables
    sentence = next(x for x in table.full_caption("credible") if x.startswith("Without posterior"))
    without = [
        " ".join(column.title)
        for i, column in enumerate(table.columns)
        if all(row.values[i].posterior is None for row in table.rows)
    ]
    assert len(without) == 1 and "worst group" in without[0]
    assert sentence.rstrip(".").rpartition(": ")[2].split(", ") == without


@pytest.mark.parametrize("world", [Simulated((60,), labels=3), Simulated((40, 40), patients=12)])
def test_dependent_answers_have_no_posterior(tmp_path: Path, world: Simulated) -> None:
    simulator = Simulator(tmp_path, world, equal(2, 0.8, world), 1)
    sweep, store, _ = simulator.load(np.random.default_rng(0))
    posteriors = Posteriors(credible=True)
    (table,) = tables_of(sweep, CRITERION, store, posteriors, own=True)
    assert all(row.values[0].posterior is None for row in table.rows)
    caption = " ".join(table.full_caption("credible")).lower()
    assert "posterior" not in caption and "standard error over images" in caption
    sheets = detail_sheets(table, store, posteriors, spread="credible")
    if world.patients:
        assert any("patient" in note for note in sheets[0].notes)
    else:
        assert "posterior" not in sheets[0].caption[0] and "posterior" in sheets[1].caption[0]


def named(report: Report, ending: str) -> Sheet:
    return next(sheet for sheet in report.sheets if sheet.title.endswith(ending))


def test_class_scores_and_groups_are_posteriors(report: Report) -> None:
    run = report.tables[0].rows[0].selected_runs[0]
    counts = run.at.counts["unbiased"]
    table = counts.sum(0)
    whole = confusion_posterior(table)
    overall, per_class, per_group = (
        named(report, end) for end in ("more scores", "per class", "per group")
    )
    mean = whole.macro_f1.posterior_mean
    assert numbers_of(overall.rows[0][4])[0] == pytest.approx(100 * (mean or 0.0), abs=0.1)
    low, high = credible_bounds(table, 50_000)["macro_f1"][0]
    assert numbers_of(overall.rows[0][4])[2:] == pytest.approx([100 * low, 100 * high], abs=0.25)
    recall = numbers_of(per_class.rows[1][1])
    assert recall[0] == pytest.approx(100 * (table[0, 0] + 1) / (table[0].sum() + 3), abs=0.051)
    correct, size = counts[0, 0, 0], counts[0, 0].sum()
    group = recall_posterior(int(correct), int(size), 3)
    assert group is not None and group.value is not None and group.sd is not None
    shown = numbers_of(per_group.rows[0][2])
    assert shown[:2] == pytest.approx([100 * group.value, 100 * group.sd], abs=0.051)
    for sheet in (overall, per_class, per_group):
        assert CREDIBLE_COVERAGE in sheet.notes
        assert "posterior mean ± posterior sd" in sheet.caption[0]


def test_details_over_trials_have_no_posterior(folders: dict[str, Path]) -> None:
    sheets = make_report(folders["three"], spread="credible", options=DETAIL).sheets
    for sheet in sheets:
        assert "posterior" not in " ".join([*sheet.caption, *sheet.notes])
    assert len(numbers_of(sheets[0].rows[0][1])) == 4


def test_relevance_has_intervals_over_trials(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    keys = fake.add(World(size=40), ERM, trials=(0, 1, 2))
    folder = fake.finish()
    for trial, key in enumerate(keys):
        add_heatmaps(folder, key, 0.2 + 0.1 * trial)
    sheet = localization_sheet(make_report(folder).tables[0], "credible")
    assert sheet is not None
    mean, sd, low, high = numbers_of(sheet.rows[0][2])
    assert (mean, sd) == (30.0, 10.0) and low < 10.0 and high > 50.0
    caption = " ".join(sheet.caption)
    assert "interval over trials" in caption and "posterior" not in caption


def test_the_command_line_writes_every_format(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folders["both"]), "--spread", "credible", "--out", str(tmp_path)]
    assert main([*arguments, "--figures", "none"]) == 0
    shown = capsys.readouterr().out
    assert CELL.search(shown)
    for name in (*file_names().values(), "report.html"):
        assert (tmp_path / name).stat().st_size > 0
    rows = json.loads((tmp_path / "tables.json").read_text())["tables"][0]["rows"]
    posteriors = [row["values"]["average_accuracy"]["posterior"] for row in rows]
    assert [found is None for found in posteriors] == [False, True]


def test_nuts_is_the_engine_of_all_cells_and_is_checked(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known shift of the accuracy takes the place of sampling, which takes minutes."""
    shift = 0.01

    def moments(table: np.ndarray, draws: int, seed: int) -> tuple:
        found = closed_form(table)
        found |= sampled_moments(table, plug_in(table), 2_000, seed)[0]
        accuracy = found["accuracy"]
        found["accuracy"] = type(accuracy)(
            accuracy.mean + shift, accuracy.sd, accuracy.error, accuracy.sd_error
        )
        return found, credible_bounds(table, 2_000), 4 * draws, 0

    monkeypatch.setattr(posterior_nuts, "nuts_moments", moments)
    options = ReportOptions(engine="nuts")
    (table,) = make_report(folders["one"], spread="credible", options=options).tables
    for row in table.rows:
        exact = accuracy_credible(row.selected_runs[0].at.counts["unbiased"].sum(0))
        found = row.values[0].posterior
        assert found is not None and exact.value is not None
        assert found.value == pytest.approx(exact.value + shift)
    (note,) = [note for note in table.notes if "nuts" in note]
    assert "0 divergences" in note and "within 0.01 of the exact engine" in note


def test_published_values_stand_beside_posteriors(report: Report, tmp_path: Path) -> None:
    rows = [
        "dataset,method,metric,value,pm,n,table,note",
        *(
            f"digits_on_photos,erm,{metric},50,1,100,Table 9,paper: ERM"
            for metric in (
                "average_accuracy",
                "f1/mean",
                "sensitivity/class0",
                "worst_group_accuracy",
            )
        ),
    ]
    (tmp_path / "tea_table9.csv").write_text("\n".join(rows) + "\n")
    (sheet,) = beside(report.tables, tmp_path, report.store, report.posteriors, "credible")
    ours = {sheet.rows[i][0]: sheet.rows[i + 1] for i in range(0, len(sheet.rows), 2)}
    counts = report.tables[0].rows[0].selected_runs[0].at.counts["unbiased"].sum(0)
    shown = accuracy_credible(counts)
    assert shown.value is not None and shown.sd is not None
    mean, sd, low, high = numbers_of(ours["average accuracy"][3])
    assert [mean, sd] == pytest.approx([100 * shown.value, 100 * shown.sd], abs=0.051)
    assert low < mean < high
    difference = float(ours["average accuracy"][4].replace("−", "-"))
    assert difference == pytest.approx(100 * shown.value - 50, abs=0.051)
    recall = numbers_of(ours["sensitivity, class0"][3])[0]
    assert recall == pytest.approx(100 * (counts[0, 0] + 1) / (counts[0].sum() + 3), abs=0.051)
    assert len(numbers_of(ours["f1, mean"][3])) == 4
    assert "±" not in ours["worst group accuracy"][3] and "[" in ours["worst group accuracy"][3]
