"""The similarities against scipy, scikit-image, scikit-learn and torch, and degenerate maps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine as scipy_cosine
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, pearsonr
from skimage.metrics import structural_similarity
from sklearn.metrics import mean_absolute_error, mean_squared_error, root_mean_squared_error

from benchmark.losses.similarity import ROOT_FROM, SIMILARITIES, SMOOTHING, guarded_root

NAMES = [
    "mae",
    "mse",
    "rmse",
    "iou",
    "kl",
    "js_divergence",
    "js_distance",
    "cosine",
    "ncc",
    "ssim",
    "dice",
]
SIDE = 7


def maps(seed: int, rows: int = 4) -> torch.Tensor:
    """Maps in [0, 1] with zeros in them, as a ReLU leaves them."""
    drawn = torch.randn(
        rows, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).relu()
    return drawn / drawn.amax((1, 2, 3), keepdim=True)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    inside = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return inside / (math.fsum(a) + math.fsum(b) - inside)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.fsum(a) + math.fsum(b))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    """scikit-image with one window that is the whole map."""
    square = [m.reshape(SIDE, SIDE) for m in (a, b)]
    return float(
        structural_similarity(*square, win_size=SIDE, data_range=1.0, use_sample_covariance=True)
    )


ORACLES = {
    "mae": lambda a, b: -mean_absolute_error(a, b),
    "mse": lambda a, b: -mean_squared_error(a, b),
    "rmse": lambda a, b: -root_mean_squared_error(a, b),
    "iou": _iou,
    "kl": lambda a, b: -entropy(b + SMOOTHING, a + SMOOTHING),
    "js_divergence": lambda a, b: -(jensenshannon(a + SMOOTHING, b + SMOOTHING) ** 2),
    "js_distance": lambda a, b: -jensenshannon(a + SMOOTHING, b + SMOOTHING),
    "cosine": lambda a, b: 1 - scipy_cosine(a / a.sum(), b / b.sum()),
    "ncc": lambda a, b: pearsonr(a, b).statistic,
    "ssim": _ssim,
    "dice": _dice,
}


def test_the_names_are_the_papers_eleven() -> None:
    assert list(SIMILARITIES) == NAMES == list(ORACLES)


@pytest.mark.parametrize("name", NAMES)
def test_against_an_independent_implementation(name: str) -> None:
    a, b = maps(0), maps(1)
    found = SIMILARITIES[name](a, b)
    assert found.shape == (4,) and found.dtype == torch.float64
    expected = [
        ORACLES[name](x.numpy().ravel(), y.numpy().ravel()) for x, y in zip(a, b, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_the_smoothing_moves_a_divergence_of_positive_maps_by_less_than_it_could_matter() -> None:
    a, b = maps(0) + 0.05, maps(1) + 0.05
    rows = list(zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True))
    assert SIMILARITIES["kl"](a, b).tolist() == pytest.approx(
        [-entropy(y, x) for x, y in rows], rel=1e-4
    )
    found = SIMILARITIES["js_distance"](a, b).tolist()
    assert found == pytest.approx([-jensenshannon(x, y) for x, y in rows], rel=1e-4)


def test_against_torch() -> None:
    a, b = maps(0).flatten(1), maps(1).flatten(1)
    functional = torch.nn.functional
    assert torch.allclose(
        SIMILARITIES["cosine"](a, b), functional.cosine_similarity(a, b), rtol=1e-12
    )
    assert torch.allclose(
        SIMILARITIES["mae"](a, b), -functional.l1_loss(a, b, reduction="none").mean(1), rtol=1e-12
    )
    p, q = ((m + SMOOTHING) / (m + SMOOTHING).sum(1, keepdim=True) for m in (a, b))
    divergence = functional.kl_div(p.log(), q, reduction="none").sum(
        1
    )  # KL(q ‖ p): the confounder's map first
    assert torch.allclose(SIMILARITIES["kl"](a, b), -divergence, rtol=1e-12)
    pearson = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)]
    )
    assert torch.allclose(SIMILARITIES["ncc"](a, b), pearson, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_more_alike_the_larger(name: str) -> None:
    """A spot that moves from elsewhere onto the other map's spot."""
    yy, xx = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    spots = torch.stack(
        [((xx - x) ** 2 + (yy - 3) ** 2).neg().div(2).exp() for x in (6, 5, 4, 3)]
    ).double()[:, None]
    found = SIMILARITIES[name](spots, spots[3:].expand(4, -1, -1, -1))
    assert (found.diff() > 1e-3).all(), found.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_each_image_has_its_own_number_and_the_shape_does_not_matter(name: str) -> None:
    a, b = maps(0), maps(1)
    similarity = SIMILARITIES[name]
    assert torch.allclose(similarity(a[2:3], b[2:3]), similarity(a, b)[2:3], rtol=1e-12)
    assert torch.equal(similarity(a.flatten(1), b.flatten(1)), similarity(a, b))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "kl"])
