"""``python -m benchmark.sweep launch`` with a short lease and the kills of ``kill_hook``.

``python tests/benchmarks/kill_launcher.py LEASE_SECONDS ARGUMENTS…``
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark import sweep
from benchmark.cli import launching
from benchmark.launch.executors.local import LocalExecutor
from benchmark.launch.launcher import launch

# Patches this process; the fork server, which imports it too, patches the runs.
from tests.benchmarks import kill_hook  # noqa: F401


def main() -> int:
    preload = ("benchmark.launch.preload", "tests.benchmarks.kill_hook")
    launching.make_executor = lambda placement, launcher: LocalExecutor(placement, preload)
    launching.launch = functools.partial(launch, lease_seconds=float(sys.argv[1]))
    return sweep.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
