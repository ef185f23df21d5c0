"""The tables that ``python -m benchmark.sweep list`` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from benchmark.core.backbone_options import COMMON_OPTIONS
from benchmark.core.criteria import CRITERIA, Criterion
from benchmark.core.errors import UserError
from benchmark.core.needs import DESCRIPTIONS
from benchmark.core.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    EXPLAINERS,
    LAUNCHERS,
    TRACKERS,
    Registry,
)
from benchmark.plan.sweepfile import SWEEPS, read_toml

if TYPE_CHECKING:
    from benchmark.core.algorithm import Paper
    from benchmark.core.hparam import HParam


def algorithms(*, long: bool) -> str:
    """List the training methods; with ``long`` also their hyper-parameters."""
    from benchmark.core.optim import COMMON_HPARAMS  # imports torch

    headers = ["algorithm", "needs", "sampling", "variants", "paper"]
    text = _table(headers, _rows(ALGORITHMS, _algorithm_row), [None, 22, None, 24, 44])
    if long:
        text += "\n\nshared by all:\n" + _hparam_table(COMMON_HPARAMS)
        text += _declared(ALGORITHMS, "hparams", with_origin=True)
    return text + _broken(ALGORITHMS)


def datasets(*, long: bool) -> str:
    """List the data sets and the annotations they provide; with ``long`` also their options."""
    headers = ["dataset", "description", "image", "classes", "provides", "test splits"]
    text = _table(headers, _rows(DATASETS, _dataset_row), [None, 36, None, None, 26, 20])
    if long:
        text += _declared(DATASETS, "options", with_origin=True)
    return text + _broken(DATASETS)


def backbones(*, long: bool) -> str:
    """List the networks and what can explain them; with ``long`` also their options."""
    headers = ["backbone", "description", "explained by", "smallest side"]
    rows = _rows(BACKBONES, _backbone_row)
    rows += [
        [f"{name}:NAME", doc, "depends on NAME", ""] for name, doc in BACKBONES.families().items()
    ]
    text = _table(headers, rows, [None, 60, None, None])
    if long:
        text += "\n\nevery backbone with batch normalisation:\n" + _hparam_table(COMMON_OPTIONS)
        text += _declared(BACKBONES, "options")
    return text + _broken(BACKBONES)


def explainers(*, long: bool) -> str:
    """List the explainers and what they need of a network; with ``long`` also their options."""
    headers = ["explainer", "description", "needs", "can be trained on"]
    text = _table(headers, _rows(EXPLAINERS, _explainer_row), [None, 60, None, None])
    if long:
        text += _declared(EXPLAINERS, "options")
    return text + _broken(EXPLAINERS)


def launchers(*, long: bool) -> str:
    """List the launchers; with ``long`` also their options."""
    rows = _rows(LAUNCHERS, lambda kind: [kind.title])
    text = _table(["launcher", "runs are executed on"], rows, [None, 60])
    if long:
        text += _declared(LAUNCHERS, "options")
    return text + _broken(LAUNCHERS)


def trackers(*, long: bool) -> str:
    """List the trackers of ``--log`` and where they show the runs."""
    rows = _rows(TRACKERS, lambda kind: [kind.title])
    return _table(["tracker", "runs are shown by"], rows, [None, 70]) + _broken(TRACKERS)


def sweeps(*, long: bool) -> str:
    """List the sweep files in ``sweeps/``; with ``long`` also their data sets and algorithms."""
    rows = []
    for path in sorted(SWEEPS.glob("*.toml")):
        try:
            values = read_toml(path)
        except (OSError, UserError) as error:  # one broken file must not hide the others
            values = {"title": f"not readable: {error}"}
        row = [path.stem, str(values.get("title", ""))]
        if long:
            row += [_join(values.get(key, [])) for key in ("datasets", "algorithms")]
        rows.append(row)
    count = 4 if long else 2
    headers = ["sweep", "title", "datasets", "algorithms"]
    return _table(headers[:count], rows, [None, 60, 30, 40][:count])


def criteria(*, long: bool) -> str:
    """List the selection criteria."""
    headers = ["criterion", "selects the step with the best", "needs"]
    rows = [[name, rule, _criterion_needs(rule)] for name, rule in CRITERIA.items()]
    return _table(headers, rows, [None, None, None])


#: What can be listed, by name.
LISTS: Mapping[str, Callable[..., str]] = {
    "algorithms": algorithms,
    "datasets": datasets,
    "backbones": backbones,
    "explainers": explainers,
    "launchers": launchers,
    "trackers": trackers,
    "sweeps": sweeps,
    "criteria": criteria,
}


def _rows(registry: Registry, make_row: Callable[[Any], list[object]]) -> list[list[object]]:
    """Return a row for every registered class.

    A class of another package that fails is listed as broken instead.
    """
    rows = []
    for name in registry.names():
        try:
            rows.append([name, *make_row(registry.get(name))])
        except Exception as error:
            registry.withdraw(name, error)
    return rows


def _algorithm_row(kind: Any) -> list[object]:
    needs = ", ".join(kind.needs.names()) or "labels only"
    return [needs, kind.sampling, ", ".join(kind.variants), _citation(kind.paper)]


def _dataset_row(kind: Any) -> list[object]:
    info = kind().info()
    size = "×".join(str(n) for n in info.image_size)
    provides = ", ".join(info.provides.names())
    return [
        kind.description or kind.title,
        size,
        len(info.label_names),
        provides,
        ", ".join(info.test_splits),
    ]


def _backbone_row(kind: Any) -> list[object]:
    can = kind.capabilities
    methods = {"Grad-CAM": can.cam, "LRP": can.lrp, "attention": can.attention}
    explained_by = ", ".join(name for name, possible in methods.items() if possible)
    return [kind.doc, explained_by, can.min_side]


def _explainer_row(kind: Any) -> list[object]:
    first_line = (kind.__doc__ or "").strip().partition("\n")[0]
    return [first_line, kind.requires, "yes" if kind.differentiable else "no"]


def _criterion_needs(criterion: Criterion) -> str:
    needs = [DESCRIPTIONS[name] for name in criterion.needs.names()]
    if criterion.uses_objective:
        needs.append("a method that declares an objective")
    return ", ".join(needs)


def _declared(registry: Registry, attribute: str, *, with_origin: bool = False) -> str:
    """Return a table of the hyper-parameters or options of each class that declares some."""
    text = ""
    for name in registry.names():
        declared = getattr(registry.get(name), attribute)
        if declared:
            origin = f" ({registry.origin(name)})" if with_origin else ""
            text += f"\n\n{name}{origin}:\n{_hparam_table(declared)}"
    return text


def _hparam_table(declared: Mapping[str, HParam]) -> str:
    rows = []
    for name, hparam in declared.items():
        default = str(hparam.default)
        random = "" if hparam.random is None else str(hparam.random)
        if hparam.large is not None:
            default += f" (large images {hparam.large.default})"
            if hparam.large.random is not None:
                random = f"{random or '–'} (large images {hparam.large.random})"
        rows.append([name, default, random, hparam.doc])
    headers = ["name", "default", "random draw", "description"]
    return _table(headers, rows, [None, 24, 34, 46])


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[int | None]
) -> str:
    """Format a table; the cells of a column with a width are wrapped.

    The cells are wrapped here because tabulate turns a "False" that it wraps into True.
    """
    from tabulate import tabulate

    wrapped = [
        [
            str(cell) if width is None else fill(str(cell), width)
            for cell, width in zip(row, widths, strict=True)
        ]
        for row in rows
    ]
    return tabulate(wrapped, headers, tablefmt="simple", disable_numparse=True)


def _join(names: object) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list) else str(names)


def _citation(paper: Paper | None) -> str:
    """Return a short citation; three or more authors become "First et al."."""
    if paper is None:
        return ""
    authors = paper.authors.split(", ")
    names = f"{authors[0]} et al." if len(authors) > 2 else " and ".join(authors)
    return f"{names} ({paper.year}), {paper.title}"


def _broken(registry: Registry) -> str:
    return "".join(
        f"\nnot available: {origin}: {reason}" for origin, reason in sorted(registry.broken.items())
    )
