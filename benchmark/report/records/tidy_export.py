"""Export the records as one tidy table, with a row per run, criterion and split."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.counts import accuracy, num_images, worst_group, worst_group_accuracy
from benchmark.core.errors import UserError
from benchmark.core.files import write_atomic
from benchmark.core.layout import State
from benchmark.core.text import csv_cell
from benchmark.report.records.sweep_records import Sweep, SweepRun
from benchmark.report.records.switches import chosen_before_switch, switch_of
from benchmark.report.statistics.estimate import finite_or_none
from benchmark.report.statistics.plug_in import overall

if TYPE_CHECKING:
    from pandas import DataFrame

SUFFIXES = (".csv", ".parquet")


def export(sweep: Sweep, path: Path) -> int:
    """Write every run of a sweep as tidy rows.

    A run without a result has one row with its state and reason. The columns are the description of
    the run, ``criterion``, ``step``, ``active_from`` and ``before_switch`` (whether the step
    precedes the method's own training), ``split``, ``n``, accuracies as fractions, cost, and
    ``hparam.<name>`` for every hyper-parameter.

    Args:
        sweep: The sweep.
        path: A ``.csv`` file, or a ``.parquet`` file if pyarrow is installed.

    Returns:
        The number of rows.

    Raises:
        UserError: If the suffix is another, the folder does not exist, or pyarrow is missing.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"cannot export to {path.name!r}, expected a name that ends in .csv or .parquet."
        )
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to export to.")
    rows = [row for run in sweep.runs for row in _rows(run)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(map(csv_cell, columns))
        writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)
        write_atomic(path, out.getvalue().encode("utf-8", "replace"))
    else:
        _parquet(rows, columns, path)
    return len(rows)


def to_frame(sweep: Sweep) -> DataFrame:
    """Return the rows that ``export`` writes as a DataFrame."""
    from pandas import DataFrame

    return DataFrame([row for run in sweep.runs for row in _rows(run)])


def _parquet(rows: list[dict[str, Any]], columns: list[str], path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UserError(
            "Parquet needs pyarrow: `pip install pyarrow`, or export to a .csv file."
        ) from None
    import pandas

    frame = pandas.DataFrame(rows, columns=columns)
    for name, column in frame.items():
        # Parquet has no mixed columns, such as a hyper-parameter of two methods: write text.
        is_mixed = column.map(type).nunique() > 1
        if is_mixed and not pandas.api.types.is_numeric_dtype(column):
            frame[name] = column.map(
                lambda value: None if value is None or value != value else str(value)
            )
    write_atomic(path, lambda file: frame.to_parquet(file, index=False))


def _rows(run: SweepRun) -> Iterator[dict[str, Any]]:
    record = run.record
    spec = run.spec
    about: dict[str, Any] = {
        "key": run.key,
        "dataset": run.dataset,
        "method": run.method,
        "requested": run.requested,
        "trial": run.trial,
        "draw": run.draw,
        "state": str(run.state),
        "reason": run.reason,
    }
    hparams = {f"hparam.{name}": value for name, value in (spec.hparams if spec else {}).items()}
    if record is None or run.state != State.DONE:
        yield {**about, **hparams}
        return
    cost = {
        "backbone": record.spec.backbone,
        "stand_in": record.data.stand_in,
        "training_seconds": record.seconds.training,
        "images_per_second": record.images_per_second,
        "inference_images_per_second": record.inference_images_per_second,
        "peak_memory_bytes": record.peak_memory_bytes,
        "parameters": record.parameters,
    }
    for criterion, at in run.selected.items():
        for split, counts in at.counts.items():
            labelled = split not in record.data.unlabelled_splits
            grouped = labelled and bool(record.data.confounder_names)
            yield {
                **about,
                "criterion": criterion,
                "step": at.step,
                "criterion_value": at.value,
                "active_from": switch_of(run),
                "before_switch": chosen_before_switch(run, at),
                "split": split,
                "n": num_images(counts),
                "accuracy": finite_or_none(accuracy(counts)) if labelled else None,
                "balanced_accuracy": (
                    overall(counts).get("balanced_accuracy") if labelled else None
                ),
                "worst_group_accuracy": (
                    finite_or_none(worst_group_accuracy(counts)) if grouped else None
                ),
                "worst_group": worst_group(counts) if grouped else None,
                **cost,
                **hparams,
            }
