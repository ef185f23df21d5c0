"""Tables of measured explanations: metrics, comparisons with the best, agreement of rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.core.spec import LABEL
from benchmark.report.records.measurements import MeasuredExplainer
from benchmark.report.tables.explanation_blocks import (
    AUC,
    AUC_METRIC,
    POOLED_IOU,
    TIMES,
    Block,
    Cell,
    blocks_of,
)
from benchmark.report.tables.numbers import DASH, shows_bounds
from benchmark.report.tables.pairwise import ALPHA
from benchmark.report.tables.report_table import REPORT_TABLES, Report, ReportTable
from benchmark.report.tables.results_table import Table
from benchmark.report.tables.sheet import Sheet


def number(value: float, name: str) -> str:
    """Return a value as text: seconds with three digits, others with three decimals."""
    if name in TIMES:
        return f"{value:.3g}"
    text = f"{value:.3f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def _cell_text(cell: Cell | None, name: str, spread: str) -> str:
    if cell is None or cell.estimate.value is None:
        return DASH
    estimate = cell.estimate
    mark = "≈" if cell.best and cell.difference is not None else ""
    value = number(cell.estimate.value, name)
    if shows_bounds(spread):
        if estimate.low is None or estimate.high is None:
            return value + mark
        return f"{value} [{number(estimate.low, name)}, {number(estimate.high, name)}]{mark}"
    return (
        f"{value}{mark}" if estimate.sd is None else f"{value} ± {number(estimate.sd, name)}{mark}"
    )


@REPORT_TABLES.register
class ExplanationTable(ReportTable):
    """Explainers by metrics, for each method and split."""

    name = "explanations"
    position = 42
    json_key = "explanations"

    def sheets(self, report: Report) -> list[Sheet]:
        made = (_values_sheet(report, table) for table in report.tables)
        return [sheet for sheet in made if sheet is not None]

    def json_records(self, report: Report) -> list[dict[str, Any]]:
        return [
            _json_record(table, block, explainer, name)
            for table in report.tables
            for block in blocks_of(report, table)
            for explainer in block.explainers
            for name in block.columns
            if (explainer.name, name) in block.cells
        ]

    def csv_records(self, report: Report) -> list[dict[str, Any]]:
        return [
            _csv_record(table, record)
            for table in report.tables
            for record in self.json_records(report)
            if record["dataset"] == table.dataset and record["stand_in"] == table.stand_in
        ]


def _columns(blocks: Sequence[Block]) -> dict[str, tuple[str, bool | None]]:
    found: dict[str, tuple[str, bool | None]] = {}
    for block in blocks:
        found |= {name: about for name, about in block.columns.items() if name not in found}
    if AUC in found:
        found[AUC] = found.pop(AUC)  # last
    return found


def _arrow(direction: bool | None) -> str:
    return {True: " ↑", False: " ↓", None: ""}[direction]


def _values_sheet(report: Report, table: Table) -> Sheet | None:
    blocks = blocks_of(report, table)
    notes = _notes(report, table)
    if not blocks:
        return None
    columns = _columns(blocks)
    rows: list[list[str]] = []
    best: set[tuple[int, int]] = set()
    for block in blocks:
        rows.append([block.title])
        for explainer in block.explainers:
            cells = {name: block.cells.get((explainer.name, name)) for name in columns}
            texts = [_cell_text(cell, name, report.spread) for name, cell in cells.items()]
            best |= {
                (len(rows), i)
                for i, cell in enumerate(cells.values(), start=1)
                if cell is not None and cell.best and cell.difference is None
            }
            rows.append([table.titles.of(explainer.name), *texts, _undefined(cells, columns)])
    heads: list[Sequence[str]] = [
        ("explainer",),
        *((f"{title}{_arrow(direction)}",) for title, direction in columns.values()),
        ("not defined",),
    ]
    caption = _caption(report, blocks, columns)
    title = f"{table.title}, explanations"
    return Sheet(title, caption, heads, rows, notes=notes, best=tuple(sorted(best)))


def _undefined(
    cells: Mapping[str, Cell | None], columns: Mapping[str, tuple[str, bool | None]]
) -> str:
    """Return the number of images for which each metric is not defined."""
    counts: dict[str, list[str]] = {}
    for name, cell in cells.items():
        if cell is not None and cell.undefined and name != AUC:
            counts.setdefault(f"{cell.undefined} of {cell.images}", []).append(columns[name][0])
    return "; ".join(f"{', '.join(titles)}: {count}" for count, titles in counts.items()) or DASH


def _caption(
    report: Report, blocks: Sequence[Block], columns: Mapping[str, tuple[str, bool | None]]
) -> list[str]:
    several = any(len(block.trials) > 1 for block in blocks)
    images = sorted({n for b in blocks for one in b.explainers for n in one.images(b.split)})
    counted = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    specs = (one.run.spec for b in blocks for explainer in b.explainers for one in explainer.trials)
    targets = {spec.measurement.target for spec in specs if spec and spec.measurement}
    target = "label" if targets == {LABEL} else "predicted class"
    sentences = [
        f"Explanations of the {target} of {counted} images of each split and trial, mean over "
        "images and trials.",
        "Relevance is the absolute heatmap.",
    ]
    if any(name in columns for name in ("mass", "mass_minmax")):
        sentences.append("Mass: share of it in the foreground.")
    if POOLED_IOU in columns:
        sentences.append(
            "A pixel is predicted to be foreground if its relevance is above the mean of the "
            "image. Pooled IoU: mean over background and foreground of the intersection over the "
            "union of the pixels of all images."
        )
    if shows_bounds(report.spread):
        kinds = dict.fromkeys(
            cell.estimate.kind
            for block in blocks
            for (_, name), cell in block.cells.items()
            if cell.estimate.low is not None and name not in TIMES
        )
        sentences.append(f"Brackets: 95 % intervals ({'; '.join(kinds)}).")
        if not several:
            sentences.append("The intervals are for these networks on new images.")
    else:
        sentences.append(f"± sd over {'trials' if several else 'images, of the mean'}.")
    sentences.append(
        "↑ higher is better, ↓ lower. Bold (in text •): the best of its block; ≈: not "
        f"distinguishable from it ({100 * ALPHA:g} %, image by image, Holm over all pairs of "
        "explainers)."
    )
    if AUC in columns:
        sentences.append(
            f"{columns[AUC][0]}: probability that the {AUC_METRIC} of a random image is larger for "
            "the method of the block. It is far from ½ if an explainer distinguishes the methods."
        )
    return sentences


def _notes(report: Report, table: Table) -> list[str]:
    """Return what is missing, and trained explainers that are no better than a constant map."""
    notes: list[str] = []
    for row in table.rows:
        label = row.marked_label
        for explainer in report.measurements.explainers(row.selected_runs):
            name = table.titles.of(explainer.name)
            for problem in dict.fromkeys(explainer.problems):
                notes.append(f"{name} of {label}: {problem}")
            useless = report.measurements.useless_trials(explainer)
            notes += _useless(f"{name} of {label}", useless)
        own = [
            w.trial
            for w in row.selected_runs
            if w.run.record and w.run.record.extra.get("better_than_constant") is False
        ]
        notes += _useless(label, own)
    for refusal in report.sweep.refused_measurements:
        if refusal.dataset == table.dataset:
            explainer_title, method_title = map(
                table.titles.of, (refusal.explainer, refusal.method)
            )
            notes.append(f"{explainer_title} of {method_title}: {refusal.reason}")
    return list(dict.fromkeys(notes))


def _useless(label: str, trials: Sequence[int]) -> list[str]:
    """Return a note on the trials in which a trained explainer is no better than a constant map."""
    if not trials:
        return []
    named = f"trial{'s' if len(trials) > 1 else ''} {', '.join(map(str, trials))}"
    return [
        f"{label} explains nothing in {named}: its loss is not below that of the best constant map"
    ]


def _json_record(
    table: Table, block: Block, explainer: MeasuredExplainer, name: str
) -> dict[str, Any]:
    cell = block.cells[explainer.name, name]
    title, direction = block.columns[name]
    difference = cell.difference
    return {
        "dataset": table.dataset,
        "stand_in": table.stand_in,
        "method": block.row.method,
        "split": block.split,
        "explainer": explainer.name,
        "metric": name,
        "title": title,
        "higher_is_better": direction,
        "value": cell.estimate.value,
        "sd": cell.estimate.sd,
        "low": cell.estimate.low,
        "high": cell.estimate.high,
        "interval": cell.estimate.kind,
        "trials": block.trials,
        "images": cell.images,
        "undefined": cell.undefined,
        "not_distinguishable_from_best": cell.best,
        "difference_from_best": difference.estimate.value if difference else None,
        "difference_low": difference.estimate.low if difference else None,
        "difference_high": difference.estimate.high if difference else None,
        "p_holm": difference.p_holm if difference else None,
    }


def _csv_record(table: Table, record: Mapping[str, Any]) -> dict[str, Any]:
    row = next(row for row in table.rows if row.method == record["method"])
    undefined = f"not defined for {record['undefined']} images" if record["undefined"] else ""
    return {
        "dataset": record["dataset"],
        "stand_in": record["stand_in"],
        "method": record["method"],
        "requested": True,
        "needs": " ".join(row.needs or ()),
        "metric": f"explanations/{record['explainer']}/{record['metric']}",
        "split": record["split"],
        "value": record["value"],
        "sd": record["sd"],
        "low": record["low"],
        "high": record["high"],
        "interval": record["interval"] if record["low"] is not None else "",
        "trials": len(record["trials"]),
        "n": record["images"],
        "criterion": row.criterion,
        "before_switch": "",
        "notes": undefined,
    }


@REPORT_TABLES.register
class ExplainerComparisonTable(ReportTable):
    """Differences of explainers from the best of each metric, on the same images."""

    name = "explainer_comparisons"
    position = 43
    in_appendix = True

    def sheet_of(self, table: Table) -> Sheet | None:
        raise NotImplementedError

    def sheets(self, report: Report) -> list[Sheet]:
        made = (_comparison_sheet(report, table) for table in report.tables)
        return [sheet for sheet in made if sheet is not None]


def _comparison_sheet(report: Report, table: Table) -> Sheet | None:
    blocks = blocks_of(report, table)
    columns = {name: about for name, about in _columns(blocks).items() if about[1] is not None}
    rows: list[list[str]] = []
    for block in blocks:
        if not any(cell.difference for cell in block.cells.values()):
            continue
        rows.append([block.title])
        rows += [
            [
                table.titles.of(explainer.name),
                *(
                    _difference_text(block.cells.get((explainer.name, name)), name)
                    for name in columns
                ),
            ]
            for explainer in block.explainers
        ]
    if not rows:
        return None
    heads: list[Sequence[str]] = [
        ("explainer",),
        *((f"{title}{_arrow(direction)}",) for title, direction in columns.values()),
    ]
    caption = [
        "Difference from the best of the column in its block, with a 95 % interval, and Holm's p "
        "over all pairs of explainers. The same images are compared.",
    ]
    return Sheet(f"{table.title}, explainers compared with the best", caption, heads, rows)


def _difference_text(cell: Cell | None, name: str) -> str:
    if cell is None:
        return DASH
    if cell.difference is None:
        return "best" if cell.best else DASH
    estimate = cell.difference.estimate
    if estimate.value is None:
        return DASH
    text = number(estimate.value, name)
    if estimate.low is not None and estimate.high is not None:
        text += f" [{number(estimate.low, name)}, {number(estimate.high, name)}]"
    p = cell.difference.p_holm
    return text if p is None else f"{text}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"


@REPORT_TABLES.register
class MetricAgreementTable(ReportTable):
    """Agreement of the metrics in ranking the explainers."""

    name = "metric_agreement"
    position = 44
    json_key = "metric_agreement"

    def sheets(self, report: Report) -> list[Sheet]:
        made = (_agreement_sheet(report, table) for table in report.tables)
        return [sheet for sheet in made if sheet is not None]

    def json_records(self, report: Report) -> list[dict[str, Any]]:
        return [
            {
                "dataset": table.dataset,
                "stand_in": table.stand_in,
                "method": block.row.method,
                "split": block.split,
                "metrics": [first, second],
                "kendall_tau": found.value,
                "low": found.low,
                "high": found.high,
            }
            for table in report.tables
            for block in blocks_of(report, table)
            for a, first in enumerate(block.agreement[0])
            for b, second in enumerate(block.agreement[0])
            if a < b and block.agreement[1]
            for found in [block.agreement[1][a][b]]
        ]


def _agreement_sheet(report: Report, table: Table) -> Sheet | None:
    blocks = [block for block in blocks_of(report, table) if block.agreement[1]]
    if not blocks:
        return None
    names = list(dict.fromkeys(name for block in blocks for name in block.agreement[0]))
    titles = {name: about[0] for name, about in _columns(blocks).items()}
    rows: list[list[str]] = []
    for block in blocks:
        rows.append([block.title])
        place = {name: i for i, name in enumerate(block.agreement[0])}
        for a, first in enumerate(names[:-1]):
            if first in place:
                cells = [
                    _agreement_text(block, place.get(first), place.get(second)) if b > a else ""
                    for b, second in enumerate(names)
                ]
                rows.append([titles[first], *cells[1:]])
    caption = [
        "Kendall's τ-b between the rankings of the explainers by two metrics, with a 95 % interval "
        "by bootstrap over images and trials. 1: the same order; −1: the reverse order; 0: no "
        "agreement.",
    ]
    heads: list[Sequence[str]] = [("metric",), *((titles[name],) for name in names[1:])]
    return Sheet(f"{table.title}, agreement of the metrics", caption, heads, rows)


def _agreement_text(block: Block, a: int | None, b: int | None) -> str:
    if a is None or b is None:
        return DASH
    found = block.agreement[1][a][b]
    if found.value is None or found.low is None or found.high is None:
        return DASH
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
