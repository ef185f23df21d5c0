"""B-cos methods: losses against loops, guidance of several labels, and who is refused."""

from __future__ import annotations

from dataclasses import replace

import torch

from algorithms.bcos import binary_loss, draw_class
from benchmark import explain
from benchmark.core.registry import ALGORITHMS, DATASETS
from tests.support import tiny
from tests.support.every_algorithm import spec_of


def test_binary_loss_against_loops() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    label = torch.tensor([2, 0, 1, 1])
    total = 0.0
    for row in range(4):
        for k in range(3):
            p = torch.sigmoid(logits[row, k])
            total -= float(torch.log(p if k == label[row] else 1 - p))
    torch.testing.assert_close(binary_loss(logits, label).item(), total / 12)
    several = torch.nn.functional.one_hot(label, 3).float()
    torch.testing.assert_close(binary_loss(logits, several), binary_loss(logits, label))


def test_a_class_is_drawn_among_the_candidates() -> None:
    torch.manual_seed(0)
    candidates = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    drawn = torch.stack([draw_class(candidates)[0] for _ in range(200)])
    assert set(drawn[:, 0].tolist()) == {0, 2} and set(drawn[:, 2].tolist()) == {1}
    assert 70 < (drawn[:, 0] == 0).sum() < 130
    assert draw_class(candidates)[1].tolist() == [True, False, True]


def test_guidance_is_the_share_of_positive_contributions_outside_the_mask() -> None:
    algorithm = tiny.build("bcos_guided", backbone="bcos_convnet", guidance_weight=3.0)
    batch = tiny.make_batch()
    label = torch.zeros(12, 3)
    label[torch.arange(12), batch.label] = 1
    class_mask = torch.zeros(12, 3, 16, 16, dtype=torch.bool)
    class_mask[torch.arange(9), batch.label[:9], 2:9, 3:12] = True  # three have no mask
    batch = replace(batch, label=label, class_mask=class_mask)
    algorithm.eval()
    terms = algorithm.loss(batch)
    heatmap = explain.get("bcos")(algorithm.network, batch.image, label.argmax(1))
    shares = []
    for row in range(9):
        positive = heatmap[row, 0].clamp_min(0)
        shares.append(1 - positive[2:9, 3:12].sum() / positive.sum())
    torch.testing.assert_close(terms["guidance"].detach(), 3 * torch.stack(shares).mean())
    nothing = algorithm.loss(replace(batch, class_mask=torch.zeros_like(class_mask)))
    assert nothing["guidance"] == 0 and nothing["guidance"].requires_grad


def test_guidance_moves_contributions_into_the_mask() -> None:
    shares = {}
    for weight in (0.0, 10.0):
        algorithm = tiny.build(
            "bcos_guided", backbone="bcos_convnet", guidance_weight=weight, lr=0.01
        )
        batch = tiny.make_batch()
        mask = torch.zeros(12, 3, 16, 16, dtype=torch.bool)
        mask[..., :8] = True
        batch = replace(batch, class_mask=mask)
        for _ in range(30):
            algorithm.step(batch)
        heatmap = explain.get("bcos")(algorithm.eval().network, batch.image, batch.label)
        positive = heatmap.clamp_min(0)
        shares[weight] = (positive[..., :8].sum() / positive.sum()).item()
    assert shares[10.0] > shares[0.0] + 0.1


def test_other_networks_are_refused_with_the_names_of_those_that_serve() -> None:
    info = DATASETS.get("tiny")().info()
    for name in ("bcos", "bcos_guided"):
        kind = ALGORITHMS.get(name)
        reason = kind.refuses(spec_of(name), info)
        assert reason is not None and f"[override.{name}]" in reason and "bcos_resnet50" in reason
        assert kind.refuses(spec_of(name, backbone="bcos_convnet"), info) is None
