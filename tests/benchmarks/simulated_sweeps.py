"""Sweep folders with known true values, in the format that the engine and the planner write.

Every answer of a network follows one model, on the probit scale::

    margin = centre[method, group] + seed[trial] + trial[method, trial]
             + interaction[method, trial, group] + difficulty[image] + noise

The answer is correct where the margin is positive. The difficulty of an image is shared by all
methods and trials, the seed's effect by all methods; both cancel from differences of methods.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from benchmark.core.counts import accuracy
from benchmark.core.errors import DamagedError
from benchmark.core.layout import State, SweepFolder
from benchmark.core.record import RunRecord
from benchmark.core.spec import RunSpec
from benchmark.core.summaries import SelectedStep
from benchmark.report.records.model_selection import SelectedRun
from benchmark.report.records.predictions import PredictionStore
from benchmark.report.records.stored_arrays import StoredPredictions
from benchmark.report.records.sweep_records import Sweep, SweepRun
from benchmark.report.statistics.plug_in import plug_in
from tests.support.fake_sweep import Method as MethodNames
from tests.support.fake_sweep import make_record

#: Order, difficulty and patient of the images of each split.
Drawn = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]
BIAS_SPLITS = ("biased", "unbiased", "deceiving")
CRITERION = "val_accuracy"
_NO_STEP = {CRITERION: {"step": 200, "value": 0.0, "splits": {}}}


@dataclass(frozen=True)
class World:
    """A data set and the variance of its networks.

    Attributes:
        sizes: Images of each group. With ``bias_splits`` the number of pairs of each class instead.
        confounders: Values of the confounder; 0 if it is unknown, and then groups are classes.
        bias_splits: Whether there are a biased, an unbiased and a deceiving split of the same
            objects; otherwise the only test split is ``test``.
        seed_sd: Standard deviation of the effect of a trial that all methods share.
        trial_sd: Standard deviation of the effect of a trial on one method.
        trial_factors: Factors of ``trial_sd`` for the methods in turn; all 1 if empty.
        group_sd: Standard deviation of the effect of a trial on one group.
        image_sd: Standard deviation of the difficulty of images.
        draws: Draws per trial, all of them equal in truth.
        patients: Number of patients, whose images share the difficulty; 0 for independent images.
        own_images: Whether each trial has test images of its own.
        predictions: Whether runs have predictions.npz.
        labels: Labels that each image may have; 0 for data with one class per image.
    """

    sizes: tuple[int, ...]
    confounders: int = 0
    bias_splits: bool = False
    seed_sd: float = 0.0
    trial_sd: float = 0.1
    trial_factors: tuple[float, ...] = ()
    group_sd: float = 0.0
    image_sd: float = 1.0
    draws: int = 1
    patients: int = 0
    own_images: bool = False
    predictions: bool = True
    labels: int = 0

    @property
    def classes(self) -> int:
        """Number of classes, or of labels."""
        if self.labels:
            return self.labels
        per_class = 1 if self.bias_splits else max(self.confounders, 1)
        return len(self.sizes) // per_class

    @property
    def groups(self) -> int:
        """Number of groups of the model above."""
        return self.classes * max(self.confounders, 1)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the test splits."""
        return BIAS_SPLITS if self.bias_splits else ("test",)

    def scale(self) -> float:
        """Return the standard deviation of an answer given the effects of its trial."""
        return math.sqrt(1.0 + self.image_sd**2)


@dataclass(frozen=True)
class Images:
    """The test images of one split.

    Attributes:
        label: int[n], or int[n, K] of 0 and 1.
        confounder: int[n], or None.
        group: int[n], or int[n, K]: row of ``centre`` of each answer.
    """

    label: np.ndarray
    confounder: np.ndarray | None
    group: np.ndarray


