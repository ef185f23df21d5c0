"""A published table's claims, re-examined from its own numbers: value, ± and n, with what rounding hides."""

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

#: Runs behind a mean ± sd of the eX2L paper.
RUNS = 3
_SMALLER_IS_BETTER = ("gap",)


@dataclass(frozen=True)
class AuditedClaim:
    """One method against the reference: the printed difference, its standard error, and p with and without rounding."""

    figure: PublishedValue
    difference: float
    se: float
    p: float
    p_rounded: (
        float  # if both figures were rounded to the reference's favour by all that rounding allows
    )


def audit(name: str, reference: str | None = None, folder: Path = FOLDER) -> list[Sheet]:
    """One sheet per data set of a published table: which figures can be told from the reference's.

    Args:
        name: such as ``tea_table4``. reference: a method; by default the paper's own, or else the best of each column.

    The test treats the two figures as independent, as a reader must: on the same test images a paired test would see
    more. Holm's family is one metric of one data set.

    Raises:
        UserError: no such table, a table without ±, or an unknown reference.
    """
    figures = [f for f in read_table(name, folder) if f.pm is not None]
    paper = name.split("_table")[0]
    if not figures or paper not in MEANING:
        raise UserError(
            f"{name} prints no ± that could be used, so nothing can be tested; see those of {' and '.join(MEANING)}."
        )
    methods = dict.fromkeys(f.method for f in figures)
    if reference is not None and reference not in methods:
        raise UserError(f"{name} has no method {reference!r}{did_you_mean(reference, methods)}")
    chosen = reference or (paper if paper in methods else None)
    return [
        _sheet(name, dataset, group, chosen) for dataset, group in _by(figures, "dataset").items()
    ]


def _by(figures: Sequence[PublishedValue], field: str) -> dict[str, list[PublishedValue]]:
    found: dict[str, list[PublishedValue]] = {}
    for figure in figures:
        found.setdefault(getattr(figure, field), []).append(figure)
    return found


def _sheet(name: str, dataset: str, figures: list[PublishedValue], reference: str | None) -> Sheet:
    rows: list[list[str]] = []
    told = tested = 0
    for metric, group in _by(figures, "metric").items():
        base = _base(group, metric, reference)
        if base is None:
            continue
        rows.append([f"{metric.replace('_', ' ')}, against {base.method} ({base.shown})"])
        claims = [_claim(f, base, figures) for f in group if f is not base]
        adjusted = [holm([getattr(c, which) for c in claims]) for which in ("p", "p_rounded")]
        for claim, p, p_rounded in zip(claims, *adjusted, strict=True):
            verdict = _verdict(p, p_rounded)
            rows.append(
                [claim.figure.method, claim.figure.shown, _signed(claim.difference), percent(claim.se, 1),
                 probability(p), probability(p_rounded), verdict]
            )  # fmt: skip
            tested += 1
            told += verdict == "yes"
    caption = [
        f"Audit of {name}: ± is {MEANING[figures[0].paper]}. Figures in per cent. Δ: method minus reference; "
        "se: of Δ, figures taken as independent. p after Holm within each metric, from the "
        "printed figures and with all rounding against the difference. "
        f"Told apart: yes where both are below {ALPHA:g}, 'if not rounded' where only the first is.",
        f"{told} of {tested} differences can be told apart.",
    ]
    heads = [
        ("method",),
        ("printed",),
        ("Δ",),
        ("se",),
        ("p", "(printed)"),
        ("p", "(rounding)"),
        ("told", "apart"),
    ]
    return Sheet(f"{name}, {dataset}", caption, heads, rows, notes=_inconsistencies(figures))


def _base(
    group: Sequence[PublishedValue], metric: str, reference: str | None
) -> PublishedValue | None:
    if reference is not None:
        return next((f for f in group if f.method == reference), None)
    best = min if metric in _SMALLER_IS_BETTER else max
    return best(group, key=lambda f: f.value)


def _claim(
    figure: PublishedValue, base: PublishedValue, figures: Sequence[PublishedValue]
) -> AuditedClaim:
    difference = figure.value - base.value
    errors = [standard_error(f, figures) for f in (figure, base)]
    se = math.hypot(*errors)
    freedom = None
    if figure.paper == "ex2l" and se > 0:  # Welch: three runs each
        freedom = se**4 / sum(e**4 / (RUNS - 1) for e in errors)
    slack = (figure.step + base.step) / 2
    shrunk = max(0.0, abs(difference) - slack)
    return AuditedClaim(
        figure,
        difference,
        se,
        _two_sided(abs(difference), se, freedom),
        _two_sided(shrunk, se, freedom),
    )


def standard_error(figure: PublishedValue, figures: Sequence[PublishedValue]) -> float:
    """Standard error of a printed figure.

    eX2L: ± / √runs. TEA: what n gives, where the printed ± agrees with it within rounding (it has more digits); else
    the largest that the printed ± can stand for.
    """
    assert figure.pm is not None
    half = figure.step / 2
    if figure.paper == "ex2l":
        return max(figure.pm, half) / math.sqrt(RUNS)
    by_n = allowed_by_n(figure, figures)
    if by_n is not None and abs(figure.pm - by_n) <= half:
        return by_n
    return figure.pm if by_n is not None and figure.pm > by_n else figure.pm + half


def allowed_by_n(figure: PublishedValue, figures: Sequence[PublishedValue]) -> float | None:
    """The binomial standard error of an accuracy, or of a gap from its two accuracies; None where n is not known."""
    if figure.n is None or not figure.metric.endswith(("accuracy", "gap")):
        return None
    if figure.metric != "gap":
        p = (figure.value * figure.n + 1) / (figure.n + 2)
        return math.sqrt(p * (1 - p) / figure.n)
    parts = _parts(figure, figures)
    errors = [allowed_by_n(part, figures) for part in parts]
    return (
        math.hypot(*[e for e in errors if e is not None])
        if len(parts) == 2 and None not in errors
        else None
    )


def _parts(gap: PublishedValue, figures: Sequence[PublishedValue]) -> list[PublishedValue]:
    """The biased and the deceiving accuracy behind a gap."""
    names = ("biased_accuracy", "deceiving_accuracy")
    return [f for name in names for f in figures if f.metric == name and f.method == gap.method]


def _inconsistencies(figures: Sequence[PublishedValue]) -> list[str]:
    """Printed ± that n can hardly produce, and gaps that are not the difference of their accuracies."""
    notes = []
    for figure in figures:
        by_n = allowed_by_n(figure, figures) if figure.paper == "tea" else None
        # The posterior sd of a balanced score differs a little from the binomial one: a quarter of a point is let be.
        if (
            by_n is not None
            and figure.pm is not None
            and abs(figure.pm - by_n) > figure.step / 2 + 0.0025
        ):
            than = (
                "more than n can make"
                if figure.pm > by_n
                else "possible only where classes differ much"
            )
            notes.append(
                f"{figure.method}, {figure.metric.replace('_', ' ')}: printed ± {percent(figure.pm, 0)}, "
                f"n = {figure.n:,} gives ± {percent(by_n, 1)} ({than})"
            )
        parts = _parts(figure, figures) if figure.metric == "gap" else []
        if len(parts) == 2:
            difference = abs(parts[0].value - parts[1].value)
            if abs(difference - figure.value) > 1.5 * figure.step + 1e-9:
                differ = percent(difference, 0)
                notes.append(
                    f"{figure.method}: printed gap {figure.shown}, its accuracies differ by {differ}"
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
    return "yes" if p_rounded < ALPHA else "if not rounded" if p < ALPHA else "no"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{percent(value, 1)}"
