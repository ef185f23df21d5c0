"""Latent shift (Gifsplanation): what changes in an image while its prediction is reduced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from algorithms._trained_explainer import ExplainedClassifier, TrainedExplainer
from benchmark.core import (
    ALGORITHMS,
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
from benchmark.models.autoencoder import Autoencoder
from benchmark.models.base import Backbone

#: Lengths of the shift that are tried, as shares of the length of the latent representation.
LENGTHS = tuple(2.0**k for k in range(-7, 4))
#: Number of bisections between the last length within the bounds and the first one beyond them.
BISECTIONS = 6

#: ``score(image)`` gives the log odds of the explained class of each image, float[B].
Score = Callable[[torch.Tensor], torch.Tensor]


def log_odds(logits: torch.Tensor, target: torch.Tensor, independent: torch.Tensor) -> torch.Tensor:
    """Return log p / (1 − p), where p is the probability of the target, float[B].

    Args:
        logits: float[B,K].
        target: int64[B]; for networks with one logit, 0 and 1 select its sign.
        independent: bool[], True if images may have several labels, so that p is a sigmoid of the
            logit; else it is a softmax.
    """
    if logits.shape[1] == 1:
        return logits[:, 0] * (2 * target - 1)
    own = logits.gather(1, target[:, None])[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf).logsumexp(1)
    return torch.where(independent, own, own - others)


def latent_shift(
    score: Score,
    decode: Callable[[torch.Tensor], torch.Tensor],
    latent: torch.Tensor,
    *,
    fall: float = 0.8,
    largest_change: float = 0.5,
    frames: int = 8,
) -> torch.Tensor:
    """Return max over λ of |D(z + λ d) − D(z)|, the heatmap of latent shift.

    d = −∂s(D(z))/∂z is the direction in which the score s of the class falls. It is that of the
    probability too, which is a monotone function of s. λ takes equally spaced values from 0 to the
    first one at which the probability has fallen by a share or the image has changed too much.

    Args:
        score: s, the log odds of the explained class of images float[B,C,H,W].
        decode: D, from a latent representation to images.
        latent: z, float[B,...].
        fall: share of the probability that is lost at the last λ.
        largest_change: mean absolute change of the pixels at which λ ends if the probability has
            not fallen enough, in units of normalised images.
        frames: number of values of λ above 0.

    Returns:
        float[B,C,H,W] ≥ 0; zero where the score does not depend on the latent representation.
    """
    start = latent.detach()
    with torch.enable_grad():
        leaf = start.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score(decode(leaf)).sum(), leaf)
    size = gradient.flatten(1).norm(dim=1)
    length = start.flatten(1).norm(dim=1)
    shape = [-1] + [1] * (start.dim() - 1)
    direction = -gradient * torch.where(size > 0, length / size, 0.0).view(shape)

    def shifted(amount: torch.Tensor) -> torch.Tensor:
        return decode(latent + amount.view(shape) * direction)

    with torch.no_grad():
        first = decode(start)
        wanted = score(first).sigmoid() * (1 - fall)

        def beyond(amount: torch.Tensor) -> torch.Tensor:
            image = shifted(amount)
            change = exact(image - first).abs().flatten(1).mean(1)
            return (score(image).sigmoid() <= wanted) | (change >= largest_change)

        end = first_beyond(beyond, torch.ones_like(length))
    unshifted = decode(latent)
    changes = [(shifted(end * (i + 1) / frames) - unshifted).abs() for i in range(frames)]
    return torch.stack(changes).amax(0)


def first_beyond(beyond: Callable[[torch.Tensor], torch.Tensor], one: torch.Tensor) -> torch.Tensor:
    """Return the smallest of ``LENGTHS`` that is beyond a bound, refined by bisection, float[B].

    Args:
        beyond: tells for lengths float[B] which ones are beyond the bound, bool[B].
        one: ones float[B].

    Returns:
        The largest of ``LENGTHS`` where none is beyond the bound.
    """
    low = torch.zeros_like(one)
    high = one * LENGTHS[-1]
    found = torch.zeros_like(one, dtype=torch.bool)
    for length in LENGTHS:
        crossed = beyond(one * length)
        high = torch.where(crossed & ~found, one * length, high)
        found |= crossed
        low = torch.where(found, low, one * length)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        crossed = beyond(middle)
        high = torch.where(crossed, middle, high)
        low = torch.where(crossed, low, middle)
    return high


class ShiftedClassifier(ExplainedClassifier):
    """A frozen classifier with an autoencoder of its images, which explains it.

    Args:
        classifier: the classifier.
        autoencoder: the autoencoder.
        bounds: ``fall``, ``largest_change`` and ``frames`` of ``latent_shift``.
    """

    name = "shifted_classifier"
    independent: torch.Tensor

    def __init__(self, classifier: Backbone, autoencoder: Autoencoder, **bounds: Any) -> None:
        super().__init__(classifier)
        self.autoencoder = autoencoder
        self.bounds = bounds
        # whether images may have several labels, which the first batch tells
        self.register_buffer("independent", torch.tensor(False))

    def native_heatmap(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the largest change of each pixel, float[B,C,H,W]."""

        def score(shifted: torch.Tensor) -> torch.Tensor:
            return log_odds(exact(self.classifier(shifted)), target, self.independent)

        latent = self.autoencoder.encode(image)
        return latent_shift(score, self.autoencoder.decode, latent, **self.bounds)


