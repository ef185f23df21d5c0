"""Run several networks at the same time, each on a share of the threads of the CPU.

One small network cannot keep many threads busy, because every operation ends with waiting for the
slowest thread. Two independent networks, each on half of the threads, wait half as often.
"""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import nn

from benchmark.core import speed
from benchmark.core.compilation import is_compiled

#: Tensors made by a call of ``together``.
Outputs = tuple[torch.Tensor, ...]


def can_overlap(networks: Sequence[nn.Module], image: torch.Tensor) -> bool:
    """Return True if networks can run at the same time without changing their results.

    They can if they run on a CPU, if this process uses at least one thread per network, and if no
    network is compiled or draws random numbers (dropout, stochastic depth). Random numbers come
    from one stream, so their order would be undefined. A copy of each network is tried in its
    current mode; the networks themselves do not change.

    Args:
        networks: The networks.
        image: float[B,C,H,W], images like those that the networks see.
    """
    if not speed.is_enabled():
        return False
    if image.device.type != "cpu" or torch.get_num_threads() < len(networks):
        return False
    return not any(is_compiled(network) or _draws(network, image) for network in networks)


def _draws(network: nn.Module, image: torch.Tensor) -> bool:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        copy.deepcopy(network)(image)
        return not torch.equal(before, torch.get_rng_state())


class ParallelForward:
    """Run several networks at the same time if that does not change the results.

    Attributes:
        overlaps: Whether the networks run at the same time (see ``can_overlap``). None before the
            first call, which decides it for all later calls.
    """

    def __init__(self) -> None:
        self.overlaps: bool | None = None

    def __call__(
        self, networks: Sequence[nn.Module], image: torch.Tensor, *calls: Callable[[], Outputs]
    ) -> list[Outputs]:
        """Return the results of the calls in their order.

        Args:
            networks: The networks that the calls run.
            image: float[B,C,H,W], images like those that the networks see.
            calls: As for ``together``.
        """
        if self.overlaps is None:
            with torch.autocast(image.device.type, enabled=False):
                self.overlaps = can_overlap(networks, image)
        return together(*calls) if self.overlaps else [call() for call in calls]


def together(*calls: Callable[[], Outputs]) -> list[Outputs]:
    """Run functions at the same time and return their results in order.

    The backward passes through the results also run at the same time. Gradients arrive in the
    ``grad`` of the parameters, as with ``backward()``; ``torch.autograd.grad`` finds no path to
    them. The modes of autograd and autocast are those of the caller.

    Args:
        calls: Functions without arguments that share no state. Each returns tensors on the CPU.
    """
    pool = _pool(len(calls), torch.get_num_threads())
    results = _results([pool.submit(_in_current_modes(call)) for call in calls])
    if not torch.is_grad_enabled():
        return results
    anchor = torch.empty(0, requires_grad=True)
    joined = iter(_Join.apply(anchor, pool, results))  # type: ignore[no-untyped-call]
    return [tuple(next(joined) for _ in outputs) for outputs in results]


class _Join(torch.autograd.Function):
    """Separate outputs from their graphs, so that a backward pass can use several threads."""

    @staticmethod
    def forward(
        ctx: Any, anchor: torch.Tensor, pool: ThreadPoolExecutor, joined_outputs: list[Outputs]
    ) -> Outputs:
        ctx.set_materialize_grads(False)
        ctx.pool = pool
        ctx.joined_outputs = joined_outputs
        return tuple(output.detach() for outputs in joined_outputs for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[None, None, None]:  # type: ignore[override]
        remaining = iter(gradients)
        futures = []
        for outputs in ctx.joined_outputs:
            tensors: list[torch.Tensor] = []
            grads: list[torch.Tensor] = []
            for output in outputs:
                gradient = next(remaining)
                if gradient is not None and output.requires_grad:
                    tensors.append(output)
                    grads.append(gradient)
            if tensors:
                futures.append(ctx.pool.submit(torch.autograd.backward, tensors, grads))
        _results(futures)
        return None, None, None


def joined_graphs(node: Any) -> list[Any]:
    """Return the roots of the graphs behind a node of ``together``; empty for any other node."""
    joined: list[Outputs] = getattr(node, "joined_outputs", [])
    return [out.grad_fn for outputs in joined for out in outputs if out.grad_fn is not None]


def _results(futures: Sequence[Future[Any]]) -> list[Any]:
    """Wait for all futures, then return their results or raise the first error."""
    wait(futures)
    return [future.result() for future in futures]


def _in_current_modes(call: Callable[[], Outputs]) -> Callable[[], Outputs]:
    """Return a function that makes the call in the caller's modes, which threads do not inherit."""
    grad = torch.is_grad_enabled()
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def run() -> Outputs:
        with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, enabled=autocast):
            return call()

    return run


@functools.cache
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """Return workers that share the threads equally. The caller keeps its number of threads."""
    ready = threading.Barrier(workers)

    def start() -> None:
        torch.set_num_threads(max(1, threads // workers))
        torch.get_num_threads()  # Applies the number now; otherwise the caller's would be used.
        ready.wait()

    pool = ThreadPoolExecutor(workers, "together")
    _results([pool.submit(start) for _ in range(workers)])
    torch.set_num_threads(threads)  # The workers have changed the number for new threads.
    return pool
