"""Networks that run at the same time give the same numbers as one after the other."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from benchmark.core.parallel_forward import can_overlap, together
from tests.support.threads import threads


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    with threads(2):
        yield


def network(seed: int, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    )
    return nn.Sequential(*layers)


def image(rows: int = 16) -> torch.Tensor:
    return torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(7))


def state(*networks: nn.Module) -> dict[str, torch.Tensor]:
    """Gradients, parameters and running statistics."""
    found = {}
    for i, one in enumerate(networks):
        found |= {f"{i}.{name}": value for name, value in one.state_dict().items()}
        found |= {
            f"{i}.{name}.grad": p.grad for name, p in one.named_parameters() if p.grad is not None
        }
    return found


def test_gradients_outputs_and_statistics_are_those_of_one_after_another() -> None:
    x, models = image(), [network(1), network(2)]
    others = copy.deepcopy(models)
    (a,), (b,) = together(lambda: (models[0](x),), lambda: (models[1](x),))
    (a * b).square().mean().backward()
    torch.set_num_threads(1)  # the share of each
    c, d = (other(x) for other in others)
    (c * d).square().mean().backward()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    found, expected = state(*models), state(*others)
    assert found.keys() == expected.keys()
    assert any(name.endswith(".grad") for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def test_both_passes_are_under_way_at_the_same_time() -> None:
    """Each waits for the other in the middle: one after another would break the barrier."""
    meeting, met = threading.Barrier(2), []

    def meet(*_: torch.Tensor) -> None:
        meeting.wait(30)
        met.append(threading.current_thread().name)

    def call(weight: torch.Tensor) -> tuple[torch.Tensor]:
        meet()
        middle = 2 * weight
        middle.register_hook(meet)
        return (middle.exp(),)

    weights = [torch.ones(3, requires_grad=True) for _ in range(2)]
    (a,), (b,) = together(*(lambda weight=weight: call(weight) for weight in weights))
    (a * b).sum().backward()
    assert len(met) == 4
    assert len(set(met)) == 2
    for weight in weights:  # d e^{2w} e^{2v} / dw = 2 e^4
        assert torch.allclose(weight.grad, torch.full((3,), 2 * torch.tensor(4.0).exp().item()))  # type: ignore[arg-type]


def test_outputs_that_the_loss_does_not_use_get_no_gradient() -> None:
    used, unused = network(1), network(2)
    (a, kept), (b,) = together(lambda: (used(image()), torch.ones(2)), lambda: (unused(image()),))
    assert torch.equal(kept, torch.ones(2))
    (a.sum() + 0 * b.detach().sum()).backward()
    assert all(p.grad is not None for p in used.parameters())
    assert all(p.grad is None for p in unused.parameters())


def test_the_calls_inherit_autocast_and_whether_gradients_are_kept() -> None:
    model = network(1)
    with torch.autocast("cpu", torch.bfloat16):
        (half,), _ = together(lambda: (model(image()),), lambda: (image(),))
    assert half.dtype is torch.bfloat16
    with torch.no_grad():
        (whole,), _ = together(lambda: (model(image()),), lambda: (image(),))
    assert whole.dtype is torch.float32
    assert not whole.requires_grad


def test_an_error_is_raised_once_both_have_ended_and_the_threads_stay() -> None:
    ended, go = [], threading.Event()

    def bad() -> tuple[torch.Tensor, ...]:
        go.set()
        raise ValueError("this one")

    def slow() -> tuple[torch.Tensor, ...]:
        go.wait(30)
        model(image())
        ended.append(True)
        return (image(),)

    model = network(1)
    with pytest.raises(ValueError, match="this one"):
        together(bad, slow)
    assert ended == [True]
    assert torch.get_num_threads() == 2


def test_each_call_has_its_share_of_the_threads_and_the_caller_all() -> None:
    torch.set_num_threads(4)
    (a,), (b,) = together(*[lambda: (torch.tensor(torch.get_num_threads()),)] * 2)
    assert (a.item(), b.item(), torch.get_num_threads()) == (2, 2, 4)


def test_when_networks_can_overlap() -> None:
    x, models = image(), [network(1), network(2)]
    random = [models[0], network(3, dropout=0.5)]
    before, drawn = copy.deepcopy(state(*models)), torch.get_rng_state()
    assert can_overlap(models, x)
    assert not can_overlap(random, x)
    assert torch.equal(drawn, torch.get_rng_state())
    assert can_overlap([models[0], random[1].eval()], x)
    after = state(*models)
    assert all(
        torch.equal(after[name], value) for name, value in before.items()
    )  # running statistics too
    torch.set_num_threads(1)
    assert not can_overlap(models, x)


def test_compiled_networks_do_not_overlap() -> None:
    models = [network(1), network(2)]
    models[1].compile()
    assert not can_overlap(models, image())
