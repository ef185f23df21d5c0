"""Rows by environment and the risk that counts every environment the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from benchmark.losses.environments import mean_risk, mean_risk_of_parts, rows_of_each


def test_rows_of_each_environment_in_order_without_the_absent_ones() -> None:
    rows = rows_of_each(torch.tensor([2, 0, 2, 0, 2]), 4)
    assert [chosen.tolist() for chosen in rows] == [[1, 3], [0, 2, 4]]
    assert rows_of_each(torch.empty(0, dtype=torch.int64), 3) == []


def test_mean_risk_is_the_mean_of_means() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    rows = [torch.tensor([0]), torch.tensor([1, 2, 3, 4])]
    expected = (F.cross_entropy(logits[:1], label[:1]) + F.cross_entropy(logits[1:], label[1:])) / 2
    assert mean_risk(logits, label, rows).item() == pytest.approx(expected.item(), rel=1e-14)
    assert mean_risk(logits, label, [torch.arange(5)]).item() == pytest.approx(
        F.cross_entropy(logits, label).item()
    )


def test_known_sizes_give_the_same_rows_without_reading_them() -> None:
    environment = torch.tensor([2, 0, 2, 0, 2])
    found = rows_of_each(environment, 4, sizes=(2, 0, 3, 0))
    assert [chosen.tolist() for chosen in found] == [[1, 3], [0, 2, 4]]


def test_the_mean_risk_of_parts_is_that_of_their_rows() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    part = torch.tensor([2, 0, 2, 0, 2, 2])  # part 1 is empty
    expected = mean_risk(logits, label, rows_of_each(part, 3))
    found = mean_risk_of_parts(logits, label, part, 3)
    assert found.item() == pytest.approx(expected.item(), rel=1e-14)
