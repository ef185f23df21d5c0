"""The training loop of one run: batches, evaluations and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.core.algorithm import Algorithm
from benchmark.core.batch import Batch
from benchmark.core.conditions import Conditions
from benchmark.core.criteria import CRITERIA
from benchmark.core.dataset import GroupedDataset
from benchmark.core.errors import StopRequestedError, UserError
from benchmark.core.layout import RunFolder
from benchmark.core.log_line import LogLine
from benchmark.core.optim import lr_factor, set_lr
from benchmark.core.run_states import AttemptEnd
from benchmark.core.seeds import seed_for
from benchmark.core.spec import RunSpec, before_switch
from benchmark.core.speed.seeding import seed_generators
from benchmark.engine.augment import Augmentation
from benchmark.engine.checkpoint import conditions_of, save_checkpoint
from benchmark.engine.curves import measure_curve
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.environment_info import current_conditions, peak_memory_bytes
from benchmark.engine.evaluate import Evaluation, evaluate, images_per_pass
from benchmark.engine.exceptions import InterruptedRunError
from benchmark.engine.log import Log
from benchmark.engine.loss_meter import LossMeter
from benchmark.engine.samplers import TrainingRows, make_sampler
from benchmark.engine.selection import Selection
from benchmark.engine.term_watch import TermWatch

#: Seconds between two checks for a request to stop, while a method reads a split between its steps.
POLL_SECONDS = 1.0


class TrainingRun:
    """A run in progress; implements ``benchmark.core.algorithm.Run``.

    Args:
        spec: the run.
        algorithm: the method, on its device, with its optimisers.
        data: the data of the trial.
        device: where to train.
        folder: the folder of the run, with its checkpoint.
        attempt: the number of this attempt; its log is ``attempts/<attempt>/log.jsonl``.
        checkpoint_seconds: seconds between two checkpoints.
        stop: asked once per step; returns a reason to stop, or None.
        on_line: called with every line of the log.
        saved: the checkpoint to resume from, or None.
        conditions: the conditions of the run; by default those of this moment.
        at_once: see ``execute``.
    """

    def __init__(
        self,
        spec: RunSpec,
        algorithm: Algorithm,
        data: GroupedDataset,
        device: torch.device,
        folder: Path,
        attempt: int,
        checkpoint_seconds: float,
        stop: Callable[[], str | None],
        on_line: Callable[[LogLine], None] | None = None,
        *,
        saved: Mapping[str, Any] | None = None,
        conditions: Conditions | None = None,
        at_once: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.spec = spec
        self.algorithm = algorithm
        self.data = data
        self.device = device
        self.stop = stop
        self.folder = folder
        self.checkpoint_seconds = checkpoint_seconds
        self.budget = spec.training_budget
        self.selection = Selection(
            spec.selection,
            self.budget.patience,
            self.budget.min_delta,
            0 if spec.select_before_switch else _switch_within(spec, algorithm),
        )
        self.terms = LossMeter()
        self.watch = TermWatch(algorithm)
        self.step = 0
        self.evaluated_at = -1
        self.images = 0
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        # Training seconds and images at the last line of the log.
        self._mark = 0.0
        self._mark_images = 0.0
        self.at_once = at_once
        self._in_step = False
        self.conditions = conditions or current_conditions(device)
        if device.type == "cuda":  # loading the upstream runs is not part of this run
            torch.cuda.reset_peak_memory_stats(device)
        self.resumed: list[str] = []  # what differed when the run was resumed
        if saved is not None:
            self._resume_from(saved)
        self.log_file = Log(
            RunFolder(folder).attempt(attempt).log, saved["log"] if saved else "", on_line
        )
        self._splits: dict[str, DeviceSplit] = {}
        self._saved_at = time.monotonic()
        self._since = time.perf_counter()  # the time from here on counts as training

    def split(self, name: str) -> DeviceSplit:
        """Return a split on the device; it is moved there on first use."""
        if name not in self._splits:
            self._splits[name] = DeviceSplit(self.data, name, self.device)
        return self._splits[name]

    def batches(self, split: str) -> Iterator[Batch]:
        """See ``benchmark.core.algorithm.Run``."""
        if split not in ("train", "val"):
            raise ValueError(f"a method may read train and val, not {split}")
        needs = self.algorithm.needs if split == "train" else self.algorithm.needs.on_validation()
        device_split = self.split(split)
        batches = device_split.batches(
            images_per_pass(device_split, self.algorithm), class_masks=needs.class_masks
        )
        return (batch.strip(needs) for batch in self._with_polls(batches))

    def class_mask_counts(self) -> torch.Tensor:
        """See ``benchmark.core.algorithm.TrainingRun``."""
        masks = self.data.splits["train"].class_masks
        if masks is None or not self.algorithm.needs.class_masks:
            raise ValueError(f"{self.spec.algorithm} does not declare that it needs class masks")
        return torch.from_numpy(masks.counts())

    def _annotated(self) -> np.ndarray | None:
        """Return which classes of the training images have masks, bool[N,K], for methods that ask.

        None if the algorithm does not need them.
        """
        masks = self.data.splits["train"].class_masks
        if masks is None or not self.algorithm.needs.class_masks:
            return None
        return masks.known()

    def _with_polls(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Iterate over batches, and stop between two of them if asked to, unless within a step."""
        polled = time.monotonic()
        for batch in batches:
            if not self._in_step and time.monotonic() - polled > POLL_SECONDS:
                self._poll()
                polled = time.monotonic()
            yield batch

    def steps(self) -> Iterator[Batch]:
        """See ``benchmark.core.algorithm.Run``."""
        train, arrays = self.split("train"), self.data.splits["train"]
        seed = seed_for("batches", self.spec.trial)
        sampler = make_sampler(
            self.algorithm.sampling,
            TrainingRows(
                size=train.size,
                group=train.group_array,
                environment=arrays.environment,
                label=arrays.label,
                annotated=self._annotated(),
            ),
            self.spec.hparams["batch_size"],
            seed,
            subset=self.algorithm.training_rows(arrays.label, self.spec.trial),
            draw=self.algorithm.draw,
        )
        if self._is_evaluation_due():  # a run that was stopped during an evaluation
            self.evaluate()
        info = self.data.info
        augment = Augmentation(self.spec.augmentation, info.mean, info.std)
        self.algorithm.train()
        self._since = time.perf_counter()
        while self.step < self.budget.steps and not self.selection.exhausted:
            self._poll()
            self._prepare(seed)
            rows = sampler.rows(self.step)
            class_masks = self.algorithm.needs.class_masks
            batch = augment(train.batch(rows, class_masks=class_masks))
            if train.gathers_ahead and self.step + 1 < self.budget.steps:
                train.expect(sampler.rows(self.step + 1))
            self.images += len(batch)
            self._in_step = True
            try:
                yield batch.strip(self.algorithm.needs)
            finally:  # a method's own loop may end early; this step was made all the same
                self._in_step = False
                self.step += 1
            if self._is_evaluation_due():
                self.evaluate()
            self.save_if_older_than(self.checkpoint_seconds)

    def _is_evaluation_due(self) -> bool:
        """Return True if the run must evaluate after the last step and has not yet done so."""
        last = self.step == self.budget.steps
        due = self.step > 0 and (last or self.step % self.budget.evaluate_every == 0)
        return due and self.evaluated_at != self.step

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        """See ``benchmark.core.algorithm.Run``."""
        self.terms.add(self.step + 1, terms)
        self.watch.observe(terms)

    def evaluate(self) -> None:
        """Evaluate on validation (with ``oracle`` also on tests), log it, and update selection."""
        self.terms.check()
        started = self._account()
        self.algorithm.current_step = self.step
        wants_objective = any(CRITERIA[name].uses_objective for name in self.spec.selection)
        scores = bool(self.spec.curves)
        try:
            with self.at_once():
                validation = self.evaluate_split("val", scores=scores, objective=wants_objective)
                found = {"val": validation}
                if self.spec.oracle:
                    for name in self.data.info.test_splits:
                        found[name] = self.evaluate_split(name, scores=scores)
                curves = self._curves(found)
        except StopRequestedError as request:  # the resumed run begins with this evaluation
            self._since = self._clock()
            self._poll()
            raise InterruptedRunError(request.reason) from None
        self.selection.update(self.step, validation, self.algorithm.state_dict())
        self._since = self._clock()
        self.seconds["evaluation"] += self._since - started
        self.evaluated_at = self.step
        counts = {name: evaluation.counts for name, evaluation in found.items()}
        self._log_evaluation(validation.objective, counts, curves)
        self.terms.clear()

    def _curves(self, found: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
        """Return the measurements that the spec asks for, by name and split."""
        curves: dict[str, dict[str, float]] = {name: {} for name in self.spec.curves}
        for split, evaluation in found.items():
            if split in self.data.info.unlabelled_splits:
                continue
            for name in curves:
                assert evaluation.score is not None
                value = measure_curve(name, self.algorithm, self.split(split), evaluation.score)
                if value is not None:
                    curves[name][split] = value
        return {name: values for name, values in curves.items() if values}

    def evaluate_split(
        self, split: str, *, scores: bool = False, objective: bool = False
    ) -> Evaluation:
        """Evaluate the current model on a split."""
        info = self.data.info
        return evaluate(
            self.algorithm,
            self.split(split),
            len(info.label_names),
            len(info.confounder_names),
            scores=scores,
            objective=objective,
        )

    def save(self) -> None:
        """Save a checkpoint."""
        self.terms.check()
        self._account()
        save_checkpoint(self.folder, self.spec.key, self._state())
        self._saved_at = time.monotonic()
        self._since = time.perf_counter()

    def save_if_older_than(self, seconds: float) -> None:
        """Save a checkpoint, unless the last one is more recent than this."""
        if time.monotonic() - self._saved_at > seconds:
            self.save()

    def _poll(self) -> None:
        """Save and end the run if it was asked to stop."""
        reason = self.stop()
        if reason is None:
            return
        if reason != AttemptEnd.LEASE_LOST:
            self.save()
        raise InterruptedRunError(reason)

    def _prepare(self, seed: int) -> None:
        """Set everything a step depends on from its number, so that a resumed run is identical."""
        seed_generators(seed_for("step", seed, self.step))
        self.algorithm.current_step = self.step
        factor = lr_factor(self.spec.hparams, self.step, self.budget.steps)
        for optimizer in self.algorithm.optimizers.values():
            set_lr(optimizer, factor)

    def _log_evaluation(
        self,
        objective: float | None,
        counts: Mapping[str, np.ndarray],
        curves: Mapping[str, Mapping[str, float]],
    ) -> None:
        seconds = self.seconds["training"] - self._mark
        speed = (self.images - self._mark_images) / seconds if seconds > 0 else 0.0
        self._mark = self.seconds["training"]
        self._mark_images = float(self.images)
        rates = [g["lr"] for o in self.algorithm.optimizers.values() for g in o.param_groups[:1]]
        line = LogLine(
            step=self.step,
            steps=self.budget.steps,
            seconds=round(self.seconds["training"] + self.seconds["evaluation"], 3),
            images_per_second=round(speed, 1),
            terms=self.terms.means(),
            lr=rates[0] if rates else None,
            memory_bytes=self.peak_memory(),
            splits=counts,
            objective=objective,
            curves=curves,
        )
        self.log_file.line(line)

    def peak_memory(self) -> int:
        """Return the peak memory of the GPU allocator or of the process; 0 if unknown."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_memory_bytes()

    def _account(self) -> float:
        """Add the time since the last call to training; return the current time."""
        now = self._clock()
        self.seconds["training"] += now - self._since
        self._since = now
        return now

    def _clock(self) -> float:
        """Return the wall time after the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "evaluated_at": self.evaluated_at,
            "images": self.images,
            "mark": [self._mark, self._mark_images],
            "seconds": dict(self.seconds),
            "log": self.log_file.text,
            "terms": self.terms.state(),
            "watch": self.watch.state(),
            "selection": self.selection.state(),
            "algorithm": self.algorithm.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.algorithm.optimizers.items()},
            "conditions": self.conditions.to_json(),
            "resumed": list(self.resumed),
        }

    def _resume_from(self, saved: Mapping[str, Any]) -> None:
        try:
            self._restore(saved)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            # The code of the method may have changed; it is not part of the key.
            reason = str(error).partition("\n")[0].rstrip(":")
            raise UserError(
                f"{RunFolder(self.folder).checkpoint} does not fit the current code of the method "
                f"({reason}); delete it to start from the beginning."
            ) from None

    def _restore(self, saved: Mapping[str, Any]) -> None:
        earlier = conditions_of(saved)
        changes = self.conditions.changes_since(earlier) if earlier else ["unknown conditions"]
        self.resumed = list(dict.fromkeys([*saved.get("resumed", []), *changes]))
        self.algorithm.load_state_dict(saved["algorithm"])
        for name, state in saved["optimizers"].items():
            self.algorithm.optimizers[name].load_state_dict(state)
        self.selection.restore(saved["selection"])
        self.terms.restore(saved["terms"], self.device)
        if "watch" in saved:  # checkpoints of an earlier version have none
            self.watch.restore(saved["watch"])
        self.step = saved["step"]
        self.evaluated_at = saved["evaluated_at"]
        self.images = saved["images"]
        self._mark, self._mark_images = saved["mark"]
        self.seconds = dict(saved["seconds"])
        self.algorithm.current_step = self.step


def _switch_within(spec: RunSpec, algorithm: Algorithm) -> int:
    """Return the step at which the method begins, or 0 if the budget ends before it."""
    switch = algorithm.active_from(spec.hparams, spec.budget)
    return 0 if before_switch(spec.training_budget.steps, switch) else switch
