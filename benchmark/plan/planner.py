"""From a sweep to its graph of runs, checked as a whole before anything starts."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.core.errors import Problems, Refused, UserError
from benchmark.core.named_options import base_name, method_name
from benchmark.core.registry import ALGORITHMS, DATASETS, did_you_mean
from benchmark.core.spec import RunSpec, before_switch
from benchmark.core.sweep_plan import PlannedEntry, Refusal, SweepPlan
from benchmark.plan.resolve import TABLES, KnownData, Resolver, RunRequest, switch_of
from benchmark.plan.sweepfile import SweepConfig

#: A teacher of a teacher of a teacher is as far as anybody has gone; more is a circle.
_DEPTH = 4
#: Runs of one sweep that are asked for, at most.
MOST_RUNS = 100_000


@dataclass(frozen=True)
class PlannedRun:
    """A run of the graph.

    Args:
        spec: with the keys of its upstream runs.
        dataset: the data set as the sweep writes it; tables are grouped by it.
        requested: whether the sweep itself asked for it (a row of the table), or only another run.
    """

    spec: RunSpec
    dataset: str
    requested: bool


@dataclass(frozen=True)
class Plan:
    """Everything a sweep is going to do.

    Args:
        config: the sweep.
        runs: by key, upstream runs before those that need them.
        refused: dataset, method, trial, draw and reason of what cannot run.
        data: by fingerprint, what the runs are made on.
        warnings: what can run but may not be what was meant, one sentence each.
    """

    config: SweepConfig
    runs: dict[str, PlannedRun]
    refused: list[dict[str, Any]]
    data: Mapping[str, KnownData] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_plan(self) -> SweepPlan:
        """What sweep.json holds."""
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
                )
                for key, run in self.runs.items()
            },
            refused=tuple(Refusal(**refusal) for refusal in self.refused),
            config=self.config.to_json(),
        )


#: What a sweep can do about a run that is impossible.
ADVICE = "leave it out, change the data with [override.NAME], or launch with --skip-impossible"


def expand(
    config: SweepConfig,
    data_dir: Path | None = None,
    skip_impossible: bool = False,
    absent_ok: bool = False,
    advice: str = ADVICE,
) -> Plan:
    """Resolve and check every run of a sweep.

    Args:
        skip_impossible: leave out what cannot run instead of raising; so does the sweep's own ``skip_impossible``.
        absent_ok: plan runs on data that are not there too, for a dry run; ``Plan.data`` says which.
        advice: what to do about what cannot run; empty for none.

    Raises:
        Problems: everything that is wrong, each once.
    """
    sizes = [
        len(part) for part in (config.datasets, config.algorithms, config.trials, config.draws)
    ]
    if math.prod(sizes) > MOST_RUNS:
        raise UserError(
            f"{sizes[0]} data sets, {sizes[1]} methods, {sizes[2]:,} trials and {sizes[3]:,} draws make "
            f"{math.prod(sizes):,} runs, expected at most {MOST_RUNS:,}; divide the sweep into several."
        )
    builder = _Builder(Resolver(config, data_dir, absent_ok))
    problems: dict[str, None] = dict.fromkeys(_check_names(config))
    refused: list[dict[str, Any]] = []
    for dataset, method, trial, draw in itertools.product(
        config.datasets, config.algorithms, config.trials, config.draws
    ):
        request = RunRequest(dataset, method, trial, draw)
        try:
            builder.add(request, requested=True)
        except Refused as error:
            refused.append(
                {
                    "dataset": str(dataset),
                    "method": method,
                    "trial": trial,
                    "draw": draw,
                    "reason": str(error),
                }
            )
        except UserError as error:
            problems.update(dict.fromkeys(getattr(error, "problems", [str(error)])))
    if refused and not (skip_impossible or config.skip_impossible):
        end = f" ({advice})" if advice else ""
        problems.update(
            dict.fromkeys(f"{reason}{end}" for reason in {r["reason"]: None for r in refused})
        )
    if not problems and not builder.runs:
        problems["none of these methods can run on these data"] = None
    if problems:
        raise Problems(list(problems))
    warnings = tuple(_never_active(builder.runs.values()))
    return Plan(config, builder.runs, refused, builder.resolver.known, warnings)


class _Builder:
    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.runs: dict[str, PlannedRun] = {}

    def add(self, request: RunRequest, requested: bool, depth: int = 0) -> str:
        """Add a run after its upstream runs; the same work asked for twice is one run. Returns its key."""
        if depth > _DEPTH:
            raise UserError(
                f"{request.method} asks for upstream runs more than {_DEPTH} deep; it is a circle."
            )
        spec = self.resolver.resolve(request)
        asked = self.resolver.upstream(request, spec)
        upstream = {
            role: self.add(other, requested=False, depth=depth + 1) for role, other in asked.items()
        }
        for role, other_key in upstream.items():
            self.resolver.check_fits(spec, role, self.runs[other_key].spec)
        spec = replace(spec, upstream=upstream)
        key = spec.key
        known = self.runs.get(key)
        if known is None:
            self.runs[key] = PlannedRun(spec, str(request.dataset), requested)
        elif requested and known.requested:
            one, other = (
                f"{spec.method} on {known.dataset}",
                f"{request.method} on {request.dataset}",
            )
            raise UserError(
                f"{one} and {other} are the same runs, expected each once; leave one of them out."
            )
        elif requested:
            self.runs[key] = PlannedRun(spec, str(request.dataset), True)
        return key


def _never_active(runs: Iterable[PlannedRun]) -> Iterator[str]:
    """A sentence for each method and data set with runs that end before the method's declared switch."""
    planned: dict[tuple[str, str], list[RunSpec]] = {}
    for run in runs:
        planned.setdefault((run.spec.method, run.dataset), []).append(run.spec)
    for (method, dataset), specs in planned.items():
        late = [spec for spec in specs if before_switch(spec.budget["steps"], switch_of(spec))]
        if not late:
            continue
        one = max(late, key=switch_of)
        draw = f", draw {one.draw}" if one.draw else ""
        yield (
            f"{method} on {dataset}: {len(late)} of {len(specs)} runs end before {method} is what its name says "
            f"(trial {one.trial}{draw}: from step {switch_of(one):,}, and the budget is {one.budget['steps']:,} "
            "steps); give them more steps or an earlier switch, or their rows will be marked."
        )


