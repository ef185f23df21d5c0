"""MLflow: a run of the experiment ``$MLFLOW_EXPERIMENT_NAME`` for each run of the sweep."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.core.registry import TRACKERS
from benchmark.tracking.base import Picture, RunWriter, TrackedRun, Tracker

#: Tag by which the run of a sweep is found again.
_TAG = "shortcutbed_run"
#: Largest number of parameters that MLflow accepts at once.
_MAX_PARAMETERS = 100
_MAX_CHARACTERS = 500


@TRACKERS.register
class MLflow(Tracker):
    """An experiment for the sweep; ``$MLFLOW_TRACKING_URI`` says where."""

    name = "mlflow"
    title = "MLflow at $MLFLOW_TRACKING_URI, in an experiment with the name of the sweep"
    package = "mlflow"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import mlflow

        self._mlflow = mlflow
        self._client = mlflow.MlflowClient()
        self._experiment = ""

    def open(self, run: TrackedRun, last_step: int) -> RunWriter:
        client = self._client
        experiment = self._experiment or self._find_experiment(run.sweep)
        tag = f"{run.key} {self.folder.resolve()}"
        quoted = tag.replace("'", "")
        found = client.search_runs([experiment], f"tags.{_TAG} = '{quoted}'", max_results=1)
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            return _Writer(self._mlflow, client, run_id, is_new=False)
        made = client.create_run(experiment, run_name=run.name, tags={_TAG: quoted})
        run_id = made.info.run_id
        parameters = [
            self._mlflow.entities.Param(_plain(name), str(value)[:_MAX_CHARACTERS])
            for name, value in run.settings.items()
        ]
        for start in range(0, len(parameters), _MAX_PARAMETERS):
            client.log_batch(run_id, params=parameters[start : start + _MAX_PARAMETERS])
        return _Writer(self._mlflow, client, run_id, is_new=True)

    def _find_experiment(self, sweep: str) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", sweep)
        known = self._client.get_experiment_by_name(name)
        identity = known.experiment_id if known else self._client.create_experiment(name)
        self._experiment = str(identity)
        return self._experiment


class _Writer(RunWriter):
    """Writes what the server does not have yet: it is asked for the steps of each metric."""

    def __init__(self, mlflow: Any, client: Any, run_id: str, *, is_new: bool) -> None:
        self._mlflow = mlflow
        self._client = client
        self._id = run_id
        self._is_new = is_new
        self._written: dict[str, set[int]] = {}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = []
        for name, value in values.items():
            key = _plain(name)
            steps = self._steps(key)
            if step not in steps:
                metrics.append(self._mlflow.entities.Metric(key, value, now, step))
                steps.add(step)
        if metrics:
            self._client.log_batch(self._id, metrics=metrics)

    def results(self, steps: int, values: Mapping[str, float], pictures: Sequence[Picture]) -> None:
        self.scalars(steps, values)
        for picture in pictures:
            file = f"heatmaps/{_plain(picture.name).replace('/', '_')}.png"
            self._client.log_image(self._id, picture.pixels, artifact_file=file)

    def close(self, *, ended: bool, failed: bool = False) -> None:
        if ended:
            self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _steps(self, key: str) -> set[int]:
        if key not in self._written:
            history = [] if self._is_new else self._client.get_metric_history(self._id, key)
            self._written[key] = {int(metric.step) for metric in history}
        return self._written[key]


def _plain(name: str) -> str:
    """Return a name with the characters that MLflow accepts."""
    return re.sub(r"[^\w\-./ ]", "_", name)
