"""The forward pass of an explained model: backward rules, batch normalisation and dropout.

A torch function mode sees every call of a torch function in a forward pass, whichever module or
function makes it, in place or not. So no part of the model has to be replaced, and a ReLU module
that is used in several places needs no special treatment.
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

from benchmark.core import speed
from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.core.compilation import eagerly
from benchmark.core.errors import UserError
from benchmark.core.speed.convolution import Conv, Geometry
from benchmark.explain.layers import BatchNorm, Relu, Scaled
from benchmark.models.bcos import scaled, uncentred_scale

_aten = torch.ops.aten  # what an exported network calls

#: Every function for the ReLU except F.relu, and whether it works in place.
_RELU: dict[Any, bool] = {
    torch.relu: False,
    torch.Tensor.relu: False,
    _aten.relu: False,
    torch.relu_: True,
    torch.Tensor.relu_: True,
    _aten.relu_: True,
}

#: Batch normalisation with arguments (input, weight, bias, running mean, running variance, …).
_BATCH_NORM = {torch.batch_norm, _aten.batch_norm}

#: Nonlinearities for which the modified gradient is not LRP-ε.
_NOT_LRP = {
    F.gelu,
    F.silu,
    F.mish,
    F.elu,
    F.selu,
    F.celu,
    F.leaky_relu,
    F.prelu,
    F.relu6,
    F.hardswish,
    F.hardsigmoid,
    F.hardtanh,
    F.softplus,
    F.softmax,
    F.sigmoid,
    F.tanh,
    torch.sigmoid,
    torch.tanh,
    torch.softmax,
    torch.Tensor.sigmoid,
    torch.Tensor.tanh,
    torch.Tensor.softmax,
    F.group_norm,
    F.layer_norm,
    F.instance_norm,
    F.scaled_dot_product_attention,
    _aten.gelu,
    _aten.silu,
    _aten.mish,
    _aten.elu,
    _aten.selu,
    _aten.celu,
    _aten.leaky_relu,
    _aten.prelu,
    _aten.relu6,
    _aten.hardswish,
    _aten.hardsigmoid,
    _aten.hardtanh,
    _aten.softplus,
    _aten.softmax,
    _aten.sigmoid,
    _aten.tanh,
    _aten.group_norm,
    _aten.layer_norm,
    _aten.instance_norm,
    _aten.scaled_dot_product_attention,
}

#: Layers that keep their mode while a network is explained, and with it the batch statistics.
_NORMALISATION = (*BATCH_NORMS, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)

_NO_PATH = (
    "the explained score does not depend on the image, or on the layer that the heatmap is of: "
    "part of the network is cut off by detach() or no_grad(), or hidden by a compiler; pass the "
    "original network."
)


class Rules(TorchFunctionMode):
    """Backward rules of an explanation.

    Used as ``with rules.forward(model): logits = model(image)``, then ``rules.gradient(score,
    image, create_graph=...)``.

    Args:
        epsilon: LRP's ε (a number, or float[B]); None for the plain gradient.
        constant_statistics: whether batch statistics are constants of the gradient. A later
            ordinary backward pass differentiates them in any case, and uses the true derivative of
            the ReLU.
        track_statistics: whether batch normalisation in training mode updates its running
            statistics, as it must in a training step without another forward pass.
        create_graph: whether the gradient will itself be differentiated.
        image: the leaf that was made for the image and needs no gradient in later backward passes;
            None if the caller's image requires a gradient.
        to_image: whether the gradient is taken at the image; else at a late layer (Grad-CAM).
        constant_scales: whether the factors of B-cos layers that depend on the input, |cos| and the
            scale of the normalisation, are constants of the gradient. A later ordinary backward
            pass differentiates them in any case.
    """

    def __init__(
        self,
        *,
        epsilon: float | torch.Tensor | None = None,
        constant_statistics: bool = True,
        track_statistics: bool = False,
        create_graph: bool = False,
        image: torch.Tensor | None = None,
        to_image: bool = True,
        constant_scales: bool = False,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.constant_statistics = constant_statistics
        self.track_statistics = track_statistics
        self.create_graph = create_graph
        self.image = image
        self.to_image = to_image
        self.constant_scales = constant_scales
        self.explaining = False  # read by the backward rules

    @contextmanager
    def forward(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass, in which compiled modules run uncompiled.

        Dropout and stochastic depth are off in it (see ``without_dropout``).

        Args:
            model: the network that is called in the context.

        Raises:
            UserError: the network hides layers whose backward rules have to be changed.
        """
        if self.epsilon is not None or (model.training and not self.track_statistics):
            _refuse_hidden_layers(model)
        counters: list[torch.Tensor] = []
        if not self.track_statistics and model.training:
            norms = (m for m in model.modules() if isinstance(m, BATCH_NORMS))
            counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        before = [counter.clone() for counter in counters]
        # fused attention kernels have no second derivative
        attention: AbstractContextManager[Any] = nullcontext()
        if self.create_graph:
            attention = sdpa_kernel(SDPBackend.MATH)
        # Grad-CAM in a training step changes no layer, so the cost of a function mode is avoided
        unchanged = (
            self.epsilon is None
            and not self.to_image
            and (self.track_statistics or not model.training)
        )
        mode: AbstractContextManager[Any] = nullcontext() if unchanged else self
        try:
            with (
                eagerly(model),
                without_dropout(model),
                torch.inference_mode(False),
                torch.enable_grad(),
                attention,
                mode,
            ):
                yield
        finally:
            for counter, value in zip(counters, before, strict=True):
                counter.copy_(value)

    def gradient(
        self,
        score: torch.Tensor,
        to: torch.Tensor,
        *,
        create_graph: bool,
        retain: bool = False,
    ) -> torch.Tensor:
        """Return the gradient of a score under these rules; weights get none.

        Args:
            score: a scalar.
            to: tensor at which the gradient is taken.
            create_graph: whether the gradient can be differentiated.
            retain: whether the graph is kept for another backward pass.

        Raises:
            UserError: the score does not depend on ``to``.
        """
        if not score.requires_grad:
            raise UserError(_NO_PATH)
        self.explaining = True
        try:
            # autocast would change the dtypes of linear layers; those of the forward pass are kept
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                torch.autocast(to.device.type, enabled=False),
            ):
                gradients = torch.autograd.grad(
                    score,
                    to,
                    create_graph=create_graph,
                    retain_graph=create_graph or retain,
                    allow_unused=True,
                )
        finally:
            self.explaining = False
        if gradients[0] is None:  # zeros instead would be a heatmap without meaning
            raise UserError(_NO_PATH)
        return gradients[0]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        called = func
        func = getattr(func, "overloadpacket", func)
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in _BATCH_NORM:
            return self._aten_batch_norm(*args, **kwargs)
        if func is scaled:
            return Scaled.apply(*args, self) if self.constant_scales else scaled(*args)  # type: ignore[no-untyped-call]
        if func is uncentred_scale:
            return self._uncentred_scale(*args)
        if func is torch.conv2d and self.to_image and speed.is_enabled():
            return self._conv2d(*args, **kwargs)
        if func is F.hardsigmoid and self.create_graph and self.epsilon is None:
            return _hardsigmoid(*args, **kwargs)
        if self.epsilon is not None:
            if func is F.relu:
                return self._relu(*args, **kwargs)
            if func in _RELU:
                return self._relu(*args, **{**kwargs, "inplace": _RELU[func]})
            if func in _NOT_LRP:
                raise UserError(
                    f"LRP-ε is not defined for {func.__name__}, which this network uses; use a "
                    "network whose only nonlinearities are ReLUs and max-pools, or another "
                    "explanation such as input_gradient."
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
            return torch.conv2d(
                input,
                weight,
                bias,
                stride,  # type: ignore[arg-type]
                padding,  # type: ignore[arg-type]
                dilation,  # type: ignore[arg-type]
                groups,
            )
        geometry = Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
        is_image = input is self.image
        kind = input.device.type
        if torch.is_autocast_enabled(kind) and input.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(kind)
            input = input.to(dtype)
            weight = weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        with torch.autocast(kind, enabled=False):
            output: torch.Tensor = Conv.apply(  # type: ignore[no-untyped-call]
                input, weight, bias, geometry, is_image, self
            )
        return output

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
                "batch normalisation in training mode got one value per channel (shape "
                f"{list(input.shape)}); explain more than one image, or put the network in "
                "evaluation mode."
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

    def _uncentred_scale(
        self,
        input: torch.Tensor,
        running_var: torch.Tensor | None,
        weight: torch.Tensor,
        training: bool,
        momentum: float,
        eps: float,
    ) -> torch.Tensor:
        if training and not self.track_statistics:
            running_var = None
        return uncentred_scale(input, running_var, weight, training, momentum, eps)

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


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Turn off dropout, stochastic depth and the like in the block.

    Every module except normalisation layers is put into evaluation mode, and gets its mode back
    afterwards. This also reaches functions such as ``F.dropout(x, p, self.training)``. Batch
    normalisation keeps its mode, and with it the statistics of the batch.
    """
    switched = [m for m in model.modules() if m.training and not isinstance(m, _NORMALISATION)]
    for module in switched:
        module.training = False
    try:
        yield
    finally:
        for module in switched:
            module.training = True


def _refuse_hidden_layers(model: nn.Module) -> None:
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UserError(
            "this explanation must see every layer, which a network scripted or traced by "
            "torch.jit hides; pass the original network."
        )


def _hardsigmoid(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:
    """Compute ``F.hardsigmoid`` by functions that have a second derivative."""
    return (input + 3).clamp(0, 6) / 6


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
