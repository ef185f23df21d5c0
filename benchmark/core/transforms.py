"""Augmentations by transforms of torchvision, written in a sweep file by name and options.

torchvision is imported only when such a transform is used.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmark.core.errors import UserError, shown
from benchmark.core.registry import did_you_mean

#: Largest absolute value of a number, so that a typing mistake does not fill the memory.
MAX_NUMBER = 1_000


def is_transform(name: str) -> bool:
    """Return True if ``torchvision.transforms.v2`` has a transform of this name."""
    if not name[:1].isupper():
        return False
    from torchvision.transforms import v2

    found = getattr(v2, name, None)
    return inspect.isclass(found) and issubclass(found, v2.Transform)


def check_transform(name: str, options: object, image_size: tuple[int, int, int]) -> dict[str, Any]:
    """Check a transform on a blank image and mask.

    Args:
        name: The name of a class in ``torchvision.transforms.v2``.
        options: Its arguments by name, from a sweep file.
        image_size: (C, H, W).

    Returns:
        The options as they are written to JSON.

    Raises:
        UserError: If the options are no table, the transform does not accept them, or it changes
            the shape or type of the image or of its mask.
    """
    if not isinstance(options, Mapping):
        raise UserError(
            f"augmentation: {name} = {shown(options)} is not a table, expected the options of "
            f"the transform, as in {name} = {{ option = value }}, or 0 to leave it out."
        )
    for value in _numbers(options.values()):
        if not math.isfinite(value) or abs(value) > MAX_NUMBER:
            raise UserError(
                f"augmentation: {name} has the option value {shown(value)}, expected numbers from "
                f"-{MAX_NUMBER:,} to {MAX_NUMBER:,}."
            )
    options_json = json.dumps(options, default=str)
    problem = _problem(name, options_json, image_size)
    if problem:
        raise UserError(f"augmentation: {problem}")
    checked: dict[str, Any] = json.loads(options_json)
    return checked


def make_transform(name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a transform of ``torchvision.transforms.v2``."""
    from torchvision.transforms import v2

    transform: Callable[..., Any] = getattr(v2, name)(**options)
    return transform


def _numbers(values: Iterable[object]) -> Iterable[float]:
    """Yield the numbers among values and in lists of them."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield value


@functools.lru_cache(maxsize=1_000)
def _problem(name: str, options_json: str, image_size: tuple[int, int, int]) -> str:
    """Return what is wrong with a transform, or an empty string."""
    import torch
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    options = json.loads(options_json)
    accepted = inspect.signature(getattr(v2, name)).parameters
    unknown = [option for option in options if option not in accepted]
    if unknown:
        return f"{name} has no option {unknown[0]!r}{did_you_mean(unknown[0], accepted)}"
    image = tv_tensors.Image(torch.full(image_size, 0.5))
    mask = tv_tensors.Mask(torch.zeros((1, *image_size[1:]), dtype=torch.bool))
    try:
        transform: Any = make_transform(name, options)
        if hasattr(transform, "p"):
            transform.p = 1.0  # otherwise the image may be returned unchanged
        with torch.random.fork_rng(devices=[]):
            results = transform(image, mask)
    except Exception as error:  # torchvision raises many types for unsuitable options
        reason = str(error).partition("\n")[0]
        return f"{name} cannot be used with {options} ({reason}); change its options."
    for before, after in zip((image, mask), results, strict=True):
        if getattr(after, "shape", None) != before.shape or after.dtype != before.dtype:
            return (
                f"{name} changes the shape or type of images, expected {list(image_size)} as "
                "before; use another transform or other options."
            )
    return ""
