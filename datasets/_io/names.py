"""Names of splits, classes and confounders, from folders and from tables: cleaned, refused, compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from benchmark.core.errors import UserError, shown

#: What pandas reads as a missing value, in small letters. A group of this name is usually a hole in a table.
MISSING = frozenset(
    ("nan", "-nan", "nat", "none", "null", "na", "n/a", "<na>", "#n/a", "#na", "1.#ind", "-1.#ind")
)
#: Splits with a meaning of their own, and other spellings of the first two.
RESERVED = ("train", "val", "test", "biased", "unbiased", "deceiving")
_ALIASES = {
    "train": ("training", "trainset", "trainingset", "trn"),
    "val": ("valid", "validation", "validate", "validationset", "valset", "dev", "development"),
    "test": ("tests", "testing", "testset", "tst"),
}
_MEANT = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}


def clean(name: str) -> str:
    """A name without surrounding white space, its characters composed (Unicode's form NFC).

    So ``train `` is ``train``, and an é that is stored as e and an accent is the é that is stored as one character.
    """
    return unicodedata.normalize("NFC", name).strip()


def check_name(name: str, where: str) -> None:
    """Refuse a name that cannot be written to a report.

    Args:
        name: of a folder or a file, or from a table.
        where: what it is the name of, the beginning of the sentence.

    Raises:
        UserError: it is not UTF-8, or holds control characters.
    """
    if name.isprintable():
        return
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise UserError(
            f"{where} {name!a} is not UTF-8, so no result could be written under it; rename it."
        )
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise UserError(
            f"{where} {name!a} holds a control character, such as a line break; rename it."
        )


def folded(name: str) -> str:
    """A key that is equal for names which people take for one.

    Ignored are upper and lower case, white space, invisible characters, compatibility forms (a full-width A), and how
    a number is written (1, 01 and 1.0).
    """
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(
        c for c in text if unicodedata.category(c) not in ("Cf", "Cc") and not c.isspace()
    )
    number = re.fullmatch(r"([+-]?)0*([0-9]+)(?:\.0*)?", text)
    return f"{number[1].strip('+')}{number[2]}" if number else text


def twins(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of different names that people take for one, sorted."""
    first: dict[str, str] = {}
    found = []
    for name in sorted(set(names)):
        other = first.setdefault(folded(name), name)
        if other != name:
            found.append((other, name))
    return found


def check_splits(names: Sequence[str], where: str) -> None:
    """Refuse a spelling that would turn training or validation pictures into a test.

    Raises:
        UserError: a split is called Train, validation, or the like, or two splits differ in spelling only.
    """
    for name in names:
        ours = _reserved(name)
        if ours and name != ours and (ours in ("train", "val") or _letters(name) == ours):
            raise UserError(
                f"{where} has the split {shown(name)}, which would become a test of its own; call it {ours}, or "
                "give a test another name."
            )
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_reserved(name) or folded(name), name)
        if other != name:
            raise UserError(
                f"{where} has the splits {shown(other)} and {shown(name)}, two spellings of one; use one of them."
            )


def _reserved(name: str) -> str | None:
    """The reserved split that a name stands for."""
    letters = _letters(name)
    return letters if letters in RESERVED else _MEANT.get(letters)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", folded(name))


def check_spelling(found: Iterable[str], known: Sequence[str], where: str, what: str) -> None:
    """Refuse a name that differs from one of ours in spelling only, since it would be ignored or taken for another.

    Args:
        found: the names that are there.
        known: ours.
        where: the place, the beginning of the sentence.
        what: what they are, such as ``column``.

    Raises:
        UserError: there is one.
    """
    keys = {folded(name): name for name in known}
    for name in found:
        ours = keys.get(folded(name), name)
        if ours != name:
            raise UserError(f"{where} has the {what} {shown(name)}; rename it to {ours}.")


def encode(names: Sequence[str]) -> np.ndarray:
    """Number the distinct names in sorted order; return the number of each name, int64[N]."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)
