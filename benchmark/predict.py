"""Predict the classes of images with a finished run: ``python -m benchmark.predict``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.programs import make_parser
from benchmark.core.conditions import prepare_openmp
from benchmark.core.errors import UserError, exit_code
from benchmark.core.files import check_folder, write_atomic
from benchmark.core.terminal import say
from benchmark.core.text import csv_cell

if TYPE_CHECKING:
    from pandas import DataFrame

    from benchmark.api.run import Run

#: Endings of exported networks, which are given instead of a run.
_EXPORTED = (".pt2", ".onnx", ".safetensors")
#: The folder of heatmaps unless the command names one.
_DEFAULT_OUT = Path("predictions")

_DESCRIPTION = """\
Predict the classes of images with the network of a finished run, and explain the predictions.
"""

_EPILOG = """\
examples:
  python -m benchmark.predict results/quickstart a.png --method group_dro
  python -m benchmark.predict results/quickstart/runs/0123456789abcdef photographs/
  python -m benchmark.predict results/mine a.png b.png --method erm --explain lrp --out predictions
  python -m benchmark.predict model.onnx a.png

Images are decoded, resized and normalised like those that the network was trained on. The
predictions are printed as CSV, or written to predictions.csv in the folder --out. Heatmaps are
written to the same folder, or to predictions/ if none is named.

exit codes: 0 the images were predicted; 2 the command, the run or an image is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    given = _parser().parse_args(arguments)
    folder = given.out or _DEFAULT_OUT
    if given.out or given.explain:
        check_folder(folder, "--out")
    prepare_openmp()  # what follows imports torch
    from benchmark.api.exported import load_exported
    from benchmark.api.images import expand_files
    from benchmark.api.run import load_run

    files = expand_files(given.files)
    if Path(given.run).suffix.lower() in _EXPORTED:
        if given.explain or given.method or given.dataset or given.trial is not None:
            raise UserError(
                f"{given.run} is an exported network: leave out --method, --dataset, --trial and "
                "--explain, or name the folder of its run."
            )
        table = load_exported(given.run, device=given.device).predict(files)
    else:
        run = load_run(
            given.run,
            method=given.method,
            dataset=given.dataset,
            trial=given.trial,
            device=given.device,
            data_dir=given.data_dir,
        )
        table = run.predict(files)
        if given.explain:
            _write_heatmaps(run, files, given.explain, folder)
    text = _csv(table)
    if not given.out:
        sys.stdout.write(text)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "predictions.csv"
    write_atomic(path, text.encode("utf-8", "replace"))
    say(f"written to {path}", error=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("predict", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add(
        "run",
        metavar="RUN",
        help="folder of a run or of a sweep, or a file written by Run.export",
    )
    add("files", nargs="+", metavar="FILE", help="image, or folder of images")
    add("--method", metavar="NAME[:VARIANT]", help="if RUN is a sweep: use a run of this method")
    add(
        "--dataset",
        metavar="NAME[:OPTION=VALUE,…]",
        help="if RUN is a sweep: use a run on this data set",
    )
    add(
        "--trial",
        type=int,
        metavar="N",
        help="if RUN is a sweep: use trial N; default: the first finished one",
    )
    add(
        "--explain",
        metavar="NAME[:OPTION=VALUE,…]",
        help="also draw heatmaps of the predicted classes with this explainer; see `sweep list "
        "explainers`",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="write predictions.csv and heatmaps to this folder; default: print the predictions, "
        "and write heatmaps to predictions/",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="device to use; default: cpu")
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="read data sets from this folder; only needed for runs of earlier versions",
    )
    return parser


def _csv(table: DataFrame) -> str:
    """Return a table as CSV in which no cell is a formula for a spreadsheet."""
    shown = table.copy()
    for name in ("file", "predicted"):
        shown[name] = [csv_cell(value) for value in shown[name]]
    shown.columns = [csv_cell(name) for name in shown.columns]
    return str(shown.to_csv(index=False, lineterminator="\n", float_format="%.6f"))


def _write_heatmaps(run: Run, files: Sequence[Path], explainer: str, out: Path) -> None:
    """Write one figure per image; figures of files of one name in two folders are numbered."""
    out.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    for file in files:
        name = f"{file.stem}_heatmap"
        number = 2
        while name in used:
            name = f"{file.stem}_heatmap_{number}"
            number += 1
        used.add(name)
        run.show(file, explainer).savefig(out / f"{name}.png", dpi=150)
    say(f"{len(files)} heatmaps written to {out}", error=True)


if __name__ == "__main__":
    sys.exit(main())
