"""Errors of PyTorch that mean a lack of memory or a GPU that failed."""

from __future__ import annotations

import pytest
import torch

from benchmark.engine.device_errors import is_device_error, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "memory", "device"),
    [
        (MemoryError(), True, False),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True, False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True, False),
        (RuntimeError("CUDA error: out of memory"), True, False),
        (RuntimeError("CUDA error: unspecified launch failure"), False, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False, False),
        (ValueError("CUDA error: not from PyTorch"), False, False),
    ],
)
def test_errors_of_memory_and_of_the_gpu(error: Exception, memory: bool, device: bool) -> None:
    assert (is_out_of_memory(error), is_device_error(error)) == (memory, device)


def test_every_accelerator_error_is_one_of_the_gpu() -> None:
    kind = getattr(torch, "AcceleratorError", None)
    if kind is None:
        pytest.skip("this PyTorch has no AcceleratorError")
    assert is_device_error(kind("the driver lost the device"))
