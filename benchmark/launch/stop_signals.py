"""Requests to stop, which come as signals: Ctrl-C, a scheduler's SIGTERM, a closed terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmark.core.errors import StopRequestedError
from benchmark.core.spec import LEASE_LOST

#: The signals that ask a process to stop; Windows has no SIGHUP, and it alone has SIGBREAK.
STOP_SIGNALS = frozenset(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


class StopRequest:
    """A request to stop a run: why, and whether it may interrupt what the run is doing.

    By default the run asks for the reason between two steps and saves itself. Within ``at_once`` there is nothing to
    save, and the request interrupts whatever is going on there, be it the building of large data.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._at_once = False

    def reason(self) -> str | None:
        """Why the run should end, or None."""
        return self._reason

    def ask(self, reason: str) -> None:
        """Ask the run to stop; from a signal handler, in the thread of the run.

        Raises:
            StopRequestedError: within ``at_once``, once: what cleans up after it is not interrupted again.
        """
        self._reason = self._reason or reason
        if self._at_once:
            self._at_once = False
            raise StopRequestedError(self._reason)

    def lose(self) -> None:
        """Note that the lease is lost, from any thread: the run must write nothing more."""
        self._reason = LEASE_LOST

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While this lasts, a request to stop raises a StopRequestedError; one that came before does so at once."""
        self._at_once = True
        try:
            if self._reason is not None:
                raise StopRequestedError(self._reason)
            yield
        finally:
            self._at_once = False


@contextmanager
def on_request_to_stop(ask: Callable[[], None]) -> Iterator[None]:
    """Call a function at every request to stop, instead of ending the process.

    A signal that this process ignores from its start stays ignored: that is how ``nohup``, and a shell that starts a
    job in the background, say that it does not concern the process. Threads other than the main one receive no
    signals, so nothing changes there.

    Args:
        ask: called without arguments between two instructions of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(*_: Any) -> None:
        ask()

    before: dict[signal.Signals, Any] = {}
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
