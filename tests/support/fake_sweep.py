"""Valid sweep folders with synthetic results, written without running anything."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.failure import FailureKind, failure_json
from benchmark.core.spec import RunSpec

TEST_SPLITS = ("biased", "unbiased", "deceiving")


@dataclass(frozen=True)
class World:
    """A synthetic data set that shows the same objects in all test splits.

    Attributes:
        label: Name of the data set in the sweep file.
        classes: Number of labels, and of confounders.
        size: Number of images of each split.
        splits: Test splits.
        confounders: Whether confounders are known.
        paired: Whether biased and deceiving images are paired.
        stand_in: Whether the data are stand-in data.
        label_names: Names of the labels; ``class0`` etc. by default.
        same_images: Whether all trials have the same images.
    """

    label: str = "digits_on_photos:bias=0.95"
    classes: int = 2
    size: int = 200
    splits: tuple[str, ...] = TEST_SPLITS
    confounders: bool = True
    paired: bool = True
    stand_in: bool = False
    label_names: tuple[str, ...] = ()
    same_images: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return self.label_names or tuple(f"class{i}" for i in range(self.classes))

    @property
    def confounder_names(self) -> tuple[str, ...]:
        return tuple(f"place{i}" for i in range(self.classes)) if self.confounders else ()

    def annotations(self, split: str, trial: int) -> dict[str, np.ndarray]:
        """Label, confounder and pair_id of every image; the labels are the same in every split."""
        seed = 0 if self.same_images else trial
        label = np.random.default_rng(seed).permutation(np.arange(self.size) % self.classes)
        shift = {"biased": 0, "deceiving": 1}.get(split)
        drawn = np.random.default_rng((seed, len(split))).integers(self.classes, size=self.size)
        confounder = drawn if shift is None else (label + shift) % self.classes
        found = {"label": label, "pair_id": np.arange(self.size)}
        return {**found, "confounder": confounder} if self.confounders else found

    def data(self) -> dict[str, Any]:
        groups = [f"{a}/{b}" for a in self.names for b in self.confounder_names]
        biased = ["biased", "deceiving"] if {"biased", "deceiving"} <= set(self.splits) else None
        return {
            "label_names": list(self.names),
            "confounder_names": list(self.confounder_names),
            "environment_names": [],
            "group_names": groups,
            "splits": {"train": 1000, "val": self.size, **dict.fromkeys(self.splits, self.size)},
            "bias_splits": biased,
            "paired": self.paired and biased is not None,
            "stand_in": self.stand_in,
            "source": "synthetic, for tests",
            "licence": "none",
        }


@dataclass(frozen=True)
class Method:
    """A synthetic method.

    Attributes:
        label: Name of the method in the sweep file.
        right: Probability of a correct prediction if confounder and label agree.
        fooled: Probability of a correct prediction if they disagree.
        needs: Annotations that the method uses.
        requested: Whether the sweep asks for the method.
        upstream: Roles of its upstream runs.
    """

    label: str = "erm"
    right: float = 0.95
    fooled: float = 0.3
    needs: tuple[str, ...] = ()
    requested: bool = True
    upstream: tuple[str, ...] = ()


ERM = Method()
DRO = Method("group_dro", 0.9, 0.8, ("groups", "val_groups"))


@dataclass
class FakeSweep:
    """Builds ``root/name``; call ``add`` for runs, then ``finish``."""

    root: Path
    name: str = "demo"
    criteria: tuple[str, ...] = ("val_accuracy", "val_worst_group")
    predictions: bool = True
    plan: dict[str, Any] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / self.name

    def add(
        self,
        world: World,
        method: Method,
        trials: Sequence[int] = (0, 1, 2),
        draws: Sequence[int] = (0,),
        state: str = "done",
        upstream: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | None = None,
        fingerprint: str = "0" * 16,
        **hparams: Any,
    ) -> list[str]:
        """Plan runs and write their folders; returns their keys."""
        keys = []
        for trial in trials:
            for draw in draws:
                spec = self._spec(world, method, trial, draw, upstream or {}, hparams)
                spec = replace(
                    spec,
                    budget={**spec.budget, **(budget or {})},
                    dataset_options=options or spec.dataset_options,
                    data_fingerprint=fingerprint,
                )
                self.add_spec(spec, world.label, world, method, state)
                keys.append(spec.key)
        return keys

    def add_spec(
        self, spec: RunSpec, dataset: str, world: World, method: Method, state: str = "done"
    ) -> None:
        """Plan one run whose spec is given."""
        self.plan[spec.key] = {
            "dataset": dataset,
            "method": method.label,
            "trial": spec.trial,
            "draw": spec.draw,
            "requested": method.requested,
            "upstream": list(spec.upstream.values()),
        }
        self._write_run(spec, world, method, state)

    def refuse(self, world: World, method: str, reason: str) -> None:
        self.refused.append(
            {"dataset": world.label, "method": method, "trial": 0, "draw": 0, "reason": reason}
        )

    def finish(self, created: float = 1_700_000_000.0, title: str = "A demonstration") -> Path:
        """Write sweep.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "runs").mkdir(exist_ok=True)
        value = {
            "schema": 1,
            "name": self.name,
            "title": title,
            "created": created,
            "runs": self.plan,
            "refused": self.refused,
            "selection": list(self.criteria),
            "config": {},
        }
        (self.folder / "sweep.json").write_text(json.dumps(value))
        return self.folder

    def _spec(
        self,
        world: World,
        method: Method,
        trial: int,
        draw: int,
        upstream: Mapping[str, str],
        hparams: Mapping[str, Any],
    ) -> RunSpec:
        algorithm, _, variant = method.label.partition(":")
        name, _, option = world.label.partition(":")
        return RunSpec(
            dataset=name,
            dataset_options={"option": option},
            data_fingerprint="0" * 16,
            algorithm=algorithm,
            variant=variant,
            backbone="convnet",
            backbone_options={},
            hparams={"lr": round(1e-3 * (1 + draw), 6), "batch_size": 64, **hparams},
            trial=trial,
            draw=draw,
            budget={"steps": 300, "evaluate_every": 100, "patience": 0, "min_delta": 0.0},
            selection=self.criteria,
            upstream=dict(upstream),
        )

    def _write_run(self, spec: RunSpec, world: World, method: Method, state: str) -> None:
        folder = self.folder / "runs" / spec.key
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(spec.to_json()))
        if state == "running":
            (folder / "lease.json").write_text("{}")
        if state == "failed":
            failure = failure_json(
                spec.key,
                1,
                FailureKind.NON_FINITE,
                "the loss term cross_entropy is NaN at step 30",
                step=30,
            )
            (folder / "failure.json").write_text(json.dumps(failure))
        if state != "done":
            return
        answers = self._answers(spec, world, method)
        selected = {
            criterion: {
                "step": 300 if criterion == "last" else 200,
                "value": 300.0
                if criterion == "last"
                else value_of(answers["val"]["counts"], criterion),
                "splits": {
                    split: {"counts": content["counts"].tolist()}
                    for split, content in answers.items()
                },
            }
            for criterion in self.criteria
        }
        record = make_record(spec, selected, world.data(), method)
        record["upstream"] = self._upstream(spec)
        (folder / "record.json").write_text(json.dumps(record, indent=1))
        (folder / "log.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in log_lines(answers))
        )
        if self.predictions:
            arrays: dict[str, np.ndarray] = {}
            for split, content in answers.items():
                known = [name for name in ("label", "confounder", "pair_id") if name in content]
                arrays |= {f"{split}/{name}": content[name] for name in known}
                arrays |= {
                    f"{criterion}/{split}/score": content["score"] for criterion in self.criteria
                }
            np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]

    def _upstream(self, spec: RunSpec) -> dict[str, Any]:
        """Return the summary of the upstream runs that the engine records."""
        found = {}
        for role, key in spec.upstream.items():
            first = json.loads((self.folder / "runs" / key / "record.json").read_text())
            found[role] = {
                "key": key,
                "method": self.plan[key]["method"],
                "selected": first["selected"],
            }
        return found

    def _answers(
        self, spec: RunSpec, world: World, method: Method
    ) -> dict[str, dict[str, np.ndarray]]:
        rng = np.random.default_rng((spec.trial, spec.draw, len(method.label)))
        found = {}
        for split in ("val", *world.splits):
            known = world.annotations(split, spec.trial)
            place = known.get("confounder", known["label"])
            chance = (
                np.where(place == known["label"], method.right, method.fooled) - 0.02 * spec.draw
            )
            right = rng.random(world.size) < chance
            wrong = (
                known["label"] + rng.integers(1, max(2, world.classes), world.size)
            ) % world.classes
            predicted = np.where(right, known["label"], wrong)
            score = rng.normal(size=(world.size, world.classes)).astype(np.float32)
            score[np.arange(world.size), predicted] = score.max(1) + rng.exponential(
                1.5, world.size
            )
            counts = confusion_counts(
                known["label"], known.get("confounder"), predicted, world.classes
            )
            found[split] = {**known, "score": score, "counts": counts}
        return found


