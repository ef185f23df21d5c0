"""Tags on a share of the images with one finding: shares, areas, masks and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.core.dataset import GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from datasets.tagged import draw_tag, tag_area
from tests.support import medical_trees


def tagged(folder: Path | None = None, trial: int = 0, **options: Any) -> GroupedDataset:
    return DATASETS.get("tagged")(folder, **options).load(trial)  # type: ignore[no-any-return]


def test_the_shares_are_exact_and_the_tests_show_the_same_images() -> None:
    data = tagged(on="tiny", share=0.25, others=0.125, shape="block")
    base = DATASETS.get("tiny")().load(0)
    for name in ("train", "val"):
        split = data.splits[name]
        assert split.confounder is not None and split.shortcut is None
        for label, share in ((1, 0.25), (0, 0.125)):
            shown = split.confounder[split.label == label]
            assert shown.sum() == round(share * len(shown))
    clean, biased, deceiving = (data.splits[name] for name in ("clean", "biased", "deceiving"))
    assert np.array_equal(biased.confounder, biased.label)  # type: ignore[arg-type]
    assert np.array_equal(deceiving.confounder, 1 - biased.label)  # type: ignore[arg-type]
    assert clean.confounder is not None and not clean.confounder.any()
    assert clean.shortcut is not None and not clean.shortcut.any()
    assert len(clean) == len(base.splits["unbiased"])
    for split in (biased, deceiving):
        assert split.shortcut is not None and split.mask is not None
        changed = (split.image != clean.image).any(1, keepdims=True)
        assert not (changed & ~split.shortcut).any()
        assert (split.image[np.broadcast_to(split.shortcut, split.image.shape)] == 255).all()
        area = biased.shortcut[biased.label == 1][0] if biased.shortcut is not None else None
        assert area is not None and not split.mask[:, area].any()


@pytest.mark.parametrize(
    ("side", "text"),
    [(16, ""), (32, ""), (32, "CXR-ROOM1"), (64, "CXR-ROOM1"), (320, "CXR-ROOM1")],
)
def test_a_tag_is_as_wide_as_asked_and_small_enough_to_be_measured(side: int, text: str) -> None:
    layer = draw_tag(text, (side, side), 0.4)
    rows, columns = tag_area(layer)
    assert abs((columns.stop - columns.start) - 0.4 * side) <= max(2, 0.02 * side)
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    assert area <= 0.1 * side**2
    assert layer.opacity.max() >= 100


def test_data_with_several_labels_are_guided_away_from_the_tag(tmp_path: Path) -> None:
    base = medical_trees.chexpert(tmp_path)
    options = ";".join(f"{name}={value}" for name, value in base.items())
    data = tagged(tmp_path, on="chexpert", options=options, finding="Edema", share=1.0)
    assert data.info.multi_label and data.info.provides.class_masks
    k = data.info.label_names.index("Edema")
    train, biased = data.splits["train"], data.splits["biased"]
    assert np.array_equal(train.confounder, train.label[:, k])  # type: ignore[arg-type]
    assert train.class_masks is not None and biased.shortcut is not None
    masks = train.class_masks.rasterise(np.arange(len(train)))
    area = biased.shortcut[biased.label[:, k] == 1][0, 0]
    present = train.label == 1
    assert masks[present][:, ~area].all() and not masks[present][:, area].any()
    assert not masks[~present].any()


def test_mistakes() -> None:
    for options, message in (
        ({"on": "tagged"}, "build on itself"),
        ({"on": "tiny", "finding": "Edema"}, "finding=Edema is no label of tiny"),
        ({"on": "tiny", "test": "train"}, "test=train is no test"),
        ({"share": 2.0}, "share"),
    ):
        with pytest.raises(UserError, match=message):
            tagged(**options)
