"""Names of the files in the folders of sweeps and runs. No other module contains them."""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import file_system_time, is_temporary

#: The parent of sweep folders unless a command names a folder.
RESULTS = Path("results")
#: A lease whose last heartbeat is older than this, in seconds, has lost its owner.
LEASE_SECONDS = 120.0
#: Temporary files outside of a lease, such as those of a plan, are abandoned after this time, in
#: seconds.
ABANDONED_SECONDS = 3600.0

#: The name of the resolved spec of a run.
SPEC_NAME = "spec.json"
#: The folder in ``results/`` where ``benchmark.train`` puts its runs.
SINGLE_RUNS = "train"

# The files that determine the state of a run.
_RECORD = "record.json"
_FAILURE = "failure.json"
_LEASE = "lease.json"


class State(enum.StrEnum):
    """The state of a run.

    ``blocked`` and ``refused`` depend on the sweep and cannot be read from the folder of the run. A
    run is ``unreadable`` if its files are damaged, were mixed with those of another run, or have
    another schema version.
    """

    PENDING = "pending"
    RUNNING = "running"
    LOST = "lost"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    REFUSED = "refused"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class AttemptFolder:
    """``attempts/<n>/``: the files of one attempt of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def log(self) -> Path:
        """Lines of the log. They move to the folder of the run when its record is committed."""
        return self.path / "log.jsonl"

    @property
    def output(self) -> Path:
        """Standard output and standard error. They move as the log does."""
        return self.path / "output.txt"

    @property
    def ended(self) -> Path:
        """Why the attempt ended, if it left neither a record nor a failure."""
        return self.path / "ended.json"

    @property
    def failure(self) -> Path:
        """The failure of this attempt, if ``retry`` has moved it here."""
        return self.path / "failure.json"

    def unused_failure(self) -> Path:
        """Return the first unused of the names ``failure.json``, ``failure.2.json``, …"""
        path = self.failure
        number = 2
        while path.exists():
            path = self.path / f"failure.{number}.json"
            number += 1
        return path


@dataclass(frozen=True)
class RunFolder:
    """``runs/<key>/``: the files of one run.

    Attributes:
        path: The folder. Its name is the key of the run.
    """

    path: Path

    @property
    def key(self) -> str:
        """The key of the run."""
        return self.path.name

    @property
    def sweep(self) -> SweepFolder:
        """The folder of the sweep that the run belongs to."""
        return SweepFolder(self.path.parent.parent)

    @property
    def spec(self) -> Path:
        """The resolved spec, which planning writes."""
        return self.path / SPEC_NAME

    @property
    def record(self) -> Path:
        """The result. It is committed last: a run is done if and only if this file exists."""
        return self.path / _RECORD

    @property
    def failure(self) -> Path:
        """Why the run ended without a result."""
        return self.path / _FAILURE

    @property
    def lease(self) -> Path:
        """The process that works on the run. The file is modified at every heartbeat."""
        return self.path / _LEASE

    @property
    def log(self) -> Path:
        """One line of JSON per evaluation."""
        return self.path / "log.jsonl"

    @property
    def output(self) -> Path:
        """Standard output and standard error of the attempt that finished."""
        return self.path / "output.txt"

    @property
    def predictions(self) -> Path:
        """Logits of every image at the selected steps."""
        return self.path / "predictions.npz"

    @property
    def heatmaps(self) -> Path:
        """A gallery of images, masks and heatmaps, for data with masks."""
        return self.path / "heatmaps.npz"

    @property
    def explanations(self) -> Path:
        """Metrics of the explanation of each image, of a run that measures explanations."""
        return self.path / "explanations.npz"

    @property
    def global_maps(self) -> Path:
        """Explanations of whole classes, of methods that have them."""
        return self.path / "global_explanations.npz"

    @property
    def embeddings(self) -> Path:
        """Features of test images, for networks that declare features."""
        return self.path / "embeddings.npz"

    @property
    def selected(self) -> Path:
        """Weights at the step that the first criterion selected."""
        return self.path / "selected.pt"

    @property
    def checkpoint(self) -> Path:
        """The state that the run resumes from. It is removed when the run is done."""
        return self.path / "checkpoint.pt"

    @property
    def attempts(self) -> Path:
        """The parent of the folders of all attempts."""
        return self.path / "attempts"

    def attempt(self, number: int) -> AttemptFolder:
        """Return the folder of an attempt. Attempts are numbered from 1."""
        return AttemptFolder(self.attempts / str(number))

    def attempt_numbers(self) -> list[int]:
        """Return the numbers of all attempts in ascending order."""
        return sorted(int(name) for name in names_in(self.attempts) if _is_number(name))

    def names(self) -> set[str]:
        """Return the names in the folder; empty if it does not exist."""
        return names_in(self.path)

    def obstacle(self) -> Path | None:
        """Return a path that prevents a launch, or None.

        This is a folder in place of the lease, or a file in place of the folder of attempts.
        """
        if os.path.lexists(self.lease) and not self.lease.is_file():
            return self.lease
        if os.path.lexists(self.attempts) and not self.attempts.is_dir():
            return self.attempts
        return None

    def is_leftover(self, name: str) -> bool:
        """Return True for the name of a temporary file that only the owner of the lease writes.

        These are all temporary files except that of the spec, which planning writes without a
        lease.
        """
        return is_temporary(name) and not is_temporary(name, self.spec.name)


@dataclass(frozen=True)
class SweepFolder:
    """``results/<sweep>/``: a plan, the folders of its runs, and the report.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def plan(self) -> Path:
        """The planned and the refused runs."""
        return self.path / "sweep.json"

    @property
    def runs(self) -> Path:
        """The parent of the folders of all runs."""
        return self.path / "runs"

    @property
    def done(self) -> Path:
        """What workers tell each other about runs, a line for each key; see ``DoneList``."""
        return self.path / "done.txt"

    @property
    def workers(self) -> Path:
        """The folder of the logs of workers that a cluster runs."""
        return self.path / "workers"

    def tracked(self, tracker: str) -> Path:
        """Return the folder in which a tracker notes how much of each run it has written."""
        return self.path / "trackers" / tracker

    @property
    def report(self) -> Path:
        """The folder of tables and figures."""
        return self.path / "report"

    def run(self, key: str) -> RunFolder:
        """Return the folder of the run with this key, which need not exist."""
        return RunFolder(self.runs / key)

    def run_names(self) -> list[str]:
        """Return the sorted names of all folders in ``runs/``."""
        try:
            with os.scandir(self.runs) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            return []

    def exists(self) -> bool:
        """Return True if the folder has a plan or runs."""
        return self.plan.is_file() or self.runs.is_dir()

    def missing(self) -> str:
        """Return a sentence that says that this is not the folder of a sweep."""
        return (
            f"{self.path} holds neither {self.plan.name} nor {self.runs.name}/, "
            "expected the folder of a sweep."
        )


