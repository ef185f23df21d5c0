"""Networks of the timm library (Wightman 2019) by its names, such as ``timm:resnet18``.

What can explain a network is found from the network itself, by one forward pass that records the
functions it calls. Nothing is downloaded: weights come from a file of the user.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import BACKBONES, did_you_mean
from benchmark.models.base import SIDE, Backbone, Capabilities
from benchmark.models.pretrained import load_all_but_last, weights_path

#: Functions for which the modified gradient is LRP-ε: linear ones, ReLUs and max-pools.
_LINEAR_OR_RELU = {
    *("conv2d", "linear", "batch_norm", "relu", "relu_", "max_pool2d", "avg_pool2d"),
    *("adaptive_avg_pool2d", "mean", "dropout", "add", "add_", "__add__", "__iadd__", "cat"),
    *("flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze"),
    *("pad", "chunk", "split", "__getitem__", "__get__", "dim", "size", "_assert"),
}
#: Arguments of a network that the data decide, and those by which the grid of tokens would change.
_DECIDED = {"num_classes", "in_chans", "img_size", "strict_img_size"}
_DECIDED |= {"dynamic_img_size", "dynamic_img_pad", "patch_drop_rate"}
#: Bounds of the arguments that are passed through.
_LARGEST_INTEGER = 8192
_LARGEST_NUMBER = 1e3
_LARGEST_RATE = 0.99

_OPTIONS = {
    "file": HParam(
        "",
        doc="file of weights in timm's layout: its name in torch's folder of checkpoints, or an "
        "absolute path",
        form=r"(?:.+\.(?:pt|pth|bin|safetensors))?",
        omit_default=True,
    ),
    "pixels": HParam(
        "auto",
        doc="normalisation that the network receives: data: that of the data; weights: that of "
        "timm's description of the model; auto: weights if there is a file, else data",
        choices=("auto", "weights", "data"),
        omit_default=True,
    ),
    "cam": HParam(
        "",
        doc="layer that Grad-CAM explains, by its name in timm's network, such as layer3, stages.2 "
        "or blocks.9; empty: the last one with positions",
        form=r"(?:\w+(?:\.\w+)*)?",
        omit_default=True,
    ),
    "side": SIDE,
}


@dataclass(frozen=True)
class Traits:
    """Properties of a network of timm.

    Attributes:
        capabilities: what explains it.
        fixed: whether it is made for one image size.
        tokens: whether it computes tokens float[B,T,D] instead of a map.
        class_token: whether its features are those of a class token.
        channels_last: whether its map is float[B,h,w,C].
        stride: pixels a side of a cell of the last map.
        mean: mean of each channel with which its published weights were trained.
        std: standard deviation, likewise.
        arguments: the numbers and switches of timm's class, as options.
    """

    capabilities: Capabilities
    fixed: bool
    tokens: bool
    class_token: bool
    channels_last: bool
    stride: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    arguments: Mapping[str, HParam]


class TimmBackbone(Backbone):
    """A network of timm; parameters have timm's names with the prefix ``net.``.

    The last linear layer of ``net`` is ``classifier`` here. Attributes of the class are found by
    ``Timm.member``.
    """

    model: ClassVar[str]
    traits: ClassVar[Traits]
    options = _OPTIONS

    def __init__(
        self,
        num_outputs: int,
        image_size: tuple[int, int, int],
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        #: Names of the given arguments of timm's class; the others keep the values of the model.
        self.given = sorted(options.keys() & self.traits.arguments.keys())
        #: Whether the last layer is that of the file.
        self.has_trained_head = False
        super().__init__(num_outputs, image_size, dropout, **options)

    @classmethod
    def all_options(cls) -> dict[str, HParam]:
        return {**super().all_options(), **cls.traits.arguments}

    @classmethod
    def without_weights(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in options.items() if name != "file"}
        if options.get("file") and options.get("pixels", "auto") == "auto":
            kept["pixels"] = "weights"
        return kept

    @classmethod
    def sides_inside(cls, options: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
        inside = super().sides_inside(options, height, width)
        traits = cls.traits
        cell = options.get("patch_size", traits.stride) if traits.tokens else traits.stride
        if traits.fixed and any(side % cell for side in inside):
            fitting = -(-max(inside) // cell) * cell
            raise UserError(
                f"{cls.name} needs images with sides that {cell} divides, got {inside[0]}×"
                f"{inside[1]}; resize them, or use the option side={fitting}."
            )
        return inside

    @classmethod
    def check_options(cls, image_size: tuple[int, int, int], options: Mapping[str, Any]) -> None:
        super().check_options(image_size, options)
        path = weights_path(options["file"]) if options.get("file") else ""
        if path and not os.path.isfile(path):
            raise UserError(
                f"{cls.name}: there is no file of weights {path}; place it there, or give an "
                "absolute path."
            )
        try:
            cls.map_size(image_size, options)
        except UserError:
            raise
        except Exception as error:  # timm raises many types
            raise UserError(
                f"{cls.name} cannot take images of {image_size[1]}×{image_size[2]}: "
                f"{_reason(error)}; use larger images, or the option side=224."
            ) from None
        if options.get("cam"):
            cls.cam_size(image_size, options)

    @classmethod
    def cam_size(
        cls, image_size: tuple[int, int, int], options: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Return (h, w) of the map that the layer of the option ``cam`` computes of images (C,H,W).

        Raises:
            UserError: Grad-CAM cannot explain this layer.
        """
        weightless = tuple(sorted(cls.without_weights(options).items()))
        return _cam_size(cls, image_size, weightless)  # type: ignore[arg-type]  # classes have hashes

    @classmethod
    def cam_problem(
        cls, image_size: tuple[int, int, int], options: Mapping[str, Any]
    ) -> str | None:
        if not options.get("cam"):
            return super().cam_problem(image_size, options)
        if max(cls.cam_size(image_size, options)) > 1:
            return None
        return (
            f"the maps of the layer cam={options['cam']} of {cls.name} have one cell and are all "
            "alike for these images; choose an earlier layer, or larger images with side=224."
        )

    def build(self) -> nn.Linear:
        channels, height, width = self.image_size
        arguments: dict[str, Any] = {name: self.chosen[name] for name in self.given}
        if self.traits.fixed:
            arguments["img_size"] = self.sides_inside(self.chosen, height, width)
        net = _create(self.model, self.num_outputs, in_chans=channels, **arguments)
        classifier = _last_layer(net, self.name)
        if self.chosen["file"]:
            self.has_trained_head = _load(net, classifier, self.chosen["file"], self.name)
        net.reset_classifier(0)
        for module in net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = True  # one function, which explanations recognise
        self.net: Any = net
        self.last_map = nn.Identity()
        if self.chosen["cam"]:
            self._choose_cam_layer(self.chosen["cam"])
        return classifier

    def _choose_cam_layer(self, layer: str) -> None:
        """Declare the layer that Grad-CAM explains.

        Raises:
            UserError: there is no such layer, or the logits do not depend on its patches.
        """
        names = [name for name, _ in self.net.named_modules() if name]
        if layer not in names:
            raise UserError(f"{self.name} has no layer cam={layer}{did_you_mean(layer, names)}")
        if self.traits.class_token:
            last = len(_blocks(self.net)) - 1
            first, _, number = layer.partition(".")
            if first != "blocks" or not number or int(number.partition(".")[0]) >= last:
                raise UserError(
                    f"{self.name} answers by its class token, so that Grad-CAM needs a layer "
                    f"before the last block, such as cam=blocks.{last - 1}, got {layer}."
                )
        self.capabilities = replace(self.capabilities, cam=f"net.{layer}")  # type: ignore[misc]

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        own = self.traits.mean, self.traits.std
        pixels = self.chosen["pixels"]
        if pixels == "auto":
            pixels = "weights" if self.chosen["file"] else "data"
        if pixels == "weights" and len(mean) == len(own[0]):
            self.renormalise((mean, std), own)

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before those of the patches."""
        return int(getattr(self.net, "num_prefix_tokens", 0))

    def token_grid(self) -> tuple[int, int]:
        """Return (h, w), the rows and columns of patches of an image."""
        height, width = self.net.patch_embed.grid_size
        return height, width

    def cam_module(self) -> nn.Module:
        if self.traits.class_token and self.capabilities.cam and not self.chosen["cam"]:
            before_last: nn.Module = self.net.blocks[-2]
            return before_last
        return super().cam_module()

    def cam_map(self, output: torch.Tensor) -> torch.Tensor:
        if output.dim() == 3:
            patches = output[:, self.prefix_tokens :]
            return patches.transpose(1, 2).unflatten(2, self.token_grid())
        return output.permute(0, 3, 1, 2) if self.traits.channels_last else output

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.cam_map(self._last_output(image))

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        if self.traits.tokens:
            return super().pool(feature_map)
        last = self.traits.channels_last
        own_layout = feature_map.permute(0, 2, 3, 1) if last else feature_map
        return self.net.forward_head(own_layout)  # type: ignore[no-any-return]

    def features(self, image: torch.Tensor) -> torch.Tensor:
        return self.net.forward_head(self._last_output(self.enlarged(image)))  # type: ignore[no-any-return]

    def _last_output(self, image: torch.Tensor) -> torch.Tensor:
        """Return the map or the tokens before pooling, in timm's layout."""
        return self.last_map(self.net.forward_features(self.renormalised(image)))  # type: ignore[no-any-return]


