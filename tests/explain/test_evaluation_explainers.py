"""Explainers that serve in evaluation only: values against loops, and a network left alone."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmark import explain
from benchmark.core.errors import UserError
from benchmark.core.registry import EXPLAINERS
from benchmark.explain.evaluation import random_masks
from benchmark.explain.lime import superpixels
from benchmark.explain.rise import IMAGES_PER_PASS
from tests.support.networks import backbone, images

SIZE = (3, 16, 16)
TARGET = torch.tensor([1, 0, 2])
#: Options that make an explainer quick.
QUICK: dict[str, dict[str, Any]] = {
    "extremal_perturbation": {"steps": 4},
    "gradient_shap": {"samples": 4},
    "guided_backprop": {},
    "integrated_gradients": {"steps": 8},
    "lime": {"samples": 20, "segments": 9},
    "occlusion": {"window": 0.25},
    "relax": {"masks": 20, "grid": 4},
    "rise": {"masks": 20, "grid": 4},
    "score_cam": {},
    "smoothgrad": {"samples": 4},
    "u_relax": {"masks": 20, "grid": 4},
}
NAMES = sorted(QUICK)


def convnet(classes: int = 3) -> Any:
    return backbone("convnet", SIZE, classes=classes, width=4)


def quick(name: str) -> Any:
    return explain.get(name, **QUICK[name])


def test_every_explainer_of_evaluation_is_covered() -> None:
    found = [name for name in EXPLAINERS.names() if not EXPLAINERS.get(name).differentiable]
    assert found == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_network_changes_even_in_inference_mode(name: str) -> None:
    model = convnet().train()
    model.body[1].eval()
    image = images(SIZE, 3)

    def snapshot() -> dict[str, Any]:
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return {
            "modes": [m.training for m in model.modules()],
            "hooks": [len(getattr(m, kind)) for m in model.modules() for kind in hooks],
            "parameters": [(id(p), p.requires_grad, p.grad is None) for p in model.parameters()],
        }

    before = snapshot()
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    heatmap = quick(name)(model, image, TARGET)
    torch.manual_seed(0)
    with torch.inference_mode():
        again = quick(name)(model, image, TARGET)
    assert snapshot() == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    torch.testing.assert_close(again, heatmap)
    assert not heatmap.requires_grad
    assert heatmap.isfinite().all()
    assert heatmap.any()
    assert heatmap.dtype == torch.float64
    with pytest.raises(ValueError, match="one entry per image"):
        quick(name)(model, image, TARGET[:2])
    assert snapshot() == before


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_scores_are_refused(name: str) -> None:
    model = convnet()
    image = images(SIZE, 3)
    with pytest.raises(UserError, match="evaluation only"):
        quick(name)(model, image, TARGET, create_graph=True)
    with pytest.raises(UserError, match="classes"):
        quick(name)(model, image, TARGET.double())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"relax", "u_relax"}))
def test_a_network_with_one_logit_has_two_classes(name: str) -> None:
    one = convnet(classes=1)
    two = convnet(classes=2)
    with torch.no_grad():
        two.load_state_dict(
            {
                **one.state_dict(),
                **{k: v for k, v in two.state_dict().items() if k.startswith("classifier")},
            }
        )
        weight = one.classifier.weight / 2
        two.classifier.weight.copy_(torch.cat([-weight, weight]))
        two.classifier.bias.copy_(torch.cat([-one.classifier.bias, one.classifier.bias]) / 2)
    image = images(SIZE, 3)
    target = torch.tensor([1, 0, 1])
    torch.manual_seed(0)
    expected = quick(name)(two, image, target)
    torch.manual_seed(0)
    torch.testing.assert_close(quick(name)(one, image, target), expected)


def test_random_masks_have_the_share_that_is_asked_for() -> None:
    torch.manual_seed(0)
    masks = random_masks(4000, 7, 0.3, (30, 17), torch.device("cpu"))
    assert masks.shape == (4000, 1, 30, 17)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    assert masks.mean().item() == pytest.approx(0.3, abs=0.01)
    # every pixel has the same share, also at the border
    assert (masks.mean(0) - 0.3).abs().max() < 0.05


def drawn(count: int, batch: int) -> torch.Tensor:
    """The masks that an explainer with QUICK options draws after manual_seed(0)."""
    torch.manual_seed(0)
    most = IMAGES_PER_PASS // batch
    parts = [min(most, count - i) for i in range(0, count, most)]
    return torch.cat([random_masks(n, 4, 0.5, (16, 16), torch.device("cpu")) for n in parts])


def test_rise_against_loops() -> None:
    model = convnet()
    image = images(SIZE, 3)
    expected = torch.zeros(3, 1, 16, 16, dtype=torch.float64)
    for mask, (b, k) in itertools.product(drawn(20, 3).double(), enumerate(TARGET.tolist())):
        score = model(image[b : b + 1] * mask).softmax(1)[0, k].detach()
        expected[b, 0] += score * mask[0] / (20 * 0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(quick("rise")(model, image, TARGET), expected)


def test_relax_and_its_uncertainty_against_loops() -> None:
    model = convnet()
    image = images(SIZE, 3)
    masks = drawn(20, 3).double()
    with torch.no_grad():
        whole = model.features(image)
        similarity = torch.stack(
            [F.cosine_similarity(model.features(image * m), whole) for m in masks]
        )
    R = torch.einsum("nb,nhw->bhw", similarity, masks[:, 0]) / 10
    U = torch.zeros_like(R)
    for n in range(20):
        U += (similarity[n][:, None, None] - R) ** 2 * masks[n] / 10
    torch.manual_seed(0)
    torch.testing.assert_close(quick("relax")(model, image, TARGET)[:, 0], R)
    torch.manual_seed(0)
    certain = U.mean((1, 2), keepdim=True) > U
    assert certain.any()
    assert not certain.all()
    torch.testing.assert_close(quick("u_relax")(model, image, TARGET)[:, 0], R * certain)


def test_score_cam_against_loops() -> None:
    model = convnet()
    image = images(SIZE, 2)
    target = TARGET[:2]
    with torch.no_grad():
        expected = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
        kept = model.feature_map(image)
        for b in range(2):
            base = model(torch.zeros_like(image[:1])).softmax(1)[0, target[b]]
            gains = []
            for channel in kept[b]:
                mask = F.interpolate(channel[None, None], (16, 16), mode="bilinear")
                if channel.max() > channel.min():
                    mask = (mask - mask.min()) / (mask.max() - mask.min())
                else:
                    mask = torch.zeros_like(mask)
                gains.append(model(image[b : b + 1] * mask).softmax(1)[0, target[b]] - base)
            weight = torch.stack(gains).softmax(0)
            expected[b, 0] = (weight[:, None, None] * kept[b]).sum(0).relu()
    torch.testing.assert_close(explain.get("score_cam")(model, image, target), expected)


def test_integrated_gradients_sum_to_the_change_of_the_logit() -> None:
    model = convnet()
    image = images(SIZE, 3)
    heatmap = explain.get("integrated_gradients", steps=200)(model, image, TARGET)
    with torch.no_grad():
        change = model(image) - model(torch.zeros_like(image))
    expected = change.gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(heatmap.sum((1, 2, 3)), expected, rtol=0.02, atol=1e-3)


def test_occlusion_against_loops() -> None:
    model = convnet()
    image = images(SIZE, 1)
    heatmap = explain.get("occlusion", window=0.25, stride=1.0)(model, image, TARGET[:1])
    with torch.no_grad():
        for i, j in itertools.product(range(0, 16, 4), repeat=2):
            occluded = image.clone()
            occluded[:, :, i : i + 4, j : j + 4] = 0
            drop = (model(image) - model(occluded))[0, TARGET[0]]
            window = heatmap[0, :, i : i + 4, j : j + 4]
            torch.testing.assert_close(window, drop.expand_as(window))


class Linear(torch.nn.Module):
    """Two logits: minus and plus the sum of the pixels times a weight."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        score = (image * self.weight).sum((1, 2, 3))
        return torch.stack([-score, score], 1)