def newest_sweep(root: Path) -> SweepFolder | None:
    """Return the sweep in ``root`` that was launched last, or None if there is no sweep.

    Every launch writes the plan, so its time counts. For a sweep without a plan, the time of its
    folder counts. Single runs, which ``benchmark.train`` puts into a folder of their own, do not
    count.
    """
    sweeps: list[tuple[float, str, SweepFolder]] = []
    for name in names_in(root):
        sweep = SweepFolder(root / name)
        if name != SINGLE_RUNS and sweep.exists():
            dated = sweep.plan if sweep.plan.is_file() else sweep.path
            sweeps.append((dated.stat().st_mtime, name, sweep))
    return max(sweeps)[2] if sweeps else None


def require_newest_sweep(root: Path) -> SweepFolder:
    """Return the sweep in ``root`` that was launched last.

    Raises:
        UserError: If there is none.
    """
    sweep = newest_sweep(root)
    if sweep is None:
        raise UserError(
            f"there is no sweep in {root}; launch one with `python -m benchmark.sweep launch`, "
            "or name a folder."
        )
    return sweep


def find_sweep_folder(given: str | None, root: Path = RESULTS) -> Path:
    """Return the sweep folder that the command line names.

    Args:
        given: A path, or a name under ``root``; None for the newest sweep under ``root``. In a
            folder of several sweeps, the newest one is meant.
        root: Folder of the sweeps.

    Raises:
        UserError: If there is no such sweep.
    """
    if given is None:
        return require_newest_sweep(root).path
    for folder in (Path(given), root / given):
        if SweepFolder(folder).exists():
            return folder
    folder = Path(given)
    run = RunFolder(folder.absolute())  # `resolve` fails on links in a circle
    if run.record.exists() or run.spec.exists():
        raise UserError(
            f"{folder} is the folder of one run, expected the folder of its sweep: "
            f"{run.sweep.path}."
        )
    if folder.is_dir():
        newest = newest_sweep(folder)
        if newest is not None:
            return newest.path
        raise UserError(SweepFolder(folder).missing())
    raise UserError(f"there is no folder {given} and no sweep {root / given}; see `ls {root}`.")


def end_of(folder: Path) -> State | None:
    """Return DONE or FAILED if a run has ended, and otherwise None, by looking for its files.

    Network file systems may answer a listing from a cache that is seconds old. Looking a name up
    after this process has created a file in the folder (its lease) sees what others have written.
    """
    run = RunFolder(folder)
    if run.record.exists():
        return State.DONE
    return State.FAILED if run.failure.exists() else None


def state_of(folder: str | os.PathLike[str], now: float | None = None) -> State:
    """Return the state of a run from the listing of its folder alone.

    A folder that does not exist is pending. A run is ``lost`` if the heartbeat of its lease stopped
    more than LEASE_SECONDS ago; the next launcher takes it over.

    Args:
        folder: Folder of the run.
        now: Seconds since 1970; by default the current time by the clock of the file system.
    """
    return state_from_names(folder, names_in(folder), now)


def state_from_names(
    folder: str | os.PathLike[str], names: Set[str], now: float | None = None
) -> State:
    """Return the state of a run from the names in its folder; see ``state_of``.

    Args:
        folder: Folder of the run. It is only accessed for the time of a lease.
        names: Names in the folder.
        now: Seconds since 1970; by default the current time by the clock of the file system.
    """
    if _RECORD in names:
        return State.DONE
    if _FAILURE in names:
        return State.FAILED
    if _LEASE in names:
        try:
            heartbeat = os.stat(os.path.join(folder, _LEASE)).st_mtime
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            return State.PENDING
        # The clock of this machine may be ahead of the one that dated the heartbeat.
        runs = os.path.dirname(os.path.abspath(folder))
        age = (file_system_time(runs) if now is None else now) - heartbeat
        return State.RUNNING if age < LEASE_SECONDS else State.LOST
    return State.PENDING


def names_in(folder: str | os.PathLike[str]) -> set[str]:
    """Return the names in a folder; empty if it does not exist."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10
