"""The check that this system has a fork server."""

from __future__ import annotations

import multiprocessing
import platform

from benchmark.core.errors import UserError


def require_fork_server() -> None:
    """Check that this system has a fork server, from which the local launcher starts runs.

    Raises:
        UserError: it has none, as on Windows.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise UserError(
            f"{platform.system() or 'this system'} has no fork server, which `sweep launch` needs "
            "to start runs; use Linux, macOS or WSL, or train single runs with "
            "`python -m benchmark.train`."
        )
