"""Measure what the report prints on simulated sweeps whose true values are known.

    python tests/benchmarks/interval_coverage.py
    python tests/benchmarks/interval_coverage.py --only marks "near 1" --repetitions 1000

Each setting simulates sweeps (``simulated_sweeps.py``), makes the tables of the report and reads
the printed cells: values, brackets, marks and probabilities. A setting replaces its own rows in
docs/coverage.md and keeps the others. All settings take about an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np

from benchmark.core.summaries import DataSummary
from benchmark.report.tables import metric, results_table
from benchmark.report.tables.against_reference import compare_all
from benchmark.report.tables.class_scores import detail_sheets
from benchmark.report.tables.metric import Metric
from benchmark.report.tables.numbers import percent, printer
from benchmark.report.tables.posteriors import Posteriors
from benchmark.report.tables.results_table import Table, tables_of
from benchmark.report.tables.sheet import Sheet
from tests.benchmarks.coverage_settings import Kind, Setting, settings
from tests.benchmarks.simulated_sweeps import (
    CRITERION,
    Simulator,
    true_auc,
    true_overall,
    true_scores,
)

#: Trials that are drawn for the true value of a mean over trials.
TRUE_TRIALS = 20_000
#: Printed probabilities are counted between these bounds.
BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)
#: The margin of P(equal).
MARGIN = 0.01
#: Draws behind a simulated credible interval; their error is a fiftieth of the posterior's sd.
CREDIBLE_DRAWS = 20_000
#: The section after those of this script in docs/coverage.md belongs to posterior_speed.py.
NEXT_SECTION = "## Speed"
_BRACKETS = re.compile(r"\[(-?[\d.]+), (-?[\d.]+)\]")
_OVERALL = {
    "balanced accuracy": "balanced_accuracy",
    "macro precision": "macro_precision",
    "macro specificity": "macro_specificity",
    "macro F1": "macro_f1",
}


@dataclass
class Tally:
    """Counts of one number over the repetitions.

    Attributes:
        held: How often the printed interval contained the true value, or a statement was true.
        printed: How often there was one.
        missing: How often there was none.
        total: Sum of the widths, or of the printed probabilities.
    """

    held: int = 0
    printed: int = 0
    missing: int = 0
    total: float = 0.0

    def add_interval(self, truth: float, text: str) -> None:
        """Count the interval of a printed cell."""
        found = _BRACKETS.search(text.replace("−", "-"))
        if found is None:
            self.missing += 1
            return
        low, high = (float(bound) / 100.0 for bound in found.groups())
        self.add(low - 1e-9 <= truth <= high + 1e-9, high - low)

    def add(self, held: bool, amount: float) -> None:
        """Count one statement."""
        self.held += bool(held)
        self.printed += 1
        self.total += amount

    @property
    def rate(self) -> float:
        """Share of the statements that held, in per cent."""
        return 100.0 * self.held / max(self.printed, 1)

    @property
    def mean(self) -> float:
        """Mean width or probability."""
        return self.total / max(self.printed, 1)


@dataclass
class Measurement:
    """Counts of one setting, by what was counted."""

    tallies: dict[str, Tally] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tally:
        return self.tallies.setdefault(name, Tally())


def measured(setting: Setting, repetitions: int, seed: int) -> Measurement:
    """Return the counts of a setting.

    Args:
        setting: What to simulate.
        repetitions: Number of simulated sweeps.
        seed: Seed of all draws.
    """
    found = Measurement()
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        simulator = Simulator(Path(folder), setting.world, setting.centres, setting.trials)
        truth = _Truth(setting, simulator)
        if setting.world.draws > 1 and setting.trials > 1:
            truth.learn(random, repetitions)
        for _ in range(repetitions):
            _measure(found, setting, simulator, truth, random)
    return found


def _measure(
    found: Measurement,
    setting: Setting,
    simulator: Simulator,
    truth: _Truth,
    random: np.random.Generator,
) -> None:
    """Simulate one sweep and count what is printed."""
    centres = setting.methods(random)
    simulator.world = setting.drawn_world(random)
    sweep, store, effects = simulator.load(random, centres)
    posteriors = None
    if setting.kind is Kind.CREDIBLE:
        posteriors = Posteriors(credible=True, draws=CREDIBLE_DRAWS)
    with _only_columns(setting.columns):
        (table,) = tables_of(sweep, CRITERION, store, posteriors, own=True)
    chosen = _chosen_effects(table, effects)
    if setting.kind is Kind.INTERVALS:
        _count_cells(found, setting, table, truth.columns(centres, chosen))
    elif setting.kind is Kind.DETAILS:
        sheet = detail_sheets(table, store, spread="interval")[0]
        _count_details(found, sheet, truth.details(chosen))
    elif setting.kind is Kind.MARKS:
        _count_marks(found, setting, table)
    elif setting.kind is Kind.CREDIBLE:
        sheet = detail_sheets(table, store, posteriors, spread="credible")[0]
        _count_credible(found, setting, table, sheet, truth, chosen)
    else:
        families = compare_all([table], "method0", store)
        _count_comparisons(found, setting, families, truth.columns(centres, chosen))


@contextlib.contextmanager
def _only_columns(names: Sequence[str]) -> Iterator[None]:
    """Leave out the columns that are not counted, which is about half of the work.

    A column does not depend on the others.
    """
    if not names:
        yield
        return

    def columns_of(data: DataSummary, requested: Collection[str] = ()) -> list[Metric]:
        return [column for column in metric.columns_of(data, requested) if column.name in names]

    with mock.patch.object(results_table, "columns_of", columns_of):
        yield


class _Truth:
    """The true values of a setting.

    With one trial an interval is about the trained networks, with more about new trials.

    Args:
        setting: The setting.
        simulator: Its simulator.
    """

    def __init__(self, setting: Setting, simulator: Simulator) -> None:
        self._setting = setting
        self._simulator = simulator
        self._random = np.random.default_rng(7)
        self._known: dict[str, np.ndarray] | None = None

    def learn(self, random: np.random.Generator, repetitions: int) -> None:
        """Estimate the true values of runs that are selected among several draws.

        Selection prefers networks that are better than the average one, which is no error: the
        true value is that of selected networks.
        """
        setting = self._setting
        totals: dict[str, np.ndarray] = {}
        for _ in range(repetitions):
            sweep, _, effects = self._simulator.load(random)
            (table,) = tables_of(sweep, CRITERION, None, own=True)
            chosen = _chosen_effects(table, effects)
            scores = true_scores(setting.world, self._simulator.images, chosen)
            for name, value in scores.items():
                totals[name] = totals.get(name, 0.0) + value.mean(1) / repetitions
        self._known = totals

    def means(self) -> dict[str, np.ndarray]:
        """Return the mean of each column over new trials, for each method."""
        if self._known is None:
            setting = self._setting
            effects = self._simulator.effects(self._random, setting.centres, TRUE_TRIALS)
            scores = true_scores(setting.world, self._simulator.images, effects[:, :, 0])
            self._known = {name: value.mean(1) for name, value in scores.items()}
        return self._known

    def columns(self, centres: np.ndarray, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Return the true value of each column for each method."""
        setting = self._setting
        if setting.trials == 1:
            return true_scores(setting.world, self._simulator.images, chosen[:, 0])
        if setting.draws_methods or self._known is None:
            trials = 1_000 if setting.draws_methods else TRUE_TRIALS
            effects = self._simulator.effects(self._random, centres, trials)[:, :, 0]
            scores = true_scores(setting.world, self._simulator.images, effects)
            self._known = {name: value.mean(1) for name, value in scores.items()}
        return self._known

    def details(self, chosen: np.ndarray) -> dict[str, float]:
        """Return the true overall scores of the first method."""
        world = self._setting.world
        images = self._simulator.images
        if self._setting.trials == 1:
            effects = chosen[:1]
        elif self._known is not None:
            return {name: float(value) for name, value in self._known.items()}
        else:
            effects = self._simulator.effects(self._random, self._setting.centres[:1], 2_000)
            effects = effects[:, :, 0]
        each = [true_overall(world, images, centre) for centre in effects[0]]
        scores = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        if world.groups == 2:
            scores["mean AUC"] = float(true_auc(world, effects[0]).mean())
        if self._setting.trials > 1:
            self._known = {name: np.array(value) for name, value in scores.items()}
        return scores


