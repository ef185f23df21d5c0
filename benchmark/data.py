"""Data sets: what is there, is it whole, decode it once, look at it: `python -m benchmark.data COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.cli.data_checks import examine, leaks, members, oddities
from benchmark.cli.options import DATA_VARIABLE, data_dir, download, number
from benchmark.cli.programs import add_version, make_parser
from benchmark.core.dataset import DatasetSource, GroupedDataset, Split
from benchmark.core.errors import UserError, exit_code
from benchmark.core.hparam import parse_values
from benchmark.core.named_options import NamedOptions, parse_named_options
from benchmark.core.registry import DATASETS, did_you_mean
from benchmark.core.terminal import say
from benchmark.plan.sweepfile import MAX_NUMBER

#: Where decoded images are kept when --cache-dir is not given; the data sets read it.
CACHE_VARIABLE = "SHORTCUTBED_CACHE"

__all__ = ["leaks", "main", "make_source", "members", "oddities", "sheet"]

#: Endings of a contact sheet.
PICTURES = (".png", ".jpg", ".jpeg", ".webp")

_EPILOG = """examples:
  python -m benchmark.data list --data-dir ~/data
  python -m benchmark.data prepare waterbirds --archive waterbird_complete95_forest2water2.tar.gz
  python -m benchmark.data check nlm_cxr:side=64
  python -m benchmark.data show planted:on=folder,options=path=my_data,shortcut=tag,bias=0.9 --output sheet.png

