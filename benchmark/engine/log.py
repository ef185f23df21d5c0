"""The log of a run: one line of JSON per evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmark.core.log_line import LogLine


class Log:
    """Appends lines to the log of one attempt; the text is kept, since checkpoints carry it.

    Args:
        path: ``attempts/<n>/log.jsonl``; the file must not exist yet.
        text: lines of an earlier attempt up to the checkpoint from which this one goes on.
        on_line: told of every new line.
    """

    def __init__(
        self, path: Path, text: str = "", on_line: Callable[[LogLine], None] | None = None
    ) -> None:
        self.path, self.text, self.on_line = path, text, on_line
        # held open: an attempt that lost its run writes to its own file for ever, never to a later attempt's
        self._file = path.open("x", encoding="utf-8")
        self._file.write(text)
        self._file.flush()

    def line(self, line: LogLine) -> None:
        """Write one line and hand it to the operating system at once.

        Raises:
            ValueError: a number in it is not finite; nothing is written.
        """
        text = json.dumps(line.to_json(), allow_nan=False) + "\n"
        self._file.write(text)
        self._file.flush()
        self.text += text
        if self.on_line is not None:
            self.on_line(line)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
