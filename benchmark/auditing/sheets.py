"""The tables of an audit, which every format of the report can show, and its JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmark.auditing.audit import Audit
from benchmark.auditing.groups import Accuracy
from benchmark.auditing.paired_mean import PairedMean, smallest_visible
from benchmark.auditing.verdict import (
    MIN_SHIFT,
    PLACEBO_LEVEL,
    THRESHOLD,
    judge_pull,
    judge_transplant,
)
from benchmark.report.tables.sheet import Sheet, with_minus

#: The largest number of groups of a split in the table; JSON has all of them.
_MAX_GROUPS = 8


def sheets(audit: Audit) -> list[Sheet]:
    """Return the tables of an audit, the verdict first."""
    found = [_verdict(audit), _accuracies(audit)]
    if audit.pulls:
        found.append(_pulls(audit))
    found.append(_transplants(audit))
    if audit.heatmaps is not None:
        found.append(_heatmaps(audit))
    return found


def _verdict(audit: Audit) -> Sheet:
    return Sheet(
        "Verdict",
        [audit.verdict.sentence, *audit.verdict.limits],
        [["model"], ["data"], ["verdict"]],
        [[audit.model, audit.data, str(audit.verdict.finding)]],
    )


def _accuracies(audit: Audit) -> Sheet:
    rows = []
    for split in audit.accuracies:
        rows.append([split.split])
        rows.append(_accuracy_row(split.average, split.average.name))
        if split.worst is not None:
            rows.append(_accuracy_row(split.worst, f"worst group: {split.worst.name}"))
        shown = split.groups
        if len(shown) > _MAX_GROUPS:
            shown = tuple(sorted(shown, key=lambda group: group.value)[:_MAX_GROUPS])
            rows.append(_heading_row(f"the {_MAX_GROUPS} lowest of {len(split.groups)} groups:"))
        rows += [_accuracy_row(group, group.name) for group in shown]
    caption = [
        "Accuracy in per cent with 95 % intervals (Clopper–Pearson; for the worst group, an "
        "envelope over groups)."
    ]
    if audit.gap is not None:
        estimate = audit.gap.estimate
        caption.append(
            f"Gap ({audit.gap.name}): {_points(estimate)} points. It is positive if the "
            "confounder helps."
        )
    return Sheet("Accuracy", caption, [["images"], ["accuracy"], ["95 % interval"], ["n"]], rows)


def _heading_row(name: str) -> list[str]:
    return [name, "", "", ""]


def _accuracy_row(accuracy: Accuracy, name: str) -> list[str]:
    return [
        name,
        f"{100 * accuracy.value:.1f}",
        f"[{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]",
        str(accuracy.images),
    ]


def _pulls(audit: Audit) -> Sheet:
    rows = []
    for pull in audit.pulls:
        judged = judge_pull(pull)
        placebo = f"{pull.placebo_p:.2g}" if pull.placebos else "–"
        rows.append(
            [
                pull.mark.kind,
                _points(pull.estimate),
                _number(pull.shift, ".2f"),
                placebo,
                _number(100 * pull.gap, ".1f"),
                f"{100 * pull.raw_flips:.1f}",
                f"{100 * pull.neutral_flips:.1f}",
                f"{100 * pull.area:.1f}",
                str(judged.finding),
            ]
        )
    units = audit.pulls[0].estimate.units
    caption = [
        f"Each class is given a mark. Pull: how much more often {units} images of other classes "
        "are assigned to a class under its mark than under the marks of the other classes, in "
        f"points, with a 95 % interval. A pull above {THRESHOLD:.0%} is reliance.",
        f"Shift: of the score of the class, in standard deviations; reliance needs {MIN_SHIFT}. "
        "Placebo: p of the shift among those of random assignments of marks to classes; reliance "
        f"needs {PLACEBO_LEVEL:g}. Own − "
        "other: difference in accuracy between the mark of the own class and that of another one. "
        "Flips: answers that a mark, or grey in its place, changes; they do not tell a biased "
        "model from a fragile one. Area: share of the image.",
    ]
    if len(audit.probed) < len(audit.labels):
        caption.append(f"Marks stand for the {len(audit.probed)} most frequent classes.")
    heads = [
        ["mark"],
        ["pull", "[95 %]"],
        ["shift", "sd"],
        ["placebo", "p"],
        ["own −", "other"],
        ["flips", "mark"],
        ["flips", "grey"],
        ["area", "%"],
        ["finding"],
    ]
    return Sheet("Marks", caption, heads, rows)


def _transplants(audit: Audit) -> Sheet:
    rows = [
        [t.region.name, _points(t.estimate), str(judge_transplant(t).finding)]
        for t in audit.transplants
    ]
    units = audit.transplants[0].estimate.units if audit.transplants else 0
    caption = [
        f"A region of each of {units} images is replaced by that of an image of another class, and "
        "by that of another image of the same class. Effect: how much more often the model then "
        "answers the other class, in points; the intervals hold for all regions together. It is 0 "
        "for every model if the classes do not differ there. With five classes or more, reliance "
        f"also needs a p of {PLACEBO_LEVEL:g} among the effects for permuted classes."
    ]
    return Sheet("Exchanged regions", caption, [["region"], ["effect"], ["finding"]], rows)


def _heatmaps(audit: Audit) -> Sheet:
    heatmaps = audit.heatmaps
    assert heatmaps is not None
    rows = [
        [name, f"{100 * share:.1f}", f"{share / heatmaps.area:.1f}" if heatmaps.area else "–"]
        for name, share in heatmaps.shares.items()
    ]
    caption = [
        f"Share of the absolute relevance that lies on the {heatmaps.mark.kind}, which covers "
        f"{100 * heatmaps.area:.1f} % of the image, in per cent, and relative to that area. This "
        "is an illustration, not part of the verdict."
    ]
    return Sheet(
        "Relevance on the mark", caption, [["explainer"], ["share"], ["share / area"]], rows
    )


def _points(estimate: PairedMean) -> str:
    if not estimate.units:
        return "–"
    low, high = 100 * estimate.low, 100 * estimate.high
    return with_minus(f"{100 * estimate.mean:.1f} [{low:.1f}, {high:.1f}]")


def _number(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def to_json(audit: Audit) -> dict[str, Any]:
    """Return everything that an audit found, with the values of every image."""
    return {
        "schema": 1,
        "model": audit.model,
        "data": audit.data,
        "labels": list(audit.labels),
        "verdict": str(audit.verdict.finding),
        "sentence": audit.verdict.sentence,
        "limits": list(audit.verdict.limits),
        "threshold": THRESHOLD,
        "min_shift": MIN_SHIFT,
        "placebo_level": PLACEBO_LEVEL,
        "accuracy": [
            {
                "split": split.split,
                "average": _accuracy_json(split.average),
                "worst_group": None if split.worst is None else _accuracy_json(split.worst),
                "groups": [_accuracy_json(group) for group in split.groups],
            }
            for split in audit.accuracies
        ],
        "gap": None
        if audit.gap is None
        else {"name": audit.gap.name, **_mean_json(audit.gap.estimate)},
        "marks": [
            {
                "mark": pull.mark.kind,
                "finding": str(judge_pull(pull).finding),
                "why": judge_pull(pull).why,
                **_mean_json(pull.estimate),
                "classes": list(audit.probed),
                "placebo_shift_max": pull.largest_placebo if pull.placebos else None,
                "placebo_p": pull.placebo_p if pull.placebos else None,
                "shift_sd": _finite(pull.shift),
                "gap": _finite(pull.gap),
                "raw_flips": pull.raw_flips,
                "neutral_flips": pull.neutral_flips,
                "area": pull.area,
                "smallest_visible": smallest_visible(pull.estimate.units, THRESHOLD),
                "values": _values(pull.values),
            }
            for pull in audit.pulls
        ],
        "regions": [
            {
                "region": t.region.name,
                "finding": str(judge_transplant(t).finding),
                "why": judge_transplant(t).why,
                **_mean_json(t.estimate),
                "placebo_p": t.placebo_p if t.placebos else None,
                "values": _values(t.values),
            }
            for t in audit.transplants
        ],
        "relevance": None
        if audit.heatmaps is None
        else {
            "mark": audit.heatmaps.mark.kind,
            "area": audit.heatmaps.area,
            "shares": audit.heatmaps.shares,
        },
        "seconds": round(audit.seconds, 3),
    }


def _accuracy_json(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "name": accuracy.name,
        "value": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "n": accuracy.images,
    }


def _mean_json(estimate: PairedMean) -> dict[str, Any]:
    return {
        "mean": _finite(estimate.mean),
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.units,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _values(values: np.ndarray) -> list[float | None]:
    return [_finite(float(value)) for value in values]
