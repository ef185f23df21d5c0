"""The command ``shortcutbed``, whose subcommands call the entry points of ``benchmark``."""

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
class Subcommand:
    """A subcommand of ``shortcutbed``.

    Args:
        module: the entry point of ``benchmark`` that it calls.
        help: one line.
        nested: True if the entry point has subcommands itself, and this is one of them.
    """

    module: str
    help: str
    nested: bool = False


SUBCOMMANDS = {
    "launch": Subcommand("sweep", "run a sweep, or the rest of an unfinished one", nested=True),
    "work": Subcommand("sweep", "run the rest of a sweep as one of several workers", nested=True),
    "cancel": Subcommand("sweep", "stop the workers of a sweep", nested=True),
    "status": Subcommand("sweep", "show the progress of a sweep", nested=True),
    "retry": Subcommand(
        "sweep", "make failed runs pending, so that launch repeats them", nested=True
    ),
    "list": Subcommand("sweep", "list algorithms, data sets, backbones and more", nested=True),
    "validate": Subcommand("sweep", "check a sweep file and report every problem", nested=True),
    "new": Subcommand("sweep", "create a commented sweep file", nested=True),
    "remove": Subcommand("sweep", "remove runs from a sweep", nested=True),
    "train": Subcommand("train", "train and evaluate a single run, for development"),
    "data": Subcommand("data", "list, check, prepare and show data sets"),
    "collect": Subcommand("collect_results", "make tables, figures and a page from a sweep"),
    "audit": Subcommand("audit", "find out whether a trained model relies on a shortcut"),
    "predict": Subcommand("predict", "predict the classes of images with a finished run"),
}

#: The program names of the modules that are being called as a subcommand.
_programs: dict[str, str] = {}


def main(arguments: list[str] | None = None) -> int:
    """Run the command ``shortcutbed`` and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    name = _parser().parse_args(given[:1]).subcommand
    subcommand = SUBCOMMANDS[name]
    if subcommand.nested:
        program, rest = COMMAND, given
    else:
        program, rest = f"{COMMAND} {name}", given[1:]
    with _program_name(subcommand.module, program):
        entry = importlib.import_module(f"benchmark.{subcommand.module}")
        return exit_code(lambda: entry.main(rest))


def make_parser(module: str, **options: Any) -> argparse.ArgumentParser:
    """Return a parser with ``--version`` for an entry point of ``benchmark``.

    Args:
        module: the name of the entry point.
        options: arguments of ``argparse.ArgumentParser``.
    """
    program = _programs.get(module, f"python -m benchmark.{module}")
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(program, formatter_class=formatter, **options)
    add_version(parser)
    return parser


def add_command(
    commands: Any, name: str, help: str, description: str = "", **options: Any
) -> argparse.ArgumentParser:
    """Add a subcommand whose own help text begins with what it does.

    Args:
        commands: what ``add_subparsers`` returned.
        name: the name of the subcommand.
        help: its line in the list of subcommands.
        description: complete sentences; by default, the line.
        options: further arguments of ``argparse.ArgumentParser``.
    """
    about = description or f"{help[0].upper()}{help[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=about, **options
    )
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--version``, which prints the version and exits."""
    parser.add_argument("--version", action="version", version=f"ShortcutBed {__version__}")


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<10} {part.help}" for name, part in SUBCOMMANDS.items())
    parser = Parser(
        COMMAND,
        usage=f"{COMMAND} [-h] [--version] COMMAND ...",
        description="Which training methods learn the object, and which learn a shortcut?",
        epilog=f"commands:\n{lines}\n\n{COMMAND} COMMAND --help explains each command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "subcommand", choices=tuple(SUBCOMMANDS), metavar="COMMAND", help=argparse.SUPPRESS
    )
    add_version(parser)
    return parser


@contextmanager
def _program_name(module: str, program: str) -> Iterator[None]:
    """Let the parser of an entry point show the name of a program."""
    _programs[module] = program
    try:
        yield
    finally:
        del _programs[module]
