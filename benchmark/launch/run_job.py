"""Run one job in this process: ``python -m benchmark.launch.run_job``.

Launchers that start processes by other means than the fork server (ssh, a batch system, a
container) start this program where the run is to run. It reads the job as JSON from standard input
and prints the result as the last line of standard output; ``read_result`` reads that line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from benchmark.core.errors import UserError
from benchmark.launch.job import Job, JobResult, ProcessDied
from benchmark.launch.worker import prepare_process, start_time, work


def main() -> int:
    """Run the job on standard input and print its result."""
    parent = os.getppid()
    job = Job.from_json(json.loads(sys.stdin.read()))
    prepare_process(job.slot, parent, start_time(parent))
    reply: dict[str, Any]
    try:
        reply = {"result": work(job).to_json()}
    except UserError as error:
        reply = {"user_error": str(error)}
    except OSError as error:
        reply = {"os_error": [error.errno, error.strerror, error.filename]}
    print(json.dumps(reply, default=str), flush=True)
    return 0


def read_result(exit_code: int | None, output: str) -> JobResult:
    """Return the result of a job from what its process printed.

    Args:
        exit_code: the exit code of the process, negative for a signal.
        output: its standard output.

    Raises:
        ProcessDied: the process ended without a result.
        OSError: the disk is full or the folder cannot be written.
        UserError: the job cannot be run.
    """
    try:
        reply = json.loads(output.splitlines()[-1])
        if "user_error" in reply:
            raise UserError(reply["user_error"])
        if "os_error" in reply:
            raise OSError(*reply["os_error"])
        return JobResult.from_json(reply["result"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise ProcessDied(exit_code) from None


if __name__ == "__main__":
    sys.exit(main())