def _check_names(config: SweepConfig) -> Iterable[str]:
    """Names that no single run would stumble over: overrides of nothing, [fixed] keys that no algorithm declares."""
    datasets = {n for d in config.datasets for n in (d.name, str(d))}
    methods = {n for m in config.algorithms for n in (m, base_name(m))} | set(ALGORITHMS.names())
    methods |= {
        method_name(n, variant)
        for n in ALGORITHMS.names()
        for variant in ALGORITHMS.get(n).variants
    }
    places = datasets | set(DATASETS.names())
    for name, table in config.override.items():
        method, _, dataset = name.partition("@")
        parts = [(method, methods), (dataset, places)] if dataset else [(name, methods | places)]
        # a data set's options may be those of a row that this launch leaves out; a variant must exist
        unknown = [n for n, known in parts if n not in known and base_name(n) not in places & known]
        for n in unknown:
            yield f"[override.{name}]: {n!r} is neither an algorithm nor a data set{did_you_mean(n, methods | places)}"
        if not dataset and name in datasets and "dataset" in table:
            yield f"[override.{name}]: options of a data set are written in its name, as in {name}:option=value."
    declared: set[str] = set()
    for method in config.algorithms:
        try:
            declared |= set(ALGORITHMS.get(base_name(method)).all_hparams(0))
        except UserError:
            declared |= set(config.fixed)  # the unknown algorithm is reported where it is used
    for name in config.fixed:
        if name in TABLES:
            yield f"[fixed] {name} is not a hyper-parameter; give {name} its own table or line."
        elif name not in declared:
            yield f"[fixed] no algorithm of this sweep has a hyper-parameter {name!r}{did_you_mean(name, declared)}"
