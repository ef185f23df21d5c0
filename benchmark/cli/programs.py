"""How the command lines are called: each as a module, and all as parts of the command ``shortcutbed``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmark import __version__
from benchmark.cli.parser import Parser
from benchmark.core.errors import exit_code

COMMAND = "shortcutbed"


@dataclass(frozen=True)
class Part:
    """A part of the command ``shortcutbed``.

    Args:
        module: the entry point of ``benchmark`` that it calls.
        help: one line.
        inside: whether that entry point has commands of its own, this being one of them.
    """

    module: str
    help: str
    inside: bool = False


PARTS = {
    "launch": Part("sweep", "run a sweep, or what is missing of it", inside=True),
    "status": Part("sweep", "how far a sweep is", inside=True),
    "retry": Part("sweep", "make failed runs pending again; launch then runs them", inside=True),
    "list": Part(
        "sweep",
        "list algorithms, data sets, backbones, launchers, …",
        inside=True,
    ),
    "validate": Part("sweep", "check a sweep file and report every problem", inside=True),
    "train": Part("train", "one run, for developing"),
    "data": Part("data", "data sets: what is there, is it whole, what does it look like"),
    "collect": Part("collect_results", "a sweep's runs as tables, figures and one HTML page"),
}

_programs: dict[str, str] = {}  # of modules that are called as a part of the command


def main(arguments: list[str] | None = None) -> int:
    """The command ``shortcutbed``; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    name = _parser().parse_args(given[:1]).part
    part = PARTS[name]
    program, rest = (COMMAND, given) if part.inside else (f"{COMMAND} {name}", given[1:])
    with _called(part.module, program):
        entry = importlib.import_module(f"benchmark.{part.module}")
        return exit_code(lambda: entry.main(rest))


def make_parser(module: str, **options: Any) -> argparse.ArgumentParser:
    """The parser of one entry point of ``benchmark``, under the name by which it was called, with ``--version``."""
    program = _programs.get(module, f"python -m benchmark.{module}")
    plain = argparse.RawDescriptionHelpFormatter
    parser = Parser(program, formatter_class=plain, **options)
    add_version(parser)
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """The option ``--version``, which prints the version and ends."""
    parser.add_argument("--version", action="version", version=f"ShortcutBed {__version__}")


def _parser() -> argparse.ArgumentParser:
    parts = "\n".join(f"  {name:<10} {part.help}" for name, part in PARTS.items())
    parser = Parser(
        COMMAND,
        usage=f"{COMMAND} [-h] [--version] COMMAND ...",
        description="Which training methods learn the object, and which learn a shortcut?",
        epilog=f"commands:\n{parts}\n\n{COMMAND} COMMAND --help explains each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=tuple(PARTS), metavar="COMMAND", help=argparse.SUPPRESS)
    add_version(parser)
    return parser


@contextmanager
def _called(module: str, program: str) -> Iterator[None]:
    _programs[module] = program
    try:
        yield
    finally:
        del _programs[module]
