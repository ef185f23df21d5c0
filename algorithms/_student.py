"""What all students share: their teacher, the weights they start from, and what the two of them look at."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Setting, Upstream
from benchmark.core.batch import Batch
from benchmark.core.compilation import eagerly
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam, LogUniform
from benchmark.core.needs import Needs
from benchmark.core.seeds import seed_for
from benchmark.core.spec import RunSpec
from benchmark.losses.heatmaps import distances_by_size
from benchmark.models.base import Backbone

#: SGD with a clipped gradient, as the TEA paper trains every student.
STUDENT_HPARAMS = {
    "teacher": HParam(
        "segment_classify", choices=("segment_classify", "unbiased"),
        doc='who teaches: "segment_classify", or "unbiased": the standard classifier, on the same data at teacher_bias',
    ),
    "teacher_bias": HParam(0.1, doc='bias of the data that the "unbiased" teacher learns from', low=0.0, high=1.0),
    "teacher_variant": HParam("", choices=("", "tea_teacher"), doc='a variant of erm, for the "unbiased" teacher'),
    "teacher_backbone": HParam("", doc="the teacher's backbone, where it is not the student's"),
    "start": HParam(
        "teacher", choices=("teacher", "random", "transplant"),
        doc="first weights: the teacher's, random, or random with the teacher's last layer behind a 1×1 convolution",
    ),
    "freeze_last": HParam(False, doc="keep a last layer that comes from the teacher as it is"),
    "optimizer": HParam("sgd", choices=("adam", "adamw", "sgd"), doc="optimiser"),
    "lr": HParam(0.03, LogUniform(-2.5, -1), "learning rate", low=0.0, high=1e3,
                 large=HParam(1e-3, LogUniform(-4, -2), low=0.0, high=1e3)),
    "clip_norm": HParam(1.0, doc="bound on the norm of the gradient; 0 for none", low=0.0, high=1e9),
}  # fmt: skip


class Transplanted(Backbone):
    """A backbone whose last layer is another network's, behind a 1×1 convolution of its last feature map.

    Args:
        body: its own last layer is taken away.
        classifier: the other network's last layer.
    """

    name = "transplanted"

    def __init__(self, body: Backbone, classifier: nn.Linear) -> None:
        nn.Module.__init__(self)
        with torch.no_grad():
            channels = copy.deepcopy(body).feature_map(torch.zeros(2, *body.image_size)).shape[1]
        self.chosen, self.image_size, self.num_outputs = {}, body.image_size, body.num_outputs
        self.capabilities = replace(body.capabilities, cam="adapter")  # type: ignore[misc]
        self.body, self.dropout = body, body.dropout
        del body.classifier
        self.num_features = classifier.in_features
        self.adapter = nn.Conv2d(channels, self.num_features, 1)
        self.classifier = copy.deepcopy(classifier).cpu().requires_grad_(True)

    def stages(self, image: torch.Tensor) -> torch.Tensor:
        return self.adapter(self.body.feature_map(image))  # type: ignore[no-any-return]


class Student(Algorithm):
    """A method that learns from a teacher, which is trained before and never changes.

    The teacher is no module of the student: it is in no state_dict, no optimiser and no count of parameters, and no
    call of ``train`` reaches it.
    """

    needs = Needs(teacher=True)
    hparams = STUDENT_HPARAMS
    network: Backbone

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.teacher = (setting.upstream["teacher"],)  # a tuple, so that nn.Module does not see it
        original = self.explained
        if self.hp["start"] == "teacher":
            ours, theirs = self.network.state_dict(), original.state_dict()
            if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
                raise UserError(
                    f"{self.name} cannot start from its teacher's weights, since the two networks differ; use "
                    'start = "random" or "transplant".'
                )
            self.network.load_state_dict(theirs)
        elif self.hp["start"] == "transplant":
            self.network = Transplanted(self.network, original.classifier)
        if self.hp["freeze_last"] and self.hp["start"] != "random":
            self.network.classifier.requires_grad_(False)

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        backbone = spec.hparams["teacher_backbone"] or None
        if spec.hparams["teacher"] == "segment_classify":
            return {"teacher": Upstream("segment_classify", backbone=backbone)}
        options, variant = {"bias": spec.hparams["teacher_bias"]}, spec.hparams["teacher_variant"]
        return {"teacher": Upstream("erm", variant, backbone, dataset_options=options)}

    @property
    def explained(self) -> Any:
        """The teacher's classifier, a Backbone: what its heatmaps explain."""
        return getattr(self.teacher[0], "explained", self.teacher[0].network)

    def seen_by_teacher(self, image: torch.Tensor) -> torch.Tensor:
        """What the teacher's classifier gets of the images float[B,C,H,W]: another background, or the same images."""
        return self.teacher[0].explainable(image)[1]

    def explanation_distance(
        self,
        heatmap: torch.Tensor,
        explain: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        image: torch.Tensor,
    ) -> torch.Tensor:
        theirs = explain(*self.teacher[0].explainable(image))
        return distances_by_size(*same_size(heatmap, theirs)).mean(
            0
        )  # TEA, equation 2, for each image


@contextmanager
def kept_feature_maps(*networks: Backbone) -> Iterator[list[torch.Tensor]]:
    """A list that receives the last feature map of each pass that these networks make meanwhile, uncompiled."""
    maps: list[torch.Tensor] = []
    with eagerly(), ExitStack() as hooks:
        for network in networks:
            handle = network.cam_module().register_forward_hook(
                lambda module, args, output, network=network: maps.append(network.cam_map(output))
            )
            hooks.callback(handle.remove)
        yield maps


@contextmanager
def repeatable(batch: Batch) -> Iterator[None]:
    """Random draws that depend on the batch alone, so that evaluations can be compared; afterwards as if none were."""
    devices = [batch.image.device] if batch.image.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed_for("objective", int(batch.index[0])))
        yield


def same_size(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps at the height and width of the smaller one."""
    if one.shape == other.shape:
        return one, other
    side = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return F.adaptive_avg_pool2d(one, side), F.adaptive_avg_pool2d(other, side)