@BACKBONES.register_family
class Timm:
    """The networks of timm: ``member("resnet18")`` is the backbone ``timm:resnet18``."""

    name = "timm"
    doc = "a network of the timm library by its name there, such as timm:resnet18"

    @staticmethod
    @functools.cache
    def member(name: str) -> type[TimmBackbone]:
        """Return the backbone of a name of timm.

        Raises:
            UserError: timm is not installed, or has no such network, or it is no classifier of
                images.
        """
        timm = _library(name)
        if not name or not timm.is_model(name):
            known = timm.list_models()
            shown = f"timm has no model {name!r}" if name else "timm needs the name of a model"
            raise UserError(f"{shown}{did_you_mean(name.partition('.')[0] or 'resnet18', known)}")
        found = _traits(name)
        return type(
            f"Timm_{name}",
            (TimmBackbone,),
            {
                "__module__": __name__,
                "__doc__": f"The network {name} of timm.",
                "name": f"timm:{name}",
                "doc": f"{name} of timm",
                "model": name,
                "traits": found,
                "capabilities": found.capabilities,
            },
        )


@dataclass
class _Calls(TorchFunctionMode):
    """Function mode that keeps the names of the called functions and the shapes of attention.

    Attributes:
        names: names of functions.
        attention: number of tokens of each call of attention; 0 for one with a mask, or between
            different tokens.
        kept: shapes of the outputs of the module that ``keep`` is a hook of.
    """

    names: set[str] = field(default_factory=set)
    attention: list[int] = field(default_factory=list)
    kept: list[torch.Size] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def keep(self, module: nn.Module, given: Any, output: Any) -> None:
        """Keep the shape of an output, as a forward hook."""
        if torch.is_tensor(output):
            self.kept.append(output.shape)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        self.names.add(getattr(func, "__name__", str(func)))
        if func is F.scaled_dot_product_attention:
            self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **others: Any,
    ) -> None:
        plain = attn_mask is None and not is_causal and query.shape == key.shape
        self.attention.append(query.shape[-2] if plain and query.dim() == 4 else 0)


