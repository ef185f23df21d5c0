"""Parts of the record of a run: what it was made on, how, and what was measured."""

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
    Name,
    Seconds,
    Text,
)

Names: TypeAlias = tuple[Name, ...]
Share: TypeAlias = Annotated[float | None, Between(0.0, 1.0 + 1e-6)]
Correlation: TypeAlias = Annotated[float | None, Between(-1.0 - 1e-6, 1.0 + 1e-6)]


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The data of a run.

    Attributes:
        label_names: of the classes.
        confounder_names: empty where they are not known.
        environment_names: empty where they are not known.
        group_names: in the order of ``DatasetInfo.group_names``.
        splits: images per split, in table order.
        bias_splits: the biased and the deceiving split, or None.
        paired: whether those two show the same objects.
        multi_label: whether an image may have several labels or none.
        stand_in: whether the data were generated in place of real ones.
        source: where the data come from.
        licence: the terms of their use.
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

    @property
    def test_splits(self) -> list[str]:
        """Names of the test splits, in table order."""
        return [name for name in self.splits if name not in ("train", "val")]

    @property
    def main_split(self) -> str | None:
        """The test split of average and worst-group accuracy; None without test splits.

        It is ``unbiased``, else ``test``, else the first other one. A split that only shows the
        bias comes last: the deceiving one of ``bias_splits``, then the biased one.
        """
        names = self.test_splits
        biased, deceiving = self.bias_splits or (None, None)
        neutral = [name for name in names if name not in (biased, deceiving)]
        preferred = ["unbiased", "test", *neutral, deceiving, biased]
        return next((name for name in preferred if name in names), None)


#: Where no record tells.
UNKNOWN_DATA = DataSummary(label_names=(), splits={})


@dataclass(frozen=True)
class MethodSummary:
    """The method of a run.

    Attributes:
        needs: names of the annotations that it used.
        sampling: how batches were drawn.
        paper: its source, or None.
        active_from: the first step that trains what the method is called (see ``Algorithm.active_from``); None in
            records that do not tell.
    """

    needs: tuple[Name, ...]
    sampling: Name
    paper: Text | None = None
    active_from: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds that parts of a run took, over all attempts that counted.

    Attributes:
        training, evaluation, total: of every run.
        explanations, embeddings: None where none were made.
    """

    training: Seconds
    evaluation: Seconds
    explanations: Seconds | None = None
    embeddings: Seconds | None = None
    total: Seconds

    def to_json(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class MachineSummary(Conditions):
    """The machine and the software of a run.

    Attributes:
        host: name of the machine.
        resumed: what had changed when the run was resumed, such as ``torch 2.10.0 after 2.9.1``.
    """

    host: Name = ""
    resumed: tuple[Text, ...] = ()


@dataclass(frozen=True)
class ExplainedSplit:
    """Where the network looks on one split: means over the images for which they are defined, or None.

    Attributes:
        images: how many were explained.
        zero_maps, nonfinite_maps, empty_masks: images that do not count.
        energy: share of absolute relevance in the foreground.
        correlation: Pearson's, of absolute relevance and mask.
        area: share of the image that is foreground.
        distance: from the teacher's heatmap; None for other methods.
        metrics: the explanation metrics of installed packages, by name.
    """

    images: Count = 0
    zero_maps: Count = 0
    nonfinite_maps: Count = 0
    empty_masks: Count = 0
    energy: Share = None
    correlation: Correlation = None
    area: Share = None
    distance: Annotated[float | None, Between(0.0, 1e30)] = None
    metrics: Mapping[str, Annotated[float | None, Between(-1e30, 1e30)]] = field(
        default_factory=dict
    )

    def value(self, name: str) -> float | None:
        """Return the mean of a metric, or None if it was not recorded or never defined."""
        recorded: float | None = getattr(self, name, None)
        return self.metrics.get(name, recorded)

    def to_json(self) -> dict[str, Any]:
        content = asdict(self)
        if not self.metrics:
            del content["metrics"]
        return content


@dataclass(frozen=True)
class ExplanationSummary:
    """Where the network of a run looks.

    Attributes:
        explainer: its name; None where there is no explanation, and ``note`` says why.
        splits: by name of the test split.
        note: why there is no explanation, or empty.
    """

    explainer: Name | None
    splits: Mapping[str, ExplainedSplit]
    note: Text = ""

    def to_json(self) -> dict[str, Any]:
        splits = {name: split.to_json() for name, split in self.splits.items()}
        if all(split.distance is None for split in self.splits.values()):
            for split in splits.values():  # only students have one
                del split["distance"]
        found = {"explainer": self.explainer, "splits": splits}
        return {**found, "note": self.note} if self.note else found


@dataclass(frozen=True)
class EmbeddedSplit:
    """How labels and confounders cluster among the features of one split: silhouettes, or None.

    Attributes:
        images: how many.
        label, confounder: silhouettes from −1 to 1.
    """

    images: Count = 0
    label: Correlation = None
    confounder: Correlation = None


@dataclass(frozen=True)
class EmbeddingSummary:
    """How the network of a run arranges test images.

    Attributes:
        dimensions: of the features; None where there are none, and ``note`` says why.
        splits: by name of the test split.
        note: why there are none, or empty.
    """

    dimensions: Count | None
    splits: Mapping[str, EmbeddedSplit]
    note: Text = ""

    def to_json(self) -> dict[str, Any]:
        splits = {name: asdict(split) for name, split in self.splits.items()}
        found = {"dimensions": self.dimensions, "splits": splits}
        return {**found, "note": self.note} if self.note else found


@dataclass(frozen=True, eq=False)
class SelectedStep:
    """The step that one criterion chose.

    Attributes:
        step: its number.
        value: of the criterion; the higher the better. None where it is no number.
        counts: confusion counts by split, int[confounder, label, predicted], or with several labels per image
            int[label, confounder, present, predicted].
    """

    step: int
    value: float | None
    counts: Mapping[str, np.ndarray]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SelectedStep) and self.to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        splits = {name: {"counts": counts.tolist()} for name, counts in self.counts.items()}
        return {"step": self.step, "value": self.value, "splits": splits}


@dataclass(frozen=True)
class UpstreamSummary:
    """A run that came first.

    Attributes:
        key: of the run.
        method: its name.
        selected: its own selected steps, by criterion; empty where they were not read.
    """

    key: Key
    method: Name
    selected: Mapping[str, SelectedStep] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        selected = {name: step.to_json() for name, step in self.selected.items()}
        return {"key": self.key, "method": self.method, "selected": selected}