@ALGORITHMS.register
class LatentShift(TrainedExplainer):
    """An autoencoder learns the images; moving its latent representation explains a classifier.

    Training minimises mean (D(E(x)) − x)² + mean |D(E(x)) − x| and does not use the classifier. The
    heatmap of a class is the largest change of each pixel while z = E(x) moves in the direction
    that reduces the prediction (``latent_shift``). Pixels that the autoencoder cannot show do not
    change, so the record compares its error with that of the mean colour.

    The authors use an autoencoder that was trained on other X-rays. Predictions are those of the
    classifier.
    """

    name = "latent_shift"
    title = "Latent shift"
    paper = Paper(
        title="Gifsplanation via latent shift: a simple autoencoder approach to counterfactual "
        "generation for chest X-rays",
        authors="Cohen, Brooks, En, Zucker, Pareek, Lungren, Chaudhari",
        year=2021,
        url="https://arxiv.org/abs/2102.09475",
    )
    multi_label = True
    hparams = {
        "explained": HParam("erm", doc="method whose classifier is explained"),
        "fall": HParam(
            0.8, doc="share of the probability that is lost in the last frame", low=0.0, high=1.0
        ),
        "largest_change": HParam(
            0.5,
            doc="mean change of the pixels at which the frames end, in standard deviations",
            low=0.0,
            high=1e3,
        ),
        "frames": HParam(8, doc="number of shifted images", low=1, high=1000),
        "autoencoder_width": HParam(
            16, doc="channels of the autoencoder at full size", low=1, high=512
        ),
        "autoencoder_depth": HParam(
            3, doc="how many times the autoencoder halves the side", low=1, high=8,
            large=HParam(5, low=1, high=8),
        ),
        "latent": HParam(
            32, doc="channels of the latent map", low=1, high=4096,
            large=HParam(64, low=1, high=4096),
        ),
        "lr": HParam(1e-3, LogUniform(-4, -2), "learning rate", low=0.0, high=1e3),
    }  # fmt: skip
    network: ShiftedClassifier

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        autoencoder = Autoencoder(
            setting.image_size,
            self.hp["autoencoder_width"],
            self.hp["autoencoder_depth"],
            self.hp["latent"],
        )
        self.network = ShiftedClassifier(
            self.explained_classifier(),
            autoencoder,
            **{name: self.hp[name] for name in ("fall", "largest_change", "frames")},
        )

    @classmethod
    def fewest_rows(cls, spec: RunSpec, info: DatasetInfo) -> int:
        one_position = max(info.image_size[1:]) <= 2 ** spec.hparams["autoencoder_depth"]
        return 2 if one_position else 1

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"main": make_optimizer(self.network.autoencoder.parameters(), self.hp)}

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.network.independent.fill_(batch.label.is_floating_point())
        error = exact(self.network.autoencoder(batch.image)) - batch.image
        return {"squared": error.square().mean(), "absolute": error.abs().mean()}

    def compared(self, batch: Batch) -> dict[str, float]:
        """Return the squared errors of the reconstruction and of the mean colour."""
        found = exact(self.network.autoencoder(batch.image))
        return {
            "reconstruction": (found - batch.image).square().mean().item(),
            "mean colour": batch.image.square().mean().item(),
        }

    def report(self) -> dict[str, Any]:
        """Return the mean squared errors of both splits."""
        return {"squared_errors": self.comparison} if self.comparison else {}
