"""The vocabulary. Names are imported on first use, so that planning and reporting never load torch."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "algorithm": ("Algorithm", "Paper", "Run", "Setting", "Upstream"),
    "batch": ("Batch",),
    "criteria": ("CRITERIA", "Criterion", "Validation"),
    "dataset": ("DatasetInfo", "DatasetSource", "GroupedDataset", "Split"),
    "errors": ("Problems", "Refused", "UserError"),
    "explainer": ("Explainer",),
    "hparam": ("Choice", "HParam", "LogUniform", "Uniform"),
    "needs": ("Needs",),
    "optim": ("COMMON_HPARAMS", "make_optimizer"),
    "layout": ("RunFolder", "State", "SweepFolder"),
    "record": ("RunRecord",),
    "registry": ("ALGORITHMS", "BACKBONES", "DATASETS", "EXPLAINERS", "Registry"),
    "seeds": ("seed_for",),
    "spec": ("SCHEMA", "RunSpec"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_MODULE)
