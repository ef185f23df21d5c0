"""Requests to stop, which come as signals: Ctrl-C, a scheduler's SIGTERM, a closed terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: The signals that ask a process to stop; Windows has no SIGHUP, and it alone has SIGBREAK.
STOP_SIGNALS = frozenset(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)


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
