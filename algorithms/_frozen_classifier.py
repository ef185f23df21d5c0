"""The classifier that a method which trains an explainer explains."""

from __future__ import annotations

from typing import Any

from torch import nn

from benchmark.core import Setting, UserError
from benchmark.models.base import Backbone


def frozen_classifier(name: str, network: nn.Module, setting: Setting) -> Backbone:
    """Return a network with the weights of the explained classifier.

    Args:
        name: name of the method that explains, for messages.
        network: a new network of the same kind, which gets the weights.
        setting: setting of the method that explains, with the upstream run ``classifier``.

    Raises:
        UserError: the model of the explained method is no backbone.
    """
    classifier = setting.upstream["classifier"].network
    if not isinstance(classifier, Backbone):
        raise UserError(
            f"{name} explains backbones, and the model of {setting.hparams['explained']} is a "
            f"{type(classifier).__name__}; explain another method."
        )
    own: Any = network
    own.load_state_dict(classifier.state_dict())
    return own  # type: ignore[no-any-return]