def images_of(world: World) -> dict[str, Images]:
    """Return the images of ``val`` and of each test split, the same in every repetition."""
    if world.labels:
        random = np.random.default_rng(5)
        share = np.linspace(0.2, 0.5, world.labels)
        label = (random.random((world.sizes[0], world.labels)) < share).astype(np.int64)
        group = np.broadcast_to(np.arange(world.labels), label.shape)
        return dict.fromkeys(("val", *world.splits), Images(label, None, group))
    confounders = max(world.confounders, 1)
    if not world.bias_splits:
        group = np.repeat(np.arange(len(world.sizes)), world.sizes)
        place = group % confounders if world.confounders else None
        images = Images(group // confounders, place, group)
        return dict.fromkeys(("val", *world.splits), images)
    label = np.repeat(np.arange(world.classes), world.sizes)
    position = np.arange(len(label))
    places = {
        "biased": label,
        "unbiased": position % confounders,
        "deceiving": (label + 1) % confounders,
    }
    found = {
        split: Images(label, place, label * confounders + place) for split, place in places.items()
    }
    return {"val": found["unbiased"], **found}


@dataclass
class Simulator:
    """Writes one sweep after the other into the same folder.

    Args:
        folder: Folder of the sweep; it is created.
        world: The data set.
        centres: [methods, groups] centre of each method.
        trials: Number of trials.
    """

    folder: Path
    world: World
    centres: np.ndarray
    trials: int
    images: dict[str, Images] = field(init=False)
    specs: list[list[list[RunSpec]]] = field(init=False)
    records: dict[str, RunRecord] = field(default_factory=dict)
    keys: dict[tuple[str, int, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.images = images_of(self.world)
        plan = {}
        self.specs = []
        for k in range(len(self.centres)):
            self.specs.append([])
            for trial in range(self.trials):
                specs = [self._spec(f"method{k}", trial, d) for d in range(self.world.draws)]
                self.specs[-1].append(specs)
                for spec in specs:
                    self.keys[spec.algorithm, trial, spec.draw] = spec.key
                    self._prepare(spec)
                    plan[spec.key] = {
                        "dataset": "simulated",
                        "method": spec.algorithm,
                        "trial": trial,
                        "draw": spec.draw,
                        "requested": True,
                    }
        sweep = {
            "schema": 1,
            "name": "simulated",
            "title": "Simulated",
            "created": 1_700_000_000.0,
            "runs": plan,
            "refused": [],
            "selection": [CRITERION],
            "config": {},
        }
        (self.folder / "sweep.json").write_text(json.dumps(sweep))

    def effects(self, random: np.random.Generator, centres: np.ndarray, trials: int) -> np.ndarray:
        """Return the centres of groups by trial and draw, [methods, trials, draws, groups]."""
        world = self.world
        shape = (len(centres), trials, world.draws)
        seed = world.seed_sd * random.normal(size=(1, trials, 1, 1))
        factors = np.resize(world.trial_factors or 1.0, len(centres))[:, None, None, None]
        trial = world.trial_sd * factors * random.normal(size=(*shape, 1))
        interaction = world.group_sd * random.normal(size=(*shape, world.groups))
        return np.asarray(centres[:, None, None] + seed + trial + interaction)

    def write(self, random: np.random.Generator, centres: np.ndarray | None = None) -> np.ndarray:
        """Write new results of every run into the folder.

        Args:
            random: Source of all draws.
            centres: [methods, groups] in place of those of the simulator.

        Returns:
            The effects, as ``effects`` returns them.
        """
        effects = self.effects(random, self.centres if centres is None else centres, self.trials)
        for spec, centre, drawn in self._planned(random, effects):
            arrays, counts = self._answers(random, centre, drawn)
            folder = self.folder / "runs" / spec.key
            record = self._record(spec, counts)
            (folder / "record.json").write_text(json.dumps(record.to_json()))
            if self.world.predictions:
                np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
        return effects

    def load(
        self, random: np.random.Generator, centres: np.ndarray | None = None
    ) -> tuple[Sweep, PredictionStore, np.ndarray]:
        """Return what the report reads from the folder after ``write``, without using the disk.

        This takes a third of the time. A test shows that the report prints the same.

        Args:
            random: Source of all draws.
            centres: [methods, groups] in place of those of the simulator.

        Returns:
            The sweep, its predictions and the effects.
        """
        effects = self.effects(random, self.centres if centres is None else centres, self.trials)
        stored: dict[str, dict[str, np.ndarray]] = {}
        runs = []
        for spec, centre, drawn in self._planned(random, effects):
            key = self._key(spec)
            arrays, counts = self._answers(random, centre, drawn)
            if self.world.predictions:
                stored[key] = arrays
            run = SweepRun(
                key,
                "simulated",
                spec.algorithm,
                requested=True,
                folder=SweepFolder(self.folder).run(key),
                state=State.DONE,
                trial=spec.trial,
                draw=spec.draw,
                spec=spec,
                record=self._record(spec, counts),
            )
            runs.append(run)
        sweep = Sweep(self.folder, "simulated", "Simulated", 0.0, runs, [], {}, [])
        return sweep, _StoreInMemory(stored), effects

    def _planned(
        self, random: np.random.Generator, effects: np.ndarray
    ) -> Iterator[tuple[RunSpec, np.ndarray, Drawn]]:
        """Yield each run with the effects of its trial and its images."""
        for trial in range(self.trials):
            if trial == 0 or self.world.own_images:
                drawn = self._draw_images(random)
            for k in range(len(effects)):
                for draw in range(self.world.draws):
                    yield self.specs[k][trial][draw], effects[k, trial, draw], drawn

    def _key(self, spec: RunSpec) -> str:
        """Return the key of a run; computing it takes a quarter of the time of a sweep."""
        return self.keys[spec.algorithm, spec.trial, spec.draw]

    def _record(self, spec: RunSpec, counts: dict[str, np.ndarray]) -> RunRecord:
        step = SelectedStep(200, accuracy(counts["val"]), counts)
        return replace(self.records[self._key(spec)], selected={CRITERION: step})

    def _draw_images(self, random: np.random.Generator) -> Drawn:
        """Return the order, difficulty and patient of the images of each split.

        The splits with another bias show the same objects, so they share the difficulty.
        """
        n = len(self.images["val"].label)
        found: Drawn = {}
        shared = self._difficulty(random, n)
        order = random.permutation(n) if self.world.own_images else np.arange(n)
        for split in ("val", *self.world.splits):
            difficulty, patient = self._difficulty(random, n) if split == "val" else shared
            found[split] = order, difficulty, patient
        return found

    def _difficulty(
        self, random: np.random.Generator, n: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if not self.world.patients:
            return self.world.image_sd * random.normal(size=n), None
        patient = random.integers(self.world.patients, size=n)
        return self.world.image_sd * random.normal(size=self.world.patients)[patient], patient

    def _answers(
        self, random: np.random.Generator, centre: np.ndarray, drawn: Drawn
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the arrays of predictions.npz and the confusion counts of each split."""
        arrays: dict[str, np.ndarray] = {}
        counts: dict[str, np.ndarray] = {}
        for split, (order, difficulty, patient) in drawn.items():
            images = self.images[split]
            label = images.label[order]
            place = None if images.confounder is None else images.confounder[order]
            group = images.group[order]
            hard = difficulty[:, None] if self.world.labels else difficulty
            margin = centre[group] + hard + random.normal(size=group.shape)
            if self.world.labels:
                score = np.where(label == 1, margin, -margin)
                counts[split] = _label_counts(label, margin > 0)
            else:
                score = _scores(random, label, margin, self.world.classes)
                counts[split] = _counts(label, place, score.argmax(1), self.world)
            arrays[f"{split}/label"] = label
            arrays[f"{CRITERION}/{split}/score"] = score
            if place is not None:
                arrays[f"{split}/confounder"] = place
            if patient is not None:
                arrays[f"{split}/cluster"] = patient
            if self.world.bias_splits and not self.world.own_images:
                arrays[f"{split}/pair_id"] = np.arange(len(label))
        return arrays, counts

    def _spec(self, method: str, trial: int, draw: int) -> RunSpec:
        return RunSpec(
            dataset="simulated",
            dataset_options={},
            data_fingerprint="0" * 16,
            algorithm=method,
            variant="",
            backbone="convnet",
            backbone_options={},
            hparams={"lr": 1e-3 * (1 + draw)},
            trial=trial,
            draw=draw,
            budget={"steps": 300, "evaluate_every": 100, "patience": 0, "min_delta": 0.0},
            selection=(CRITERION,),
            upstream={},
        )

    def _prepare(self, spec: RunSpec) -> None:
        folder = self.folder / "runs" / spec.key
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(spec.to_json()))
        value = make_record(spec, _NO_STEP, self._data(), MethodNames(spec.algorithm))
        self.records[spec.key] = RunRecord.from_json(value, str(folder / "record.json"))

    def _data(self) -> dict[str, Any]:
        labels = [f"class{j}" for j in range(self.world.classes)]
        places = [f"place{z}" for z in range(self.world.confounders)]
        n = len(self.images["val"].label)
        return {
            "label_names": labels,
            "confounder_names": places,
            "environment_names": [],
            "group_names": [f"{label}/{place}" for label in labels for place in places],
            "splits": {"train": 1000, "val": n, **dict.fromkeys(self.world.splits, n)},
            "bias_splits": ["biased", "deceiving"] if self.world.bias_splits else None,
            "paired": self.world.bias_splits,
            "multi_label": bool(self.world.labels),
            "stand_in": False,
            "source": "simulated",
            "licence": "none",
        }


class _StoreInMemory(PredictionStore):
    """Predictions of a simulated sweep that were not written."""

    def __init__(self, stored: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        super().__init__()
        self._stored = stored

    def _read(self, selected_run: SelectedRun, split: str) -> StoredPredictions:
        arrays = self._stored.get(selected_run.run.key)
        if arrays is None:
            raise DamagedError("predictions.npz is missing.")
        names = ("confounder", "pair_id", "cluster")
        return StoredPredictions(
            arrays[f"{split}/label"],
            arrays[f"{CRITERION}/{split}/score"],
            *(arrays.get(f"{split}/{name}") for name in names),
        )


def true_scores(world: World, images: dict[str, Images], centre: np.ndarray) -> dict[str, float]:
    """Return what the columns of the report would be on infinitely many images.

    Args:
        world: The data set.
        images: Its images, for the shares of groups.
        centre: [..., groups] effects of a trial.

    Returns:
        Name of a column → [...] true value.
    """
    correct = ndtr(centre / world.scale())
    scores = {}
    for split in world.splits:
        share = np.bincount(images[split].group.ravel(), minlength=world.groups)
        scores[f"{split}_accuracy"] = correct @ (share / share.sum())
    main = images["unbiased" if world.bias_splits else "test"]
    present = np.bincount(main.group.ravel(), minlength=world.groups) > 0
    worst = "worst_group_accuracy" if world.confounders else "worst_class_accuracy"
    scores[worst] = correct[..., present].min(-1)
    if world.bias_splits:
        scores["gap"] = scores["biased_accuracy"] - scores["deceiving_accuracy"]
        scores["average_accuracy"] = scores.pop("unbiased_accuracy")
    else:
        scores["average_accuracy"] = scores.pop("test_accuracy")
    return scores


def true_overall(world: World, images: dict[str, Images], centre: np.ndarray) -> dict[str, float]:
    """Return the true overall scores (macro F1, …) on the main split given one trial's effects."""
    main = images["unbiased" if world.bias_splits else "test"]
    share = np.bincount(main.group, minlength=world.groups) / len(main.group)
    correct = share * ndtr(centre / world.scale())
    classes = world.classes
    confounders = max(world.confounders, 1)
    right = correct.reshape(classes, confounders).sum(1)
    wrong = share.reshape(classes, confounders).sum(1) - right
    table = np.repeat(wrong[:, None] / (classes - 1), classes, axis=1)
    np.fill_diagonal(table, right)
    scores = plug_in(np.rint(1e12 * table).astype(np.int64))
    return {name: float(value[0]) for name, value in scores.items() if len(value) == 1}


def true_auc(world: World, centre: np.ndarray) -> np.ndarray:
    """Return the AUC of two classes without confounders given the effects, [..., 2] → [...]."""
    return np.asarray(ndtr(centre.sum(-1) / (math.sqrt(2.0) * world.scale())))


def _scores(
    random: np.random.Generator, label: np.ndarray, margin: np.ndarray, classes: int
) -> np.ndarray:
    """Return scores [n, M]: the label's exceeds the highest other one by the margin."""
    n = len(label)
    score = np.full((n, classes), -5.0)
    rows = np.arange(n)
    other = (label + random.integers(1, max(classes, 2), n)) % classes
    score[rows, label] = margin / 2.0
    score[rows, other] = -margin / 2.0
    return score


def _counts(
    label: np.ndarray, place: np.ndarray | None, predicted: np.ndarray, world: World
) -> np.ndarray:
    """Return the confusion counts [confounder, label, predicted]."""
    classes = world.classes
    places = max(world.confounders, 1)
    cell = (label if place is None else place * classes + label) * classes + predicted
    return np.bincount(cell, minlength=places * classes**2).reshape(places, classes, classes)


def _label_counts(label: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return the counts [label, 1, present, predicted] of images that may have several labels."""
    predicted = np.where(correct, label, 1 - label)
    cell = (np.arange(label.shape[1]) * 2 + label) * 2 + predicted
    return np.bincount(cell.ravel(), minlength=4 * label.shape[1]).reshape(-1, 1, 2, 2)
