"""The data set on which another one is built, named by two options."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.core.dataset import DatasetSource
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.named_options import split_option
from benchmark.core.registry import DATASETS

OPTIONS = {
    "on": HParam("tiny", doc="the underlying data set"),
    "options": HParam("", doc="its options: NAME=VALUE;NAME=VALUE"),
}


def make_underlying(source: DatasetSource, name: str, options: str) -> DatasetSource:
    """Create the underlying data set of another one.

    Args:
        source: The data set that is built on it.
        name: The name of the underlying data set.
        options: Its options, ``NAME=VALUE;NAME=VALUE``.

    Raises:
        UserError: If the name or an option is unknown, or the data set would be built on itself.
    """
    if name == source.name:
        raise UserError(
            f"{source.name}: on={source.name} would build on itself; name another data set."
        )
    kind = DATASETS.get(name)
    parsed = {}
    for pair in filter(None, options.split(";")):
        option = split_option(pair)
        if option is None or option[0] not in kind.options:
            raise UserError(
                f"{source.name}: options has {pair!r}, expected NAME=VALUE with an option of "
                f"{name}: {', '.join(kind.options) or 'it has none'}."
            )
        key, value = option
        parsed[key] = kind.options[key].parse(f"{name}: {key}", value)
    underlying: DatasetSource = kind(source.data_dir, **parsed)
    return underlying


def underlying_title(options: Mapping[str, str]) -> str:
    """Return the title of the underlying data set of another one.

    Args:
        options: Options of the other data set as text, of which ``on`` and ``options`` are used.
    """
    kind = DATASETS.get(options.get("on") or OPTIONS["on"].default)
    pairs = map(split_option, filter(None, options.get("options", "").split(";")))
    title: str = kind.title_of(dict(pair for pair in pairs if pair is not None))
    return title
