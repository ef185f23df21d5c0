"""From names to a fully resolved RunSpec, with every check that needs no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.core.backbone_options import without_defaults
from benchmark.core.criteria import CRITERIA
from benchmark.core.dataset import AUGMENTATIONS, DatasetInfo, DatasetSource, batch_size_problem
from benchmark.core.errors import ErrorCollector, Refused, UserError
from benchmark.core.hparam import HParam, check_values, resolve_values
from benchmark.core.named_options import (
    NamedOptions,
    base_name,
    method_name,
    parse_named_options,
    split_method,
)
from benchmark.core.needs import DESCRIPTIONS
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS, did_you_mean
from benchmark.core.spec import RunSpec
from benchmark.plan.sweepfile import (
    BUDGET,
    COMPUTE,
    SweepConfig,
    check_like,
    read_selection,
)

#: Keys of an [override.NAME] table that are not hyper-parameters.
TABLES = ("dataset", "budget", "augmentation", "backbone", "selection")
#: Evaluations of a run at most; the log has a line for each.
MOST_EVALUATIONS = 100_000
#: Bytes of the images of one batch at most, as 32-bit numbers; what a network makes of them takes many times as much.
MOST_BATCH_BYTES = 16 * 2**30
_NO_CHANGES: dict[str, Any] = {
    "hparams": {},
    "dataset": {},
    "budget": {},
    "augmentation": None,
    "backbone": None,
    "selection": None,
}


@dataclass(frozen=True)
class RunRequest:
    """One run as a sweep or an upstream asks for it.

    Args:
        dataset: name and options as written.
        method: ``algorithm`` or ``algorithm:variant``.
        hparams, dataset_options, budget, backbone: what an upstream request changes, on top of the sweep's overrides.
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
class KnownData:
    """Data of a plan; ``absent`` says why they cannot be used, and ``info`` is then what they would have."""

    source: DatasetSource
    info: DatasetInfo
    absent: str | None = None


