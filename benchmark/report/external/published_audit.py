"""Audit the claims of a published table by its own values, ± and numbers of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.special import ndtr, stdtr

from benchmark.core.errors import UserError
from benchmark.core.registry import did_you_mean
from benchmark.report.records.published_values import (
    FOLDER,
    MEANING,
    PublishedValue,
    read_table,
)
from benchmark.report.statistics.hypothesis_tests import holm
from benchmark.report.tables.against_reference import probability
from benchmark.report.tables.numbers import DASH, percent
from benchmark.report.tables.pairwise import ALPHA
from benchmark.report.tables.sheet import Sheet

#: Number of runs of a mean ± sd in the eX2L paper.
RUNS = 3
_SMALLER_IS_BETTER = ("gap",)


@dataclass(frozen=True)
class AuditedClaim:
    """The difference of a method from the reference.

    Attributes:
        published: The printed value of the method.
        difference: The printed difference.
        se: Standard error of the difference.
        p: Two-sided p-value of the difference.
        p_rounded: The p-value if both values were rounded in favour of the reference by as much as
            possible.
    """

    published: PublishedValue
    difference: float
    se: float
    p: float
    p_rounded: float


def audit(name: str, reference: str | None = None, folder: Path = FOLDER) -> list[Sheet]:
    """Test which values of a published table differ from those of a reference.

    The test treats two values as independent, since a table does not say more. A paired test on the
    same images would have more power. Holm's family is one metric of one data set.

    Args:
        name: Name of the table, such as ``tea_table4``.
        reference: A method; by default the paper's own, or else the best of each column.
        folder: Folder of the transcribed tables.

    Returns:
        One sheet per data set.

    Raises:
        UserError: If there is no such table, if it has no ±, or if the reference is unknown.
    """
    values = [f for f in read_table(name, folder) if f.pm is not None]
    paper = name.split("_table")[0]
    if not values or paper not in MEANING:
        raise UserError(
            f"{name} prints no ± that could be used, so nothing can be tested; "
            f"see the tables of {' and '.join(MEANING)}."
        )
    methods = dict.fromkeys(f.method for f in values)
    if reference is not None and reference not in methods:
        raise UserError(f"{name} has no method {reference!r}{did_you_mean(reference, methods)}")
    if reference is None and paper in methods:
        reference = paper
    by_dataset = _grouped(values, "dataset")
    return [_sheet(name, dataset, group, reference) for dataset, group in by_dataset.items()]


def _grouped(values: Sequence[PublishedValue], field: str) -> dict[str, list[PublishedValue]]:
    groups: dict[str, list[PublishedValue]] = {}
    for published in values:
        groups.setdefault(getattr(published, field), []).append(published)
    return groups


def _sheet(name: str, dataset: str, values: list[PublishedValue], reference: str | None) -> Sheet:
    rows: list[list[str]] = []
    significant = 0
    tested = 0
    for metric, group in _grouped(values, "metric").items():
        base = _base(group, metric, reference)
        if base is None:
            continue
        rows.append([f"{metric.replace('_', ' ')}, against {base.method} ({base.shown})"])
        claims = [_claim(f, base, values) for f in group if f is not base]
        adjusted = holm([claim.p for claim in claims])
        adjusted_rounded = holm([claim.p_rounded for claim in claims])
        for claim, p, p_rounded in zip(claims, adjusted, adjusted_rounded, strict=True):
            verdict = _verdict(p, p_rounded)
            rows.append(
                [
                    claim.published.method,
                    claim.published.shown,
                    _signed(claim.difference),
                    percent(claim.se, 1),
                    probability(p),
                    probability(p_rounded),
                    verdict,
                ]
            )
            tested += 1
            significant += verdict == "yes"
    caption = [
        f"Audit of {name}: ± is {MEANING[values[0].paper]}. Values in per cent. "
        "Δ: method minus reference; se: standard error of Δ for independent values. "
        "p: two-sided, adjusted by Holm's method within each metric, from the printed values and "
        f"with all rounding against the difference. Significant: yes if both are below {ALPHA:g}, "
        "'if not rounded' if only the first is.",
        f"{significant} of {tested} differences are significant.",
    ]
    heads = [
        ("method",),
        ("printed",),
        ("Δ",),
        ("se",),
        ("p", "(printed)"),
        ("p", "(rounding)"),
        ("significant",),
    ]
    return Sheet(f"{name}, {dataset}", caption, heads, rows, notes=_inconsistencies(values))


def _base(
    group: Sequence[PublishedValue], metric: str, reference: str | None
) -> PublishedValue | None:
    if reference is not None:
        return next((f for f in group if f.method == reference), None)
    best = min if metric in _SMALLER_IS_BETTER else max
    return best(group, key=lambda f: f.value)


def _claim(
    published: PublishedValue, base: PublishedValue, values: Sequence[PublishedValue]
) -> AuditedClaim:
    difference = published.value - base.value
    errors = [standard_error(f, values) for f in (published, base)]
    se = math.hypot(*errors)
    freedom = None
    if published.paper == "ex2l" and se > 0:  # Welch's test, three runs each
        freedom = se**4 / sum(e**4 / (RUNS - 1) for e in errors)
    slack = (published.step + base.step) / 2
    shrunk = max(0.0, abs(difference) - slack)
    return AuditedClaim(
        published,
        difference,
        se,
        _two_sided(abs(difference), se, freedom),
        _two_sided(shrunk, se, freedom),
    )


def standard_error(published: PublishedValue, values: Sequence[PublishedValue]) -> float:
    """Return the standard error of a printed value.

    The error is ± / √runs for eX2L. For TEA, it is the binomial error if the printed ± agrees with
    it within rounding, since it has more digits; otherwise, it is the largest error that the
    printed ± allows.

    Args:
        published: The value.
        values: All values of the same data set.
    """
    assert published.pm is not None
    half = published.step / 2
    if published.paper == "ex2l":
        return max(published.pm, half) / math.sqrt(RUNS)
    by_n = allowed_by_n(published, values)
    if by_n is not None and abs(published.pm - by_n) <= half:
        return by_n
    return published.pm if by_n is not None and published.pm > by_n else published.pm + half


def allowed_by_n(published: PublishedValue, values: Sequence[PublishedValue]) -> float | None:
    """Return the binomial standard error of an accuracy or a gap; None if it is unknown."""
    if published.n is None or not published.metric.endswith(("accuracy", "gap")):
        return None
    if published.metric != "gap":
        p = (published.value * published.n + 1) / (published.n + 2)
        return math.sqrt(p * (1 - p) / published.n)
    parts = _parts(published, values)
    errors = [allowed_by_n(part, values) for part in parts]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) if len(known) == len(parts) == 2 else None


def _parts(gap: PublishedValue, values: Sequence[PublishedValue]) -> list[PublishedValue]:
    """Return the biased and the deceiving accuracy of a gap."""
    names = ("biased_accuracy", "deceiving_accuracy")
    return [f for name in names for f in values if f.metric == name and f.method == gap.method]


def _inconsistencies(values: Sequence[PublishedValue]) -> list[str]:
    """Return notes on ± that contradict n, and on gaps that contradict their accuracies."""
    notes = []
    for published in values:
        by_n = allowed_by_n(published, values) if published.paper == "tea" else None
        # The posterior sd of a balanced score may differ by a quarter of a point.
        tolerance = published.step / 2 + 0.0025
        if by_n is not None and published.pm is not None and abs(published.pm - by_n) > tolerance:
            remark = (
                "more than n allows"
                if published.pm > by_n
                else "possible only if classes differ much"
            )
            notes.append(
                f"{published.method}, {published.metric.replace('_', ' ')}: "
                f"printed ± {percent(published.pm, 0)}, n = {published.n:,} gives "
                f"± {percent(by_n, 1)} ({remark})"
            )
        parts = _parts(published, values) if published.metric == "gap" else []
        if len(parts) == 2:
            difference = abs(parts[0].value - parts[1].value)
            if abs(difference - published.value) > 1.5 * published.step + 1e-9:
                notes.append(
                    f"{published.method}: printed gap {published.shown}, its accuracies differ "
                    f"by {percent(difference, 0)}"
                )
    return notes


def _two_sided(difference: float, se: float, freedom: float | None) -> float:
    if se == 0.0:
        return 0.0 if difference else 1.0
    t = -difference / se
    return float(2 * (ndtr(t) if freedom is None else stdtr(freedom, t)))


def _verdict(p: float | None, p_rounded: float | None) -> str:
    if p is None or p_rounded is None:
        return DASH
    if p_rounded < ALPHA:
        return "yes"
    return "if not rounded" if p < ALPHA else "no"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{percent(value, 1)}"
