"""List, check, prepare, show and mask data sets: ``python -m benchmark.data COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.cli.data_checks import examine, leaks, members, oddities
from benchmark.cli.masks_command import add_mask_options, make_mask_file
from benchmark.cli.options import add_data_dir, data_dir, number
from benchmark.cli.programs import add_command, add_version, make_parser
from benchmark.cli.resources import download
from benchmark.core.cache_folder import CACHE_VARIABLE
from benchmark.core.dataset import DatasetSource, GroupedDataset, Split
from benchmark.core.errors import UserError, exit_code
from benchmark.core.files import check_folder, to_json, write_atomic
from benchmark.core.hparam import parse_values
from benchmark.core.named_options import NamedOptions, parse_named_options
from benchmark.core.registry import DATASETS, did_you_mean
from benchmark.core.terminal import say
from benchmark.plan.sweepfile import MAX_NUMBER

__all__ = ["leaks", "main", "make_source", "members", "oddities", "sheet"]

#: The largest number of groups that ``check`` lists for a split.
MAX_LISTED_GROUPS = 12
#: The file endings of a contact sheet.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_DESCRIPTION = "List, check, prepare and show data sets."

_EPILOG = """examples:
  python -m benchmark.data list --data-dir ~/data
  python -m benchmark.data prepare waterbirds --archive waterbird_complete95_forest2water2.tar.gz
  python -m benchmark.data check nlm_cxr:side=64
  python -m benchmark.data show digits_on_photos:bias=0.9 --output sheet.png
  python -m benchmark.data masks spawrious:side=224 --weights dino_deitsmall16_pretrain.pth \\
      --backbone vit_s_16 --trials 0 1 2

Decoded images are cached in .cache in the data folder, or in --cache-dir. Set SHORTCUTBED_CACHE for
sweeps to find them in another folder.

exit codes: 0 success; 1 `check` found a problem; 2 the command is wrong.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: list[str] | None) -> int:
    given = _parser().parse_args(arguments)
    if given.cache_dir is not None:
        os.environ[CACHE_VARIABLE] = str(given.cache_dir.absolute())
    command: Callable[[argparse.Namespace], int] = given.run
    return command(given)


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("data", description=_DESCRIPTION, epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    lists = add_command(commands, "list", "list data sets, and which of their files are missing")
    lists.set_defaults(run=_list)
    check = add_command(
        commands,
        "check",
        "count images and groups; find damage, duplicates and leaks between splits",
    )
    check.set_defaults(run=_check)
    prepare = add_command(commands, "prepare", "unpack archives, and decode the images once")
    prepare.set_defaults(run=_prepare)
    prepare.add_argument(
        "--download",
        action="store_true",
        help="download missing data sets whose licence allows it",
    )
    prepare.add_argument(
        "--archive",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="unpack this .zip or .tar file first; repeatable",
    )
    show = add_command(commands, "show", "draw a contact sheet with groups and masks")
    show.set_defaults(run=_show)
    masks = add_command(
        commands,
        "masks",
        "make foreground masks without annotation, by TokenCut on a vision transformer",
    )
    masks.set_defaults(run=_masks)
    about = "data set, with its options; see `data list`"
    masks.add_argument("datasets", nargs=1, metavar="NAME[:OPTION=VALUE,…]", help=about)
    add_mask_options(masks)
    for command in (check, prepare, show):
        command.add_argument("datasets", nargs="+", metavar="NAME[:OPTION=VALUE,…]", help=about)
    for command in (check, show):
        command.add_argument(
            "--trial",
            type=number(int, 0, MAX_NUMBER),
            default=0,
            metavar="N",
            help="use the splits of trial N; default: 0",
        )
    _add_scan(check)
    show.add_argument(
        "--output",
        type=Path,
        metavar="FILE.png",
        help="write the sheet to this file; default: NAME.png in the temporary folder",
    )
    show.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="show these splits; default: all"
    )
    show.add_argument(
        "--per-group",
        type=number(int, 1, 1000),
        default=8,
        metavar="N",
        help="show N images of each group; default: 8",
    )
    show.add_argument(
        "--groups",
        type=number(int, 1, 1000),
        default=8,
        metavar="N",
        help="show the N largest groups of each split; default: 8",
    )
    for command in (lists, check, prepare, show, masks):
        add_data_dir(command)
        command.add_argument(
            "--cache-dir",
            type=Path,
            metavar="DIR",
            help=f"cache decoded images in this folder; default: ${CACHE_VARIABLE}, or .cache in "
            "the data folder if it is unset",
        )
        add_version(command)
    return parser


