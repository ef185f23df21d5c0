"""Base class of the training methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import torch
from torch import nn

from benchmark.core.batch import Batch
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.optim import COMMON_HPARAMS, lr_factor, make_optimizer, set_lr
from benchmark.core.registry import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from benchmark.core.dataset import DatasetInfo
    from benchmark.core.spec import RunSpec


@dataclass(frozen=True)
class Paper:
    """The publication of a method.

    Args:
        title: Title of the paper.
        authors: Authors, as a citation names them.
        year: Year of publication.
        url: Address of the paper, or empty.
    """

    title: str
    authors: str
    year: int
    url: str = ""

    def __str__(self) -> str:
        return f"{self.authors} ({self.year}), {self.title}"


@dataclass(frozen=True)
class Upstream:
    """A run that must be finished before another one, such as a teacher or a biased model.

    Data and backbone are those of the run that needs it, unless they are changed here.
    Hyper-parameters and budget are those that the sweep gives to the method. A teacher that is also
    a row of the table is therefore trained only once.

    Args:
        algorithm: Algorithm of the upstream run.
        variant: Variant of the algorithm; empty for none.
        backbone: Another backbone, or None for the same one.
        dataset_options: Data-set options that differ, such as ``{"bias": 0.1}``.
        hparams: Hyper-parameters that differ from the defaults of the method.
        budget: Parts of the budget that differ, such as ``{"steps": 200}``.
        same_draw: True for a first stage, which has the hyper-parameter draw of the run that needs
            it. By default, one upstream run with the default draw serves all draws.
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
    """Everything that an algorithm is constructed with.

    Args:
        num_classes: Number of classes.
        num_confounders: Number of confounders. A group is a pair (label, confounder).
        num_environments: Number of training environments.
        image_size: (C, H, W).
        hparams: Resolved hyper-parameters.
        steps: Number of training steps in the budget.
        build_network: Builds a new backbone, which has ``features``, ``feature_map`` and
            ``classifier``, and returns logits when called. It accepts another number of outputs
            and, as keywords, the options of the backbone.
        mean: Mean of each channel for pixel values in [0, 1], which normalisation subtracts.
        std: Standard deviation of each channel, by which it divides.
        upstream: The algorithms of the upstream runs by role, trained and in evaluation mode.
        autocast: Returns the context in which a forward pass runs.
        label_names: Names of the classes.
    """

    num_classes: int
    num_confounders: int
    num_environments: int
    image_size: tuple[int, int, int]
    hparams: Mapping[str, Any]
    steps: int
    build_network: Callable[..., nn.Module]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    upstream: Mapping[str, Algorithm] = field(default_factory=dict)
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    label_names: tuple[str, ...] = ()

    @property
    def num_groups(self) -> int:
        """Number of groups, ``num_classes * num_confounders``."""
        return self.num_classes * self.num_confounders


class Draw(NamedTuple):
    """The batch of a step, for methods whose ``sampling`` is ``"one_vs_rest"``.

    Attributes:
        stream: Name of a stream of images.
        position: Number of earlier steps that read it.
        annotated: True if the images of the class are those with a mask of its evidence. It has no
            effect for a class of which no image has one.
    """

    stream: str
    position: int
    annotated: bool = False


class TrainingRun(Protocol):
    """The interface that ``Algorithm.fit`` receives: budget, data and log of a run."""

    def steps(self) -> Iterator[Batch]:
        """Yield training batches until the budget ends.

        Each batch has only the annotations that the algorithm declared. Evaluations and checkpoints
        take place between two batches.
        """

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        """Record the terms of the last step."""

    def batches(self, split: str) -> Iterator[Batch]:
        """Yield every image of ``train`` or ``val`` once, in order and without augmentation.

        Each batch has only the annotations that the algorithm declared.
        """

    def class_mask_counts(self) -> torch.Tensor:
        """Return how many training images have each pixel in the mask of each class, int64[K,H,W].

        Raises:
            ValueError: If the algorithm did not declare that it needs class masks.
        """


