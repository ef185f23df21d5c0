"""Similar names, misspelled splits, and names that cannot be written to a report."""

from __future__ import annotations

import os

import pytest

from benchmark.core.errors import UserError
from datasets._io.names import (
    check_name,
    check_spelling,
    check_splits,
    normalise,
    similar_names,
    spelling_key,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "Cat"), ("straße", "STRASSE"), ("1", "1.0"), ("1", "01"), ("0", "00.0"),
        ("-1", "-1.0"),
        ("+2", "2"), ("True", "TRUE"), ("a b", "a  b"), ("a b", "a\u00a0b"), ("ab", "a\u200bb"),
        ("A", "\uff21"), ("café", "cafe\u0301"), ("x", "x "), ("ﬁn", "fin"),
    ],
)  # fmt: skip
def test_similar_names(one: str, other: str) -> None:
    assert spelling_key(one) == spelling_key(other)
    assert similar_names([other, one, "z", one]) == [tuple(sorted((one, other)))]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "10"),
        ("1", "-1"),
        ("1.5", "15"),
        ("a1", "a01"),
        ("cat", "cats"),
        ("é", "e"),
        ("", "0"),
    ],
)
def test_names_that_are_not_similar(one: str, other: str) -> None:
    assert not similar_names([one, other])


def test_three_similar_names() -> None:
    assert similar_names(["Cat", "CAT", "cat", "dog"]) == [("CAT", "Cat"), ("CAT", "cat")]


def test_normalised_names() -> None:
    assert normalise(" cafe\u0301\t") == "café" and normalise("a  b") == "a  b"


@pytest.mark.parametrize(
    "name",
    [
        "Train", "TRAIN", "training", "Training", "train_set", "trainset", "tr\u200bain", "trn",
        "Val", "valid", "validation", "Validation", "VALIDATION", "dev", "val-set", "development",
        "Test", "TEST", "Biased", "DECEIVING", "un biased",
    ],
)  # fmt: skip
def test_misspelled_splits_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="would become a test; rename"):
        check_splits(["train", "val", "other", name], "t.csv")


@pytest.mark.parametrize(
    "pair", [("test", "testing"), ("tests", "test"), ("hospital 1", "Hospital 1"), ("1", "1.0")]
)
def test_two_spellings_of_a_split_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="two spellings of the same name"):
        check_splits(["train", "val", *pair], "t.csv")


def test_other_splits_are_tests() -> None:
    names = [
        "train",
        "val",
        "biased",
        "unbiased",
        "deceiving",
        "test",
        "external",
        "train2",
        "valley",
    ]
    check_splits([*names, "hospital 1", "hospital 2", "训练", "…", "1.5", "15"], "t.csv")
    check_splits(["train", "val", "testing"], "t.csv")


def test_names_that_cannot_be_written_are_refused() -> None:
    for name in ("é", "a b", "n\u00a0o", "训练", "a\u200db", "'quoted'"):
        check_name(name, "the label")
    with pytest.raises(UserError, match=r"the label 'caf\\udce9' is not UTF-8"):
        check_name(os.fsdecode(b"caf\xe9"), "the label")
    for name in ("a\nb", "a\x1b[31m", "a\x00", "a\x85b"):
        with pytest.raises(UserError, match="control character"):
            check_name(name, "the label")


def test_misspelled_known_names_are_refused() -> None:
    check_spelling(["file", "age", "patient"], ("file", "patient"), "t.csv", "column")
    for name in ("File", "PATIENT", "pat ient"):
        with pytest.raises(UserError, match=r"t\.csv has the column .*rename"):
            check_spelling(["file", name], ("file", "patient"), "t.csv", "column")
