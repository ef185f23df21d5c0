"""A pretended GPU: the CPU computes, but tensors say that they are on ``cuda:0``.

Device mistakes are found on machines without a GPU. An operation that mixes tensors of the GPU and
of the host raises, as it would on a GPU. Operations that would make the host wait for the GPU are
noted. Nothing is said about speed, memory or rounding.

PyTorch's backend for Python (``PrivateUse1``) provides the device. Its set-up is a private function
of PyTorch; ``AVAILABLE`` is False where it is missing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

_SETUP = "_setup_privateuseone_for_python_backend"
#: Whether this PyTorch has what the pretended GPU needs.
AVAILABLE = hasattr(backend_registration, _SETUP) and hasattr(torch._C, "_acc")
#: Type of the device inside PyTorch, and the device that everything else sees.
_TYPE = "pretended"
_INSIDE = f"{_TYPE}:0"
_IS_CUDA = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]

#: Operations whose result the host must know before it can go on: a value, or a size.
_WAITING = {
    "_local_scalar_dense": "a value is read",
    "equal": "a value is read",
    "nonzero": "the size of the result depends on values",
    "masked_select": "the size of the result depends on values",
    "_unique2": "the size of the result depends on values",
    "unique_dim": "the size of the result depends on values",
    "unique_consecutive": "the size of the result depends on values",
    "bincount": "the size of the result depends on values",
    "repeat_interleave": "the size of the result depends on values",
}
#: Operations that raise on a GPU if deterministic algorithms are required.
_NOT_DETERMINISTIC = {
    "_adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "fractional_max_pool2d_backward",
    "grid_sampler_2d_backward",
    "histc",
    "kthvalue",
    "max_pool3d_with_indices_backward",
    "nll_loss2d_backward",
    "reflection_pad2d_backward",
    "replication_pad2d_backward",
}
#: Operations that accept indices of the host beside tensors of the GPU.
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}

#: Operations that do not accept a single value of the host beside tensors of the GPU.
_WITHOUT_SCALARS = {"cat", "stack"}


class Note(NamedTuple):
    """Something that costs time on a GPU.

    Attributes:
        operation: name of the operation.
        reason: why the host waits, or another problem.
    """

    operation: str
    reason: str


class WrongDeviceError(RuntimeError):
    """An operation got tensors of the GPU and of the host."""


class PretendedTensor(torch.Tensor):
    """A tensor of the pretended GPU; ``held`` has its values on the CPU."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> PretendedTensor:
        # A view of a normal tensor is a normal tensor, in inference mode too.
        with torch.inference_mode(held.is_inference()):
            tensor = torch.Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                layout=held.layout,
                device=_INSIDE,
            )
        tensor.held = held
        return tensor

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"pretended {self.held!r}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return how the values are stored; checkpoints are loaded to the CPU."""
        is_parameter = isinstance(self, torch.nn.Parameter)
        held = torch.nn.Parameter(self.held, self.requires_grad) if is_parameter else self.held
        return held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _compute(func, args, kwargs or {}, lambda note: None)


