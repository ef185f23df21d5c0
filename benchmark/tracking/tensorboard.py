"""TensorBoard: event files in the folder ``tensorboard`` of the sweep."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.core.registry import TRACKERS
from benchmark.tracking.base import Picture, RunWriter, TrackedRun, Tracker

_FOLDER = "tensorboard"


@TRACKERS.register
class TensorBoard(Tracker):
    """One folder of event files for each run."""

    name = "tensorboard"
    title = "event files in the sweep folder, shown by `tensorboard --logdir`"
    package = "tensorboard"

    def open(self, run: TrackedRun, last_step: int) -> RunWriter:
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "_", run.name)[:80]
        folder = self.folder / _FOLDER / f"{readable}_{run.key[:8]}"
        # A killed launch may have lost points. The log has them all: they are written again.
        if folder.is_dir():
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        return _Writer(folder, run)

    def where(self) -> str:
        return f"tensorboard --logdir {self.folder / _FOLDER}"


class _Writer(RunWriter):
    def __init__(self, folder: Path, run: TrackedRun) -> None:
        from torch.utils.tensorboard.summary import hparams

        self._writer = _summary_writer(folder)
        for summary in hparams(dict(run.settings), {"val/accuracy": 0.0}):  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(summary)
        text = json.dumps(dict(run.settings), indent=1)
        self._write_text("settings", f"```\n{text}\n```")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def results(self, steps: int, values: Mapping[str, float], pictures: Sequence[Picture]) -> None:
        self.scalars(steps, values)
        for picture in pictures:
            self._writer.add_image(
                f"heatmaps/{picture.name}", picture.pixels, steps, dataformats="HWC"
            )
            self._write_text(f"heatmaps/{picture.name}", picture.caption)

    def close(self, *, ended: bool, failed: bool = False) -> None:
        self._writer.close()

    def _write_text(self, name: str, text: str) -> None:
        self._writer.add_text(name, text)


def _summary_writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))  # type: ignore[no-untyped-call]
