"""Signal handling of the processes that tests start, independent of how pytest was started."""

from __future__ import annotations

import signal
from collections.abc import Callable

from benchmark.launch.stop_signals import STOP_SIGNALS


def only_ignoring(*ignored: signal.Signals) -> Callable[[], None]:
    """Return a ``preexec_fn`` that ignores only these stop signals and blocks none.

    A process inherits the signals that its parent ignores and blocks. Under ``nohup``, in a
    background job or in a service, pytest ignores or blocks signals that a test needs to send.
    """

    def prepare() -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare
