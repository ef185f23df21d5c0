"""Extremal perturbations: masks and blurred images against loops, and a planted region."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from benchmark import explain
from benchmark.explain.extremal_perturbation import _Smoother, blend, blurred_levels


@pytest.mark.parametrize("size", [(32, 32), (70, 64)])
def test_a_mask_is_a_smooth_maximum_over_the_grid(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    like = torch.zeros(1, dtype=torch.float64)
    smoother = _Smoother(*size, like)
    parameters = torch.rand(2, 1, *smoother.grid, dtype=torch.float64)
    mask = smoother.cut(smoother(parameters))
    assert mask.shape == (2, 1, *size)
    assert smoother.spacing == round(min(size) / 32)
    radius = min(size) * 21 / 224
    step = smoother.spacing
    for row, column in [(0, 0), (5, 9), (size[0] - 1, size[1] - 1)]:
        values = []
        for i in range(row // step - smoother.reach, row // step + smoother.reach + 1):
            for j in range(column // step - smoother.reach, column // step + smoother.reach + 1):
                inside = 0 <= i < smoother.grid[0] and 0 <= j < smoother.grid[1]
                middle = (step - 1) / 2
                distance = math.hypot(row - step * i - middle, column - step * j - middle)
                kernel = math.exp(-2 * max(distance / radius - 0.5, 0) ** 2)
                values.append(kernel * float(parameters[1, 0, i, j]) if inside else 0.0)
        powers = [math.exp(20 * value) for value in values]
        expected = sum(v * e for v, e in zip(values, powers, strict=True)) / sum(powers)
        assert float(mask[1, 0, row, column]) == pytest.approx(expected, rel=1e-12)


def test_a_mask_chooses_how_sharp_the_image_is() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    levels = blurred_levels(image)
    assert torch.equal(levels[-1], image)
    spread = [float(level.std()) for level in levels]
    assert spread == sorted(spread)
    mask = torch.ones(2, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(blend(levels, mask), image)
    torch.testing.assert_close(blend(levels, 0 * mask), levels[0])
    between = 0.5 * (levels[2] + levels[3])
    torch.testing.assert_close(blend(levels, mask * 2.5 / 7), between)


class _Corner(nn.Module):
    """Class 1 if the upper left corner has stripes; a blurred corner has none."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        corner = image[:, :, :10, :10]
        mirrored = image[:, :, :10, -10:]
        stripes = torch.stack(
            [
                (part - part.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
                for part in (corner, mirrored)
            ]
        ).amax(0)
        logits: Any = torch.stack([torch.full_like(stripes, 0.5), 8 * stripes], 1)
        return logits


def test_the_mask_is_where_the_evidence_is() -> None:
    torch.manual_seed(0)
    image = 0.2 * torch.randn(2, 1, 32, 32)
    image[:, :, :10, :10:2] += 1
    image[:, :, :10, 1:10:2] -= 1
    target = torch.tensor([1, 1])
    mask = explain.get("extremal_perturbation", area=0.1, steps=400)(_Corner(), image, target)
    assert mask.shape == (2, 1, 32, 32)
    assert float(mask.mean()) == pytest.approx(0.1, abs=0.05)
    kept = mask > 0.5
    assert float(kept[:, :, :12, :12].sum() / kept.sum()) > 0.9
