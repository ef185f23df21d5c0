"""Names of splits, classes and confounders that come from users: normalised, checked, compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from benchmark.core.errors import UserError, shown

#: Names that pandas reads as a missing value, in lower case. A group with such a name usually
#: stands for empty cells of a table.
MISSING_VALUES = frozenset(
    ("nan", "-nan", "nat", "none", "null", "na", "n/a", "<na>", "#n/a", "#na", "1.#ind", "-1.#ind")
)
#: Splits with a special meaning.
RESERVED_SPLITS = ("train", "val", "test", "biased", "unbiased", "deceiving")
_ALIASES = {
    "train": ("training", "trainset", "trainingset", "trn"),
    "val": ("valid", "validation", "validate", "validationset", "valset", "dev", "development"),
    "test": ("tests", "testing", "testset", "tst"),
}
_SPLIT_OF_ALIAS = {alias: split for split, aliases in _ALIASES.items() for alias in aliases}


def normalise(name: str) -> str:
    """Strip white space and compose characters (Unicode NFC).

    ``train `` becomes ``train``, and an e followed by a combining accent becomes é.
    """
    return unicodedata.normalize("NFC", name).strip()


def check_name(name: str, where: str) -> None:
    """Check that a name can be written to a report.

    Args:
        name: The name of a folder or file, or a cell of a table.
        where: The beginning of the message, such as ``labels.csv: the split``.

    Raises:
        UserError: If the name is not UTF-8 or contains control characters.
    """
    if name.isprintable():
        return
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise UserError(
            f"{where} {name!a} is not UTF-8, so results could not be written with it; rename it."
        )
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise UserError(
            f"{where} {name!a} holds a control character, such as a line break; rename it."
        )


def spelling_key(name: str) -> str:
    """Return a key that is equal for different spellings of a name.

    It ignores case, white space, invisible characters, compatibility forms such as a full-width A,
    and the format of numbers (1, 01 and 1.0).
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(
        c for c in text if unicodedata.category(c) not in ("Cf", "Cc") and not c.isspace()
    )
    number = re.fullmatch(r"([+-]?)0*([0-9]+)(?:\.0*)?", text)
    return f"{number[1].strip('+')}{number[2]}" if number else text


def similar_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of different names with the same ``spelling_key``, sorted."""
    first_of_key: dict[str, str] = {}
    pairs = []
    for name in sorted(set(names)):
        first = first_of_key.setdefault(spelling_key(name), name)
        if first != name:
            pairs.append((first, name))
    return pairs


def check_splits(names: Sequence[str], where: str) -> None:
    """Check that no misspelled split turns training or validation images into a test.

    Args:
        names: The names of the splits.
        where: The table or folder, the beginning of the message.

    Raises:
        UserError: If a split is called Train, validation or the like, or two splits differ only in
            spelling.
    """
    for name in names:
        reserved = _reserved_split(name)
        if reserved is None or name == reserved:
            continue
        if reserved in ("train", "val") or _letters(name) == reserved:
            raise UserError(
                f"{where} has the split {shown(name)}, which would become a test; rename it to "
                f"{reserved}, or choose a different name for a test."
            )
    first_of_key: dict[str, str] = {}
    for name in names:
        first = first_of_key.setdefault(_reserved_split(name) or spelling_key(name), name)
        if first != name:
            raise UserError(
                f"{where} has the splits {shown(first)} and {shown(name)}, two spellings of the "
                "same name; use one of them."
            )


def check_spelling(names: Iterable[str], known: Sequence[str], where: str, kind: str) -> None:
    """Check that no name differs from a known name only in spelling, since it would be ignored.

    Args:
        names: The names to check.
        known: The names with a meaning.
        where: The table or folder, the beginning of the message.
        kind: A noun for the names, such as ``column``.

    Raises:
        UserError: If a name differs from a known one only in spelling.
    """
    known_of_key = {spelling_key(name): name for name in known}
    for name in names:
        expected = known_of_key.get(spelling_key(name), name)
        if expected != name:
            raise UserError(f"{where} has the {kind} {shown(name)}; rename it to {expected}.")


def encode(names: Sequence[str]) -> np.ndarray:
    """Number the distinct names in sorted order; return the number of each name, int64[N]."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def _reserved_split(name: str) -> str | None:
    """Return the reserved split that a name stands for."""
    letters = _letters(name)
    return letters if letters in RESERVED_SPLITS else _SPLIT_OF_ALIAS.get(letters)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", spelling_key(name))
