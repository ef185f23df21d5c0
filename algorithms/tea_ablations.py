"""TEA with its ablations: other explanations and distances, added terms, a joint warm-up."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from algorithms._student import has_other_teacher, same_size, start_problem
from algorithms.tea import TEA, tea_loss
from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    EXPLAINERS,
    Batch,
    DatasetInfo,
    HParam,
    RunSpec,
    Setting,
    UserError,
    make_optimizer,
)
from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.explain import get
from benchmark.explain.base import HeatmapExplainer, Trace
from benchmark.losses.heatmaps import geometric_distance, normed_distance
from benchmark.losses.outputs import softened_divergence
from benchmark.models.base import Backbone

#: Distances of student map and teacher map, each averaged over images: equations 2, 1, C12 and C13.
DISTANCES = {
    "multi": tea_loss,
    "single": lambda s, t: geometric_distance(s, t).mean(),
    "l1": lambda s, t: normed_distance(s, t, 1).mean(),
    "l2": lambda s, t: normed_distance(s, t, 2).mean(),
}
#: Explainers that replace LRP in the variants of the same names.
OTHER_EXPLAINERS = ("gradcam", "input_gradient", "gradient_x_input", "attention")
#: Temperature of the added output distillation.
TEMPERATURE = 3.0


@ALGORITHMS.register
class TEAWithAblations(TEA):
    """The TEA loss between heatmaps of student and teacher for one random class of each image.

    The default hyper-parameters give the method of the paper, which is in ``tea.py``.

    With ``warmup``, a copy of the teacher is trained together with the student (F.1). In the
    warm-up it minimises the TEA loss and ``teacher_weight`` times its cross-entropy, afterwards its
    cross-entropy alone. Student and copy have their own optimisers and gradient clips. The last
    layer of the copy is frozen if ``freeze_last`` is true, as the student's is.
    """

    hparams = {
        **TEA.hparams,
        "explanation": HParam("lrp", doc="the explainer: any that is differentiable"),
        "loss": HParam(
            "multi",
            doc="distance of the heatmaps: equation 2, 1, C12 or C13",
            choices=tuple(DISTANCES),
        ),
        "statistics": HParam(
            "batch",
            choices=("batch", "running", "train"),
            doc="of batch normalisation: the batch's, constants in a heatmap; the teacher's; or "
            "the batch's, differentiated",
        ),
        "output_weight": HParam(
            0.0, doc="weight of output distillation beside the heatmaps", low=0.0, high=1e9
        ),
        "representation_weight": HParam(
            0.0, doc="weight of the distance of the last feature maps", low=0.0, high=1e9
        ),
        "warmup": HParam(
            0.0,
            doc="share of the steps in which the teacher moves towards the student too (F.1)",
            low=0.0,
            high=1.0,
        ),
        "teacher_weight": HParam(
            0.1,
            doc="weight of the teacher's cross-entropy in the warm-up; after it the weight is 1",
            low=0.0,
            high=1e9,
        ),
    }
    variants = {
        **{name: {"explanation": name} for name in OTHER_EXPLAINERS},
        **{name: {"loss": name} for name in ("single", "l1", "l2")},
        **{
            f"epsilon_1e-{n}": {"epsilon_low": 10.0**-n, "epsilon_high": 10.0**-n}
            for n in range(1, 6)
        },
        "outputs": {"output_weight": 1.0},
        "representations": {"representation_weight": 1.0},
        "warmup": {"warmup": 0.1},
        "train_statistics": {"statistics": "train"},
        "transplant": {"start": "transplant"},
        "unbiased_teacher": {"teacher": "unbiased"},
        "coloured_mnist": {
            "teacher": "unbiased",
            "start": "random",
            "epsilon_low": 1e-2,
            "epsilon_high": 1e-1,
        },
    }
    variant_titles = {
        "gradcam": "Grad-CAM",
        "gradient_x_input": "gradient × input",
        "l1": "L1",
        "l2": "L2",
        **{f"epsilon_1e-{n}": f"ε = 1e-{n}" for n in range(1, 6)},
        "coloured_mnist": "Coloured MNIST",
    }

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.hp["representation_weight"] > 0:
            self._check_channels()
        self.teacher_moves = self.hp["warmup"] > 0
        if self.teacher_moves:
            # a copy that is trained too; the teacher itself stays unchanged
            self.moving = copy.deepcopy(self.explained).cpu().requires_grad_(True)
            if self.hp["freeze_last"]:
                self.moving.classifier.requires_grad_(False)

    def _check_channels(self) -> None:
        student, teacher = self.network.num_features, self.explained.num_features
        if student != teacher:
            raise UserError(
                f"{self.name}: the last map of the student has {student} channels and that of its "
                f'teacher {teacher}, which cannot be compared; use start = "transplant", or the '
                "same options of the backbone for both."
            )

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        explanation = spec.hparams["explanation"]
        try:
            explainer: type[HeatmapExplainer] = EXPLAINERS.get(explanation)
        except UserError as error:
            return str(error)
        if not explainer.differentiable:
            return f"{explanation} cannot be part of a loss; use a differentiable explainer."
        backbone: type[Backbone] = BACKBONES.get(spec.backbone)
        required = explainer.requires
        if required and not getattr(backbone.capabilities, required):
            return (
                f"{spec.backbone} cannot be explained by {explanation}; input_gradient works for "
                "all."
            )
        if spec.hparams["representation_weight"] > 0 and not backbone.capabilities.cam:
            return f"{spec.backbone} declares no last map whose representations could be compared."
        if (
            spec.hparams["representation_weight"] > 0
            and spec.hparams["start"] == "random"
            and has_other_teacher(spec)
        ):
            return (
                "representations of two kinds of networks cannot be compared; use start = "
                '"transplant", which gives the student the channels of its teacher.'
            )
        if explanation == "attention":  # scaled to norm 1, so that a map of one cell is always 1
            problem = backbone.cam_problem(info.image_size, spec.backbone_options)
            if problem is not None:
                return problem
        if spec.hparams["statistics"] == "running" and spec.hparams["start"] != "teacher":
            return (
                "the statistics are the teacher's and the weights are not; use statistics = "
                '"batch".'
            )
        return start_problem(spec)

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """Return the first step after the joint warm-up."""
        return math.ceil(hparams["warmup"] * budget["steps"])

    @property
    def warming_up(self) -> bool:
        """True if the explanation loss of this step moves the copy of the teacher too."""
        return bool(self.current_step < self.hp["warmup"] * self.setting.steps)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        optimizers = {"main": make_optimizer(self.network.parameters(), self.hp)}
        if self.teacher_moves:
            optimizers["teacher"] = make_optimizer(self.moving.parameters(), self.hp)
        return optimizers

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        with self.setting.autocast():
            terms = self.loss(batch)
        self.minimise(terms, *self.optimizers)
        return terms

    def train(self, mode: bool = True) -> TEAWithAblations:
        super().train(mode)
        if self.hp["statistics"] == "running":
            for module in self.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def explainer(self, image: torch.Tensor) -> HeatmapExplainer:
        explanation = self.hp["explanation"]
        batch_statistics = "train" if self.hp["statistics"] == "train" else "constant"
        if explanation == "lrp":
            return get("lrp", epsilon=self.draw_epsilon(image), batch_statistics=batch_statistics)
        if "batch_statistics" in EXPLAINERS.get(explanation).options:
            return get(explanation, batch_statistics=batch_statistics)
        return get(explanation)

    def trace_teacher(self, explainer: HeatmapExplainer, image: torch.Tensor) -> Trace:
        return explainer.trace(
            self.moving if self.teacher_moves else self.explained,
            image,
            create_graph=self.teacher_moves,
            track_statistics=self.teacher_moves and self.training,
            keep_feature_map=self.hp["representation_weight"] > 0,
        )

    def trace_student(self, explainer: HeatmapExplainer, image: torch.Tensor) -> Trace:
        return explainer.trace(
            self.network,
            image,
            create_graph=True,
            track_statistics=self.training,
            keep_feature_map=self.hp["representation_weight"] > 0,
        )

    def distance(self, student_map: torch.Tensor, teacher_map: torch.Tensor) -> torch.Tensor:
        if not self.warming_up:
            teacher_map = teacher_map.detach()
        return DISTANCES[self.hp["loss"]](student_map, teacher_map)

    def added_terms(self, batch: Batch, student: Trace, teacher: Trace) -> dict[str, torch.Tensor]:
        """Return the terms of output distillation, representation distillation and warm-up."""
        terms = {}
        if self.hp["output_weight"] > 0:
            divergence = softened_divergence(student.logits, teacher.logits.detach(), TEMPERATURE)
            terms["outputs"] = self.hp["output_weight"] * divergence
        if self.hp["representation_weight"] > 0:
            assert student.feature_map is not None and teacher.feature_map is not None
            maps = same_size(student.feature_map, teacher.feature_map.detach())
            terms["representations"] = (
                self.hp["representation_weight"] * geometric_distance(*maps).mean()
            )
        if self.teacher_moves:
            weight = self.hp["teacher_weight"] if self.warming_up else 1.0
            terms["teacher"] = weight * F.cross_entropy(teacher.logits, batch.label)
        return terms
