"""Training with explanations alone: a student that learns from its teacher's heatmaps only."""

from __future__ import annotations

import math

import torch

from algorithms._student import STUDENT_HPARAMS, Student, repeatable, same_size, start_problem
from benchmark.core import BACKBONES, Batch, DatasetInfo, HParam, Paper, RunSpec
from benchmark.explain import get
from benchmark.explain.base import HeatmapExplainer, Trace
from benchmark.losses.heatmaps import choose_class, distances_by_size


def tea_loss(student_map: torch.Tensor, teacher_map: torch.Tensor) -> torch.Tensor:
    """Return the TEA loss (equation 2), a scalar.

    It is the distance of equation 1 between the maps at full size and average-pooled by 2, 4, …,
    averaged over sizes and images.

    Args:
        student_map: float[B,C,H,W].
        teacher_map: float[B,C,H,W].
    """
    return distances_by_size(student_map, teacher_map).mean()


class TEA(Student):
    """The method of the paper; ``tea_ablations.py`` registers it together with its ablations.

    For each image one class is chosen at random (section 4.3). LRP-ε explains this class in the
    teacher and in the student, and the student minimises the TEA loss between the two heatmaps.
    Labels are not used. The paper selects models by the lowest TEA loss on validation images:
    ``val_objective``.
    """

    name = "tea"
    title = "TEA"
    paper = Paper(
        title="Training with explanations alone: a new paradigm to prevent shortcut learning",
        authors="Bassi, Ali, Cavalli, Decherchi",
        year=2025,
        url="https://github.com/PedroRASB/TrainingWithExplanationsAlone",
    )
    hparams = {
        **STUDENT_HPARAMS,
        "freeze_last": HParam(True, doc=STUDENT_HPARAMS["freeze_last"].doc),
        "epsilon_low": HParam(
            1e-3, doc="lower end of LRP's ε, drawn log-uniformly for each image", low=1e-8, high=1e3
        ),
        "epsilon_high": HParam(1e-2, doc="upper end of LRP's ε", low=1e-8, high=1e3),
    }

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        if BACKBONES.get(spec.backbone).capabilities.lrp:
            return start_problem(spec)
        return f"{spec.backbone} cannot be explained by lrp; input_gradient works for all."

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        seen_by_teacher = self.seen_by_teacher(batch.image)
        explainer = self.explainer(batch.image)
        teacher = self.trace_teacher(explainer, seen_by_teacher)
        target = choose_class(teacher.logits.detach())
        teacher_map = teacher.heatmap(target)
        student = self.trace_student(explainer, batch.image)
        student_map = student.heatmap(target)
        return {
            "explanation": self.distance(*same_size(student_map, teacher_map)),
            **self.added_terms(batch, student, teacher),
        }

    def objective(self, batch: Batch) -> torch.Tensor:
        with repeatable(batch):
            return self.loss(batch)["explanation"]

    def explainer(self, image: torch.Tensor) -> HeatmapExplainer:
        """Return LRP with an ε for each image, which teacher and student share."""
        return get("lrp", epsilon=self.draw_epsilon(image))

    def draw_epsilon(self, image: torch.Tensor) -> torch.Tensor:
        """Draw ε log-uniformly for each image, float[B]."""
        low = math.log(self.hp["epsilon_low"])
        high = math.log(self.hp["epsilon_high"])
        return torch.empty(len(image), device=image.device).uniform_(low, high).exp()

    def trace_teacher(self, explainer: HeatmapExplainer, image: torch.Tensor) -> Trace:
        """Run the teacher's classifier, whose heatmap is a constant."""
        return explainer.trace(self.explained, image)

    def trace_student(self, explainer: HeatmapExplainer, image: torch.Tensor) -> Trace:
        """Run the student, whose heatmap is differentiated."""
        return explainer.trace(
            self.network, image, create_graph=True, track_statistics=self.training
        )

    def distance(self, student_map: torch.Tensor, teacher_map: torch.Tensor) -> torch.Tensor:
        """Return the distance that is minimised, a scalar: the TEA loss."""
        return tea_loss(student_map, teacher_map)

    def added_terms(self, batch: Batch, student: Trace, teacher: Trace) -> dict[str, torch.Tensor]:
        """Return further terms of the loss; the method itself has none."""
        return {}
