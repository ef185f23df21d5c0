"""The explanations of a finished run: of images, of whole classes, and their sensitivity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmark.core.summaries import Sensitivity
from benchmark.core.thresholds import youden_thresholds
from benchmark.engine.explanations import Explanations, explain_splits, has_masks
from benchmark.engine.global_explanations import global_maps
from benchmark.engine.loop import TrainingRun
from benchmark.engine.record_parts import about_data
from benchmark.engine.sensitivity import Answers, measure_sensitivity, name_of_explainer


def explain_run(run: TrainingRun, predictions: Mapping[str, np.ndarray]) -> Explanations:
    """Explain the model that the first criterion selects.

    Images are explained on the test splits that have masks, sensitivity is measured on all
    labelled test splits, and classes as a whole are explained by methods that can.

    Args:
        run: the run, whose method is at the selected step.
        predictions: the arrays of predictions.npz.

    Returns:
        Nothing if the spec switches explanations off.
    """
    if not run.spec.compute_options.explanations:
        return Explanations()
    info = run.data.info
    masked = [name for name in info.test_splits if has_masks(run.data.splits[name])]
    gallery_splits = [name for name in info.bias_splits or () if name in masked] or masked[:2]
    first = run.spec.selection[0]
    predicted = {name: predictions[f"{first}/{name}/score"].argmax(1) for name in masked}
    splits = {name: run.split(name) for name in masked}
    found = explain_splits(run.algorithm, splits, predicted, gallery_splits)
    maps = global_maps(run.algorithm)
    sensitivity = _sensitivity(run, predictions, maps)
    more: dict[str, Any] = {}
    if maps:
        more["global_maps"] = list(maps)
    if sensitivity:
        more["sensitivity"] = [asdict(entry) for entry in sensitivity]
    if not more:
        return found
    report = found.report
    if not report:
        split = run.split(info.test_splits[0])
        report = {"explainer": name_of_explainer(run.algorithm, split), "splits": {}}
    return Explanations({**report, **more}, found.gallery, maps)


def _sensitivity(
    run: TrainingRun, predictions: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray]
) -> tuple[Sensitivity, ...]:
    """Measure the sensitivity of the model on the labelled test splits."""
    info = run.data.info
    first = run.spec.selection[0]
    names = [name for name in info.test_splits if name not in info.unlabelled_splits]
    threshold = np.zeros(len(info.label_names))
    if info.multi_label:
        label = run.data.splits["val"].label
        threshold = youden_thresholds(label, predictions[f"{first}/val/score"])
    answers = {
        name: Answers(predictions[f"{first}/{name}/score"], run.data.splits[name].label, threshold)
        for name in names
    }
    return measure_sensitivity(
        run.algorithm,
        {name: run.split(name) for name in names},
        answers,
        about_data(run.data).main_split,
        info.bias_splits if info.paired else None,
        next(iter(maps.values()), None),
    )
