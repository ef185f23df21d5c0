"""What a tensor was computed from, read from the structure of its graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmark.core.parallel_forward import joined_graphs


def depends_on(tensor: torch.Tensor, is_wanted: Callable[[torch.Tensor], bool]) -> bool:
    """Whether a gradient of ``tensor`` leads to a leaf for which ``is_wanted`` is true.

    The structure of the graph outlives the backward pass, so this can be asked afterwards too; nothing is computed.
    A part that is recomputed in the backward pass (a reentrant checkpoint) cannot be looked into and counts as wanted.
    """
    if tensor.grad_fn is None:
        return tensor.requires_grad and is_wanted(tensor)
    waiting, known = [tensor.grad_fn], {tensor.grad_fn}
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and is_wanted(leaf):
            return True
        if "Checkpoint" in node.name():
            return True
        for child in (*(child for child, _ in node.next_functions), *joined_graphs(node)):
            if child is not None and child not in known:
                known.add(child)
                waiting.append(child)
    return False
