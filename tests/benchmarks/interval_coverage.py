"""Measure the coverage of each 95 % interval of the report by simulation.

    python tests/benchmarks/interval_coverage.py
    python tests/benchmarks/interval_coverage.py --only gap auc --repetitions 5000 --out -

The first command makes 3,000 repetitions per case, takes about ten minutes and writes a table to
docs/coverage.md. Each case draws data with a known true value, calls the function that the report
calls, and counts. Missing intervals are counted separately. Intervals do not depend on the number
of posterior draws, so only few are made.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from benchmark.report.statistics.delong import auc_interval, auc_of_labels, auc_one_vs_rest
from benchmark.report.statistics.estimate import Estimate, normal_estimate
from benchmark.report.statistics.generalization_gap import paired_gap, unpaired_gap
from benchmark.report.statistics.multilabel import macro_scores
from benchmark.report.statistics.over_trials import mean_over_trials
from benchmark.report.statistics.plug_in import OVERALL, PER_CLASS, plug_in
from benchmark.report.statistics.posterior import confusion_posterior
from benchmark.report.statistics.stratified_mean import contrast, crossed_variance, stratified_mean
from benchmark.report.statistics.worst_group import worst_group_interval, worst_group_over_trials

#: One result of a simulated repetition: (name of the interval, true value, the interval).
Outcome = tuple[str, float, Estimate]
Simulation = Callable[[np.random.Generator], Iterator[Outcome]]
_DRAWS = 300
#: Suffixes of intervals that the report does not print, for comparison.
BESIDE = ", posterior sd instead"
BESIDE_T = " over trials, t of the minima instead"
#: The section after this one in docs/coverage.md belongs to posterior_speed.py.
NEXT_SECTION = "## Speed"


@dataclass
class Case:
    """A simulated setting.

    Attributes:
        topic: Name for ``--only``.
        setting: Description in the table.
        simulate: Yields the intervals of one repetition.
        need: Range of the coverage in per cent, or None without a requirement.
    """

    topic: str
    setting: str
    simulate: Simulation
    need: tuple[float, float] | None = (93.0, 98.0)


@dataclass
class Tally:
    """Counts of one interval over the repetitions."""

    held: int = 0
    printed: int = 0
    missing: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, truth: float, estimate: Estimate) -> None:
        if estimate.low is None or estimate.high is None:
            self.missing += 1
            return
        self.printed += 1
        self.held += estimate.low <= truth <= estimate.high
        self.widths.append(estimate.high - estimate.low)


def confusion(
    share: list[float], recall: list[float], images: int, per_class: bool = False
) -> Simulation:
    """Simulate n ~ Mult(N, share) whose errors go to the other classes in proportion to share.

    Args:
        share: Share of each class.
        recall: Recall of each class.
        images: Number of images N.
        per_class: Yield the scores of each class instead of overall scores.
    """
    mu = np.array(share) / np.sum(share)
    correct = np.array(recall)
    off = (1.0 - np.eye(len(mu))) * mu
    theta = np.diag(correct) + (1.0 - correct)[:, None] * off / off.sum(1, keepdims=True)
    # The true values are the population's scores; with 10^9 images rounding is irrelevant.
    truth = plug_in(np.rint(1e9 * mu[:, None] * theta).astype(np.int64))

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        sizes = random.multinomial(images, mu)
        table = np.stack([random.multinomial(n, row) for n, row in zip(sizes, theta, strict=True)])
        posterior = confusion_posterior(table, draws=_DRAWS, seed=int(random.integers(2**31)))
        if per_class:
            for name in PER_CLASS:
                yield from (
                    (name, truth[name][j], e) for j, e in enumerate(getattr(posterior, name))
                )
        else:
            yield from ((name, truth[name][0], getattr(posterior, name)) for name in OVERALL)
            for name in ("balanced_accuracy", "macro_f1"):
                score = getattr(posterior, name)
                yield (
                    f"{name}{BESIDE}",
                    truth[name][0],
                    normal_estimate(score.value, score.sd, "", (0.0, 1.0)),
                )

    return simulate


def worst_group(accuracy: list[float], sizes: list[int]) -> Simulation:
    """Simulate one trial of groups with these accuracies and sizes."""
    p = np.array(accuracy)
    n = np.array(sizes)

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        yield "worst group", p.min(), worst_group_interval(random.binomial(n, p), n)

    return simulate


def worst_group_trials(
    trials: int,
    centre: list[float],
    sizes: list[int],
    trial_sd: float,
    group_sd: float,
    image_sd: float = 1.0,
) -> Simulation:
    """Simulate P(correct) = Φ(group + trial + trial × group + image), images shared by all trials.

    The true value is the mean over trials of the worst group's accuracy.
    """
    middle = np.array(centre)
    total = math.sqrt(1.0 + image_sd**2)
    group = np.repeat(np.arange(len(sizes)), sizes)

    def drawn(random: np.random.Generator, many: int) -> np.ndarray:
        common = trial_sd * random.normal(size=(many, 1))
        return np.asarray(middle + common + group_sd * random.normal(size=(many, len(middle))))

    truth = float(ndtr(drawn(np.random.default_rng(7), 400_000) / total).min(1).mean())

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        chance = ndtr(drawn(random, trials)[:, group] + image_sd * random.normal(size=len(group)))
        right = random.random(chance.shape) < chance
        correct = np.stack([np.bincount(group, row) for row in right])
        yield (
            "worst group over trials",
            truth,
            worst_group_over_trials(correct, np.tile(sizes, (trials, 1))),
        )
        minima = (correct / sizes).min(1)
        half = float(stdtrit(trials - 1, 0.975)) * minima.std(ddof=1) / math.sqrt(trials)
        alone = Estimate(minima.mean(), None, minima.mean() - half, minima.mean() + half, "")
        yield f"worst group{BESIDE_T}", truth, alone

    return simulate


def several_labels(images: int, share: list[float], common: float) -> Simulation:
    """Simulate images with K labels whose errors share a term of scale ``common``."""

    def scored(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        label = random.random((n, len(share))) < np.array(share)
        noise = common * random.normal(size=(n, 1)) + random.normal(size=label.shape)
        return label, np.where(label, 1.0, -1.0) * (1.0 + noise)

    wide, score = scored(np.random.default_rng(7), 1_000_000)
    truth = {name: float(e.value or 0.0) for name, e in macro_scores(wide, score > 0).items()}
    area = float(auc_of_labels(wide, score)[1].value or 0.0)
    accuracy = float((wide == (score > 0)).mean())

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        label, score = scored(random, images)
        yield (
            "accuracy, several labels",
            accuracy,
            stratified_mean((label == (score > 0)).mean(1), limits=(0.0, 1.0)),
        )
        yield from (
            (f"{n}, several labels", truth[n], e) for n, e in macro_scores(label, score > 0).items()
        )
        yield "mean AUC, several labels", area, auc_of_labels(label, score)[1]

    return simulate


def gap_paired(
    classes: int, pairs: int, both: float, biased: float, deceiving: float
) -> Simulation:
    """Simulate pairs of images.

    Args:
        classes: Number of classes.
        pairs: Number of pairs per class.
        both: Probability that both images are classified correctly.
        biased: Probability that only the biased image is.
        deceiving: Probability that only the deceiving image is.
    """
    p = [1.0 - both - biased - deceiving, deceiving, biased, both]

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        gap = paired_gap(random.multinomial(pairs, p, size=classes).reshape(classes, 2, 2))
        yield "gap, paired", biased - deceiving, gap

    return simulate


def gap_unpaired(sizes: list[int], biased: list[float], deceiving: list[float]) -> Simulation:
    """Simulate two test sets of classes with these sizes and recalls."""

    def score(random: np.random.Generator, recall: list[float]) -> Estimate:
        right = random.binomial(sizes, recall)
        table = np.diag(right)
        table[np.arange(len(sizes)), np.roll(np.arange(len(sizes)), 1)] = np.array(sizes) - right
        return confusion_posterior(table, draws=100).balanced_accuracy

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        gap = unpaired_gap(score(random, biased), score(random, deceiving))
        truth = float(np.mean(biased) - np.mean(deceiving))
        yield "gap, unpaired", truth, gap

    return simulate


def auc(area: float, positives: int, negatives: int, digits: int | None = None) -> Simulation:
    """Simulate two normal populations; with ``digits`` the scores are rounded and may tie."""
    shift = math.sqrt(2.0) * float(ndtri(area))
    truth = area
    if digits is not None:
        edges = np.arange(-12.0, 12.0, 10.0**-digits)
        low, high = (np.diff(ndtr(edges - d)) for d in (0.0, shift))
        truth = float((high * (np.cumsum(low) - low / 2.0)).sum())
        centres = (edges[1:] + edges[:-1]) / 2.0

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        label = np.repeat([1, 0], [positives, negatives])
        scores = random.normal(size=len(label)) + shift * label
        if digits is not None:
            scores = centres[np.searchsorted(edges, scores) - 1]
        yield "AUC", truth, auc_interval(label, scores)

    return simulate


def auc_mean(sizes: list[int], pull: float) -> Simulation:
    """Simulate softmax scores of noisy logits; the true value is the AUC of a million images."""

    def scored(random: np.random.Generator, label: np.ndarray) -> np.ndarray:
        logits = random.normal(size=(len(label), len(sizes)))
        logits[np.arange(len(label)), label] += pull
        scores = np.exp(logits)
        return scores / scores.sum(1, keepdims=True)

    many = np.repeat(np.arange(len(sizes)), np.array(sizes) * (1_000_000 // sum(sizes)))
    truth = auc_one_vs_rest(many, scored(np.random.default_rng(7), many))
    label = np.repeat(np.arange(len(sizes)), sizes)

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        per_class, mean = auc_one_vs_rest(label, scored(random, label))
        yield "mean AUC", float(truth[1].value or 0.0), mean
        for k, estimate in enumerate(per_class):
            yield "AUC against the rest", float(truth[0][k].value or 0.0), estimate

    return simulate


def crossed(
    trials: int,
    sizes: list[int],
    centre: list[float],
    trial_sd: float,
    image_sd: float,
    both_sd: float,
) -> Simulation:
    """Simulate P(correct) = Φ(centre + trial + image + trial × image), whose mean is known.

    Classes count equally.
    """
    total = math.sqrt(1.0 + trial_sd**2 + image_sd**2 + both_sd**2)
    truth = float(np.mean(ndtr(np.array(centre) / total)))
    stratum = np.repeat(np.arange(len(sizes)), sizes)

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        latent = np.array(centre)[stratum] + trial_sd * random.normal(size=(trials, 1))
        latent = (
            latent
            + image_sd * random.normal(size=len(stratum))
            + both_sd * random.normal(size=(trials, len(stratum)))
        )
        correct = random.random(latent.shape) < ndtr(latent)
        yield (
            "trials × images",
            truth,
            crossed_variance(correct, stratum if len(sizes) > 1 else None),
        )

    return simulate


def scores_over_trials(
    trials: int, sizes: list[int], centre: list[float], trial_sd: float, image_sd: float
) -> Simulation:
    """Simulate as ``crossed``, with the macro F1 of the confusion matrix.

    Errors go to the other classes with equal probability. The true value is the mean over trials on
    infinitely many images.
    """
    stratum = np.repeat(np.arange(len(sizes)), sizes)
    share = np.array(sizes) / sum(sizes)

    def macro_f1(recall: np.ndarray) -> np.ndarray:
        right = share * recall
        wrong = (share * (1.0 - recall))[..., None] * (1.0 - np.eye(len(sizes))) / (len(sizes) - 1)
        return (2.0 * right / (share + right + wrong.sum(-2))).mean(-1)

    many = np.random.default_rng(0).normal(size=(200_000, 1)) * trial_sd
    truth = float(macro_f1(ndtr((np.array(centre) + many) / math.sqrt(1.0 + image_sd**2))).mean())

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        latent = np.array(centre)[stratum] + trial_sd * random.normal(size=(trials, 1))
        right = random.random(latent.shape) < ndtr(
            latent + image_sd * random.normal(size=len(stratum))
        )
        other = (stratum + random.integers(1, len(sizes), latent.shape)) % len(sizes)
        found = []
        for predicted in np.where(right, stratum, other):
            table = np.zeros((len(sizes), len(sizes)), np.int64)
            np.add.at(table, (stratum, predicted), 1)
            found.append(
                confusion_posterior(table, draws=_DRAWS, seed=int(random.integers(2**31))).macro_f1
            )
        yield "macro_f1 over trials", truth, mean_over_trials(found)

    return simulate


def means(
    sizes: list[int], agree: float, better: float, worse: float, patients: int | None = None
) -> Simulation:
    """Simulate the difference of two methods per image: 0, +1 or −1.

    With patients, the images of a patient share a term.
    """
    stratum = np.repeat(np.arange(len(sizes)), sizes)

    def simulate(random: np.random.Generator) -> Iterator[Outcome]:
        z = random.choice([0.0, 1.0, -1.0], p=[agree, better, worse], size=len(stratum))
        if patients is None:
            yield "contrast of methods", better - worse, contrast(z, stratum)
            right = random.random(len(stratum)) < better + agree
            yield (
                "mean per class",
                better + agree,
                stratified_mean(right, stratum, limits=(0.0, 1.0)),
            )
            return
        cluster = random.integers(patients, size=len(stratum))
        z += random.normal(scale=0.5, size=patients)[cluster]
        yield "contrast, clustered", better - worse, contrast(z, stratum, cluster)

    return simulate


def cases() -> list[Case]:
    """Return every setting, with the sizes of the TEA paper's test sets and smaller ones."""
    ten = [1.0] * 10
    wide = np.linspace(0.5, 0.9, 10).tolist()
    xray = [406.0, 1295.0, 1515.0]
    return [
        Case(
            "confusion",
            "3 classes, 3,216 images, recall .69 .70 .86",
            confusion(xray, [0.69, 0.70, 0.86], 3216),
        ),
        Case(
            "confusion",
            "the same, each class",
            confusion(xray, [0.69, 0.70, 0.86], 3216, True),
            None,
        ),
        Case("confusion", "10 classes, 900 images, recall .5 to .9", confusion(ten, wide, 900)),
        Case("confusion", "the same, each class", confusion(ten, wide, 900, True), None),
        Case(
            "confusion", "10 classes, 10,000 images, recall .9", confusion(ten, [0.9] * 10, 10_000)
        ),
        Case("confusion", "10 classes, 900 images, recall .14", confusion(ten, [0.14] * 10, 900)),
        Case(
            "confusion",
            "2 classes, 101 images, recall .85 .75",
            confusion([1, 1], [0.85, 0.75], 101),
        ),
        Case(
            "confusion",
            "2 classes, 2,897 images, recall .98 .9",
            confusion([0.78, 0.22], [0.98, 0.9], 2897),
        ),
        Case("confusion", "10 classes, 900 images, recall .97", confusion(ten, [0.97] * 10, 900)),
        Case(
            "confusion",
            "50 classes, 1,500 images, recall .7",
            confusion([1.0] * 50, [0.7] * 50, 1500),
        ),
        *_group_cases(),
        Case("auc", "area .9, 50 against 50", auc(0.9, 50, 50)),
        Case("auc", "area .97, 30 against 70", auc(0.97, 30, 70)),
        Case("auc", "area .8, 406 against 2,810", auc(0.8, 406, 2810)),
        Case(
            "auc",
            "area .8, 100 against 100, scores rounded to whole numbers",
            auc(0.8, 100, 100, 0),
        ),
        Case("auc", "3 classes, 406 1,295 1,515", auc_mean([406, 1295, 1515], 1.5)),
        Case("auc", "3 classes of 40", auc_mean([40, 40, 40], 1.5)),
        Case(
            "scores",
            "3 trials, classes of 156 and 155",
            scores_over_trials(3, [156, 155], [1.0, 1.2], 0.2, 1.0),
            (95.0, 100.0),
        ),
        Case(
            "scores",
            "3 trials, classes of 156 and 155, trials alike",
            scores_over_trials(3, [156, 155], [1.0, 1.2], 0.0, 1.0),
            (95.0, 100.0),
        ),
        Case(
            "scores",
            "5 trials, 3 classes of 300, trials differ much",
            scores_over_trials(5, [300] * 3, [0.5, 1.0, 1.5], 0.4, 1.0),
            (93.0, 100.0),
        ),
        Case("trials", "2 trials, 900 images", crossed(2, [900], [1.0], 0.1, 1.0, 0.5)),
        Case("trials", "3 trials, 900 images", crossed(3, [900], [1.0], 0.1, 1.0, 0.5)),
        Case("trials", "5 trials, 101 images", crossed(5, [101], [1.0], 0.2, 1.0, 0.5)),
        Case(
            "trials",
            "5 trials, 900 images, trials differ much",
            crossed(5, [900], [0.5], 0.4, 1.0, 0.5),
        ),
        Case("trials", "10 trials, 2,897 images", crossed(10, [2897], [1.5], 0.1, 1.0, 0.5)),
        Case(
            "trials",
            "3 trials, 10 classes of 90",
            crossed(3, [90] * 10, np.linspace(0, 2, 10).tolist(), 0.1, 1.0, 0.5),
        ),
        Case(
            "trials",
            "5 trials, classes of 406 1,295 1,515",
            crossed(5, [406, 1295, 1515], [0.7, 0.7, 1.4], 0.15, 1.0, 0.5),
        ),
        Case("trials", "1 trial, 900 images", crossed(1, [900], [1.0], 0.0, 1.0, 0.0)),
        Case(
            "labels",
            "500 images, 4 labels, errors shared",
            several_labels(500, [0.3, 0.4, 0.5, 0.6], 1.5),
        ),
        Case(
            "labels",
            "200 images, 14 labels",
            several_labels(200, np.linspace(0.05, 0.4, 14).tolist(), 0.5),
        ),
        Case("labels", "500 images, 2 labels, apart", several_labels(500, [0.2, 0.5], 0.0)),
        Case(
            "contrast",
            "classes of 406 1,295 1,515, Δ = .03",
            means([406, 1295, 1515], 0.87, 0.08, 0.05),
        ),
        Case("contrast", "2 classes of 50, Δ = .1", means([50, 50], 0.6, 0.25, 0.15)),
        Case(
            "contrast",
            "2 classes of 500, 100 patients",
            means([500, 500], 0.6, 0.25, 0.15, patients=100),
        ),
    ]


