"""Requests to stop, which arrive as signals: Ctrl-C, a scheduler's SIGTERM, a closed terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmark.core.errors import StopRequestedError
from benchmark.core.run_states import AttemptEnd

#: The signals that ask a process to stop. Windows has no SIGHUP; only Windows has SIGBREAK.
STOP_SIGNALS = frozenset(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


class StopRequest:
    """A request to stop a run.

    By default the run asks for the reason between two steps and saves itself. Within ``at_once``
    there is nothing to save, and the request interrupts the current work, such as building large
    data.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._at_once = False

    def reason(self) -> str | None:
        """Return why the run should end, or None."""
        return self._reason

    def ask(self, reason: str) -> None:
        """Ask the run to stop. Called from a signal handler, in the thread of the run.

        Raises:
            StopRequestedError: within ``at_once``, but only once, so that the cleanup that follows
                is not interrupted.
        """
        self._reason = self._reason or reason
        if self._at_once:
            self._at_once = False
            raise StopRequestedError(self._reason)

    def lose_lease(self) -> None:
        """Note that the lease is lost: the run must not write anything more. Thread-safe."""
        self._reason = AttemptEnd.LEASE_LOST

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let requests to stop raise a StopRequestedError; an earlier request raises on entry."""
        self._at_once = True
        try:
            if self._reason is not None:
                raise StopRequestedError(self._reason)
            yield
        finally:
            self._at_once = False


def set_stop_handler(on_stop: Callable[[], None]) -> dict[signal.Signals, Any]:
    """Call a function at every request to stop, instead of ending the process.

    A signal that this process ignores stays ignored: this is how ``nohup``, and a shell that starts
    a job in the background, say that it does not concern the process. Only the main thread receives
    signals; in other threads nothing changes.

    Args:
        on_stop: called without arguments between two instructions of the main thread.

    Returns:
        The previous handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, lambda *_: on_stop())
        for number in STOP_SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }


@contextmanager
def handle_stop_signals(on_stop: Callable[[], None]) -> Iterator[None]:
    """As ``set_stop_handler``, and restore the previous handlers at the end."""
    previous = set_stop_handler(on_stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
