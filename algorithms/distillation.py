"""Distillation of outputs, representations or Grad-CAM heatmaps from a teacher."""

from __future__ import annotations

import torch

from algorithms._student import STUDENT_HPARAMS, Student, repeatable, same_size, start_problem
from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    Batch,
    Choice,
    DatasetInfo,
    HParam,
    LogUniform,
    Paper,
    RunSpec,
)
from benchmark.explain import get
from benchmark.losses.heatmaps import cosine_distance, geometric_distance
from benchmark.losses.outputs import softened_divergence
from benchmark.models.base import Backbone

TEMPERATURE = {
    "temperature": HParam(
        3.0, Choice((1.0, 3.0, 5.0, 10.0)), "T, softens both softmaxes", low=0.1, high=1e3
    )
}


class Distillation(Student):
    """A student whose validation objective is its whole loss, with repeatable random draws."""

    variants = {
        "random_start": {"start": "random"},
        "transplant": {"start": "transplant"},
        "unbiased_teacher": {"teacher": "unbiased"},
        "coloured_mnist": {"teacher": "unbiased", "start": "random"},
    }

    def objective(self, batch: Batch) -> torch.Tensor:
        with repeatable(batch):
            return self.total_loss(batch)


@ALGORITHMS.register
class DistillOutputs(Distillation):
    """T² · KL(teacher ‖ student) of the softened softmax outputs; the label is not used."""

    name = "distill_outputs"
    title = "Distillation (outputs)"
    paper = Paper(
        title="Distilling the knowledge in a neural network",
        authors="Hinton, Vinyals, Dean",
        year=2015,
        url="https://arxiv.org/abs/1503.02531",
    )
    hparams = {**STUDENT_HPARAMS, **TEMPERATURE}

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            teacher_logits = self.explained(self.seen_by_teacher(batch.image))
        logits = self.predict(batch.image)
        return {"outputs": softened_divergence(logits, teacher_logits, self.hp["temperature"])}


@ALGORITHMS.register
class DistillRepresentations(Distillation):
    """Distance between the last feature maps of student and teacher (TEA paper, equation 1).

    The student keeps the teacher's last layer unchanged, so that equal representations give equal
    outputs and no loss of the outputs is needed.
    """

    name = "distill_representations"
    title = "Distillation (features)"
    paper = Paper(
        title="Debiased distillation by transplanting the last layer",
        authors="Lee, Lee",
        year=2023,
        url="https://arxiv.org/abs/2302.11187",
    )
    hparams = {
        **STUDENT_HPARAMS,
        "freeze_last": HParam(True, doc=STUDENT_HPARAMS["freeze_last"].doc),
    }
    variants = {k: v for k, v in Distillation.variants.items() if v.get("start") != "random"}

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        if spec.hparams["start"] != "random":
            return start_problem(spec)
        return (
            "a student with random first weights does not have the teacher's last layer; use "
            'start = "transplant".'
        )

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            teacher_map = self.explained.feature_map(self.seen_by_teacher(batch.image))
        student_map = self.network.feature_map(batch.image)
        distance = geometric_distance(*same_size(student_map, teacher_map)).mean()
        return {"representations": distance}


@ALGORITHMS.register
class DistillGradCAM(Distillation):
    """Explanation-enhanced distillation (e²KD): output distillation + 1 − cosine of Grad-CAM maps.

    The maps of student and teacher explain the class that the teacher predicts.
    """

    name = "distill_gradcam"
    title = "Distillation (Grad-CAM)"
    paper = Paper(
        title="Good teachers explain: explanation-enhanced knowledge distillation",
        authors="Parchami-Araghi, Böhle, Rao, Schiele",
        year=2024,
        url="https://arxiv.org/abs/2402.03119",
    )
    hparams = {
        **STUDENT_HPARAMS,
        **TEMPERATURE,
        "heatmap_weight": HParam(
            1.0, LogUniform(-1, 1), "weight of 1 − cosine of the heatmaps", low=0.0, high=1e9
        ),
        "output_weight": HParam(
            0.1, LogUniform(-2, 0), "weight of the output distillation", low=0.0, high=1e9
        ),
    }
    variants = {
        **{k: v for k, v in Distillation.variants.items() if k != "coloured_mnist"},
        "coloured_mnist": {**Distillation.variants["coloured_mnist"], "output_weight": 1.0},
    }

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        problem = start_problem(spec)
        if problem is not None:
            return problem
        backbone: type[Backbone] = BACKBONES.get(spec.backbone)
        if spec.variant == "coloured_mnist" and backbone.capabilities.cam:
            return None  # the paper's maps of 28 pixels are one cell, and the outputs alone teach
        return backbone.cam_problem(info.image_size, spec.backbone_options)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        seen_by_teacher = self.seen_by_teacher(batch.image)
        gradcam = get("gradcam")
        teacher = gradcam.trace(self.explained, seen_by_teacher)
        target = teacher.logits.argmax(1)
        teacher_map = teacher.heatmap(target)
        student = gradcam.trace(
            self.network, batch.image, create_graph=True, track_statistics=self.training
        )
        student_map = student.heatmap(target)
        distance = cosine_distance(*same_size(student_map, teacher_map)).mean()
        divergence = softened_divergence(
            student.logits, teacher.logits.detach(), self.hp["temperature"]
        )
        return {
            "heatmaps": self.hp["heatmap_weight"] * distance,
            "outputs": self.hp["output_weight"] * divergence,
        }
