"""What `list` prints: algorithms, data sets, backbones, sweeps and criteria."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

from benchmark.core.backbone_options import COMMON_OPTIONS
from benchmark.core.criteria import CRITERIA, Criterion
from benchmark.core.errors import UserError
from benchmark.core.needs import DESCRIPTIONS
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS, EXPLAINERS, Registry
from benchmark.plan.sweepfile import SWEEPS, read_toml

if TYPE_CHECKING:
    from benchmark.core.algorithm import Paper
    from benchmark.core.hparam import HParam


def algorithms(long: bool) -> str:
    """Every training method: needs, sampling, variants, paper; with ``long`` its hyper-parameters."""
    from benchmark.core.optim import COMMON_HPARAMS  # which imports torch

    rows = _rows(ALGORITHMS, _algorithm_row)
    text = _table(
        ["algorithm", "needs", "sampling", "variants", "paper"], rows, [None, 22, None, 24, 44]
    )
    if long:
        text += "\n\nshared by all:\n" + _hparams(COMMON_HPARAMS)
        for name in ALGORITHMS.names():
            if ALGORITHMS.get(name).hparams:
                text += f"\n\n{name} ({ALGORITHMS.origin(name)}):\n" + _hparams(
                    ALGORITHMS.get(name).hparams
                )
    return text + _broken(ALGORITHMS)


def datasets(long: bool) -> str:
    """Every data set: what it provides; with ``long`` its options."""
    rows = _rows(DATASETS, _dataset_row)
    text = _table(
        ["dataset", "what", "image", "classes", "provides", "test splits"],
        rows,
        [None, 36, None, None, 26, 20],
    )
    if long:
        for name in DATASETS.names():
            if DATASETS.get(name).options:
                text += f"\n\n{name} ({DATASETS.origin(name)}):\n" + _hparams(
                    DATASETS.get(name).options
                )
    return text + _broken(DATASETS)


def backbones(long: bool) -> str:
    """Every network: what it can be asked for; with ``long`` its options."""
    rows = _rows(BACKBONES, _backbone_row)
    text = _table(
        ["backbone", "what", "explained by", "smallest side"], rows, [None, 60, None, None]
    )
    if long:
        text += "\n\nevery backbone with batch normalisation:\n" + _hparams(COMMON_OPTIONS)
        for name in BACKBONES.names():
            if BACKBONES.get(name).options:
                text += f"\n\n{name}:\n" + _hparams(BACKBONES.get(name).options)
    return text + _broken(BACKBONES)


def explainers(long: bool) -> str:
    """Every explainer: what it asks of a network; with ``long`` its options."""
    rows = _rows(EXPLAINERS, _explainer_row)
    text = _table(["explainer", "what", "needs", "can be trained on"], rows, [None, 60, None, None])
    if long:
        for name in EXPLAINERS.names():
            if EXPLAINERS.get(name).options:
                text += f"\n\n{name}:\n" + _hparams(EXPLAINERS.get(name).options)
    return text + _broken(EXPLAINERS)


def sweeps(long: bool) -> str:
    """Every sweep file in sweeps/: title; with ``long`` data sets and algorithms."""
    rows = []
    for path in sorted(SWEEPS.glob("*.toml")):
        try:
            values = read_toml(path)
        except (OSError, UserError) as error:  # one broken file must not hide the others
            values = {"title": f"not readable: {error}"}
        lists = [values.get(key, []) for key in ("datasets", "algorithms")] if long else []
        written = [
            ", ".join(map(str, names)) if isinstance(names, list) else str(names) for names in lists
        ]
        rows.append([path.stem, str(values.get("title", "")), *written])
    headers = ["sweep", "title", "datasets", "algorithms"][: 4 if long else 2]
    return _table(headers, rows, [None, 60, 30, 40][: len(headers)])


def criteria(long: bool) -> str:
    """Every selection criterion."""
    text = _table(
        ["criterion", "selects the step with the best", "needs"],
        [[name, rule, _criterion_needs(rule)] for name, rule in CRITERIA.items()],
        [None, None, None],
    )
    return text + _broken(CRITERIA.registry)


def _criterion_needs(criterion: Criterion) -> str:
    needs = [DESCRIPTIONS[name] for name in criterion.needs.names()]
    if criterion.uses_objective:
        needs.append("a method that declares an objective")
    return ", ".join(needs)


LISTS: Mapping[str, Callable[[bool], str]] = {
    "algorithms": algorithms,
    "datasets": datasets,
    "backbones": backbones,
    "explainers": explainers,
    "sweeps": sweeps,
    "criteria": criteria,
}


def _rows(registry: Registry, row: Callable[[Any], list[object]]) -> list[list[object]]:
    """A row for every class that is registered; one of another package that fails is listed as broken instead."""
    rows = []
    for name in registry.names():
        try:
            rows.append([name, *row(registry.get(name))])
        except Exception as error:
            registry.withdraw(name, error)
    return rows


def _algorithm_row(kind: Any) -> list[object]:
    needs = ", ".join(kind.needs.names()) or "labels only"
    return [needs, kind.sampling, ", ".join(kind.variants), _short(kind.paper)]


def _dataset_row(kind: Any) -> list[object]:
    info = kind().info()
    size = "×".join(str(n) for n in info.image_size)
    provides, tests = ", ".join(info.provides.names()), ", ".join(info.test_splits)
    return [kind.title, size, len(info.label_names), provides, tests]


def _backbone_row(kind: Any) -> list[object]:
    can = kind.capabilities
    able = (("Grad-CAM", can.cam), ("LRP", can.lrp), ("attention", can.attention))
    return [kind.doc, ", ".join(what for what, yes in able if yes), can.min_side]


def _explainer_row(kind: Any) -> list[object]:
    first = (kind.__doc__ or "").strip().partition("\n")[0]
    return [first, kind.requires, "yes" if kind.differentiable else "no"]


def _hparams(declared: Mapping[str, HParam]) -> str:
    rows = []
    for name, h in declared.items():
        default = (
            str(h.default) if h.large is None else f"{h.default} (large images {h.large.default})"
        )
        random = "" if h.random is None else str(h.random)
        if h.large is not None and h.large.random is not None:
            random = f"{random or '–'} (large images {h.large.random})"
        rows.append([name, default, random, h.doc])
    return _table(["name", "default", "random draw", "what"], rows, [None, 24, 34, 46])


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], widths: Sequence[int | None]
) -> str:
    """Cells are wrapped here: tabulate would make True of a "False" that it wraps."""
    from tabulate import tabulate

    wrapped = [
        [
            fill(str(cell), width) if width else str(cell)
            for cell, width in zip(row, widths, strict=True)
        ]
        for row in rows
    ]
    return tabulate(wrapped, headers, tablefmt="simple", disable_numparse=True)


def _short(paper: Paper | None) -> str:
    """Authors cut to the first where they are many, as a bibliography's key does."""
    if paper is None:
        return ""
    authors = paper.authors.split(", ")
    who = f"{authors[0]} et al." if len(authors) > 2 else " and ".join(authors)
    return f"{who} ({paper.year}), {paper.title}"


def _broken(registry: Registry) -> str:
    lines = [f"\nnot available: {origin}: {why}" for origin, why in sorted(registry.broken.items())]
    return "".join(lines)
