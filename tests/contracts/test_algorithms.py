"""The contract of every registered algorithm: a true declaration, and runs that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from benchmark.core.algorithm import Algorithm, Paper
from benchmark.core.batch import Batch
from benchmark.core.hparam import Distribution, resolve_values
from benchmark.core.needs import Needs
from benchmark.core.optim import COMMON_HPARAMS
from benchmark.core.registry import ALGORITHMS
from benchmark.engine.samplers import SAMPLINGS
from tests.support import tiny
from tests.support.every_algorithm import (
    ALTERNATING,
    AT_ONCE,
    METHODS,
    NAMES,
    SIDE,
    make,
    methods,
)
from tests.support.tiny import (
    TinyRun,
    hparams_of,
    make_batch,
    same_weights,
    through_checkpoint,
    train,
)

#: Budget of the runs in which a switch is looked for.
STEPS = 1000
#: A batch's fields and the needs that open them.
FIELDS = {
    "group": "groups",
    "confounder": "confounder",
    "environment": "environments",
    "mask": "masks",
    "class_mask": "class_masks",
}


@pytest.mark.parametrize("name", NAMES)
def test_declaration(name: str) -> None:
    kind = ALGORITHMS.get(name)
    assert issubclass(kind, Algorithm)
    assert kind.name == name
    assert isinstance(kind.paper, Paper)
    assert kind.paper.title and kind.paper.authors
    assert 1900 < kind.paper.year < 2100
    assert kind.paper.url.startswith("https://")
    assert isinstance(kind.needs, Needs)
    assert kind.sampling in SAMPLINGS
    assert kind.sampling != "group" or kind.needs.groups, (
        "sampling by group is knowledge of the groups"
    )
    assert kind.sampling != "environment" or kind.needs.environments
    assert (kind.__doc__ or "").strip() and kind.__doc__ != Algorithm.__doc__, (
        "the class says what it minimises"
    )


@pytest.mark.parametrize("name", NAMES)
def test_hparams_have_a_doc_line_and_draws_that_are_plain_values_within_bounds(name: str) -> None:
    kind = ALGORITHMS.get(name)
    for key, hparam in kind.hparams.items():
        assert hparam.doc and "\n" not in hparam.doc, f"{key} has no line of documentation"
    for side in (32, 224):
        for key, hparam in kind.all_hparams(side).items():
            for draw in range(20):
                value = hparam.draw(key, trial=0, draw=draw)
                assert type(value) in (bool, int, float, str), (
                    f"{key} = {value!r} would not survive JSON"
                )
                assert json.loads(json.dumps(value)) == value
                assert hparam.check(key, value) == value
                assert type(value) is type(hparam.default)


@pytest.mark.parametrize(("name", "variant"), [m for m in METHODS if m[1]])
def test_variants_set_declared_hparams_to_something_else(name: str, variant: str) -> None:
    kind, values = ALGORITHMS.get(name), ALGORITHMS.get(name).variants[variant]
    declared = {**COMMON_HPARAMS, **kind.hparams}
    resolved = resolve_values(declared, values, name, trial=0, draw=0)
    for key, value in values.items():
        expected = declared[key].default if isinstance(value, Distribution) else value
        assert resolved[key] == expected
    spelt_out = (
        variant in values.values()
    )  # a default that has a name of its own in tables, as ex2l:mae
    assert spelt_out or any(value != declared[key].default for key, value in values.items())
    assert ":" not in variant and variant.strip() == variant


@pytest.mark.parametrize(("name", "variant"), methods(variants=1))
def test_it_trains_and_predicts_with_what_it_declares(name: str, variant: str) -> None:
    algorithm = make(name, variant)
    before = {key: value.clone() for key, value in algorithm.named_parameters()}
    logged = train(algorithm, 0, 2, side=SIDE)
    assert len(logged) == (1 if name in AT_ONCE else 2)
    assert all(terms for terms in logged)
    assert all(torch.tensor(value).isfinite() for terms in logged for value in terms.values())
    assert any(not torch.equal(value, before[key]) for key, value in algorithm.named_parameters())
    assert all(value.isfinite().all() for value in algorithm.state_dict().values())
    json.dumps(algorithm.report(), allow_nan=False)

    algorithm.eval()
    image = make_batch(side=SIDE).image
    with torch.inference_mode():
        logits = algorithm.predict(image)
        assert logits.shape == (len(image), tiny.CLASSES)
        assert logits.isfinite().all()
        assert torch.allclose(algorithm.predict(image[:1]), logits[:1], atol=1e-4), (
            "an answer depends on the batch"
        )


@pytest.mark.parametrize(("name", "variant"), methods())
def test_a_resumed_run_is_the_undisturbed_run(name: str, variant: str) -> None:
    whole = make(name, variant)
    first = make(name, variant)
    logged = train(whole, 0, 3, side=SIDE)
    start = train(first, 0, 2, side=SIDE)
    second = through_checkpoint(first, make(name, variant, seed=1), 2)
    if name in AT_ONCE:  # a resumed run does it again
        start = []
    assert [*start, *train(second, 2, 3, side=SIDE)] == logged
    assert same_weights(whole, second)


class SameBatch(TinyRun):
    """One step on one batch and the same random numbers, whatever the number of the step."""

    def steps(self) -> Iterator[Batch]:
        torch.manual_seed(0)
        self.algorithm.current_step = self.start
        yield make_batch(side=self.side).strip(self.needs)


def one_step(name: str, variant: str, step: int) -> tuple[Any, dict[str, torch.Tensor]]:
    """The terms of one step of a fresh algorithm, and the weights after it."""
    algorithm = make(name, variant, steps=STEPS)
    run = SameBatch(algorithm, step, step + 1, side=SIDE)
    algorithm.fit(run)
    return run.logged, algorithm.state_dict()


def differ(one: tuple[Any, dict[str, Any]], other: tuple[Any, dict[str, Any]]) -> bool:
    return one[0] != other[0] or any(
        not torch.equal(value, other[1][key]) for key, value in one[1].items()
    )


@pytest.mark.parametrize(("name", "variant"), methods())
def test_a_method_that_begins_as_another_one_declares_its_switch(name: str, variant: str) -> None:
    """Declared switches are the steps whose effect depends on the step number alone."""
    if name in ALTERNATING:
        pytest.skip("the effect of its steps depends on their number during all of the training")
    algorithm = make(name, variant, steps=STEPS)
    switch = algorithm.active_from(algorithm.hp, {"steps": STEPS})
    assert type(switch) is int and 0 <= switch < STEPS, "by default the method begins in the budget"
    first = one_step(name, variant, 0)
    assert differ(first, one_step(name, variant, STEPS - 1)) == (switch > 0)
    if switch:
        assert differ(one_step(name, variant, switch - 1), one_step(name, variant, switch))


def test_which_methods_have_a_switch() -> None:
    """First stages in separate runs (JTT, DFR, ISNet) and joint training (LfF) are no switches."""
    budget = {"steps": 600}
    found = {}
    for name, variant in METHODS:
        kind = ALGORITHMS.get(name)
        switch = kind.active_from(hparams_of(kind, SIDE, **kind.variants.get(variant, {})), budget)
        if switch and name not in ALTERNATING:
            found[f"{name}:{variant}".removesuffix(":")] = switch
    assert found == {
        "irm": 500,
        "pgi": 299,
        "pgi:colour": 299,
        "pgi:published_code": 299,
        "segment_classify": 240,
        "tea:warmup": 60,
    }


@pytest.mark.parametrize("name", NAMES)
def test_undeclared_fields_are_hidden(name: str) -> None:
    kind, batch = ALGORITHMS.get(name), make_batch()
    stripped = batch.strip(kind.needs)
    for field, need in FIELDS.items():
        assert (getattr(stripped, field) is not None) == getattr(kind.needs, need)


def superfluous() -> list[tuple[str, str]]:
    """Every declared annotation of training that the sampler does not already use."""
    found = []
    for name in NAMES:
        kind = ALGORITHMS.get(name)
        sampled = {"group": "groups", "environment": "environments"}.get(kind.sampling)
        found += [
            (name, need)
            for need in FIELDS.values()
            if getattr(kind.needs, need) and need != sampled
        ]
    return found


@pytest.mark.parametrize(("name", "need"), superfluous())
def test_no_annotation_is_declared_that_is_not_used(name: str, need: str) -> None:
    """Without a field that it declared, the method fails on the first step."""
    algorithm = make(name)
    run = TinyRun(algorithm, 0, 1, needs=replace(algorithm.needs, **{need: False}), side=SIDE)
    with pytest.raises((AssertionError, TypeError, AttributeError)):
        algorithm.fit(run)


@pytest.mark.parametrize("name", [n for n in NAMES if ALGORITHMS.get(n).needs.val_groups])
def test_groups_that_are_known_in_validation_alone_are_used_there_and_hidden_in_training(
    name: str,
) -> None:
    algorithm = make(name)
    assert not algorithm.needs.groups, "groups in training include those of validation"
    with pytest.raises((AssertionError, TypeError, AttributeError)):
        algorithm.fit(
            TinyRun(algorithm, 0, 1, needs=replace(algorithm.needs, val_groups=False), side=SIDE)
        )


def test_a_forgotten_declaration_fails_on_the_first_step() -> None:
    algorithm = make("group_dro")
    with pytest.raises((AssertionError, TypeError, AttributeError)):
        algorithm.fit(TinyRun(algorithm, 0, 1, needs=Needs(), side=SIDE))


def test_every_kind_of_annotation_in_a_batch_is_covered_here() -> None:
    assert set(FIELDS.values()) == {f.name for f in fields(Needs)} - {
        "teacher",
        "val_groups",
        "val_masks",
    }


def test_same_seed_same_run() -> None:
    for name in ("erm", "dann", "irm"):
        one, other = make(name), make(name)
        assert train(one, 0, 3, side=SIDE) == train(other, 0, 3, side=SIDE)
        assert same_weights(one, other)
        assert not same_weights(one, make(name, seed=1))