`check` ends with 1 if it found a problem. Decoded images are kept in .cache in the data folder, or in --cache-dir;
sweeps find them there if SHORTCUTBED_CACHE says so.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: list[str] | None) -> int:
    given = _parser().parse_args(arguments)
    if given.cache_dir is not None:
        os.environ[CACHE_VARIABLE] = str(given.cache_dir.absolute())
    command: Callable[[argparse.Namespace], int] = {
        "list": _list, "check": _check, "prepare": _prepare, "show": _show,
    }[given.command]  # fmt: skip
    return command(given)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("data", description=__doc__, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    lists = commands.add_parser("list", help="every data set, and whether its files are there")
    check = commands.add_parser(
        "check",
        help="counts, groups, what was left out, repeated pictures, leakage between splits, damage",
    )
    prepare = commands.add_parser(
        "prepare", help="decode the images once; unpack archives first, if given"
    )
    prepare.add_argument(
        "--download",
        action="store_true",
        help="fetch what may be fetched and is missing; never done unasked",
    )
    prepare.add_argument(
        "--archive", type=Path, action="append", default=[], metavar="FILE", help=".zip or .tar"
    )
    show = commands.add_parser("show", help="write a contact sheet with groups and masks")
    for command in (check, prepare, show):
        command.add_argument("datasets", nargs="+", metavar="NAME[:OPTION=VALUE,…]")
    for command in (check, show):
        command.add_argument(
            "--trial", type=number(int, 0, MAX_NUMBER), default=0, help="default: 0"
        )
    show.add_argument("--output", type=Path, metavar="FILE.png", help="default: NAME.png")
    show.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: all")
    show.add_argument(
        "--per-group",
        type=number(int, 1, 1000),
        default=8,
        metavar="N",
        help="images of each group; default: 8",
    )
    show.add_argument(
        "--groups",
        type=number(int, 1, 1000),
        default=8,
        metavar="N",
        help="largest groups of each split; default: 8",
    )
    for command in (lists, check, prepare, show):
        command.add_argument(
            "--data-dir",
            type=Path,
            metavar="DIR",
            help=f"downloaded data sets; default: ${DATA_VARIABLE}, else data",
        )
        command.add_argument(
            "--cache-dir",
            type=Path,
            metavar="DIR",
            help=f"decoded images; default: ${CACHE_VARIABLE}, else DIR/.cache",
        )
        add_version(command)
    return parser


def _named(given: argparse.Namespace) -> list[NamedOptions]:
    """The data sets of a command line."""
    return [parse_named_options(text) for text in given.datasets]


def _sources(given: argparse.Namespace) -> list[tuple[NamedOptions, DatasetSource]]:
    return [(named, make_source(named, data_dir(given))) for named in _named(given)]


def make_source(named: NamedOptions, folder: Path | None) -> DatasetSource:
    """A data set with the options that were asked for.

    Raises:
        UserError: no such data set or option, or a value that it does not take.
    """
    kind = DATASETS.get(named.name)
    options = parse_values(kind.options, named.options, named.name)
    source: DatasetSource = kind(folder, **options)
    return source


def _list(given: argparse.Namespace) -> int:
    from tabulate import tabulate

    rows = []
    for name in DATASETS.names():
        title = DATASETS.get(name).title
        try:
            DATASETS.get(name)(data_dir(given)).check()
            state = "ready"
        except UserError as error:
            state = f"not ready: {error}"
        except Exception as error:
            DATASETS.withdraw(name, error)
            state = f"broken: {type(error).__name__}: {error}"
        rows.append([name, title, state])
    say(tabulate(rows, ["dataset", "what", "state"], maxcolwidths=[None, 44, 64]))
    return 0


def _prepare(given: argparse.Namespace) -> int:
    if given.download:
        download(_named(given), data_dir(given))
    for named, source in _sources(given):
        for archive in given.archive:
            with _bar(f"unpacking {archive.name}") as report:
                files = source.unpack(archive, report)
            say(f"{archive}: {files:,} files unpacked in {data_dir(given)}")
        with _bar("decoding") as report:
            prepared = source.prepare(
                lambda pool, done, total, report=report: report(done, total, f"decoding {pool}")  # type: ignore[misc]
            )
        say(f"{named}: prepared" if prepared else f"{named}: nothing to prepare")
    return 0


@contextmanager
def _bar(text: str) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error, and the function that moves it: done, total, text."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # where nothing can be redrawn rich prints an empty line instead of a bar, or the last bar only
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda done, total, what=text: None
        return
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total, what=text: bar.update(
            task, completed=done, total=total, description=what
        )


def _check(given: argparse.Namespace) -> int:
    found = 0
    for named, source in _sources(given):
        data = source.load(given.trial)
        say(f"{named}: {data.fingerprint}")
        for name, split in data.splits.items():
            say(f"  {name:<10} {len(split):>7,} images  {_groups(data, name)}")
        findings = examine(source, data)
        for note in findings.notes:
            say(f"  note: {note}")
        for problem in findings.problems:
            say(f"  problem: {problem}")
        found += len(findings.problems)
        if not findings.problems:
            say("  no problem found")
    return 1 if found else 0


def _groups(data: GroupedDataset, name: str) -> str:
    """The groups of a split and their sizes; the classes where confounders are unknown or labels are several."""
    shown = [f"{group} {len(rows):,}" for group, rows in members(data, name).items() if len(rows)]
    return ", ".join(shown[:12]) + (
        f", and {len(shown) - 12} more groups" if len(shown) > 12 else ""
    )


def _show(given: argparse.Namespace) -> int:
    sources = _sources(given)
    if given.output is not None and len(sources) > 1:
        raise UserError(
            "--output takes one file, but several data sets were named; leave it out, or show one."
        )
    if given.output is not None and given.output.suffix.lower() not in PICTURES:
        raise UserError(
            f"--output {given.output} is no name of a picture; expected one that ends in {PICTURES[0]}."
        )
    for named, source in sources:
        data = source.load(given.trial)
        unknown = [name for name in given.splits or () if name not in data.splits]
        if unknown:
            raise UserError(
                f"{named.name} has no split {unknown[0]!r}{did_you_mean(unknown[0], data.splits)}"
            )
        path = given.output or Path(f"{named.name}.png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet(data, given.splits or list(data.splits), given.per_group, given.groups).save(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror or error}); choose another --output."
            ) from None
        say(f"{named}: {path}")
    return 0


def sheet(data: GroupedDataset, splits: Sequence[str], per_group: int, groups: int) -> Any:
    """A contact sheet: a row per group, its name and size on the left, the borders of masks drawn in green.

    Args:
        per_group: images of each group; groups: the largest ones of each split.

    Returns:
        A Pillow image.
    """
    from PIL import Image, ImageDraw

    rows = [row for name in splits for row in _rows(data, name, per_group, groups)]
    cell, left = max(64, min(160, data.info.image_size[1])), 250
    picture = Image.new("RGB", (left + per_group * (cell + 4), len(rows) * (cell + 4)), "white")
    pen = ImageDraw.Draw(picture)
    for down, (text, images) in enumerate(rows):
        pen.text((6, down * (cell + 4) + 6), text, fill="black")
        for across, image in enumerate(images):
            shown = Image.fromarray(image).resize((cell, cell), Image.Resampling.BICUBIC)
            picture.paste(shown, (left + across * (cell + 4), down * (cell + 4)))
    return picture


def _rows(
    data: GroupedDataset, name: str, per_group: int, groups: int
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Text and images uint8[H,W,3] of each row of a split."""
    split, found = data.splits[name], members(data, name)
    names, counts = list(found), np.array([len(rows) for rows in found.values()])
    chosen = [int(g) for g in np.argsort(-counts, kind="stable")[:groups] if counts[g]]
    for g in sorted(chosen):
        rows = found[names[g]]
        rows = rows[:: max(1, len(rows) // per_group)][:per_group]  # spread over the split
        text = f"{name}\n{names[g]}\n{counts[g]:,} image{'s' * int(counts[g] > 1)}"
        yield text, [_outlined(split, int(row)) for row in rows]
    if (counts > 0).sum() > len(chosen):
        say(
            f"  {name}: {(counts > 0).sum() - len(chosen)} smaller groups are not shown; --groups shows more."
        )


def _outlined(split: Split, row: int) -> np.ndarray:
    """An image uint8[H,W,3] with the border of its mask in green."""
    image = np.asarray(split.image[row])
    channels = {1: [0, 0, 0], 2: [0, 1, 1]}.get(image.shape[0], [0, 1, 2])
    shown = np.ascontiguousarray(image[channels].transpose(1, 2, 0))
    if split.mask is not None:
        inside = np.pad(np.asarray(split.mask[row, 0]), 1, mode="edge")
        core = (
            inside[1:-1, 1:-1]
            & inside[:-2, 1:-1]
            & inside[2:, 1:-1]
            & inside[1:-1, :-2]
            & inside[1:-1, 2:]
        )
        shown[inside[1:-1, 1:-1] & ~core] = (0, 230, 0)
    return shown


if __name__ == "__main__":
    sys.exit(main())
