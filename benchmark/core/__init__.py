"""Base classes, registries and value types that every other part of ShortcutBed uses.

Names are imported on first use, so that planning and reporting do not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.core.algorithm import Algorithm as Algorithm
    from benchmark.core.algorithm import Draw as Draw
    from benchmark.core.algorithm import Paper as Paper
    from benchmark.core.algorithm import Setting as Setting
    from benchmark.core.algorithm import TrainingRun as TrainingRun
    from benchmark.core.algorithm import Upstream as Upstream
    from benchmark.core.batch import Batch as Batch
    from benchmark.core.criteria import CRITERIA as CRITERIA
    from benchmark.core.criteria import Criterion as Criterion
    from benchmark.core.criteria import Validation as Validation
    from benchmark.core.dataset import DatasetInfo as DatasetInfo
    from benchmark.core.dataset import DatasetSource as DatasetSource
    from benchmark.core.dataset import GroupedDataset as GroupedDataset
    from benchmark.core.dataset import Split as Split
    from benchmark.core.errors import Problems as Problems
    from benchmark.core.errors import Refused as Refused
    from benchmark.core.errors import UserError as UserError
    from benchmark.core.hparam import Choice as Choice
    from benchmark.core.hparam import HParam as HParam
    from benchmark.core.hparam import LogUniform as LogUniform
    from benchmark.core.hparam import Uniform as Uniform
    from benchmark.core.layout import RunFolder as RunFolder
    from benchmark.core.layout import State as State
    from benchmark.core.layout import SweepFolder as SweepFolder
    from benchmark.core.needs import Needs as Needs
    from benchmark.core.optim import COMMON_HPARAMS as COMMON_HPARAMS
    from benchmark.core.optim import make_optimizer as make_optimizer
    from benchmark.core.optim import shared_hparams as shared_hparams
    from benchmark.core.parallel_forward import ParallelForward as ParallelForward
    from benchmark.core.record import RunRecord as RunRecord
    from benchmark.core.registry import ALGORITHMS as ALGORITHMS
    from benchmark.core.registry import BACKBONES as BACKBONES
    from benchmark.core.registry import DATASETS as DATASETS
    from benchmark.core.registry import EXPLAINERS as EXPLAINERS
    from benchmark.core.registry import EXPLANATION_METRICS as EXPLANATION_METRICS
    from benchmark.core.registry import Registry as Registry
    from benchmark.core.seeds import seed_for as seed_for
    from benchmark.core.spec import MAX_STEPS as MAX_STEPS
    from benchmark.core.spec import SCHEMA as SCHEMA
    from benchmark.core.spec import RunSpec as RunSpec

_HOME = {
    "algorithm": ("Algorithm", "Draw", "Paper", "TrainingRun", "Setting", "Upstream"),
    "batch": ("Batch",),
    "criteria": ("CRITERIA", "Criterion", "Validation"),
    "dataset": ("DatasetInfo", "DatasetSource", "GroupedDataset", "Split"),
    "errors": ("Problems", "Refused", "UserError"),
    "hparam": ("Choice", "HParam", "LogUniform", "Uniform"),
    "needs": ("Needs",),
    "optim": ("COMMON_HPARAMS", "make_optimizer", "shared_hparams"),
    "layout": ("RunFolder", "State", "SweepFolder"),
    "parallel_forward": ("ParallelForward",),
    "record": ("RunRecord",),
    "registry": (
        "ALGORITHMS",
        "BACKBONES",
        "DATASETS",
        "EXPLAINERS",
        "EXPLANATION_METRICS",
        "Registry",
    ),
    "seeds": ("seed_for",),
    "spec": ("MAX_STEPS", "SCHEMA", "RunSpec"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_MODULE)
