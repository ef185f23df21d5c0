"""Compilation, bf16 and channels last change the terms of no algorithm beyond rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import benchmark.explain.base
import benchmark.explain.rules
from benchmark.core.algorithm import Algorithm
from benchmark.core.errors import UserError
from benchmark.core.registry import ALGORITHMS
from benchmark.core.spec import ComputeOptions
from benchmark.engine.build import place
from tests.support.every_algorithm import AT_ONCE, NAMES, SIDE, make, methods
from tests.support.tiny import make_batch, train

STEPS = 2
#: Every method; its variants run with --slow.
EACH = methods()


@dataclass(frozen=True)
class Tolerance:
    """Terms a (in float32) and b are equal if |a − b| ≤ ``absolute`` + ``relative`` · |a|."""

    relative: float
    absolute: float

    def differences(self, plain: Mapping[str, float], other: Mapping[str, float]) -> list[str]:
        assert list(plain) == list(other)
        return [
            f"{name}: {plain[name]:.6g} is {other[name]:.6g}"
            for name in plain
            if not abs(plain[name] - other[name])
            <= self.absolute + self.relative * abs(plain[name])
        ]


#: Tracing alone changes no operation, so that the order of sums stays as it was.
TRACED = Tolerance(1e-6, 1e-7)
#: Fused kernels add in another order, and the first steps of Adam are as long where a gradient is
#: nothing but rounding.
FUSED = Tolerance(5e-3, 1e-3)
#: Other kernels, for which the same holds.
CHANNELS_LAST = FUSED
#: The same of methods that amplify rounding. The term of Attri-Net's critic, after Adam's first
#: step has moved its weights, changes by 0.9 % if the images change by 1e-6 of their values, by
#: 3.6 % if they change by 1e-5; how kernels round depends on the processor.
AMPLIFIED = Tolerance(0.06, 5e-3)
CHANNELS_LAST_OF = {"attri_net": AMPLIFIED, "attri_net_guided": AMPLIFIED}
#: Activations of eight bits.
BF16 = Tolerance(0.05, 0.02)
#: Methods whose terms are not continuous in the activations. The divergence of two Grad-CAM maps
#: has the logarithm of each pixel: one that the rounding of an activation moves across the ReLU's
#: zero changes from its value to 1e-6, the smoothing, and its logarithm by up to 14.
BF16_OF = {("ex2l", "kl"): Tolerance(0.15, 0.2), ("ex2l", "kl_random"): Tolerance(0.15, 0.2)}


def terms(
    name: str, variant: str, compute: Mapping[str, Any], **changed: Any
) -> list[dict[str, float]]:
    """Return the logged terms of a few steps, the validation objective if any, and the logits."""
    half = compute.get("precision") == "bf16"
    autocast = {"autocast": partial(torch.autocast, "cpu", dtype=torch.bfloat16)} if half else {}
    algorithm = make(name, variant, **autocast, **changed)
    for each in (algorithm, *algorithm.setting.upstream.values()):
        place(each, torch.device("cpu"), ComputeOptions(**compute))
    logged = train(algorithm, 0, 1 if name in AT_ONCE else STEPS, side=SIDE)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in algorithm.parameters())
    algorithm.eval()
    batch = make_batch(side=SIDE).strip(algorithm.needs.on_validation())
    with algorithm.setting.autocast():
        if type(algorithm).objective is not Algorithm.objective:
            logged.append({"objective": float(algorithm.objective(batch))})
        with torch.inference_mode():
            logits = algorithm.predict(batch.image).float()
    logged.append({f"logit {i}": value for i, value in enumerate(logits.flatten().tolist())})
    return logged


def check(
    name: str,
    variant: str,
    compute: Mapping[str, Any],
    tolerance: Tolerance,
    plain: list[dict[str, float]] | None = None,
    **changed: Any,
) -> None:
    plain = plain or terms(name, variant, {}, **changed)
    other = terms(name, variant, compute, **changed)
    assert len(plain) == len(other)
    found = [tolerance.differences(a, b) for a, b in zip(plain, other, strict=True)]
    assert not any(found), f"{name}:{variant} under {dict(compute)}: {found}"


def with_backend(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Compile with this backend; the default one takes long to generate and build C++ code."""
    torch.compiler.reset()
    real = nn.Module.compile

    def compile(network: nn.Module, options: Mapping[str, Any]) -> None:
        real(network, backend=backend, options=options if backend == "inductor" else None)

    monkeypatch.setattr(nn.Module, "compile", compile)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        pytest.param(
            *each.values, marks=pytest.mark.very_slow if each.values[1] else pytest.mark.slow
        )
        for each in EACH
    ],
)
def test_a_compiled_network_has_the_terms_of_the_plain_one(
    name: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced without a code generator, which suffices to fix the backward rules."""
    with_backend(monkeypatch, "eager")
    check(name, variant, {"compile": True}, TRACED)


@pytest.mark.very_slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", NAMES)
def test_a_network_compiled_to_the_end_has_the_terms_of_the_plain_one(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_backend(monkeypatch, backend)
    check(name, "", {"compile": True}, FUSED)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_network_draws_the_random_numbers_of_the_plain_one(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inductor's own generator would change dropout and the noise of a teacher."""
    with_backend(monkeypatch, backend)
    for name, changed in (
        ("erm", {"dropout": 0.5}),
        ("segment_classify", {"segmenter_share": 0.01}),
    ):
        check(name, "", {"compile": True}, FUSED, **changed)


@pytest.mark.parametrize(("name", "variant"), EACH)
def test_bf16_and_channels_last_have_the_terms_of_the_default(name: str, variant: str) -> None:
    plain = terms(name, variant, {})
    check(name, variant, {"precision": "bf16"}, BF16_OF.get((name, variant), BF16), plain)
    tolerance = CHANNELS_LAST_OF.get(name, CHANNELS_LAST)
    check(name, variant, {"channels_last": True}, tolerance, plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rrr", "gradmask", "tea", "isnet"])
def test_a_network_explained_as_it_was_compiled_would_be_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the switch to eager calls, tracing fixes the rules and no gradient comes back."""
    with_backend(monkeypatch, "eager")
    for module in (benchmark.explain.base, benchmark.explain.rules):
        monkeypatch.setattr(module, "eagerly", lambda network=None: nullcontext())
    with pytest.raises(UserError, match="does not depend on"):
        check(name, "", {"compile": True}, TRACED)


def test_the_tolerances_tell_zero_from_a_term() -> None:
    plain = {"background": 0.086, "classification": 1.2}
    for tolerance in (TRACED, FUSED, BF16, CHANNELS_LAST):
        assert not tolerance.differences(plain, plain)
        assert len(tolerance.differences(plain, {**plain, "background": 0.0})) == 1
        assert len(tolerance.differences(plain, {**plain, "background": math.nan})) == 1


@pytest.mark.parametrize(("name", "variant"), methods())
def test_every_term_of_a_loss_moves_a_parameter(name: str, variant: str) -> None:
    """A term that is not 0 has a gradient that is not 0 in one of the first steps."""
    if ALGORITHMS.get(name).loss is Algorithm.loss:
        pytest.skip("its step is not the gradient of one loss")
    algorithm = make(name, variant)
    moved: dict[str, bool] = {}
    for step in range(STEPS):
        algorithm.current_step = step
        batch = make_batch(side=SIDE, seed=step).strip(algorithm.needs)
        if step == 0:  # what ``fit`` prepares
            train(algorithm, 0, 1, side=SIDE)
        trained = [p for p in algorithm.parameters() if p.requires_grad]
        for term, value in algorithm.loss(batch).items():
            found = torch.autograd.grad(value, trained, retain_graph=True, allow_unused=True)
            moves = any(g is not None and bool(g.any()) for g in found)
            moved[term] = moved.get(term, False) or moves or float(value) == 0
    assert moved and all(moved.values()), moved


def test_every_term_that_may_be_zero_is_one_that_is_logged() -> None:
    for name in NAMES:
        declared = ALGORITHMS.get(name).may_be_zero
        if declared:
            logged: set[str] = set()
            for variant in ("", *ALGORITHMS.get(name).variants):
                if declared <= logged:
                    break
                logged |= {term for step in terms(name, variant, {}) for term in step}
            assert declared <= logged, name
