"""Options that every backbone has, besides those that it declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.core.hparam import HParam

#: A run's spec holds them only where they differ from their default, so that the keys of other runs do not depend on
#: them.
COMMON_OPTIONS: dict[str, HParam] = {
    "freeze_bn": HParam(
        False,
        doc="batch normalisation keeps its running statistics in training; its weights and shifts still learn",
    ),
}


def without_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a backbone as they stand in a spec: of the common ones those that were changed."""
    return {
        name: value
        for name, value in options.items()
        if name not in COMMON_OPTIONS or value != COMMON_OPTIONS[name].default
    }


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a spec together with the common ones that it leaves out."""
    return {**{name: option.default for name, option in COMMON_OPTIONS.items()}, **options}