class Resolver:
    """Resolves the runs of one sweep; remembers each data source, since their digests cost time.

    Args:
        config: the sweep.
        data_dir: folder of downloaded data.
        absent_ok: plan runs on data that are not there too, for a dry run.
    """

    def __init__(self, config: SweepConfig, data_dir: Path | None, absent_ok: bool = False) -> None:
        self.config, self.data_dir, self.absent_ok = config, data_dir, absent_ok
        self._sources: dict[str, tuple[DatasetSource, DatasetInfo, str]] = {}
        self.known: dict[str, KnownData] = {}  # by fingerprint

    def resolve(self, request: RunRequest) -> RunSpec:
        """The spec of a request, without its upstream runs.

        Raises:
            Refused: the method cannot run on this data.
            UserError, Problems: something does not exist, is of the wrong type, or its data is missing.
        """
        algorithm, variant = split_method(request.method)
        check = ErrorCollector()
        kind = check(_method, algorithm, variant)
        changes = check(self._changes, request) or {**_NO_CHANGES}
        known = check(self._source, request, changes["dataset"])
        info = known[1] if known else None
        backbone = request.backbone or self.config.backbone
        if changes["backbone"] and not request.backbone:
            backbone = check(parse_named_options, changes["backbone"]) or backbone
        options = check(self._backbone_options, backbone, info)
        hparams = kind and check(self._hparams, request, kind, variant, info, changes["hparams"])
        selection = changes["selection"] or self.config.selection
        budget = check(self._budget, {**changes["budget"], **(request.budget or {})}, selection)
        augmentation = check(self._augmentation, info, changes["augmentation"])
        check.finish()
        assert kind and known and info  # what is None was a mistake, and finish raised it
        source, _, fingerprint = known
        absent = self.known[fingerprint].absent is not None
        spec = RunSpec(
            dataset=request.dataset.name,
            dataset_options=dict(source.chosen),
            data_fingerprint=fingerprint,
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
            compute={**COMPUTE, **self.config.compute},
        )
        _check_batch(spec, info, None if absent else source.train_size())
        switch = switch_of(spec)
        if self.config.select_before_switch and 0 < switch < spec.budget["steps"]:
            spec = replace(spec, select_before_switch=True)
        self._check_possible(spec, kind, info)
        return spec

    def _changes(self, request: RunRequest) -> dict[str, Any]:
        """What the sweep's overrides change for this run: the more special one wins."""
        algorithm = base_name(request.method)
        name = request.dataset.name
        merged: dict[str, Any] = {**_NO_CHANGES, "hparams": {}}
        places = (name, str(request.dataset))
        order = [
            *places,
            algorithm,
            request.method,
            *(f"{m}@{p}" for m in (algorithm, request.method) for p in places),
        ]
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
                elif key == "selection":
                    merged[key] = read_selection(key, value)
                else:
                    merged["hparams"][key] = value
        return merged

    def _source(
        self, request: RunRequest, override: Mapping[str, Any]
    ) -> tuple[DatasetSource, DatasetInfo, str]:
        kind = DATASETS.get(request.dataset.name)
        options = {
            **_parsed(kind.options, request.dataset),
            **override,
            **(request.dataset_options or {}),
        }
        cached = f"{request.dataset.name} {sorted(options.items())}"
        if cached not in self._sources:
            source = kind(self.data_dir, **options)
            try:
                source.check()
                info, fingerprint, absent = source.info(), source.fingerprint(), None
            except UserError as error:
                if not self.absent_ok:
                    raise
                info, fingerprint, absent = (
                    _promised(kind, options, error),
                    f"absent: {cached}",
                    str(error),
                )
            self._sources[cached] = source, info, fingerprint
            self.known[fingerprint] = KnownData(source, info, absent)
        return self._sources[cached]

    def _backbone_options(self, backbone: NamedOptions, info: DatasetInfo | None) -> dict[str, Any]:
        kind = BACKBONES.get(backbone.name)
        options = {
            **{name: option.default for name, option in kind.options.items()},
            **without_defaults(_parsed(kind.all_options(), backbone)),
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
        """Declared default or draw < [fixed] < the variant < [override.NAME] < what an upstream request says."""
        declared: dict[str, HParam] = kind.all_hparams(max(info.image_size[1:]) if info else 0)
        values = {name: h.draw(name, request.trial, request.draw) for name, h in declared.items()}
        fixed = {name: value for name, value in self.config.fixed.items() if name in declared}
        check = ErrorCollector()
        for given in (fixed, kind.variants.get(variant, {}), override, request.hparams or {}):
            resolved = check(
                resolve_values, declared, given, request.method, request.trial, request.draw
            )
            values.update(resolved or {})
        check.finish()
        return values

    def _budget(self, override: Mapping[str, Any], selection: Sequence[str]) -> dict[str, Any]:
        budget: dict[str, Any] = {
            **BUDGET,
            **self.config.budget,
            **check_like(BUDGET, "budget", override),
        }
        if "evaluate_every" not in self.config.budget and "evaluate_every" not in override:
            budget["evaluate_every"] = max(budget["steps"] // 10, 1)
        evaluations = budget["steps"] // budget["evaluate_every"]
        if evaluations > MOST_EVALUATIONS:
            raise UserError(
                f"steps = {budget['steps']:,} with evaluate_every = {budget['evaluate_every']:,} makes {evaluations:,} "
                f"evaluations, expected at most {MOST_EVALUATIONS:,}; raise evaluate_every."
            )
        if budget["patience"] and not CRITERIA[selection[0]].is_quality:
            raise UserError(
                'patience needs a criterion that measures; name it first: selection = ["val_accuracy", "last"].'
            )
        return budget

    def _augmentation(
        self, info: DatasetInfo | None, override: Mapping[str, Any] | None
    ) -> dict[str, float]:
        """Override, else the sweep's table, else what the data set says; zeros are left out."""
        chosen = override if override is not None else self.config.augmentation
        if chosen is None:
            chosen = info.augmentation if info else {}
        values = check_values(AUGMENTATIONS, chosen, "augmentation", "kind")
        return {name: value for name, value in values.items() if value > 0}

    def _check_possible(self, spec: RunSpec, kind: Any, info: DatasetInfo) -> None:
        missing = kind.needs.missing_from(info.provides)
        where = f"{spec.method} on {spec.dataset}"
        if info.multi_label and not kind.multi_label:
            able = ", ".join(
                name for name in ALGORITHMS.names() if ALGORITHMS.get(name).multi_label
            )
            raise Refused(
                f"{where}: the method takes one label per image, and images of this data may have several; use {able}."
            )
        if missing:
            what = " and ".join(DESCRIPTIONS[name] for name in missing)
            raise Refused(
                f"{where}: the method needs {what}, which this data ({_options(spec)}) does not have."
            )
        for criterion in spec.selection:
            rule = CRITERIA[criterion]
            lacking = rule.needs.missing_from(info.provides)
            if lacking:
                what = " and ".join(DESCRIPTIONS[name] for name in lacking)
                raise Refused(
                    f"{where}: selection by {criterion} needs {what}, which this data does not "
                    "have; use val_accuracy or val_worst_class."
                )
            if rule.uses_objective and not _overrides_objective(kind):
                raise Refused(
                    f"{where}: the method declares no objective to select by; use val_accuracy."
                )
        reason = kind.refuses(spec, info)
        if reason:
            raise Refused(f"{where}: {reason}")
        # a batch of equal shares holds an image of each of two environments at least
        alone = spec.hparams["batch_size"] == 1 and kind.sampling != "environment"
        if alone and kind.fewest_rows(spec, info) > 1:
            raise Refused(
                f"{where}: with batch_size = 1, batch normalisation in the network sees one value per channel, which "
                "has no variance; use a batch_size of 2 or more, or larger images."
            )

    def upstream(self, request: RunRequest, spec: RunSpec) -> dict[str, RunRequest]:
        """Request the upstream runs of a run, by role.

        They share its trial, data and backbone. They have overrides of their own, and the default draw, or the
        run's draw where the algorithm asks for it.
        """
        requests = {}
        same = NamedOptions(
            spec.backbone, {name: str(value) for name, value in spec.backbone_options.items()}
        )
        for role, needed in ALGORITHMS.get(spec.algorithm).upstream(spec).items():
            requests[role] = replace(
                request,
                method=method_name(needed.algorithm, needed.variant),
                draw=request.draw if needed.same_draw else 0,
                hparams=needed.hparams,
                dataset_options={**spec.dataset_options, **needed.dataset_options},
                budget=needed.budget,
                backbone=parse_named_options(needed.backbone) if needed.backbone else same,
            )
        return requests

    def check_fits(self, spec: RunSpec, role: str, first: RunSpec) -> None:
        """Raise a UserError unless what the upstream run ``first`` predicts, and from what, is what ``spec`` does."""
        mine, other = (self.known[s.data_fingerprint].info for s in (spec, first))
        if (mine.label_names, mine.image_size) != (other.label_names, other.image_size):
            raise UserError(
                f"{spec.method} on {spec.dataset}: its {role}, {first.method} with {_options(first)}, would see other "
                "labels or images of another size; expected a run on the same ones."
            )


def _check_batch(spec: RunSpec, info: DatasetInfo, train_size: int | None) -> None:
    """Raise a UserError where a batch is too large to be meant.

    Args:
        train_size: number of training images, where it is known.
    """
    rows = spec.hparams["batch_size"]
    sides = BACKBONES.get(spec.backbone).sides_inside(spec.backbone_options, *info.image_size[1:])
    needed = 4 * rows * info.image_size[0] * sides[0] * sides[1]
    if needed > MOST_BATCH_BYTES:
        most = max(MOST_BATCH_BYTES * rows // needed, 1)
        raise UserError(
            f"{spec.method} on {spec.dataset}: batch_size = {rows:,} makes batches of {needed / 2**30:,.0f} GiB of "
            f"images ({sides[0]}×{sides[1]}), expected at most {MOST_BATCH_BYTES / 2**30:.0f} GiB; use a batch_size of "
            f"{most:,} or less."
        )
    if train_size is not None:
        problem = batch_size_problem(rows, train_size)
        if problem:
            raise UserError(f"{spec.method} on {spec.dataset}: {problem}")


def switch_of(spec: RunSpec) -> int:
    """The first step that trains what the method's name says, as its class declares.

    Raises:
        UserError: what the class declares is no step.
    """
    step = ALGORITHMS.get(spec.algorithm).active_from(spec.hparams, spec.budget)
    if type(step) is not int or step < 0:
        raise UserError(
            f"{spec.algorithm}.active_from returned {step!r}, expected a whole number of steps, 0 or more."
        )
    return step


def _method(algorithm: str, variant: str) -> Any:
    kind = ALGORITHMS.get(algorithm)
    if variant and variant not in kind.variants:
        raise UserError(
            f"{algorithm} has no variant {variant!r}{did_you_mean(variant, kind.variants)}"
        )
    return kind


def _promised(kind: Any, options: Mapping[str, Any], error: UserError) -> DatasetInfo:
    """What data would have if they were all there; raises ``error`` where only the files could tell."""
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


def _parsed(declared: Mapping[str, HParam], named: NamedOptions) -> dict[str, Any]:
    """The options of a data set or backbone, in their declared types."""

    def parse(name: str, text: str) -> Any:
        if name not in declared:
            raise UserError(f"{named.name} has no option {name!r}{did_you_mean(name, declared)}")
        return declared[name].parse(f"{named.name}: {name}", text)

    check = ErrorCollector()
    options = {name: check(parse, name, text) for name, text in named.options.items()}
    check.finish()
    return options


def _options(spec: RunSpec) -> str:
    return ", ".join(f"{k}={v}" for k, v in spec.dataset_options.items()) or "no options"
