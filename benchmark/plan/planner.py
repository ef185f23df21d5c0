"""Expand a sweep into a graph of runs, checked as a whole before anything starts."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmark.core.errors import Problems, Refused, UserError
from benchmark.core.named_options import base_name, method_name, split_at_sign
from benchmark.core.registry import ALGORITHMS, DATASETS, did_you_mean
from benchmark.core.spec import RunSpec, before_switch, spec_bytes, spec_digest
from benchmark.core.sweep_plan import PlannedEntry, Refusal, SweepPlan
from benchmark.core.titles import Titles
from benchmark.plan.measurements import PlannedExplainer, measurement_spec, read_explainers
from benchmark.plan.resolve import TABLES, PlannedData, Resolver, RunRequest, switch_of
from benchmark.plan.sweepfile import SweepConfig
from benchmark.plan.titles import titles_of, unknown_titles

#: Largest depth of upstream runs; deeper requests are circular.
_MAX_DEPTH = 4
#: Largest number of requested runs of one sweep.
MAX_RUNS = 100_000
#: What a user of a sweep can do about a run that cannot run.
ADVICE = "leave it out, change the data with [override.NAME], or launch with --skip-impossible"


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan.

    Args:
        spec: Spec with the keys of the upstream runs.
        dataset: Data set as the sweep file writes it, by which tables are grouped.
        requested: True if the sweep asks for the run, which is then a row of a table; False if only
            another run needs it.
        explainer: Explainer as the sweep file writes it, if the run measures explanations.
    """

    spec: RunSpec
    dataset: str
    requested: bool
    explainer: str = ""


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep.

    Args:
        config: The sweep.
        runs: Runs by key, upstream runs before those that need them.
        refused: Runs that cannot run.
        data: Data of the runs, by fingerprint.
        warnings: Possible mistakes, one sentence each.
        titles: Titles of methods, data sets and groups.
    """

    config: SweepConfig
    runs: dict[str, PlannedRun]
    refused: list[Refusal]
    data: Mapping[str, PlannedData] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    titles: Titles = field(default_factory=Titles)

    def to_plan(self) -> SweepPlan:
        """Return the content of sweep.json."""
        return SweepPlan(
            name=self.config.name,
            title=self.config.title,
            created=time.time(),
            selection=tuple(self.config.selection),
            runs={
                key: PlannedEntry(
                    dataset=run.dataset,
                    method=run.spec.method,
                    trial=run.spec.trial,
                    draw=run.spec.draw,
                    requested=run.requested,
                    explainer=run.explainer,
                    upstream=run.spec.upstream_keys,
                    spec_digest=spec_digest(spec_bytes(run.spec)),
                )
                for key, run in self.runs.items()
            },
            refused=tuple(self.refused),
            config=self.config.to_json(),
            titles=self.titles,
        )


def expand(
    config: SweepConfig,
    data_dir: Path | None = None,
    skip_impossible: bool = False,
    absent_ok: bool = False,
    advice: str = ADVICE,
) -> Plan:
    """Resolve and check every run of a sweep.

    Args:
        config: The sweep.
        data_dir: Folder of downloaded data.
        skip_impossible: True to leave out runs that cannot run instead of raising an error. The
            sweep file can also set it.
        absent_ok: True to plan runs on absent data too, for a dry run. ``Plan.data`` contains which
            data are absent.
        advice: What the user can do about runs that cannot run; empty for none.

    Raises:
        Problems: If there are mistakes; each is listed once.
        UserError: If there are too many runs.
    """
    _check_size(config)
    builder = _Builder(Resolver(config, data_dir, absent_ok))
    problems: dict[str, None] = dict.fromkeys(_check_names(config))
    explainers = _explainers(config, problems)
    refused: list[Refusal] = []
    for request in _requests(builder.resolver, problems):
        model = ""
        for explainer in (None, *explainers):
            try:
                if explainer is None:
                    model = builder.add(request, requested=True)
                elif model:
                    builder.add_measurement(request, model, explainer)
            except Refused as error:
                text = explainer.text if explainer else ""
                refused.append(
                    Refusal(
                        str(request.dataset),
                        request.method,
                        request.trial,
                        request.draw,
                        str(error),
                        text,
                    )
                )
            except UserError as error:
                problems.update(dict.fromkeys(_sentences(error)))
    if refused and not (skip_impossible or config.skip_impossible):
        end = f" ({advice})" if advice else ""
        problems.update(dict.fromkeys(f"{refusal.reason}{end}" for refusal in refused))
    if not problems and not builder.runs:
        problems["none of these methods can run on these data"] = None
    if problems:
        raise Problems(list(problems))
    data = builder.resolver.data
    warnings = [*_warn_inactive(builder.runs.values()), *_warn_of_data(data.values())]
    plan = Plan(config, builder.runs, refused, data, tuple(warnings))
    if unknown := list(unknown_titles(plan)):
        raise Problems(unknown)
    return replace(plan, titles=titles_of(plan))


def _requests(resolver: Resolver, problems: dict[str, None]) -> Iterator[RunRequest]:
    """Yield the runs that a sweep asks for, and add mistakes in its grids to the problems."""
    config = resolver.config
    count = 0
    for dataset, method in itertools.product(config.datasets, config.algorithms):
        try:
            draws = resolver.draws(dataset, method)
        except UserError as error:
            problems.update(dict.fromkeys(_sentences(error)))
            continue
        count += len(config.trials) * len(draws)
        if count > MAX_RUNS:
            raise UserError(
                f"the grids of this sweep make {count:,} runs or more, expected at most "
                f"{MAX_RUNS:,}; divide the sweep into several."
            )
        for trial, draw in itertools.product(config.trials, draws):
            yield RunRequest(dataset, method, trial, draw)


def _sentences(error: UserError) -> list[str]:
    problems: list[str] = getattr(error, "problems", [str(error)])
    return problems


def _explainers(config: SweepConfig, problems: dict[str, None]) -> list[PlannedExplainer]:
    """Return the explainers of [explanations], and add its mistakes to the problems."""
    if config.explanations is None:
        return []
    try:
        return read_explainers(config.explanations)
    except UserError as error:
        problems.update(dict.fromkeys(f"[explanations] {text}" for text in _sentences(error)))
        return []


def _check_size(config: SweepConfig) -> None:
    """Raise a UserError if a sweep has too many runs."""
    datasets, methods, trials, draws = map(
        len, (config.datasets, config.algorithms, config.trials, config.draws)
    )
    runs = math.prod((datasets, methods, trials, draws))
    if config.explanations is not None:
        runs *= 1 + len(config.explanations.explainers)
    if runs > MAX_RUNS:
        raise UserError(
            f"{datasets} data sets, {methods} methods, {trials:,} trials and {draws:,} draws make "
            f"{runs:,} runs, expected at most {MAX_RUNS:,}; divide the sweep into several."
        )


class _Builder:
    """Collect the runs of a plan."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.runs: dict[str, PlannedRun] = {}

    def add(self, request: RunRequest, *, requested: bool, depth: int = 0) -> str:
        """Add a run after its upstream runs.

        Args:
            request: The run. Two requests with the same spec make one run.
            requested: True if the sweep asks for the run.
            depth: Number of runs that need this run, one after the other.

        Returns:
            The key of the run.
        """
        if depth > _MAX_DEPTH:
            raise UserError(
                f"{request.method} needs upstream runs that need upstream runs, more than "
                f"{_MAX_DEPTH} levels deep; this is probably circular."
            )
        spec = self.resolver.resolve(request)
        upstream = {
            role: self.add(needed, requested=False, depth=depth + 1)
            for role, needed in self.resolver.upstream(request, spec).items()
        }
        for role, key in upstream.items():
            self.resolver.check_fits(spec, role, self.runs[key].spec)
        spec = replace(spec, upstream=upstream)
        known = self.runs.get(spec.key)
        if known is not None and requested and known.requested:
            raise UserError(
                f"{spec.method} on {known.dataset} and {request.method} on {request.dataset} are "
                "the same runs; leave one of them out."
            )
        if known is None or requested:
            self.runs[spec.key] = PlannedRun(spec, str(request.dataset), requested)
        return spec.key

    def add_measurement(self, model: RunRequest, key: str, explainer: PlannedExplainer) -> None:
        """Add the measurement of an explainer of a model, after the training of the explainer.

        Args:
            model: The request of the model.
            key: The key of the model.
            explainer: The explainer.
        """
        assert self.resolver.config.explanations is not None
        planned = self.runs[key]
        training = explainer.training(model, planned.spec)
        trained = None if training is None else self.add(training, requested=False, depth=1)
        if trained is not None and key not in self.runs[trained].spec.upstream.values():
            raise UserError(
                f"[explanations] {explainer.text} would explain another model than "
                f"{planned.spec.label()}; [override.{explainer.text}] must not change what the "
                "model depends on."
            )
        spec = measurement_spec(
            self.resolver.config.explanations,
            explainer,
            planned.spec,
            self.resolver.data[planned.spec.data_fingerprint].info,
            trained,
        )
        known = self.runs.get(spec.key)
        if known is not None:
            raise UserError(
                f"[explanations] {known.explainer} and {explainer.text} are the same explainer; "
                "leave one of them out."
            )
        self.runs[spec.key] = PlannedRun(spec, planned.dataset, True, explainer.text)


