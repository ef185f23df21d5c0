"""How a model runs while it is explained: batch normalisation left as it was, and backward rules that differ.

A torch function mode sees every call of a torch function that a forward pass makes, whichever module or function makes
it, in place or not. So nothing of the model is replaced, and a ReLU that several places share needs no care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.core.compilation import eagerly
from benchmark.core.errors import UserError
from benchmark.explain.layers import BatchNorm, Conv, Geometry, Relu

_aten = torch.ops.aten  # what an exported network calls

#: Every spelling of the ReLU but F.relu, with whether it works in place.
_RELU: dict[Any, bool] = {
    torch.relu: False,
    torch.Tensor.relu: False,
    _aten.relu: False,
    torch.relu_: True,
    torch.Tensor.relu_: True,
    _aten.relu_: True,
}

#: Batch normalisation with its arguments in the order (input, weight, bias, running mean, running variance, …).
_BATCH_NORM = {torch.batch_norm, _aten.batch_norm}

#: Nonlinearities for which the modified gradient would not be LRP-ε.
_NOT_LRP = {
    F.gelu, F.silu, F.mish, F.elu, F.selu, F.celu, F.leaky_relu, F.prelu, F.relu6, F.hardswish, F.hardsigmoid,
    F.hardtanh, F.softplus, F.softmax, F.sigmoid, F.tanh, torch.sigmoid, torch.tanh, torch.softmax,
    torch.Tensor.sigmoid, torch.Tensor.tanh, torch.Tensor.softmax, F.group_norm, F.layer_norm, F.instance_norm,
    F.scaled_dot_product_attention,
    _aten.gelu, _aten.silu, _aten.mish, _aten.elu, _aten.selu, _aten.celu, _aten.leaky_relu, _aten.prelu, _aten.relu6,
    _aten.hardswish, _aten.hardsigmoid, _aten.hardtanh, _aten.softplus, _aten.softmax, _aten.sigmoid, _aten.tanh,
    _aten.group_norm, _aten.layer_norm, _aten.instance_norm, _aten.scaled_dot_product_attention,
}  # fmt: skip

_NO_PATH = (
    "the explained score does not depend on what the heatmap is of (the image, or a layer's output): part of the "
    "network is cut off by detach() or no_grad(), or hidden by a compiler; give the network as it is written."
)


class Rules(TorchFunctionMode):
    """Used as ``with rules.forward(model): logits = model(image)``, then ``rules.gradient(score, image)``.

    Args:
        epsilon: LRP's ε (a number, or float[B]); None for the plain gradient.
        constant_statistics: whether the gradient takes batch statistics as constants. A later ordinary backward
            differentiates through them in any case, as it takes the true derivative of the ReLU.
        track_statistics: whether batch normalisation in training mode updates its running statistics, as a training
            step must that makes no other forward pass.
        create_graph: whether the gradient will itself be differentiated.
        image: the leaf made for the image, to which no later backward goes; None if the caller's requires a gradient.
        to_image: whether the gradient goes all the way to the image, or ends at a late layer (Grad-CAM).
    """

    def __init__(
        self,
        epsilon: float | torch.Tensor | None = None,
        constant_statistics: bool = True,
        track_statistics: bool = False,
        create_graph: bool = False,
        image: torch.Tensor | None = None,
        to_image: bool = True,
    ) -> None:
        super().__init__()
        self.epsilon, self.constant_statistics, self.track_statistics = (
            epsilon,
            constant_statistics,
            track_statistics,
        )
        self.create_graph, self.image, self.to_image = create_graph, image, to_image
        self.explaining = False  # what the backward rules look at

    @contextmanager
    def forward(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward pass, in which whatever is compiled runs uncompiled.

        Raises:
            UserError: the network hides layers whose rules have to differ.
        """
        if self.epsilon is not None or (model.training and not self.track_statistics):
            _refuse_hidden_layers(model)
        counters: list[torch.Tensor] = []
        if not self.track_statistics and model.training:
            norms = (m for m in model.modules() if isinstance(m, BATCH_NORMS))
            counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        before = [counter.clone() for counter in counters]
        # fused attention kernels have no second derivative
        attention: AbstractContextManager[Any] = (
            sdpa_kernel(SDPBackend.MATH) if self.create_graph else nullcontext()
        )
        # Grad-CAM in a training step changes no layer: being asked at every call of a function would cost for nothing
        idle = (
            self.epsilon is None
            and not self.to_image
            and (self.track_statistics or not model.training)
        )
        watching: AbstractContextManager[Any] = nullcontext() if idle else self
        try:
            with (
                eagerly(model),
                torch.inference_mode(False),
                torch.enable_grad(),
                attention,
                watching,
            ):
                yield
        finally:
            for counter, value in zip(counters, before, strict=True):
                counter.copy_(value)

    def gradient(
        self, score: torch.Tensor, to: torch.Tensor, create_graph: bool, retain: bool = False
    ) -> torch.Tensor:
        """Gradient of ``score`` (a scalar) to the tensor ``to`` under these rules; none to weights is computed.

        Raises:
            UserError: the score does not depend on ``to``.
        """
        if not score.requires_grad:
            raise UserError(_NO_PATH)
        self.explaining = True
        try:
            # backward passes run in the dtypes that the forward pass left; autocast would change those of linear layers
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                torch.autocast(to.device.type, enabled=False),
            ):
                found = torch.autograd.grad(
                    score,
                    to,
                    create_graph=create_graph,
                    retain_graph=create_graph or retain,
                    allow_unused=True,
                )
        finally:
            self.explaining = False
        if found[0] is None:  # zeros in its place would be a heatmap that says nothing
            raise UserError(_NO_PATH)
        return found[0]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        called, func = func, getattr(func, "overloadpacket", func)
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in _BATCH_NORM:
            return self._aten_batch_norm(*args, **kwargs)
        if func is torch.conv2d and self.to_image:
            return self._conv2d(*args, **kwargs)
        if self.epsilon is not None:
            if func is F.relu:
                return self._relu(*args, **kwargs)
            if func in _RELU:
                return self._relu(*args, **{**kwargs, "inplace": _RELU[func]})
            if func in _NOT_LRP:
                raise UserError(
                    f"LRP-ε is not defined for {func.__name__}, which this network uses; take a network whose only "
                    "nonlinearities are ReLUs and max-pools, or another explanation such as input_gradient."
                )
        return called(*args, **kwargs)

    def _relu(self, input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        epsilon = self.epsilon
        if isinstance(epsilon, torch.Tensor):
            epsilon = epsilon.view(-1, *[1] * (input.dim() - 1))
        return Relu.apply(input, epsilon, inplace, self)  # type: ignore[no-any-return, no-untyped-call]

    def _conv2d(
        self,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> torch.Tensor:
        if isinstance(padding, str) or input.dim() != 4:
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
        geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
        is_image = input is self.image
        kind = input.device.type
        if torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(kind)
            input, weight, bias = (
                input.to(dtype),
                weight.to(dtype),
                None if bias is None else bias.to(dtype),
            )
        with torch.autocast(kind, enabled=False):
            return Conv.apply(input, weight, bias, geometry, is_image, self)  # type: ignore[no-any-return, no-untyped-call]

    def _batch_norm(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        if training and input.numel() == input.shape[1]:
            raise UserError(
                f"batch normalisation in training mode got one value per channel (shape {list(input.shape)}); explain "
                "more than one image, or put the network in evaluation mode."
            )
        if training and not self.track_statistics:
            running_mean = running_var = None
        if not (self.constant_statistics and self.to_image):
            return F.batch_norm(
                input, running_mean, running_var, weight, bias, training, momentum, eps
            )
        out, _ = BatchNorm.apply(  # type: ignore[no-untyped-call]
            input, weight, bias, running_mean, running_var, training, momentum, eps, self
        )
        return out  # type: ignore[no-any-return]

    def _aten_batch_norm(
        self,
        input: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool = True,
    ) -> torch.Tensor:
        return self._batch_norm(
            input, running_mean, running_var, weight, bias, training, momentum, eps
        )


def _refuse_hidden_layers(model: nn.Module) -> None:
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UserError(
            "this explanation must see every layer, which a network scripted or traced by torch.jit hides; give the "
            "network as it is written."
        )


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
