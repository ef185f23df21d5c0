"""Count the floating-point operations of convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Count operations that run while this context is active, in forward and backward passes.

    Unlike ``torch.utils.flop_counter.FlopCounterMode`` it has no hooks on modules, which
    explanations with gradients of gradients would disturb.

    Attributes:
        total: The number of operations; a multiplication and an addition count as two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        formula = flop_registry.get(func.overloadpacket)
        if formula is None:
            with self:  # In inference mode, layers arrive here before they are decomposed.
                result = func.decompose(*args, **named)
            return func(*args, **named) if result is NotImplemented else result
        result = func(*args, **named)
        self.total += int(formula(*args, **named, out_val=result))
        return result
