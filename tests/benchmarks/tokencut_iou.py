"""Agreement of TokenCut's masks with the object, for a trained and an untrained transformer.

    python -m benchmark.train --dataset digits_on_photos:bias=0.1 --algorithm erm \
        --backbone vit:patch=8,dim=64,depth=4,stem=conv,position_std=0.5 \
        --hparam lr_schedule=warmup_cosine --hparam optimizer=adamw \
        --hparam weight_decay=0.05 --steps 1500 \
        --output results/start
    python tests/benchmarks/tokencut_iou.py results/start/runs/<key>

The intersection over union of mask and object is averaged over test images, with a 95 % interval of
the mean over images. Untrained networks have the shape of the trained one; another patch can be
asked for. Two references need no network: the whole image, and the cut of the pixels of each patch.
"The best part" is the better of a mask and its complement, which only someone with the answer can
choose.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from tabulate import tabulate

from benchmark.api.run import load_run
from benchmark.cli.mask_maker import MaskMaker, enlarged
from benchmark.core.registry import BACKBONES, DATASETS
from benchmark.explain.tokencut import THRESHOLD, tokencut


def iou(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the intersection over union of masks bool[N,H,W], float64[N]."""
    both = (mask & truth).sum((1, 2))
    either = (mask | truth).sum((1, 2))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def row(name: str, mask: np.ndarray, truth: np.ndarray) -> list[Any]:
    found = iou(mask, truth)
    best = np.maximum(found, iou(~mask, truth))
    half = 1.96 * found.std(ddof=1) / np.sqrt(len(found))
    return [name, found.mean(), half, best.mean(), mask.mean(), (~mask.any((1, 2))).mean()]


def cut_of_pixels(image: np.ndarray, patch: int) -> Iterable[np.ndarray]:
    """Yield TokenCut of the centred pixels of each patch, bool[H,W], for uint8[N,3,H,W]."""
    side = image.shape[-1] // patch
    for one in image.astype(np.float64):
        patches = one.reshape(3, side, patch, side, patch).transpose(1, 3, 0, 2, 4)
        features = patches.reshape(side * side, -1)
        yield enlarged(tokencut(features - features.mean(0), (side, side)), image.shape[-2:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run of a vision transformer")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--patches", type=int, nargs="+", default=[4])
    parser.add_argument("--data-dir", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(given.run, device="cpu", data_dir=given.data_dir)
    spec = run.record.spec
    data = DATASETS.get(spec.dataset)(given.data_dir, **spec.dataset_options).load(spec.trial)
    split = data.splits["unbiased"]
    assert split.mask is not None
    image = np.asarray(split.image[: given.images])
    truth = np.asarray(split.mask[: given.images, 0])
    own = run.network.shape(run.network.chosen).patch  # type: ignore[operator]
    networks: dict[str, Any] = {f"trained, patch {own}": run.network}
    for patch in dict.fromkeys([own, *given.patches]):
        for stem in ("conv", "patch"):
            torch.manual_seed(0)
            networks[f"random weights, patch {patch}, stem {stem}"] = BACKBONES.get(spec.backbone)(
                len(data.info.label_names),
                data.info.image_size,
                **{**spec.backbone_options, "patch": patch, "stem": stem},
            ).eval()
    table = [row("the whole image", np.ones_like(truth), truth)]
    for patch in dict.fromkeys([own, *given.patches]):
        cuts = np.stack(list(cut_of_pixels(image, patch)))
        table.append(row(f"pixels, patch {patch}", cuts, truth))
    for name, network in networks.items():
        maker = MaskMaker(
            network, run.accepts.mean, run.accepts.std, THRESHOLD, torch.device("cpu")
        )
        masks = [
            mask
            for start in range(0, len(image), 16)
            for mask in maker.masks(image[start : start + 16])
        ]
        table.append(row(name, np.stack(masks), truth))
    print(f"{spec.dataset}, {len(image)} images of the unbiased test")
    columns = ["", "IoU", "± 95 %", "IoU of the best part", "share of pixels", "share empty"]
    print(tabulate(table, columns, floatfmt=".3f"))


if __name__ == "__main__":
    main()
