"""What `benchmark.data check` looks for in loaded data: leaks, repeated pictures, gaps, and what looks odd."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmark.core.dataset import DatasetSource, GroupedDataset, Split

#: What to call a row of a split, for people.
NameOf = Callable[[str, Split, int], str]
#: Names in one sentence; the others are counted.
_MOST = 5


@dataclass(frozen=True)
class Findings:
    """Sentences about a data set: what is wrong, and what is worth knowing and may be meant."""

    problems: list[str]
    notes: list[str]


def examine(source: DatasetSource, data: GroupedDataset) -> Findings:
    """Everything that is found in the data of one trial, and what their source itself reports."""
    pictures = _Pictures(data)
    lacking = gaps(data)
    problems = [
        *source.problems(),
        *leaks(data, source.file_of, pictures),
        *repeats(data, source.file_of, pictures),
        *oddities(data),
        *([] if source.designed else lacking),
    ]
    return Findings(problems, [*source.notes(), *(lacking if source.designed else [])])


class _Pictures:
    """Digests of the pixels of every picture, made once."""

    def __init__(self, data: GroupedDataset) -> None:
        self.data = data

    @cached_property
    def digests(self) -> dict[str, list[bytes]]:
        return {name: _digests(split) for name, split in self.data.splits.items()}


def _digests(split: Split) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in split.image]


def members(data: GroupedDataset, name: str) -> dict[str, np.ndarray]:
    """The rows int64[n] of every group of a split, or of every class; with several labels images may be in many."""
    split, group = data.splits[name], data.group(name)
    if data.info.multi_label:
        found = {
            label: np.flatnonzero(split.label[:, k])
            for k, label in enumerate(data.info.label_names)
        }
        none = "none" if "none" not in found else "no label at all"
        return {**found, none: np.flatnonzero(~split.label.any(1))}
    names = data.info.label_names if group is None else data.info.group_names
    return {
        text: np.flatnonzero((split.label if group is None else group) == g)
        for g, text in enumerate(names)
    }


def leaks(
    data: GroupedDataset, name_of: NameOf | None = None, pictures: _Pictures | None = None
) -> list[str]:
    """What two splits share and must not: equal images, and patients. Tests may share with each other.

    Args:
        data: the data set.
        name_of: what to call a row of a split, for people; without it by its number.
        pictures: digests of the data, where they are there already.
    """
    called = name_of or _row_of
    digests = (pictures or _Pictures(data)).digests
    problems = []
    parts = {name: [name] for name in ("train", "val")} | {"the tests": list(data.info.test_splits)}
    patients = {
        name: [] if split.cluster is None else split.cluster.tolist()
        for name, split in data.splits.items()
    }
    kinds: tuple[tuple[str, Mapping[str, Sequence[object]]], ...] = (
        ("equal image", digests),
        ("patient", patients),
    )
    for what, values in kinds:
        places = {
            part: {v: (name, row) for name in names for row, v in enumerate(values[name])}
            for part, names in parts.items()
        }
        for one, other in (("train", "val"), ("train", "the tests"), ("val", "the tests")):
            shared = places[one].keys() & places[other].keys()
            if shared:
                first = min(shared, key=lambda v: places[one][v][1])
                where = [
                    called(name, data.splits[name], row)
                    for name, row in (places[one][first], places[other][first])
                ]
                count = f"{_count(len(shared), what)} {'is' if len(shared) == 1 else 'are'}"
                problems.append(
                    f"{count} both in {one} and in {other}, the first as {where[0]} and {where[1]}."
                )
    return problems


def repeats(
    data: GroupedDataset, name_of: NameOf | None = None, pictures: _Pictures | None = None
) -> list[str]:
    """Images that are in one split more than once: those that contradict each other, and the others.

    Args:
        data: the data set.
        name_of: what to call a row of a split, for people; without it by its number.
        pictures: digests of the data, where they are there already.
    """
    called = name_of or _row_of
    problems = []
    for name, digests in (pictures or _Pictures(data)).digests.items():
        split = data.splits[name]
        rows_of: dict[bytes, list[int]] = {}
        for row, digest in enumerate(digests):
            rows_of.setdefault(digest, []).append(row)
        equal = [rows for rows in rows_of.values() if len(rows) > 1]
        labels = [pair for rows in equal if (pair := _differ(split.label, rows))]
        agreeing = [rows for rows in equal if not _differ(split.label, rows)]
        groups = [pair for rows in agreeing if (pair := _differ(split.confounder, rows))]
        same = [rows for rows in agreeing if not _differ(split.confounder, rows)]
        for what, pairs in (("labels", labels), ("confounders", groups)):
            if pairs:
                problems.append(
                    f"{_count(len(pairs), 'equal image')} of {name} {_have(len(pairs))} different {what}, the first as "
                    f"{_both(split, name, pairs[0], called)}."
                )
        if same:
            copies = sum(len(rows) - 1 for rows in same)
            problems.append(
                f"{_count(len(same), 'image')} of {name} {_are(len(same))} there more than once, with {copies:,} "
                f"{'copy' if copies == 1 else 'copies'} in all, the first as "
                f"{_both(split, name, (same[0][0], same[0][1]), called)}."
            )
    return problems


def _differ(values: np.ndarray | None, rows: Sequence[int]) -> tuple[int, int] | None:
    """The first of the rows, and the first of the others that has another value."""
    if values is None:
        return None
    return next(
        ((rows[0], row) for row in rows[1:] if (values[row] != values[rows[0]]).any()), None
    )


def _both(split: Split, name: str, rows: tuple[int, int], called: NameOf) -> str:
    return " and ".join(called(name, split, row) for row in rows)


def gaps(data: GroupedDataset) -> list[str]:
    """Groups that one split has and another lacks, though it has their class.

    What val lacks, no criterion of model selection sees; what train lacks, no method that balances groups can balance;
    what a test lacks, its worst group leaves out. The two tests whose difference is the generalisation gap lack groups
    by their meaning.
    """
    if any(split.confounder is None for split in data.splits.values()):
        return []
    present = {name: _present(data, name) for name in data.splits}
    names = data.info.group_names
    out = []
    for name in data.splits:
        if name in (data.info.bias_splits or ()):
            continue
        others = [other for other in data.splits if other != name]
        lacking = [
            g
            for g in range(len(names))
            if not present[name][g]
            and _shows_class(data, name, g)
            and any(present[other][g] for other in others)
        ]
        if lacking:
            where = [other for other in others if any(present[other][g] for g in lacking)]
            them = "it" if len(lacking) == 1 else "them"
            out.append(
                f"{name} has no image of {_some([names[g] for g in lacking])}; "
                f"{_some(where, last='and')} {'has' if len(where) == 1 else 'have'} {them}."
            )
    return out


def _present(data: GroupedDataset, name: str) -> np.ndarray:
    """Whether a split has images of each group, bool[G]."""
    split, confounders = data.splits[name], len(data.info.confounder_names)
    assert split.confounder is not None
    if not data.info.multi_label:
        group = split.label * confounders + split.confounder
        return np.bincount(group, minlength=len(data.info.group_names)) > 0
    out = np.zeros((split.label.shape[1], 2, confounders), bool)
    for k in range(split.label.shape[1]):
        out[k, split.label[:, k], split.confounder] = True
    return out.reshape(-1)


def _shows_class(data: GroupedDataset, name: str, group: int) -> bool:
    """Whether a split has the class, or the answer, of a group at all: else that is reported, and not its groups."""
    split, confounders = data.splits[name], len(data.info.confounder_names)
    if data.info.multi_label:
        label, answer = divmod(group // confounders, 2)
        return bool((split.label[:, label] == answer).any())
    return bool((split.label == group // confounders).any())


def oddities(data: GroupedDataset) -> list[str]:
    """Images of one value, masks without foreground or without background, and classes that a split lacks."""
    problems = []
    for name, split in data.splits.items():
        flat = sum(bool((image == image.flat[0]).all()) for image in split.image)
        if flat:
            problems.append(
                f"{_count(flat, 'image')} of {name} show{'s' * (flat == 1)} one value only."
            )
        if split.mask is not None:
            for what, empty in (("no foreground", True), ("no background", False)):
                count = sum(
                    bool(mask.any() != empty) if empty else bool(mask.all()) for mask in split.mask
                )
                if count:
                    problems.append(f"{_count(count, 'mask')} of {name} {_have(count)} {what}.")
        lacking = list(_lacking(data, name))
        if lacking:
            problems.append(f"{name} has no image of {_some(lacking)}.")
    return problems


def _lacking(data: GroupedDataset, name: str) -> Iterator[str]:
    """Classes that a split lacks; of data with several labels also those that all of its images have."""
    split, names = data.splits[name], data.info.label_names
    if not data.info.multi_label:
        shown = set(split.label.tolist())
        yield from (text for k, text in enumerate(names) if k not in shown)
        return
    for k, text in enumerate(names):
        if not split.label[:, k].any():
            yield text
        elif split.label[:, k].all():
            yield f"no {text}"


def _some(names: Iterable[str], last: str = "or") -> str:
    """``a, b or c``; of many the first few, and the number of the others."""
    names = list(names)
    if len(names) > _MOST:
        return f"{', '.join(names[:_MOST])} and {len(names) - _MOST} more"
    return ", ".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _row_of(name: str, split: Split, row: int) -> str:
    return f"row {row} of {name}"
