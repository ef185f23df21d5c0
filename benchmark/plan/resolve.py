"""Resolve a request for a run into a RunSpec, with every check that needs no training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.core.backbone_options import without_defaults
from benchmark.core.criteria import CRITERIA
from benchmark.core.dataset import AUGMENTATIONS, DatasetInfo, DatasetSource, batch_size_problem
from benchmark.core.errors import ErrorCollector, Refused, UserError
from benchmark.core.hparam import HParam, check_values, is_grid, parse_values, resolve_values
from benchmark.core.named_options import (
    NamedOptions,
    base_name,
    method_name,
    parse_backbone,
    split_method,
)
from benchmark.core.needs import DESCRIPTIONS
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS, did_you_mean
from benchmark.core.spec import RunSpec
from benchmark.core.transforms import check_transform, is_transform
from benchmark.plan.sweepfile import (
    BUDGET,
    COMPUTE,
    MAX_ENTRIES,
    SweepConfig,
    check_table,
    read_selection,
)

#: Keys of an [override.NAME] table that are not hyper-parameters.
TABLES = ("dataset", "budget", "augmentation", "backbone", "selection")
#: Largest number of evaluations of a run; the log has a line for each.
MAX_EVALUATIONS = 100_000
#: Largest size of the images of a batch in bytes, as float32. Activations take many times as much.
MAX_BATCH_BYTES = 16 * 2**30


@dataclass(frozen=True)
class RunRequest:
    """A run as a sweep or an upstream declaration describes it.

    Args:
        dataset: Name and options as written in the sweep file.
        method: ``algorithm`` or ``algorithm:variant``.
        trial: Number of the trial.
        draw: Number of the hyper-parameter draw.
        hparams: Hyper-parameters that an upstream declaration changes, in addition to the
            overrides of the sweep.
        dataset_options: Data-set options that an upstream declaration changes.
        budget: Parts of the budget that an upstream declaration changes.
        backbone: Backbone of an upstream declaration.
    """

    dataset: NamedOptions
    method: str
    trial: int
    draw: int
    hparams: Mapping[str, Any] | None = None
    dataset_options: Mapping[str, Any] | None = None
    budget: Mapping[str, Any] | None = None
    backbone: NamedOptions | None = None


@dataclass(frozen=True)
class PlannedData:
    """The data of some runs of a plan.

    Args:
        source: Source of the data.
        info: Description of the data. If they are absent, the description of complete data.
        fingerprint: Identity of the data.
        absent: Why the data cannot be used, or None.
    """

    source: DatasetSource
    info: DatasetInfo
    fingerprint: str
    absent: str | None = None


@dataclass
class _Overrides:
    """Changes of the [override.NAME] tables of a sweep for one run."""

    hparams: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] | None = None
    backbone: str | None = None
    selection: tuple[str, ...] | None = None

    def update(self, table: Mapping[str, Any]) -> None:
        """Apply a more specific table."""
        for key, value in table.items():
            if key in ("dataset", "budget", "augmentation"):
                if not isinstance(value, dict):
                    raise UserError(
                        f"override: {key} = {value!r} is not a table, "
                        f"expected {key} = {{ name = value }}."
                    )
                setattr(self, key, {**(getattr(self, key) or {}), **value})
            elif key == "backbone":
                self.backbone = str(value)
            elif key == "selection":
                self.selection = read_selection(key, value)
            else:
                self.hparams[key] = value


class Resolver:
    """Resolve the runs of one sweep. Data sources are kept, since their digests take time.

    Args:
        config: The sweep.
        data_dir: Folder of downloaded data.
        absent_ok: True to plan runs on absent data too, for a dry run.

    Attributes:
        data: Data of the resolved runs, by fingerprint.
    """

    def __init__(self, config: SweepConfig, data_dir: Path | None, absent_ok: bool = False) -> None:
        self.config = config
        self.data_dir = data_dir
        self.absent_ok = absent_ok
        self.data: dict[str, PlannedData] = {}
        self._data_by_options: dict[str, PlannedData] = {}

    def resolve(self, request: RunRequest) -> RunSpec:
        """Return the spec of a request, without its upstream runs.

        Raises:
            Refused: If the method cannot run on this data.
            UserError: If something does not exist or has the wrong type, or if data are missing.
            Problems: If there are several such mistakes.
        """
        algorithm, variant = split_method(request.method)
        errors = ErrorCollector()
        kind = errors(_algorithm, algorithm, variant)
        changes = errors(self._overrides, request) or _Overrides()
        data = errors(self._data, request, changes.dataset)
        info = data.info if data else None
        backbone = request.backbone or self.config.backbone
        if changes.backbone and not request.backbone:
            backbone = errors(parse_backbone, changes.backbone) or backbone
        options = errors(self._backbone_options, backbone, info)
        hparams = kind and errors(self._hparams, request, kind, variant, info, changes.hparams)
        own_selection = kind.own_selection if kind else ()
        selection = changes.selection or own_selection or self.config.selection
        budget = errors(self._budget, {**changes.budget, **(request.budget or {})}, selection)
        augmentation = errors(self._augmentation, info, changes.augmentation)
        errors.finish()
        assert kind and data and info  # If one of them is missing, finish has raised an error.
        spec = RunSpec(
            dataset=request.dataset.name,
            dataset_options=data.source.identity(),
            data_fingerprint=data.fingerprint,
            algorithm=algorithm,
            variant=variant,
            backbone=backbone.name,
            backbone_options=options or {},
            hparams=hparams or {},
            trial=request.trial,
            draw=request.draw,
            budget=budget or {},
            selection=selection,
            augmentation=augmentation or {},
            oracle=self.config.oracle,
            evaluate_train=self.config.evaluate_train,
            compute={**COMPUTE, **self.config.compute},
        )
        spec = replace(spec, curves=_curves_of(kind, self.config.curves))
        _check_batch(spec, info, None if data.absent is not None else data.source.train_size())
        switch = switch_of(spec)
        if self.config.select_before_switch and 0 < switch < spec.training_budget.steps:
            spec = replace(spec, select_before_switch=True)
        _check_possible(spec, kind, info)
        return spec

    def _overrides(self, request: RunRequest) -> _Overrides:
        """Return the overrides for a run. More specific tables have priority."""
        algorithm = base_name(request.method)
        datasets = (request.dataset.name, str(request.dataset))
        methods = (algorithm, request.method)
        both = (f"{method}@{dataset}" for method in methods for dataset in datasets)
        overrides = _Overrides()
        for name in dict.fromkeys([*datasets, *methods, *both]):
            overrides.update(self.config.override.get(name, {}))
        return overrides

    def _data(self, request: RunRequest, override: Mapping[str, Any]) -> PlannedData:
        kind = DATASETS.get(request.dataset.name)
        options = {
            **parse_values(kind.options, request.dataset.options, request.dataset.name),
            **override,
            **(request.dataset_options or {}),
        }
        identity = f"{request.dataset.name} {sorted(options.items())}"
        if identity not in self._data_by_options:
            source = kind(self.data_dir, **options)
            try:
                source.check()
                data = PlannedData(source, source.info(), source.fingerprint())
            except UserError as error:
                if not self.absent_ok:
                    raise
                info = _info_without_files(kind, options, error)
                data = PlannedData(source, info, f"absent: {identity}", str(error))
            self._data_by_options[identity] = data
            self.data[data.fingerprint] = data
        return self._data_by_options[identity]

    def _backbone_options(self, backbone: NamedOptions, info: DatasetInfo | None) -> dict[str, Any]:
        kind = BACKBONES.get(backbone.name)
        defaults = {name: option.default for name, option in kind.options.items()}
        declared = kind.all_options()
        given = parse_values(declared, backbone.options, backbone.name)
        options = {
            name: value
            for name, value in {**defaults, **without_defaults(given)}.items()
            if not declared[name].omit_default or value != declared[name].default
        }
        if info is not None:
            kind.check_options(info.image_size, options)
        return options

    def _hparams(
        self,
        request: RunRequest,
        kind: Any,
        variant: str,
        info: DatasetInfo | None,
        override: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return all hyper-parameters.

        In order of increasing priority, they come from the declaration (default or draw), from
        [fixed], from the variant, from [override.NAME], and from an upstream declaration.
        """
        declared: dict[str, HParam] = kind.all_hparams(max(info.image_size[1:]) if info else 0)
        draw = 0 if self.config.grid else request.draw
        values = {name: h.draw(name, request.trial, draw) for name, h in declared.items()}
        errors = ErrorCollector()
        layers = self._layers(declared, kind, variant, override, request)
        for given in layers:
            grids = {name for name, value in given.items() if name in declared and is_grid(value)}
            values.update({name: declared[name].default for name in grids})
            plain = {name: value for name, value in given.items() if name not in grids}
            resolved = errors(resolve_values, declared, plain, request.method, request.trial, draw)
            values.update(resolved or {})
        grid = errors(_grid_of, declared, layers, request.method) or {}
        if grid and request.draw and not self.config.grid:
            errors(_refuse_grid, request.method, grid)
        if self.config.grid and request.draw:
            values.update(_grid_point(grid, request.draw))
        errors.finish()
        omitted = {n for n, h in declared.items() if h.omit_default and values[n] == h.default}
        return {name: value for name, value in values.items() if name not in omitted}

    def _layers(
        self,
        declared: Mapping[str, HParam],
        kind: Any,
        variant: str,
        override: Mapping[str, Any],
        request: RunRequest,
    ) -> list[Mapping[str, Any]]:
        """Return the tables that give values to hyper-parameters, the least important first."""
        fixed = {name: value for name, value in self.config.fixed.items() if name in declared}
        return [fixed, kind.variants.get(variant, {}), override, request.hparams or {}]

    def draws(self, dataset: NamedOptions, method: str) -> Sequence[int]:
        """Return the numbers of the draws of a method: those of the sweep, or of its grid.

        Raises:
            UserError: If the method does not exist, or its grid is too large.
            Problems: If there are several mistakes.
        """
        if not self.config.grid:
            return self.config.draws
        grid = self._grid(RunRequest(dataset, method, 0, 0))
        points = math.prod(map(len, grid.values()))
        if points > MAX_ENTRIES:
            raise UserError(
                f"{method}: its grid has {points:,} points, expected at most {MAX_ENTRIES:,}."
            )
        return range(1, points + 1) if grid else (0,)

    def _grid(self, request: RunRequest) -> dict[str, tuple[Any, ...]]:
        """Return the hyper-parameters of a method that have a grid, in order of declaration."""
        algorithm, variant = split_method(request.method)
        kind = _algorithm(algorithm, variant)
        declared = kind.all_hparams(0)
        override = self._overrides(request).hparams
        layers = self._layers(declared, kind, variant, override, request)
        return _grid_of(declared, layers, request.method)

    def _budget(self, override: Mapping[str, Any], selection: Sequence[str]) -> dict[str, Any]:
        budget: dict[str, Any] = {
            **BUDGET,
            **self.config.budget,
            **check_table(BUDGET, "budget", override),
        }
        if "evaluate_every" not in self.config.budget and "evaluate_every" not in override:
            budget["evaluate_every"] = max(budget["steps"] // 10, 1)
        evaluations = budget["steps"] // budget["evaluate_every"]
        if evaluations > MAX_EVALUATIONS:
            raise UserError(
                f"steps = {budget['steps']:,} with evaluate_every = {budget['evaluate_every']:,} "
                f"makes {evaluations:,} evaluations, expected at most {MAX_EVALUATIONS:,}; "
                "increase evaluate_every."
            )
        if budget["patience"] and not CRITERIA[selection[0]].is_quality:
            raise UserError(
                f"early stopping (patience) cannot follow the criterion {selection[0]}; put one "
                'that measures quality first: selection = ["val_accuracy", "last"].'
            )
        return budget

    def _augmentation(
        self, info: DatasetInfo | None, override: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the augmentation of the override, else of the sweep, else of the data set."""
        given = override if override is not None else self.config.augmentation
        if given is None:
            given = info.augmentation if info else {}
        transforms = {name: value for name, value in given.items() if is_transform(name)}
        numbers = {name: value for name, value in given.items() if name not in transforms}
        errors = ErrorCollector()
        checked = errors(check_values, AUGMENTATIONS, numbers, "augmentation", "kind") or {}
        augmentation = {name: value for name, value in checked.items() if value > 0}
        for name, options in transforms.items():
            if options != 0 and info is not None:
                augmentation[name] = errors(check_transform, name, options, info.image_size)
        errors.finish()
        return augmentation

    def upstream(self, request: RunRequest, spec: RunSpec) -> dict[str, RunRequest]:
        """Return requests for the upstream runs of a run, by role.

        They have the same trial, data and backbone, but overrides of their own. They have the
        default draw, or the draw of the run if the algorithm declares that.
        """
        requests = {}
        options = {name: str(value) for name, value in spec.backbone_options.items()}
        same_backbone = NamedOptions(spec.backbone, options)
        for role, needed in ALGORITHMS.get(spec.algorithm).upstream(spec).items():
            backbone = parse_backbone(needed.backbone) if needed.backbone else same_backbone
            hparams = needed.hparams
            if needed.same_draw and self.config.grid:
                known = ALGORITHMS.get(needed.algorithm).all_hparams(0)
                shared = [n for n in self._grid(request) if n in known and n in spec.hparams]
                hparams = {**{name: spec.hparams[name] for name in shared}, **hparams}
            requests[role] = replace(
                request,
                method=method_name(needed.algorithm, needed.variant),
                draw=request.draw if needed.same_draw else 0,
                hparams=hparams,
                dataset_options={**spec.dataset_options, **needed.dataset_options},
                budget=needed.budget,
                backbone=backbone,
            )
        return requests

    def check_fits(self, spec: RunSpec, role: str, upstream: RunSpec) -> None:
        """Check that an upstream run has the same labels and image size as a run.

        Raises:
            UserError: If it does not.
        """
        info = self.data[spec.data_fingerprint].info
        other = self.data[upstream.data_fingerprint].info
        if (info.label_names, info.image_size) != (other.label_names, other.image_size):
            raise UserError(
                f"{spec.method} on {spec.dataset}: its {role}, {upstream.method} with "
                f"{_options(upstream)}, has other labels or another image size, expected the same."
            )


def _check_batch(spec: RunSpec, info: DatasetInfo, train_size: int | None) -> None:
    """Raise a UserError if the batch size is so large that it must be a mistake.

    Args:
        spec: Spec of the run.
        info: Description of its data.
        train_size: Number of training images, or None if it is unknown.
    """
    rows = spec.hparams["batch_size"]
    height, width = BACKBONES.get(spec.backbone).sides_inside(
        spec.backbone_options, *info.image_size[1:]
    )
    needed = 4 * rows * info.image_size[0] * height * width
    if needed > MAX_BATCH_BYTES:
        max_rows = max(MAX_BATCH_BYTES * rows // needed, 1)
        raise UserError(
            f"{spec.method} on {spec.dataset}: batch_size = {rows:,} makes batches of "
            f"{needed / 2**30:,.0f} GiB of images ({height}×{width}), expected at most "
            f"{MAX_BATCH_BYTES / 2**30:.0f} GiB; use a batch_size of {max_rows:,} or less."
        )
    if train_size is not None:
        problem = batch_size_problem(rows, train_size)
        if problem:
            raise UserError(f"{spec.method} on {spec.dataset}: {problem}")


def _check_possible(spec: RunSpec, kind: Any, info: DatasetInfo) -> None:
    """Raise Refused if the method cannot run on the data."""
    run = f"{spec.method} on {spec.dataset}"
    if info.multi_label and not kind.multi_label:
        able = ", ".join(name for name in ALGORITHMS.names() if ALGORITHMS.get(name).multi_label)
        raise Refused(
            f"{run}: the method takes one label per image, and images of this data may have "
            f"several; use {able}."
        )
    missing = kind.needs.missing_from(info.annotations)
    if missing:
        raise Refused(
            f"{run}: the method needs {_describe(missing)}, which this data ({_options(spec)}) "
            "does not have."
        )
    for name in spec.selection:
        criterion = CRITERIA[name]
        missing = criterion.needs.missing_from(info.annotations)
        if missing:
            raise Refused(
                f"{run}: selection by {name} needs {_describe(missing)}, which this data does not "
                "have; use val_accuracy or val_worst_class."
            )
        if criterion.uses_objective and not _overrides_objective(kind):
            raise Refused(
                f"{run}: the method declares no objective to select by; use val_accuracy."
            )
    reason = kind.refuses(spec, info)
    if reason:
        raise Refused(f"{run}: {reason}")
    # With sampling by environment, a batch has an image of each of at least two environments.
    single = spec.hparams["batch_size"] == 1 and kind.sampling != "environment"
    if single and kind.fewest_rows(spec, info) > 1:
        raise Refused(
            f"{run}: with batch_size = 1, batch normalisation in the network sees one value per "
            "channel, which has no variance; use a batch_size of 2 or more, or larger images."
        )


def switch_of(spec: RunSpec) -> int:
    """Return the first step of the method, as its class declares (``Algorithm.active_from``).

    Raises:
        UserError: If the class returns an invalid step.
    """
    step = ALGORITHMS.get(spec.algorithm).active_from(spec.hparams, spec.budget)
    if type(step) is not int or step < 0:
        raise UserError(
            f"{spec.algorithm}.active_from returned {step!r}, expected a whole number of steps, "
            "0 or more."
        )
    return step


def _algorithm(name: str, variant: str) -> Any:
    """Return the class of an algorithm that has this variant."""
    kind = ALGORITHMS.get(name)
    if variant and variant not in kind.variants:
        raise UserError(f"{name} has no variant {variant!r}{did_you_mean(variant, kind.variants)}")
    return kind


def _info_without_files(kind: Any, options: Mapping[str, Any], error: UserError) -> DatasetInfo:
    """Return the description of absent data; raise ``error`` if only the files contain it."""
    try:
        info: DatasetInfo = kind(None, **options).info()
    except Exception:
        raise error from None
    if not info.label_names:
        raise error
    return info


def _overrides_objective(kind: Any) -> bool:
    from benchmark.core.algorithm import Algorithm

    return kind.objective is not Algorithm.objective


def _grid_of(
    declared: Mapping[str, HParam], layers: Sequence[Mapping[str, Any]], owner: str
) -> dict[str, tuple[Any, ...]]:
    """Return the values of each hyper-parameter with a grid that no later table replaces.

    Args:
        declared: The declared hyper-parameters.
        layers: Tables of values, the least important first.
        owner: Name of the method, for messages.
    """
    given: dict[str, Any] = {}
    for layer in layers:
        given.update(layer)
    return {
        name: hparam.grid_values(f"{owner}: {name}", given[name])
        for name, hparam in declared.items()
        if is_grid(given.get(name))
    }


def _grid_point(grid: Mapping[str, Sequence[Any]], draw: int) -> dict[str, Any]:
    """Return the values of a point of a grid; the last hyper-parameter varies fastest.

    Args:
        grid: The values of each hyper-parameter.
        draw: Number of the point, from 1.
    """
    point = {}
    index = draw - 1
    for name in reversed(list(grid)):
        index, position = divmod(index, len(grid[name]))
        point[name] = grid[name][position]
    return point


def _refuse_grid(method: str, grid: Mapping[str, Any]) -> None:
    raise UserError(
        f'{method}: {", ".join(grid)} has a grid, which needs draws = "grid"; random draws take '
        "{ choice = [value, …] }."
    )


def _curves_of(kind: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of ``RunSpec.curves`` that a method has; only students have a distance."""
    from benchmark.core.algorithm import Algorithm

    has_distance = kind.explanation_distance is not Algorithm.explanation_distance
    return tuple(name for name in names if name != "distance" or has_distance)


def _describe(needs: Sequence[str]) -> str:
    return " and ".join(DESCRIPTIONS[name] for name in needs)


def _options(spec: RunSpec) -> str:
    return ", ".join(f"{k}={v}" for k, v in spec.dataset_options.items()) or "no options"
