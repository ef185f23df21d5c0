"""Titles of methods, data sets and groups, which tables and figures show instead of code names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmark.core.decode import Text
from benchmark.core.named_options import split_method


@dataclass(frozen=True)
class Titles:
    """The titles of a sweep.

    Titles are for readers only. CSV and JSON keep the code names, and the key of a run does not
    depend on any title.

    Attributes:
        names: Title of each method, data set and explainer, by its name in the sweep file.
        groups: Title of each group, by the data set and the name of the group.
    """

    names: Mapping[str, Text] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Text]] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """Return the title of a method, data set or explainer; without a title, its name."""
        return self.names.get(name) or name

    def of_group(self, dataset: str, group: str) -> str:
        """Return the title of a group of a data set; without a title, its name."""
        return self.groups.get(dataset, {}).get(group) or group

    def merged(self, earlier: Titles) -> Titles:
        """Return these titles, and those of an earlier launch that they do not replace."""
        return Titles({**earlier.names, **self.names}, {**earlier.groups, **self.groups})

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``titles`` in sweep.json."""
        return asdict(self)


def own_title(kind: type[Any]) -> str:
    """Return the title that a class declares; one inherited from another method is not its own."""
    name = getattr(kind, "name", "") or kind.__name__
    declaring = next((base for base in kind.__mro__ if "title" in vars(base)), kind)
    is_own = declaring is kind or vars(declaring).get("name") == name
    return str((getattr(kind, "title", "") if is_own else "") or name)


def method_title(kind: type[Any], variant: str = "", title: str = "") -> str:
    """Return the title of a method, such as ``eX2L (MAE)``.

    Args:
        kind: The class of the method.
        variant: Name of a variant; empty for none. Without an entry in ``variant_titles``, its
            underscores become spaces.
        title: Title of the method without variant, in place of that of the class.
    """
    title = title or own_title(kind)
    if not variant:
        return title
    return f"{title} ({kind.variant_titles.get(variant, variant.replace('_', ' '))})"


def option_phrases(options: Mapping[str, str], phrases: Mapping[str, str]) -> list[str]:
    """Return the texts of options of a data set, such as ``95 % bias``, in the order of phrases.

    Args:
        options: Values of the options, as text.
        phrases: By the name of an option, a text with ``{value}``, or with ``{percent}`` for a
            share. Options without one are left out.
    """
    return [
        phrase.format(value=options[name].replace("_", " "), percent=_percent(options[name]))
        for name, phrase in phrases.items()
        if options.get(name)
    ]


def _percent(value: str) -> str:
    try:
        return f"{100 * float(value):.10g}"
    except ValueError:
        return value


def make_distinct(titles: Mapping[str, str]) -> dict[str, str]:
    """Return titles by code name, of which equal ones also show options or variant.

    Args:
        titles: Titles by code name.
    """
    count = Counter(titles.values())
    return {
        name: f"{title} ({split_method(name)[1] or name})" if count[title] > 1 else title
        for name, title in titles.items()
    }