def _group_cases() -> list[Case]:
    at_least = (95.0, 100.0)
    return [
        Case(
            "worst group",
            "4 equal groups of 100, all .8",
            worst_group([0.8] * 4, [100] * 4),
            at_least,
        ),
        Case(
            "worst group",
            "20 equal groups of 50, all .9",
            worst_group([0.9] * 20, [50] * 20),
            at_least,
        ),
        Case(
            "worst group",
            "groups of 2255 642 2255 642, Waterbirds-like",
            worst_group([0.98, 0.62, 0.75, 0.92], [2255, 642, 2255, 642]),
            at_least,
        ),
        Case(
            "worst group",
            "groups of 500 500 10, the smallest worst",
            worst_group([0.9, 0.85, 0.7], [500, 500, 10]),
            at_least,
        ),
        Case("worst group", "one group of 200, .95", worst_group([0.95], [200]), at_least),
        *(
            Case("worst group", f"{s} trials, {text}", worst_group_trials(s, *case), at_least)
            for s in (2, 3, 5, 10)
            for text, case in {
                "4 equal groups of 100, alike": ([1.2] * 4, [100] * 4, 0.1, 0.05),
                "20 equal groups of 50, alike": ([1.5] * 20, [50] * 20, 0.1, 0.05),
                "Waterbirds-like": ([2.9, 0.4, 1.0, 2.0], [2255, 642, 2255, 642], 0.1, 0.1),
                "4 groups of 100, trials differ much": ([0.8, 0.2, 0.5, 1.0], [100] * 4, 0.5, 0.3),
            }.items()
        ),
        Case("gap", "10 classes of 90 pairs, gap .05", gap_paired(10, 90, 0.6, 0.12, 0.07)),
        Case("gap", "10 classes of 90 pairs, gap .64", gap_paired(10, 90, 0.08, 0.65, 0.01)),
        Case("gap", "2 classes of 50 pairs, gap 0", gap_paired(2, 50, 0.7, 0.1, 0.1)),
        Case("gap", "2 classes of 1,448 pairs, gap .02", gap_paired(2, 1448, 0.7, 0.08, 0.06)),
        Case(
            "gap",
            "2 classes of 50 and 51, .85 against .75",
            gap_unpaired([50, 51], [0.85, 0.85], [0.75, 0.75]),
        ),
        Case(
            "gap",
            "10 classes of 90, .73 against .10",
            gap_unpaired([90] * 10, [0.73] * 10, [0.10] * 10),
        ),
        Case(
            "gap",
            "2 classes of 2,255 and 642, .94 against .13",
            gap_unpaired([2255, 642], [0.96, 0.92], [0.05, 0.21]),
        ),
    ]


