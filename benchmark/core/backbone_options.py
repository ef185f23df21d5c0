"""Options that every backbone has, in addition to those that it declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.core.hparam import HParam

#: The spec of a run contains them only if they differ from their defaults. The keys of other runs
#: therefore do not depend on them.
COMMON_OPTIONS: dict[str, HParam] = {
    "freeze_bn": HParam(
        False,
        doc="batch normalisation keeps its running statistics in training; its weights and "
        "shifts still learn",
    ),
}


def without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as a spec stores them, without common options at their defaults."""
    return {
        name: value
        for name, value in options.items()
        if name not in COMMON_OPTIONS or value != COMMON_OPTIONS[name].default
    }


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a spec, completed by the defaults of the common options."""
    return {**{name: option.default for name, option in COMMON_OPTIONS.items()}, **options}
