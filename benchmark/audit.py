"""Find out whether a trained model relies on a shortcut: ``python -m benchmark.audit``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.cli.options import add_data_dir, data_dir, number
from benchmark.cli.programs import make_parser
from benchmark.core.conditions import prepare_openmp
from benchmark.core.dataset import GroupedDataset
from benchmark.core.errors import exit_code
from benchmark.core.files import check_folder, to_json, write_atomic
from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import DATASETS
from benchmark.core.terminal import say
from benchmark.plan.sweepfile import MAX_NUMBER

#: The exit code of ``--fail-if``.
FAILED = 1
#: The largest number of images of an experiment.
MAX_IMAGES = 100_000

_DESCRIPTION = """\
Find out whether a trained model relies on a shortcut. Marks are planted in test images, and regions
are exchanged between them; the verdict depends on how often the predictions follow.
"""

_EPILOG = """\
MODEL is the folder of a run or of a sweep (with --method), a .pt2, .onnx or .safetensors file
written by Run.export, timm:NAME with --weights, or module:function. The function takes no arguments
and returns a torch.nn.Module that maps normalised images float[N,C,H,W] to logits, or a function
from images uint8[N,C,H,W] to scores float[N,K].

The data set is any of `python -m benchmark.data list`, such as folder:path=my_data,side=224. Its
images must have the size, and its labels the names, that the model expects.

examples:
  python -m benchmark.audit results/quickstart digits_on_photos:places=2,bias=0.95 --method erm
  python -m benchmark.audit model.onnx folder:path=my_data,side=224 --out audit
  python -m benchmark.audit my_package.model:load listed:path=my_table,side=224 --fail-if relies

exit codes: 0 the audit was made; 1 its verdict is that of --fail-if; 2 the model, the data or the
command is wrong.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return exit_code(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> int:
    given = _parser().parse_args(arguments)
    check_folder(given.out, "--out")
    named = parse_named_options(given.data)
    folder = data_dir(given)
    kind = DATASETS.get(named.name)
    parsed = {
        name: kind.options[name].parse(f"{named.name}: {name}", value)
        if name in kind.options and isinstance(value, str)
        else value
        for name, value in named.options.items()
    }
    source = kind(folder, **parsed)
    prepare_openmp()  # what follows imports torch
    from benchmark.auditing.audit import audit
    from benchmark.auditing.model import AuditedModel, ModelOptions, load_model
    from benchmark.auditing.page import page
    from benchmark.auditing.sheets import sheets
    from benchmark.auditing.sheets import to_json as audit_json
    from benchmark.report.render import render_sheets

    options = ModelOptions(
        method=given.method,
        trial=given.trial,
        trained_on=given.trained_on,
        weights=given.weights,
        mean=tuple(given.mean or ()),
        std=tuple(given.std or ()),
        labels=tuple(given.labels or ()),
        device=given.device,
        data_dir=folder,
    )

    def load(data: GroupedDataset) -> AuditedModel:
        return load_model(given.model, data.info, options)

    result = audit(
        load,
        source,
        most=given.images,
        trial=given.data_trial,
        seed=given.seed,
        tell=lambda line: say(f"… {line}", error=True),
    )
    given.out.mkdir(parents=True, exist_ok=True)
    tables = sheets(result)
    files = {
        "audit.html": page(result).encode("utf-8", "replace"),
        "audit.json": to_json(audit_json(result)),
        "audit.tex": render_sheets(tables, "latex").encode("utf-8", "replace"),
    }
    for name, content in files.items():
        write_atomic(given.out / name, content)
    sys.stdout.write(render_sheets(tables, "text"))
    say(f"written to {given.out}/: {', '.join(files)}", error=True)
    return FAILED if given.fail_if == result.verdict.finding.name.lower() else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("audit", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add("model", metavar="MODEL", help="trained model; see below")
    add("data", metavar="NAME[:OPTION=VALUE,…]", help="data set with test images; see below")
    add("--method", metavar="NAME[:VARIANT]", help="if MODEL is a sweep: use a run of this method")
    add(
        "--trial",
        type=int,
        metavar="N",
        help="if MODEL is a sweep: use trial N; default: the first finished one",
    )
    add(
        "--trained-on",
        metavar="NAME[:OPTION=VALUE,…]",
        help="if MODEL is a sweep with several data sets: use a run on this one",
    )
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="load the weights of a timm model from this file",
    )
    for name, values in (("mean", "means"), ("std", "standard deviations")):
        add(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="X",
            help=f"normalise images with these {values} of the channels; default: those that timm "
            "states for its models, otherwise those of the data",
        )
    add(
        "--labels",
        nargs="+",
        metavar="NAME",
        help="name the outputs of the model, in their order; default: the classes of the data",
    )
    add(
        "--images",
        type=number(int, 1, MAX_IMAGES),
        default=240,
        metavar="N",
        help="use at most N images in each experiment; default: 240",
    )
    add(
        "--data-trial",
        type=number(int, 0, MAX_NUMBER),
        default=0,
        metavar="N",
        help="use trial N of the data; default: 0",
    )
    add(
        "--seed",
        type=number(int, 0, MAX_NUMBER),
        default=0,
        metavar="N",
        help="seed the choice of images, donors and placebos with N; default: 0",
    )
    add(
        "--fail-if",
        choices=("relies", "undecided"),
        help="exit with code 1 if this is the verdict",
    )
    add(
        "--out",
        type=Path,
        default=Path("audit"),
        metavar="DIR",
        help="write the audit to this folder; default: audit",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="device to use; default: cpu")
    add_data_dir(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
