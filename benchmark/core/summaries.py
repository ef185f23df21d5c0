"""Parts of the record of a run: its data, its method, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, TypeAlias

import numpy as np

from benchmark.core.conditions import Conditions
from benchmark.core.decode import (
    Between,
    Count,
    Key,
    Matching,
    Name,
    Positive,
    Seconds,
    Text,
)
from benchmark.core.stored_counts import counts_to_json

Names: TypeAlias = tuple[Name, ...]
Share: TypeAlias = Annotated[float | None, Between(0.0, 1.0 + 1e-6)]
Correlation: TypeAlias = Annotated[float | None, Between(-1.0 - 1e-6, 1.0 + 1e-6)]


@dataclass(frozen=True, kw_only=True)
class InputSummary:
    """The images that the network of a run accepts, and how files are converted to them.

    Attributes:
        image_size: (C, H, W).
        mean: Mean of each channel for pixel values in [0, 1], which normalisation subtracts.
        std: Standard deviation of each channel, by which it divides.
        fit: See ``ImageConversion``, as for the following fields.
        middle: Side of the central square, or 0.
        equalise: Whether histograms are equalised.
        bits: Bits of a 16-bit value that are in use.
    """

    image_size: tuple[Positive, Positive, Positive]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Name = "stretch"
    middle: Count = 0
    equalise: bool = False
    bits: Positive = 16


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The data of a run.

    Attributes:
        label_names: Names of the classes.
        confounder_names: Names of the confounders; empty if they are unknown.
        environment_names: Names of the training environments; empty if they are unknown.
        group_names: Names of the groups, in the order of ``DatasetInfo.group_names``.
        splits: Number of images per split, in table order.
        bias_splits: The biased and the deceiving split, or None.
        paired: True if these two splits show the same objects.
        multi_label: True if an image may have several labels or none.
        stand_in: True if the data were generated in place of real ones.
        source: Origin of the data.
        licence: Terms of use.
        unlabelled_splits: Test splits without known labels, of which tables have no accuracy.
        unannotated_masks: True if training masks were made by a network, without annotation.
        input: Images that the network accepts; None in records of earlier versions.
    """

    label_names: Names
    confounder_names: Names = ()
    environment_names: Names = ()
    group_names: Names = ()
    splits: Mapping[str, Count]
    bias_splits: tuple[Name, Name] | None = None
    paired: bool = False
    multi_label: bool = False
    stand_in: bool = False
    source: Text = ""
    licence: Text = ""
    unlabelled_splits: Names = ()
    unannotated_masks: bool = False
    input: InputSummary | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON, without those that earlier versions do not have."""
        value = asdict(self)
        for name in ("unlabelled_splits", "unannotated_masks"):
            if not value[name]:
                del value[name]
        return value

    @property
    def test_splits(self) -> list[str]:
        """Names of the test splits, in table order."""
        return [name for name in self.splits if name not in ("train", "val")]

    @property
    def main_split(self) -> str | None:
        """The test split of average and worst-group accuracy, or None without test splits.

        It is ``unbiased``, else ``test``, else the first other split. A split that only shows the
        bias comes last: the deceiving one of ``bias_splits``, then the biased one.
        """
        names = [name for name in self.test_splits if name not in self.unlabelled_splits]
        biased, deceiving = self.bias_splits or (None, None)
        neutral = [name for name in names if name not in (biased, deceiving)]
        preferred = ["unbiased", "test", *neutral, deceiving, biased]
        return next((name for name in preferred if name in names), None)


#: The data of a run without a record.
UNKNOWN_DATA = DataSummary(label_names=(), splits={})


@dataclass(frozen=True)
class MethodSummary:
    """The method of a run.

    Attributes:
        needs: Names of the annotations that it used.
        sampling: How batches were drawn.
        paper: Its publication, or None.
        active_from: First step that trains the method (see ``Algorithm.active_from``); None in
            records that do not contain it.
    """

    needs: tuple[Name, ...]
    sampling: Name
    paper: Text | None = None
    active_from: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds that parts of a run took, over all attempts that contributed to it.

    Attributes:
        training: Training.
        evaluation: Evaluation.
        explanations: Heatmaps; None if there are none.
        embeddings: Features; None if there are none.
        total: All of them.
    """

    training: Seconds
    evaluation: Seconds
    explanations: Seconds | None = None
    embeddings: Seconds | None = None
    total: Seconds

    def to_json(self) -> dict[str, float]:
        """Return the content of ``seconds`` in record.json."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class MachineSummary(Conditions):
    """The machine and the software of a run.

    Attributes:
        host: Name of the machine.
        resumed: What had changed when the run was resumed, such as ``torch 2.10.0 after 2.9.1``.
    """

    host: Name = ""
    resumed: tuple[Text, ...] = ()


@dataclass(frozen=True)
class ExplainedSplit:
    """Localization of the relevance of images on one split.

    Values are means over the images for which they are defined, or None if there are none.

    Attributes:
        images: Number of explained images.
        zero_maps: Number of images left out because their heatmap is zero.
        nonfinite_maps: Number of images left out because their heatmap is not finite.
        empty_masks: Number of images left out because their mask is empty.
        energy: Share of absolute relevance in the foreground.
        correlation: Pearson correlation of absolute relevance and mask.
        area: Share of the image that is foreground.
        distance: Distance from the heatmap of the teacher; None for other methods.
        on_shortcut: Share of absolute relevance where the confounder shows; None if it shows
            nowhere or its place is not known.
        shortcut_area: Share of the image where the confounder shows, likewise.
        foreground_is_rest: Whether the foreground is merely everything except the shortcut, as in
            data without masks in which a mark was planted.
        metrics: Explanation metrics of installed packages, by name.
    """

    images: Count = 0
    zero_maps: Count = 0
    nonfinite_maps: Count = 0
    empty_masks: Count = 0
    energy: Share = None
    correlation: Correlation = None
    area: Share = None
    distance: Annotated[float | None, Between(0.0, 1e30)] = None
    on_shortcut: Share = None
    shortcut_area: Share = None
    foreground_is_rest: bool = False
    metrics: Mapping[str, Annotated[float | None, Between(-1e30, 1e30)]] = field(
        default_factory=dict
    )

    def value(self, name: str) -> float | None:
        """Return the mean of a metric, or None if it was not recorded or never defined."""
        recorded: float | None = getattr(self, name, None)
        return self.metrics.get(name, recorded)

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        for name in ("on_shortcut", "shortcut_area"):
            if content[name] is None:
                del content[name]
        for name in ("foreground_is_rest", "metrics"):
            if not content[name]:
                del content[name]
        return content


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """One measure of the sensitivity of explanations or predictions, for one class.

    Attributes:
        measure: Name of the measure, see ``benchmark/explain/sensitivity.py``: the functions, and
            ``flips`` of the tag effect.
        split: Test split; empty for pairs of images of the biased and the deceiving split.
        label: Number of the explained class.
        value: Mean over images, or over groups of images; None if it is undefined for all.
        error: Standard error of the mean over images; None for fewer than two.
        images: Number of images, pairs or groups in the mean.
        left_out: Number of those for which the measure is undefined, such as blank heatmaps.
        chance: Value of a heatmap that knows nothing; None if there is none.
        area: Share of the image that the evidence or the shortcut covers, mean over these images;
            None if the measure has no mask.
    """

    measure: Name
    split: Name = ""
    label: Count
    value: Annotated[float | None, Between(-1e30, 1e30)]
    error: Annotated[float | None, Between(0.0, 1e30)] = None
    images: Count
    left_out: Count = 0
    chance: Share = None
    area: Share = None


@dataclass(frozen=True)
class ExplanationSummary:
    """Explanations of the network of a run.

    Attributes:
        explainer: Name of the explainer; None if there is no explanation.
        splits: Results by test split.
        note: Why there is no explanation, or empty.
        sensitivity: Sensitivity to classes, their evidence and the shortcut.
        global_maps: Names of the explanations of whole classes.
    """

    explainer: Name | None
    splits: Mapping[str, ExplainedSplit]
    note: Text = ""
    sensitivity: tuple[Sensitivity, ...] = ()
    global_maps: Names = ()

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``extra.explanations`` in record.json."""
        splits = {name: split.to_json() for name, split in self.splits.items()}
        if all(split.distance is None for split in self.splits.values()):
            for split in splits.values():  # Only students have a distance.
                del split["distance"]
        found: dict[str, Any] = {"explainer": self.explainer, "splits": splits}
        if self.note:
            found["note"] = self.note
        if self.global_maps:
            found["global_maps"] = list(self.global_maps)
        if self.sensitivity:
            found["sensitivity"] = [asdict(measured) for measured in self.sensitivity]
        return found


