"""The command ``python -m benchmark.data masks``, which writes masks without annotation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli.options import number
from benchmark.core.dataset import DatasetSource, GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.hparam import parse_values
from benchmark.core.mask_file import read_mask_file, write_mask_file
from benchmark.core.named_options import NamedOptions, parse_named_options
from benchmark.core.registry import BACKBONES
from benchmark.plan.sweepfile import MAX_NUMBER

if TYPE_CHECKING:
    from benchmark.cli.mask_maker import MaskMaker

#: The splits of which masks are used in training.
SPLITS = ("train", "val")
#: The normalisation of the images on which published transformers were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class WrittenMasks:
    """What the command wrote.

    Args:
        sentence: It, for people.
        data: The data of the first trial with the new masks, for the contact sheet.
        splits: The splits that the contact sheet shows.
        sheet: The file of the contact sheet.
    """

    sentence: str
    data: GroupedDataset
    splits: Sequence[str]
    sheet: Path


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add(
        "--run",
        dest="run_folder",
        type=Path,
        metavar="DIR",
        help="use the selected network of this finished run of a vision transformer",
    )
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="use this state dict, in the layout of DINO, instead of a run",
    )
    add(
        "--backbone",
        metavar="NAME[:OPTION=VALUE,…]",
        help="load --weights into this backbone, such as vit_s_16, vit_b_16 or "
        "vit:patch=8,dim=384,depth=12,heads=6,mlp_ratio=4",
    )
    add(
        "--side",
        type=number(int, 8, 4096),
        metavar="N",
        help="with --weights: enlarge images to N × N pixels; default: do not enlarge them",
    )
    add(
        "--trials",
        type=number(int, 0, MAX_NUMBER),
        nargs="+",
        default=[0],
        metavar="N",
        help="make masks for the training and validation images of these trials; default: 0",
    )
    add(
        "--threshold",
        type=number(float, -1.0, 1.0),
        default=0.2,
        metavar="T",
        help="connect patches whose cosine similarity exceeds T; default: 0.2",
    )
    add("--device", default="cpu", choices=("cpu", "cuda"), help="device to use; default: cpu")
    add(
        "--output",
        type=Path,
        metavar="FILE.npz",
        help="write the masks to this file in the data folder, and a contact sheet beside it; "
        "default: masks/tokencut.npz",
    )


def make_mask_file(
    given: argparse.Namespace,
    named: NamedOptions,
    source: DatasetSource,
    folder: Path,
    progress: Callable[[int, int], None],
) -> WrittenMasks:
    """Make the masks of a data set and write them.

    Args:
        given: The command line.
        named: The name and options of the data set.
        source: The data set.
        folder: The data folder.
        progress: Called with the number of images done and their total number.

    Raises:
        UserError: If an option is missing or wrong, or the network does not fit the images.
    """
    relative = given.output or Path("masks/tokencut.npz")
    if relative.suffix != ".npz":
        raise UserError(
            f"--output {relative} is not a file of masks; expected a name that ends in .npz."
        )
    path = folder / relative
    first = source.load(given.trials[0])
    maker, network = _maker(given, first)
    for trial in given.trials:
        data = first if trial == given.trials[0] else source.load(trial)
        for split in SPLITS:
            maker.add(data.splits[split].image, progress)
    about = f"TokenCut of {network} for {named}, threshold {given.threshold:g}"
    _, height, width = first.info.image_size
    try:
        write_mask_file(path, maker.to_file((height, width), about))
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); choose another --output."
        ) from None
    sheet = path.with_suffix(".png")
    options = "".join(f";{name}={value}" for name, value in named.options.items())[1:]
    dataset = f"masked:on={named.name}" + (f",options={options}" if options else "")
    sentence = (
        f"{len(maker.bits):,} masks written to {path}, contact sheet {sheet}; "
        f"{maker.num_empty:,} of them are empty because all patches are alike (a higher "
        "--threshold separates more). Train with the data set "
        f"{dataset},masks={relative.as_posix()}"
    )
    return WrittenMasks(sentence, _with_masks(first, path), SPLITS, sheet)


def _with_masks(data: GroupedDataset, path: Path) -> GroupedDataset:
    """Return the data with the masks that were written, as they are read."""
    masks = read_mask_file(path)
    splits = {
        name: replace(data.splits[name], mask=masks.masks(data.splits[name].image)[0])
        for name in SPLITS
    }
    return replace(data, splits={**data.splits, **splits})


def _maker(given: argparse.Namespace, data: GroupedDataset) -> tuple[MaskMaker, str]:
    """Return the maker of masks, and a name of its network."""
    if (given.run_folder is None) == (given.weights is None):
        raise UserError(
            "masks needs one network: pass --run DIR, or --weights FILE with --backbone NAME."
        )
    import torch

    from benchmark.cli.mask_maker import MaskMaker
    from benchmark.models.vit import VisionTransformer

    device = torch.device(given.device)
    if given.run_folder is not None:
        for option in ("backbone", "side"):
            if getattr(given, option) is not None:
                raise UserError(f"--{option} belongs to --weights; leave it out with --run.")
        from benchmark.api.run import load_run

        run = load_run(given.run_folder, device=given.device, data_dir=given.data_dir)
        network = run.network
        if not isinstance(network, VisionTransformer):
            raise UserError(
                f"the run {given.run_folder} has the backbone {run.record.spec.backbone}, but "
                "TokenCut needs a vision transformer; use a run with vit, vit_s_16 or vit_b_16."
            )
        mean, std = run.accepts.mean, run.accepts.std
        name = f"the run {run.record.key} ({run.record.spec.method})"
        _check_side(network.image_size, data)
        return MaskMaker(network, mean, std, given.threshold, device), name
    if given.backbone is None:
        raise UserError("--weights needs the backbone of the weights; pass --backbone NAME.")
    from benchmark.models.dino import vit_with_weights

    chosen = parse_named_options(given.backbone)
    options = parse_values(BACKBONES.get(chosen.name).all_options(), chosen.options, chosen.name)
    side = given.side or data.info.image_size[1]
    network = vit_with_weights(chosen.name, options, _load(given.weights), side).to(device)
    name = f"{given.weights.name} ({given.backbone})"
    return MaskMaker(network, *IMAGENET, given.threshold, device), name


def _check_side(accepted: tuple[int, int, int], data: GroupedDataset) -> None:
    if accepted != data.info.image_size:
        raise UserError(
            f"the network of the run takes images {list(accepted)}, but those of {data.name} are "
            f"{list(data.info.image_size)}; use a run that was trained on images of that shape."
        )


def _load(path: Path) -> object:
    """Read a state dict without running code that the file may contain.

    Raises:
        UserError: If the file is missing or no file of weights.
    """
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; pass the file of the weights.") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise UserError(
            f"{path} cannot be read as weights ({reason}); expected a state dict that torch.save "
            "wrote."
        ) from None
