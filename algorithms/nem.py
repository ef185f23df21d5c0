"""NEM and NEMt: a trained explainer, which predicts a mask of the input of a frozen classifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from algorithms._trained_explainer import ExplainedClassifier, TrainedExplainer
from benchmark.core import (
    ALGORITHMS,
    BACKBONES,
    Batch,
    DatasetInfo,
    HParam,
    LogUniform,
    Paper,
    RunSpec,
    Setting,
    make_optimizer,
)
from benchmark.losses.precision import exact
from benchmark.models.base import Backbone
from benchmark.models.mask_decoder import MaskDecoder, kernel_side, maps_by_size, smooth

#: Constant masks whose loss is reported beside that of the trained masks.
CONSTANTS = (0.0, 0.25, 0.5, 0.75, 1.0)

#: λ₁ of table A.1 of the paper other than the default, ½: its printed value and its exact one.
LAMBDAS = {"0.33": 1 / 3, "0.4": 0.4, "0.66": 2 / 3, "1": 1.0}

#: ``score(image)`` gives the score of the explained class of each image, float[B] or float[B,B].
Score = Callable[[torch.Tensor], torch.Tensor]


def change_loss(
    score: Score, image: torch.Tensor, mask: torch.Tensor, weight: float = 2.0
) -> dict[str, torch.Tensor]:
    """Return (1 − mean m) and w · (1 − mean (p(x ⊙ m) − p(x))²): remove little, change much.

    With a score float[B,B], every image against the label of every other one, it is the loss of
    the published code.

    Args:
        score: probability of the explained class.
        image: float[B,C,H,W].
        mask: float[B,1,H,W], the part of the image that is kept.
        weight: weight of the change.
    """
    change = (score(image * mask) - score(image)).square().mean()
    return {"size": 1 - mask.mean(), "change": weight * (1 - change)}


def printed_loss(
    score: Score, image: torch.Tensor, mask: torch.Tensor, weight: float = 0.5
) -> dict[str, torch.Tensor]:
    """Return −mean (p(x) − p(x ⊙ m))² and w · mean m: equation 2 of the paper as it is printed."""
    change = (score(image) - score(image * mask)).square().mean()
    return {"change": -change, "size": weight * mask.abs().mean()}


def keep_loss(
    score: Score, image: torch.Tensor, mask: torch.Tensor, weight: float = 2.0
) -> dict[str, torch.Tensor]:
    """Return mean m and w · (1 − mean p(x ⊙ m)): keep little, and keep the score."""
    return {"size": mask.mean(), "kept": weight * (1 - score(image * mask).mean())}


def contrastive_loss(
    represent: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, mask: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the terms of equation 1 of the paper, which needs no label.

    d(x, x ⊙ m) + ⅛ mean m + ¼ [d(x, x ⊙ m) − d(x ⊙ m, x ⊙ (1 − m))], where d is half the cosine
    distance of two representations.

    Args:
        represent: computes float[B,D] from images.
        image: float[B,C,H,W].
        mask: float[B,1,H,W].
    """

    def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return ((1 - torch.cosine_similarity(one, other, dim=1)) / 2).mean()

    whole = represent(image)
    kept = represent(image * mask)
    removed = represent(image * (1 - mask))
    near = distance(whole, kept)
    return {
        "similarity": near,
        "size": mask.abs().mean() / 8,
        "contrast": (near - distance(kept, removed)) / 4,
    }


