"""The posteriors of a report, each computed once."""

from __future__ import annotations

from benchmark.core.counts import confusion_matrix, is_multi_label
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.statistics.estimate import Estimate, Ints
from benchmark.report.statistics.plug_in import OVERALL, PER_CLASS
from benchmark.report.statistics.posterior import (
    ConfusionPosterior,
    accuracy_credible,
    confusion_posterior,
)


class Posteriors:
    """Posteriors of the confusion matrices of selected runs.

    Args:
        engine: ``exact`` or ``nuts``.
        credible: Whether credible intervals are printed.
        draws: Number of draws; by default, that of the engine.
    """

    def __init__(
        self, engine: str = "exact", *, credible: bool = False, draws: int | None = None
    ) -> None:
        self.engine = engine
        self.credible = credible
        self._draws = draws
        self._found: dict[tuple[str, str, int | None], ConfusionPosterior | None] = {}
        self._tables: dict[tuple[str, str, int | None], Ints] = {}
        self._accuracies: dict[tuple[str, str], Estimate] = {}

    def of(
        self, run: SelectedRun, split: str, label: int | None = None
    ) -> ConfusionPosterior | None:
        """Return the posterior of a confusion matrix, or of one label's if there are several.

        None if there is none, because of a single class or no images.
        """
        key = run.run.key, split, label
        if key not in self._found:
            table = confusion_matrix(run.at.counts[split])
            table = table if label is None else table[label]
            self._found[key] = None
            self._tables[key] = table
            if len(table) > 1 and table.any():
                self._found[key] = confusion_posterior(
                    table, self._draws, engine=self.engine, credible=self.credible
                )
        return self._found[key]

    def accuracy(self, run: SelectedRun, split: str) -> Estimate | None:
        """Return posterior mean, sd and credible interval of the accuracy.

        None for images with several labels, for a single class, and without images.
        """
        table = single_label_table(run, split)
        if table is None:
            return None
        if self.engine == "nuts":
            posterior = self.of(run, split)
            return None if posterior is None else posterior.credible("accuracy")
        key = run.run.key, split
        if key not in self._accuracies:
            self._accuracies[key] = accuracy_credible(table, self._draws)
        return self._accuracies[key]

    def describe(self, split: str | None = None) -> str:
        """Return a sentence on the Monte Carlo behind the posteriors; empty if none was made.

        Args:
            split: Only the posteriors of this split.
        """
        keys = [key for key, found in self._found.items() if found and split in (None, key[1])]
        made = [found for key in keys if (found := self._found[key]) is not None]
        if not made:
            return ""
        draws = max(posterior.draws for posterior in made)
        error = max(posterior.monte_carlo_error for posterior in made)
        check = ""
        if self.engine == "nuts":
            divergent = sum(posterior.divergences or 0 for posterior in made)
            pairs = ((self._tables[key], self._found[key]) for key in keys)
            difference = max(
                _difference_from_exact(table, found) for table, found in pairs if found
            )
            check = (
                f", {divergent} divergences, means and sds within {difference:.1g} of the exact "
                "engine"
            )
        return (
            f"Posterior: {self.engine}, {draws:,} draws, "
            f"Monte Carlo error at most {error:.1g}{check}."
        )


def single_label_table(run: SelectedRun, split: str) -> Ints | None:
    """Return the confusion matrix of a split with images of at least two possible classes."""
    counts = run.at.counts[split]
    if is_multi_label(counts):
        return None
    table = confusion_matrix(counts)
    return table if len(table) > 1 and table.any() else None


def _difference_from_exact(table: Ints, posterior: ConfusionPosterior) -> float:
    """Return the largest difference of a mean or sd from that of independent draws."""
    exact = confusion_posterior(table)
    largest = 0.0
    for name in (*PER_CLASS, *OVERALL):
        pair = getattr(posterior, name), getattr(exact, name)
        estimates = zip(*pair, strict=True) if name in PER_CLASS else (pair,)
        for mine, other in estimates:
            if mine.value is not None:
                mean = abs(mine.posterior_mean - other.posterior_mean)
                largest = max(largest, mean, abs(mine.sd - other.sd))
    return largest
