"""eX2L: a label model whose Grad-CAM map is driven away from the map of a confounder model that learns beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core.algorithm import Algorithm, Paper, Run, Setting
from benchmark.core.batch import Batch
from benchmark.core.dataset import DatasetInfo
from benchmark.core.hparam import HParam, LogUniform, Uniform
from benchmark.core.needs import Needs
from benchmark.core.optim import COMMON_HPARAMS, make_optimizer
from benchmark.core.parallel_forward import can_overlap, together
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.spec import RunSpec
from benchmark.explain import get
from benchmark.losses.heatmaps import scaled_to_one
from benchmark.losses.similarity import SIMILARITIES
from benchmark.models.base import Backbone

#: What a step leaves of the running mean of the confounder model's accuracy.
MEMORY = 0.99


@ALGORITHMS.register
class EX2L(Algorithm):
    """CE(label) + λ₁ · CE(confounder) + λ₂ · similarity of the two Grad-CAM maps (equation 4), over both models.

    The maps explain the true label and the true confounder at the last layer with positions. Their importance weights
    are constants and their activations are not, so there is no second-order graph, but there is a gradient. (The paper
    speaks of detached heatmaps; detached altogether, equation 4's last term would move nothing.)

    Each map is divided by its maximum, which the paper leaves open. As they come (``scale = "none"``) the maps have no
    bound, and then −MAE, −MSE and −RMSE have none below: larger activations alone lower them for ever.
    The paper draws λ₁ and λ₂ from U(0.1, 100), nine times in ten above 10; those of ``log_draws`` are 10^U(−1, 2).
    """

    name = "ex2l"
    paper = Paper(
        "eXplaining to Learn (eX2L): regularization using contrastive visual explanation pairs for distribution shifts",
        "Medina, Miñoza, Ibañez", 2026, "https://arxiv.org/abs/2605.06368",
    )  # fmt: skip
    needs = Needs(confounder=True, groups=True)
    sampling = "group"
    hparams = {
        "similarity": HParam(
            "mae", choices=tuple(SIMILARITIES), doc="what says how alike the maps are (B.5)"
        ),
        "confounder_weight": HParam(
            1.0, Uniform(0.1, 100), "λ₁, weight of the confounder model's loss", low=0.0, high=1e9
        ),
        "similarity_weight": HParam(
            1.0, Uniform(0.1, 100), "λ₂, weight of the maps' similarity", low=0.0, high=1e9
        ),
        "confounder_weight_log": HParam(
            1.0, LogUniform(-1, 2), "λ₁ where log_draws is true", low=0.0, high=1e9
        ),
        "similarity_weight_log": HParam(
            1.0, LogUniform(-1, 2), "λ₂ where log_draws is true", low=0.0, high=1e9
        ),
        "log_draws": HParam(False, doc="take λ₁ and λ₂ from the logarithmic draws"),
        "confounder_lr": COMMON_HPARAMS[
            "lr"
        ],  # table 6: drawn like the label model's, but on its own
        "confounder_weight_decay": COMMON_HPARAMS["weight_decay"],
        "scale": HParam(
            "max",
            choices=("max", "none"),
            doc="divide each map by its maximum, or leave it as it is",
        ),
        "moves": HParam(
            "both",
            choices=("both", "label"),
            doc="which model the similarity moves; equation 4: both",
        ),
        "sampling": HParam(
            "group", choices=("group", "random"), doc="how batches are drawn; random: appendix A"
        ),
    }
    variants = {
        **{name: {"similarity": name} for name in SIMILARITIES},
        **{f"{name}_random": {"similarity": name, "sampling": "random"} for name in SIMILARITIES},
        "log_draws": {"log_draws": True},
        "raw_maps": {"scale": "none"},
        "label_only": {"moves": "label"},
        "no_penalty": {
            "similarity_weight": 0.0,
            "similarity_weight_log": 0.0,
        },  # both models, each on its own
    }
    network: Backbone
    running_accuracy: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.confounder = setting.build_network(setting.num_confounders, dropout=self.hp["dropout"])
        self.sampling = self.hp["sampling"]  # type: ignore[misc]
        suffix = "_log" if self.hp["log_draws"] else ""
        self.weights = [self.hp[f"{of}_weight{suffix}"] for of in ("confounder", "similarity")]
        self.register_buffer("running_accuracy", torch.tensor(1 / setting.num_confounders))
        self.accuracy_at_end: float | None = None
        self.gradcam = get("gradcam", constant_weights=True)
        self.at_once: bool | None = (
            None  # whether both models run at the same time; the first step finds out
        )

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        backbone: type[Backbone] = BACKBONES.get(spec.backbone)
        return backbone.cam_problem(info.image_size, spec.backbone_options)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        both = make_optimizer(self.network.parameters(), self.hp)
        changed = {
            "lr": self.hp["confounder_lr"],
            "weight_decay": self.hp["confounder_weight_decay"],
        }
        both.add_param_group(
            make_optimizer(self.confounder.parameters(), self.hp, **changed).param_groups[0]
        )
        return {"main": both}

    def explain(self, network: torch.nn.Module, image: torch.Tensor, target: torch.Tensor) -> Any:
        """The Grad-CAM map of the target float[B,1,h,w], scaled, and the logits, from one pass."""
        cam, logits = self.gradcam.with_logits(
            network, image, lambda _: target, True, self.training
        )
        return (scaled_to_one(cam) if self.hp["scale"] == "max" else cam), logits

    def terms(
        self, batch: Batch, at_once: bool = False
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The terms of equation 4, and what is logged beside them: bare similarity, the confounder model's accuracy."""
        assert batch.confounder is not None
        label = functools.partial(self.explain, self.network, batch.image, batch.label)
        confounder = functools.partial(self.explain, self.confounder, batch.image, batch.confounder)
        (ours, logits), (theirs, guesses) = (
            together(label, confounder) if at_once else (label(), confounder())
        )
        if self.hp["moves"] == "label":
            theirs = theirs.detach()
        with torch.autocast(batch.image.device.type, enabled=False):
            alike = SIMILARITIES[self.hp["similarity"]](ours, theirs).mean()
        terms = {
            "classification": F.cross_entropy(logits, batch.label),
            "confounder": self.weights[0] * F.cross_entropy(guesses, batch.confounder),
            "similarity": self.weights[1] * alike,
        }
        right = (guesses.argmax(1) == batch.confounder).float().mean()
        return terms, {"bare_similarity": alike.detach(), "confounder_accuracy": right}

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.terms(batch)[0]

    def objective(self, batch: Batch) -> torch.Tensor:
        return sum(self.loss(batch).values())  # type: ignore[return-value]

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        if self.at_once is None:
            self.at_once = can_overlap([self.network, self.confounder], batch.image)
        with self.setting.autocast():
            terms, beside = self.terms(batch, self.at_once)
        self.minimise(terms, "main")
        self.running_accuracy.lerp_(beside["confounder_accuracy"], 1 - MEMORY)
        return {**terms, **beside}

    def fit(self, run: Run) -> None:
        super().fit(run)
        self.confounder.eval()
        with torch.no_grad():
            right = [self.confounder(b.image).argmax(1) == b.confounder for b in run.batches("val")]
        self.accuracy_at_end = torch.cat(right).float().mean().item()
        self.confounder.train(self.training)

    def report(self) -> dict[str, Any]:
        """The confounder model's accuracy: on training batches up to the selected step, on validation at the end."""
        found = {
            "training": self.running_accuracy.item(),
            "validation_at_end": self.accuracy_at_end,
        }
        return {"confounder_accuracy": found}
