"""Plan the measurements of a sweep: the explainers of the [explanations] table for each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import ErrorCollector, UserError
from benchmark.core.hparam import parse_values
from benchmark.core.named_options import NamedOptions, base_name, parse_named_options
from benchmark.core.registry import ALGORITHMS, EXPLAINERS, EXPLANATION_METRICS, did_you_mean
from benchmark.core.spec import LABEL, Measurement, RunSpec
from benchmark.plan.resolve import RunRequest
from benchmark.plan.sweepfile import ExplanationsTable


@dataclass(frozen=True)
class PlannedExplainer:
    """An explainer of a sweep.

    Args:
        text: The explainer as the sweep file writes it.
        name: Its name in the registry, or ``algorithm:variant`` of a trained one.
        options: All of its options; empty for a trained one.
        explained_hparam: For a trained one, the hyper-parameter that names the explained method;
            else empty.
    """

    text: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    explained_hparam: str = ""

    def training(self, model: RunRequest, spec: RunSpec) -> RunRequest | None:
        """Return the run that trains the explainer of a model; None if it needs no training.

        Args:
            model: The request of the model.
            spec: The spec of the model, whose data and backbone the explainer has.
        """
        if not self.explained_hparam:
            return None
        options = {name: str(value) for name, value in spec.backbone_options.items()}
        return replace(
            model,
            method=self.name,
            hparams={self.explained_hparam: model.method},
            dataset_options=spec.dataset_options,
            backbone=NamedOptions(spec.backbone, options),
        )


def read_explainers(table: ExplanationsTable) -> list[PlannedExplainer]:
    """Return the explainers of a table, and check its metrics.

    Raises:
        Problems: If an explainer, an option or a metric does not exist.
        UserError: If there is a single such mistake.
    """
    errors = ErrorCollector()
    explainers = [errors(_read_explainer, text) for text in table.explainers]
    for name in table.metrics:
        errors(EXPLANATION_METRICS.get, name)
    errors.finish()
    return [explainer for explainer in explainers if explainer is not None]


def _read_explainer(text: str) -> PlannedExplainer:
    name = base_name(text).strip()
    if name in EXPLAINERS.names():
        kind = EXPLAINERS.get(name)
        named = parse_named_options(text)
        options = {option: declared.default for option, declared in kind.options.items()}
        options |= parse_values(kind.options, named.options, name)
        return PlannedExplainer(text, name, options)
    trained = [method for method in ALGORITHMS.names() if ALGORITHMS.get(method).explained_hparam]
    if name not in trained:
        raise UserError(
            f"unknown explainer {name!r}{did_you_mean(name, [*EXPLAINERS.names(), *trained])}"
        )
    return PlannedExplainer(text, text, {}, ALGORITHMS.get(name).explained_hparam)


def measurement_spec(
    table: ExplanationsTable,
    explainer: PlannedExplainer,
    model: RunSpec,
    info: DatasetInfo,
    trained: str | None,
) -> RunSpec:
    """Return the run that measures an explainer of a trained model.

    Args:
        table: The [explanations] table.
        explainer: The explainer.
        model: The run that trains the model.
        info: Description of its data.
        trained: Key of the run that trains the explainer; None if it needs no training.

    Raises:
        UserError: If the data have none of the splits, no single label to explain, or no masks for
            a metric that needs them.
    """
    known = [name for name in info.splits if name != "train"]
    splits = tuple(name for name in table.splits or info.test_splits if name in known)
    if not splits:
        raise UserError(
            f"[explanations] {model.dataset} has none of the splits "
            f"{', '.join(table.splits) or 'for tests'}; it has: {', '.join(known)}."
        )
    if table.target == LABEL and info.multi_label:
        raise UserError(
            f"[explanations] images of {model.dataset} may have several labels; explain the "
            'prediction: target = "prediction".'
        )
    has_masks = info.provides.masks or info.provides.val_masks
    for name in table.metrics:
        if EXPLANATION_METRICS.get(name).needs_mask and not has_masks:
            raise UserError(
                f"[explanations] the metric {name} needs masks, which {model.dataset} does not "
                "have; leave it out, or use data with masks."
            )
    upstream = {"model": model.key} | ({"explainer": trained} if trained else {})
    return replace(
        model,
        measurement=Measurement(
            explainer=explainer.name,
            options=explainer.options,
            metrics=table.metrics,
            images=table.images,
            splits=splits,
            target=table.target,
        ),
        budget={**model.budget, "steps": 0},
        evaluate_train=False,
        curves=(),
        upstream=upstream,
    )
