"""Distillation: the student answers, represents or attends as its teacher does."""

from __future__ import annotations

import torch

from algorithms._student import STUDENT_HPARAMS, Student, repeatable, same_size
from benchmark.core.algorithm import Paper
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import Choice, HParam, LogUniform
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.spec import RunSpec
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
    """A student whose validation objective is its whole loss, on repeatable noise."""

    variants = {
        "random_start": {"start": "random"},
        "transplant": {"start": "transplant"},
        "unbiased_teacher": {"teacher": "unbiased"},
        "coloured_mnist": {"teacher": "unbiased", "start": "random"},
    }

    def objective(self, batch: Batch) -> torch.Tensor:
        with repeatable(batch):
            return sum(self.loss(batch).values())  # type: ignore[return-value]


@ALGORITHMS.register
class DistillOutputs(Distillation):
    """T² · KL(teacher ‖ student) of the softened softmaxes; the label is not used."""

    name = "distill_outputs"
    paper = Paper(
        "Distilling the knowledge in a neural network",
        "Hinton, Vinyals, Dean",
        2015,
        "https://arxiv.org/abs/1503.02531",
    )
    hparams = {**STUDENT_HPARAMS, **TEMPERATURE}

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            wanted = self.explained(self.seen_by_teacher(batch.image))
        return {
            "outputs": softened_divergence(
                self.predict(batch.image), wanted, self.hp["temperature"]
            )
        }


@ALGORITHMS.register
class DistillRepresentations(Distillation):
    """The distance of equation 1 of the TEA paper between the last feature maps, under the teacher's frozen last layer.

    With a last layer that is the teacher's and does not move, answers follow from representations, and no loss of
    theirs is needed.
    """

    name = "distill_representations"
    paper = Paper("Debiased distillation by transplanting the last layer", "Lee, Lee", 2023,
                  "https://arxiv.org/abs/2302.11187")  # fmt: skip
    hparams = {
        **STUDENT_HPARAMS,
        "freeze_last": HParam(True, doc=STUDENT_HPARAMS["freeze_last"].doc),
    }
    variants = {k: v for k, v in Distillation.variants.items() if v.get("start") != "random"}

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        if spec.hparams["start"] != "random":
            return None
        return 'a student that starts at random has not the teacher\'s last layer; use start = "transplant".'

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            wanted = self.explained.feature_map(self.seen_by_teacher(batch.image))
        found = self.network.feature_map(batch.image)
        return {"representations": geometric_distance(*same_size(found, wanted)).mean()}


@ALGORITHMS.register
class DistillGradCAM(Distillation):
    """Explanation-enhanced distillation (e²KD): outputs, and the cosine of Grad-CAM maps of the teacher's top class."""

    name = "distill_gradcam"
    paper = Paper(
        "Good teachers explain: explanation-enhanced knowledge distillation", "Parchami-Araghi, Böhle, Rao, Schiele",
        2024, "https://arxiv.org/abs/2402.03119",
    )  # fmt: skip
    hparams = {
        **STUDENT_HPARAMS, **TEMPERATURE,
        "heatmap_weight": HParam(1.0, LogUniform(-1, 1), "weight of 1 − cosine of the heatmaps", low=0.0, high=1e9),
        "output_weight": HParam(0.1, LogUniform(-2, 0), "weight of the output distillation", low=0.0, high=1e9),
    }  # fmt: skip
    variants = {
        **{k: v for k, v in Distillation.variants.items() if k != "coloured_mnist"},
        "coloured_mnist": {**Distillation.variants["coloured_mnist"], "output_weight": 1.0},
    }

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        backbone: type[Backbone] = BACKBONES.get(spec.backbone)
        if spec.variant == "coloured_mnist" and backbone.capabilities.cam:
            return None  # the paper's maps of 28 pixels are one cell, and the outputs alone teach
        return backbone.cam_problem(info.image_size, spec.backbone_options)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        seen, cam = self.seen_by_teacher(batch.image), get("gradcam")
        theirs, wanted = cam.with_logits(self.explained, seen, lambda logits: logits.argmax(1))
        top = wanted.argmax(1)
        ours, logits = cam.with_logits(
            self.network, batch.image, lambda _: top, True, self.training
        )
        return {
            "heatmaps": self.hp["heatmap_weight"]
            * cosine_distance(*same_size(ours, theirs)).mean(),
            "outputs": self.hp["output_weight"]
            * softened_divergence(logits, wanted, self.hp["temperature"]),
        }
