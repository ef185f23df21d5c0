"""Sensitivity metrics and segmentation quality against loops, and where they are undefined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from benchmark.explain.metrics import (
    class_sensitivity,
    confounder_sensitivity,
    disease_sensitivity,
    explanation_ncc,
    pointing_game,
    relevance_segmentation,
    tag_effect,
)
from benchmark.explain.sensitivity import sensitivity_groups


def signed(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def masks(*shape: int, share: float = 0.4) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(9)) < share


def test_class_sensitivity_against_loops() -> None:
    relevance = signed(5, 4, 3, 6)
    relevance[2] = -relevance[2].abs()
    found = class_sensitivity(relevance)
    for g in range(5):
        sums = [sum(max(x, 0.0) for x in image.flatten().tolist()) for image in relevance[g]]
        if g == 2:
            assert found[g].isnan()
        else:
            assert found[g].item() == pytest.approx(sums[0] / sum(sums), rel=1e-12)


def test_a_map_that_knows_nothing_has_a_class_sensitivity_of_a_quarter() -> None:
    assert class_sensitivity(signed(4000, 4, 5, 5)).mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("positives", "negatives", "groups"), [(60, 400, 50), (7, 400, 7), (40, 30, 10), (3, 2, 0)]
)
def test_groups_use_each_image_once(positives: int, negatives: int, groups: int) -> None:
    has_class = torch.zeros(positives + negatives, dtype=torch.bool)
    has_class[::2][:positives] = True
    missing = positives - int(has_class.sum())
    has_class[torch.nonzero(~has_class)[:missing, 0]] = True
    found = sensitivity_groups(has_class, generator=torch.Generator().manual_seed(0))
    assert found.shape == (groups, 4)
    assert len(found.unique()) == found.numel()
    assert has_class[found[:, 0]].all()
    assert not has_class[found[:, 1:]].any()


def test_disease_sensitivity_against_loops() -> None:
    relevance = signed(5, 4, 6)
    mask = masks(5, 4, 6)
    relevance[1] = -1.0
    mask[3] = False
    found = disease_sensitivity(relevance, mask)
    for b in range(5):
        positive = [max(x, 0.0) for x in relevance[b].flatten().tolist()]
        inside = [x for x, m in zip(positive, mask[b].flatten().tolist(), strict=True) if m]
        if b in (1, 3):
            assert found[b].isnan()
        else:
            assert found[b].item() == pytest.approx(sum(inside) / sum(positive), rel=1e-12)


def test_confounder_sensitivity_against_loops() -> None:
    relevance = signed(4, 10, 10)
    shortcut = masks(4, 10, 10, share=0.05)
    found = confounder_sensitivity(relevance, shortcut)
    for b in range(4):
        largest = np.argsort(-relevance[b].abs().numpy().ravel(), kind="stable")[:10]
        shown = np.flatnonzero(shortcut[b].numpy())
        assert found[b].item() == pytest.approx(np.isin(shown, largest).mean(), rel=1e-12)


def test_confounder_sensitivity_of_degenerate_maps_and_shortcuts() -> None:
    corner = torch.zeros(1, 10, 10, dtype=torch.bool)
    corner[0, 0, :5] = True
    blank = torch.zeros(1, 10, 10)
    assert confounder_sensitivity(blank, corner).item() == 0
    assert confounder_sensitivity(signed(1, 10, 10), ~corner).isnan().item()
    assert confounder_sensitivity(signed(1, 10, 10), corner & False).isnan().item()
    few = blank.clone()
    few[0, 0, 0] = -2.0
    assert confounder_sensitivity(few, corner).item() == pytest.approx(1 / 5)
    chance = confounder_sensitivity(signed(4000, 10, 10), corner.expand(4000, -1, -1))
    assert chance.mean().item() == pytest.approx(0.1, abs=0.01)


def test_explanations_that_do_not_change_have_a_correlation_of_one() -> None:
    maps = signed(4, 5, 5)
    np.testing.assert_allclose(explanation_ncc(maps, 2 * maps + 1), 1.0)
    np.testing.assert_allclose(explanation_ncc(maps, -maps), -1.0)
    expected = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(maps.numpy(), signed(4, 5, 5, seed=1).numpy(), strict=True)
    ]
    np.testing.assert_allclose(explanation_ncc(maps, signed(4, 5, 5, seed=1)), expected)
    assert explanation_ncc(torch.ones(1, 5, 5), maps[:1]).isnan().item()


def test_tag_effect_by_hand() -> None:
    without = torch.tensor([-1.0, 0.5, 2.0, -0.5])
    with_tag = without + torch.tensor([2.0, 0.0, 0.0, 0.1])
    found = tag_effect(with_tag, without)
    assert found.effect == pytest.approx(0.525 / np.std(without.double().numpy(), ddof=1))
    assert found.flips == 0.25
    assert tag_effect(with_tag, without, threshold=1.0).flips == 0.0
    assert np.isnan(tag_effect(torch.ones(3), torch.zeros(3)).effect)
    with pytest.raises(ValueError, match="B ≥ 2"):
        tag_effect(torch.ones(1), torch.ones(1))


def test_pointing_game() -> None:
    relevance = signed(6, 4, 5).abs()
    mask = masks(6, 4, 5)
    relevance[4] = 0.5
    mask[5] = False
    found = pointing_game(relevance, mask)
    for b in range(4):
        assert found[b].item() == float(mask[b].flatten()[relevance[b].argmax()])
    assert found[4:].isnan().all()


def test_segmentation_against_loops_and_pooled_over_images() -> None:
    relevance = signed(3, 5, 6).abs()
    mask = masks(3, 5, 6)
    valid = masks(3, 5, 6, share=0.8)
    found = relevance_segmentation(relevance, mask, valid)
    correct = labelled = 0
    intersection = np.zeros(2)
    union = np.zeros(2)
    precision = []
    for b in range(3):
        a = relevance[b].numpy()
        inside = mask[b].numpy()[valid[b].numpy()]
        predicted = (a > a.mean())[valid[b].numpy()]
        correct += (predicted == inside).sum()
        labelled += len(inside)
        for k, value in enumerate((False, True)):
            intersection[k] += ((predicted == value) & (inside == value)).sum()
            union[k] += ((predicted == value) | (inside == value)).sum()
        scaled = a[valid[b].numpy()]
        scaled = (scaled - scaled.min()) / (scaled.max() - scaled.min())
        precision.append(
            average_precision_score(
                np.concatenate([~inside, inside]), np.concatenate([1 - scaled, scaled])
            )
        )
    assert found.pixel_accuracy() == pytest.approx(correct / labelled)
    assert found.mean_iou() == pytest.approx((intersection / union).mean())
    np.testing.assert_allclose(found.average_precision, precision)
    assert found.mean_average_precision() == pytest.approx(np.mean(precision))


def test_segmentation_by_a_constant_map_has_no_average_precision() -> None:
    found = relevance_segmentation(torch.ones(2, 3, 3), masks(2, 3, 3))
    assert found.average_precision.isnan().all()
    assert np.isnan(found.mean_average_precision())
    perfect = masks(2, 3, 3)
    assert relevance_segmentation(perfect.double(), perfect).pixel_accuracy() == 1
    with pytest.raises(ValueError, match="expected"):
        relevance_segmentation(torch.ones(2, 3, 3), masks(2, 3, 4))