class Algorithm(nn.Module):
    """Base class of the training methods.

    A subclass overrides one of ``loss``, ``step`` and ``fit``: the first one that suffices.

    Class attributes:
        name: Name in the registry.
        title: Title in tables and figures, such as ``GroupDRO``; by default the name. A subclass
            does not inherit it.
        paper: Publication of the method.
        needs: Annotations that the method uses. All other optional fields of a batch are None.
        sampling: ``"random"``, ``"group"`` (uniform over non-empty groups) or ``"environment"``
            (equal shares of every batch).
        hparams: Hyper-parameters of the method, in addition to ``COMMON_HPARAMS``.
        variants: Named sets of hyper-parameters. Ablations are variants, not subclasses.
        variant_titles: Titles of variants in tables and figures, as in ``eX2L (MAE)``; by default
            the name of the variant, with spaces.
        multi_label: True if the method accepts labels float[B,K] of 0 and 1. Otherwise planning
            refuses multi-label data.
        explained_hparam: Name of the hyper-parameter that names the explained method, for a method
            that trains an explainer of another one. A sweep may then list it as an explainer.
        own_selection: Criteria that select the step of the method unless an override names others,
            for a method whose predictions do not show what it learns. By default those of the
            sweep.
        may_be_zero: Names of loss terms that may be 0, such as a penalty between groups when a
            batch has only one group. Any other term is reported if it is 0 from the start or
            changes no parameter.

    Attributes:
        network: The model that predicts.
        hp: Hyper-parameters.
        setting: What the algorithm was constructed with.
        current_step: Number of the current step; the engine sets it before each step, also after
            a resume.
        optimizers: Optimizers by name. All state that must survive a resume is a parameter, a
            buffer, or the state of one of these optimizers.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[Paper | None] = None
    needs: ClassVar[Needs] = Needs()
    sampling: ClassVar[str] = "random"
    hparams: ClassVar[Mapping[str, HParam]] = {}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    variant_titles: ClassVar[Mapping[str, str]] = {}
    multi_label: ClassVar[bool] = False
    explained_by: ClassVar[str] = ""
    explained_hparam: ClassVar[str] = ""
    own_selection: ClassVar[tuple[str, ...]] = ()
    may_be_zero: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting
        self.hp = setting.hparams
        self.current_step = 0
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        #: Names of the terms that have been part of a loss so far.
        self.minimised: set[str] = set()
        self.network = setting.build_network(dropout=self.hp.get("dropout", 0.0))

    @classmethod
    def all_hparams(cls, side: int) -> dict[str, HParam]:
        """Return all hyper-parameters for images of ``side`` pixels, shared ones first."""
        declared = {**COMMON_HPARAMS, **cls.hparams}
        return {name: hparam.at(side) for name, hparam in declared.items()}

    @classmethod
    def with_omitted(cls, hparams: Mapping[str, Any], side: int) -> dict[str, Any]:
        """Return the hyper-parameters of a spec, with the defaults that specs leave out.

        Args:
            hparams: Hyper-parameters of a spec.
            side: Side of the images, in pixels.
        """
        declared = cls.all_hparams(side).items()
        return {**{n: h.default for n, h in declared if h.omit_default}, **hparams}

    @classmethod
    def upstream(cls, spec: RunSpec) -> dict[str, Upstream]:
        """Return the runs that must be finished before this one, by role. The default is none."""
        return {}

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        """Return a sentence that explains why the method cannot run on this data, or None.

        Missing annotations need not be checked here.
        """
        return None

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        """Return the smallest number of images that a training batch may have.

        It is 2 if batch normalisation sees a single value per channel and image, since one value
        has no variance. Override it if the method trains more networks than the backbone.
        """
        kind = BACKBONES.get(spec.backbone)
        return int(kind.fewest_rows(info.image_size, spec.backbone_options))

    @classmethod
    def without_files(cls, hparams: Mapping[str, Any]) -> dict[str, Any]:
        """Return hyper-parameters of a run of the same cost that needs no file and no download.

        They serve to time the method with random weights. Override it if the method reads files
        that its hyper-parameters name.

        Args:
            hparams: Resolved hyper-parameters.
        """
        return dict(hparams)

    @classmethod
    def active_from(cls, hparams: Mapping[str, Any], budget: Mapping[str, Any]) -> int:
        """Return the first step, counted from 0, that trains what the method is named after.

        Override it if training begins with something else: a penalty that starts late, a warm-up,
        or another network that is trained first. After this many steps or fewer, the model is not
        yet a model of this method. No criterion selects it unless the sweep asks for that, and
        tables then mark the row.

        Args:
            hparams: Resolved hyper-parameters.
            budget: ``steps``, ``evaluate_every`` and the other entries of the budget.
        """
        return 0

    def training_rows(self, label: np.ndarray, trial: int) -> np.ndarray | None:
        """Return the training images that the method uses, or None for all of them, the default.

        Batches are drawn from these images only. Override it for a method that needs the annotation
        of few images.

        Args:
            label: int64[N] or float[N,K], labels of the training split.
            trial: number of the trial, from which a random choice must be drawn.

        Returns:
            int64[n] in increasing order, or None.
        """
        return None

    def draw(self, step: int) -> Draw:
        """Return the stream and the position of the batch of a step.

        For methods whose ``sampling`` is ``"one_vs_rest"``: half of a batch has a class, the other
        half does not. The class is the position modulo the number of classes.

        Args:
            step: number of the step, from 0.
        """
        return Draw("train", step)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by name. Called when the algorithm is on its device."""
        return {"main": make_optimizer(self.parameters(), self.hp)}

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits float[B,K] of normalised images float[B,C,H,W]."""
        return self.network(image)  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return the weighted terms of the loss by name. Their sum is minimised; each is logged."""
        raise NotImplementedError(f"{type(self).__name__} overrides none of loss, step and fit.")

    def total_loss(self, batch: Batch) -> torch.Tensor:
        """Return the sum of the terms of ``loss``, a scalar."""
        return sum(self.loss(batch).values())  # type: ignore[return-value]

    def objective(self, batch: Batch) -> torch.Tensor:
        """Return the value that ``val_objective`` selects by, a scalar; lower is better.

        It is the mean over a batch of validation images. A method that overrides it makes that
        criterion available, usually by ``objective = Algorithm.total_loss``. It is called in
        evaluation mode, with gradients enabled.

        Raises:
            NotImplementedError: If the method does not override it.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no objective for validation.")

    def explainable(self, image: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
        """Return the network that heatmaps of this method explain, and the input for it."""
        return self.network, image

    def global_explanations(self) -> dict[str, torch.Tensor]:
        """Return explanations of whole classes, for models that contain such explanations.

        Returns:
            float[K,C,H,W] for each name: what the model associates with each class, whatever the
            image. The first one is measured. The default is nothing.
        """
        return {}

    def explanation_distance(
        self,
        heatmap: torch.Tensor,
        explain: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        image: torch.Tensor,
    ) -> torch.Tensor | None:
        """Return the distance between the heatmaps of the network and of its teacher.

        Args:
            heatmap: float[B,C,H,W] or float[B,1,h,w], heatmap of ``explainable(image)``.
            explain: Computes the same kind of heatmap for another network and the same classes.
            image: float[B,C,H,W].

        Returns:
            float[B], or None for a method without a teacher.
        """
        return None

    def report(self) -> dict[str, Any]:
        """Return additional results of a finished run. They must be JSON-serialisable."""
        return {}

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        """Make one training step and return the terms to log."""
        with self.setting.autocast():
            terms = self.loss(batch)
        if not isinstance(terms, Mapping) or not all(map(torch.is_tensor, terms.values())):
            raise TypeError(
                f"{type(self).__name__}.loss must return a dictionary of named scalar tensors, "
                "such as {'classification': loss}"
            )
        self.minimise(terms, "main")
        return terms

    def fit(self, run: TrainingRun) -> None:
        """Run the training loop."""
        for batch in run.steps():
            run.log(self.step(batch))

    def minimise(self, loss: torch.Tensor | Mapping[str, torch.Tensor], *optimizers: str) -> None:
        """Make one backward pass and one step of each named optimizer.

        The norm of the gradient is clipped to the hyper-parameter ``clip_norm`` if that is
        positive, separately for each optimizer.

        Args:
            loss: A scalar, or named terms whose sum is minimised. The engine checks that each named
                term changes at least one parameter.
            optimizers: Names of one or more of ``optimizers``.
        """
        if isinstance(loss, Mapping):
            self.minimised.update(loss)
            total: torch.Tensor = sum(loss.values())  # type: ignore[assignment]
        else:
            total = loss
        stepped = [self.optimizers[name] for name in optimizers]
        for optimizer in stepped:
            optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        for optimizer in stepped:
            if self.hp["clip_norm"] > 0:
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(parameters, self.hp["clip_norm"])
            optimizer.step()

    def rebuild_optimizers(self) -> None:
        """Replace the optimizers by new ones without moments.

        Methods use it when the scale of their loss changes during training, as IRM does.
        """
        self.optimizers = self.make_optimizers()
        # New optimizers start at the initial learning rate; apply the schedule.
        factor = lr_factor(self.hp, self.current_step, self.setting.steps)
        for optimizer in self.optimizers.values():
            set_lr(optimizer, factor)