def _traits(name: str) -> Traits:
    """Find the properties of a network by a forward pass, on the meta device if it can run there.

    Raises:
        UserError: it is no classifier of images with a linear last layer.
    """
    description = _description(name)
    size = tuple(description.input_size)

    def forward(device: str) -> tuple[Any, Any, _Calls]:
        with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
            net = _create(name, 2, in_chans=size[0]).eval()
            _last_layer(net, f"timm:{name}")
            image = torch.zeros(1, *size)
            with _Calls() as calls:
                handles = [block.register_forward_hook(calls.keep) for block in _blocks(net)[-2:-1]]
                output = net.forward_features(image)
                net.forward_head(output)
            for handle in handles:
                handle.remove()
        return net, output, calls

    try:
        try:
            net, output, calls = forward("meta")
        except RuntimeError:
            net, output, calls = forward("cpu")
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"timm:{name} is no classifier of images that can be used: {_reason(error)}."
        ) from None
    tokens = _has_tokens(net, output)
    channels_last = str(getattr(net, "output_fmt", "NCHW")) == "NHWC"
    if not tokens and not (torch.is_tensor(output) and output.dim() == 4):
        raise UserError(
            f"timm:{name} computes no map with positions before its last layer; use another "
            "network of timm."
        )
    class_token = tokens and getattr(net, "global_pool", "") == "token"
    stages = getattr(net, "feature_info", None)
    cells = net.patch_embed.grid_size[0] if tokens else output.shape[1 if channels_last else 2]
    stride = int(stages[-1]["reduction"]) if stages else -(-size[1] // cells)
    fixed = bool(description.fixed_input_size)
    return Traits(
        # check_options tries the images of other networks
        capabilities=_capabilities(net, output, calls, class_token, stride if fixed else 1),
        fixed=fixed,
        tokens=tokens,
        class_token=class_token,
        channels_last=channels_last,
        stride=stride,
        mean=tuple(description.mean),
        std=tuple(description.std),
        arguments=_arguments(type(net)),
    )


@functools.cache
def _cam_size(
    kind: type[TimmBackbone],
    image_size: tuple[int, int, int],
    options: tuple[tuple[str, Any], ...],
) -> tuple[int, int]:
    """Compute the size of the map of the option ``cam``, on the meta device if it can run there.

    Raises:
        UserError: the layer computes no map, or it is no part of the way to the logits.
    """

    def size_on(device: str) -> tuple[int, int]:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            network = kind(1, image_size, **dict(options)).eval()
            seen: list[torch.Tensor] = []

            def catch(module: nn.Module, given: Any, output: Any) -> Any:
                if not torch.is_tensor(output):
                    raise _no_map(network, "it computes no single tensor")
                seen.append(output.detach().requires_grad_())
                return seen[-1]

            handle = network.cam_module().register_forward_hook(catch)
            height, width = network.sides_inside(network.chosen, *image_size[1:])
            try:
                logits = network(torch.zeros(1, *image_size))
            except RuntimeError as error:
                if "leaf Variable" not in str(error):
                    raise
                raise _no_map(network, "the next layer overwrites its output") from None
            finally:
                handle.remove()
            if len(seen) != 1:
                raise _no_map(network, f"it runs {len(seen)} times in a forward pass")
            shape = tuple(seen[0].shape)
            rows, columns = 0, 0
            is_map = False
            if len(shape) == 3 and network.traits.tokens:
                rows, columns = network.token_grid()
                is_map = shape[1] == network.prefix_tokens + rows * columns
            elif len(shape) == 4:
                first = 1 if network.traits.channels_last else 2
                rows, columns = shape[first], shape[first + 1]
                is_map = rows * width == columns * height
            if not is_map or shape[0] != 1:
                raise _no_map(network, f"its output is {list(shape)} for one image")
            connected = logits.requires_grad and torch.autograd.grad(
                logits.sum(), seen[0], allow_unused=True
            )
            if not connected or connected[0] is None:
                raise _no_map(network, "the logits do not depend on it")
        return rows, columns

    try:
        return size_on("meta")
    except RuntimeError:
        return size_on("cpu")


def _no_map(network: TimmBackbone, why: str) -> UserError:
    layer = network.chosen["cam"]
    return UserError(
        f"Grad-CAM cannot explain the layer cam={layer} of {network.name}: {why}; choose a stage, "
        "such as layer3 of a ResNet or stages.2."
    )


def _description(name: str) -> Any:
    """Return what timm knows of the published weights: image size, mean, standard deviation."""
    try:
        return _library(name).get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm has no model {name!r} ({_reason(error)}).") from None


def _blocks(net: Any) -> Sequence[nn.Module]:
    """Return the blocks of a transformer; empty for other networks."""
    blocks = getattr(net, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.Sequential | nn.ModuleList) else []


def _has_tokens(net: Any, output: Any) -> bool:
    """Return whether the output is tokens that stand for a grid of patches."""
    grid = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    if not torch.is_tensor(output) or output.dim() != 3 or grid is None:
        return False
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    return bool(output.shape[1] == prefix + grid[0] * grid[1])


def _capabilities(
    net: Any, output: torch.Tensor, calls: _Calls, class_token: bool, min_side: int
) -> Capabilities:
    """Return what explains a network, given the calls of its forward pass."""
    cam = "last_map"
    if class_token:  # the logits do not depend on the patch tokens that leave the last block
        cam = f"net.blocks.{len(_blocks(net)) - 2}" if calls.kept == [output.shape] else ""
    return Capabilities(
        cam=cam,
        lrp=calls.names <= _LINEAR_OR_RELU,
        attention=class_token
        and bool(calls.attention)
        and set(calls.attention) == {output.shape[1]}
        and "softmax" not in calls.names,
        min_side=min_side,
    )


def _arguments(kind: type) -> dict[str, HParam]:
    """Return the numbers and switches among the arguments of a class of timm as options."""
    found = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        value = parameter.default
        doc = f"argument of timm's {kind.__name__}; without it, the value of the model"
        if name in _DECIDED or type(value) not in (bool, int, float):
            continue
        if type(value) is bool:
            found[name] = HParam(value, doc=doc)
        else:
            largest = _LARGEST_INTEGER if type(value) is int else _LARGEST_NUMBER
            high = _LARGEST_RATE if name.endswith("_rate") else largest
            found[name] = HParam(value, doc=doc, low=0, high=high)
    return found


def _library(name: str) -> Any:
    try:
        import timm
    except ImportError:
        raise UserError(
            f"timm:{name} needs the package timm; `pip install 'shortcutbed[timm]'` adds it."
        ) from None
    return timm


def _create(name: str, num_outputs: int, **arguments: Any) -> Any:
    """Return a network of timm.

    Raises:
        UserError: timm refuses the arguments.
        RuntimeError: it cannot be made on the meta device.
    """
    timm = _library(name)
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_outputs, **arguments)
    except Exception as error:  # timm raises many types
        if isinstance(error, RuntimeError) and torch.empty(0).is_meta:
            raise  # earlier versions compute values there; the callers go on with the CPU
        given = ", ".join(f"{key} = {value}" for key, value in arguments.items())
        raise UserError(f"timm cannot make {name} with {given}: {_reason(error)}.") from None


