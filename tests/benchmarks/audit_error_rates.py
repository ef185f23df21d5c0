"""Error rates of the verdicts of ``benchmark.audit`` on models that it has not seen.

``python tests/benchmarks/audit_error_rates.py [--models 48] [--folder DIR] [--output FILE]`` trains
small models on digits on photographs with a planted shortcut, half of them with the mark of the
class on every image and half of them with random marks, audits each on new images, and counts
verdicts. Models differ in network (convnet, ResNet-18, ViT), number of classes (2, 10), shortcut
(tag, border, colour, background) and seed. At a bias of 0.95 some models learned the digits all the
same. ``--jpeg-models`` more are trained on the quality of JPEG compression. The data are those of
``planted:on=digits_on_photos,options=bias=0.1,shortcut=…``, also for ``jpeg``.

``--every NETWORK`` trains one network on each of the five shortcuts, with 2 and with 10 classes,
once biased and once innocent. Two more are half biased, with the mark of the class on 75 % of the
images, and two are trained by GroupDRO on images of which 95 % have the mark of the class.

Trained networks and verdicts are kept in ``--folder``, and the next call continues there; delete
the verdicts, ``*.json``, to audit the same networks by a changed rule.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from algorithms.group_dro import update_group_weights  # noqa: E402
from benchmark.auditing.answers import AuditImages, truth_of  # noqa: E402
from benchmark.auditing.model import AuditedModel  # noqa: E402
from benchmark.auditing.pull import Mark, measure_pull  # noqa: E402
from benchmark.auditing.regions import regions_of  # noqa: E402
from benchmark.auditing.transplant import measure_transplants  # noqa: E402
from benchmark.auditing.verdict import Finding, judge_pull, judge_transplant  # noqa: E402
from benchmark.core.dataset import Split  # noqa: E402
from benchmark.core.files import write_atomic  # noqa: E402
from benchmark.core.registry import BACKBONES, DATASETS  # noqa: E402
from benchmark.report.statistics.worst_group import clopper_pearson  # noqa: E402
from datasets._sources.shortcuts import plant  # noqa: E402

NETWORKS = {
    "convnet": {},
    "resnet18": {},
    "vit": {"patch": 8, "dim": 64, "depth": 3, "heads": 4},
}
SHORTCUTS = ("tag", "border", "colour", "background")
JPEG = "jpeg"
#: The share of training images with the mark of their class; None: 1 / classes.
BIASES = {"biased": 1.0, "innocent": None, "half biased": 0.75, "group_dro": 0.95}
CLASSES = (2, 10)
IMAGES = 240
RELIES = Finding.RELIES
#: The number of trials of the data that models share.
DATA_TRIALS = 4


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        network: Name of the backbone.
        classes: Number of classes.
        shortcut: The shortcut.
        training: How it was trained, one of BIASES.
        seed: The seed.
    """

    network: str
    classes: int
    shortcut: str
    training: str
    seed: int


