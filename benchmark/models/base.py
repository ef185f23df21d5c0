"""What every backbone is: a feature map, the features before the last layer, the last layer, and what it declares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.backbone_options import COMMON_OPTIONS, without_defaults
from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam, check_values

#: Declared by networks that were made for larger images than some data have; ``Backbone`` does it.
SIDE = HParam(
    0,
    doc="images are enlarged to this side (bilinear) before the first layer; 0: as they are",
    low=0,
    high=1024,
)


def pixels_inside(module: nn.Module, height: int, width: int) -> int:
    """Pixels of an image of that size as the networks in a module see it, enlarged where one of them does so."""
    sides = [m.chosen.get("side", 0) for m in module.modules() if isinstance(m, Backbone)]
    return max(height * width, max(sides, default=0) ** 2)


@dataclass(frozen=True)
class Capabilities:
    """What a backbone can be asked for.

    Args:
        cam: dotted name of the layer that Grad-CAM looks at, whose output ``cam_map`` turns into float[B,C,h,w]: the
            last convolutional stage, or what enters the last block of a transformer; ``""`` for none.
        lrp: whether every nonlinearity is a ReLU or a max-pool, so that LRP-ε is defined.
        attention: whether it attends between image patches (transformers).
        min_side: smallest height and width of an image, in pixels, with the default options.
    """

    cam: str = ""
    lrp: bool = False
    attention: bool = False
    min_side: int = 1


class Backbone(nn.Module):
    """A classifier in three parts: ``feature_map``, ``features`` and ``classifier``; subclasses are registered.

    A subclass declares the class attributes, makes its layers in ``build``, and computes ``stages`` (and ``pool``,
    where it is not the mean over positions).

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
        self.num_outputs, self.image_size = (
            num_outputs,
            (image_size[0], image_size[1], image_size[2]),
        )
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
                f"{self.name} has no batch normalisation whose statistics freeze_bn could keep; leave the option out."
            )
        self.train(self.training)

    @classmethod
    def all_options(cls) -> dict[str, HParam]:
        """Every option: those of all backbones, and this one's own."""
        return {**COMMON_OPTIONS, **cls.options}

    @classmethod
    def check_options(cls, image_size: tuple[int, int, int], options: Mapping[str, Any]) -> None:
        """See to it, before anything runs, that the network can be made with these options for images (C,H,W).

        Raises:
            UserError: it cannot.
        """
        cls.sides_inside(options, image_size[1], image_size[2])
        if without_defaults(options).keys() & COMMON_OPTIONS.keys():
            cls.map_size(image_size, options)  # the network itself says what it lacks

    @classmethod
    def smallest_side(cls, options: Mapping[str, Any]) -> int:
        """Smallest height and width of an image with these options."""
        return cls.capabilities.min_side

    @classmethod
    def sides_inside(cls, options: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
        """Height and width of what the first layer sees of images of that size.

        Raises:
            UserError: too small for the network, or larger than the side to which they would be enlarged.
        """
        side, smallest, largest = (
            options.get("side", 0),
            cls.smallest_side(options),
            max(height, width),
        )
        if side and side < largest:
            raise UserError(
                f"{cls.name}: side = {side} is smaller than the images, {height}×{width}; it can only enlarge them; "
                "0 leaves them as they are."
            )
        inside = (side, side) if side else (height, width)
        if min(inside) < smallest:
            enough = max(smallest, largest)
            larger = (
                f"larger images, or side = {enough} or more"
                if "side" in cls.options
                else "larger images"
            )
            raise UserError(
                f"{cls.name} needs images of at least {smallest}×{smallest} pixels, got {inside[0]}×{inside[1]}; "
                f'use backbone = "convnet", {larger}.'
            )
        return inside

    @classmethod
    def map_size(
        cls, image_size: tuple[int, int, int], options: Mapping[str, Any]
    ) -> tuple[int, int]:
        """(h, w) of the last feature map of images (C,H,W), found once on a network that has shapes and no memory."""
        weightless = {**options, **({"weights": "none"} if "weights" in options else {})}
        return _map_size(cls, image_size, tuple(sorted(weightless.items())))  # type: ignore[arg-type]

    @classmethod
    def fewest_rows(cls, image_size: tuple[int, int, int], options: Mapping[str, Any]) -> int:
        """The fewest images (C,H,W) that a forward pass in training may take: 2 where one has no variance, else 1."""
        weightless = {**options, **({"weights": "none"} if "weights" in options else {})}
        return _fewest_rows(cls, image_size, tuple(sorted(weightless.items())))  # type: ignore[arg-type]

    def build(self) -> nn.Linear:
        """Make the layers from ``chosen``, ``image_size`` and ``num_outputs``; returns the last one."""
        raise NotImplementedError

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        """The convolutional part, of images that ``side`` has enlarged: the output of the CAM layer."""
        raise NotImplementedError

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """From the last feature map float[B,C,h,w] to the features float[B,D]; the mean over positions."""
        return feature_map.mean(dim=(2, 3))

    def train(self, mode: bool = True) -> Self:
        """As of any module; with ``freeze_bn`` batch normalisation stays in evaluation mode."""
        super().train(mode)
        if self.chosen.get("freeze_bn"):
            for norm in self._batch_norms():
                norm.eval()
        return self

    def _batch_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.modules() if isinstance(module, BATCH_NORMS))

    def feature_map(self, image: torch.Tensor) -> torch.Tensor:
        """The last feature map float[B,C,h,w] of normalised images float[B,C,H,W].

        Raises:
            UserError: wrong channels, or an image that is too small.
        """
        if image.dim() != 4 or image.shape[1] != self.image_size[0]:
            raise UserError(
                f"{self.name} was built for images with {self.image_size[0]} channels, got an array of shape "
                f"{list(image.shape)}, expected [B,{self.image_size[0]},H,W]."
            )
        inside = self.sides_inside(self.chosen, image.shape[2], image.shape[3])
        if inside != tuple(image.shape[2:]):
            image = F.interpolate(image, inside, mode="bilinear", align_corners=False)
        return self.stages(image)

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """The features float[B,D] before the last layer."""
        return self.pool(self.feature_map(image))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits float[B,K]."""
        return self.classifier(self.dropout(self.features(image)))  # type: ignore[no-any-return]

    def cam_module(self) -> nn.Module:
        """The module whose output Grad-CAM looks at.

        Raises:
            UserError: the backbone has none.
        """
        if not self.capabilities.cam:
            raise UserError(f"{self.name} declares no layer for Grad-CAM; take another backbone.")
        return self.get_submodule(self.capabilities.cam)

    def cam_map(self, output: torch.Tensor) -> torch.Tensor:
        """From what ``cam_module`` gives, or a gradient of its shape, to a map float[B,C,h,w]; linear."""
        return output

    @classmethod
    def cam_problem(
        cls, image_size: tuple[int, int, int], options: Mapping[str, Any]
    ) -> str | None:
        """Why Grad-CAM cannot say where in images (C,H,W) the evidence lies, in a sentence, or None."""
        if not cls.capabilities.cam:
            return f"Grad-CAM needs a layer that keeps positions, and {cls.name} declares none."
        if max(cls.map_size(image_size, options)) > 1:
            return None
        return f"{cls.name}'s maps of these images are one cell, all alike; take larger ones (resnet50:side=224)."


def takes_one_row(make: Callable[[], nn.Module], image_size: tuple[int, int, int]) -> bool:
    """Whether a network can be trained on a batch of one image (C,H,W).

    Batch normalisation cannot where it sees one value per channel. The network is made on the device that has shapes
    and no memory, or where that is not possible, on the CPU; no random number is lost.
    """

    def passes(place: str) -> bool:
        with torch.random.fork_rng(devices=[]), torch.device(place), torch.no_grad():
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
    """On the device without memory, or where a network cannot be built there, on the CPU; no random number is lost."""

    def found_on(place: str) -> tuple[int, int]:
        with torch.random.fork_rng(devices=[]), torch.device(place), torch.no_grad():
            shape = (
                kind(1, image_size, **dict(options))
                .eval()
                .feature_map(torch.zeros(1, *image_size))
                .shape
            )
        return shape[2], shape[3]

    try:
        return found_on("meta")
    except RuntimeError:
        return found_on("cpu")
