"""Queries on autograd graphs."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmark.core.parallel_forward import joined_graphs


def depends_on(tensor: torch.Tensor, is_wanted: Callable[[torch.Tensor], bool]) -> bool:
    """Return True if the gradient of a tensor reaches a leaf that ``is_wanted`` accepts.

    Nothing is computed. The structure of the graph outlives the backward pass, so the function also
    works afterwards. A part that is recomputed in the backward pass (a reentrant checkpoint) cannot
    be inspected and counts as reaching such a leaf.

    Args:
        tensor: The tensor.
        is_wanted: Called with each leaf.
    """
    if tensor.grad_fn is None:
        return tensor.requires_grad and is_wanted(tensor)
    to_visit = [tensor.grad_fn]
    seen = {tensor.grad_fn}
    while to_visit:
        node = to_visit.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and is_wanted(leaf):
            return True
        if "Checkpoint" in node.name():
            return True
        children = [child for child, _ in node.next_functions] + joined_graphs(node)
        for child in children:
            if child is not None and child not in seen:
                seen.add(child)
                to_visit.append(child)
    return False
