"""The launcher for Ray: identical workers as Ray tasks.

Each task runs ``python -m benchmark.sweep work FOLDER`` as a process of its own, which claims runs
in the folder until none is left. Ray decides where the tasks run and starts those that died again;
the folder alone decides what is done.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.layout import SweepFolder
from benchmark.core.registry import LAUNCHERS
from benchmark.launch.executor import Executor
from benchmark.launch.slots import CORES, MAX_WORKERS, Placement

#: Seconds that workers have to save their runs and return their leases when the launch is stopped.
_SAVING_SECONDS = 60.0


@LAUNCHERS.register
class RayExecutor(Executor):
    """Runs workers as tasks of a Ray cluster, and follows the folder until every run has ended.

    Args:
        placement: ``workers`` is the number of workers, ``per_gpu`` the number of runs at a time on
            each GPU.
        address: address of the cluster.
        gpus: GPUs of each worker.
        cpus: CPU cores of each worker.
        runs: runs at a time in each worker.
        restarts: how often Ray starts a worker again.
    """

    name = "ray"
    title = "a Ray cluster: workers as tasks"
    options = {
        "address": HParam("auto", doc="address of the cluster; local: start one on this machine"),
        "gpus": HParam(0, doc="GPUs of each worker", low=0, high=64),
        "cpus": HParam(1, doc="CPU cores of each worker", low=1, high=1024),
        "runs": HParam(
            0, doc="runs at a time in each worker; 0: one, or per GPU", low=0, high=MAX_WORKERS
        ),
        "restarts": HParam(
            100, doc="how often Ray starts a worker that died again", low=0, high=1_000_000
        ),
    }

    def __init__(
        self,
        placement: Placement,
        address: str = "auto",
        gpus: int = 0,
        cpus: int = 1,
        runs: int = 0,
        restarts: int = 100,
    ) -> None:
        super().__init__(placement)
        self.address = address
        self.gpus = gpus
        self.cpus = cpus
        self.runs = runs
        self.restarts = restarts
        self._tasks: list[Any] = []
        self._own_connection = False

    @classmethod
    def check_available(cls) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "launcher ray needs the package ray, which is not installed; "
                "pip install 'shortcutbed[ray]'."
            )

    def start(self) -> None:
        """Connect to the cluster and start as many workers as there is work for."""
        assert self.workload is not None
        ray = importlib.import_module("ray")
        if not ray.is_initialized():
            try:
                ray.init(address=self.address, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"launcher ray: no connection to {self.address!r} ({error}); start a cluster "
                    "with `ray start --head`, or choose address=local."
                ) from None
            self._own_connection = True
        logs = SweepFolder(self.workload.folder).workers.absolute()
        logs.mkdir(parents=True, exist_ok=True)
        task = ray.remote(_make_task()).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=self.restarts,
            retry_exceptions=True,  # also if only the worker died, and not the process of Ray
            name=f"sweep-{self.workload.folder.name}",
        )
        environment = {CORES: str(self.cpus)}
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
        self._tasks = [
            task.remote(self._arguments(), environment, str(logs / f"ray_{number}.out"))
            for number in range(min(self.placement.workers or 1, self.workload.left))
        ]

    def _arguments(self) -> list[str]:
        """Return the arguments of Python on the machine of a worker."""
        assert self.workload is not None
        arguments = ["-m", "benchmark.sweep", "work", str(self.workload.folder.absolute())]
        arguments += ["--device", "cuda" if self.gpus else "cpu"]
        if self.runs or not self.gpus:
            arguments += ["--workers", str(self.runs or 1)]
        arguments += ["--per-gpu", str(self.placement.per_gpu)]
        return [*arguments, *self.workload.arguments]

    def preview(self) -> str:
        assert self.workload is not None
        number = min(self.placement.workers or 1, self.workload.left)
        command = " ".join(["python", *self._arguments()])
        return f"{number} tasks with {self.cpus} CPUs and {self.gpus} GPUs each: {command}"

    def is_active(self) -> bool:
        if not self._tasks:
            return False
        ray = importlib.import_module("ray")
        _, unfinished = ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        return bool(unfinished)

    def signal(self, number: int) -> None:
        """Do nothing: there is no job of this process."""

    def close(self) -> None:
        """Let the workers save their runs, and end them."""
        if not self._tasks:
            return
        ray = importlib.import_module("ray")
        for task in self._tasks:
            with suppress(Exception):  # it has ended, or Ray is gone
                ray.cancel(task)
        with suppress(Exception):
            ray.wait(self._tasks, num_returns=len(self._tasks), timeout=_SAVING_SECONDS)
        self._tasks = []
        if self._own_connection:
            ray.shutdown()


def _make_task() -> Callable[[list[str], dict[str, str], str], int]:
    """Return the function of a task. Ray sends a nested function as a whole, not by its name."""

    def run_worker(arguments: list[str], environment: dict[str, str], log: str) -> int:
        """Run one worker and wait for it; cancelling the task lets it save its runs.

        Raises:
            RuntimeError: the worker was killed, so that Ray starts it again.
        """
        import ctypes
        import os
        import signal
        import subprocess
        import sys

        library = ctypes.CDLL(None)

        def end_with_this_process() -> None:
            if hasattr(library, "prctl"):  # Linux
                library.prctl(1, signal.SIGTERM)

        with open(log, "ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_this_process,
            )
        try:
            code = process.wait()
        except BaseException:  # the task was cancelled
            process.terminate()
            process.wait()
            raise
        if code < 0 or code > 128:
            raise RuntimeError(f"the worker was killed (exit code {code}); see {log}")
        return code

    return run_worker