def _warn_inactive(runs: Iterable[PlannedRun]) -> Iterator[str]:
    """Yield a warning for each method and data set with runs that end before the method begins."""
    planned: dict[tuple[str, str], list[RunSpec]] = {}
    for run in runs:
        if run.spec.measurement is None:
            planned.setdefault((run.spec.method, run.dataset), []).append(run.spec)
    for (method, dataset), specs in planned.items():
        inactive = [
            spec for spec in specs if before_switch(spec.training_budget.steps, switch_of(spec))
        ]
        if not inactive:
            continue
        example = max(inactive, key=switch_of)
        draw = f", draw {example.draw}" if example.draw else ""
        yield (
            f"{method} on {dataset}: {len(inactive)} of {len(specs)} runs end before the method "
            f"begins (trial {example.trial}{draw}: it begins at step {switch_of(example):,}, and "
            f"the budget is {example.training_budget.steps:,} steps); give them more steps or an "
            "earlier switch, or their rows will be marked."
        )


def _warn_of_data(planned: Iterable[PlannedData]) -> Iterator[str]:
    """Yield what the sources of complete data warn of, once each."""
    complete = [data.source for data in planned if data.absent is None]
    yield from dict.fromkeys(
        f"{source.name}: {warning}" for source in complete for warning in source.warnings()
    )


