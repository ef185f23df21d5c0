"""Common parts of the explainers: the forward pass that they watch, the explained score, checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from benchmark.core.autograd_graph import depends_on
from benchmark.core.compilation import eagerly, uncompiled
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam, check_values
from benchmark.explain.rules import Rules
from benchmark.models.base import Capabilities

#: Function from logits float[B,K] to the target of a heatmap, as in ``Trace.heatmap``.
Choose = Callable[[torch.Tensor], torch.Tensor]

BATCH_STATISTICS = HParam(
    "constant",
    choices=("constant", "train"),
    doc="batch statistics in the explanation: constants, or differentiated (mixes the images of a "
    "batch)",
)


@dataclass
class Trace:
    """One forward pass of a network, from which a heatmap can be computed.

    Attributes:
        explainer: the explainer that watched the network.
        model: the network.
        rules: the backward rules under which the network ran.
        create_graph: whether the heatmap can be differentiated.
        source: tensor at which the gradient of the score is taken: the image, or the output of the
            CAM layer.
        image: the images float[B,C,H,W].
        logits: float[B,K], with their graph, so that a score can be computed from them. Without
            ``create_graph`` the graph is freed by ``heatmap``.
        feature_map: map float[B,C,h,w] of the CAM layer, if it was asked for.
    """

    explainer: HeatmapExplainer
    model: nn.Module
    rules: Rules
    create_graph: bool
    source: torch.Tensor
    image: torch.Tensor
    logits: torch.Tensor
    feature_map: torch.Tensor | None = None

    def heatmap(self, target: torch.Tensor) -> torch.Tensor:
        """Return the heatmap of a target.

        Without ``create_graph`` only one heatmap can be computed from a trace.

        Args:
            target: int64[B], the logit to explain for each image (for networks with one logit, 0
                and 1 select its sign), or float[B], a differentiable score computed from
                ``logits``.

        Returns:
            float[B,C,H,W] or float[B,1,h,w] in at least float32; detached without
            ``create_graph``.

        Raises:
            ValueError: the explainer or the target has the wrong shape.
            UserError: no trainable parameter of the network influences the heatmap although
                ``create_graph`` asks for one that can be part of a loss.
        """
        with eagerly():
            heatmap = self.explainer.heatmap(self, target)
        if heatmap.dim() != 4 or len(heatmap) != len(self.image):
            raise ValueError(
                f"the heatmap of {self.explainer.name} has shape {list(heatmap.shape)}, expected "
                f"[{len(self.image)}, C, H, W]"
            )
        if self.create_graph and torch.is_grad_enabled():
            self._refuse_constant(heatmap)
        if heatmap.dtype in (torch.float16, torch.bfloat16):
            heatmap = heatmap.float()
        return heatmap if self.create_graph else heatmap.detach()

    def _refuse_constant(self, heatmap: torch.Tensor) -> None:
        # the image of an explanation is a leaf of its own, not a parameter
        if not depends_on(heatmap, lambda leaf: isinstance(leaf, nn.Parameter)) and any(
            parameter.requires_grad for parameter in self.model.parameters()
        ):
            raise UserError(
                f"{self.explainer.name}: no parameter that is trained moves the heatmap, so it "
                "cannot be part of a loss; train the layers that it explains, or compute it "
                "without create_graph."
            )


class HeatmapExplainer:
    """Base class of the explainers.

    A subclass implements ``watch`` (the forward pass) and ``heatmap``.

    An explainer leaves the hooks, the mode, the statistics and the parameters of a model as they
    were.

    Class attributes:
        name: Name in the registry.
        title: Title in tables and figures; by default the name.
        differentiable: True if a heatmap made with ``create_graph=True`` has a gradient with
            respect to the weights.
        signed: True if negative values are evidence against the target.
        requires: Capability that a backbone must declare: ``"cam"``, ``"lrp"``, ``"attention"``
            or ``""`` for none.
        options: Options of the explainer, declared like hyper-parameters.
        evaluation_order: Position among the explainers that are tried when a trained network is
            explained, the lowest first; None if the explainer is used on request only.
        repetitions: Option to which the time of a heatmap is proportional, such as the number of
            masks; empty for none. Estimates of the time of a sweep use it.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = False
    requires: ClassVar[str] = ""
    options: ClassVar[Mapping[str, HParam]] = {}
    evaluation_order: ClassVar[int | None] = None
    repetitions: ClassVar[str] = ""

    def __init__(self, **options: Any) -> None:
        defaults = {name: option.default for name, option in self.options.items()}
        self.chosen: dict[str, Any] = {
            **defaults,
            **check_values(self.options, options, self.name, "option"),
        }

    @classmethod
    def suits(cls, capabilities: Capabilities) -> bool:
        """Return whether evaluation may choose this explainer for a network."""
        return not cls.requires or bool(getattr(capabilities, cls.requires))

    def __call__(
        self,
        model: nn.Module,
        image: torch.Tensor,
        target: torch.Tensor,
        *,
        create_graph: bool = False,
    ) -> torch.Tensor:
        """Return the heatmap of ``target``: ``trace(model, image).heatmap(target)``."""
        return self.trace(model, image, create_graph=create_graph).heatmap(target)

    def with_logits(
        self,
        model: nn.Module,
        image: torch.Tensor,
        choose: Choose,
        *,
        create_graph: bool = False,
        track_statistics: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the heatmap of ``choose(logits)`` and the logits, from one forward pass.

        Args:
            model: as for ``trace``.
            image: as for ``trace``.
            choose: computes the target of ``Trace.heatmap`` from the logits.
            create_graph: as for ``trace``; without it, heatmap and logits are detached.
            track_statistics: as for ``trace``.
        """
        trace = self.trace(
            model, image, create_graph=create_graph, track_statistics=track_statistics
        )
        with torch.inference_mode(False), torch.enable_grad():
            target = choose(trace.logits)
        heatmap = trace.heatmap(target)
        return heatmap, trace.logits if create_graph else trace.logits.detach()

    def trace(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool = False,
        track_statistics: bool = False,
        keep_feature_map: bool = False,
    ) -> Trace:
        """Run the network once and return the trace from which a heatmap is computed.

        A compiled network runs uncompiled. Dropout and stochastic depth are off, also in training
        mode, so that the heatmap is that of the whole network and two passes give the same one. A
        method that computes its classification loss from ``Trace.logits`` therefore trains
        without dropout. Batch normalisation keeps the mode of the network.

        Args:
            model: the network; its mode does not change.
            image: float[B,C,H,W]; with ``create_graph``, an image that requires a gradient gets
                one.
            create_graph: whether heatmap and logits can be differentiated.
            track_statistics: whether batch normalisation in training mode updates its running
                statistics, as it must in a training step whose only forward pass is this one.
            keep_feature_map: whether the trace keeps the map of the network's CAM layer.

        Raises:
            UserError: the network lacks what the explainer requires.
        """
        model = uncompiled(model)
        self._check(model)
        if image.is_inference():
            with torch.inference_mode(False):
                image = image.clone()
        with eagerly(), _maps_of_cam_layer(model, keep=keep_feature_map) as maps:
            trace = self.watch(
                model, image, create_graph=create_graph, track_statistics=track_statistics
            )
        if keep_feature_map:
            trace.feature_map = maps[0]
        return trace

    def watch(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool,
        track_statistics: bool,
    ) -> Trace:
        """Run the network under the backward rules of this explanation; called by ``trace``."""
        raise NotImplementedError

    def heatmap(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        """Compute the heatmap of a target from a forward pass; called by ``Trace.heatmap``."""
        raise NotImplementedError

    def _check(self, model: nn.Module) -> None:
        declared = getattr(model, "capabilities", None)
        if self.requires and declared is not None and not getattr(declared, self.requires):
            named = getattr(model, "name", "this network")
            raise UserError(
                f"{self.name} needs a network that declares {self.requires!r}, which {named} does "
                "not; take another network or another explanation."
            )
        if self.requires == "cam" and not hasattr(model, "cam_module"):
            raise UserError(
                f"{self.name} needs a network with cam_module(), as every backbone with a CAM "
                "layer has."
            )


def to_map(model: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """Return the output of the CAM layer, or a gradient of its shape, as a map float[B,C,h,w].

    Networks whose layer has another layout, such as transformers, declare ``cam_map``.
    """
    if not hasattr(model, "cam_map"):
        return output
    laid_out: torch.Tensor = model.cam_map(output)  # type: ignore[operator]
    return laid_out


@contextmanager
def _maps_of_cam_layer(model: Any, *, keep: bool) -> Iterator[list[torch.Tensor]]:
    """Collect the maps of the CAM layer of a network in the block, if ``keep`` is true."""
    maps: list[torch.Tensor] = []
    if not keep:
        yield maps
        return
    handle = model.cam_module().register_forward_hook(
        lambda module, args, output: maps.append(to_map(model, output))
    )
    try:
        yield maps
    finally:
        handle.remove()


def explained_score(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the sum over the batch of the explained scores, a scalar in at least float32.

    Args:
        logits: float[B,K].
        target: int64[B] or float[B], as in ``Trace.heatmap``.

    Raises:
        ValueError: ``target`` does not have one entry per image.
    """
    if target.shape != logits.shape[:1]:
        raise ValueError(
            f"the target has shape {list(target.shape)}, expected [{len(logits)}], one entry per "
            "image"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if target.is_floating_point():
        return target.sum()
    if logits.shape[1] == 1:
        return (logits[:, 0] * (2 * target - 1)).sum()
    return logits.gather(1, target[:, None]).sum()


class ImageGradientExplainer(HeatmapExplainer):
    """Base class of explainers that start from the gradient of the score at the image.

    A subclass computes its heatmap from ``image_gradient(trace, target)`` and ``trace.image``.
    """

    signed = True
    options = {"batch_statistics": BATCH_STATISTICS}

    def damping(self, image: torch.Tensor) -> float | torch.Tensor | None:
        """Return the ε of the rule for ReLUs; None for the plain gradient."""
        return None

    def watch(
        self,
        model: nn.Module,
        image: torch.Tensor,
        *,
        create_graph: bool,
        track_statistics: bool,
    ) -> Trace:
        epsilon = self.damping(image)
        own_leaf = not (create_graph and image.requires_grad)
        leaf = image.detach().requires_grad_() if own_leaf else image
        rules = Rules(
            epsilon=epsilon,
            constant_statistics=self.chosen["batch_statistics"] == "constant",
            track_statistics=track_statistics,
            create_graph=create_graph,
            image=leaf if own_leaf else None,
        )
        with rules.forward(model):
            logits = model(leaf)
        factor = image.detach() if own_leaf else image
        return Trace(self, model, rules, create_graph, source=leaf, image=factor, logits=logits)

    def image_gradient(self, trace: Trace, target: torch.Tensor) -> torch.Tensor:
        """Return the gradient float[B,C,H,W] of the explained score at the image."""
        with torch.inference_mode(False), torch.enable_grad():
            score = explained_score(trace.logits, target)
        return trace.rules.gradient(score, trace.source, create_graph=trace.create_graph)
