"""Builds the algorithm of a spec on its device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmark.core.algorithm import Algorithm, Setting
from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import DamagedError, UserError
from benchmark.core.layout import RunFolder
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS
from benchmark.core.seeds import seed_for
from benchmark.core.spec import ComputeOptions, RunSpec, read_spec
from benchmark.core.speed.seeding import seed_generators
from benchmark.engine.checkpoint import load_weights
from benchmark.models.base import Backbone


def build_algorithm(
    spec: RunSpec,
    info: DatasetInfo,
    device: torch.device,
    runs: Path,
    data_dir: Path | None = None,
    *,
    untrained: bool = False,
    channels_last: bool = False,
) -> Algorithm:
    """Build the algorithm of a spec, with its backbone and trained upstream algorithms.

    The initial weights depend only on the trial, so that all methods of a trial start alike.

    Args:
        spec: the run.
        info: the description of its data set.
        device: where to put the algorithm.
        runs: the folder that contains the folders of the upstream runs.
        data_dir: the folder of downloaded data sets.
        untrained: do not read published weights, since those of the run will replace them.
        channels_last: the memory format that was chosen for the run, if its spec leaves it open.

    Raises:
        UserError: an upstream run has no weights.
    """
    upstream = {
        role: load_upstream(runs / key, device, data_dir) for role, key in spec.upstream.items()
    }
    return assemble(spec, info, device, upstream, untrained=untrained, channels_last=channels_last)


def assemble(
    spec: RunSpec,
    info: DatasetInfo,
    device: torch.device,
    upstream: Mapping[str, Algorithm],
    *,
    untrained: bool = False,
    channels_last: bool = False,
) -> Algorithm:
    """Build the algorithm of a spec from the trained algorithms of its upstream runs.

    The arguments are those of ``build_algorithm``.
    """
    seed_generators(seed_for("init", spec.trial))
    compute = spec.compute_options
    kind = ALGORITHMS.get(spec.algorithm)
    setting = Setting(
        num_classes=len(info.label_names),
        num_confounders=len(info.confounder_names),
        num_environments=len(info.environment_names),
        image_size=info.image_size,
        hparams=kind.with_omitted(spec.hparams, max(info.image_size[1:])),
        steps=spec.training_budget.steps,
        build_network=network_factory(spec, info, untrained=untrained),
        mean=tuple(info.mean),
        std=tuple(info.std),
        upstream=dict(upstream),
        autocast=autocast(device, compute.precision),
        label_names=tuple(info.label_names),
    )
    algorithm: Algorithm = kind(setting)
    if compute.channels_last == "auto":
        compute = replace(compute, channels_last=channels_last)
    place(algorithm, device, compute)
    return algorithm


def place(algorithm: Algorithm, device: torch.device, compute: ComputeOptions) -> None:
    """Move an algorithm to its device, with the memory format and compilation of the run.

    Compilation applies to calls of ``algorithm.network``; explanations run uncompiled. A compiled
    network uses the same random numbers (dropout, the noise behind a segmented object) as an
    uncompiled one.

    Args:
        algorithm: the algorithm.
        device: where to put it.
        compute: how the run computes. ``channels_last = "auto"`` is that of no channels last.
    """
    algorithm.to(device)
    if compute.channels_last is True:
        algorithm.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compute.compile:
        algorithm.network.compile(options={"fallback_random": True})


def load_upstream(folder: Path, device: torch.device, data_dir: Path | None = None) -> Algorithm:
    """Load the algorithm of a finished run with its selected weights, in evaluation mode.

    It is built for its own data: other options may mean other environments. Labels and image sizes
    are the same, which the plan has checked.

    Args:
        folder: the folder of the run.
        device: where to put the algorithm.
        data_dir: the folder of downloaded data sets.

    Returns:
        The algorithm; its parameters need no gradient.

    Raises:
        UserError: the run is not done, or its files are damaged or belong to another run. The
            message says what to delete.
    """
    run = RunFolder(folder)
    for path in (run.record, run.selected):
        if not path.exists():
            raise UserError(
                f"the upstream run {folder.name} is not done: {path} does not exist; launch the "
                "sweep again."
            )
    spec = read_spec(folder)
    info = DATASETS.get(spec.dataset)(data_dir, **spec.dataset_options).info()
    return load_finished(run, spec, info, device, data_dir)


def load_finished(
    run: RunFolder,
    spec: RunSpec,
    info: DatasetInfo,
    device: torch.device,
    data_dir: Path | None = None,
) -> Algorithm:
    """Load the algorithm of a finished run with its selected weights, in evaluation mode.

    Files of published weights, from which the training began, are not needed.

    Args:
        run: the folder of the run.
        spec: its spec.
        info: the description of its data.
        device: where to put the algorithm.
        data_dir: the folder of downloaded data sets, for upstream runs.

    Returns:
        The algorithm; its parameters need no gradient.

    Raises:
        UserError: the weights are damaged or do not fit the method.
    """
    weights = _selected_weights(run)
    runs = run.path.parent
    channels_last = _chose_channels_last(run, spec)
    algorithm = build_algorithm(
        spec, info, device, runs, data_dir, untrained=True, channels_last=channels_last
    )
    try:
        algorithm.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise UserError(
            f"{run.selected} does not fit its method ({reason}); {_redo_advice(run)}"
        ) from None
    algorithm.eval()
    return algorithm.requires_grad_(False)


def _chose_channels_last(run: RunFolder, spec: RunSpec) -> bool:
    """Return whether a finished run chose channels last, where its spec leaves that open."""
    if spec.compute_options.channels_last != "auto":
        return False
    return bool(read_record(run.path).machine.channels_last)


def _selected_weights(run: RunFolder) -> dict[str, torch.Tensor]:
    """Load the weights of a finished run, and compare them with the checksum in its record."""
    checksums = read_record(run.path).checksums
    if not run.selected.is_file():
        raise DamagedError(f"{run.selected} does not exist; {_redo_advice(run)}")
    try:
        if checksums and run.selected.name not in checksums:
            raise DamagedError(
                f"{run.selected.name} belongs to another run: the record does not list it."
            )
        return load_weights(run.selected, checksums.get(run.selected.name))
    except DamagedError as error:
        raise DamagedError(
            f"{run.path}: {str(error).removesuffix('.')}; {_redo_advice(run)}"
        ) from None


def _redo_advice(run: RunFolder) -> str:
    """Return how to repeat a run that other, failed runs need."""
    return f"delete the folder {run.path}, then `retry` the sweep and launch it again."


def network_factory(
    spec: RunSpec, info: DatasetInfo, *, untrained: bool
) -> Callable[..., torch.nn.Module]:
    """Return a function that builds the backbone of a spec.

    Args:
        spec: the run.
        info: the description of its data set.
        untrained: do not read published weights.

    Returns:
        The function. It takes the number of outputs, by default one per class, and options that
        replace those of the spec.
    """
    kind = BACKBONES.get(spec.backbone)
    chosen = spec.backbone_options
    if untrained:
        chosen = kind.without_weights(chosen)

    def build(num_outputs: int | None = None, **options: Any) -> torch.nn.Module:
        outputs = len(info.label_names) if num_outputs is None else num_outputs
        network: Backbone = kind(outputs, info.image_size, **{**chosen, **options})
        network.set_normalisation(info.mean, info.std)
        return network

    return build


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that makes the context of forward passes in a precision."""
    if precision == "bf16":
        return partial(torch.autocast, device.type, dtype=torch.bfloat16)
    return nullcontext
