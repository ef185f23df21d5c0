"""The base of every training method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import nn

from benchmark.core.batch import Batch
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.optim import COMMON_HPARAMS, lr_factor, make_optimizer, set_lr
from benchmark.core.registry import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmark.core.dataset import DatasetInfo
    from benchmark.core.spec import RunSpec


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    year: int
    url: str = ""

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}), {self.title}"


@dataclass(frozen=True)
class Upstream:
    """A run that must come first: a teacher, a biased model.

    Data and backbone are those of the run that asks, unless changed here; hyper-parameters and budget are those
    that the sweep gives the method, so that a teacher which is a row of the table too is trained once.

    Args:
        algorithm, variant: the method to run.
        backbone: another backbone, or None for the same one.
        dataset_options: data-set options that differ, such as ``{"bias": 0.1}``.
        hparams: hyper-parameters that differ from the method's defaults.
        budget: parts of the budget that differ, such as ``{"steps": 200}``.
        same_draw: whether it is of the same draw as the asking run, a first stage of it; else all draws share one.
    """

    algorithm: str
    variant: str = ""
    backbone: str | None = None
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    hparams: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, Any] = field(default_factory=dict)
    same_draw: bool = False


@dataclass(frozen=True)
class Setting:
    """What an algorithm is built for.

    Args:
        num_classes, num_confounders, num_environments: sizes of the label sets; a group is (label, confounder).
        image_size: (C, H, W).
        hparams: resolved hyper-parameters.
        steps: the budget.
        build_network: makes one fresh backbone: ``features``, ``feature_map``, ``classifier``, and a call for logits.
            Takes another number of outputs and, in keywords, whatever the backbone declares.
        upstream: the algorithms of the runs that came first, by role, trained and in evaluation mode.
        autocast: makes the context in which a forward pass runs.
    """

    num_classes: int
    num_confounders: int
    num_environments: int
    image_size: tuple[int, int, int]
    hparams: Mapping[str, Any]
    steps: int
    build_network: Callable[..., nn.Module]
    upstream: Mapping[str, Algorithm] = field(default_factory=dict)
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def num_groups(self) -> int:
        return self.num_classes * self.num_confounders


class TrainingRun(Protocol):
    """What ``fit`` is given: the run's budget, data, evaluation and checkpoints."""

    def steps(self) -> Iterator[Batch]:
        """The batches, stripped, until the budget ends; between two of them it evaluates and saves where due."""

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        """Record the terms of the step just made."""

    def batches(self, split: str) -> Iterator[Batch]:
        """Every image of ``train`` or ``val`` once, in order, unaugmented, stripped of what was not declared."""