class MaskedClassifier(ExplainedClassifier):
    """A frozen classifier with a decoder that explains it.

    The classifier stays in evaluation mode.

    Args:
        classifier: a convolutional backbone.
        width: channels of the decoder's last block.
        neighbourhood: side of the smoothing kernel, in pixels of an image of 224.
        explains_removed: whether the explanation is 1 − mask, what the mask removes.
    """

    name = "masked_classifier"

    def __init__(
        self,
        classifier: Backbone,
        width: int,
        neighbourhood: int = 21,
        *,
        explains_removed: bool,
    ) -> None:
        super().__init__(classifier)
        self.explains_removed = explains_removed
        height = classifier.image_size[1]
        with torch.no_grad():
            weight = next(classifier.parameters())
            probe = weight.new_zeros(1, *classifier.image_size)
            maps = maps_by_size(classifier, probe)
        self.decoder = MaskDecoder([m.shape[1] for m in maps], width)
        self.kernel = kernel_side(height, neighbourhood)

    def mask(self, image: torch.Tensor) -> torch.Tensor:
        """Return the smoothed mask float[B,1,H,W]; the smoothing is random in training mode."""
        with torch.no_grad():
            maps = maps_by_size(self.classifier, image)
        mask = exact(self.decoder(maps))
        return smooth(mask, self.kernel, random=self.training)

    def native_heatmap(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the explanation float[B,1,H,W]; the target was chosen in training."""
        mask = self.mask(image)
        return 1 - mask if self.explains_removed else mask


@ALGORITHMS.register
class NEMt(TrainedExplainer):
    """A decoder learns which pixels a frozen classifier needs for its prediction.

    The decoder, a U-Net on the maps of the classifier, predicts a mask m. ``form`` is the loss:
    ``change`` (the published code, image by image), ``batch`` (the code as it is, which compares
    every image with the label of every other one), ``printed`` (equation 2), ``keep`` (ours: keep
    few pixels and the score) or ``nem`` (equation 1, without a target). Masked pixels have the
    mean colour of the data, since images are normalised.

    Predictions are those of the classifier. The record compares the loss of the trained masks with
    those of constant masks. A mask that is not better than the best constant explains nothing.
    """

    name = "nemt"
    title = "NEMt"
    paper = Paper(
        title="NEMt: fast targeted explanations for medical image models via neural explanation "
        "masks",
        authors="Møller, Amiri, Igel, Wickstrøm, Jenssen, Keicher, Azampour, Navab, Ibragimov",
        year=2025,
        url="https://github.com/baerminator/NEM_T",
    )
    multi_label = False
    hparams = {
        "explained": HParam("erm", doc="method whose classifier is explained"),
        "form": HParam(
            "change",
            choices=("change", "batch", "printed", "keep", "nem"),
            doc="loss of the masks",
        ),
        "target": HParam(
            "label", choices=("label", "prediction"), doc="class whose score is used"
        ),
        "score": HParam(
            "probability", choices=("probability", "logit"), doc="score of a class"
        ),
        "trade_off": HParam(
            2.0,
            LogUniform(-0.5, 0.5),
            "weight of the score against the size of the mask (1/λ₁ of the paper)",
            low=0.0,
            high=1e9,
        ),
        "neighbourhood": HParam(
            21,
            doc="side of the smoothing kernel, in pixels of an image of 224; 0 for none",
            low=0,
            high=224,
        ),
        "decoder_width": HParam(
            8, doc="channels of the decoder's last block", low=1, high=512,
            large=HParam(16, low=1, high=512),
        ),
        "weight_decay": HParam(0.01, doc="weight decay", low=0.0, high=1e3),
        "optimizer": HParam("adamw", choices=("adam", "adamw", "sgd", "prodigy"), doc="optimiser"),
    }  # fmt: skip
    variants = {
        "batch": {"form": "batch"},
        "printed": {"form": "printed", "score": "logit", "trade_off": 0.5},
        "keep": {"form": "keep"},
        "nem": {"form": "nem"},
        # tables A.1 to A.3 of the paper
        **{f"lambda_{x}": {"trade_off": 1 / y} for x, y in LAMBDAS.items()},
        **{f"neighbourhood_{n}": {"neighbourhood": n} for n in (14, 17, 24, 28)},
        "no_filter": {"neighbourhood": 0},
        "prodigy": {"optimizer": "prodigy", "lr": 1.0},
    }
    variant_titles = {
        "nem": "NEM",
        **{f"lambda_{x}": f"λ = {x}" for x in LAMBDAS},
        **{f"neighbourhood_{n}": f"neighbourhood {n}" for n in (14, 17, 24, 28)},
        "prodigy": "Prodigy",
    }
    # the score may not move yet; a mask of ones has no size left to lose
    may_be_zero = frozenset({"change", "size", "contrast"})
    network: MaskedClassifier

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.network = MaskedClassifier(
            self.explained_classifier(),
            self.hp["decoder_width"],
            self.hp["neighbourhood"],
            explains_removed=self.hp["form"] in ("change", "batch", "printed"),
        )

    @classmethod
    def refuses(cls, spec: RunSpec, info: DatasetInfo) -> str | None:
        kind = BACKBONES.get(spec.backbone)
        if kind.capabilities.attention:
            return (
                f"it decodes maps of several sizes, and {kind.name} has one size; use a "
                "convolutional backbone."
            )
        return None

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": make_optimizer(self.network.decoder.parameters(), self.hp)}

    def score_of(self, batch: Batch) -> Score:
        """Return the function that scores the explained class of each image of a batch."""
        if self.hp["target"] == "label":
            target = batch.label
        else:
            with torch.no_grad():
                target = self.predict(batch.image).argmax(1)

        def score(image: torch.Tensor) -> torch.Tensor:
            logits = exact(self.network(image))
            scores = logits.softmax(1) if self.hp["score"] == "probability" else logits
            if self.hp["form"] == "batch":
                return scores[:, target]
            return scores.gather(1, target[:, None])[:, 0]

        return score

    def mask_loss(self, batch: Batch, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the terms of the loss of masks float[B,1,H,W]."""
        form = self.hp["form"]
        if form == "nem":
            return contrastive_loss(self.network.classifier.features, batch.image, mask)
        loss = {"printed": printed_loss, "keep": keep_loss}.get(form, change_loss)
        return loss(self.score_of(batch), batch.image, mask, self.hp["trade_off"])

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.mask_loss(batch, self.network.mask(batch.image))

    def compared(self, batch: Batch) -> dict[str, float]:
        """Return the losses of the trained masks and of constant masks."""
        masks = {"trained": self.network.mask(batch.image)}
        for value in CONSTANTS:
            masks[f"constant {value:g}"] = torch.full_like(masks["trained"], value)
        return {
            name: sum(term.item() for term in self.mask_loss(batch, mask).values())
            for name, mask in masks.items()
        }

    def report(self) -> dict[str, Any]:
        """Return losses of trained and constant masks, and whether the trained ones are better."""
        if not self.comparison:
            return {}
        found = self.comparison["val"]
        best = min(value for name, value in found.items() if name != "trained")
        return {"mask_losses": self.comparison, "better_than_constant": found["trained"] < best}
