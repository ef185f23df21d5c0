"""Seeds, needs, and the annotations that a batch keeps."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from benchmark.core.batch import Batch
from benchmark.core.needs import DESCRIPTIONS, Needs
from benchmark.core.seeds import seed_for
from benchmark.core.speed import disabled
from benchmark.core.speed.seeding import seed_generators

ROOT = Path(__file__).resolve().parents[2]


def test_seeds_never_change() -> None:
    # First 8 bytes of the SHA-256 of the JSON list of texts, big-endian, without the lowest bit.
    assert seed_for() == 0x4F53CDA18C2BAA0C >> 1  # of "[]"
    assert seed_for("init", 0) == 5988096798576962541
    assert seed_for("hparam", 1, 2, "lr") == 8428240025243480521


def test_generators_are_seeded_as_torch_seeds_them() -> None:
    torch.manual_seed(7)
    expected = torch.rand(5)
    seed_generators(7)
    assert torch.equal(torch.rand(5), expected)
    with disabled():
        seed_generators(7)
        assert torch.equal(torch.rand(5), expected)


def test_a_seed_is_the_same_in_another_process_and_differs_for_other_parts() -> None:
    code = "from benchmark.core.seeds import seed_for; print(seed_for('a', 1, 2.5))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(done.stdout) == seed_for("a", 1, 2.5)
    others = {
        seed_for("a", 1),
        seed_for("a1"),
        seed_for("a", 1, ""),
        seed_for("1", "a"),
        seed_for("a", "1", "2.5", 0),
    }
    assert len(others) == 5 and seed_for("a", 1, 2.5) not in others
    assert all(0 <= seed < 2**63 for seed in others)


def test_every_need_has_a_description() -> None:
    assert list(DESCRIPTIONS) == [f.name for f in fields(Needs)]
    everything = Needs(**dict.fromkeys(DESCRIPTIONS, True))
    assert everything.names() == tuple(DESCRIPTIONS)
    assert Needs().names() == ()


def test_a_teacher_is_never_a_missing_annotation() -> None:
    wanted = Needs(masks=True, teacher=True, environments=True)
    assert wanted.missing_from(Needs(masks=True)) == ("environments",)
    assert wanted.missing_from(Needs(masks=True, environments=True)) == ()
    assert Needs().missing_from(Needs()) == ()


def test_needs_unite_and_validation_sees_more() -> None:
    assert Needs(masks=True) | Needs(groups=True) == Needs(masks=True, groups=True)
    assert Needs(val_groups=True).on_validation() == Needs(val_groups=True, groups=True)
    assert Needs(val_masks=True).on_validation().masks
    assert Needs().on_validation() == Needs()


def _batch() -> Batch:
    n = 3
    return Batch(
        torch.zeros(n, 1, 2, 2),
        torch.arange(n),
        torch.arange(n),
        torch.arange(n),
        torch.arange(n),
        torch.arange(n),
        torch.zeros(n, 1, 2, 2, dtype=torch.bool),
        environment_sizes=(1, 1, 1),
    )


OPTIONAL = {
    "groups": "group",
    "confounder": "confounder",
    "environments": "environment",
    "masks": "mask",
}


@pytest.mark.parametrize("need", [*OPTIONAL, None])
def test_strip_keeps_only_declared_annotations(need: str | None) -> None:
    batch = _batch()
    stripped = batch.strip(Needs(**{need: True}) if need else Needs())
    left = {name for name in OPTIONAL.values() if getattr(stripped, name) is not None}
    assert left == ({OPTIONAL[need]} if need else set())
    assert (stripped.environment_sizes is not None) == (need == "environments")
    assert (
        stripped.image is batch.image
        and stripped.label is batch.label
        and stripped.index is batch.index
    )


def test_strip_removes_annotations_for_validation_from_training_batches() -> None:
    stripped = _batch().strip(Needs(val_groups=True, val_masks=True))
    assert stripped.group is None and stripped.mask is None


@pytest.mark.parametrize(
    "chosen", [torch.tensor([True, False, True]), torch.tensor([0, 2]), slice(0, 3, 2)]
)
def test_rows_picks_from_every_field_and_keeps_none(chosen: torch.Tensor | slice) -> None:
    # how many rows of each environment are left is not known without reading them
    assert _batch().rows(chosen).environment_sizes is None
    picked = _batch().strip(Needs(groups=True)).rows(chosen)
    assert len(picked) == 2
    assert (
        picked.label.tolist() == [0, 2]
        and picked.group is not None
        and picked.group.tolist() == [0, 2]
    )
    assert picked.mask is None and picked.image.shape == (2, 1, 2, 2)
