"""The training loop: what happens between two batches."""

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
from benchmark.engine.augment import augment
from benchmark.engine.checkpoint import conditions_of, save_checkpoint
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.environment_info import current_conditions, peak_memory_bytes
from benchmark.engine.evaluate import Evaluation, evaluate, images_per_pass
from benchmark.engine.exceptions import InterruptedRunError
from benchmark.engine.log import Log
from benchmark.engine.loss_meter import Terms
from benchmark.engine.samplers import make_sampler
from benchmark.engine.selection import Selection
from benchmark.engine.term_watch import TermWatch

#: How often a run asks whether it should stop while its method reads a split outside of its steps, seconds.
POLL_SECONDS = 1.0


class TrainingRun:
    """One run under way; implements ``benchmark.core.algorithm.Run``.

    Args:
        spec: the run.
        algorithm: built, on its device, with its optimisers.
        data: the data of the trial.
        device: where to train.
        folder: the run folder; checkpoint.pt is there.
        attempt: number of this try; its log is ``attempts/<attempt>/log.jsonl``.
        checkpoint_seconds: how much work a kill may cost.
        stop: asked once per step; a text means stop now.
        on_line: told of every line of the log.
        saved: the checkpoint to resume from, or None.
        conditions: what the run is computed under; those of this moment by default.
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
        self.spec, self.algorithm, self.data, self.device, self.stop = (
            spec,
            algorithm,
            data,
            device,
            stop,
        )
        self.folder, self.checkpoint_seconds = folder, checkpoint_seconds
        self.budget = spec.budget
        self.selection = Selection(
            spec.selection,
            self.budget["patience"],
            self.budget["min_delta"],
            0 if spec.select_before_switch else _switch_within(spec, algorithm),
        )
        self.terms = Terms()
        self.watch = TermWatch(algorithm)
        self.step, self.evaluated_at, self.images = 0, -1, 0
        self.seconds = {"training": 0.0, "evaluation": 0.0}
        self._mark = self._mark_images = 0.0
        self.at_once, self._in_step = at_once, False
        self.conditions = conditions or current_conditions(device)
        self.resumed: list[str] = []  # what had changed whenever the run was resumed
        if saved is not None:
            self._take_up(saved)
        self.log_file = Log(
            RunFolder(folder).attempt(attempt).log, saved["log"] if saved else "", on_line
        )
        self._splits: dict[str, DeviceSplit] = {}
        self._saved_at = time.monotonic()
        self._since = (
            time.perf_counter()
        )  # what passes from here on is training, until it is accounted for

    def split(self, name: str) -> DeviceSplit:
        """A split on the device, moved there when it is first asked for."""
        if name not in self._splits:
            self._splits[name] = DeviceSplit(self.data, name, self.device)
        return self._splits[name]

    def batches(self, split: str) -> Iterator[Batch]:
        """See ``benchmark.core.algorithm.Run``."""
        if split not in ("train", "val"):
            raise ValueError(f"a method may look at train and val, not at {split}")
        needs = self.algorithm.needs if split == "train" else self.algorithm.needs.on_validation()
        chosen = self.split(split)
        most = images_per_pass(chosen, self.algorithm)
        return (batch.strip(needs) for batch in self._between_polls(chosen.batches(most)))

    def _between_polls(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; now and then the run may stop, unless the weights are in the middle of a step."""
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
            self.algorithm.sampling, train.size, self.spec.hparams["batch_size"], seed,
            train.group_array, arrays.environment,
            self.algorithm.training_rows(arrays.label, self.spec.trial),
            arrays.label, self.algorithm.draw,
        )  # fmt: skip
        if self._is_evaluation_due():  # a run that was stopped during an evaluation
            self.evaluate()
        self.algorithm.train()
        self._since = time.perf_counter()
        while self.step < self.budget["steps"] and not self.selection.exhausted:
            self._poll()
            self._prepare(seed)
            batch = augment(train.batch(sampler.rows(self.step)), self.spec.augmentation)
            self.images += len(batch)
            self._in_step = True
            try:
                yield batch.strip(self.algorithm.needs)
            finally:  # also of a loop of its own that ends before the budget does: this step was made
                self._in_step = False
                self.step += 1
            if self._is_evaluation_due():
                self.evaluate()
            self.save_if_older_than(self.checkpoint_seconds)

    def _is_evaluation_due(self) -> bool:
        """Whether the last step is one after which the run evaluates, and it has not done so."""
        last = self.step == self.budget["steps"]
        due = self.step > 0 and (last or self.step % self.budget["evaluate_every"] == 0)
        return due and self.evaluated_at != self.step

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        """See ``benchmark.core.algorithm.Run``."""
        self.terms.add(self.step + 1, terms)
        self.watch.look(terms)

    def evaluate(self) -> None:
        """Evaluate on validation (with ``oracle`` on the tests too), write a line, let the criteria choose."""
        self.terms.check()
        started = self._account()
        self.algorithm.current_step = self.step
        wants_objective = any(CRITERIA[name].uses_objective for name in self.spec.selection)
        try:
            with self.at_once():
                answers = self.answers("val", objective=wants_objective)
                splits = {"val": answers.counts}
                if self.spec.oracle:
                    for name in self.data.info.test_splits:
                        splits[name] = self.answers(name).counts
        except StopRequestedError as request:  # the resumed run begins with this evaluation
            self._since = self._clock()
            self._poll()
            raise InterruptedRunError(request.reason) from None
        self.selection.update(self.step, answers, self.algorithm.state_dict())
        self._since = self._clock()
        self.seconds["evaluation"] += self._since - started
        self.evaluated_at = self.step
        self._write(answers, splits)
        self.terms.clear()

    def answers(self, split: str, **options: bool) -> Evaluation:
        """What the model answers on a split, as it is now."""
        info = self.data.info
        return evaluate(
            self.algorithm,
            self.split(split),
            len(info.label_names),
            len(info.confounder_names),
            **options,
        )

    def save(self) -> None:
        """Write checkpoint.pt."""
        self.terms.check()
        self._account()
        save_checkpoint(self.folder, self.spec.key, self._state())
        self._saved_at, self._since = time.monotonic(), time.perf_counter()

    def save_if_older_than(self, seconds: float) -> None:
        """Write checkpoint.pt unless it was written that recently."""
        if time.monotonic() - self._saved_at > seconds:
            self.save()

    def _poll(self) -> None:
        reason = self.stop()
        if reason is None:
            return
        if reason != AttemptEnd.LEASE_LOST:
            self.save()
        raise InterruptedRunError(reason)

    def _prepare(self, seed: int) -> None:
        """Everything that a step depends on is set from its number, so a resumed run takes the same steps."""
        torch.manual_seed(seed_for("step", seed, self.step))
        self.algorithm.current_step = self.step
        factor = lr_factor(self.spec.hparams, self.step, self.budget["steps"])
        for optimizer in self.algorithm.optimizers.values():
            set_lr(optimizer, factor)

    def _write(self, answers: Evaluation, splits: Mapping[str, np.ndarray]) -> None:
        spent = self.seconds["training"] - self._mark
        speed = (self.images - self._mark_images) / spent if spent > 0 else 0.0
        self._mark, self._mark_images = self.seconds["training"], float(self.images)
        rates = [g["lr"] for o in self.algorithm.optimizers.values() for g in o.param_groups[:1]]
        line = LogLine(
            step=self.step,
            steps=self.budget["steps"],
            seconds=round(self.seconds["training"] + self.seconds["evaluation"], 3),
            images_per_second=round(speed, 1),
            terms=self.terms.means(),
            lr=rates[0] if rates else None,
            memory_bytes=self.peak_memory(),
            splits=splits,
            objective=answers.objective,
        )
        self.log_file.line(line)

    def peak_memory(self) -> int:
        """Most memory held, bytes: of the GPU's allocator, on the CPU of the process; 0 where unknown."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        return peak_memory_bytes()

    def _account(self) -> float:
        """Add the time since the last account to training; returns now."""
        now = self._clock()
        self.seconds["training"] += now - self._since
        self._since = now
        return now

    def _clock(self) -> float:
        """Wall time after the device has done what it was given."""
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

    def _take_up(self, saved: Mapping[str, Any]) -> None:
        try:
            self._restore(saved)
        except (
            KeyError,
            ValueError,
            TypeError,
            RuntimeError,
        ) as error:  # the method's code is not part of the key
            reason = str(error).partition("\n")[0].rstrip(":")
            raise UserError(
                f"{RunFolder(self.folder).checkpoint} does not fit the method as it is now ({reason}); "
                "delete it to start from the beginning."
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
        self.step, self.evaluated_at, self.images = (
            saved["step"],
            saved["evaluated_at"],
            saved["images"],
        )
        self._mark, self._mark_images = saved["mark"]
        self.seconds = dict(saved["seconds"])
        self.algorithm.current_step = self.step


def _switch_within(spec: RunSpec, algorithm: Algorithm) -> int:
    """The step at which the method begins, or 0 where the budget ends before that."""
    switch = algorithm.active_from(spec.hparams, spec.budget)
    return 0 if before_switch(spec.budget["steps"], switch) else switch
