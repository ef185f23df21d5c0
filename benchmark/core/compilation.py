"""Compiled networks, and how to run them without compilation.

A compiled network cannot be explained: its backward rules are fixed when it is traced, its hooks
may be skipped, and it cannot be differentiated twice. All code that observes a network therefore
runs inside ``eagerly()``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from benchmark.core.errors import UserError

#: Attributes in which ``torch.compile`` and ``functorch.compile.aot_module`` keep the network.
_WRAPPED = ("_orig_mod", "orig_module")


def uncompiled(network: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of a compiler, or the network itself."""
    while True:
        children = dict(network.named_children())
        inner = [children[name] for name in _WRAPPED if name in children]
        if not inner:
            return network
        network = inner[0]


def is_compiled(network: nn.Module) -> bool:
    """Return True if the network, or a module in it, is called through a compiler."""
    return any(
        module._compiled_call_impl is not None
        or hasattr(module.forward, "_torchdynamo_orig_callable")
        or uncompiled(module) is not module
        for module in network.modules()
    )


class _Stance:
    """The stance of the compiler, a global setting that several threads may need at once."""

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
    """Run everything that ``torch.compile`` has compiled without compilation.

    This context applies to the whole process, so that several threads can observe networks at the
    same time. A compiled network that another thread calls meanwhile gives the same results, but
    more slowly. Contexts can be nested.

    Args:
        network: Its modules that functorch has compiled also run without compilation.

    Raises:
        UserError: If the caller itself runs in a compiled function.
    """
    with _unwrapped(network), _no_compiler():
        yield


@contextmanager
def _unwrapped(network: nn.Module | None) -> Iterator[None]:
    """Let modules that functorch has compiled call the modules that they wrap.

    Unlike ``torch.compile``, functorch has no global switch.
    """
    modules = network.modules() if network is not None else ()
    wrappers = [
        module
        for module in modules
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
    # If the compiler is not loaded, nothing is compiled, and loading it would take a second.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    try:
        _stance.take()
    except RuntimeError:
        raise UserError(
            "an explanation cannot be computed inside a function that torch.compile compiles; "
            "compile the network instead of the function that explains it."
        ) from None
    try:
        yield
    finally:
        _stance.release()