class Algorithm(nn.Module):
    """A training method. Override the least that fits: ``loss``, else ``step``, else ``fit``.

    Class attributes (the declaration, read before anything runs):
        name: the registry name.
        paper: where it comes from.
        needs: the annotations it uses; every other optional field of a batch is None.
        sampling: ``"random"``, ``"group"`` (uniform over non-empty groups) or ``"environment"`` (equal shares).
        hparams: its own hyper-parameters, on top of ``COMMON_HPARAMS``.
        variants: named sets of hyper-parameters: ablations are variants, not subclasses.
        multi_label: whether it learns from labels float[B,K] of 0 and 1 too; the plan refuses such data otherwise.
        explained_by: Name of the explainer of trained models; if empty, the first that suits the
            network is used.
        may_be_zero: names of the terms that are rightly 0 at times, such as a penalty between groups of which a batch
            holds but one; any other term that is 0 from the start, or moves no parameter, is reported.

    Instance attributes: ``network`` (the model that predicts), ``hp`` (hyper-parameters), ``setting``,
    ``current_step`` (set by the engine before each step, right after a resume too) and ``optimizers``.
    Whatever must survive a resume is a parameter, a buffer, or the state of an optimiser in ``optimizers``.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[Paper | None] = None
    needs: ClassVar[Needs] = Needs()
    sampling: ClassVar[str] = "random"
    hparams: ClassVar[Mapping[str, HParam]] = {}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    multi_label: ClassVar[bool] = False
    explained_by: ClassVar[str] = ""
    may_be_zero: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.hp = setting.hparams
        self.current_step = 0
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.minimised: set[str] = set()  # names of the terms that were part of a loss so far
        self.network = setting.build_network(dropout=self.hp.get("dropout", 0.0))

    @classmethod
    def all_hparams(cls, side: int) -> dict[str, HParam]:
        """Every hyper-parameter of the method for images of ``side`` pixels, shared ones first."""
        return {name: h.at(side) for name, h in {**COMMON_HPARAMS, **cls.hparams}.items()}

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        """The runs that must come before this one, by role; none by default."""
        return {}

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        """Why the method cannot run as ``spec`` says on this data, in one sentence, or None; needs are checked too."""
        return None

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        """The fewest images that a batch of training may hold; override it where the sweep's backbone is not all.

        It is 2 where batch normalisation sees one value per channel of each image, of which there is no variance.
        """
        kind = BACKBONES.get(spec.backbone)
        return int(kind.fewest_rows(info.image_size, spec.backbone_options))

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """The first step, counted from 0, that trains what the method's name says; 0 by default.

        Override it where training begins with something else: a penalty that starts late, a warm-up, a network that
        is trained before the one that predicts. A model after this many steps or fewer is not the method's. No
        criterion selects it unless the sweep asks for that, and tables then mark the row.

        Args:
            hparams: resolved hyper-parameters.
            budget: ``steps``, ``evaluate_every`` and so on of the run.
        """
        return 0

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimisers, by name; called once the algorithm is on its device."""
        return {"main": make_optimizer(self.parameters(), self.hp)}

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        """Logits float[B,K] of normalised images float[B,C,H,W]."""
        return self.network(image)  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The named terms of the loss, weights included; their sum is minimised and each is logged."""
        raise NotImplementedError(f"{type(self).__name__} overrides none of loss, step and fit.")

    def total_loss(self, batch: Batch) -> torch.Tensor:
        """Return the sum of the terms of ``loss``, a scalar."""
        return sum(self.loss(batch).values())  # type: ignore[return-value]

    def objective(self, batch: Batch) -> torch.Tensor:
        """Return what ``val_objective`` selects by, a scalar; lower is better.

        It is a mean over a batch of validation images. A method that declares it makes that
        criterion available, usually by ``objective = Algorithm.total_loss``. Gradients are enabled
        while it runs, and the mode is evaluation.

        Raises:
            NotImplementedError: the method declares none.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no objective for validation.")

    def explainable(self, image: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
        """The network that a heatmap of this method explains, and what that network sees of the images."""
        return self.network, image

    def explanation_distance(
        self,
        heatmap: torch.Tensor,
        explain: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        image: torch.Tensor,
    ) -> torch.Tensor | None:
        """How far heatmaps of the network are from the teacher's, float[B]; None for a method without teacher.

        Args:
            heatmap: float[B,C,H,W] (or [B,1,h,w]) of ``explainable(image)``.
            explain: makes such a map of another network, for the same classes.
            image: float[B,C,H,W].
        """
        return None

    def report(self) -> dict[str, Any]:
        """What the method wants on record when it is trained, JSON-able; shown in the run's page."""
        return {}

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        """One training step; returns the terms to log."""
        with self.setting.autocast():
            terms = self.loss(batch)
        self.minimise(terms, "main")
        return terms

    def fit(self, run: TrainingRun) -> None:
        """The training loop."""
        for batch in run.steps():
            run.log(self.step(batch))

    def minimise(self, loss: torch.Tensor | Mapping[str, torch.Tensor], optimizer: str) -> None:
        """One backward pass and one step of the named optimiser, with the gradient's norm bounded by ``clip_norm``.

        Args:
            loss: a scalar, or named terms whose sum is minimised; the engine sees to it that each of them moves
                something.
            optimizer: name of one of ``optimizers``.
        """
        if isinstance(loss, Mapping):
            self.minimised.update(loss)
            total: torch.Tensor = sum(loss.values())  # type: ignore[assignment]
        else:
            total = loss
        chosen = self.optimizers[optimizer]
        chosen.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if self.hp["clip_norm"] > 0:
            moved = [p for group in chosen.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(moved, self.hp["clip_norm"])
        chosen.step()

    def rebuild_optimizers(self) -> None:
        """Forget the optimisers' moments, as methods do whose loss changes its scale on the way (IRM)."""
        self.optimizers = self.make_optimizers()
        for optimizer in (
            self.optimizers.values()
        ):  # new ones start at the initial rate, wherever the schedule is
            set_lr(optimizer, lr_factor(self.hp, self.current_step, self.setting.steps))