def _compute(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], note: Callable[[Note], None]
) -> Any:
    """Compute an operation on the CPU, as if some of its tensors were on a GPU."""
    name = func.overloadpacket.__name__
    flat, form = tree_flatten((tuple(args), dict(kwargs)))
    ours = [x for x in flat if isinstance(x, PretendedTensor)]
    asked = kwargs.get("device")
    to_gpu = asked is not None and torch.device(asked).type == _TYPE
    if not ours and not to_gpu:
        return func(*args, **kwargs)
    host = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, PretendedTensor)]
    if name in ("copy_", "_to_copy"):
        _note_copy(name, args, kwargs, to_gpu, note)
    elif name in _INDEXING:
        _note_index(name, args, note)
    elif any(x.dim() > 0 or name in _WITHOUT_SCALARS for x in host):
        shapes = ", ".join(str(list(x.shape)) for x in host)
        raise WrongDeviceError(
            f"Expected all tensors to be on the same device, but found cuda:0 and cpu (of shape "
            f"{shapes}) in {func}"
        )
    if name in _WAITING:
        note(Note(name, _WAITING[name]))
    if name in _NOT_DETERMINISTIC:
        note(Note(name, "it has no deterministic form on a GPU"))
    held = [x.held if isinstance(x, PretendedTensor) else x for x in flat]
    plain_args, plain_kwargs = tree_unflatten(held, form)
    if asked is not None:
        plain_kwargs["device"] = "cpu"
    if "pin_memory" in plain_kwargs:
        plain_kwargs["pin_memory"] = False
    result = func(*plain_args, **plain_kwargs)
    if asked is not None and not to_gpu:
        return result
    # Operations in place return the tensor that they were given.
    given = {id(x.held): x for x in ours} | {id(x): x for x in host}

    def wrap(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return given[id(x)] if id(x) in given else PretendedTensor(x)

    return tree_map(wrap, result)


def _note_copy(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    to_gpu: bool,
    note: Callable[[Note], None],
) -> None:
    if name == "_to_copy":
        asked = kwargs.get("device")
        from_gpu = isinstance(args[0], PretendedTensor)
        to_gpu = to_gpu or (from_gpu and asked is None)
        non_blocking = kwargs.get("non_blocking", False)
    else:
        to_gpu = isinstance(args[0], PretendedTensor)
        from_gpu = isinstance(args[1], PretendedTensor)
        non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    if from_gpu and not to_gpu:
        note(Note(name, "values are copied to the host"))
    elif to_gpu and not from_gpu and not non_blocking:
        note(Note(name, "the host waits for a copy to the GPU (non_blocking = False)"))


def _note_index(name: str, args: Sequence[Any], note: Callable[[Note], None]) -> None:
    if not isinstance(args[0], PretendedTensor):
        raise WrongDeviceError("indices should be on cpu, since the indexed tensor is on cpu")
    for index in args[1]:
        if index is None:
            continue
        if index.dtype in (torch.bool, torch.uint8):
            note(Note(name, "the size of the result depends on values"))
        if not isinstance(index, PretendedTensor):
            note(Note(name, "the host waits for a copy to the GPU (of indices)"))
    if len(args) > 2 and args[2].dim() > 0 and not isinstance(args[2], PretendedTensor):
        raise WrongDeviceError(f"the values of {name} are on cpu, and the tensor is on cuda:0")


class _Dispatch(TorchDispatchMode):
    """Computes all operations, those without a tensor argument included."""

    def __init__(self, note: Callable[[Note], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "to":  # in inference mode it arrives as it was called
            with self:
                return func.decompose(*args, **(kwargs or {}))
        return _compute(func, args, kwargs or {}, self.note)


class _Translation(TorchFunctionMode):
    """Lets the device be called cuda by all code outside of PyTorch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args = [_inside(x) for x in args]
        kwargs = {name: _inside(x) for name, x in (kwargs or {}).items()}
        if func is torch.Tensor.cuda:
            return args[0].to(_INSIDE, non_blocking=kwargs.get("non_blocking", False))
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.tolist:
            return args[0].to("cpu").tolist()
        if func is torch.Tensor.__getitem__ and isinstance(args[1], list):
            args[1] = torch.tensor(args[1]).to(_INSIDE)
        if func in (torch.tensor, torch.as_tensor) and str(kwargs.get("device")) == _INSIDE:
            # Such a copy is made beneath what can be computed here.
            return func(*args, **{**kwargs, "device": "cpu"}).to(_INSIDE)
        if func is torch.Tensor.new_tensor:
            kept = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            on_host = torch.tensor(*args[1:], **{**kept, "device": "cpu"})
            return on_host.to(kept["device"])
        # Threads for backward passes exist only for devices that were there at the first of them.
        with torch.autograd.set_multithreading_enabled(False):
            result = func(*args, **kwargs)
        if isinstance(result, torch.device) and result.type == _TYPE:
            return torch.device("cuda", 0)
        if func == _IS_CUDA:
            return isinstance(args[0], PretendedTensor)
        return result


def _inside(value: Any) -> Any:
    """Return the device inside PyTorch for a name of the GPU; any other value unchanged."""
    if isinstance(value, torch.device):
        return torch.device(_INSIDE) if value.type == "cuda" else value
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return _INSIDE
    return value


class PretendedGpu:
    """The pretended GPU while ``pretended_gpu`` is active.

    Attributes:
        notes: what was noted since the start or since the last ``clear``.
    """

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.device = torch.device("cuda")

    def clear(self) -> None:
        """Forget all notes."""
        self.notes.clear()


class _Module:
    """What PyTorch asks of the module of a device. Outside of ``pretended_gpu`` there is none."""

    active = False

    def is_available(self) -> bool:
        return self.active

    def is_initialized(self) -> bool:
        return self.active

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return int(self.active)

    def current_device(self) -> int:
        return 0

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        pass


_MODULE = _Module()


@functools.cache
def _set_up() -> None:
    """Register the device, once per process."""

    class Hook(torch._C._acc.PrivateUse1Hooks):  # type: ignore[misc,name-defined]
        def is_available(self) -> bool:
            return _MODULE.active

        def has_primary_context(self, index: int) -> bool:
            return True

        def is_built(self) -> bool:
            return True

    getattr(backend_registration, _SETUP)(_TYPE, _MODULE, Hook())


class _Generator(torch.Generator):
    """A generator for the pretended GPU is one of the CPU."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, "cpu")


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Make ``cuda`` a pretended GPU in the block."""
    _set_up()
    gpu = PretendedGpu()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    patches: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "synchronize": lambda *_: None,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "get_device_name": lambda *_: "pretended GPU",
        "is_bf16_supported": lambda *_, **__: True,
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda *_: torch.empty(0, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "mem_get_info": lambda *_: (1 << 34, 1 << 35),
        "memory_reserved": lambda *_: 0,
        "get_per_process_memory_fraction": lambda *_: 1.0,
        "max_memory_allocated": lambda *_: 1 << 20,
        "reset_peak_memory_stats": lambda *_: None,
    }
    with ExitStack() as stack:
        for name, value in patches.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value, create=True))
        stack.enter_context(mock.patch.object(torch.backends.cudnn, "version", lambda: None))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(mock.patch.object(_MODULE, "active", True))
        stack.enter_context(_Translation())
        stack.enter_context(_Dispatch(gpu.notes.append))
        try:
            yield gpu
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
