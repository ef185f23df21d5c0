"""Features of test images at the selected step, and how labels and confounders cluster in them."""

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
from benchmark.engine.explanations import MAX_IMAGES, evenly_spaced_rows
from benchmark.models.base import Backbone

#: The number of principal components that are stored: enough for a projection, and small.
MAX_COMPONENTS = 50


@dataclass
class Embeddings:
    """The embeddings of a run; both are empty if there are none.

    Args:
        report: the entry of record.json.
        arrays: the arrays of embeddings.npz.
    """

    report: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def embed_splits(
    algorithm: Algorithm,
    splits: Mapping[str, DeviceSplit],
    predicted: Mapping[str, np.ndarray],
    validation: DeviceSplit | None = None,
) -> Embeddings:
    """Compute the features before the last layer, and their silhouettes, in evaluation mode.

    At most MAX_IMAGES images of each split are used. An error becomes a note in the report, since
    the run itself is valid without embeddings.

    Args:
        algorithm: the trained method.
        splits: the test splits by name.
        predicted: the predicted classes int64[N] of each split.
        validation: validation images, whose environments are those of training; None if they are
            unknown. They are embedded too, and each test split is an environment of its own.
    """
    training = algorithm.training
    algorithm.eval()
    try:
        return _embed(algorithm, splits, predicted, validation)
    except UserError as error:
        note = str(error)
    except Exception as error:  # such as lack of memory, or eigenvalues that do not converge
        if isinstance(error, OSError):
            raise
        traceback.print_exc()
        note = f"{type(error).__name__}: {error}".partition("\n")[0]
    finally:
        algorithm.train(training)
    print(f"no embeddings: {note}", file=sys.stderr)
    return Embeddings({"dimensions": None, "splits": {}, "note": note})


def _embed(
    algorithm: Algorithm,
    splits: Mapping[str, DeviceSplit],
    predicted: Mapping[str, np.ndarray],
    validation: DeviceSplit | None,
) -> Embeddings:
    summaries: dict[str, Any] = {}
    all_features: list[torch.Tensor] = []
    pieces: list[dict[str, np.ndarray]] = []
    for name, split in splits.items():
        features, piece = _piece(algorithm, split, predicted[name])
        scores = {of: silhouette(features, piece.get(of)) for of in ("label", "confounder")}
        summaries[name] = {"images": len(features), **scores}
        all_features.append(features)
        pieces.append(piece)
    if validation is not None:
        _add_environments(algorithm, validation, predicted, summaries, all_features, pieces)
    together = torch.cat(all_features)
    components, share = principal_components(together, MAX_COMPONENTS)
    shared = set.intersection(*(set(piece) for piece in pieces))
    arrays = {
        key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0] if key in shared
    }
    arrays |= {
        "feature": components.numpy().astype(np.float32),
        "share": share.numpy().astype(np.float32),
    }
    return Embeddings({"dimensions": together.shape[1], "splits": summaries}, arrays)


def _piece(
    algorithm: Algorithm, split: DeviceSplit, predicted: np.ndarray
) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Return the features float64[M,D] of images of a split, and their arrays for the file."""
    rows = evenly_spaced_rows(split.size, MAX_IMAGES)
    features = _features(algorithm, split, rows)
    if not bool(features.isfinite().all()):
        raise UserError(f"features on split {split.name} are not finite.")
    piece = {
        "split": np.array([split.name] * len(rows)),
        "row": rows,
        "prediction": predicted[rows],
        "label": split.arrays.label[rows],
    }
    if split.arrays.confounder is not None:
        piece["confounder"] = split.arrays.confounder[rows]
    return features, piece


def _add_environments(
    algorithm: Algorithm,
    validation: DeviceSplit,
    predicted: Mapping[str, np.ndarray],
    summaries: dict[str, Any],
    all_features: list[torch.Tensor],
    pieces: list[dict[str, np.ndarray]],
) -> None:
    """Add the environment of every image, the validation images, and silhouettes by environment.

    Args:
        algorithm: the trained method.
        validation: the validation images.
        predicted: the predicted classes of each split.
        summaries: silhouettes by test split.
        all_features: features of each test split; those of validation are appended.
        pieces: arrays of each test split; those of validation are appended.
    """
    features, piece = _piece(algorithm, validation, predicted[validation.name])
    assert validation.arrays.environment is not None
    piece["environment"] = validation.arrays.environment[piece["row"]].astype(np.int64)
    of_training = algorithm.setting.num_environments
    for i, (name, own) in enumerate(zip(summaries, pieces, strict=True)):
        own["environment"] = np.full(len(own["row"]), of_training + i)
        summaries[name]["environment"] = silhouette(
            torch.cat([features, all_features[i]]),
            np.concatenate([piece["environment"], own["environment"]]),
        )
    all_features.append(features)
    pieces.append(piece)


@torch.inference_mode()
def _features(algorithm: Algorithm, split: DeviceSplit, rows: np.ndarray) -> torch.Tensor:
    """Return the features of the network that predicts, float64[M,D] on the CPU."""
    kept = []
    per_pass = images_per_pass(split, algorithm)
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
    """Return the silhouette (Rousseeuw 1987) by Euclidean distance.

    It is the mean of (b − a) / max(a, b) over the images, where a is the mean distance of an image
    to the others of its label, and b the smallest mean distance to the images of another label. An
    image with a = b = 0, or without others of its label, counts as 0.

    Args:
        features: float[M,D].
        labels: int64[M], or None.

    Returns:
        A number from −1 to 1, or None if images have no label, several labels, or all the same.
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
    """Return coordinates on the first principal axes, and the share of the variance of each axis.

    The sign of each axis is such that the coordinate of largest size is positive.

    Args:
        features: float64[M,D].
        most: the largest number of axes.

    Returns:
        Coordinates float64[M,P] and shares float64[P], with P ≤ ``most``.
    """
    centred = features - features.mean(0)
    size, width = centred.shape
    # Both products have the variances as eigenvalues; the smaller one is cheaper.
    product = centred @ centred.T if size < width else centred.T @ centred
    values, vectors = torch.linalg.eigh(product)
    kept = min(most, size, width)
    values = values.flip(0)[:kept].clamp_min(0)
    vectors = vectors.flip(1)[:, :kept]
    coordinates = vectors * values.sqrt() if size < width else centred @ vectors
    extreme = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True))
    total = centred.square().sum()
    signs = torch.where(extreme < 0, -1.0, 1.0)
    return coordinates * signs, values / total if total > 0 else values