def lime_of_linear(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return LIME's coefficients of superpixels for a linear model, and the true ones."""
    weight = images(SIZE, 1, seed=3)[0]
    torch.manual_seed(0)
    heatmap = explain.get("lime", samples=1000, segments=16)(
        Linear(weight), image, torch.tensor([1])
    )
    labels = superpixels(image[0], 16)
    count = int(labels.max()) + 1
    true = torch.zeros(count, dtype=torch.float64)
    true.index_add_(0, labels.flatten(), (image[0] * weight).sum(0).flatten())
    found = torch.stack([heatmap[0, 0][labels == k][0] for k in range(count)])
    torch.testing.assert_close(heatmap[0, 0], found[labels])  # a superpixel has one value
    return found, true


def test_lime_recovers_the_weights_of_superpixels() -> None:
    found, true = lime_of_linear(images(SIZE, 1))
    assert len(true) >= 9
    assert (found - true).norm() < 0.02 * true.norm()


def test_lime_against_the_ridge_regression_of_scikit_learn() -> None:
    import numpy as np
    from sklearn.linear_model import Ridge

    found, true = lime_of_linear(images(SIZE, 1))
    torch.manual_seed(0)
    int(torch.randint(2**31, ()))  # the seed of numpy
    kept = torch.stack([torch.bernoulli(torch.full((len(true),), 0.5)) for _ in range(1000)])
    distance = 1 - torch.cosine_similarity(kept, torch.ones_like(kept), dim=1)
    weight = np.sqrt(np.exp(-(distance.double().numpy() ** 2) / 0.25**2))
    model = Ridge(alpha=1.0).fit(kept.double().numpy(), (kept.double() @ true).numpy(), weight)
    torch.testing.assert_close(found, torch.from_numpy(model.coef_), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(3, 32, 32), (1, 32, 32), (2, 20, 30), (1, 4, 4), (3, 1, 1)])
