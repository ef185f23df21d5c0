"""Titles of everything in a plan: those of the classes, changed by the [titles] table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from benchmark.core.errors import UserError
from benchmark.core.named_options import base_name, parse_named_options, split_method
from benchmark.core.registry import ALGORITHMS, DATASETS, EXPLAINERS, did_you_mean
from benchmark.core.titles import Titles, make_distinct, method_title, own_title

if TYPE_CHECKING:
    from benchmark.core.sweep_plan import Refusal
    from benchmark.plan.planner import Plan, PlannedRun


def titles_of(plan: Plan) -> Titles:
    """Return the titles of the methods, data sets, explainers and groups of a plan.

    A title that the sweep file gives to a method is also that of its variants, as in
    ``My method (variant)``, and one that it gives to a data set also that of the data set with
    options.
    """
    given = plan.config.titles
    entries: list[PlannedRun | Refusal] = [*plan.runs.values(), *plan.refused]
    methods = dict.fromkeys(
        [run.spec.method for run in plan.runs.values()] + [entry.method for entry in plan.refused]
    )
    datasets = dict.fromkeys(entry.dataset for entry in entries)
    explainers = dict.fromkeys(entry.explainer for entry in entries if entry.explainer)
    names = {
        **{name: _explainer(name, given) for name in (*EXPLAINERS.names(), *explainers)},
        **make_distinct({name: _dataset(name, given) for name in datasets}),
        **make_distinct({name: _method(name, given) for name in methods}),
    }
    return Titles(names, _groups(plan, given))


def unknown_titles(plan: Plan) -> Iterator[str]:
    """Yield a problem for each name in [titles] that the plan does not contain."""
    known = _known_names(plan)
    for name in plan.config.titles:
        if name not in known:
            yield (
                f"[titles] {name!r} is no method, data set, explainer or group of this sweep"
                f"{did_you_mean(name, known)}"
            )


def _known_names(plan: Plan) -> set[str]:
    config = plan.config
    names = [*config.algorithms, *map(str, config.datasets)]
    names += [run.spec.method for run in plan.runs.values()]
    names += config.explanations.explainers if config.explanations else ()
    groups = {name for data in plan.data.values() for name in data.info.group_names}
    return {*names, *map(base_name, names), *groups}


def _method(name: str, given: Mapping[str, str]) -> str:
    algorithm, variant = split_method(name)
    title = given.get(algorithm, "")
    if name in given:
        return given[name]
    try:
        return method_title(ALGORITHMS.get(algorithm), variant, title)
    except UserError:  # the planner reports it
        return name


def _dataset(name: str, given: Mapping[str, str]) -> str:
    if name in given:
        return given[name]
    parsed = parse_named_options(name)
    title: str = DATASETS.get(parsed.name).title_of(parsed.options, given.get(parsed.name, ""))
    return title


def _explainer(name: str, given: Mapping[str, str]) -> str:
    """Return the title of an explainer with options, or of a method that trains one."""
    if name in given:
        return given[name]
    base, options = split_method(name)
    if base not in EXPLAINERS.names():
        return _method(name, given)
    title = given.get(base) or own_title(EXPLAINERS.get(base))
    return f"{title} ({options})" if options else title


def _groups(plan: Plan, given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for run in plan.runs.values():
        if run.dataset not in found and run.spec.data_fingerprint in plan.data:
            info = plan.data[run.spec.data_fingerprint].info
            titles = DATASETS.get(run.spec.dataset).group_titles(info)
            own = {name: given[name] for name in info.group_names if name in given}
            found[run.dataset] = {**titles, **own}
    return {dataset: titles for dataset, titles in found.items() if titles}