def _chosen_effects(table: Table, effects: np.ndarray) -> np.ndarray:
    """Return the effects of the selected draws, [methods, trials, groups]."""
    draws = [[run.run.draw or 0 for run in row.selected_runs] for row in table.rows]
    return np.take_along_axis(effects, np.array(draws)[:, :, None, None], axis=2)[:, :, 0]


def _count_cells(
    found: Measurement, setting: Setting, table: Table, truth: dict[str, np.ndarray]
) -> None:
    show = printer(table, "interval")
    for k, row in enumerate(table.rows):
        for column, value in zip(table.columns, row.values, strict=True):
            if column.name in truth and (not setting.columns or column.name in setting.columns):
                found[column.name].add_interval(float(truth[column.name][k]), show(value))


def _count_credible(
    found: Measurement,
    setting: Setting,
    table: Table,
    sheet: Sheet,
    truth: _Truth,
    chosen: np.ndarray,
) -> None:
    """Count credible intervals for the trained network, and for the mean over new trials."""
    show = printer(table, "credible")
    (row,) = table.rows
    targets = {"this network": truth.columns(setting.centres, chosen), "new trials": truth.means()}
    for target, known in targets.items():
        for column, value in zip(table.columns, row.values, strict=True):
            if column.name in known and (not setting.columns or column.name in setting.columns):
                true = float(known[column.name][0])
                found[f"{column.name}, {target}"].add_interval(true, show(value))
    heads = [" ".join(head) for head in sheet.heads]
    details = truth.details(chosen)
    for head, text in zip(heads[1:], sheet.rows[0][1:], strict=True):
        if head in _OVERALL and head != "macro specificity":
            found[f"{head}, this network"].add_interval(details[_OVERALL[head]], text)