def _add_scan(check: argparse.ArgumentParser) -> None:
    """Add the options of the scan for properties that predict the label."""
    check.add_argument(
        "--scan",
        action="store_true",
        help="also find simple properties, such as borders or file sizes, that predict the label",
    )
    check.add_argument(
        "--given-confounder",
        action="store_true",
        help="with --scan: look for shortcuts other than the known confounder",
    )
    check.add_argument(
        "--scan-out",
        type=Path,
        metavar="DIR",
        help="with --scan: write a report (HTML and JSON) to this folder",
    )


def _named(given: argparse.Namespace) -> list[NamedOptions]:
    """Return the data sets that the command line names."""
    return [parse_named_options(text) for text in given.datasets]


def _sources(given: argparse.Namespace) -> list[tuple[NamedOptions, DatasetSource]]:
    return [(named, make_source(named, data_dir(given))) for named in _named(given)]


def make_source(named: NamedOptions, folder: Path | None) -> DatasetSource:
    """Create a data set with options.

    Args:
        named: the name and the options.
        folder: the folder of downloaded data, or None.

    Raises:
        UserError: the data set or an option is unknown, or a value is invalid.
    """
    kind = DATASETS.get(named.name)
    options = parse_values(kind.options, named.options, named.name)
    source: DatasetSource = kind(folder, **options)
    return source


def _list(given: argparse.Namespace) -> int:
    from tabulate import tabulate

    rows = []
    for name in DATASETS.names():
        kind = DATASETS.get(name)
        title = kind.description or kind.title
        try:
            DATASETS.get(name)(data_dir(given)).check()
            state = "ready"
        except UserError as error:
            state = f"not ready: {error}"
        except Exception as error:
            DATASETS.withdraw(name, error)
            state = f"broken: {type(error).__name__}: {error}"
        rows.append([name, title, state])
    say(tabulate(rows, ["dataset", "description", "state"], maxcolwidths=[None, 44, 64]))
    return 0


def _prepare(given: argparse.Namespace) -> int:
    if given.download:
        download(_named(given), data_dir(given))
    for named, source in _sources(given):
        for archive in given.archive:
            with _progress_bar(f"unpacking {archive.name}") as update:
                files = source.unpack(archive, update)
            say(f"{archive}: {files:,} files unpacked in {data_dir(given)}")
        with _progress_bar("decoding") as update:
            prepared = source.prepare(_decoding(update))
        say(f"{named}: prepared" if prepared else f"{named}: nothing to prepare")
    return 0


def _decoding(update: Callable[..., None]) -> Callable[[str, int, int], None]:
    def report(pool: str, done: int, total: int) -> None:
        update(done, total, f"decoding {pool}")

    return report


