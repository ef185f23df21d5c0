"""The models that can be audited: runs, exported networks, timm models and the user's own."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmark.api.exported import read_network, with_metadata
from benchmark.api.images import normalised
from benchmark.api.run import load_run
from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError, shown
from benchmark.core.hparam import parse_values
from benchmark.core.layout import RunFolder, SweepFolder
from benchmark.core.named_options import parse_backbone
from benchmark.core.registry import BACKBONES, did_you_mean
from benchmark.core.summaries import InputSummary
from benchmark.models.timm import TimmBackbone

#: Endings of exported networks.
_EXPORTED = (".pt2", ".onnx", ".safetensors")
_WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")
#: Options of the kinds of models: which run it is, and what a network expects and answers.
_OF_RUNS = ("method", "trial", "trained_on")
_OF_NETWORKS = ("mean", "std", "labels")
#: The largest number of characters of an error of the user's code that a message quotes.
_MAX_QUOTED = 300
#: The largest number of images in a forward pass.
_MAX_BATCH = 256
_MAX_PIXELS = 256 * 128 * 128


@dataclass
class AuditedModel:
    """A trained classifier.

    Args:
        name: name of the model in the report.
        scores: maps images uint8[N,C,H,W] to logits or probabilities float[N,K], in the order of
            the labels of the data.
        network: a module that maps the output of ``prepare`` to logits, for heatmaps; None if there
            is none.
        prepare: returns normalised images float[N,C,H,W].
        outputs: the output of ``network`` that belongs to each label of the data; empty if they
            have the same order.
    """

    name: str
    scores: Callable[[np.ndarray], np.ndarray]
    network: nn.Module | None = None
    prepare: Callable[[np.ndarray], torch.Tensor] | None = None
    outputs: Sequence[int] = ()


@dataclass(frozen=True)
class ModelOptions:
    """Options of the command line that describe the model.

    Attributes:
        method: Method of the run, if the model is a sweep.
        trial: Trial of the run, likewise.
        trained_on: Data set of the run, likewise.
        weights: File of weights of a timm model.
        mean: Mean of each channel, for timm models and those of the user; by default that of timm's
            description of the model, or that of the data.
        std: Standard deviation of each channel, likewise.
        labels: Names of the classes in the order of the model's outputs; by default that of the
            data.
        device: ``"cpu"`` or ``"cuda"``.
        data_dir: Folder of downloaded data sets.
    """

    method: str | None = None
    trial: int | None = None
    trained_on: str | None = None
    weights: Path | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    device: str = "cpu"
    data_dir: Path | None = None


def load_model(given: str, info: DatasetInfo, options: ModelOptions) -> AuditedModel:
    """Load the model that the command line names.

    Args:
        given: a folder of a run or a sweep, an exported network, ``timm:NAME``, or
            ``module:function`` of the user.
        info: the description of the data of the audit.
        options: what else is known about the model.

    Raises:
        UserError: there is no such model, or it accepts other images or has other classes than the
            data.
    """
    path = Path(given)
    if path.suffix.lower() in _EXPORTED:
        return _exported_model(path, info, options)
    if path.is_dir() and (RunFolder(path).spec.exists() or SweepFolder(path).exists()):
        _refuse_options(given, options, "a run", _OF_RUNS)
        return _run_model(path, info, options)
    name, colon, function = given.partition(":")
    if name == "timm" and colon:
        _refuse_options(given, options, "a network of timm", ("weights", *_OF_NETWORKS))
        return _timm_model(given, info, options)
    if function and re.fullmatch(r"\w+(\.\w+)*", name):
        _refuse_options(given, options, "a model of yours", _OF_NETWORKS)
        return _user_model(given, info, options)
    what = f"there is no model {given}"
    if path.is_dir():
        what = f"the folder {given} is neither that of a run nor that of a sweep"
    elif path.is_file():
        what = f"the file {given} is no model that can be audited by itself"
    raise UserError(
        f"{what}; expected the folder of a run or a sweep, a .pt2, .onnx or .safetensors file of "
        "Run.export, timm:NAME with --weights FILE, or module:function that makes the model."
    )


def _exported_model(path: Path, info: DatasetInfo, options: ModelOptions) -> AuditedModel:
    """Return the network of a file, which ``Run.export`` or another program wrote."""
    name = str(path)
    place = torch.device(options.device)
    network, text = read_network(path, place)
    if not text and path.suffix.lower() != ".safetensors":
        _refuse_options(name, options, "a network without metadata of ShortcutBed", _OF_NETWORKS)
        if not options.mean or not options.std:
            raise UserError(
                f"{name} has no metadata of ShortcutBed, which describe the normalisation of its "
                "images; give it by --mean and --std (0 and 1 for values from 0 to 1), or export "
                "the model with Run.export."
            )
        return _module_model(name, network, info, options)
    if not text:
        raise UserError(
            f"{name} has no metadata of ShortcutBed, from which its network could be built; audit "
            "a .pt2 or .onnx file instead, or module:function that makes the network."
        )
    _refuse_options(name, options, "a file of Run.export", ())
    exported = with_metadata(path, network, text, place)
    _check_size(name, exported.accepts, info)
    order = _order(name, exported.labels, info)
    return AuditedModel(
        name,
        lambda pixels: _numpy_logits(
            exported.forward, pixels, exported.accepts, order, exported.device
        ),
        exported.network if isinstance(exported.network, nn.Module) else None,
        lambda pixels: normalised(pixels, exported.accepts).to(exported.device),
        order,
    )


def _refuse_options(given: str, options: ModelOptions, kind: str, accepted: Sequence[str]) -> None:
    """Check that no option was given that this kind of model ignores.

    Raises:
        UserError: there is one.
    """
    for name in (*_OF_RUNS, "weights", *_OF_NETWORKS):
        if name not in accepted and getattr(options, name) not in (None, ()):
            raise UserError(
                f"--{name.replace('_', '-')} does not apply to {given}, which is {kind}; leave it "
                "out."
            )


def _run_model(path: Path, info: DatasetInfo, options: ModelOptions) -> AuditedModel:
    run = load_run(
        path,
        method=options.method,
        dataset=options.trained_on,
        trial=options.trial,
        device=options.device,
        data_dir=options.data_dir,
    )
    _check_size(str(path), run.accepts, info)
    order = _order(str(path), run.labels, info)
    return AuditedModel(
        run.record.spec.label(),
        lambda pixels: _numpy_logits(run.forward, pixels, run.accepts, order, run.device),
        run.network,
        lambda pixels: normalised(pixels, run.accepts).to(run.device),
        order,
    )


def _check_size(name: str, accepts: InputSummary, info: DatasetInfo) -> None:
    if tuple(accepts.image_size) != tuple(info.image_size):
        wanted = "×".join(map(str, accepts.image_size))
        found = "×".join(map(str, info.image_size))
        raise UserError(
            f"{name} accepts images of {wanted} (channels, height, width), but the data have "
            f"{found}; choose the size with an option of the data set, such as side="
            f"{accepts.image_size[1]}."
        )


def _order(name: str, labels: Sequence[str], info: DatasetInfo) -> list[int]:
    """Return the output of the model that belongs to each label of the data.

    Raises:
        UserError: the model does not know exactly the labels of the data.
    """
    if set(labels) != set(info.label_names) or len(labels) != len(info.label_names):
        raise UserError(
            f"{name} distinguishes the classes {', '.join(labels)}, but the data have "
            f"{', '.join(info.label_names)}; audit it on data with the same classes."
        )
    return [list(labels).index(label) for label in info.label_names]


def _numpy_logits(
    forward: Callable[[torch.Tensor], torch.Tensor],
    pixels: np.ndarray,
    accepts: InputSummary,
    order: Sequence[int],
    device: torch.device,
) -> np.ndarray:
    parts = []
    size = _images_per_pass(pixels)
    with torch.inference_mode():
        for start in range(0, len(pixels), size):
            image = normalised(pixels[start : start + size], accepts)
            parts.append(forward(image.to(device)).float().cpu())
    logits: np.ndarray = torch.cat(parts).numpy()
    return logits[:, list(order)]


def _images_per_pass(pixels: np.ndarray) -> int:
    """Return how many images uint8[N,C,H,W] a model is given at once."""
    return max(1, min(_MAX_BATCH, _MAX_PIXELS // int(np.prod(pixels.shape[2:]))))


def _module_model(
    name: str,
    network: Callable[[torch.Tensor], Any],
    info: DatasetInfo,
    options: ModelOptions,
) -> AuditedModel:
    """Return the audited model of a network that takes normalised images."""
    place = torch.device(options.device)
    if isinstance(network, nn.Module):
        network = network.to(place).eval()
    channels = info.image_size[0]
    accepts = InputSummary(
        image_size=info.image_size,
        mean=options.mean or info.mean,
        std=options.std or info.std,
    )
    for option, values in (("--mean", accepts.mean), ("--std", accepts.std)):
        if len(values) != channels:
            raise UserError(
                f"{option} has {len(values)} values, but images have {channels} channels."
            )
    order = _order(name, options.labels or info.label_names, info)
    count = len(info.label_names)

    def forward(image: torch.Tensor) -> torch.Tensor:
        try:
            output = network(image)
        except UserError:
            raise
        except Exception as error:  # code of the user
            raise UserError(
                f"{name} cannot compute images {list(image.shape)} of the data: {_quoted(error)}; "
                "correct the model, or choose the size of the images with an option of the data."
            ) from error
        if not torch.is_tensor(output) or output.ndim != 2 or len(output) != len(image):
            raise UserError(
                f"{name} returned {_described(output)} for {len(image)} images, expected logits "
                f"[{len(image)}, {count}] as one tensor."
            )
        if output.shape[1] == 1 and count == 2:  # one logit for the second class
            output = torch.cat([torch.zeros_like(output), output], 1)
        if output.shape[1] != count:
            raise UserError(
                f"{name} has {output.shape[1]} outputs, but the data have {count} classes: "
                f"{', '.join(info.label_names)}."
            )
        if not torch.isfinite(output).all():
            raise UserError(
                f"{name} returned logits that are infinite or no numbers; check its weights and "
                "the normalisation of its images (--mean, --std)."
            )
        return output

    return AuditedModel(
        name,
        lambda pixels: _numpy_logits(forward, pixels, accepts, order, place),
        network if isinstance(network, nn.Module) else None,
        lambda pixels: normalised(pixels, accepts).to(place),
        order,
    )


def _described(value: object) -> str:
    """Return what a value is, for a message."""
    if torch.is_tensor(value):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with {shown(list(value))}"
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {len(value)} values"
    return shown(value)


def _quoted(error: BaseException) -> str:
    """Return an error of the user's code on one line."""
    text = " ".join(str(error).split())
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return named if len(named) <= _MAX_QUOTED else f"{named[:_MAX_QUOTED]}…"