def measured(case: Case, repetitions: int, seed: int) -> dict[str, Tally]:
    """Return the counts of every interval of a setting."""
    tallies: dict[str, Tally] = {}
    random = np.random.default_rng(seed)
    for _ in range(repetitions):
        for name, truth, estimate in case.simulate(random):
            tallies.setdefault(name, Tally()).add(truth, estimate)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--repetitions",
        type=int,
        default=3_000,
        help="per case; at least 1,000 for a table to keep",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", nargs="*", help="confusion, worst, gap, auc, scores, trials, labels, contrast"
    )
    parser.add_argument(
        "--out",
        default="docs/coverage.md",
        help="file whose coverage section is replaced; - for none",
    )
    arguments = parser.parse_args()
    lines, missed, begin = [], [], time.perf_counter()
    for case in cases():
        if arguments.only and not any(case.topic.startswith(word) for word in arguments.only):
            continue
        for name, tally in measured(case, arguments.repetitions, arguments.seed).items():
            rate = 100.0 * tally.held / max(tally.printed, 1)
            wanted = None if name.endswith((BESIDE, BESIDE_T)) else case.need
            need = f"{wanted[0]:.0f}–{wanted[1]:.0f}" if wanted else "–"
            if wanted and not wanted[0] <= rate <= wanted[1]:
                missed.append(f"{name}, {case.setting}: {rate:.1f}")
            none = (
                f"{100.0 * tally.missing / (tally.missing + tally.printed):.1f}"
                if tally.missing
                else "0"
            )
            width = np.mean(tally.widths)
            lines.append(
                f"| {name} | {case.setting} | {rate:.1f} | {need} | {width:.3f} | {none} |"
            )
            print(lines[-1], flush=True)
    minutes = (time.perf_counter() - begin) / 60.0
    print(
        f"{minutes:.1f} minutes; outside the needed range: {'; '.join(missed) or 'none'}",
        file=sys.stderr,
    )
    if arguments.out != "-":
        path = Path(arguments.out)
        rows = merged(path, lines) if arguments.only else lines
        write(path, rows, arguments.repetitions, arguments.seed)
    return 1 if missed else 0


