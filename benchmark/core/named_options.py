"""Names with options and names with variants, as sweep files and command lines write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmark.core.errors import UserError

_EXAMPLE = "expected name:option=value such as digits_on_photos:bias=0.95"


@dataclass(frozen=True)
class NamedOptions:
    """A data set or a backbone with options, such as ``digits_on_photos:bias=0.95,places=2``.

    Args:
        name: Name in the registry.
        options: Values of the options, as text.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return self.name + ":" + ",".join(f"{name}={value}" for name, value in self.options.items())


def parse_named_options(text: str) -> NamedOptions:
    """Parse ``name:option=value,option=value``.

    Raises:
        UserError: If the text has another form or gives an option twice.
    """
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        option = split_option(part)
        if option is None or not option[1]:
            raise UserError(f"{text!r} has the option {part!r}, {_EXAMPLE}.")
        key, value = option
        if key in options:
            raise UserError(f"{text!r} gives the option {key!r} twice.")
        options[key] = value
    if not name.strip():
        raise UserError(f"{text!r} has no name, {_EXAMPLE}.")
    return NamedOptions(name.strip(), options)


def parse_backbone(text: str) -> NamedOptions:
    """Parse a backbone: ``name:option=value``, or ``library:model:option=value``.

    The name of ``timm:resnet18:drop_path_rate=0.1`` is ``timm:resnet18``.

    Raises:
        UserError: As for ``parse_named_options``.
    """
    library, _, rest = text.partition(":")
    model, _, options = rest.partition(":")
    if not model.strip() or "=" in model:
        return parse_named_options(text)
    named = parse_named_options(f"{model}:{options}")
    return NamedOptions(f"{library.strip()}:{named.name}", named.options)


def split_option(text: str) -> tuple[str, str] | None:
    """Split ``name=value``, removing the spaces around both parts.

    Returns:
        Name and value, or None if there is no equals sign or no name. The value may be empty.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        return None
    return name.strip(), value.strip()


def base_name(text: str) -> str:
    """Return a name without its options or its variant."""
    return text.partition(":")[0]


def split_method(method: str) -> tuple[str, str]:
    """Split ``algorithm:variant`` into algorithm and variant; the variant may be empty."""
    algorithm, _, variant = method.partition(":")
    return algorithm, variant


def split_at_sign(text: str) -> tuple[str, str]:
    """Split ``name@place``, such as a method on a data set; the place may be empty."""
    name, _, place = text.partition("@")
    return name, place


def method_name(algorithm: str, variant: str) -> str:
    """Return ``algorithm:variant``, or the algorithm alone if the variant is empty."""
    return f"{algorithm}:{variant}" if variant else algorithm
