"""Options and checks of chest X-rays with several findings each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from datasets._io.decode import Recipe
from datasets._io.image_source import side_option

#: The share of the training patients that is used for validation.
HOLDOUT = {"val": 0.1}


def xray_options(labels: Sequence[str] = ()) -> dict[str, HParam]:
    """Return the options of X-rays with several findings.

    Args:
        labels: The findings that are labels by default; all if it is empty.
    """
    return {
        "labels": HParam(
            ";".join(labels), doc="the findings that are labels, NAME;NAME; empty: all"
        ),
        "side": side_option(224),
        "channels": HParam(
            3, doc="1: grey; 3: three equal channels, for pretrained backbones", choices=(1, 3)
        ),
        "equalise": HParam(False, doc="equalise the histogram of each X-ray"),
    }


def xray_recipe(options: Mapping[str, Any]) -> Recipe:
    """Return the conversion of X-rays with these options."""
    return Recipe(options["side"], channels=1, equalise=options["equalise"])


def xray_info(
    options: Mapping[str, Any],
    labels: Sequence[str],
    splits: Sequence[str],
    *,
    masks: bool,
    class_masks: bool = False,
    source: str,
    licence: str,
) -> DatasetInfo:
    """Return the description of X-rays with several findings.

    Args:
        options: The options of the data set.
        labels: The selected findings.
        splits: The splits.
        masks: True if train and val have masks.
        class_masks: True if they have masks of the evidence for each label.
        source: The publication.
        licence: The terms of use.
    """
    channels = options["channels"]
    return DatasetInfo(
        label_names=tuple(labels),
        confounder_names=(),
        environment_names=(),
        image_size=(channels, options["side"], options["side"]),
        splits=tuple(splits),
        provides=Needs(masks=masks, class_masks=class_masks, val_masks=masks),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        augmentation={"translate": 0.1, "rotate": 10.0},
        source=source,
        licence=licence,
        multi_label=True,
    )


def select_findings(text: str, known: Sequence[str], dataset: str) -> tuple[str, ...]:
    """Return the findings that the option ``labels`` selects.

    Args:
        text: The option.
        known: All findings of the data set.
        dataset: The name of the data set, for messages.

    Raises:
        UserError: If a finding is unknown or repeated.
    """
    names = [name.strip() for name in text.split(";") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(
                f"{dataset} has no finding {shown(name)}; its findings are {', '.join(known)}."
            )
        if names.count(name) > 1:
            raise UserError(
                f"{dataset}: labels names {shown(name)} more than once; name it only once."
            )
    return tuple(names) or tuple(known)


def check_both_values(table: Path, label: np.ndarray, names: Sequence[str]) -> None:
    """Check that every label is 0 for some training images and 1 for others.

    Args:
        table: The table, for messages.
        label: int64[N,K] of 0 and 1, or UNKNOWN.
        names: The names of the K labels.

    Raises:
        UserError: If a label has a single value, or there are no images.
    """
    for k, name in enumerate(names):
        if not {0, 1} <= set(label[:, k].tolist()):
            raise UserError(
                f"{table}: {name} is the same for all training images, expected images with and "
                "without it; use the complete table, or leave it out of the option labels."
            )
