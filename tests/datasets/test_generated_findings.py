"""Generated findings: frequencies, boxes around what is drawn, and a tag on one of them."""

from __future__ import annotations

import numpy as np

from benchmark.core.registry import DATASETS
from datasets.generated_findings import FREQUENCY, finding


def test_labels_and_boxes_are_those_of_the_drawn_findings() -> None:
    data = DATASETS.get("generated_findings")(size=400, contrast=0.5).load(0)
    train = data.splits["train"]
    assert np.abs(train.label.mean(0) - FREQUENCY).max() < 0.08
    assert train.class_masks is not None
    masks = train.class_masks.rasterise(np.arange(len(train)))
    assert np.array_equal(masks.any((2, 3)), train.label == 1)
    for k in range(3):
        alone = (train.label[:, k] == 1) & (train.label.sum(1) == 1)
        inside = [
            np.corrcoef(image[0].ravel(), mask.ravel())[0, 1]
            for image, mask in zip(train.image[alone], masks[alone, k], strict=True)
        ]
        assert np.mean(inside) > 0.25
        assert 0.05 < masks[alone, k].mean() < 0.12


def test_the_shapes_differ() -> None:
    y, x = np.mgrid[-16:16, -16:16] / 64
    disc, ring, cross = (finding(k, x, y) for k in range(3))
    assert (ring <= disc).all() and not np.array_equal(ring, disc)
    assert not np.array_equal(cross, disc) and cross.any()


def test_a_tag_can_be_planted() -> None:
    data = DATASETS.get("tagged")(
        on="generated_findings", options="size=40", finding="disc", shape="block"
    ).load(0)
    assert data.info.multi_label and data.info.stand_in
    train = data.splits["train"]
    assert train.confounder is not None
    assert not train.confounder[train.label[:, 0] == 0].any()