@contextmanager
def _progress_bar(text: str) -> Iterator[Callable[..., None]]:
    """Show a progress bar on standard error.

    Yields:
        A function that updates the bar: ``update(done, total, text)``.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    # Where nothing can be redrawn, rich prints an empty line or only the last bar.
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda done, total, text=text: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total, text=text: bar.update(
            task, completed=done, total=total, description=text
        )


def _check(given: argparse.Namespace) -> int:
    if (given.given_confounder or given.scan_out) and not given.scan:
        raise UserError("--given-confounder and --scan-out need --scan; add it.")
    if given.scan_out:
        check_folder(given.scan_out, "--scan-out")
    problems = 0
    for named, source in _sources(given):
        data = source.load(given.trial)
        if given.scan and given.given_confounder and data.splits["train"].confounder is None:
            raise UserError(
                f"--given-confounder needs a known confounder, which {named.name} does not have; "
                "leave it out."
            )
        say(f"{named}: {data.fingerprint}")
        for name, split in data.splits.items():
            say(f"  {name:<10} {len(split):>7,} images  {_group_sizes(data, name)}")
        findings = examine(source, data)
        for note in findings.notes:
            say(f"  note: {note}")
        for problem in findings.problems:
            say(f"  problem: {problem}")
        if not findings.problems:
            say("  no problem found")
        problems += len(findings.problems)
        if given.scan:
            _scan(given, named, source, data)
    return 1 if problems else 0


def _scan(
    given: argparse.Namespace, named: NamedOptions, source: DatasetSource, data: GroupedDataset
) -> None:
    """Print which plain properties predict the label, and write the report if asked for."""
    from benchmark.report.render import render_sheets
    from benchmark.scanning.page import page, scan_sheet, sentence
    from benchmark.scanning.scan import scan
    from benchmark.scanning.scan import to_json as scan_json

    found = scan(source, data, given_confounder=given.given_confounder)
    say(render_sheets([scan_sheet(found)], "text"))
    say(sentence(found))
    if given.scan_out is None:
        return
    given.scan_out.mkdir(parents=True, exist_ok=True)
    write_atomic(given.scan_out / f"{named.name}_scan.html", page(found).encode("utf-8", "replace"))
    write_atomic(given.scan_out / f"{named.name}_scan.json", to_json(scan_json(found)))
    say(f"written to {given.scan_out}/: {named.name}_scan.html, {named.name}_scan.json")


def _group_sizes(data: GroupedDataset, name: str) -> str:
    """Return the groups (or else the classes) of a split with their sizes, as text."""
    sizes = [f"{group} {len(rows):,}" for group, rows in members(data, name).items() if len(rows)]
    text = ", ".join(sizes[:MAX_LISTED_GROUPS])
    if len(sizes) > MAX_LISTED_GROUPS:
        text += f", and {len(sizes) - MAX_LISTED_GROUPS} more groups"
    return text


def _show(given: argparse.Namespace) -> int:
    sources = _sources(given)
    if given.output is not None and len(sources) > 1:
        raise UserError("--output takes one file, but there are several data sets; leave it out.")
    if given.output is not None and given.output.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(
            f"--output {given.output} is not an image file; expected a name that ends in "
            f"{IMAGE_SUFFIXES[0]}."
        )
    for named, source in sources:
        data = source.load(given.trial)
        unknown = [name for name in given.splits or () if name not in data.splits]
        if unknown:
            raise UserError(
                f"{named.name} has no split {unknown[0]!r}{did_you_mean(unknown[0], data.splits)}"
            )
        path = given.output or Path(tempfile.gettempdir()) / f"{named.name}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet(data, given.splits or list(data.splits), given.per_group, given.groups).save(path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror or error}); choose another --output."
            ) from None
        say(f"{named}: {path}")
    return 0


def _masks(given: argparse.Namespace) -> int:
    ((named, source),) = _sources(given)
    folder = data_dir(given)
    with _progress_bar("cutting") as update:
        written = make_mask_file(
            given, named, source, folder, lambda done, total: update(done, total)
        )
    try:
        sheet(written.data, written.splits, per_group=8, groups=8).save(written.sheet)
    except OSError as error:
        raise UserError(
            f"{written.sheet} cannot be written ({error.strerror or error}); choose another "
            "--output."
        ) from None
    say(f"{named}: {written.sentence}")
    return 0


def sheet(data: GroupedDataset, splits: Sequence[str], per_group: int, groups: int) -> Any:
    """Draw a contact sheet.

    Each row is a group, with its name and size on the left. The borders of masks are green.

    Args:
        data: the data set.
        splits: the names of the splits to show.
        per_group: the number of images of each group.
        groups: the number of groups of each split, the largest first.

    Returns:
        A Pillow image.
    """
    from PIL import Image, ImageDraw

    rows = [row for name in splits for row in _sheet_rows(data, name, per_group, groups)]
    size = max(64, min(160, data.info.image_size[1]))
    pitch = size + 4
    left = 250
    canvas = Image.new("RGB", (left + per_group * pitch, len(rows) * pitch), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (text, images) in enumerate(rows):
        draw.text((6, i * pitch + 6), text, fill="black")
        for j, image in enumerate(images):
            resized = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
            canvas.paste(resized, (left + j * pitch, i * pitch))
    return canvas


def _sheet_rows(
    data: GroupedDataset, name: str, per_group: int, groups: int
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield the text and the images, uint8[H,W,3], of each row of a split."""
    split = data.splits[name]
    rows_of = {group: rows for group, rows in members(data, name).items() if len(rows)}
    by_size = sorted(rows_of, key=lambda group: -len(rows_of[group]))
    largest = set(by_size[:groups])
    for group, rows in rows_of.items():
        if group not in largest:
            continue
        spread = rows[:: max(1, len(rows) // per_group)][:per_group]  # over the whole split
        text = f"{name}\n{group}\n{len(rows):,} image{'s' if len(rows) > 1 else ''}"
        yield text, [_with_mask_border(split, int(row)) for row in spread]
    if len(rows_of) > len(largest):
        hidden = len(rows_of) - len(largest)
        say(f"  {name}: {hidden} smaller groups are not shown; --groups shows more.")


def _with_mask_border(split: Split, row: int) -> np.ndarray:
    """Return an image, uint8[H,W,3], with the border of its mask in green."""
    image = np.asarray(split.image[row])
    channels = {1: [0, 0, 0], 2: [0, 1, 1]}.get(image.shape[0], [0, 1, 2])
    rgb = np.ascontiguousarray(image[channels].transpose(1, 2, 0))
    if split.mask is not None:
        mask = np.pad(np.asarray(split.mask[row, 0]), 1, mode="edge")
        inside = mask[1:-1, 1:-1]
        neighbours = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        rgb[inside & ~neighbours] = (0, 230, 0)
    return rgb


if __name__ == "__main__":
    sys.exit(main())