def confusion_counts(
    label: np.ndarray, confounder: np.ndarray | None, predicted: np.ndarray, classes: int
) -> np.ndarray:
    """[confounder, label, predicted] by counting one image after the other."""
    counts = np.zeros((classes if confounder is not None else 1, classes, classes), np.int64)
    for i in range(len(label)):
        counts[0 if confounder is None else confounder[i], label[i], predicted[i]] += 1
    return counts


def value_of(counts: np.ndarray, criterion: str) -> float:
    right, total = np.einsum("zll->zl", counts), counts.sum(2)
    average = float(right.sum() / total.sum())
    worst = float((right[total > 0] / total[total > 0]).min())
    return {"val_accuracy": average, "val_worst_group": worst, "val_mean": (average + worst) / 2}[
        criterion
    ]


def log_lines(
    answers: Mapping[str, Mapping[str, np.ndarray]], steps: Sequence[int] = (100, 200, 300)
) -> list[dict[str, Any]]:
    """One line per evaluation."""
    return [
        {
            "step": step,
            "steps": steps[-1],
            "terms": {"cross_entropy": 1.0 / step},
            "seconds": step / 50,
            "images_per_second": 3200.0,
            "memory_bytes": 10**8,
            "lr": 1e-3,
            "splits": {"val": {"counts": answers["val"]["counts"].tolist()}},
        }
        for step in steps
    ]


def make_record(
    spec: RunSpec, selected: Mapping[str, Any], data: Mapping[str, Any], method: Method
) -> dict[str, Any]:
    """Return the content of record.json, as docs/log_schema.md describes it."""
    return {
        "key": spec.key,
        "spec": spec.to_json(),
        "attempt": 1,
        "selected": selected,
        "data": data,
        "method": {
            "needs": list(method.needs),
            "sampling": "random",
            "paper": "Somebody (2020), A paper",
        },
        "seconds": {"training": 6.0, "evaluation": 1.0, "total": 7.0},
        "steps": 300,
        "stopped_early": False,
        "images_per_second": 3200.0,
        "peak_memory_bytes": 10**8,
        "parameters": 12345,
        "machine": {
            "device": "cpu",
            "host": "host",
            "threads": 1,
            "versions": {},
            "commit": "0" * 40,
        },
        "started": time.time() - 10,
        "finished": time.time(),
        "upstream": {},
        "extra": {},
        "schema": 1,
    }


def rename(world: World, label: str) -> World:
    return replace(world, label=label)
