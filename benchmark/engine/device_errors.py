"""Which errors of PyTorch mean that memory was short or that a GPU failed."""

from __future__ import annotations

import torch

#: Parts of messages about memory. A library that cannot create its handle lacks memory for it.
_OF_MEMORY = (
    "out of memory",
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "ALLOCATION_FAILED",
)
#: Parts of messages about a GPU or its libraries.
_OF_DEVICE = ("CUDA error", "CUBLAS_STATUS_", "CUDNN_STATUS_", "CUSOLVER_STATUS_", "cuDNN error")


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error says that the memory of the machine or of a GPU was too small."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in _OF_MEMORY)


def is_device_error(error: BaseException) -> bool:
    """Return True if an error says that a GPU failed for another reason than its memory.

    Such an error may be due to the hardware or to another process on the same GPU.
    """
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    # PyTorch before 2.9 raises RuntimeError.
    accelerator_error: type | None = getattr(torch, "AcceleratorError", None)
    if accelerator_error is not None and isinstance(error, accelerator_error):
        return True
    return any(part in str(error) for part in _OF_DEVICE)
