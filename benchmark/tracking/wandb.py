"""Weights & Biases: a run of the project ``$WANDB_PROJECT`` for each run of the sweep."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.registry import TRACKERS
from benchmark.tracking.base import Picture, RunWriter, TrackedRun, Tracker

_WITHOUT_LOGIN = ("offline", "disabled", "dryrun", "shared")


@TRACKERS.register
class WeightsAndBiases(Tracker):
    """A group of the project for the sweep; the environment of wandb configures the rest."""

    name = "wandb"
    title = "Weights & Biases, in the project $WANDB_PROJECT (default: shortcutbed)"
    package = "wandb"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import wandb

        if os.environ.get("WANDB_MODE", "online") not in _WITHOUT_LOGIN:
            try:
                logged_in = wandb.login()
            except Exception as error:  # types of wandb
                reason = " ".join(str(error).split())[:200].rstrip(".")
                raise UserError(
                    f"wandb cannot log in ({reason}); run `wandb login`, or set WANDB_MODE=offline."
                ) from None
            if not logged_in:
                raise UserError(
                    "wandb is not logged in; run `wandb login`, or set WANDB_MODE=offline."
                )

    def open(self, run: TrackedRun, last_step: int) -> RunWriter:
        import wandb

        name = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]
        found = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "shortcutbed"),
            group=run.sweep,
            name=run.name,
            id=f"{run.key}-{name}",
            config=dict(run.settings),
            dir=str(self.folder),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )
        # A continued run begins after its last step, of which the server knows.
        return _Writer(wandb, found, max(last_step, int(found.step) - 1))


class _Writer(RunWriter):
    def __init__(self, wandb: Any, run: Any, last_step: int) -> None:
        self._wandb = wandb
        self._run = run
        self.last_step = last_step

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step, commit=True)

    def results(self, steps: int, values: Mapping[str, float], pictures: Sequence[Picture]) -> None:
        self._run.summary.update(dict(values))
        if pictures:
            images = [
                self._wandb.Image(picture.pixels, caption=f"{picture.name}: {picture.caption}")
                for picture in pictures
            ]
            self._run.log({"heatmaps": images})

    def close(self, *, ended: bool, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))
