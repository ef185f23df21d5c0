"""The rules by which the experiments become a verdict, and its sentence."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmark.auditing.paired_mean import PairedMean, smallest_visible
from benchmark.auditing.pull import COMPRESSION, Pull
from benchmark.auditing.transplant import Transplant

#: A reliance below this share of answers counts as none.
THRESHOLD = 0.02
#: A reliance must shift the scores by at least this many standard deviations, and more than the
#: placebos do at this level.
MIN_SHIFT = 0.3
PLACEBO_LEVEL = 0.05
#: With fewer images, the report states the smallest reliance that could have been seen.
ENOUGH_FOR_PULL = 50
ENOUGH_FOR_TRANSPLANT = 240
#: Beyond these, a mark may change answers because it hides the object.
MAX_AREA = 0.1
MAX_NEUTRAL_FLIPS = 0.05


class Finding(enum.StrEnum):
    """What an experiment shows about one shortcut, and what an audit shows about a model."""

    RELIES = "relies"
    NOT_FOUND = "no reliance found"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judged:
    """The finding about one mark or region.

    Attributes:
        finding: The finding.
        why: The reason, as a clause.
    """

    finding: Finding
    why: str


@dataclass(frozen=True)
class Verdict:
    """The verdict of an audit.

    Attributes:
        finding: The finding about the model.
        sentence: The verdict in plain words, with its evidence and uncertainty.
        limits: What could not have been seen, and warnings; complete sentences.
    """

    finding: Finding
    sentence: str
    limits: tuple[str, ...]


def judge_pull(pull: Pull) -> Judged:
    """Return the finding about one kind of mark.

    Two controls must be passed: the other classes' marks, which are part of the pull, and the
    placebos. The shift must also be large enough: by chance, one of some innocent models shifts a
    little more than its placebos do.
    """
    estimate = pull.estimate
    if estimate.high < THRESHOLD:
        return Judged(Finding.NOT_FOUND, f"the pull is below {THRESHOLD:.0%}")
    if estimate.low <= THRESHOLD:
        return Judged(Finding.UNDECIDED, f"the interval contains {THRESHOLD:.0%}")
    if not pull.placebos:
        return Judged(Finding.UNDECIDED, "there are no placebo marks to compare with")
    if not pull.shift >= MIN_SHIFT:
        return Judged(Finding.UNDECIDED, f"it shifts scores by less than {MIN_SHIFT} sd")
    if pull.placebo_p > PLACEBO_LEVEL:
        return Judged(Finding.UNDECIDED, "it reacts as strongly to marks that mean nothing")
    return Judged(Finding.RELIES, f"the pull is above {THRESHOLD:.0%}")


def judge_transplant(transplant: Transplant) -> Judged:
    """Return the finding about one region."""
    estimate = transplant.estimate
    if estimate.low > THRESHOLD:
        if transplant.placebos and transplant.placebo_p > PLACEBO_LEVEL:
            why = "answers follow it to other classes as often"
            return Judged(Finding.UNDECIDED, why)
        return Judged(Finding.RELIES, f"the effect is above {THRESHOLD:.0%}")
    if estimate.high < THRESHOLD:
        return Judged(Finding.NOT_FOUND, f"the effect is below {THRESHOLD:.0%}")
    return Judged(Finding.UNDECIDED, f"the interval contains {THRESHOLD:.0%}")


def decide(
    pulls: Sequence[Pull],
    transplants: Sequence[Transplant],
    classes: int,
    not_planted: Mapping[str, str] | None = None,
) -> Verdict:
    """Return the verdict of all experiments.

    The model relies on a shortcut if any experiment shows it. No reliance was found if every
    experiment excludes it. Otherwise the audit is undecided.

    Args:
        pulls: the results for the marks.
        transplants: the results for the regions.
        classes: the number of classes.
        not_planted: marks that were not tried, and why.
    """
    marks = [(pull, judge_pull(pull)) for pull in pulls]
    regions = [(transplant, judge_transplant(transplant)) for transplant in transplants]
    found = [
        f"the {pull.mark.kind} (the mark of a class pulls {_share(pull.estimate)} of the answers "
        "to it)"
        for pull, judged in marks
        if judged.finding is Finding.RELIES
    ]
    found += [
        f"the {t.region.name} (an exchange carries {_share(t.estimate)} of the answers with it)"
        for t, judged in regions
        if judged.finding is Finding.RELIES
    ]
    limits = _limits(pulls, transplants, classes, not_planted or {})
    if found:
        return Verdict(Finding.RELIES, f"The model relies on {_joined(found)}.", limits)
    tried = [f"the {pull.mark.kind}" for pull in pulls]
    tried += [f"the {transplant.region.name}" for transplant in transplants]
    judgements = [judged for _, judged in [*marks, *regions]]
    if judgements and all(judged.finding is Finding.NOT_FOUND for judged in judgements):
        sentence = (
            f"No reliance on {_joined(tried)} was found: every interval is below {THRESHOLD:.0%}."
        )
        return Verdict(Finding.NOT_FOUND, sentence, limits)
    open_ones: dict[str, list[str]] = {}
    for name, judged in zip(tried, judgements, strict=True):
        if judged.finding is Finding.UNDECIDED:
            open_ones.setdefault(judged.why, []).append(name)
    # A mark and a region may have the same name.
    clauses = [f"{_joined(list(dict.fromkeys(names)))} ({why})" for why, names in open_ones.items()]
    sentence = (
        "Undecided: these images cannot tell whether the model relies on "
        f"{', or on '.join(clauses)}."
    )
    if not judgements:
        sentence = "Undecided: no experiment was possible on these images."
    return Verdict(Finding.UNDECIDED, sentence, limits)


def _share(estimate: PairedMean) -> str:
    mean = max(estimate.mean, 0.0)
    low = max(estimate.low, 0.0)
    return f"{mean:.0%} [{low:.0%}, {estimate.high:.0%}]"


def _joined(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _limits(
    pulls: Sequence[Pull],
    transplants: Sequence[Transplant],
    classes: int,
    not_planted: Mapping[str, str],
) -> tuple[str, ...]:
    limits = [
        "A shortcut of another kind, in another place, or that these images do not carry, could "
        "not have been seen."
    ]
    for why in dict.fromkeys(not_planted.values()):
        kinds = _joined([kind for kind, reason in not_planted.items() if reason == why])
        limits.append(f"Not tried, since {why}: {kinds}.")
    if pulls and (units := pulls[0].estimate.units) < ENOUGH_FOR_PULL:
        smallest = smallest_visible(units, THRESHOLD)
        limits.append(
            f"With {units} images, a mark that decides fewer than {smallest:.0%} of the answers "
            "would not have been found."
        )
    if transplants and (units := transplants[0].estimate.units) < ENOUGH_FOR_TRANSPLANT:
        level = 1 - 0.05 / len(transplants)
        smallest = smallest_visible(units, THRESHOLD, level)
        limits.append(
            f"With {units} images, a region that decides fewer than {smallest:.0%} of the answers "
            "would not have been found."
        )
    for pull in pulls:
        if pull.mark.kind == COMPRESSION:
            continue
        if pull.area > MAX_AREA or pull.neutral_flips > MAX_NEUTRAL_FLIPS:
            limits.append(
                f"The {pull.mark.kind} covers {pull.area:.0%} of the image, and a grey patch in "
                f"its place changes {pull.neutral_flips:.0%} of the answers: it may hide the "
                "object."
            )
    if pulls and pulls[0].classes <= classes / 2:
        limits.append(
            f"The model answers only {pulls[0].classes} of {classes} classes on these images."
        )
    return tuple(limits)
