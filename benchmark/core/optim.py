"""Optimizers and learning-rate schedules, built from the hyper-parameters of every algorithm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from benchmark.core.errors import UserError
from benchmark.core.hparam import Choice, HParam, LogUniform

_SHARE = r"\s*(?:0|1|1\.0*|0?\.\d+)\s*"  # A number from 0 to 1.

#: Share of the steps in which the schedule ``warmup_cosine`` rises linearly, as transformers need.
WARMUP = 0.1
#: Largest batch size. The authors of IRM train on all 50,000 digits of Colored MNIST at once.
LARGEST_BATCH = 65_536

#: Hyper-parameters of every algorithm. Learning rate, weight decay and batch size follow DomainBed,
#: which distinguishes small and large images.
COMMON_HPARAMS: dict[str, HParam] = {
    "optimizer": HParam("adam", choices=("adam", "adamw", "sgd"), doc="optimiser"),
    "lr": HParam(
        1e-3,
        LogUniform(-4.5, -2.5),
        "learning rate",
        low=0.0,
        high=1e3,
        large=HParam(5e-5, LogUniform(-5, -3.5), "learning rate", low=0.0, high=1e3),
    ),
    "weight_decay": HParam(
        0.0,
        None,
        "weight decay",
        low=0.0,
        high=1e3,
        large=HParam(0.0, LogUniform(-6, -2), "weight decay", low=0.0, high=1e3),
    ),
    "momentum": HParam(0.9, doc="momentum of SGD", low=0.0, high=1.0),
    "batch_size": HParam(
        64,
        LogUniform(3, 9, base=2, integer=True),
        "images per step, over all environments",
        low=1,
        high=LARGEST_BATCH,
        large=HParam(
            32,
            LogUniform(3, 5.5, base=2, integer=True),
            "images per step",
            low=1,
            high=LARGEST_BATCH,
        ),
    ),
    "clip_norm": HParam(
        0.0, doc="bound on the norm of the gradient; 0 for none", low=0.0, high=1e9
    ),
    "lr_schedule": HParam(
        "constant",
        choices=("constant", "step", "cosine", "warmup_cosine"),
        doc="how the learning rate changes; warmup_cosine first rises for a tenth of the steps",
    ),
    "lr_decay": HParam(0.1, doc="factor of each fall (schedule step)", low=0.0, high=1.0),
    "lr_milestones": HParam(
        "0.5,0.75",
        doc="falls, as shares of the budget's steps (schedule step)",
        form=f"{_SHARE}(?:,{_SHARE})*",
    ),
    "dropout": HParam(
        0.0,
        None,
        "dropout before the last layer",
        low=0.0,
        high=1.0,
        large=HParam(
            0.0, Choice((0.0, 0.1, 0.5)), "dropout before the last layer", low=0.0, high=1.0
        ),
    ),
}


def shared_hparams(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters that every algorithm has, which two stages of a method share."""
    return {name: hparams[name] for name in COMMON_HPARAMS}


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter], hparams: Mapping[str, Any], **changed: Any
) -> torch.optim.Optimizer:
    """Build the optimizer that the shared hyper-parameters describe.

    Args:
        parameters: Parameters to optimize. Those that need no gradient are left out.
        hparams: Resolved hyper-parameters of the run.
        changed: Values that differ for this optimizer, such as ``lr`` or ``betas``.
    """
    values = {**hparams, **changed}
    trainable = [p for p in parameters if p.requires_grad]
    common = {"lr": values["lr"], "weight_decay": values["weight_decay"]}
    if values["optimizer"] == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            trainable, momentum=values["momentum"], **common
        )
    elif values["optimizer"] == "prodigy":
        optimizer = _prodigy()(trainable, decouple=True, safeguard_warmup=True, **common)
    else:
        kind = torch.optim.AdamW if values["optimizer"] == "adamw" else torch.optim.Adam
        # The fused step makes one pass over the memory: on a CPU it takes a quarter of the time.
        optimizer = kind(
            trainable, betas=values.get("betas", (0.9, 0.999)), fused=_fusible(trainable), **common
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _prodigy() -> Any:
    """Return the optimiser Prodigy (Mishchenko & Defazio 2024), whose ``lr`` is a factor near 1.

    Raises:
        UserError: the package prodigyopt is not installed.
    """
    try:
        from prodigyopt import Prodigy
    except ImportError:
        raise UserError(
            "optimizer = prodigy needs the package prodigyopt; install it with "
            "pip install 'shortcutbed[prodigy]', or choose another optimizer."
        ) from None
    return Prodigy


def _fusible(parameters: Iterable[torch.nn.Parameter]) -> bool | None:
    """Return True if torch has a fused step for these parameters, or None to leave it to torch."""
    return (
        all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters) or None
    )


def lr_factor(hparams: Mapping[str, Any], step: int, steps: int) -> float:
    """Return the factor of the initial learning rate at a step.

    It depends on nothing else, so resuming needs no state.
    """
    schedule = hparams["lr_schedule"]
    if schedule == "warmup_cosine":
        rise = min(1.0, (step + 1) / max(WARMUP * steps, 1))
        return rise * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))
    if schedule == "step":
        # Round up, but treat 0.55 * 100 = 55.000…01 as 55.
        shares = map(float, hparams["lr_milestones"].split(","))
        milestones = [math.ceil(share * steps - 1e-6) for share in shares]
        return float(hparams["lr_decay"] ** sum(step >= milestone for milestone in milestones))
    return 1.0


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every learning rate to the initial one times ``factor``.

    The initial learning rate is the one that the optimizer has at the first call.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
