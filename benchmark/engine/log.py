"""The log of a run: one line of JSON per evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmark.core.log_line import LogLine


class Log:
    """Appends lines to the log of one attempt, and keeps the text for checkpoints.

    Args:
        path: ``attempts/<n>/log.jsonl``, which must not exist yet.
        text: the lines of an earlier attempt, up to the checkpoint from which this one resumes.
        on_line: called with every new line.
    """

    def __init__(
        self, path: Path, text: str = "", on_line: Callable[[LogLine], None] | None = None
    ) -> None:
        self.text = text
        self.on_line = on_line
        # The file stays open, so that an attempt that lost its run never writes to a later one's.
        self._file = path.open("x", encoding="utf-8")
        self._file.write(text)
        self._file.flush()

    def line(self, line: LogLine) -> None:
        """Write one line and flush it.

        Raises:
            ValueError: a number is not finite; nothing is written.
        """
        text = json.dumps(line.to_json(), allow_nan=False) + "\n"
        self._file.write(text)
        self._file.flush()
        self.text += text
        if self.on_line is not None:
            self.on_line(line)

    def close(self) -> None:
        """Write everything to disk and close the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
