"""Toy algorithms that a test registers: with upstream runs, cycles, phases and failures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, TrainingRun, Upstream
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import HParam, Uniform
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS
from benchmark.core.spec import RunSpec
from benchmark.models.base import Backbone


def registered(*kinds: type[Algorithm]) -> AbstractContextManager[None]:
    """Register algorithms inside the block only, so that no other test sees them."""
    return ALGORITHMS.only_within(*kinds)


class Plain(Algorithm):
    """Cross-entropy."""

    name = "toy"
    network: Backbone

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"classification": F.cross_entropy(self.predict(batch.image), batch.label)}


class Student(Plain):
    """Learns from a teacher trained on the same data with another bias."""

    name = "toy_student"
    needs = Needs(teacher=True)
    hparams = {"weight": HParam(0.5, Uniform(0, 1), "weight of the teacher", low=0.0)}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"strong": {"weight": 2.0}}

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        return {"teacher": Upstream("erm", dataset_options={"bias": 0.5}, budget={"steps": 4})}

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        logits = self.predict(batch.image)
        with torch.no_grad():
            wanted = self.setting.upstream["teacher"].predict(batch.image)
        return {
            "classification": F.cross_entropy(logits, batch.label),
            "distillation": self.hp["weight"] * F.mse_loss(logits, wanted),
        }


class Pupil(Student):
    """Another student of a plain teacher: the run that a sweep asks for itself."""

    name = "toy_pupil"

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        return {"teacher": Upstream("erm")}


class Circle(Plain):
    """Needs itself."""

    name = "toy_circle"

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        return {"teacher": Upstream("toy_circle")}


class Choosy(Plain):
    """Refuses to run trial 0."""

    name = "toy_choosy"

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        return "the moon is in the wrong place." if spec.trial == 0 else None


class Undeclared(Plain):
    """A network that declares no capabilities."""

    name = "toy_undeclared"

    def __init__(self, setting: Any) -> None:
        super().__init__(setting)
        self.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(setting.num_classes))  # type: ignore[assignment]
        self.network(torch.zeros(1, *setting.image_size))


class Spy(Plain):
    """Keeps every batch that it sees."""

    name = "toy_spy"
    seen: ClassVar[list[Batch]] = []
    images: ClassVar[list[int]] = []

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.seen.append(batch)
        return super().loss(batch)

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.images.append(len(image))
        return super().predict(image)


class Accident(Plain):
    """Fails at step ``at`` in the way that ``how`` names."""

    name = "toy_accident"
    hparams = {"at": HParam(5), "how": HParam("nan")}

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        terms = {**super().loss(batch), "other": self.network.classifier.weight.sum() * 0}
        if self.current_step + 1 == self.hp["at"]:
            how = self.hp["how"]
            if how in ("nan", "inf"):
                terms["other"] = terms["other"] + float(how)
            elif how == "bug":
                raise KeyError("a bug in the method")
            elif how == "memory":
                raise MemoryError
            elif how == "huge":
                torch.empty(10**15)
            elif how == "device":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            elif how == "disk":
                raise OSError(28, "No space left on device")
        return terms

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        terms = super().step(batch)
        if self.current_step + 1 == self.hp["at"] and self.hp["how"] == "weights":
            with torch.no_grad():
                self.network.classifier.weight.fill_(float("nan"))
        return terms


class OwnLoop(Plain):
    """An own training loop with two phases: all layers, then the last layer alone."""

    name = "toy_own_loop"
    needs = Needs(val_groups=True)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            "all": torch.optim.SGD(self.network.parameters(), lr=self.hp["lr"], momentum=0.9),
            "last": torch.optim.Adam(self.network.classifier.parameters(), lr=self.hp["lr"]),
        }

    def fit(self, run: TrainingRun) -> None:
        self.counted = sum(len(batch) for batch in run.batches("train"))
        for batch in run.batches("val"):
            assert batch.group is not None and batch.mask is None
        for batch in run.steps():
            loss = F.cross_entropy(self.predict(batch.image), batch.label)
            self.minimise(loss, "all" if self.current_step < self.setting.steps // 2 else "last")
            run.log({"classification": loss})

    def report(self) -> dict[str, Any]:
        return {"counted": self.counted}