def _user_model(given: str, info: DatasetInfo, options: ModelOptions) -> AuditedModel:
    """Return the model that a function of the user makes."""
    made = _call(given)
    if isinstance(made, nn.Module):
        return _module_model(given, made, info, options)
    if not callable(made):
        raise UserError(
            f"{given} returned {_described(made)}, expected a torch.nn.Module, or a function from "
            "images uint8[N,C,H,W] to scores float[N,K]."
        )
    order = _order(given, options.labels or info.label_names, info)

    def scores(pixels: np.ndarray) -> np.ndarray:
        parts = [np.zeros((0, len(order)))]
        size = _images_per_pass(pixels)
        for start in range(0, len(pixels), size):
            part = np.array(pixels[start : start + size])
            found = _scores_of(given, made, part, len(order))
            if found.shape != (len(part), len(order)) or not np.isfinite(found).all():
                raise UserError(
                    f"{given} returned scores {list(found.shape)} for {len(part)} images, expected "
                    f"finite numbers [{len(part)}, {len(order)}]."
                )
            parts.append(found[:, order])
        return np.concatenate(parts)

    return AuditedModel(given, scores)


def _scores_of(
    given: str, made: Callable[[np.ndarray], Any], part: np.ndarray, count: int
) -> np.ndarray:
    """Return what a function of the user computes for images, as an array float64."""
    try:
        found = made(part)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # code of the user
        raise UserError(
            f"the function of {given} cannot compute images uint8{list(part.shape)}: "
            f"{_quoted(error)}; it must return scores [{len(part)}, {count}]."
        ) from error
    if torch.is_tensor(found):
        found = found.detach().cpu().double().numpy()
    try:
        return np.asarray(found, np.float64)
    except (TypeError, ValueError):
        raise UserError(
            f"{given} returned {_described(found)} for {len(part)} images, expected scores as "
            f"numbers [{len(part)}, {count}]."
        ) from None