def _check_names(config: SweepConfig) -> Iterator[str]:
    """Yield problems that no single run shows: unknown names of overrides and of [fixed]."""
    yield from _check_overrides(config)
    yield from _check_fixed(config)


def _check_overrides(config: SweepConfig) -> Iterator[str]:
    """Yield a problem for each [override.NAME] that applies to nothing."""
    datasets = {dataset.name for dataset in config.datasets} | set(map(str, config.datasets))
    methods = set(config.algorithms) | set(map(base_name, config.algorithms))
    for algorithm in ALGORITHMS.names():
        variants = ALGORITHMS.get(algorithm).variants
        methods |= {method_name(algorithm, variant) for variant in ("", *variants)}
    known_datasets = datasets | set(DATASETS.names())
    known_names = methods | known_datasets
    for name, table in config.override.items():
        method, dataset = split_at_sign(name)
        if dataset:
            parts = [(method, methods), (dataset, known_datasets)]
        else:
            parts = [(name, known_names)]
        for part, known in parts:
            # The options of a data set may be those of a row that this launch leaves out.
            if part not in known and base_name(part) not in known_datasets & known:
                yield (
                    f"[override.{name}]: {part!r} is neither an algorithm nor a data set"
                    f"{did_you_mean(part, known_names)}"
                )
        if not dataset and name in datasets and "dataset" in table:
            yield (
                f"[override.{name}]: options of a data set are written in its name, as in "
                f"{name}:option=value."
            )


def _check_fixed(config: SweepConfig) -> Iterator[str]:
    """Yield a problem for each name in [fixed] that no algorithm of the sweep declares."""
    declared: set[str] = set()
    for method in config.algorithms:
        try:
            declared |= set(ALGORITHMS.get(base_name(method)).all_hparams(0))
        except UserError:
            # The unknown algorithm is reported where it is used.
            declared |= set(config.fixed)
    for name in config.fixed:
        if name in TABLES:
            yield f"[fixed] {name} is not a hyper-parameter; give {name} its own table or line."
        elif name not in declared:
            yield (
                f"[fixed] no algorithm of this sweep has a hyper-parameter {name!r}"
                f"{did_you_mean(name, declared)}"
            )
