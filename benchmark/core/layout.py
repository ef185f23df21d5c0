"""The names of the files in the folders of sweeps and runs; no other module knows them."""

from __future__ import annotations

import enum
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.files import is_temporary

#: A lease whose heartbeat is older than this has lost its owner, seconds.
LEASE_SECONDS = 120.0
#: Files outside of any lease (the plan's) are still being written for at most so long, seconds.
ABANDONED_SECONDS = 3600.0

#: The names that tell the state of a run.
_RECORD, _FAILURE, _LEASE = "record.json", "failure.json", "lease.json"


class State(enum.StrEnum):
    """The state of a run.

    ``blocked`` and ``refused`` follow from the sweep; the folder of the run alone does not tell.
    ``unreadable`` is a run whose files exist but are damaged, were mixed with those of another run,
    or are of another schema version.
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
    """``attempts/<n>/``: what one try of a run leaves.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def log(self) -> Path:
        """Lines of the log; they move up to the run's folder when its record is committed."""
        return self.path / "log.jsonl"

    @property
    def output(self) -> Path:
        """Standard output and standard error; they move up as the log does."""
        return self.path / "output.txt"

    @property
    def ended(self) -> Path:
        """Why the try ended, where it left neither a record nor a failure."""
        return self.path / "ended.json"

    @property
    def failure(self) -> Path:
        """A failure of this try that ``retry`` put aside."""
        return self.path / "failure.json"

    def unused_failure(self) -> Path:
        """The name for one more failure of this try: ``failure.json``, ``failure.2.json``, …"""
        path, number = self.failure, 2
        while path.exists():
            path, number = self.path / f"failure.{number}.json", number + 1
        return path


@dataclass(frozen=True)
class RunFolder:
    """``runs/<key>/``: everything about one run.

    Attributes:
        path: the folder; its name is the key of the run.
    """

    path: Path

    @property
    def key(self) -> str:
        return self.path.name

    @property
    def sweep(self) -> SweepFolder:
        """The folder of the sweep that the run belongs to."""
        return SweepFolder(self.path.parent.parent)

    @property
    def spec(self) -> Path:
        """The resolved spec, written by the planner."""
        return self.path / "spec.json"

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
        """The process that works on the run; the age of the file is that of its last heartbeat."""
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
        """A gallery of images, masks and heatmaps; only where the data have masks."""
        return self.path / "heatmaps.npz"

    @property
    def embeddings(self) -> Path:
        """Features of test images; only where the network declares them."""
        return self.path / "embeddings.npz"

    @property
    def selected(self) -> Path:
        """Weights at the step that the first criterion selected."""
        return self.path / "selected.pt"

    @property
    def checkpoint(self) -> Path:
        """The state that the run resumes from; removed once the run is done."""
        return self.path / "checkpoint.pt"

    @property
    def attempts(self) -> Path:
        """The folders of all tries, by number."""
        return self.path / "attempts"

    def attempt(self, number: int) -> AttemptFolder:
        """The folder of one try, from 1."""
        return AttemptFolder(self.attempts / str(number))

    def attempt_numbers(self) -> list[int]:
        """The numbers of all tries, ascending; empty where there was none."""
        return sorted(int(name) for name in _names(self.attempts) if _is_number(name))

    def names(self) -> set[str]:
        """The names in the folder; empty where it does not exist."""
        return _names(self.path)

    def obstacle(self) -> Path | None:
        """What keeps the run from being launched: a folder where its lease must be, a file for its attempts."""
        for path, is_right in ((self.lease, Path.is_file), (self.attempts, Path.is_dir)):
            if os.path.lexists(path) and not is_right(path):
                return path
        return None

    def is_leftover(self, name: str) -> bool:
        """Whether a name in the folder is a temporary file that only the owner of the lease writes.

        Every temporary file is one, whatever it was to become, except that of the spec: planners
        write the spec without holding the lease.
        """
        return is_temporary(name) and not is_temporary(name, self.spec.name)


@dataclass(frozen=True)
class SweepFolder:
    """``results/<sweep>/``: a plan, the folders of its runs, and the report.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def plan(self) -> Path:
        """What was planned and what was refused."""
        return self.path / "sweep.json"

    @property
    def runs(self) -> Path:
        """The folder of the run folders."""
        return self.path / "runs"

    @property
    def report(self) -> Path:
        """The folder that the tables and figures are written to."""
        return self.path / "report"

    def run(self, key: str) -> RunFolder:
        """The folder of the run with this key, which need not exist."""
        return RunFolder(self.runs / key)

    def run_names(self) -> list[str]:
        """The names of all folders in ``runs/``, sorted; empty where there are none."""
        try:
            with os.scandir(self.runs) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            return []

    def exists(self) -> bool:
        """Whether this is the folder of a sweep: it has a plan, or runs."""
        return self.plan.is_file() or self.runs.is_dir()


def newest_sweep(root: Path) -> SweepFolder | None:
    """The sweep in ``root`` that was launched last, since every launch writes its plan; or None.

    A sweep whose plan is gone counts by the time of its folder.
    """
    found: list[tuple[float, str, SweepFolder]] = []
    for name in _names(root):
        sweep = SweepFolder(root / name)
        if sweep.exists():
            told = sweep.plan if sweep.plan.is_file() else sweep.path
            found.append((told.stat().st_mtime, name, sweep))
    return max(found)[2] if found else None


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


def state_of(folder: Path, now: float | None = None) -> State:
    """The state of a run from the listing of its folder alone.

    A folder that does not exist is pending. ``lost`` is a lease whose heartbeat stopped more than
    LEASE_SECONDS ago: the next launcher takes it over.

    Args:
        folder: the folder of the run.
        now: seconds since 1970; by default the time of the call.
    """
    names = _names(folder)
    if _RECORD in names:
        return State.DONE
    if _FAILURE in names:
        return State.FAILED
    if _LEASE in names:
        try:
            age = (time.time() if now is None else now) - (folder / _LEASE).stat().st_mtime
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            return State.PENDING
        return State.RUNNING if age < LEASE_SECONDS else State.LOST
    return State.PENDING


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10