def test_superpixels_are_connected_and_do_not_depend_on_the_scale(
    size: tuple[int, int, int],
) -> None:
    from scipy import ndimage

    image = images(size, 1)[0]
    labels = superpixels(image, 20)
    count = int(labels.max()) + 1
    assert labels.unique().tolist() == list(range(count))
    assert min(10, size[1] * size[2]) <= count <= 30
    assert all(ndimage.label(labels.numpy() == k)[1] == 1 for k in range(count))
    assert torch.equal(superpixels(image * 8 + 4, 20), labels)


def test_superpixels_follow_edges_and_a_constant_image_has_a_grid() -> None:
    image = torch.zeros(3, 32, 32)
    image[:, :, 13:] = 1.0  # an edge that no regular grid has
    labels = superpixels(image, 16)
    left, right = set(labels[:, :13].unique().tolist()), set(labels[:, 13:].unique().tolist())
    assert not left & right
    assert superpixels(torch.zeros(3, 32, 32), 16).max() == 15


def test_smoothgrad_and_shap_without_noise_are_known_maps() -> None:
    model = convnet()
    image = images(SIZE, 3)
    plain = explain.get("input_gradient")(model, image, TARGET)
    smooth = explain.get("smoothgrad", samples=2, noise=0.0)(model, image, TARGET)
    torch.testing.assert_close(smooth, plain)
    torch.manual_seed(0)
    shap = explain.get("gradient_shap", samples=400, noise=0.0)(model, image, TARGET)
    integrated = explain.get("integrated_gradients", steps=100)(model, image, TARGET)
    error = (shap - integrated).norm() / integrated.norm()
    assert error < 0.2


def test_guided_backprop_against_hooks() -> None:
    model = convnet()
    image = images(SIZE, 3).requires_grad_()
    handles = [
        module.register_full_backward_hook(lambda m, grads, out: (grads[0].clamp_min(0),))
        for module in model.modules()
        if isinstance(module, torch.nn.ReLU)
    ]
    (expected,) = torch.autograd.grad(model(image).gather(1, TARGET[:, None]).sum(), image)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(explain.get("guided_backprop")(model, image, TARGET), expected)


def test_a_network_without_features_or_relu_modules_is_refused() -> None:
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3)).double()
    with pytest.raises(UserError, match="features"):
        quick("relax")(plain, images(SIZE, 3), TARGET)
    with pytest.raises(UserError, match="lrp"):
        quick("guided_backprop")(backbone("mnist_cnn", (3, 8, 8)), images((3, 8, 8), 3), TARGET)