def cases(count: int, jpeg: int) -> list[Case]:
    """Return ``count`` cases and ``jpeg`` cases of compression, every second one biased."""
    kinds = list(itertools.product(SHORTCUTS, CLASSES, NETWORKS))
    order = np.random.default_rng(0).permutation(len(kinds))
    chosen = []
    for number in range(count):
        shortcut, classes, network = kinds[order[(number // 2) % len(kinds)]]
        chosen.append(Case(network, classes, shortcut, _alternate(number), number))
    names = sorted(NETWORKS)
    for number in range(jpeg):
        network = names[(number // 2) % len(names)]
        chosen.append(Case(network, 2, JPEG, _alternate(number), 1000 + number))
    return chosen


def _alternate(number: int) -> str:
    return "biased" if number % 2 == 0 else "innocent"


def every_case(network: str) -> list[Case]:
    """Return cases of one network: all shortcuts and numbers of classes, and weaker biases.

    Each half has all shortcuts, so that the figures of the first half can be used alone.
    """
    chosen = []
    for half in range(2):
        for number, shortcut in enumerate((*SHORTCUTS, JPEG)):
            classes = CLASSES[(number + half) % 2]
            chosen += [(shortcut, classes, training) for training in ("biased", "innocent")]
        chosen.append((("tag", 10), ("colour", 2))[half] + ("half biased",))
        chosen.append((("tag", 2), ("background", 2))[half] + ("group_dro",))
    return [
        Case(network, classes, shortcut, training, 2000 + number)
        for number, (shortcut, classes, training) in enumerate(chosen)
    ]


@functools.cache
def splits_of(trial: int) -> Mapping[str, Split]:
    """Return digits on photographs that tell nothing about the digit."""
    return DATASETS.get("digits_on_photos")(None, bias=0.1).load(trial).splits


def data_of(case: Case) -> tuple[AuditImages, AuditImages]:
    """Return training and test images without marks, with masks."""
    splits = splits_of(case.seed % DATA_TRIALS)
    parts = []
    for name in ("train", "unbiased"):
        split = splits[name]
        keep = np.flatnonzero(split.label < case.classes)
        keep = keep if name == "train" else keep[:IMAGES]
        parts.append(
            AuditImages(
                np.asarray(split.image[keep]),
                truth_of(split.label[keep], case.classes),
                np.asarray(split.mask[keep]),
                None,
                False,
            )
        )
    return parts[0], parts[1]


def marked(
    images: AuditImages, case: Case, bias: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return images whose marks agree with the class in a share ``bias`` of them, and the marks."""
    rng = np.random.default_rng(seed)
    label = images.truth.argmax(1)
    other = (label + 1 + rng.integers(0, case.classes - 1, len(label))) % case.classes
    mark = np.where(rng.random(len(label)) < bias, label, other)
    return plant(images.pixels, mark, case.shortcut, seed, images.mask).image, mark


def model_of(case: Case, images: AuditImages, steps: int, batch: int, file: Path) -> AuditedModel:
    """Return the model that is stored in a file, or train it on marked images and store it."""
    size = tuple(images.pixels.shape[1:])
    torch.manual_seed(case.seed)
    network = BACKBONES.get(case.network)(case.classes, size, **NETWORKS[case.network])
    if file.exists():
        network.load_state_dict(torch.load(file, weights_only=True))
    else:
        train(network, case, images, steps, batch)
        torch.save(network.state_dict(), file)
    network.eval()

    def scores(given: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = torch.from_numpy(np.ascontiguousarray(given)).split(120)
            return torch.cat([network(part.float() / 127.5 - 1) for part in parts]).numpy()

    return AuditedModel(case.network, scores)


def train(
    network: torch.nn.Module, case: Case, images: AuditImages, steps: int, batch: int
) -> None:
    """Train a network on marked images."""
    bias = BIASES[case.training] or 1 / case.classes
    image, mark = marked(images, case, bias, case.seed)
    pixels = torch.from_numpy(image)
    label = torch.from_numpy(images.truth.argmax(1))
    group = label * case.classes + torch.from_numpy(mark)
    size = torch.bincount(group, minlength=case.classes**2)
    robust = case.training == "group_dro"
    # GroupDRO draws all groups that have images equally often
    drawn = 1.0 / size[group] if robust else torch.ones(len(label))
    weights = torch.full((len(size),), 1 / len(size))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    network.train()
    for _ in range(steps):
        rows = torch.multinomial(drawn, batch, replacement=True)
        losses = F.cross_entropy(
            network(pixels[rows].float() / 127.5 - 1), label[rows], reduction="none"
        )
        loss = losses.mean()
        if robust:
            member = F.one_hot(group[rows], len(size)).float()
            present = member.sum(0)
            group_losses = (member * losses[:, None]).sum(0) / present.clamp_min(1)
            weights = update_group_weights(weights, group_losses.detach(), 0.01, present > 0)
            loss = (weights * group_losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def judge(case: Case, steps: int, batch: int, folder: Path) -> dict:
    """Train and audit one model, or return its verdicts from the folder."""
    kind = f"{case.network}_{case.classes}_{case.shortcut}_{case.training}"
    name = f"{case.seed:03d}_{kind}_{steps}_{batch}"
    verdicts = folder / f"{name}.json"
    if verdicts.exists():
        return json.loads(verdicts.read_text(encoding="utf-8"))
    training, test = data_of(case)
    model = model_of(case, training, steps, batch, folder / f"{name}.pt")
    found = audit_model(case, model, test)
    write_atomic(verdicts, json.dumps(found).encode())
    return found


def audit_model(case: Case, model: AuditedModel, test: AuditImages) -> dict:
    """Return the verdicts on one model."""
    carrying = AuditImages(
        marked(test, case, 0.95, case.seed + 1)[0], test.truth, test.mask, None, False
    )
    regions = regions_of(*test.pixels.shape[2:], masked=True)
    transplants = measure_transplants(model, carrying, regions, case.seed)
    found = [judge_transplant(t).finding for t in transplants]
    accuracy = float((model.scores(test.pixels).argmax(1) == test.truth.argmax(1)).mean())
    return {
        "network": case.network,
        "classes": case.classes,
        "shortcut": case.shortcut,
        "training": case.training,
        "accuracy": accuracy,
        **audit_mark(case, model, test),
        "regions": [t.region.name for t in transplants if judge_transplant(t).finding is RELIES],
        "unknown": str(
            RELIES
            if RELIES in found
            else Finding.NOT_FOUND
            if set(found) == {Finding.NOT_FOUND}
            else Finding.UNDECIDED
        ),
    }


def audit_mark(case: Case, model: AuditedModel, test: AuditImages) -> dict:
    """Return the verdict on the mark that a model was trained with, and its evidence."""
    pull = measure_pull(model, test, Mark(case.shortcut), range(case.classes), case.seed)
    return {
        "gap": pull.gap,
        "pull": pull.estimate.mean,
        "low": pull.estimate.low,
        "shift": pull.shift,
        "placebo": pull.largest_placebo,
        "placebo_p": pull.placebo_p,
        "n": pull.estimate.units,
        "known": str(judge_pull(pull).finding),
    }


def table(results: list[dict]) -> list[str]:
    """Return verdicts by experiment, number of classes and shortcut, as rows of a table."""
    rows = []
    for experiment, training in itertools.product(("known", "unknown"), BIASES):
        mine = [r for r in results if r["training"] == training]
        marks = [r for r in mine if r["shortcut"] != JPEG]
        rows.append(_row(experiment, training, "all marks", marks))
        for classes in CLASSES:
            chosen = [r for r in marks if r["classes"] == classes]
            rows.append(_row(experiment, training, f"{classes} classes", chosen))
        for shortcut in (*SHORTCUTS, JPEG):
            chosen = [r for r in mine if r["shortcut"] == shortcut]
            if chosen:
                rows.append(_row(experiment, training, shortcut, chosen))
    return rows


def _row(experiment: str, training: str, name: str, results: list[dict]) -> str:
    findings = [result[experiment] for result in results]
    relies = findings.count(str(RELIES))
    rate = "–"
    if findings:
        low, high = clopper_pearson(np.array([relies]), np.array([len(findings)]), 0.025, 0.025)
        rate = f"{relies / len(findings):.0%} [{low[0]:.0%}, {high[0]:.0%}]"
    others = [findings.count(str(f)) for f in (Finding.UNDECIDED, Finding.NOT_FOUND)]
    return (
        f"| {experiment} | {training} | {name} | {len(findings)} | {relies} | {rate} "
        f"| {others[0]} | {others[1]} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=48)
    parser.add_argument("--jpeg-models", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--every", choices=NETWORKS, metavar="NETWORK")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "audited")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    started = time.process_time()
    results = []
    chosen = every_case(given.every) if given.every else cases(given.models, given.jpeg_models)
    for case in chosen:
        if case.network not in given.networks:
            continue
        results.append(judge(case, given.steps, given.batch, given.folder))
        print(json.dumps(results[-1]), flush=True)
    lines = [
        "| mark | models | of which | n | relies | rate | undecided | no reliance found |",
        "|---|---|---|---|---|---|---|---|",
        *table(results),
        "",
        f"({len(results)} models, {time.process_time() - started:.0f} CPU-s)",
    ]
    print("\n".join(lines))
    if given.output:
        given.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
