"""Comparisons against few dense lines, and which methods are starred."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmark.core.errors import UserError
from benchmark.report.render import render
from benchmark.report.report import make_report
from benchmark.report.statistics.stratified_mean import crossed_variance
from benchmark.report.tables.against_reference import (
    ReferenceComparison,
    json_comparisons,
    probability,
)
from benchmark.report.tables.report_table import Report, ReportOptions
from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World

WORLD = World(size=200)


def report_of(folder: Path, reference: str = "erm") -> Report:
    return make_report(folder, options=ReportOptions(reference=reference))


def family(report: Report, metric: str) -> ReferenceComparison:
    return next(f for f in report.comparisons if f.column.name == metric)


def right(report: Report, method: str, split: str) -> np.ndarray:
    row = next(r for r in report.tables[0].rows if r.method == method)
    found = report.store.matrix(row.selected_runs, split)
    assert found is not None
    return found


def test_one_trial_is_the_paired_contrast(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    fake.add(WORLD, DRO, trials=(0,))
    report = report_of(fake.finish())
    z = (right(report, "group_dro", "unbiased") - right(report, "erm", "unbiased"))[0]
    (found,) = family(report, "average_accuracy").found
    assert found.difference.value == pytest.approx(z.mean())
    assert found.difference.sd == pytest.approx(z.std(ddof=1) / math.sqrt(len(z)))
    n10, n01 = int((z > 0).sum()), int((z < 0).sum())
    exact = sum(math.comb(n10 + n01, k) for k in range(min(n10, n01) + 1)) * 2 / 2 ** (n10 + n01)
    assert found.p == pytest.approx(min(1.0, exact))
    z = (
        right(report, "group_dro", "biased") - right(report, "group_dro", "deceiving")
        - right(report, "erm", "biased") + right(report, "erm", "deceiving")
    )[0]  # fmt: skip
    (gap,) = family(report, "gap").found
    assert gap.difference.value == pytest.approx(z.mean()) and z.mean() < 0
    assert gap.difference.sd == pytest.approx(z.std(ddof=1) / math.sqrt(len(z)))
    assert gap.p_better is not None and gap.p_better > 0.99  # a smaller gap is better


def test_several_trials_are_crossed(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1, 2, 5))
    fake.add(WORLD, DRO, trials=(0, 1, 2, 7))
    report = report_of(fake.finish())
    z = (right(report, "group_dro", "biased") - right(report, "erm", "biased"))[:3]
    expected = crossed_variance(z)
    (found,) = family(report, "biased_accuracy").found
    assert expected.error is not None and found.p is not None
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (expected.low, expected.high)
    )
    assert found.p == pytest.approx(expected.error.p_value(z.mean()))
    assert (found.p < 0.05) == (found.difference.low > 0 or found.difference.high < 0)  # type: ignore[operator]
    assert (found.trials, found.difference.value) == (3, pytest.approx(z.mean()))
    assert found.difference.sd == pytest.approx(expected.sd)
    (worst,) = family(report, "worst_group_accuracy").found
    rows = {row.method: row.values[1].per_trial for row in report.tables[0].rows}
    d = np.array([rows["group_dro"][t] - rows["erm"][t] for t in (0, 1, 2)])  # type: ignore[index]
    assert worst.difference.value == pytest.approx(d.mean())
    sampling = sum(worst_variance(report, method) for method in ("group_dro", "erm"))
    assert worst.difference.sd == pytest.approx(math.sqrt(d.var(ddof=1) / 3 + sampling))
    assert "group by group" in worst.difference.kind


def worst_variance(report: Report, method: str) -> float:
    """Return the mean of p(1 − p)/n of the worst group with two correct and two wrong images."""
    row = next(row for row in report.tables[0].rows if row.method == method)
    found = []
    for selected_run in row.selected_runs[:3]:
        cells = [
            (int(counts[label, label]), int(counts[label].sum()))
            for counts in selected_run.at.counts["unbiased"]
            for label in range(len(counts))
        ]
        right, total = min((cell for cell in cells if cell[1]), key=lambda cell: cell[0] / cell[1])
        p = (right + 2) / (total + 4)
        found.append(p * (1 - p) / total)
    return sum(found) / len(found)


def test_unpaired_gap_is_twice_a_stratified_mean(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM)
    folder = fake.finish()
    for path in folder.glob("runs/*/predictions.npz"):
        with np.load(path) as file:
            arrays = {name: value for name, value in file.items() if not name.endswith("pair_id")}
        np.savez(path, **arrays)
    report = make_report(folder)
    (row,), columns = report.tables[0].rows, report.tables[0].columns
    found = columns[-1].per_image(row.selected_runs, report.store)
    assert found is not None and found.stratum is not None
    z, stratum = found.values, found.stratum
    assert (z[:, stratum == 0].mean() + z[:, stratum == 1].mean()) / 2 == pytest.approx(
        row.values[-1].estimate.value
    )
    assert (
        row.values[-1].estimate.low < row.values[-1].estimate.value < row.values[-1].estimate.high
    )  # type: ignore[operator]


def test_without_predictions_the_images_count_as_if_they_were_different(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path, predictions=False)
    fake.add(WORLD, ERM)
    fake.add(WORLD, DRO)
    report = report_of(fake.finish())
    (found,) = family(report, "average_accuracy").found
    a, b = (row.values[0].per_trial for row in report.tables[0].rows)
    d = np.array([b[t] - a[t] for t in (0, 1, 2)])  # type: ignore[index]
    images = sum(sampling_variance(report, method) for method in ("erm", "group_dro"))
    assert found.difference.sd == pytest.approx(math.sqrt(d.var(ddof=1) / 3 + images))
    half = math.sqrt(stats.t.ppf(0.975, 2) ** 2 * d.var(ddof=1) / 3 + 1.959964**2 * images)
    assert found.difference.high == pytest.approx(d.mean() + half)


def sampling_variance(report: Report, method: str) -> float:
    """Return the mean of p(1 − p)/n with one more correct and one more wrong image per class."""
    row = next(row for row in report.tables[0].rows if row.method == method)
    found = []
    for run in row.selected_runs:
        table = run.at.counts["unbiased"].sum(0)
        size = table.sum(1)
        cell = (table + 1) * (size / (size + 2))[:, None]
        p = np.trace(cell) / cell.sum()
        found.append(p * (1 - p) / size.sum())
    return float(np.mean(found))


def test_identical_methods_and_methods_without_a_common_trial(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1))
    fake.add(WORLD, Method("mre"), trials=(0, 1))  # same chances, same seeds: the same answers
    fake.add(WORLD, Method("elsewhere"), trials=(4,))
    report = report_of(fake.finish())
    same, other = family(report, "average_accuracy").found
    assert (same.difference.value, same.p, same.p_better) == (0.0, 1.0, None)
    assert other.difference.value is None and other.p is None
    text = render(report, "text")
    assert "nan" not in text.lower() and "the two agree on all 200 images" in text


def test_stars(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    for method in (
        ERM,
        DRO,
        Method("twin_of_dro", 0.9, 0.8),
        Method("teacher", 1.0, 1.0, requested=False),
    ):
        fake.add(WORLD, method)
    table = make_report(fake.finish()).tables[0]
    stars = {row.method: [value.best for value in row.values] for row in table.rows}
    average = [c.name for c in table.columns].index("average_accuracy")
    assert stars["erm"][average] is False
    assert stars["group_dro"][average] is True and stars["twin_of_dro"][average] is True
    assert set(stars["teacher"]) == {None}  # it only serves others: it does not compete
    biased = [c.name for c in table.columns].index("biased_accuracy")
    assert stars["erm"][biased] is True


def test_nothing_is_starred_where_nothing_can_be_tested(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0,))
    fake.add(WORLD, DRO, trials=(1,))
    table = make_report(fake.finish()).tables[0]
    assert {value.best for row in table.rows for value in row.values} == {None}


@pytest.mark.parametrize("methods", [2, 4])
def test_all_pairs_are_paid_for(tmp_path: Path, methods: int) -> None:
    """The smallest p-value of a column is multiplied by the number of pairs before it is tested."""
    fake = FakeSweep(tmp_path)
    for method in (ERM, DRO, Method("a", 0.9, 0.65), Method("bc", 0.9, 0.5))[:methods]:
        fake.add(WORLD, method, trials=(0,))
    table = make_report(fake.finish()).tables[0]
    best = max(table.rows, key=lambda row: row.values[0].estimate.value or 0.0)
    found = family(report_of(fake.folder, best.method), "average_accuracy").found
    pairs = methods * (methods - 1) / 2
    rows = [row for row in table.rows if row is not best]
    smallest = min(range(len(found)), key=lambda i: found[i].p or 0.0)
    p = found[smallest].p
    assert p is not None and rows[smallest].values[0].best == (min(1.0, p * pairs) >= 0.05)


def test_holm_is_within_data_set_and_metric(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    for method in (ERM, DRO, Method("a", 0.9, 0.5), Method("bc", 0.9, 0.35)):
        fake.add(WORLD, method, trials=(0,))
    found = family(report_of(fake.finish()), "average_accuracy").found
    p = sorted(c.p for c in found)  # type: ignore[type-var]
    expected = [min(1.0, max((3 - k) * p[k] for k in range(i + 1))) for i in range(3)]  # type: ignore[operator]
    assert sorted(c.p_holm for c in found) == pytest.approx(expected)  # type: ignore[type-var]


def test_an_unknown_reference(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, DRO, trials=(0,))
    with pytest.raises(UserError, match="did you mean group_dro"):
        report_of(fake.finish(), "groupdro")


def test_probabilities_are_never_a_false_certainty() -> None:
    assert [probability(p) for p in (None, 0.0, 0.0004, 0.05, 0.5, 0.9996, 1.0)] == [
        "–", "<0.001", "<0.001", "0.050", "0.50", ">0.999", "1.000",
    ]  # fmt: skip


def test_one_trial_has_no_probability_of_equality(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1))
    fake.add(WORLD, DRO, trials=(0, 1))
    fake.add(WORLD, Method("gain", 0.9, 0.5), trials=(1,))
    report = report_of(fake.finish())
    both, single = family(report, "average_accuracy").found
    assert (both.trials, single.trials) == (2, 1)
    assert both.p_equivalent is not None and single.p_equivalent is None
    assert both.p_better is not None and single.p_better is not None
    (sheet,) = report.sheets[:1]
    caption = " ".join(sheet.caption)
    assert "P(equal) is left out with 1 trial" in caption
    assert sheet.rows[2][3] == "–" and sheet.rows[1][3] != "–"


def test_credible_differences_are_those_of_the_hierarchical_model(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1, 2))
    fake.add(WORLD, DRO, trials=(0, 1, 2))
    options = ReportOptions(reference="erm")
    report = make_report(fake.finish(), spread="credible", options=options)
    sheet = report.sheets[0]
    for metric, is_normal in (("average_accuracy", True), ("worst_group_accuracy", False)):
        (found,) = family(report, metric).found
        heading = " ".join(family(report, metric).column.title)
        cell = sheet.rows[sheet.rows.index([heading]) + 1][1]
        assert is_normal == (found.posterior is not None)
        shown = found.posterior or found.difference
        assert cell.startswith(
            f"+{100 * (shown.value or 0.0):.1f} ± {100 * (shown.sd or 0.0):.1f} ["
        )
    (found,) = family(report, "average_accuracy").found
    assert found.posterior is not None and found.p_better is not None
    posterior, plain = found.posterior, found.difference
    assert abs(posterior.value or 0.0) < abs(plain.value or 0.0)  # drawn towards zero
    assert (posterior.low or 0.0) > 0.0 or found.p_better < 0.975
    record = json_comparisons(report.comparisons)[0]
    assert record["posterior"] == {
        "mean": posterior.value,
        "sd": posterior.sd,
        "low": posterior.low,
        "high": posterior.high,
    }


def test_the_gap_has_a_wider_prior_that_the_caption_names(tmp_path: Path) -> None:
    fake = FakeSweep(tmp_path)
    fake.add(WORLD, ERM, trials=(0, 1))
    fake.add(WORLD, DRO, trials=(0, 1))
    report = report_of(fake.finish())
    gap = family(report, "gap").column
    average = family(report, "average_accuracy").column
    assert gap.method_sd == 2.0 * average.method_sd
    expected = f"about {100 * average.method_sd:g} (gap: {100 * gap.method_sd:g}) points"
    assert expected in " ".join(report.sheets[0].caption)
