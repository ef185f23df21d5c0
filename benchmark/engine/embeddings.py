"""How a trained network arranges test images: features of the selected step, and how labels and confounders cluster."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.compilation import uncompiled
from benchmark.core.errors import UserError
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.evaluate import images_per_pass
from benchmark.engine.explanations import MAX_IMAGES, spread
from benchmark.models.base import Backbone

#: Principal components that are kept of the features: enough for a projection, little beside the weights.
COMPONENTS = 50


@dataclass
class Embeddings:
    """``report`` is for record.json, ``arrays`` for embeddings.npz; empty where there is nothing."""

    report: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def embed_splits(
    algorithm: Algorithm, splits: Mapping[str, DeviceSplit], predicted: Mapping[str, np.ndarray]
) -> Embeddings:
    """Compute features before the last layer, and their silhouettes, in evaluation mode.

    At most MAX_IMAGES images of each split are used.

    What has no such features is a note in the report, never an error: the run itself is sound.

    Args:
        splits: test splits.
        predicted: per split the predicted classes int64[N].
    """
    training = algorithm.training
    algorithm.eval()
    try:
        return _embed(algorithm, splits, predicted)
    except UserError as error:
        note = str(error)
    except (
        Exception
    ) as error:  # memory, an eigenvalue that does not converge: the result stands without features
        if isinstance(error, OSError):
            raise
        traceback.print_exc()
        note = f"{type(error).__name__}: {error}".partition("\n")[0]
    finally:
        algorithm.train(training)
    print(f"no embeddings: {note}", file=sys.stderr)
    return Embeddings({"dimensions": None, "splits": {}, "note": note})


def _embed(
    algorithm: Algorithm, splits: Mapping[str, DeviceSplit], predicted: Mapping[str, np.ndarray]
) -> Embeddings:
    found: dict[str, Any] = {}
    all_features: list[torch.Tensor] = []
    pieces: list[dict[str, np.ndarray]] = []
    for name, split in splits.items():
        rows = spread(split.size, MAX_IMAGES)
        features = _features(algorithm, split, rows)
        if not bool(features.isfinite().all()):
            raise UserError(f"features on split {name} are not finite.")
        known = {"label": split.arrays.label[rows]}
        if split.arrays.confounder is not None:
            known["confounder"] = split.arrays.confounder[rows]
        scores = {of: silhouette(features, known.get(of)) for of in ("label", "confounder")}
        found[name] = {"images": len(rows), **scores}
        all_features.append(features)
        place = {"split": np.array([name] * len(rows)), "row": rows}
        pieces.append({**place, "prediction": predicted[name][rows], **known})
    together = torch.cat(all_features)
    components, share = principal_components(together, COMPONENTS)
    shared = set.intersection(*(set(piece) for piece in pieces))
    arrays = {
        key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0] if key in shared
    }
    arrays |= {
        "feature": components.numpy().astype(np.float32),
        "share": share.numpy().astype(np.float32),
    }
    return Embeddings({"dimensions": together.shape[1], "splits": found}, arrays)


@torch.inference_mode()
def _features(algorithm: Algorithm, split: DeviceSplit, rows: np.ndarray) -> torch.Tensor:
    """Features of the network that predicts, float64[M,D] on the CPU."""
    kept, per_pass = [], images_per_pass(split, algorithm)
    for start in range(0, len(rows), per_pass):
        with algorithm.setting.autocast():
            network, seen = algorithm.explainable(split.batch(rows[start : start + per_pass]).image)
            network = uncompiled(network)
            if not isinstance(network, Backbone):
                raise UserError(
                    f"{type(network).__name__} declares no features before a last layer."
                )
            kept.append(network.features(seen).flatten(1).float().cpu())
    return torch.cat(kept).double()


def silhouette(features: torch.Tensor, labels: np.ndarray | None) -> float | None:
    """Mean of (b − a) / max(a, b) over images float[M,D], from −1 to 1 (Rousseeuw 1987), by Euclidean distance.

    a is an image's mean distance to the others of its label, b the smallest mean distance to those of another one. An
    image that is alone with its label counts as 0, as one with a = b = 0 does. None where images have no label, several
    labels, or all the same.
    """
    if labels is None or labels.ndim != 1:
        return None
    names, of = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        return None
    own = torch.from_numpy(of.reshape(-1, 1))
    member = torch.zeros(len(own), len(names), dtype=features.dtype).scatter_(1, own, 1.0)
    count = member.sum(0)
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    total = distance @ member  # [M, labels]
    a = total.gather(1, own)[:, 0] / (count[own[:, 0]] - 1).clamp_min(1)
    b = (total / count).scatter(1, own, torch.inf).amin(1)
    larger = torch.maximum(a, b)
    score = torch.where(
        (larger > 0) & (count[own[:, 0]] > 1), (b - a) / larger.clamp_min(1e-300), 0.0
    )
    return float(score.mean())


def principal_components(features: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates on the first principal axes float64[M,P], P ≤ ``most``, and each one's share of the variance.

    The axes' signs are those that make the coordinate of largest size positive.
    """
    centred = features - features.mean(0)
    size, width = centred.shape
    small = (
        centred @ centred.T if size < width else centred.T @ centred
    )  # both have the variances as eigenvalues
    values, vectors = torch.linalg.eigh(small)
    kept = min(most, size, width)
    values, vectors = values.flip(0)[:kept].clamp_min(0), vectors.flip(1)[:, :kept]
    coordinates = vectors * values.sqrt() if size < width else centred @ vectors
    extreme = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    total = centred.square().sum()
    return coordinates * torch.where(
        extreme < 0, -1.0, 1.0
    ), values / total if total > 0 else values
