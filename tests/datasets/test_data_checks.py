"""The checks of `benchmark.data check`, compared with counts made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from benchmark.cli.data_checks import examine, leaks, members, missing_groups, oddities, repeats
from benchmark.core.dataset import DatasetInfo, GroupedDataset, Split
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS
from tests.support.messages import each_mentions, mentions

LABELS = ("a", "b")
CONFOUNDERS = ("x", "y")


def split(groups: Mapping[str, int], seed: int = 0, multi_label: bool = False) -> Split:
    """Make images of each group ``label/confounder``; ``ab`` has two labels and ``-`` none."""
    names = [name for name, count in groups.items() for _ in range(count)]
    image = np.random.default_rng(seed).integers(0, 256, (len(names), 3, 4, 4), dtype=np.uint8)
    pairs = [name.split("/") for name in names]
    label = (
        np.array([[int(k in text) for k in LABELS] for text, _ in pairs], np.int64)
        if multi_label
        else np.array([LABELS.index(text) for text, _ in pairs], np.int64)
    )
    return Split(image, label, np.array([CONFOUNDERS.index(z) for _, z in pairs], np.int64))


WHOLE = {"a/x": 2, "a/y": 2, "b/x": 2, "b/y": 2}
EVERY = {f"{text}/{z}": 1 for text in ("a", "b", "ab", "-") for z in CONFOUNDERS}


def data(
    splits: Mapping[str, Split], bias: tuple[str, str] | None = None, multi_label: bool = False
) -> GroupedDataset:
    info = DatasetInfo(
        LABELS, CONFOUNDERS, (), (3, 4, 4), tuple(splits), Needs(confounder=True, groups=True),
        (0.5,) * 3, (0.5,) * 3, "here", "none", bias_splits=bias, multi_label=multi_label,
    )  # fmt: skip
    return GroupedDataset("made", {}, info, splits, "0" * 16)


def three(multi_label: bool = False, **changed: Mapping[str, int]) -> GroupedDataset:
    whole = EVERY if multi_label else WHOLE
    parts = {"train": whole, "val": whole, "test": whole, **changed}
    return data(
        {
            name: split(groups, seed, multi_label)
            for seed, (name, groups) in enumerate(parts.items())
        },
        multi_label=multi_label,
    )


def test_no_gap() -> None:
    for multi_label in (False, True):
        made = three(multi_label)
        assert missing_groups(made) == oddities(made) == leaks(made) == repeats(made) == []


@pytest.mark.parametrize("lacking", ["train", "val", "test"])
def test_a_group_that_a_split_lacks(lacking: str) -> None:
    made = three(**{lacking: {"a/x": 1, "a/y": 2, "b/x": 3}})
    others = " and ".join(name for name in ("train", "val", "test") if name != lacking)
    assert each_mentions(missing_groups(made), (lacking, "b/y", others))


def test_groups_that_several_splits_lack() -> None:
    made = three(val={"a/x": 1, "b/x": 1}, train={"a/x": 1, "a/y": 1, "b/x": 1})
    assert each_mentions(
        missing_groups(made), ("train", "b/y", "test"), ("val", "a/y", "b/y", "train and test")
    )


def test_a_class_that_a_split_lacks_is_reported_once() -> None:
    made = three(val={"a/x": 1, "a/y": 1})
    assert missing_groups(made) == []
    assert each_mentions(oddities(made), ("val", "b"))
    three_classes = replace(made.info, label_names=("a", "b", "c", "d"))
    assert mentions(oddities(replace(made, info=three_classes))[1], "val", "b", "c", "d")


def test_a_group_that_no_split_has_is_no_gap() -> None:
    part = {"a/x": 1, "a/y": 1, "b/x": 1}
    assert missing_groups(three(train=part, val=part, test=part)) == []


def test_biased_and_deceiving_tests_lack_groups_by_their_meaning() -> None:
    parts = {
        "train": WHOLE,
        "val": WHOLE,
        "biased": {"a/x": 2, "b/y": 2},
        "deceiving": {"a/y": 2, "b/x": 1},
    }
    splits = {name: split(groups, seed) for seed, (name, groups) in enumerate(parts.items())}
    assert missing_groups(data(splits, bias=("biased", "deceiving"))) == []
    assert len(missing_groups(data(splits))) == 2


def test_groups_of_several_labels() -> None:
    """In val, label b is never absent for y; label a has all groups."""
    made = three(True, val={"-/x": 1, "ab/x": 1, "b/y": 1, "ab/y": 1})
    assert each_mentions(missing_groups(made), ("val", "no b/y", "train and test"))
    always = three(True, val={"b/x": 1, "ab/x": 1, "b/y": 1, "ab/y": 1})
    assert each_mentions(oddities(always), ("val", "no b"))
    assert missing_groups(always) == []
    never = three(True, val={"-/x": 1, "a/x": 1, "-/y": 1, "a/y": 1})
    assert each_mentions(oddities(never), ("val", "b"))
    assert missing_groups(never) == []


def test_many_gaps_in_one_sentence() -> None:
    names = tuple(f"z{i}" for i in range(9))
    label = np.repeat([0, 1], 9)
    every = Split(
        np.random.default_rng(0).integers(0, 256, (18, 3, 4, 4), dtype=np.uint8),
        label, np.tile(np.arange(9), 2),
    )  # fmt: skip
    some = replace(every, confounder=np.tile(np.arange(9) // 8, 2))
    made = data({"train": every, "val": some, "test": every})
    made = replace(made, info=replace(made.info, confounder_names=names))
    assert each_mentions(
        missing_groups(made), ("val", "a/z2", "a/z3", "a/z4", "a/z5", "a/z6", "9", "train and test")
    )


def test_unknown_confounders_leave_no_gaps() -> None:
    made = three(val={"a/x": 1, "b/x": 1})
    splits = {name: replace(part, confounder=None) for name, part in made.splits.items()}
    assert missing_groups(replace(made, splits=splits)) == []


def copied(made: GroupedDataset, name: str, pairs: Mapping[int, int]) -> GroupedDataset:
    """Return data in which some rows of a split have the image of another row."""
    image = made.splits[name].image.copy()
    for to, source in pairs.items():
        image[to] = image[source]
    return replace(made, splits={**made.splits, name: replace(made.splits[name], image=image)})


def test_an_image_with_two_labels() -> None:
    made = copied(three(), "train", {7: 0, 5: 1})
    (problem,) = repeats(made)
    assert "2 equal images of train" in problem and "labels" in problem
    assert "row 0 of train and row 7 of train" in problem


def test_an_image_with_two_confounders() -> None:
    made = copied(three(), "val", {2: 0})
    (problem,) = repeats(made)
    assert "1 equal image of val" in problem and "confounders" in problem
    assert "row 0 of val and row 2 of val" in problem


def test_a_repeated_image() -> None:
    made = copied(three(test={"a/x": 5, "a/y": 1, "b/x": 2, "b/y": 1}), "test", {1: 0, 4: 0, 7: 6})
    (problem,) = repeats(made)
    assert "2 images of test" in problem and "3 copies" in problem
    assert "row 0 of test and row 1 of test" in problem
    one = copied(three(), "test", {1: 0})
    (problem,) = repeats(one)
    assert "1 image of test" in problem and "1 copy" in problem


def test_every_kind_of_repetition_is_counted_by_itself() -> None:
    made = three(train={"a/x": 6, "a/y": 2, "b/x": 2, "b/y": 2})
    made = copied(made, "train", {1: 0, 6: 2, 8: 3, 9: 3})
    assert each_mentions(
        repeats(made),
        ("1 equal image", "train", "labels"),
        ("1 equal image", "train", "confounders"),
        ("1 image", "train", "more than once"),
    )


def test_contradictions_between_several_labels() -> None:
    made = copied(three(True), "train", {4: 0})  # a and ab
    assert mentions(repeats(made)[0], "1 equal image", "train", "labels")


def test_a_label_called_none() -> None:
    made = three(True)
    made = replace(made, info=replace(made.info, label_names=("none", "b")))
    found = {name: len(rows) for name, rows in members(made, "train").items()}
    assert found == {"none": 4, "b": 4, "no label at all": 2}


def test_gaps_are_problems_in_data_that_a_user_sorted() -> None:
    source = DATASETS.get("tiny")(bias=1.0)
    made = source.load(0)
    found = examine(source, made)
    assert found.problems == [] and len(found.notes) == 2 and source.designed
    assert not DATASETS.get("folder").designed and not DATASETS.get("listed").designed