def _count_details(found: Measurement, sheet: Sheet, truth: dict[str, float]) -> None:
    heads = [" ".join(head) for head in sheet.heads]
    for head, text in zip(heads[1:], sheet.rows[0][1:], strict=True):
        name = _OVERALL.get(head, head)
        if name in truth:
            found[head].add_interval(truth[name], text)


def _count_marks(found: Measurement, setting: Setting, table: Table) -> None:
    """Count false marks; and, with a method that is truly worse, how often it is found."""
    for i, column in enumerate(table.columns):
        if setting.columns and column.name not in setting.columns:
            continue
        worse = [not row.values[i].best and not row.values[i].not_compared for row in table.rows]
        tested = any(row.values[i].best for row in table.rows)
        if not tested:
            found[f"{column.name}: false marks"].missing += 1
            continue
        equal = [k for k in range(len(worse)) if k not in setting.worse]
        found[f"{column.name}: false marks"].add(any(worse[k] for k in equal), 0.0)
        for k in setting.worse:
            found[f"{column.name}: power"].add(worse[k], 0.0)


def _count_comparisons(
    found: Measurement, setting: Setting, families: Sequence, truth: dict[str, np.ndarray]
) -> None:
    """Count the intervals of Δ, and the printed probabilities of the comparison with method0."""
    for family in families:
        name = family.column.name
        if name not in truth or (setting.columns and name not in setting.columns):
            continue
        values = np.abs(truth[name]) if family.column.compares_magnitude else truth[name]
        for k, comparison in enumerate(family.found, start=1):
            difference = float(values[k] - values[0])
            estimate = comparison.difference
            text = ""
            if estimate.low is not None and estimate.high is not None:
                text = f"[{percent(estimate.low, 2)}, {percent(estimate.high, 2)}]"
            found[f"Δ {name}"].add_interval(difference, text)
            if (posterior := comparison.posterior) is not None:
                text = f"[{percent(posterior.low, 2)}, {percent(posterior.high, 2)}]"
                found[f"Δ {name}: credible"].add_interval(difference, text)
            p = comparison.p
            if p is not None and estimate.low is not None and estimate.high is not None:
                agrees = (p < 0.05) == (estimate.low > 0.0 or estimate.high < 0.0)
                found[f"Δ {name}: p agrees with the interval"].add(agrees, 0.0)
            better = difference < 0.0 if family.column.smaller_is_better else difference > 0.0
            for title, probability, true in (
                ("P(better)", comparison.p_better, better),
                ("P(equal)", comparison.p_equivalent, abs(difference) < MARGIN),
            ):
                if probability is not None:
                    place = int(np.searchsorted(BINS[1:-1], probability, side="right"))
                    label = f"{title} {BINS[place]:g} to {BINS[place + 1]:g}, {name}"
                    found[label].add(true, probability)


def rows_of(setting: Setting, found: Measurement) -> Iterator[str]:
    """Yield the rows of the page's table of a setting."""
    for name, tally in sorted(found.tallies.items()):
        width = f"{tally.mean:.3f}" if tally.total else "–"
        total = tally.printed + tally.missing
        missing = f"{100.0 * tally.missing / total:.1f}" if tally.missing else "0"
        yield (
            f"| {setting.topic} | {setting.name} | {name} | {tally.rate:.1f} | {width} | "
            f"{missing} | {total} |"
        )


def main() -> int:
    """Run the settings that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500, help="simulated sweeps per setting")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="topics, or parts of the names of settings")
    parser.add_argument("--out", default="docs/coverage.md", help="page to change; - for none")
    arguments = parser.parse_args()
    chosen = [
        setting
        for setting in settings()
        if not arguments.only
        or any(word == setting.topic or word in setting.name for word in arguments.only)
    ]
    for setting in chosen:
        begin = time.perf_counter()
        found = measured(setting, arguments.repetitions, arguments.seed)
        seconds = (time.perf_counter() - begin) / arguments.repetitions
        print(f"# {setting.topic}, {setting.name}: {seconds:.3f} s per sweep", file=sys.stderr)
        lines = list(rows_of(setting, found))
        print("\n".join(lines), flush=True)
        if arguments.out != "-":
            replace_rows(Path(arguments.out), setting, lines)
    return 0


def replace_rows(page: Path, setting: Setting, lines: Sequence[str]) -> None:
    """Replace the rows of a setting in the page's table; new ones come last."""
    start = f"| {setting.topic} | {setting.name} |"
    before, found, after = page.read_text(encoding="utf-8").partition(NEXT_SECTION)
    kept = before.rstrip("\n").split("\n")
    at = next((i for i, line in enumerate(kept) if line.startswith(start)), len(kept))
    kept = [line for line in kept if not line.startswith(start)]
    text = "\n".join([*kept[:at], *lines, *kept[at:]])
    page.write_text(f"{text}\n\n{found}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
