"""Training with explanations alone: a student that matches its teacher's heatmaps, and nothing else."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from algorithms._student import STUDENT_HPARAMS, Student, kept_feature_maps, repeatable, same_size
from benchmark.core.algorithm import Paper, Setting
from benchmark.core.batch import Batch
from benchmark.core.batch_norm import BATCH_NORMS
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import HParam
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.spec import RunSpec
from benchmark.explain import get
from benchmark.explain.base import HeatmapExplainer
from benchmark.losses.heatmaps import (
    choose_class,
    distances_by_size,
    geometric_distance,
    normed_distance,
)
from benchmark.losses.outputs import softened_divergence


def tea_loss(student_map: torch.Tensor, teacher_map: torch.Tensor) -> torch.Tensor:
    """Equation 2: the distance of equation 1 at full size and average-pooled by 2, 4, …; mean over sizes and images.

    Args:
        student_map, teacher_map: float[B,C,H,W].
    """
    return distances_by_size(student_map, teacher_map).mean()


LOSSES = {
    "multi": tea_loss,
    "single": lambda s, t: geometric_distance(s, t).mean(),
    "l1": lambda s, t: normed_distance(s, t, 1).mean(),
    "l2": lambda s, t: normed_distance(s, t, 2).mean(),
}
OTHERS = ("gradcam", "input_gradient", "gradient_x_input", "attention")  # explanations, beside LRP


@ALGORITHMS.register
class TEA(Student):
    """The TEA loss between heatmaps of student and teacher, which explain one class of each image, chosen at random.

    The paper selects by the lowest TEA loss on validation images: ``val_objective``.
    """

    name = "tea"
    paper = Paper(
        "Training with explanations alone: a new paradigm to prevent shortcut learning",
        "Bassi, Ali, Cavalli, Decherchi", 2025, "https://github.com/PedroRASB/TrainingWithExplanationsAlone",
    )  # fmt: skip
    hparams = {
        **STUDENT_HPARAMS,
        "freeze_last": HParam(True, doc=STUDENT_HPARAMS["freeze_last"].doc),
        "explanation": HParam("lrp", doc="what the heatmaps are", choices=("lrp", *OTHERS)),
        "loss": HParam("multi", doc="distance of the heatmaps: equation 2, 1, C12 or C13", choices=tuple(LOSSES)),
        "epsilon_low": HParam(
            1e-3, doc="LRP's ε is drawn log-uniformly for each image, from here …", low=1e-8, high=1e3
        ),
        "epsilon_high": HParam(1e-2, doc="… to here", low=1e-8, high=1e3),
        "statistics": HParam(
            "batch", choices=("batch", "running", "train"),
            doc="of batch normalisation: the batch's, constants in a heatmap; the teacher's; or the batch's throughout",
        ),
        "output_weight": HParam(0.0, doc="weight of output distillation beside the heatmaps", low=0.0, high=1e9),
        "representation_weight": HParam(0.0, doc="weight of the distance of the last feature maps", low=0.0, high=1e9),
        "warmup": HParam(0.0, doc="share of the steps in which teacher and student meet (F.1)", low=0.0, high=1.0),
        "teacher_weight": HParam(0.1, doc="weight of the cross-entropy of a teacher that moves", low=0.0, high=1e9),
    }  # fmt: skip
    variants = {
        **{name: {"explanation": name} for name in OTHERS},
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

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if self.hp["warmup"] > 0:  # a copy that learns too; the teacher itself stays as it is
            self.moving = copy.deepcopy(self.explained).cpu().requires_grad_(True)

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        hp, backbone = spec.hparams, BACKBONES.get(spec.backbone)
        can = backbone.capabilities
        if not {"lrp": can.lrp, "gradcam": can.cam, "attention": can.cam}.get(
            hp["explanation"], True
        ):
            return f"{spec.backbone} cannot be explained by {hp['explanation']}; input_gradient works for all."
        if hp["representation_weight"] > 0 and not can.cam:
            return f"{spec.backbone} declares no last map whose representations could be compared."
        if hp["explanation"] == "attention":  # scaled to norm 1, so that one cell is always 1
            problem: str | None = backbone.cam_problem(info.image_size, spec.backbone_options)
            if problem:
                return problem
        if hp["statistics"] == "running" and hp["start"] != "teacher":
            return 'the statistics are the teacher\'s and the weights are not; use statistics = "batch".'
        return None

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """The first step after the joint warm-up, in which the teacher moves towards the student."""
        return math.ceil(hparams["warmup"] * budget["steps"])

    def train(self, mode: bool = True) -> TEA:
        super().train(mode)
        if self.hp["statistics"] == "running":
            for module in self.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        moves, meeting = (
            self.hp["warmup"] > 0,
            self.current_step < self.hp["warmup"] * self.setting.steps,
        )
        teacher, seen = self.moving if moves else self.explained, self.seen_by_teacher(batch.image)
        explainer, target = self.explainer(batch.image), batch.label

        def choose(logits: torch.Tensor) -> torch.Tensor:
            nonlocal target
            target = choose_class(logits.detach())
            return target

        with kept_feature_maps(
            *((teacher, self.network) if self.hp["representation_weight"] > 0 else ())
        ) as maps:
            theirs, wanted = explainer.with_logits(
                teacher, seen, choose, moves, moves and self.training
            )
            ours, logits = explainer.with_logits(
                self.network, batch.image, lambda _: target, True, self.training
            )
        theirs = theirs if meeting else theirs.detach()
        terms = {"explanation": LOSSES[self.hp["loss"]](*same_size(ours, theirs))}
        if self.hp["output_weight"] > 0:
            terms["outputs"] = self.hp["output_weight"] * softened_divergence(
                logits, wanted.detach(), 3.0
            )
        if self.hp["representation_weight"] > 0:
            apart = geometric_distance(*same_size(maps[1], maps[0].detach())).mean()
            terms["representations"] = self.hp["representation_weight"] * apart
        if moves:
            terms["teacher"] = self.hp["teacher_weight"] * F.cross_entropy(wanted, batch.label)
        return terms

    def objective(self, batch: Batch) -> torch.Tensor:
        with repeatable(batch):
            return self.loss(batch)["explanation"]

    def explainer(self, image: torch.Tensor) -> HeatmapExplainer:
        """The explainer of this step, the same for both networks; LRP's ε is drawn for each image."""
        options: dict[str, Any] = {
            "batch_statistics": "train" if self.hp["statistics"] == "train" else "constant"
        }
        if self.hp["explanation"] in ("gradcam", "attention"):
            options = {}
        if self.hp["explanation"] == "lrp":
            low, high = math.log(self.hp["epsilon_low"]), math.log(self.hp["epsilon_high"])
            options["epsilon"] = (
                torch.empty(len(image), device=image.device).uniform_(low, high).exp()
            )
        return get(self.hp["explanation"], **options)