def _call(given: str) -> Any:
    """Import a function of the user from the working directory or an installed package."""
    module_name, _, function_name = given.partition(":")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        advice = "call the command from the folder that contains it, or install its package."
        if module_name.endswith(".py"):
            advice = f"name it without .py: {module_name.removesuffix('.py')}:{function_name}."
        raise UserError(
            f"there is no module {error.name} for the model {given}; {advice}"
        ) from None
    except (Exception, SystemExit) as error:
        raise UserError(
            f"the module {module_name} of the model {given} cannot be imported: {_quoted(error)}; "
            "correct it, so that Python can import it."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value)]
        raise UserError(
            f"{module_name} has no function {function_name!r}{did_you_mean(function_name, known)}"
        )
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{given} failed: {_quoted(error)}; the function must make the model without arguments."
        ) from error


def _timm_model(given: str, info: DatasetInfo, options: ModelOptions) -> AuditedModel:
    """Return a network of timm with the weights of a file, and the normalisation of timm."""
    if options.weights is None:
        raise UserError(f"{given} needs the file of its weights: --weights FILE.")
    if not options.weights.is_file():
        raise UserError(f"there is no file {options.weights}; check --weights.")
    if options.weights.suffix not in _WEIGHTS:
        raise UserError(
            f"--weights {options.weights} is no file of weights; expected one that ends in "
            f"{', '.join(_WEIGHTS)}."
        )
    named = parse_backbone(given)
    kind: type[TimmBackbone] = BACKBONES.get(named.name)
    chosen: dict[str, Any] = parse_values(kind.all_options(), named.options, named.name)
    chosen |= {"file": str(options.weights.resolve()), "pixels": "data"}
    kind.check_options(info.image_size, chosen)
    network = kind(len(info.label_names), info.image_size, **chosen)
    if not network.has_trained_head:
        raise UserError(
            f"{options.weights} has no last layer of {len(info.label_names)} classes, as the data "
            f"have: {', '.join(info.label_names)}; audit a model that was trained on them."
        )
    if info.image_size[0] == len(network.traits.mean):
        options = replace(
            options,
            mean=options.mean or network.traits.mean,
            std=options.std or network.traits.std,
        )
    return _module_model(given, network, info, options)
