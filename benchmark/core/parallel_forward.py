"""Networks of one step at the same time: each gets its share of the CPU's threads.

One small network cannot keep many threads busy: every operation ends with waiting for the slowest of them. Two networks
that need nothing of each other's, each on half of the threads, wait half as often.
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

from benchmark.core.compilation import is_compiled

#: Tensors made by a call of ``together``.
Outputs = tuple[torch.Tensor, ...]


def can_overlap(networks: Sequence[nn.Module], image: torch.Tensor) -> bool:
    """Whether these networks may run at the same time on images float[B,C,H,W], and come to the same result.

    They may on a CPU where this process uses at least one thread for each, unless one of them is compiled or draws
    random numbers (dropout, stochastic depth): those come from one stream, and who drew first would be left to chance.
    A copy of each is tried in the mode it is in, so nothing changes.
    """
    if image.device.type != "cpu" or torch.get_num_threads() < len(networks):
        return False
    return not any(is_compiled(network) or _draws(network, image) for network in networks)


def _draws(network: nn.Module, image: torch.Tensor) -> bool:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        copy.deepcopy(network)(image)
        return not torch.equal(before, torch.get_rng_state())


class ParallelForward:
    """Runs several networks at the same time where that leaves the result unchanged.

    Attributes:
        overlaps: whether the networks run at the same time (``can_overlap``); None before the
            first call, which decides it for all later ones.
    """

    def __init__(self) -> None:
        self.overlaps: bool | None = None

    def __call__(
        self, networks: Sequence[nn.Module], image: torch.Tensor, *calls: Callable[[], Outputs]
    ) -> list[Outputs]:
        """Return what the calls return, in their order.

        Args:
            networks: the networks that the calls run.
            image: images float[B,C,H,W] like those that the networks see.
            calls: as for ``together``.
        """
        if self.overlaps is None:
            with torch.autocast(image.device.type, enabled=False):
                self.overlaps = can_overlap(networks, image)
        return together(*calls) if self.overlaps else [call() for call in calls]


def together(*calls: Callable[[], Outputs]) -> list[Outputs]:
    """What the calls return, made at the same time; the backward passes through them run at the same time too.

    The gradients arrive where ``backward()`` puts them, in the ``grad`` of the parameters; ``torch.autograd.grad``
    finds no path to them. In the calls the modes of autograd and autocast are those of the caller.

    Args:
        calls: functions of no arguments that share no state; each returns tensors, on the CPU.
    """
    pool, wrapped = _pool(len(calls), torch.get_num_threads()), [_like_here(call) for call in calls]
    found = _results([pool.submit(call) for call in wrapped])
    if not torch.is_grad_enabled():
        return found
    joined = iter(_Join.apply(torch.empty(0, requires_grad=True), pool, found))  # type: ignore[no-untyped-call]
    return [tuple(next(joined) for _ in outputs) for outputs in found]


class _Join(torch.autograd.Function):
    """Lets one backward pass go on in several threads: the outputs, cut off from the graphs that made them."""

    @staticmethod
    def forward(
        ctx: Any, anchor: torch.Tensor, pool: ThreadPoolExecutor, found: list[Outputs]
    ) -> Outputs:
        ctx.set_materialize_grads(False)
        ctx.pool, ctx.found = pool, found
        return tuple(output.detach() for outputs in found for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[None, None, None]:  # type: ignore[override]
        rest, running = iter(gradients), []
        for outputs in ctx.found:
            pairs = [(output, next(rest)) for output in outputs]
            moved = [(o, g) for o, g in pairs if g is not None and o.requires_grad]
            if moved:
                running.append(
                    ctx.pool.submit(torch.autograd.backward, *map(list, zip(*moved, strict=True)))
                )
        _results(running)
        return None, None, None


def joined_graphs(node: Any) -> list[Any]:
    """The nodes at which the graphs begin that a node of ``together`` stands for; none for any other node."""
    found: list[Outputs] = getattr(node, "found", [])
    return [out.grad_fn for outputs in found for out in outputs if out.grad_fn is not None]


def _results(running: Sequence[Future[Any]]) -> list[Any]:
    """What they return, or the first one's error once all have ended: nothing goes on behind the caller's back."""
    wait(running)
    return [future.result() for future in running]


def _like_here(call: Callable[[], Outputs]) -> Callable[[], Outputs]:
    """The call under the caller's modes, which a thread of its own does not inherit."""
    grad, cast = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def run() -> Outputs:
        with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, enabled=cast):
            return call()

    return run


@functools.cache
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """Workers that have equal shares of the threads; the caller's own number stays as it is."""
    ready = threading.Barrier(workers)

    def start() -> None:
        torch.set_num_threads(max(1, threads // workers))
        torch.get_num_threads()  # a thread takes its number at first need, which the caller's would then be
        ready.wait()

    pool = ThreadPoolExecutor(workers, "together")
    _results([pool.submit(start) for _ in range(workers)])
    torch.set_num_threads(threads)  # what a worker sets is also the number of threads still to come
    return pool
