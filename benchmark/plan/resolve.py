"""From names to a fully resolved RunSpec, with every check that needs no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.core.dataset import AUGMENTATIONS, DatasetInfo, DatasetSource
from benchmark.core.errors import Refused, UserError
from benchmark.core.hparam import HParam, check_values
from benchmark.core.needs import DESCRIPTIONS
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS, did_you_mean
from benchmark.core.spec import RunSpec
from benchmark.plan.sweepfile import BUDGET, COMPUTE, Named, SweepConfig, check_like, parse_named

#: Keys of an [override.NAME] table that are not hyper-parameters.
TABLES = ("dataset", "budget", "augmentation", "backbone")


@dataclass(frozen=True)
class Wish:
    """One run as a sweep or an upstream asks for it.

    Args:
        dataset: name and options as written.
        method: ``algorithm`` or ``algorithm:variant``.
        hparams, dataset_options, budget, backbone: what an upstream request changes, on top of the sweep's overrides.
    """

    dataset: Named
    method: str
    trial: int
    draw: int
    hparams: Mapping[str, Any] | None = None
    dataset_options: Mapping[str, Any] | None = None
    budget: Mapping[str, Any] | None = None
    backbone: str | None = None


class Resolver:
    """Resolves the runs of one sweep; remembers each data source, since their digests cost time.

    Args:
        config: the sweep.
        data_dir: folder of downloaded data.
    """

    def __init__(self, config: SweepConfig, data_dir: Path | None) -> None:
        self.config, self.data_dir = config, data_dir
        self._sources: dict[str, tuple[DatasetSource, DatasetInfo, str]] = {}

    def resolve(self, wish: Wish) -> RunSpec:
        """The spec of a wish, without its upstream runs.

        Raises:
            Refused: the method cannot run on this data.
            UserError: something does not exist, is of the wrong type, or its data is missing.
        """
        algorithm, _, variant = wish.method.partition(":")
        kind = ALGORITHMS.get(algorithm)
        if variant and variant not in kind.variants:
            raise UserError(f"{algorithm} has no variant {variant!r}{did_you_mean(variant, kind.variants)}")
        changes = self._changes(wish)
        source, info, fingerprint = self._source(wish, changes["dataset"])
        backbone = parse_named(wish.backbone or changes["backbone"] or str(self.config.backbone))
        side = max(info.image_size[1:])
        spec = RunSpec(
            dataset=wish.dataset.name,
            dataset_options=dict(source.chosen),
            data_fingerprint=fingerprint,
            algorithm=algorithm,
            variant=variant,
            backbone=backbone.name,
            backbone_options=self._backbone_options(backbone, info),
            hparams=self._hparams(wish, kind, variant, side, changes["hparams"]),
            trial=wish.trial,
            draw=wish.draw,
            budget=self._budget({**changes["budget"], **(wish.budget or {})}),
            selection=self.config.selection,
            augmentation=self._augmentation(info, changes["augmentation"]),
            oracle=self.config.oracle,
            compute={**COMPUTE, **self.config.compute},
        )
        self._check_possible(spec, kind, info)
        return spec

    def _changes(self, wish: Wish) -> dict[str, Any]:
        """What the sweep's overrides change for this run: the more special one wins."""
        algorithm, name = wish.method.partition(":")[0], wish.dataset.name
        merged: dict[str, Any] = {"hparams": {}, "dataset": {}, "budget": {}, "augmentation": None, "backbone": None}
        order = [name, str(wish.dataset), algorithm, wish.method, f"{algorithm}@{name}", f"{wish.method}@{name}"]
        for table in (self.config.override.get(n) for n in dict.fromkeys(order)):
            if table is None:
                continue
            for key, value in table.items():
                if key in ("dataset", "budget", "augmentation"):
                    if not isinstance(value, dict):
                        raise UserError(
                            f"override: {key} = {value!r} is not a table, expected {key} = {{ name = value }}."
                        )
                    merged[key] = {**(merged[key] or {}), **value}
                elif key == "backbone":
                    merged[key] = str(value)
                else:
                    merged["hparams"][key] = value
        return merged

    def _source(self, wish: Wish, override: Mapping[str, Any]) -> tuple[DatasetSource, DatasetInfo, str]:
        kind = DATASETS.get(wish.dataset.name)
        options: dict[str, Any] = {}
        for name, text in wish.dataset.options.items():
            if name not in kind.options:
                raise UserError(f"{wish.dataset.name} has no option {name!r}{did_you_mean(name, kind.options)}")
            options[name] = kind.options[name].parse(f"{wish.dataset.name}: {name}", text)
        options.update(override)
        options.update(wish.dataset_options or {})
        cached = f"{wish.dataset.name} {sorted(options.items())}"
        if cached not in self._sources:
            source = kind(self.data_dir, **options)
            source.check()
            self._sources[cached] = source, source.info(), source.fingerprint()
        return self._sources[cached]

    def _backbone_options(self, backbone: Named, info: DatasetInfo) -> dict[str, Any]:
        kind = BACKBONES.get(backbone.name)
        options = {name: option.default for name, option in kind.options.items()}
        for name, text in backbone.options.items():
            if name not in kind.options:
                raise UserError(f"{backbone.name} has no option {name!r}{did_you_mean(name, kind.options)}")
            options[name] = kind.options[name].parse(f"{backbone.name}: {name}", text)
        side = min(info.image_size[1:])
        if side < kind.capabilities.min_side:
            raise UserError(
                f"{backbone.name} needs images of at least {kind.capabilities.min_side} pixels, and these have {side}; "
                'use backbone = "convnet".'
            )
        return options

    def _hparams(self, wish: Wish, kind: Any, variant: str, side: int, override: Mapping[str, Any]) -> dict[str, Any]:
        """Declared default or draw < [fixed] < the variant < [override.NAME] < what an upstream request says."""
        declared: dict[str, HParam] = kind.all_hparams(side)
        values = {name: h.draw(name, wish.trial, wish.draw) for name, h in declared.items()}
        fixed = {name: value for name, value in self.config.fixed.items() if name in declared}
        for given in (fixed, kind.variants.get(variant, {}), override, wish.hparams or {}):
            values.update(check_values(declared, given, wish.method))
        return values

    def _budget(self, override: Mapping[str, Any]) -> dict[str, Any]:
        budget: dict[str, Any] = {**BUDGET, **self.config.budget, **check_like(BUDGET, "budget", override)}
        if "evaluate_every" not in self.config.budget and "evaluate_every" not in override:
            budget["evaluate_every"] = max(budget["steps"] // 10, 1)
        if budget["patience"] and self.config.selection[0] == "last":
            raise UserError(
                'patience needs a criterion that measures; name it first: selection = ["val_accuracy", "last"].'
            )
        return budget

    def _augmentation(self, info: DatasetInfo, override: Mapping[str, Any] | None) -> dict[str, float]:
        """Override, else the sweep's table, else what the data set says; zeros are left out."""
        chosen = override if override is not None else self.config.augmentation
        values = check_values(AUGMENTATIONS, info.augmentation if chosen is None else chosen, "augmentation", "kind")
        return {name: value for name, value in values.items() if value > 0}

    def _check_possible(self, spec: RunSpec, kind: Any, info: DatasetInfo) -> None:
        missing = kind.needs.missing_from(info.provides)
        where = f"{spec.method} on {spec.dataset}"
        if missing:
            what = " and ".join(DESCRIPTIONS[name] for name in missing)
            raise Refused(f"{where}: the method needs {what}, which this data ({_options(spec)}) does not have.")
        for criterion in spec.selection:
            if criterion in ("val_worst_group", "val_mean") and not info.provides.val_groups:
                raise Refused(
                    f"{where}: selection by {criterion} needs {DESCRIPTIONS['val_groups']}; this data has none."
                )
            if criterion == "val_objective" and not _overrides_objective(kind):
                raise Refused(f"{where}: the method declares no objective to select by; use val_accuracy.")
        reason = kind.refuses(spec)
        if reason:
            raise Refused(f"{where}: {reason}")

    def upstream(self, wish: Wish, spec: RunSpec) -> dict[str, Wish]:
        """The wishes of a run's upstream runs, by role: same trial, default draw, the sweep's own overrides."""
        wishes = {}
        for role, request in ALGORITHMS.get(spec.algorithm).upstream(spec).items():
            method = f"{request.algorithm}:{request.variant}" if request.variant else request.algorithm
            wishes[role] = replace(
                wish,
                method=method,
                draw=0,
                hparams=request.hparams,
                dataset_options={**spec.dataset_options, **request.dataset_options},
                budget=request.budget,
                backbone=request.backbone,
            )
        return wishes


def _overrides_objective(kind: Any) -> bool:
    from benchmark.core.algorithm import Algorithm

    return kind.objective is not Algorithm.objective


def _options(spec: RunSpec) -> str:
    return ", ".join(f"{k}={v}" for k, v in spec.dataset_options.items()) or "no options"
