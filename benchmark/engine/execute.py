"""Executes one run, from its spec to its record."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.core.conditions import CHANNELS_LAST, Conditions
from benchmark.core.dataset import GroupedDataset
from benchmark.core.decode import decode
from benchmark.core.errors import StopRequestedError, UserError
from benchmark.core.failure import FailureKind, failure_json
from benchmark.core.files import StagedFiles, commit_once, to_json, write_atomic
from benchmark.core.layout import RunFolder
from benchmark.core.log_line import LogLine
from benchmark.core.outcome import RunOutcome
from benchmark.core.record import RunRecord
from benchmark.core.registry import ALGORITHMS, DATASETS
from benchmark.core.run_states import AttemptEnd
from benchmark.core.spec import RunSpec, read_spec
from benchmark.core.speed.memory import keep_memory
from benchmark.core.summaries import (
    EmbeddingSummary,
    ExplanationSummary,
    MachineSummary,
    SelectedStep,
    Timing,
)
from benchmark.engine.build import build_algorithm
from benchmark.engine.checkpoint import conditions_of, load_checkpoint, write_weights
from benchmark.engine.device_errors import is_device_error, is_out_of_memory
from benchmark.engine.embeddings import Embeddings, embed_splits
from benchmark.engine.environment_info import current_conditions
from benchmark.engine.evaluate import Evaluation
from benchmark.engine.exceptions import InterruptedRunError, NonFiniteError
from benchmark.engine.explain_run import explain_run
from benchmark.engine.global_explanations import global_arrays
from benchmark.engine.loop import TrainingRun
from benchmark.engine.measure_explanations import MeasurementRun, finish_measurement
from benchmark.engine.memory_format import with_memory_format
from benchmark.engine.record_parts import about_data, about_method, about_upstream, tidy
from benchmark.engine.undeclared import undeclared_annotation

#: After training, a checkpoint is saved if the last one is older than this, in seconds. A request
#: to stop during the evaluation then costs little.
MAX_CHECKPOINT_AGE = 10.0


def execute(
    folder: Path,
    attempt: int,
    *,
    device: str = "cpu",
    data_dir: Path | None = None,
    checkpoint_seconds: float = 60.0,
    stop: Callable[[], str | None] = lambda: None,
    on_line: Callable[[LogLine], None] | None = None,
    at_once: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> RunOutcome:
    """Execute the run of a folder and commit ``record.json``, or write why it failed.

    Args:
        folder: the folder of the run; ``attempts/<attempt>/`` exists and belongs to this call.
        attempt: the number of this attempt, from 1.
        device: ``"cpu"`` or ``"cuda"``.
        data_dir: the folder of downloaded data sets.
        checkpoint_seconds: the work that a kill may cost, in seconds.
        stop: asked once per step; returns a reason to stop, or None. The run then saves itself and
            ends. With ``"lease lost"`` it writes nothing more.
        on_line: called with every line of the log.
        at_once: makes a context in which a request to stop raises a StopRequestedError at once.
            It is used while data are built and models are evaluated, when there is nothing to save.

    Returns:
        How the run ended; every outcome but ``BUSY`` is possible.

    Raises:
        OSError: the disk is full or the folder cannot be written; the run can be launched again.
    """
    spec = read_spec(folder)
    own_threads = torch.get_num_threads()
    try:
        return _execute(
            spec,
            folder,
            attempt,
            torch.device(device),
            data_dir,
            checkpoint_seconds,
            stop,
            on_line,
            at_once,
        )
    except (InterruptedRunError, StopRequestedError):
        return RunOutcome.INTERRUPTED
    except NonFiniteError as error:
        failure = failure_json(
            spec.key, attempt, FailureKind.NON_FINITE, str(error), step=error.step, term=error.term
        )
    except UserError as error:
        failure = failure_json(spec.key, attempt, FailureKind.USER_ERROR, str(error))
    except OSError:
        raise
    except Exception as error:
        if is_out_of_memory(error) or is_device_error(error):
            traceback.print_exc()
            short = is_out_of_memory(error)
            return RunOutcome.OUT_OF_MEMORY if short else RunOutcome.DEVICE_ERROR
        reason = undeclared_annotation(error, ALGORITHMS.get(spec.algorithm).needs)
        failure = failure_json(
            spec.key,
            attempt,
            FailureKind.EXCEPTION,
            f"{type(error).__name__}: {error}" + (f" ({reason})" if reason else ""),
            traceback=traceback.format_exc(),
        )
        traceback.print_exc()
    finally:
        torch.set_num_threads(own_threads)
    print(failure["message"], file=sys.stderr)
    if stop() != AttemptEnd.LEASE_LOST:
        write_atomic(RunFolder(folder).failure, to_json(failure))
    return RunOutcome.FAILED


def _execute(
    spec: RunSpec,
    folder: Path,
    attempt: int,
    device: torch.device,
    data_dir: Path | None,
    checkpoint_seconds: float,
    stop: Callable[[], str | None],
    on_line: Callable[[LogLine], None] | None,
    at_once: Callable[[], AbstractContextManager[None]],
) -> RunOutcome:
    """Train a model, or measure the explanations of one; see ``execute``."""
    started = time.time()
    with at_once():
        saved = load_checkpoint(folder, spec.key)
        conditions = _configure(spec, device, saved)
        data = _load_data(spec, data_dir)
    where = (folder, attempt, checkpoint_seconds, stop, on_line)
    if spec.measurement is not None:
        measuring = MeasurementRun(
            spec,
            data,
            device,
            *where,
            data_dir=data_dir,
            saved=saved,
            conditions=conditions,
            at_once=at_once,
        )
        return finish_measurement(measuring, attempt, started)
    with at_once():
        conditions = with_memory_format(conditions, spec, data.info, device, data_dir)
        algorithm = build_algorithm(
            spec,
            data.info,
            device,
            folder.parent,
            data_dir,
            channels_last=bool(conditions.channels_last),
        )
        algorithm.optimizers = algorithm.make_optimizers()
    run = TrainingRun(
        spec,
        algorithm,
        data,
        device,
        *where,
        saved=saved,
        conditions=conditions,
        at_once=at_once,
    )
    del saved  # frees a second copy of the weights and the optimiser state
    return _finish(run, attempt, started)


def _load_data(spec: RunSpec, data_dir: Path | None) -> GroupedDataset:
    """Return the data of a run.

    Raises:
        UserError: the data have changed since the sweep was planned.
    """
    source = DATASETS.get(spec.dataset)(data_dir, **spec.dataset_options)
    if source.fingerprint() != spec.data_fingerprint:
        raise UserError(
            f"the data of {spec.dataset} have changed since the sweep was planned (fingerprint "
            f"{source.fingerprint()}, expected {spec.data_fingerprint}); launch the sweep again, "
            "which plans it again."
        )
    data: GroupedDataset = source.load(spec.trial)
    return data


def _finish(run: TrainingRun, attempt: int, started: float) -> RunOutcome:
    """Train, evaluate the selected steps, and commit. The record is written last.

    Everything slow happens before the lease is checked for the last time: a process that lost its
    lease, for example because it was suspended, must not replace the files of the process that took
    over the run.

    Returns:
        ``DONE``, or ``SETTLED`` if another process committed the run first.
    """
    folder, spec = RunFolder(run.folder), run.spec
    run.algorithm.fit(run)
    run.watch.finish()
    if run.evaluated_at != run.step:
        run.evaluate()
    run.log_file.close()
    run.save_if_older_than(MAX_CHECKPOINT_AGE)
    with run.at_once():
        selected, predictions, inference = _evaluate_selected(run)
        memory = run.peak_memory()  # before explanations add to it
        before = time.perf_counter()
        explanations = explain_run(run, predictions)
        if explanations.report:
            run.seconds["explanations"] = time.perf_counter() - before
        before = time.perf_counter()
        embeddings = _embeddings(run, predictions)
        if embeddings.report:
            run.seconds["embeddings"] = time.perf_counter() - before
    record = _record(
        run, attempt, selected, started, memory, explanations.report, embeddings.report
    )
    record = replace(record, inference_images_per_second=inference)
    weights = run.selection.weights[run.selection.best[spec.selection[0]][0]]
    with StagedFiles() as files:
        files.add(folder.predictions, lambda file: np.savez(file, **predictions))  # type: ignore[arg-type]
        if explanations.gallery:
            arrays = explanations.gallery
            files.add(folder.heatmaps, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
        if explanations.global_maps:
            maps = global_arrays(explanations.global_maps)
            files.add(folder.global_maps, lambda file: np.savez_compressed(file, **maps))  # type: ignore[arg-type]
        if embeddings.arrays:
            stored = embeddings.arrays
            files.add(folder.embeddings, lambda file: np.savez_compressed(file, **stored))  # type: ignore[arg-type]
        files.add(folder.selected, lambda file: write_weights(weights, file))
        record = replace(record, checksums=files.checksums())
        content = to_json(record.to_json(), indent=None)
        RunRecord.from_json(json.loads(content))  # check that the record can be read
        files.add(folder.log, run.log_file.text.encode())
        if run.stop() == AttemptEnd.LEASE_LOST:
            raise InterruptedRunError(AttemptEnd.LEASE_LOST)
        if folder.record.exists():
            return RunOutcome.SETTLED
        files.publish()
    if not commit_once(folder.record, content):
        return RunOutcome.SETTLED
    tidy(folder, attempt)
    return RunOutcome.DONE


def _configure(spec: RunSpec, device: torch.device, saved: Mapping[str, Any] | None) -> Conditions:
    """Set up PyTorch for a run, before anything is computed.

    A resumed run keeps the number of threads that it started with, whatever its slot offers now: a
    different number changes the order of sums and thus the result. It keeps its memory format for
    the same reason.

    Args:
        spec: the run.
        device: where it runs.
        saved: the checkpoint that the run resumes from, or None.

    Returns:
        The conditions of the run.
    """
    keep_memory()
    wanted = spec.compute_options.deterministic
    exact = device.type == "cpu" if wanted == "auto" else wanted == "true"
    if exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(exact)
    torch.backends.cudnn.benchmark = device.type == "cuda" and not exact
    earlier = conditions_of(saved)
    if earlier is None:
        return current_conditions(device)
    own = torch.get_num_threads()
    if earlier.threads is not None and earlier.threads != own:
        torch.set_num_threads(earlier.threads)
        print(
            f"the run continues with the {earlier.threads} threads that it started with, not with "
            f"the {own} of this process.",
            file=sys.stderr,
        )
    now = current_conditions(device)
    if earlier.channels_last is not None:
        ratio = earlier.time_ratios.get(CHANNELS_LAST)
        now = now.with_channels_last(earlier.channels_last, ratio)
    changes = now.changes_since(earlier)
    if changes:
        print(
            f"the run resumes under different conditions ({'; '.join(changes)}); its last digits "
            "may differ from those of an uninterrupted run.",
            file=sys.stderr,
        )
    return now


def _evaluate_selected(
    run: TrainingRun,
) -> tuple[dict[str, SelectedStep], dict[str, np.ndarray], float | None]:
    """Evaluate validation and tests once per selected step, and training images if asked to.

    Returns:
        The selected steps with their counts, the arrays of predictions.npz, and the images per
        second of all forward passes.
    """
    info = run.data.info
    predictions: dict[str, np.ndarray] = {}
    for name in ("val", *info.test_splits):
        split = run.data.splits[name]
        for what in ("label", "confounder", "pair_id", "cluster"):
            value = getattr(split, what)
            if value is not None:
                predictions[f"{name}/{what}"] = value
    selected: dict[str, SelectedStep] = {}
    by_step: dict[int, dict[str, Evaluation]] = {}
    train: dict[int, np.ndarray | None] = {}
    images, seconds = 0, 0.0
    for criterion, (step, value) in run.selection.best.items():
        if step not in by_step:
            _load_step(run, step)
            by_step[step] = {
                name: run.evaluate_split(name, scores=True) for name in ("val", *info.test_splits)
            }
            train[step] = run.evaluate_split("train").counts if run.spec.evaluate_train else None
            images += sum(evaluation.images for evaluation in by_step[step].values())
            seconds += sum(evaluation.seconds for evaluation in by_step[step].values())
        evaluations = by_step[step]
        counts = {name: evaluation.counts for name, evaluation in evaluations.items()}
        if (of_train := train[step]) is not None:
            counts["train"] = of_train
        selected[criterion] = SelectedStep(step, value, counts)
        for name, evaluation in evaluations.items():
            assert evaluation.score is not None
            predictions[f"{criterion}/{name}/score"] = evaluation.score
    # The report of the method and the explanations are about the first criterion.
    _load_step(run, run.selection.best[run.spec.selection[0]][0])
    return selected, predictions, round(images / seconds, 1) if seconds else None


def _load_step(run: TrainingRun, step: int) -> None:
    run.algorithm.load_state_dict(run.selection.weights[step])
    run.algorithm.current_step = step


def _embeddings(run: TrainingRun, predictions: Mapping[str, np.ndarray]) -> Embeddings:
    """Embed test images with the model that the first criterion selects."""
    if not run.spec.compute_options.explanations:
        return Embeddings()
    info = run.data.info
    first = run.spec.selection[0]
    predicted = {
        name: predictions[f"{first}/{name}/score"].argmax(1) for name in ("val", *info.test_splits)
    }
    environments = len(info.environment_names) > 1
    known = environments and run.data.splits["val"].environment is not None
    splits = {name: run.split(name) for name in info.test_splits}
    return embed_splits(run.algorithm, splits, predicted, run.split("val") if known else None)


def _record(
    run: TrainingRun,
    attempt: int,
    selected: Mapping[str, SelectedStep],
    started: float,
    memory: int,
    explanations: Mapping[str, Any],
    embeddings: Mapping[str, Any],
) -> RunRecord:
    spec = run.spec
    algorithm = run.algorithm
    total = sum(run.seconds.values())
    training = run.seconds["training"]
    upstream = {role: about_upstream(run.folder.parent / k) for role, k in spec.upstream.items()}
    return RunRecord(
        key=spec.key,
        spec=spec,
        attempt=attempt,
        selected=selected,
        data=about_data(run.data),
        method=about_method(spec, algorithm),
        seconds=Timing(**{k: round(v, 3) for k, v in run.seconds.items()}, total=round(total, 3)),
        steps=run.step,
        stopped_early=run.selection.exhausted and run.step < spec.training_budget.steps,
        images_per_second=round(run.images / training, 1) if training else 0.0,
        peak_memory_bytes=memory,
        parameters=sum(p.numel() for p in algorithm.network.parameters()),
        machine=MachineSummary(
            **vars(run.conditions), host=socket.gethostname(), resumed=tuple(run.resumed)
        ),
        started=started,
        finished=time.time(),
        upstream=upstream,
        explanations=decode(ExplanationSummary, explanations, "explanations")
        if explanations
        else None,
        embeddings=decode(EmbeddingSummary, embeddings, "embeddings") if embeddings else None,
        extra={
            **algorithm.report(),
            **({"warnings": run.watch.warnings} if run.watch.warnings else {}),
        },
    )
