"""The simulator behind docs/coverage.md: its folders, its true values and its shortcut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmark.report.report import make_report
from benchmark.report.tables.results_table import tables_of
from tests.benchmarks.coverage_settings import Kind, Setting
from tests.benchmarks.interval_coverage import Tally, measured
from tests.benchmarks.simulated_sweeps import CRITERION, Simulator, World, true_scores

PAIRED = World((30, 30), confounders=2, bias_splits=True, draws=2)


@pytest.mark.parametrize(
    "world",
    [
        PAIRED,
        replace(PAIRED, predictions=False),
        World((20, 10, 20, 10), confounders=2, own_images=True),
        World((40, 40), patients=12),
        World((50,), labels=3),
    ],
)
def test_the_folder_and_memory_give_the_same_tables(tmp_path: Path, world: World) -> None:
    simulator = Simulator(tmp_path, world, np.full((2, world.groups), 0.8), trials=2)
    effects = simulator.write(np.random.default_rng(3))
    (written,) = make_report(tmp_path).tables
    sweep, store, same_effects = simulator.load(np.random.default_rng(3))
    (loaded,) = tables_of(sweep, CRITERION, store, own=True)
    assert np.array_equal(effects, same_effects)
    assert [row.values for row in written.rows] == [row.values for row in loaded.rows]


def test_true_scores_are_those_of_very_many_images(tmp_path: Path) -> None:
    world = World((20_000, 20_000), confounders=2, bias_splits=True, trial_sd=0.3, group_sd=0.2)
    centres = np.array([[1.5, 0.2, 0.6, 1.9]])
    simulator = Simulator(tmp_path, world, centres, trials=1)
    sweep, store, effects = simulator.load(np.random.default_rng(3))
    (table,) = tables_of(sweep, CRITERION, store, own=True)
    truth = true_scores(world, simulator.images, effects[0, 0, 0])
    for column, value in zip(table.columns, table.rows[0].values, strict=True):
        assert value.estimate.value == pytest.approx(truth[column.name], abs=0.015)


def test_printed_brackets_are_read() -> None:
    tally = Tally()
    tally.add_interval(-0.03, "−2.5 [−4.0, −1.0]≈")
    tally.add_interval(0.5, "51.0 ± 1.0 [50.5, 52.0]")
    tally.add_interval(0.5, "51.0 ± 1.0")
    assert (tally.held, tally.printed, tally.missing) == (1, 2, 1)
    assert tally.mean == pytest.approx((0.03 + 0.015) / 2)


@pytest.mark.parametrize("kind", [Kind.INTERVALS, Kind.MARKS, Kind.COMPARISONS, Kind.CREDIBLE])
def test_columns_that_are_not_counted_do_not_change_the_others(kind: Kind) -> None:
    """The script leaves them out, which halves its time."""
    world = replace(PAIRED, draws=1)
    centres = np.full((1 if kind is Kind.CREDIBLE else 2, world.groups), 0.8)
    setting = Setting("topic", "name", kind, world, centres, 1)
    everything = measured(setting, 1, seed=5).tallies
    alone = measured(replace(setting, columns=("gap",)), 1, seed=5).tallies
    assert any("gap" in name for name in alone)
    for name, tally in alone.items():
        assert tally == everything[name], name
