"""Published weights of torchvision's networks, under the names of torchvision's weight enums."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import urllib.error
import zipfile
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.registry import did_you_mean

NONE = "none"

#: Declared by every backbone of torchvision.
WEIGHTS_OPTION = HParam(
    NONE, doc='published weights: "none", or a torchvision name such as "IMAGENET1K_V1"'
)

#: DenseNet's published files were written when a module could be called ``norm.1``.
_OLD_DENSE_KEY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def state_of_weights(builder: str, name: str) -> dict[str, torch.Tensor]:
    """Return the state dict that torchvision publishes as ``name`` for its network ``builder``.

    Args:
        builder: torchvision's name of the network, such as ``"resnet18"``.
        name: a member of its weight enum, such as ``"IMAGENET1K_V1"``, or ``"DEFAULT"``.

    Raises:
        UserError: the weights do not exist, cannot be downloaded, or their file is damaged.
    """
    from torchvision.models import get_model_weights

    known = get_model_weights(builder)
    if name not in known.__members__:
        raise UserError(
            f"{builder} has no weights {name!r}{did_you_mean(name, [*known.__members__, NONE])}"
        )
    weights: Any = known[name]
    folder = os.path.join(torch.hub.get_dir(), "checkpoints")
    file = os.path.join(folder, os.path.basename(urlparse(weights.url).path))
    try:
        state = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
        _check_hash(file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"the weights {name} of {builder} could not be downloaded ({error}); place "
            f"{os.path.basename(file)} in {folder}, or set weights = none."
        ) from None
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the weights {name} of {builder} could not be read ({reason}); delete {file} to "
            "download it again, place an intact copy there, or set weights = none."
        ) from None
    return {_OLD_DENSE_KEY.sub(r"\1\2", key): value for key, value in state.items()}


def weights_path(name: str) -> str:
    """Return the path of a file in torch's folder of checkpoints; an absolute path is kept."""
    return os.path.join(torch.hub.get_dir(), "checkpoints", name)


def read_weights_file(name: str) -> Any:
    """Return what a file in torch's folder of checkpoints contains; nothing is downloaded.

    Args:
        name: name of the file.

    Raises:
        UserError: the file does not exist or is damaged.
    """
    path = weights_path(name)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no file of weights {path}; place it there, or leave out the option file."
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the file of weights {path} could not be read ({reason}); place an intact copy there."
        ) from None


def torchvision_network(builder: str, weights: str, num_outputs: int, **options: Any) -> nn.Module:
    """Return torchvision's network ``builder`` with ``num_outputs`` outputs and published weights.

    The last layer, which in the published network has ImageNet's classes, is not loaded.

    Raises:
        UserError: as ``state_of_weights``.
    """
    from torchvision.models import get_model

    if weights == NONE:
        state = None
    else:
        state = state_of_weights(builder, weights)
    network: nn.Module = get_model(builder, weights=None, num_classes=num_outputs, **options)
    if state is not None:
        load_all_but_last(network, state, f"the weights {weights} of {builder}")
    return network


def load_all_but_last(
    network: nn.Module, state: dict[str, torch.Tensor], what: str, last: str = ""
) -> None:
    """Load a published state dict into a network, except for its last layer.

    The last layer keeps its initialisation.

    Args:
        network: the network.
        state: parameters and buffers by name.
        what: what the state dict is called in messages.
        last: name of the last layer; by default the last linear layer of the network.

    Raises:
        UserError: the state dict belongs to another network.
    """
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    last = last or linear[-1]
    body = {key: value for key, value in state.items() if not key.startswith(f"{last}.")}
    own = network.state_dict()
    others = [
        key
        for key, value in body.items()
        if key in own and torch.is_tensor(value) and value.shape != own[key].shape
    ]
    if others:
        found, wanted = (list(tensors[others[0]].shape) for tensors in (body, own))
        raise UserError(
            f"{what} do not fit this network ({len(others)} tensors have other shapes, such as "
            f"{others[0]} {found}, expected {wanted}); name the network to which they belong."
        )
    try:
        missing, unexpected = network.load_state_dict(body, strict=False)
    except RuntimeError as error:
        raise UserError(
            f"{what} do not fit this network ({str(error).splitlines()[-1].strip()})."
        ) from None
    wrong = [key for key in [*missing, *unexpected] if not key.startswith(f"{last}.")]
    if wrong:
        raise UserError(
            f"{what} do not fit this network ({len(wrong)} names are missing or unknown, such as "
            f"{wrong[0]}); name the network to which they belong."
        )


def refuse_with_weights(backbone: str, weights: str, what: str) -> None:
    """Raise a UserError if published weights are combined with ``what``.

    ``what`` names an option or property of the data that changes the first layers.
    """
    if weights != NONE:
        raise UserError(
            f"{backbone}: weights = {weights} cannot be used with {what}; set weights = none."
        )


def _check_hash(file: str) -> None:
    """Check the hash in a file's name; torch.hub does so only for files that it downloads."""
    wanted = re.search(r"-([a-f0-9]{8,})\.", os.path.basename(file))
    if wanted is None:
        return
    with open(file, "rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if not found.startswith(wanted.group(1)):
        raise ValueError(f"its sha256 begins with {found[:8]}, expected {wanted.group(1)}")