def merged(path: Path, lines: list[str]) -> list[str]:
    """Return the rows of the file, with rows of the same interval and setting replaced.

    New rows follow at the end.
    """

    def key(row: str) -> tuple[str, ...]:
        return tuple(row.split(" | ")[:2])

    section = path.read_text(encoding="utf-8").partition(NEXT_SECTION)[0] if path.exists() else ""
    fresh = {key(row): row for row in lines}
    kept = [
        row
        for row in section.splitlines()
        if row.startswith("| ") and not row.startswith("| interval |")
    ]
    return [fresh.pop(key(row), row) for row in kept] + list(fresh.values())


def write(path: Path, lines: list[str], repetitions: int, seed: int) -> None:
    """Replace the coverage section of the page."""
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    _, found, after = kept.partition(NEXT_SECTION)
    error = 100.0 * math.sqrt(0.95 * 0.05 / repetitions)
    text = f"""# Coverage of the intervals

Every interval that the report prints is tried on data whose true value is known. Coverage is the
share of {repetitions:,} repetitions, in per cent, in which the nominal 95 % interval contains the
true value (standard error {error:.1f}). The table is made by
`python tests/benchmarks/interval_coverage.py --repetitions {repetitions} --seed {seed}`.

The sizes are those of the TEA paper's test sets, and smaller ones where intervals fail first.

- **Posterior sd instead** is not printed in the report; it is the plug-in value ± 1.96 posterior
  sd. The flat prior adds M images per class, nearly all of them wrong. The posterior is therefore
  too narrow if classes have few images, and too wide if nearly all answers are correct. In the
  tables, ± is the posterior sd, as in the paper, and the interval comes from the sampling sd.
- **Trials × images**: with Satterthwaite's degrees of freedom and a single t quantile, coverage was
  88 to 92 for two or three trials that differ much. The interval therefore has one quantile for
  trials and one for images.
- **Worst group over trials**: the true value is the mean over trials of the worst group's accuracy
  on infinitely many images. "t of the minima instead" is not printed in the report; it is Student's
  t over the trials' minima, which ignores that all trials share one finite test set.

| interval | setting | coverage | needed | mean width | not printed % |
|---|---|---|---|---|---|
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n".join(lines) + "\n\n" + found + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
