"""A program of its own: whether PyTorch can compute on the GPUs that CUDA_VISIBLE_DEVICES leaves it.

The launcher must not touch CUDA, whose state every forked process would inherit, so it starts
``python gpu_probe.py`` and reads the last line of its standard output, one JSON object.
"""

from __future__ import annotations

import json
from typing import Any


def main() -> None:
    """Print what was found; see ``probe``."""
    print(json.dumps(probe()))


def probe() -> dict[str, Any]:
    """What PyTorch can do here.

    Returns:
        ``reason``: why PyTorch can use no GPU at all, or an empty text.
        ``hopeless``: whether that has nothing to do with which GPUs are visible.
        ``devices``: for each GPU that CUDA shows, in its order, ``uuid`` (empty where PyTorch does
            not tell) and ``reason``: why a small sum failed, or an empty text.
    """
    try:
        import torch
    except Exception as error:  # such as a library of CUDA that is not there
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
    return {"uuid": uuid, "reason": "" if total == 16.0 else f"8 times 2 is {total} on it"}


def _failed(reason: str, *, hopeless: bool = False) -> dict[str, Any]:
    return {"reason": reason, "hopeless": hopeless, "devices": []}


if __name__ == "__main__":
    main()
