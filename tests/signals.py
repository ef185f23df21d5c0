"""The signals that a process of a test starts with, whatever pytest itself was started with."""

from __future__ import annotations

import signal
from collections.abc import Callable

from benchmark.launch.stop_signals import STOP_SIGNALS


def only_ignoring(*ignored: signal.Signals) -> Callable[[], None]:
    """For ``preexec_fn``: ignore these requests to stop and no other, and block none.

    A process inherits what its parent ignores and blocks; under ``nohup``, in a background job or in a service pytest
    ignores or blocks signals that a test then sends in vain.
    """

    def prepare() -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare
