"""Base class of students: their teacher, their first weights, and the images that each sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from benchmark.core import (
    Algorithm,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    RunSpec,
    Setting,
    Upstream,
    UserError,
    seed_for,
)
from benchmark.core.named_options import parse_backbone
from benchmark.core.speed.seeding import seed_generators
from benchmark.losses.heatmaps import average_pool, distances_by_size
from benchmark.models.base import Backbone
from benchmark.models.transplanted import Transplanted

#: SGD with a clipped gradient, as the TEA paper trains every student.
STUDENT_HPARAMS = {
    "teacher": HParam(
        "segment_classify",
        choices=("segment_classify", "unbiased", "zero_shot_clip"),
        doc='the teacher: "segment_classify"; "unbiased", a standard classifier trained on the '
        'same data at teacher_bias; or "zero_shot_clip"',
    ),
    "teacher_bias": HParam(
        0.1, doc='bias of the data of the "unbiased" teacher', low=0.0, high=1.0
    ),
    "teacher_variant": HParam(
        "", choices=("", "tea_teacher"), doc='variant of erm for the "unbiased" teacher'
    ),
    "teacher_backbone": HParam("", doc="backbone of the teacher; empty: the student's"),
    "start": HParam(
        "teacher",
        choices=("teacher", "random", "transplant"),
        doc="first weights: the teacher's, random, or random with the teacher's last layer behind "
        "a 1×1 convolution",
    ),
    "freeze_last": HParam(False, doc="do not train a last layer that comes from the teacher"),
    "optimizer": HParam("sgd", choices=("adam", "adamw", "sgd"), doc="optimiser"),
    "lr": HParam(
        0.03,
        LogUniform(-2.5, -1),
        "learning rate",
        low=0.0,
        high=1e3,
        large=HParam(1e-3, LogUniform(-4, -2), low=0.0, high=1e3),
    ),
    "clip_norm": HParam(
        1.0, doc="bound on the norm of the gradient; 0 for none", low=0.0, high=1e9
    ),
}


class Student(Algorithm):
    """A method that learns from a teacher, which is trained before and never changes.

    The teacher is not a submodule of the student: it is in no state_dict, no optimiser and no count
    of parameters, and ``train()`` does not reach it.
    """

    needs = Needs(teacher=True)
    hparams = STUDENT_HPARAMS
    network: Backbone

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        # a tuple, so that nn.Module does not register the teacher as a submodule
        self.teacher = (setting.upstream["teacher"],)
        original = self.explained
        if self.hp["start"] == "teacher":
            student_state = self.network.state_dict()
            teacher_state = original.state_dict()
            if _shapes(student_state) != _shapes(teacher_state):
                raise UserError(
                    f"{self.name} cannot start from its teacher's weights, since the two networks "
                    'differ; use start = "random" or "transplant".'
                )
            self.network.load_state_dict(teacher_state)
        elif self.hp["start"] == "transplant":
            self.network = Transplanted(self.network, original.classifier)
        if self.hp["freeze_last"] and self.hp["start"] != "random":
            self.network.classifier.requires_grad_(False)

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return start_problem(spec)

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        if spec.hparams["teacher"] == "zero_shot_clip":
            return {"teacher": Upstream("zero_shot_clip")}
        backbone = spec.hparams["teacher_backbone"] or None
        if spec.hparams["teacher"] == "segment_classify":
            return {"teacher": Upstream("segment_classify", backbone=backbone)}
        return {
            "teacher": Upstream(
                "erm",
                variant=spec.hparams["teacher_variant"],
                backbone=backbone,
                dataset_options={"bias": spec.hparams["teacher_bias"]},
            )
        }

    @property
    def explained(self) -> Any:
        """The teacher's classifier, a Backbone: the network that the teacher's heatmaps explain."""
        return getattr(self.teacher[0], "explained", self.teacher[0].network)

    def seen_by_teacher(self, image: torch.Tensor) -> torch.Tensor:
        """Return the input of the teacher's classifier for images float[B,C,H,W].

        The images have their background replaced, or are unchanged, depending on the teacher.
        """
        return self.teacher[0].explainable(image)[1]

    def explanation_distance(
        self,
        heatmap: torch.Tensor,
        explain: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        image: torch.Tensor,
    ) -> torch.Tensor:
        """Return the TEA loss (equation 2) of each image, float[B]."""
        teacher_map = explain(*self.teacher[0].explainable(image))
        return distances_by_size(*same_size(heatmap, teacher_map)).mean(0)


def start_problem(spec: RunSpec) -> str | None:
    """Return why the student cannot start from its teacher, or None; a sentence for the user."""
    if spec.hparams["teacher"] == "zero_shot_clip" and spec.hparams["start"] == "teacher":
        return (
            "CLIP is another network than the student, which cannot start from its weights; use "
            'start = "random" or "transplant".'
        )
    if spec.hparams["start"] == "teacher" and has_other_teacher(spec):
        return (
            f"{spec.backbone} cannot start from the weights of its teacher, which is "
            f'{spec.hparams["teacher_backbone"]}; use start = "random" or "transplant".'
        )
    return None


def has_other_teacher(spec: RunSpec) -> bool:
    """Return True if the teacher's network is of another kind than the student's."""
    if spec.hparams["teacher"] == "zero_shot_clip":
        return True
    backbone = spec.hparams["teacher_backbone"]
    return bool(backbone) and parse_backbone(backbone).name != spec.backbone


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


@contextmanager
def repeatable(batch: Batch) -> Iterator[None]:
    """Seed random draws by the batch alone, so that evaluations can be compared.

    The state of the generators is restored afterwards.
    """
    devices = [batch.image.device] if batch.image.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        seed_generators(seed_for("objective", int(batch.index[0])))
        yield


def same_size(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average-pool two maps float[B,C,h,w] to the height and the width of the smaller one."""
    if one.shape == other.shape:
        return one, other
    side = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return average_pool(one, side), average_pool(other, side)
