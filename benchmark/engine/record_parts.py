"""Parts of the record that every kind of run has, and the removal of files that it replaces."""

from __future__ import annotations

import os
from pathlib import Path

from benchmark.core.algorithm import Algorithm
from benchmark.core.dataset import GroupedDataset
from benchmark.core.layout import RunFolder
from benchmark.core.record import read_record
from benchmark.core.registry import ALGORITHMS
from benchmark.core.spec import RunSpec
from benchmark.core.summaries import DataSummary, InputSummary, MethodSummary, UpstreamSummary


def about_data(data: GroupedDataset) -> DataSummary:
    """Return the description of the data of a run."""
    info = data.info
    return DataSummary(
        label_names=info.label_names,
        confounder_names=info.confounder_names,
        environment_names=info.environment_names,
        group_names=info.group_names,
        splits={name: len(split) for name, split in data.splits.items()},
        bias_splits=info.bias_splits,
        paired=info.paired,
        multi_label=info.multi_label,
        stand_in=info.stand_in,
        source=info.source,
        licence=info.licence,
        unlabelled_splits=info.unlabelled_splits,
        unannotated_masks=info.unannotated_masks,
        input=InputSummary(
            image_size=info.image_size, mean=info.mean, std=info.std, **vars(data.conversion)
        ),
    )


def about_method(spec: RunSpec, algorithm: Algorithm) -> MethodSummary:
    """Return the description of the method of a run."""
    kind = ALGORITHMS.get(algorithm.name)
    return MethodSummary(
        needs=tuple(kind.needs.names()),
        sampling=algorithm.sampling,  # of this run, since a variant may sample differently
        paper=str(kind.paper) if kind.paper else None,
        active_from=kind.active_from(spec.hparams, spec.budget),
    )


def about_upstream(folder: Path) -> UpstreamSummary:
    """Return the description of a finished upstream run."""
    record = read_record(folder)
    return UpstreamSummary(record.key, record.spec.method, record.selected)


def tidy(folder: RunFolder, attempt: int) -> None:
    """Remove files that are no longer needed; a kill in between leaves them, which is harmless."""
    attempt_folder = folder.attempt(attempt)
    folder.checkpoint.unlink(missing_ok=True)
    attempt_folder.log.unlink(missing_ok=True)
    if attempt_folder.output.exists():
        # The file stays open, so that later output arrives there too.
        os.replace(attempt_folder.output, folder.output)
