"""Compiled networks, and how to run them uncompiled while something must see every operation.

A compiled network is unfit to be explained: its backward rules are fixed when it is traced, its hooks may be skipped,
and it cannot be differentiated twice. So everything that watches a network does so inside ``eagerly()``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from benchmark.core.errors import UserError

#: Under which names ``torch.compile`` and ``functorch.compile.aot_module`` keep the network that they wrap.
_WRAPPED = ("_orig_mod", "orig_module")


def uncompiled(network: nn.Module) -> nn.Module:
    """The network itself, out of the wrappers that compiled it; any other network is returned as it is."""
    while True:
        children = dict(network.named_children())
        inner = [children[name] for name in _WRAPPED if name in children]
        if not inner:
            return network
        network = inner[0]


def is_compiled(network: nn.Module) -> bool:
    """Whether a call of the network, or of a module in it, goes through a compiler."""
    return any(
        module._compiled_call_impl is not None
        or hasattr(module.forward, "_torchdynamo_orig_callable")
        or uncompiled(module) is not module
        for module in network.modules()
    )


class _Stance:
    """The compiler's stance, which is one for the whole process, held by all who need it at the same time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0
        self.held = ExitStack()

    def take(self) -> None:
        with self.lock:
            if self.holders == 0:
                self.held.enter_context(torch.compiler.set_stance("force_eager"))
            self.holders += 1

    def release(self) -> None:
        with self.lock:
            self.holders -= 1
            if self.holders == 0:
                self.held.close()


_stance = _Stance()


@contextmanager
def eagerly(network: nn.Module | None = None) -> Iterator[None]:
    """Inside, whatever ``torch.compile`` has compiled runs uncompiled, however it was compiled.

    This holds for the whole process, so that networks may be watched in several threads at once; a compiled network
    that another thread calls meanwhile gives the same results, only later. May be nested.

    Args:
        network: a network in which modules that functorch has compiled run uncompiled too.

    Raises:
        UserError: the caller itself runs in a function that is compiled.
    """
    with _unwrapped(network), _no_compiler():
        yield


@contextmanager
def _unwrapped(network: nn.Module | None) -> Iterator[None]:
    """Modules of functorch, which knows no switch, hand their calls to what they wrap."""
    wrappers = [
        module
        for module in (network.modules() if network is not None else ())
        if "orig_module" in dict(module.named_children()) and "forward" not in module.__dict__
    ]
    for module in wrappers:
        module.__dict__["forward"] = module.orig_module
    try:
        yield
    finally:
        for module in wrappers:
            del module.__dict__["forward"]


@contextmanager
def _no_compiler() -> Iterator[None]:
    # where the compiler was not loaded, nothing can have been compiled; loading it would take a second
    if "torch._dynamo" not in sys.modules:
        yield
        return
    try:
        _stance.take()
    except RuntimeError:
        raise UserError(
            "an explanation cannot be computed inside a function that torch.compile compiles; compile the network "
            "instead of the function that explains it."
        ) from None
    try:
        yield
    finally:
        _stance.release()
