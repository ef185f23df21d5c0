"""``python -m benchmark.sweep launch`` with a short lease and, where ``kill_hook`` is asked for, its self-kills.

``python tests/benchmarks/kill_launcher.py LEASE_SECONDS ARGUMENTS…``
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import kill_hook  # noqa: E402, F401  # patches this process; the fork server patches its children

from benchmark import sweep  # noqa: E402
from benchmark.launch import local  # noqa: E402


def main() -> int:
    lease = float(sys.argv[1])
    preload = ("benchmark.launch.preload", "kill_hook")
    local.launch = functools.partial(local.launch, lease_seconds=lease, preload=preload)  # type: ignore[assignment]
    return sweep.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
