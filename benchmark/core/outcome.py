"""Outcomes of an attempt at a run."""

from __future__ import annotations

import enum


class RunOutcome(enum.StrEnum):
    """Outcome of a call of the engine, or of the worker around it."""

    #: The record is committed.
    DONE = "done"
    #: ``failure.json`` says why there is no result.
    FAILED = "failed"
    #: The run was asked to stop; ``checkpoint.pt`` holds what was done.
    INTERRUPTED = "interrupted"
    #: Nothing was written; the run may fit when it has its device to itself.
    OUT_OF_MEMORY = "out_of_memory"
    #: Nothing was written; the GPU failed, which may not happen again.
    DEVICE_ERROR = "device_error"
    #: Another process ended the run first; its files were left alone.
    SETTLED = "settled"
    #: Another process holds the lease of the run, so it was not started.
    BUSY = "busy"