@dataclass(frozen=True)
class MeasuredMetric:
    """A metric of explanations.

    Attributes:
        title: Title of its column.
        higher_is_better: Direction of comparisons; None if explainers are not compared by it.
    """

    title: Name
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class MeasuredSplit:
    """A measurement of the explanations of one split.

    Attributes:
        images: Number of explained images.
        digest: SHA-256 of the images, their masks and their labels, which is equal where
            explanations of the same images were measured.
        means: Mean of each metric over the images for which it is defined; None if there are none.
        undefined: Number of images for which each metric is not defined.
    """

    images: Count
    digest: Annotated[str, Matching("[0-9a-f]{64}", "a sha256")]
    means: Mapping[str, Annotated[float | None, Between(-1e30, 1e30)]] = field(default_factory=dict)
    undefined: Mapping[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasurementSummary:
    """The measurement of an explainer of a trained model.

    Attributes:
        explainer: Name of the explainer.
        metrics: The metrics by name.
        splits: Results by split; empty if the explainer does not suit the model.
        seconds_per_image: Mean time of an explanation of one image, alone in its batch; None if it
            was not measured.
        note: Why there are no results, or empty.
        sensitivity: Sensitivity to classes and their evidence, if it was measured.
    """

    explainer: Name
    metrics: Mapping[str, MeasuredMetric]
    splits: Mapping[str, MeasuredSplit]
    seconds_per_image: Annotated[float | None, Between(0.0, 1e9)] = None
    note: Text = ""
    sensitivity: tuple[Sensitivity, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``extra.measurement`` in record.json."""
        found = asdict(self)
        if not self.sensitivity:
            del found["sensitivity"]
        return found


@dataclass(frozen=True)
class EmbeddedSplit:
    """Clustering of the features of one split by label, confounder and environment.

    Attributes:
        images: Number of images.
        label: Silhouette of the labels, from −1 to 1, or None.
        confounder: Silhouette of the confounders, from −1 to 1, or None.
        environment: Silhouette of the environments among images of the split and of validation,
            from −1 to 1, or None. The split is an environment of its own.
    """

    images: Count = 0
    label: Correlation = None
    confounder: Correlation = None
    environment: Correlation = None

    def to_json(self) -> dict[str, Any]:
        """Return an entry of ``extra.embeddings.splits`` in record.json."""
        found = asdict(self)
        if self.environment is None:
            del found["environment"]
        return found


@dataclass(frozen=True)
class EmbeddingSummary:
    """Arrangement of the features of test images.

    Attributes:
        dimensions: Number of features; None if there are none.
        splits: Results by test split.
        note: Why there are no features, or empty.
    """

    dimensions: Count | None
    splits: Mapping[str, EmbeddedSplit]
    note: Text = ""

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``extra.embeddings`` in record.json."""
        splits = {name: split.to_json() for name, split in self.splits.items()}
        found = {"dimensions": self.dimensions, "splits": splits}
        return {**found, "note": self.note} if self.note else found


@dataclass(frozen=True, eq=False)
class SelectedStep:
    """The step that a criterion selected.

    Attributes:
        step: Number of the step.
        value: Value of the criterion, higher is better; None if it is not finite.
        counts: Confusion counts by split, int[confounder, label, predicted], or int[label,
            confounder, present, predicted] for multi-label data.
    """

    step: int
    value: float | None
    counts: Mapping[str, np.ndarray]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SelectedStep) and self.to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        splits = {name: {"counts": counts_to_json(counts)} for name, counts in self.counts.items()}
        return {"step": self.step, "value": self.value, "splits": splits}


@dataclass(frozen=True)
class UpstreamSummary:
    """An upstream run.

    Attributes:
        key: Key of the run.
        method: Its method.
        selected: Its selected steps by criterion; empty if they were not read.
    """

    key: Key
    method: Name
    selected: Mapping[str, SelectedStep] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        selected = {name: step.to_json() for name, step in self.selected.items()}
        return {"key": self.key, "method": self.method, "selected": selected}
