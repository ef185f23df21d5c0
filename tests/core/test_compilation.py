"""Compiled networks are recognised, unwrapped, and run without compilation."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from benchmark.core.compilation import eagerly, is_compiled, uncompiled
from benchmark.core.errors import UserError


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield


class Small(nn.Sequential):
    """A subclass, since torch 2.7 and older do not compile torch's own classes in place."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image)


def small() -> nn.Sequential:
    return Small(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


class Backend:
    """A compiler that counts how often what it compiled is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        def run(*arguments: torch.Tensor) -> object:
            self.calls += 1
            return graph.forward(*arguments)

        return run


def ahead_of_time(network: nn.Module) -> nn.Module:
    """Return the network in the wrapper of ahead-of-time compilation, which compiles nothing."""
    from functorch.compile import aot_module, nop  # the import takes two seconds

    return aot_module(network, nop)  # type: ignore[no-any-return]


def in_place(network: nn.Module, backend: Callable) -> nn.Module:
    network.compile(backend=backend)
    return network


def wrapped(network: nn.Module, backend: Callable) -> nn.Module:
    return torch.compile(network, backend=backend)  # type: ignore[return-value]


def forward_alone(network: nn.Module, backend: Callable) -> nn.Module:
    network.forward = torch.compile(network.forward, backend=backend)  # type: ignore[method-assign]
    return network


def a_part(network: nn.Module, backend: Callable) -> nn.Module:
    network[0] = torch.compile(network[0], backend=backend)  # type: ignore[operator]
    return network


def twice(network: nn.Module, backend: Callable) -> nn.Module:
    return wrapped(in_place(network, backend), backend)


WAYS = [in_place, wrapped, forward_alone, a_part, twice]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_compiled_networks_run_uncompiled_inside_and_compiled_again_after(
    way: Callable,
) -> None:
    backend, image = Backend(), torch.randn(5, 3)
    plain = small()
    expected = plain(image)
    network = way(plain, backend)
    network(image)
    before = backend.calls
    assert before > 0
    with eagerly():
        with eagerly():
            torch.testing.assert_close(network(image), expected)
        torch.testing.assert_close(network(image), expected)
    assert backend.calls == before
    network(image)
    assert backend.calls > before


@pytest.mark.parametrize("way", [*WAYS, lambda network, backend: ahead_of_time(network)])
def test_compiled_networks_are_recognised(way: Callable) -> None:
    network = small()
    assert not is_compiled(network)
    assert is_compiled(way(network, Backend()))


def test_a_network_comes_out_of_all_its_wrappers() -> None:
    network = small()
    assert uncompiled(network) is network
    assert uncompiled(torch.compile(ahead_of_time(network), backend="eager")) is network
    scripted = torch.jit.trace(network, torch.randn(2, 3))
    assert uncompiled(scripted) is scripted


@pytest.mark.slow
def test_an_error_inside_changes_nothing() -> None:
    backend, image = Backend(), torch.randn(5, 3)
    network = in_place(small(), backend)
    with pytest.raises(ZeroDivisionError), eagerly():
        raise ZeroDivisionError
    network(image)
    assert backend.calls == 1


def test_threads_that_overlap_leave_the_compiler_as_it_was() -> None:
    """The stance is global: it lasts until the last thread leaves, and no longer."""
    backend, image = Backend(), torch.randn(5, 3)
    network = in_place(small(), backend)
    network(image)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with eagerly():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    with eagerly():
        thread.start()
        assert inside.wait(30)
    network(image)  # the thread is still inside
    assert backend.calls == 1
    leave.set()
    thread.join(30)
    network(image)
    assert backend.calls == 2


@pytest.mark.slow
def test_inside_a_compiled_function_it_is_refused() -> None:
    def explain(image: torch.Tensor) -> torch.Tensor:
        with eagerly():
            return image + 1

    with pytest.raises(UserError, match=r"inside a function that torch\.compile compiles"):
        torch.compile(explain, backend="eager")(torch.randn(2))


@pytest.mark.slow
def test_it_costs_no_import_of_the_compiler() -> None:
    code = (
        "import sys, torch; from benchmark.core.compilation import eagerly\n"
        "with eagerly(): torch.nn.Linear(2, 2)(torch.zeros(1, 2))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
