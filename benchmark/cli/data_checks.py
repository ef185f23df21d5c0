"""The checks of ``benchmark.data check``: leaks, repeated images, missing groups, damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmark.core.dataset import UNKNOWN, DatasetSource, GroupedDataset, Split

#: Returns the name of a row of a split, for messages.
NameOf = Callable[[str, Split, int], str]
#: The largest number of names in a message; the others are counted.
_MAX_NAMES = 5


@dataclass(frozen=True)
class Findings:
    """Findings of the checks, as sentences.

    Args:
        problems: what is wrong with the data.
        notes: what may be intended, but is worth knowing.
    """

    problems: list[str]
    notes: list[str]


def examine(source: DatasetSource, data: GroupedDataset) -> Findings:
    """Run all checks on the data of one trial, including those of its source."""
    digests = ImageDigests(data)
    missing = missing_groups(data)
    problems = [
        *source.problems(),
        *leaks(data, source.file_of, digests),
        *repeats(data, source.file_of, digests),
        *oddities(
            data,
            masks_may_be_empty=source.masks_may_be_empty,
            classes_may_be_missing=source.classes_may_be_missing,
        ),
        *([] if source.designed else missing),
    ]
    return Findings(problems, [*source.notes(), *(missing if source.designed else [])])


class ImageDigests:
    """Digests of the pixels of all images, computed once."""

    def __init__(self, data: GroupedDataset) -> None:
        self.data = data

    @cached_property
    def by_split(self) -> dict[str, list[bytes]]:
        """Return the digest of every image, by split."""
        return {name: _digests(split) for name, split in self.data.splits.items()}


def _digests(split: Split) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in split.image]


def members(data: GroupedDataset, name: str) -> dict[str, np.ndarray]:
    """Return the rows of every group of a split, or of every class if there are no groups.

    Args:
        data: the data set.
        name: the name of the split.

    Returns:
        int64[n] for each name. In multi-label data an image may be in several classes. A split
        without labels has one entry.
    """
    split = data.splits[name]
    if name in data.info.unlabelled_splits:
        return {"unlabelled": np.arange(len(split))}
    group = data.group(name)
    if data.info.multi_label:
        found = {
            label: np.flatnonzero(split.label[:, k] == 1)
            for k, label in enumerate(data.info.label_names)
        }
        none = "none" if "none" not in found else "no label at all"
        return {**found, none: np.flatnonzero(~(split.label == 1).any(1))}
    names = data.info.label_names if group is None else data.info.group_names
    return {
        text: np.flatnonzero((split.label if group is None else group) == g)
        for g, text in enumerate(names)
    }


def leaks(
    data: GroupedDataset, name_of: NameOf | None = None, digests: ImageDigests | None = None
) -> list[str]:
    """Find equal images and patients that two splits share. Test splits may share with each other.

    Args:
        data: the data set.
        name_of: returns the name of a row of a split; by default its number.
        digests: the digests of the data, if they are known already.
    """
    name_of = name_of or _row_name
    images = (digests or ImageDigests(data)).by_split
    problems = []
    parts = {name: [name] for name in ("train", "val")} | {"the tests": list(data.info.test_splits)}
    patients = {
        name: [] if split.cluster is None else split.cluster.tolist()
        for name, split in data.splits.items()
    }
    kinds: tuple[tuple[str, Mapping[str, Sequence[object]]], ...] = (
        ("equal image", images),
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
                    name_of(name, data.splits[name], row)
                    for name, row in (places[one][first], places[other][first])
                ]
                count = f"{_count(len(shared), what)} {'is' if len(shared) == 1 else 'are'}"
                problems.append(
                    f"{count} both in {one} and in {other}, the first as {where[0]} and {where[1]}."
                )
    return problems


def repeats(
    data: GroupedDataset, name_of: NameOf | None = None, digests: ImageDigests | None = None
) -> list[str]:
    """Find images that are in one split more than once, with contradicting or equal annotations.

    Args:
        data: the data set.
        name_of: returns the name of a row of a split; by default its number.
        digests: the digests of the data, if they are known already.
    """
    name_of = name_of or _row_name
    problems = []
    for name, images in (digests or ImageDigests(data)).by_split.items():
        split = data.splits[name]
        rows_of: dict[bytes, list[int]] = {}
        for row, digest in enumerate(images):
            rows_of.setdefault(digest, []).append(row)
        equal = [rows for rows in rows_of.values() if len(rows) > 1]
        labels = [pair for rows in equal if (pair := _differ(split.label, rows))]
        agreeing = [rows for rows in equal if not _differ(split.label, rows)]
        groups = [pair for rows in agreeing if (pair := _differ(split.confounder, rows))]
        same = [rows for rows in agreeing if not _differ(split.confounder, rows)]
        for what, pairs in (("labels", labels), ("confounders", groups)):
            if pairs:
                problems.append(
                    f"{_count(len(pairs), 'equal image')} of {name} {_have(len(pairs))} different "
                    f"{what}, the first as {_both(split, name, pairs[0], name_of)}."
                )
        if same:
            copies = sum(len(rows) - 1 for rows in same)
            problems.append(
                f"{_count(len(same), 'image')} of {name} {_are(len(same))} there more than once, "
                f"with {copies:,} {'copy' if copies == 1 else 'copies'} in all, the first as "
                f"{_both(split, name, (same[0][0], same[0][1]), name_of)}."
            )
    return problems


def _differ(values: np.ndarray | None, rows: Sequence[int]) -> tuple[int, int] | None:
    """Return the first row and the first other row with a different value, or None."""
    if values is None:
        return None
    return next(
        ((rows[0], row) for row in rows[1:] if (values[row] != values[rows[0]]).any()), None
    )


def _both(split: Split, name: str, rows: tuple[int, int], name_of: NameOf) -> str:
    return " and ".join(name_of(name, split, row) for row in rows)


def missing_groups(data: GroupedDataset) -> list[str]:
    """Find groups that a split lacks although it has their class and another split has the group.

    Selection criteria cannot consider a group that val lacks, methods cannot balance a group that
    train lacks, and the worst-group accuracy ignores a group that a test split lacks. The two test
    splits of the generalisation gap lack groups by design.
    """
    if any(split.confounder is None for split in data.splits.values()):
        return []
    present = {name: _present(data, name) for name in data.splits}
    names = data.info.group_names
    problems = []
    for name in data.splits:
        if name in (data.info.bias_splits or ()):
            continue
        others = [other for other in data.splits if other != name]
        missing = [
            g
            for g in range(len(names))
            if not present[name][g]
            and _has_class(data, name, g)
            and any(present[other][g] for other in others)
        ]
        if missing:
            where = [other for other in others if any(present[other][g] for g in missing)]
            them = "it" if len(missing) == 1 else "them"
            problems.append(
                f"{name} has no image of {_some([names[g] for g in missing])}; "
                f"{_some(where, last='and')} {'has' if len(where) == 1 else 'have'} {them}."
            )
    return problems


def _present(data: GroupedDataset, name: str) -> np.ndarray:
    """Return for each group whether a split has images of it, bool[G]."""
    split = data.splits[name]
    confounders = len(data.info.confounder_names)
    assert split.confounder is not None
    if not data.info.multi_label:
        group = split.label * confounders + split.confounder
        return np.bincount(group, minlength=len(data.info.group_names)) > 0
    out = np.zeros((split.label.shape[1], 2, confounders), bool)
    for k in range(split.label.shape[1]):
        known = split.label[:, k] != UNKNOWN
        out[k, split.label[known, k], split.confounder[known]] = True
    return out.reshape(-1)


def _has_class(data: GroupedDataset, name: str, group: int) -> bool:
    """Return True if a split has images with the class of a group; see ``oddities`` if not."""
    split = data.splits[name]
    confounders = len(data.info.confounder_names)
    if data.info.multi_label:
        label, value = divmod(group // confounders, 2)
        return bool((split.label[:, label] == value).any())
    return bool((split.label == group // confounders).any())


def oddities(
    data: GroupedDataset,
    *,
    masks_may_be_empty: bool = False,
    classes_may_be_missing: bool = False,
) -> list[str]:
    """Find constant images, masks without foreground or background, and missing classes.

    Args:
        data: The data set.
        masks_may_be_empty: True if a mask without foreground is not a problem.
        classes_may_be_missing: True if a class without images in a split is not a problem.
    """
    problems = []
    for name, split in data.splits.items():
        flat = sum(bool((image == image.flat[0]).all()) for image in split.image)
        if flat:
            problems.append(
                f"{_count(flat, 'image')} of {name} show{'s' * (flat == 1)} one value only."
            )
        if split.mask is not None:
            for what, empty in (("no foreground", True), ("no background", False)):
                if empty and masks_may_be_empty:
                    continue
                count = sum(
                    bool(mask.any() != empty) if empty else bool(mask.all()) for mask in split.mask
                )
                if count:
                    problems.append(f"{_count(count, 'mask')} of {name} {_have(count)} {what}.")
        missing = [] if classes_may_be_missing else list(_missing_classes(data, name))
        if missing:
            problems.append(f"{name} has no image of {_some(missing)}.")
    return problems


def _missing_classes(data: GroupedDataset, name: str) -> Iterator[str]:
    """Yield the classes that a split lacks; for multi-label data also those of all images."""
    split = data.splits[name]
    names = data.info.label_names
    if not data.info.multi_label:
        shown = set(split.label.tolist())
        yield from (text for k, text in enumerate(names) if k not in shown)
        return
    for k, text in enumerate(names):
        if not (split.label[:, k] == 1).any():
            yield text
        elif not (split.label[:, k] == 0).any():
            yield f"no {text}"


def _some(names: Iterable[str], last: str = "or") -> str:
    """Join names as in ``a, b or c``; of many names only the first few are given."""
    names = list(names)
    if len(names) > _MAX_NAMES:
        return f"{', '.join(names[:_MAX_NAMES])} and {len(names) - _MAX_NAMES} more"
    return ", ".join(names) if len(names) < 2 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _row_name(name: str, split: Split, row: int) -> str:
    return f"row {row} of {name}"