def test_all_but_the_divergence_of_kullback_are_symmetric(name: str) -> None:
    a, b = maps(0), maps(1)
    assert torch.allclose(SIMILARITIES[name](a, b), SIMILARITIES[name](b, a), rtol=1e-12)
    assert not torch.allclose(SIMILARITIES["kl"](a, b), SIMILARITIES["kl"](b, a), rtol=1e-3)


def degenerate(dtype: torch.dtype, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all pairs of empty, nearly empty, constant, one-pixel and ordinary maps."""
    spot, other = torch.zeros(side, side), torch.zeros(side, side)
    spot[0, 0] = other[-1, -1] = 1
    ordinary = torch.rand(side, side, generator=torch.Generator().manual_seed(0)).sub(0.3).relu()
    flat = torch.ones(side, side)
    kinds = [0 * flat, 1e-30 * flat, 0.1 * flat, flat, 2 * flat, spot, other, 50 * spot, ordinary]
    pairs = list(itertools.product(kinds, kinds))
    return tuple(torch.stack(m)[:, None].to(dtype) for m in zip(*pairs, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [1, 2, SIDE])
def test_finite_with_finite_gradients(name: str, dtype: torch.dtype, side: int) -> None:
    a, b = (m.requires_grad_() for m in degenerate(dtype, side))
    found = SIMILARITIES[name](a, b)
    assert found.isfinite().all()
    for gradient in torch.autograd.grad(found.sum(), (a, b)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("name", "equal", "apart"),
    [
        ("mae", 0, -2 / 49),
        ("mse", 0, -2 / 49),
        ("rmse", 0, -math.sqrt(2 / 49)),
        ("iou", 1, 0),
        ("dice", 1, 0),
        ("js_divergence", 0, -math.log(2)),
        ("js_distance", 0, -math.sqrt(math.log(2))),
        ("cosine", 1, 0),
        ("ncc", 1, -1 / 48),
        ("ssim", 1, None),
        ("kl", 0, None),
    ],
)
def test_one_pixel_each_in_the_same_place_and_in_another(
    name: str, equal: float, apart: float | None
) -> None:
    spot, other = torch.zeros(1, 1, SIDE, SIDE).double(), torch.zeros(1, 1, SIDE, SIDE).double()
    spot[..., 0, 0] = other[..., 3, 3] = 1
    assert SIMILARITIES[name](spot, spot).item() == pytest.approx(equal, abs=1e-12)
    if apart is not None:
        assert SIMILARITIES[name](spot, other).item() == pytest.approx(apart, rel=1e-3)


def test_what_has_no_structure_resembles_nothing() -> None:
    empty, flat, ordinary = (
        torch.zeros(1, 1, 7, 7),
        torch.full((1, 1, 7, 7), 0.1),
        maps(0, 1).float(),
    )
    for name in ("cosine", "iou", "dice"):
        assert SIMILARITIES[name](empty, ordinary) == SIMILARITIES[name](empty, empty) == 0
    assert (
        SIMILARITIES["ncc"](flat, ordinary) == 0
    )  # 0.1 is no binary fraction: its deviations are rounding
    assert SIMILARITIES["ssim"](flat, flat).item() == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    a, b = (maps(seed, 2)[:, :, :3, :3].add(0.1).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(SIMILARITIES[name], (a, b))


def test_the_guarded_root_is_the_root_from_its_threshold_on_and_a_line_below() -> None:
    x = torch.tensor(
        [0.0, ROOT_FROM / 4, ROOT_FROM, 0.25, -1e-20], dtype=torch.float64, requires_grad=True
    )
    root = guarded_root(x)
    expected = [0, math.sqrt(ROOT_FROM) / 4, math.sqrt(ROOT_FROM), 0.5, 0]
    assert root.tolist() == pytest.approx(expected, rel=1e-12, abs=0)
    (slope,) = torch.autograd.grad(root.sum(), x)
    assert slope.isfinite().all() and slope[3] == 1