def _last_layer(net: Any, name: str) -> nn.Linear:
    classifier = net.get_classifier()
    if not isinstance(classifier, nn.Linear):
        raise UserError(
            f"{name} ends in {type(classifier).__name__}, expected one linear layer; use another "
            "network of timm."
        )
    return classifier


def _load(net: nn.Module, classifier: nn.Linear, file: str, name: str) -> bool:
    """Load a file of weights in timm's layout; return whether its last layer was loaded.

    A last layer of other classes is left out.

    Raises:
        UserError: the file cannot be read, or belongs to another network.
    """
    from timm.models import load_state_dict

    path = weights_path(file)
    what = f"the weights {file} of {name}"
    # where timm's family of networks converts names and resizes position embeddings
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    try:
        state = load_state_dict(path, weights_only=True)
        state = dict(convert(state, net) if convert else state)
    except FileNotFoundError:
        raise UserError(f"there is no file of weights {path}; place it there.") from None
    except Exception as error:  # safetensors and torch raise many types for damaged files
        raise UserError(f"{what} could not be read: {_file_problem(path, error)}.") from None
    last = next(key for key, module in net.named_modules() if module is classifier)
    load_all_but_last(net, state, what, last)
    head = {key: state.get(f"{last}.{key}") for key in classifier.state_dict()}
    if any(
        value is None or value.shape != classifier.get_parameter(key).shape
        for key, value in head.items()
    ):
        return False
    classifier.load_state_dict(head)
    return True


def _file_problem(path: str, error: Exception) -> str:
    """Return what is wrong with a file of weights, and what was expected, as a clause."""
    expected = "expected the state dict of a network (torch.save(model.state_dict(), FILE))"
    if not os.path.getsize(path):
        return f"the file is empty; {expected}"
    if "weights_only" in str(error) or "Weights only" in str(error):
        return f"the file holds pickled objects rather than tensors; {expected}"
    if isinstance(error, AttributeError):  # such as a list
        return f"the file holds no state dict of names and tensors; {expected}"
    return f"the file is incomplete or of another format; copy it again, {expected}"


def _reason(error: Exception) -> str:
    """Return the first sentence of an error on one line."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text[:200]
