"""The argument parser of the command lines."""

from __future__ import annotations

import argparse
from typing import NoReturn

from benchmark.core.text import escape_controls


class Parser(argparse.ArgumentParser):
    """An ``argparse`` parser whose error messages contain no control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(escape_controls(message))
