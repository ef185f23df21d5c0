"""A program that checks on which of the visible GPUs PyTorch can compute.

The launcher must not use CUDA, since every forked process would inherit its state. It therefore
starts ``python gpu_probe.py`` and reads one JSON object from the last line of its output.
"""

from __future__ import annotations

import json
from typing import Any


def main() -> None:
    """Print the result of ``probe`` as JSON."""
    print(json.dumps(probe()))


def probe() -> dict[str, Any]:
    """Try to compute on every GPU that CUDA_VISIBLE_DEVICES leaves.

    Returns:
        ``reason``: why PyTorch can use no GPU at all; empty if it can.
        ``hopeless``: True if this holds no matter which GPUs are visible.
        ``devices``: one entry for each GPU, in CUDA's order, with ``uuid`` (empty if PyTorch does
            not report it) and ``reason`` (why a small sum failed; empty if it did not).
    """
    try:
        import torch
    except Exception as error:  # such as a missing CUDA library
        return _failed(f"PyTorch cannot be imported: {error}", hopeless=True)
    if torch.version.cuda is None and torch.version.hip is None:
        return _failed("this PyTorch is built without CUDA", hopeless=True)
    try:
        torch.cuda.init()
        count = torch.cuda.device_count()
    except Exception as error:
        return _failed(str(error))
    if not count:
        return _failed("CUDA shows no GPU")
    return {"reason": "", "hopeless": False, "devices": [_examine(i) for i in range(count)]}


def _examine(index: int) -> dict[str, str]:
    import torch

    uuid = ""
    try:
        uuid = str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))
        total = torch.ones(8, device=f"cuda:{index}").add(1).sum().item()
    except Exception as error:  # the architecture is too new or too old, the memory is full, ...
        return {"uuid": uuid, "reason": str(error)}
    return {"uuid": uuid, "reason": "" if total == 16.0 else f"it computes 8 × 2 = {total}"}


def _failed(reason: str, *, hopeless: bool = False) -> dict[str, Any]:
    return {"reason": reason, "hopeless": hopeless, "devices": []}


if __name__ == "__main__":
    main()
