"""What the explainers share: one forward pass for heatmap and logits, the explained score, and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from benchmark.core.autograd_graph import depends_on
from benchmark.core.compilation import eagerly, uncompiled
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam, check_values
from benchmark.explain.rules import Rules

#: From logits float[B,K] to what is explained: int64[B], one logit per image, or float[B], a score per image.
Choose = Callable[[torch.Tensor], torch.Tensor]

BATCH_STATISTICS = HParam(
    "constant",
    choices=("constant", "train"),
    doc="batch statistics in the explanation: constants, or differentiated (mixes the images of a batch)",
)


class HeatmapExplainer:
    """Base of the explainers here; a subclass says how a heatmap comes out of one forward pass.

    Class attributes: as ``benchmark.core.Explainer``, and ``options``, declared like hyper-parameters.
    """

    name: ClassVar[str] = ""
    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = False
    requires: ClassVar[str] = ""
    options: ClassVar[Mapping[str, HParam]] = {}

    def __init__(self, **options: Any) -> None:
        defaults = {name: option.default for name, option in self.options.items()}
        self.chosen: dict[str, Any] = {
            **defaults,
            **check_values(self.options, options, self.name, "option"),
        }

    def __call__(
        self,
        model: nn.Module,
        image: torch.Tensor,
        target: torch.Tensor,
        create_graph: bool = False,
    ) -> torch.Tensor:
        """The heatmap of ``target``, int64[B] (or float[B], a differentiable score): float32[B,C,H,W] or [B,1,h,w]."""
        return self.with_logits(model, image, lambda logits: target, create_graph)[0]

    def with_logits(
        self,
        model: nn.Module,
        image: torch.Tensor,
        choose: Choose,
        create_graph: bool = False,
        track_statistics: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Heatmap and logits from one forward pass.

        Args:
            model: the network; its mode is respected and kept.
            image: float[B,C,H,W]; with ``create_graph``, an image that requires a gradient gets one.
            choose: what to explain, given the logits: int64[B] picks a logit of each image (for one-logit networks,
                0 and 1 are the sign), float[B] is the explained score itself, differentiable.
            create_graph: whether heatmap and logits can be differentiated; else both are detached.
            track_statistics: let batch normalisation in training mode update its running statistics: for a training
                step whose only forward pass is this one.

        Returns:
            Heatmap in at least float32, logits float[B,K].

        A compiled network runs uncompiled here.

        Raises:
            UserError: the network lacks what the explainer requires, or nothing that can be trained moves the heatmap
                although ``create_graph`` asks for one that can be part of a loss.
        """
        model = uncompiled(model)
        self._check(model)
        if image.is_inference():
            with torch.inference_mode(False):
                image = image.clone()
        with eagerly():
            heatmap, logits = self.explain(model, image, choose, create_graph, track_statistics)
        if create_graph and torch.is_grad_enabled():
            self._refuse_constant(heatmap, model)
        if heatmap.dtype in (torch.float16, torch.bfloat16):
            heatmap = heatmap.float()
        return (heatmap, logits) if create_graph else (heatmap.detach(), logits.detach())

    def explain(
        self,
        model: nn.Module,
        image: torch.Tensor,
        choose: Choose,
        create_graph: bool,
        track_statistics: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Heatmap and logits; ``with_logits`` after its checks."""
        raise NotImplementedError

    def _refuse_constant(self, heatmap: torch.Tensor, model: nn.Module) -> None:
        """Raise a UserError where a heatmap depends on nothing that is trained, although the network has such things.

        The image of an explanation is a leaf of its own, not a parameter.
        """
        if not depends_on(heatmap, lambda leaf: isinstance(leaf, nn.Parameter)) and any(
            parameter.requires_grad for parameter in model.parameters()
        ):
            raise UserError(
                f"{self.name}: no parameter that is trained moves the heatmap, so it cannot be part of a loss; train "
                "the layers that it explains, or compute it without create_graph."
            )

    def _check(self, model: nn.Module) -> None:
        declared = getattr(model, "capabilities", None)
        if self.requires and declared is not None and not getattr(declared, self.requires):
            named = getattr(model, "name", "this network")
            raise UserError(
                f"{self.name} needs a network that declares {self.requires!r}, which {named} does not; "
                "take another network or another explanation."
            )
        if self.requires == "cam" and not hasattr(model, "cam_module"):
            raise UserError(
                f"{self.name} needs a network with cam_module(), as every backbone with a CAM layer has."
            )


def explained_score(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Sum over the batch of what ``choose`` picked, a scalar in at least float32.

    Raises:
        ValueError: ``chosen`` does not have one entry per image.
    """
    if chosen.shape != logits.shape[:1]:
        raise ValueError(
            f"the target has shape {list(chosen.shape)}, expected [{len(logits)}], one entry per image"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if chosen.is_floating_point():
        return chosen.sum()
    if logits.shape[1] == 1:
        return (logits[:, 0] * (2 * chosen - 1)).sum()
    return logits.gather(1, chosen[:, None]).sum()


def input_gradient(
    model: nn.Module,
    image: torch.Tensor,
    choose: Choose,
    create_graph: bool,
    track_statistics: bool,
    epsilon: float | torch.Tensor | None,
    constant_statistics: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradient at the image under ``Rules``, the image to multiply it by, and the logits."""
    ours = not (create_graph and image.requires_grad)
    leaf = image.detach().requires_grad_() if ours else image
    rules = Rules(
        epsilon, constant_statistics, track_statistics, create_graph, leaf if ours else None
    )
    with rules.forward(model):
        logits = model(leaf)
    with torch.inference_mode(False), torch.enable_grad():
        score = explained_score(logits, choose(logits))
    gradient = rules.gradient(score, leaf, create_graph)
    return gradient, image.detach() if ours else image, logits
