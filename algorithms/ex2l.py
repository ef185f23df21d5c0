"""eX2L: a label model whose Grad-CAM map is pushed away from that of a confounder model."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    COMMON_HPARAMS,
    Algorithm,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Needs,
    Paper,
    ParallelForward,
    RunSpec,
    Setting,
    TrainingRun,
    Uniform,
    make_optimizer,
)
from benchmark.explain import get
from benchmark.losses.heatmaps import scaled_to_one
from benchmark.losses.similarity import SIMILARITIES
from benchmark.models.base import Backbone

#: Decay per step of the running mean of the confounder model's accuracy.
MEMORY = 0.99


def with_both_classes(logits: torch.Tensor) -> torch.Tensor:
    """Return logits float[B,K]; those of one logit z become (0, z), float[B,2].

    The softmax of (0, z) is (1 − σ(z), σ(z)), so that its cross-entropy is the binary cross-entropy
    of z.
    """
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


#: Titles of the similarities.
_MEASURES = {
    "mae": "MAE",
    "mse": "MSE",
    "rmse": "RMSE",
    "iou": "IoU",
    "kl": "KL",
    "js_divergence": "JS divergence",
    "js_distance": "JS distance",
    "ncc": "NCC",
    "ssim": "SSIM",
    "dice": "Dice",
}


@ALGORITHMS.register
class EX2L(Algorithm):
    """CE(label) + λ₁ · CE(confounder) + λ₂ · similarity of the two Grad-CAM maps (equation 4).

    The sum is minimised over both models. The maps explain the true label and the true confounder
    at the last layer with positions. Their importance weights are constants and their activations
    are not, so that there is a gradient but no second-order graph. (The paper speaks of detached
    heatmaps. If they were fully detached, the last term of equation 4 would have no gradient.)

    Each map is divided by its maximum, a choice that the paper leaves open. Unscaled maps
    (``scale = "none"``) are unbounded, and −MAE, −MSE and −RMSE then have no lower bound: growing
    activations alone keep lowering them.

    The paper draws λ₁ and λ₂ from U(0.1, 100), nine times in ten above 10; the variant
    ``log_draws`` draws them from 10^U(−1, 2).

    For two classes or two confounders, ``one_logit`` builds models with one logit as in the paper
    (B.1, B.4.1): binary cross-entropy, and Grad-CAM of the logit for 1 and of its negative for 0.

    The passes that are explained also give the two cross-entropies. Dropout is off in them.
    """

    name = "ex2l"
    title = "eX2L"
    paper = Paper(
        title="eXplaining to Learn (eX2L): regularization using contrastive visual explanation "
        "pairs for distribution shifts",
        authors="Medina, Miñoza, Ibañez",
        year=2026,
        url="https://arxiv.org/abs/2605.06368",
    )
    needs = Needs(confounder=True, groups=True)
    sampling = "group"
    hparams = {
        "similarity": HParam(
            "mae", choices=tuple(SIMILARITIES), doc="similarity of the maps (B.5)"
        ),
        "confounder_weight": HParam(
            1.0, Uniform(0.1, 100), "λ₁, weight of the confounder model's loss", low=0.0, high=1e9
        ),
        "similarity_weight": HParam(
            1.0, Uniform(0.1, 100), "λ₂, weight of the maps' similarity", low=0.0, high=1e9
        ),
        # table 6: drawn like the label model's, but separately
        "confounder_lr": COMMON_HPARAMS["lr"],
        "confounder_weight_decay": COMMON_HPARAMS["weight_decay"],
        "scale": HParam(
            "max",
            choices=("max", "none"),
            doc="divide each map by its maximum, or leave it as it is",
        ),
        "moves": HParam(
            "both",
            choices=("both", "label"),
            doc="models trained by the similarity; equation 4: both",
        ),
        "sampling": HParam(
            "group", choices=("group", "random"), doc="how batches are drawn; random: appendix A"
        ),
        "one_logit": HParam(
            False, doc="one logit for two classes or two confounders (B.1), instead of two"
        ),
    }
    variants = {
        **{name: {"similarity": name} for name in SIMILARITIES},
        **{f"{name}_random": {"similarity": name, "sampling": "random"} for name in SIMILARITIES},
        "log_draws": {
            "confounder_weight": LogUniform(-1, 2),
            "similarity_weight": LogUniform(-1, 2),
        },
        "raw_maps": {"scale": "none"},
        "label_only": {"moves": "label"},
        "one_logit": {"one_logit": True},
        # two independent models
        "no_penalty": {"similarity_weight": 0.0},
    }
    variant_titles = {
        **{name: _MEASURES.get(name, name) for name in SIMILARITIES},
        **{f"{name}_random": f"{_MEASURES.get(name, name)}, random" for name in SIMILARITIES},
    }
    objective = Algorithm.total_loss
    network: Backbone
    running_accuracy: torch.Tensor

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        dropout = self.hp["dropout"]
        if self.outputs(setting.num_classes) != setting.num_classes:
            self.network = setting.build_network(1, dropout=dropout)  # type: ignore[assignment]
        self.confounder = setting.build_network(
            self.outputs(setting.num_confounders), dropout=dropout
        )
        self.sampling = self.hp["sampling"]  # type: ignore[misc]
        self.register_buffer("running_accuracy", torch.tensor(1 / setting.num_confounders))
        self.accuracy_at_end: float | None = None
        self.gradcam = get("gradcam", constant_weights=True)
        self.parallel_forward = ParallelForward()

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        classes = len(info.label_names)
        confounders = len(info.confounder_names)
        if spec.hparams["one_logit"] and 2 not in (classes, confounders):
            return (
                f"one_logit needs two classes or two confounders, got {classes} and {confounders}; "
                "leave it off."
            )
        backbone: type[Backbone] = BACKBONES.get(spec.backbone)
        return backbone.cam_problem(info.image_size, spec.backbone_options)

    def outputs(self, classes: int) -> int:
        """Return the number of logits of a model for this number of classes."""
        return 1 if self.hp["one_logit"] and classes == 2 else classes

    def predict(self, image: torch.Tensor) -> torch.Tensor:
        return with_both_classes(super().predict(image))

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        optimizer = make_optimizer(self.network.parameters(), self.hp)
        for_confounder = make_optimizer(
            self.confounder.parameters(),
            self.hp,
            lr=self.hp["confounder_lr"],
            weight_decay=self.hp["confounder_weight_decay"],
        )
        optimizer.add_param_group(for_confounder.param_groups[0])
        return {"main": optimizer}

    def explain(
        self, network: torch.nn.Module, image: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the Grad-CAM map of the target, float[B,1,h,w], scaled, and logits float[B,K]."""
        trace = self.gradcam.trace(
            network, image, create_graph=True, track_statistics=self.training
        )
        cam = trace.heatmap(target)
        return (scaled_to_one(cam) if self.hp["scale"] == "max" else cam), with_both_classes(
            trace.logits
        )

    def similarity(self, label_map: torch.Tensor, confounder_map: torch.Tensor) -> torch.Tensor:
        """Return the similarity of the two models' maps, averaged over images, without λ₂."""
        if self.hp["moves"] == "label":
            confounder_map = confounder_map.detach()
        with torch.autocast(label_map.device.type, enabled=False):
            return SIMILARITIES[self.hp["similarity"]](label_map, confounder_map).mean()

    def equation_4(
        self,
        batch: Batch,
        label_logits: torch.Tensor,
        confounder_logits: torch.Tensor,
        similarity: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the terms of equation 4, weights included."""
        assert batch.confounder is not None
        return {
            "classification": F.cross_entropy(label_logits, batch.label),
            "confounder": self.hp["confounder_weight"]
            * F.cross_entropy(confounder_logits, batch.confounder),
            "similarity": self.hp["similarity_weight"] * similarity,
        }

    def explain_both(
        self, batch: Batch, *, at_once: bool = False
    ) -> Sequence[tuple[torch.Tensor, ...]]:
        """Return map and logits of the label model, and those of the confounder model.

        Args:
            batch: images, labels and confounders.
            at_once: True to run both models at the same time where that is possible. The gradient
                then reaches the parameters by ``backward`` only.
        """
        assert batch.confounder is not None
        label = functools.partial(self.explain, self.network, batch.image, batch.label)
        confounder = functools.partial(self.explain, self.confounder, batch.image, batch.confounder)
        if not at_once:
            return label(), confounder()
        networks = [self.network, self.confounder]
        return self.parallel_forward(networks, batch.image, label, confounder)

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        (label_map, label_logits), (confounder_map, confounder_logits) = self.explain_both(batch)
        similarity = self.similarity(label_map, confounder_map)
        return self.equation_4(batch, label_logits, confounder_logits, similarity)

    def step(self, batch: Batch) -> Mapping[str, torch.Tensor | float]:
        """Minimise ``loss``, and follow the accuracy of the confounder model."""
        assert batch.confounder is not None
        with self.setting.autocast():
            (label_map, label_logits), (confounder_map, confounder_logits) = self.explain_both(
                batch, at_once=True
            )
            similarity = self.similarity(label_map, confounder_map)
            terms = self.equation_4(batch, label_logits, confounder_logits, similarity)
            correct = (confounder_logits.argmax(1) == batch.confounder).float().mean()
        self.minimise(terms, "main")
        self.running_accuracy.lerp_(correct, 1 - MEMORY)
        return {**terms, "bare_similarity": similarity.detach(), "confounder_accuracy": correct}

    def fit(self, run: TrainingRun) -> None:
        super().fit(run)
        self.confounder.eval()
        correct = []
        with torch.no_grad():
            for batch in run.batches("val"):
                assert batch.confounder is not None
                logits = with_both_classes(self.confounder(batch.image))
                correct.append(logits.argmax(1).eq(batch.confounder))
        self.accuracy_at_end = torch.cat(correct).float().mean().item()
        self.confounder.train(self.training)

    def report(self) -> dict[str, Any]:
        """Return the confounder model's accuracy.

        ``training`` is a running mean over training batches up to the selected step,
        ``validation_at_end`` is measured after the last step.
        """
        return {
            "confounder_accuracy": {
                "training": self.running_accuracy.item(),
                "validation_at_end": self.accuracy_at_end,
            }
        }
