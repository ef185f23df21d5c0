"""Base class of backbones: feature map, features, last layer, and declared capabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.backbone_options import COMMON_OPTIONS, without_defaults
from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam, check_values

#: Option of networks that were designed for larger images; ``Backbone`` implements it.
SIDE = HParam(
    0,
    doc="images are enlarged to this side (bilinear) before the first layer; 0: unchanged",
    low=0,
    high=1024,
)


def pixels_inside(module: nn.Module, height: int, width: int) -> int:
    """Return the number of pixels of an image after the enlargement by backbones in a module."""
    sides = [m.chosen.get("side", 0) for m in module.modules() if isinstance(m, Backbone)]
    return max(height * width, max(sides, default=0) ** 2)


@dataclass(frozen=True)
class Capabilities:
    """Capabilities that a backbone declares.

    Args:
        cam: dotted name of the layer that Grad-CAM uses, whose output ``cam_map`` turns into
            float[B,C,h,w]: the last convolutional stage, or the layer before the last block of a
            transformer; ``""`` for none.
        lrp: whether every nonlinearity is a ReLU or a max-pool, so that LRP-ε is defined.
        attention: whether it uses attention between image patches (transformers).
        native: whether it explains itself, by a method ``native_heatmap(image, target)``.
        bcos: whether it is a B-cos network, whose logits are sums of contributions of the pixels.
        min_side: smallest height and width of an image, in pixels, with the default options.
    """

    cam: str = ""
    lrp: bool = False
    attention: bool = False
    native: bool = False
    bcos: bool = False
    min_side: int = 1


class Backbone(nn.Module):
    """A classifier in three parts: ``feature_map``, ``features`` and ``classifier``.

    A subclass declares the class attributes, makes its layers in ``build``, and computes
    ``stages``, and ``pool`` if that is not the mean over positions. Subclasses are registered.

    Args:
        num_outputs: number of logits.
        image_size: (C, H, W) of the images; C is 1, 2 or 3.
        dropout: probability of dropping a feature before the last layer.
        options: the declared options that differ from their defaults.

    Raises:
        UserError: an unknown option, wrong channels, or an image that is too small.
    """

    name: ClassVar[str] = ""
    doc: ClassVar[str] = ""
    options: ClassVar[Mapping[str, HParam]] = {}
    capabilities: ClassVar[Capabilities] = Capabilities()

    classifier: nn.Linear
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        num_outputs: int,
        image_size: tuple[int, int, int],
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        declared = self.all_options()
        self.chosen: dict[str, Any] = {
            **{name: option.default for name, option in declared.items()},
            **check_values(declared, options, self.name, "option"),
        }
        self.num_outputs = num_outputs
        self.image_size = (image_size[0], image_size[1], image_size[2])
        if num_outputs < 1:
            raise UserError(f"{self.name}: {num_outputs} outputs, expected at least 1.")
        if image_size[0] not in (1, 2, 3):
            raise UserError(
                f"{self.name}: images have {image_size[0]} channels, expected 1, 2 or 3."
            )
        self.sides_inside(self.chosen, image_size[1], image_size[2])
        classifier = self.build()
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier
        self.num_features: int = classifier.in_features
        if self.chosen["freeze_bn"] and not any(self._batch_norms()):
            raise UserError(
                f"{self.name} has no batch normalisation whose statistics freeze_bn could keep; "
                "leave the option out."
            )
        self.train(self.training)

    @classmethod
    def all_options(cls) -> dict[str, HParam]:
        """Return every option: those of all backbones and those of this one."""
        return {**COMMON_OPTIONS, **cls.options}

    @classmethod
    def check_options(cls, image_size: tuple[int, int, int], options: Mapping[str, Any]) -> None:
        """Check that the network can be made with these options for images (C,H,W).

        Raises:
            UserError: it cannot be made.
        """
        cls.sides_inside(options, image_size[1], image_size[2])
        if without_defaults(options).keys() & COMMON_OPTIONS.keys():
            cls.map_size(image_size, options)  # the network itself raises the error

    @classmethod
    def smallest_side(cls, options: Mapping[str, Any]) -> int:
        """Return the smallest height and width of an image with these options."""
        return cls.capabilities.min_side

    @classmethod
    def sides_inside(cls, options: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
        """Return height and width of images of that size after enlargement to ``side``.

        Raises:
            UserError: they are too small for the network, or larger than ``side``.
        """
        side = options.get("side", 0)
        smallest = cls.smallest_side(options)
        largest = max(height, width)
        if side and side < largest:
            raise UserError(
                f"{cls.name}: side = {side} is smaller than the images, {height}×{width}, which it "
                "can only enlarge; 0 leaves them unchanged."
            )
        inside = (side, side) if side else (height, width)
        if min(inside) < smallest:
            alternatives = "larger images"
            if "side" in cls.options:
                alternatives += f", or side = {max(smallest, largest)} or more"
            raise UserError(
                f"{cls.name} needs images of at least {smallest}×{smallest} pixels, got "
                f'{inside[0]}×{inside[1]}; use backbone = "convnet", {alternatives}.'
            )
        return inside

    @classmethod
    def without_weights(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a network of the same shape that reads no published weights."""
        return {**options, **({"weights": "none"} if "weights" in options else {})}

    @classmethod
    def map_size(
        cls, image_size: tuple[int, int, int], options: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Return (h, w) of the last feature map of images (C,H,W).

        It is computed once, on a network on the meta device.
        """
        weightless = cls.without_weights(options)
        return _map_size(cls, image_size, tuple(sorted(weightless.items())))  # type: ignore[arg-type]

    @classmethod
    def fewest_rows(cls, image_size: tuple[int, int, int], options: Mapping[str, Any]) -> int:
        """Return the smallest batch of images (C,H,W) for a forward pass in training mode.

        It is 2 if batch normalisation sees one value per channel of each image, else 1.
        """
        weightless = cls.without_weights(options)
        return _fewest_rows(cls, image_size, tuple(sorted(weightless.items())))  # type: ignore[arg-type]

    def build(self) -> nn.Linear:
        """Make the layers from ``chosen``, ``image_size``, ``num_outputs``; return the last one."""
        raise NotImplementedError

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Receive the mean and standard deviation of each channel by which images are normalised.

        Called once before training. Networks that need the original pixel values override it, and
        those whose weights belong to another normalisation call ``renormalise``.
        """

    def renormalise(
        self,
        given: tuple[Sequence[float], Sequence[float]],
        wanted: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        """Make ``renormalised`` change one normalisation into another.

        Args:
            given: mean and standard deviation by which images are normalised.
            wanted: those with which the weights were trained.
        """
        mean, std = (torch.tensor(part, dtype=torch.float32).view(-1, 1, 1) for part in given)
        new_mean, new_std = (
            torch.tensor(part, dtype=torch.float32).view(-1, 1, 1) for part in wanted
        )
        self.register_buffer("scale", std / new_std, persistent=False)
        self.register_buffer("shift", (mean - new_mean) / new_std, persistent=False)

    def renormalised(self, image: torch.Tensor) -> torch.Tensor:
        """Return images float[B,C,H,W] in the normalisation of the weights."""
        return image * self.scale + self.shift if hasattr(self, "scale") else image

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        """Return the output of the CAM layer for images that ``side`` has enlarged."""
        raise NotImplementedError

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Return features float[B,D] of a feature map float[B,C,h,w]: the mean over positions."""
        return feature_map.mean(dim=(2, 3))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; with ``freeze_bn`` batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self.chosen.get("freeze_bn"):
            for norm in self._batch_norms():
                norm.eval()
        return self

    def _batch_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.modules() if isinstance(module, BATCH_NORMS))

    def enlarged(self, image: torch.Tensor) -> torch.Tensor:
        """Return images float[B,C,H,W], enlarged to ``side`` if that is set.

        Raises:
            UserError: wrong channels, or an image that is too small.
        """
        if image.dim() != 4 or image.shape[1] != self.image_size[0]:
            raise UserError(
                f"{self.name} was built for images with {self.image_size[0]} channels, got an "
                f"array of shape {list(image.shape)}, expected [B,{self.image_size[0]},H,W]."
            )
        inside = self.sides_inside(self.chosen, image.shape[2], image.shape[3])
        if inside != tuple(image.shape[2:]):
            image = F.interpolate(image, inside, mode="bilinear", align_corners=False)
        return image

    def feature_map(self, image: torch.Tensor) -> torch.Tensor:
        """Return the last feature map float[B,C,h,w] of normalised images float[B,C,H,W].

        Raises:
            UserError: as ``enlarged``.
        """
        return self.stages(self.enlarged(image))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """Return the features float[B,D] before the last layer."""
        return self.pool(self.feature_map(image))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits float[B,K]."""
        return self.classifier(self.dropout(self.features(image)))  # type: ignore[no-any-return]

    def cam_module(self) -> nn.Module:
        """Return the module whose output Grad-CAM uses.

        Raises:
            UserError: the backbone has none.
        """
        if not self.capabilities.cam:
            raise UserError(f"{self.name} declares no layer for Grad-CAM; use another backbone.")
        return self.get_submodule(self.capabilities.cam)

    def cam_map(self, output: torch.Tensor) -> torch.Tensor:
        """Return the output of ``cam_module``, or a gradient of its shape, as a map float[B,C,h,w].

        The function is linear; here it is the identity.
        """
        return output

    @classmethod
    def cam_problem(
        cls, image_size: tuple[int, int, int], options: Mapping[str, Any]
    ) -> str | None:
        """Return why Grad-CAM cannot localise evidence in images (C,H,W), or None if it can.

        The reason is a sentence for the user.
        """
        if not cls.capabilities.cam:
            return f"Grad-CAM needs a layer that keeps positions, and {cls.name} declares none."
        if max(cls.map_size(image_size, options)) > 1:
            return None
        return (
            f"the maps of {cls.name} for these images have one cell and are all alike; use larger "
            "images (resnet50:side=224)."
        )


def takes_one_row(make: Callable[[], nn.Module], image_size: tuple[int, int, int]) -> bool:
    """Return whether a network can be trained on a batch of one image (C,H,W).

    Batch normalisation cannot if it sees one value per channel. The network is made on the meta
    device, or on the CPU if that fails; the state of the random generator is restored.
    """

    def passes(device: str) -> bool:
        with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
            network = make().train()
            try:
                network(torch.zeros(1, *image_size))
            except ValueError as error:
                if "more than 1 value per channel" in str(error):
                    return False
                raise
        return True

    try:
        return passes("meta")
    except RuntimeError:
        return passes("cpu")


@functools.cache
def _fewest_rows(
    kind: type[Backbone], image_size: tuple[int, int, int], options: tuple[tuple[str, Any], ...]
) -> int:
    return 1 if takes_one_row(lambda: kind(1, image_size, **dict(options)), image_size) else 2


@functools.cache
def _map_size(
    kind: type[Backbone], image_size: tuple[int, int, int], options: tuple[tuple[str, Any], ...]
) -> tuple[int, int]:
    """Compute the size on the meta device, or on the CPU if the network cannot be built there.

    The state of the random generator is restored.
    """

    def size_on(device: str) -> tuple[int, int]:
        with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
            network = kind(1, image_size, **dict(options)).eval()
            shape = network.feature_map(torch.zeros(1, *image_size)).shape
        return shape[2], shape[3]

    try:
        return size_on("meta")
    except RuntimeError:
        return size_on("cpu")
