"""Base class of the launchers, which provide places for runs and a process for each run.

The scheduler decides which run goes where and what follows when it ends. It knows processes only
through the class below. Adding a launcher is one file in ``benchmark/launch/executors/``, or a
package with the entry point group ``shortcutbed.launchers``; see ``docs/adding_a_launcher.md``.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.hparam import HParam
from benchmark.launch.job import Job, JobResult
from benchmark.launch.slots import Placement, Slot


@dataclass(frozen=True)
class Workload:
    """What the workers of an executor without slots work on.

    Attributes:
        folder: The sweep folder.
        left: Number of runs that have not ended.
        arguments: Further arguments of ``sweep work``, such as the folder of data sets.
    """

    folder: Path
    left: int
    arguments: tuple[str, ...] = ()


class Executor(abc.ABC):
    """Runs jobs in processes.

    There are two kinds. An executor with slots is given one job at a time for each slot. An
    executor without slots starts workers elsewhere, which claim the runs of the sweep folder
    themselves, usually by ``python -m benchmark.sweep work``; the scheduler then only follows the
    folder, or returns at once if the executor is ``detached``.

    Subclasses declare class attributes and register with ``LAUNCHERS.register``.

    Attributes:
        name: the name on the command line.
        title: one line for ``sweep list launchers``.
        options: the options that ``--launcher NAME:OPTION=VALUE`` takes, with defaults.
        slots: the places for runs; empty if workers claim runs themselves.
        note: one sentence for the user before the launch, such as a GPU that cannot be used. A
            detached executor may set it in ``start``.
        detached: True if the launch returns after ``start``, and workers go on without it.
        workload: what workers work on; set before ``start``.

    Args:
        placement: which devices the user wants, and how many runs at a time.

    A subclass that declares options takes them as keyword arguments.
    """

    name = ""
    title = ""
    options: Mapping[str, HParam] = {}
    slots: Sequence[Slot] = ()
    note = ""
    detached = False
    workload: Workload | None = None

    def __init__(self, placement: Placement) -> None:
        self.placement = placement

    @classmethod  # noqa: B027
    def check_available(cls) -> None:
        """Check that this system can use the launcher; called before anything is planned.

        Raises:
            UserError: it cannot.
        """

    def start(self) -> None:  # noqa: B027
        """Prepare to run jobs. Called once, and only if there is something to run."""

    def preview(self) -> str:
        """Return what ``start`` would submit, for ``launch --dry-run``; empty for nothing."""
        return ""

    def submit(self, job: Job) -> Future[JobResult]:
        """Run a job in a process of its slot. Called only if the slot is free.

        The process calls ``benchmark.launch.worker.work``; ``benchmark.launch.run_job`` does that
        in a process started by any means.

        Returns:
            A future that holds the result or raises a ``ProcessDied``, or the OSError or UserError
            of ``work``.

        Raises:
            UserError: no process can be started.
        """
        raise NotImplementedError(f"launcher {self.name} has slots but does not run jobs")

    def renew(self, slot: Slot) -> None:  # noqa: B027
        """Repair what the death of a process may have broken in its slot."""

    def replace_stuck(self) -> None:  # noqa: B027
        """End processes that do not begin their job, so that it ends with a ``ProcessDied``.

        The scheduler calls it several times a second while jobs run.
        """

    @abc.abstractmethod
    def signal(self, number: int) -> None:
        """Send a signal to all processes: SIGTERM asks runs to save, SIGKILL ends them."""

    def kill(self, job: Job) -> bool:
        """End the process of a job because its time is up.

        Returns:
            True if its process was killed. False if there was none, or if the launcher does not
            support time limits.
        """
        return False

    def is_active(self) -> bool:
        """Return False if no worker is left that could claim a run. Asked only without slots."""
        return True

    @abc.abstractmethod
    def close(self) -> None:
        """End all processes. Also called if ``start`` was not."""
