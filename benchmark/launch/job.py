"""A run as it is handed to a process, and the result that comes back; both can be JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.core.layout import State
from benchmark.core.outcome import RunOutcome
from benchmark.launch.slots import Slot


@dataclass(frozen=True)
class Job:
    """One run for one process.

    Args:
        folder: the folder of the run.
        alone: True if the run has its device to itself, because it ran out of memory before.
        slot: where it runs.
        data_dir: the folder of downloaded data sets, for the engine.
        checkpoint_seconds: the work that a kill may cost, for the engine.
        lease_seconds: how long a silent owner keeps its lease.
        engine: the module whose ``execute`` is called.
        modules: modules that register classes, imported before the engine is called.
    """

    folder: Path
    alone: bool
    slot: Slot
    data_dir: Path | None
    checkpoint_seconds: float
    lease_seconds: float
    engine: str
    modules: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON table; paths are absolute."""
        data_dir = None if self.data_dir is None else str(self.data_dir.absolute())
        return {**asdict(self), "folder": str(self.folder.absolute()), "data_dir": data_dir}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """Return the job that ``to_json`` wrote."""
        slot = value["slot"]
        return cls(
            **{
                **value,
                "folder": Path(value["folder"]),
                "slot": Slot(**{**slot, "cores": tuple(slot["cores"])}),
                "data_dir": None if value["data_dir"] is None else Path(value["data_dir"]),
                "modules": tuple(value["modules"]),
            }
        )


@dataclass(frozen=True)
class JobResult:
    """Result of a job.

    Args:
        outcome: how the run ended, or why it was not started.
        attempt: the number of the attempt, or 0 if there was none.
        seconds: the wall time of the attempt.
        stop_reason: why the run was interrupted; empty otherwise.
        end: whether the run is done or failed, as its process has seen it; None if it has not
            ended. To the launcher, the files may become visible later.
    """

    outcome: RunOutcome
    attempt: int = 0
    seconds: float = 0.0
    stop_reason: str = ""
    end: State | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON table."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> JobResult:
        """Return the result that ``to_json`` wrote."""
        end = value.get("end")
        return cls(
            **{
                **value,
                "outcome": RunOutcome(value["outcome"]),
                "end": None if end is None else State(end),
            }
        )


class ProcessDied(Exception):
    """The process of a run ended without a result.

    Args:
        exit_code: its exit code, negative for a signal; None if it is unknown.
    """

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__(f"the process ended with exit code {exit_code}")
