"""Small algorithms on random images: settings, batches, and training without the engine."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from benchmark.core.algorithm import Algorithm, Setting
from benchmark.core.batch import Batch
from benchmark.core.hparam import Distribution
from benchmark.core.needs import Needs
from benchmark.core.registry import ALGORITHMS, BACKBONES
from benchmark.core.seeds import seed_for
from benchmark.core.speed.seeding import seed_generators

CLASSES, CONFOUNDERS, ENVIRONMENTS = 3, 2, 2

#: Options that make a backbone small enough for these tests.
SMALL: dict[str, dict[str, Any]] = {
    "convnet": {"width": 2},
    "bcos_convnet": {"width": 2},
    "vit": {"patch": 4, "dim": 16, "depth": 2, "heads": 2},
}


#: Hyper-parameters of tests, of the methods that have them: each part is trained in a few steps.
SHORT = {"batch_size": 12, "burst": 1, "critic_steps": 1, "first_bursts": 1, "head_steps": 1}


def hparams_of(kind: type[Algorithm], side: int, **changed: Any) -> dict[str, Any]:
    """Defaults of every hyper-parameter, with small batches, and ``changed``.

    A changed distribution keeps the default, as it does in draw 0.
    """
    defaults = {name: h.default for name, h in kind.all_hparams(side).items()}
    values = {k: value for k, value in changed.items() if not isinstance(value, Distribution)}
    short = {name: value for name, value in SHORT.items() if name in defaults}
    return {**defaults, **short, **values}


def make_setting(kind: type[Algorithm], side: int = 16, steps: int = 10, **changed: Any) -> Setting:
    """Return what ``kind`` is built for.

    Args:
        kind: the algorithm.
        side: side of the images, in pixels.
        steps: the budget.
        changed: hyper-parameters; fields of the setting, under their names; and ``backbone``, a key
            of ``SMALL``.
    """
    backbone = changed.pop("backbone", "convnet")
    fields = {
        name: changed.pop(name) for name in list(changed) if name in Setting.__dataclass_fields__
    }

    def network(num_outputs: int | None = None, **options: Any) -> torch.nn.Module:
        outputs = CLASSES if num_outputs is None else num_outputs
        return BACKBONES.get(backbone)(outputs, (3, side, side), **{**SMALL[backbone], **options})

    setting = Setting(
        num_classes=CLASSES,
        num_confounders=CONFOUNDERS,
        num_environments=ENVIRONMENTS,
        image_size=(3, side, side),
        hparams=hparams_of(kind, side, **changed),
        steps=steps,
        build_network=network,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        label_names=tuple(f"class_{i}" for i in range(CLASSES)),
    )
    return replace(setting, **fields)


def build(kind: type[Algorithm] | str, seed: int = 0, **changed: Any) -> Any:
    """An algorithm in training mode with its optimisers, the same for the same seed."""
    kind = ALGORITHMS.get(kind) if isinstance(kind, str) else kind
    setting = make_setting(kind, **changed)
    seed_generators(seed)
    algorithm = kind(setting)
    algorithm.optimizers = algorithm.make_optimizers()
    return algorithm.train()


def make_batch(rows: int = 12, side: int = 16, seed: int = 0) -> Batch:
    """Return random images with all annotations, ordered by environment; no group is empty."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(rows)
    label, confounder = index % CLASSES, index // CLASSES % CONFOUNDERS
    image = torch.randn(rows, 3, side, side, generator=generator)
    image[:, 0] += label[:, None, None]  # something to learn
    mask = torch.rand(rows, 1, side, side, generator=generator) < 0.5
    environment = torch.arange(rows) * ENVIRONMENTS // rows
    return Batch(
        image=image,
        label=label,
        index=index,
        group=label * CONFOUNDERS + confounder,
        confounder=confounder,
        environment=environment,
        mask=mask,
        class_mask=mask & (torch.arange(CLASSES) == label[:, None])[:, :, None, None],
        environment_sizes=tuple(torch.bincount(environment, minlength=ENVIRONMENTS).tolist()),
    )


class TinyRun:
    """The run that ``fit`` receives: batches ``start`` to ``stop``; it keeps the logged terms."""

    def __init__(
        self,
        algorithm: Algorithm,
        start: int,
        stop: int,
        needs: Needs | None = None,
        side: int = 16,
    ) -> None:
        self.algorithm, self.start, self.stop, self.side = algorithm, start, stop, side
        self.needs = algorithm.needs if needs is None else needs
        self.logged: list[dict[str, float]] = []

    def steps(self) -> Iterator[Batch]:
        for step in range(self.start, self.stop):
            seed_generators(seed_for("step", step))
            self.algorithm.current_step = step
            yield make_batch(side=self.side, seed=step).strip(self.needs)

    def batches(self, split: str) -> Iterator[Batch]:
        needs = self.needs if split == "train" else self.needs.on_validation()
        yield make_batch(side=self.side, seed=-1 if split == "train" else -2).strip(needs)

    def class_mask_counts(self) -> torch.Tensor:
        batch = make_batch(side=self.side, seed=-1)
        assert self.needs.class_masks and batch.class_mask is not None
        return batch.class_mask.sum(0)

    def log(self, terms: Mapping[str, torch.Tensor | float]) -> None:
        self.logged.append(
            {name: torch.as_tensor(value).detach().item() for name, value in terms.items()}
        )


def train(algorithm: Algorithm, start: int, stop: int, side: int = 16) -> list[dict[str, float]]:
    """The terms of steps ``start`` … ``stop``."""
    run = TinyRun(algorithm, start, stop, side=side)
    algorithm.fit(run)
    return run.logged


def through_checkpoint(algorithm: Algorithm, fresh: Algorithm, step: int) -> Algorithm:
    """Return ``fresh`` in the state of ``algorithm``, restored from the content of a checkpoint."""
    saved = {
        "algorithm": algorithm.state_dict(),
        "optimizers": {name: o.state_dict() for name, o in algorithm.optimizers.items()},
    }
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    fresh.load_state_dict(loaded["algorithm"])
    for name, state in loaded["optimizers"].items():
        fresh.optimizers[name].load_state_dict(state)
    fresh.current_step = step
    return fresh


def same_weights(one: Algorithm, other: Algorithm) -> bool:
    """Return True if the weights of two algorithms are equal bit by bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
