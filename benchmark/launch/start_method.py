"""How processes of runs start, and the systems on which they can."""

from __future__ import annotations

import multiprocessing
import platform

from benchmark.core.errors import UserError


def require_fork_server() -> None:
    """Refuse to launch where there is no fork server, from which every run starts.

    Raises:
        UserError: this is Windows, or another system without it.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise UserError(
            f"{platform.system() or 'this system'} has no fork server, from which `sweep launch` starts runs; use "
            "Linux, macOS or WSL, or train single runs with `python -m benchmark.train`."
        )
