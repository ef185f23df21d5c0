"""Hyper-parameters: draws, distributions, checks and parsing."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmark.core.errors import Problems, UserError
from benchmark.core.hparam import (
    Choice,
    HParam,
    LogUniform,
    Uniform,
    check_values,
    resolve_values,
)
from benchmark.core.optim import COMMON_HPARAMS
from tests.support.messages import mentions

N = 2000


def _draws(h: HParam, name: str = "lr", n: int = N) -> list[Any]:
    return [h.draw(name, trial=0, draw=i) for i in range(1, n + 1)]


@pytest.mark.parametrize("name", COMMON_HPARAMS)
def test_draw_0_is_the_default(name: str) -> None:
    for side in (28, 64, 65, 224):
        h = COMMON_HPARAMS[name].at(side)
        assert all(h.draw(name, trial, 0) == h.default for trial in (0, 1, 777))


def test_without_a_distribution_every_draw_is_the_default() -> None:
    assert {HParam(0.5).draw("x", 0, draw) for draw in range(5)} == {0.5}


def test_a_draw_depends_on_trial_draw_and_name_alone() -> None:
    h = HParam(1e-3, LogUniform(-5, -3))
    one = h.draw("lr", 3, 7)
    assert h.draw("lr", 3, 7) == one
    assert HParam(5.0, LogUniform(-5, -3), "another doc", low=0.0).draw("lr", 3, 7) == one
    assert len({one, h.draw("lr", 3, 8), h.draw("lr", 4, 7), h.draw("rate", 3, 7)}) == 4


def test_the_order_of_declaration_and_the_neighbours_do_not_matter() -> None:
    a, b = HParam(0.1, Uniform(0, 1)), HParam(0.1, Uniform(0, 1))
    forwards = {name: h.draw(name, 0, 1) for name, h in {"a": a, "b": b}.items()}
    backwards = {name: h.draw(name, 0, 1) for name, h in {"new": HParam(1), "b": b, "a": a}.items()}
    assert forwards["a"] == backwards["a"] != forwards["b"] == backwards["b"]


def test_a_known_draw_never_changes() -> None:
    assert COMMON_HPARAMS["lr"].draw("lr", 0, 1) == pytest.approx(6.912781589227002e-05, rel=1e-12)
    assert COMMON_HPARAMS["batch_size"].draw("batch_size", 0, 1) == 124


@pytest.mark.parametrize(("low", "high", "base"), [(-4.5, -2.5, 10), (3.0, 9.0, 2)])
def test_log_uniform_is_uniform_in_the_exponent(low: float, high: float, base: int) -> None:
    values = _draws(HParam(1.0, LogUniform(low, high, base)))
    exponents = np.log(values) / np.log(base)
    assert stats.kstest(exponents, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_integer_log_uniform_truncates() -> None:
    values = _draws(HParam(1, LogUniform(0, 3, 2, integer=True)))
    assert {type(v) for v in values} == {int} and set(values) == set(range(1, 8))
    shares = (
        np.diff(np.log2(np.arange(1, 9))) / 3
    )  # int(2^u) is k when u lies in [log2 k, log2 (k+1))
    found = np.bincount(values, minlength=8)[1:]
    assert stats.chisquare(found, shares * N).pvalue > 1e-3


def test_uniform_and_choice_have_their_moments() -> None:
    values = np.array(_draws(HParam(0.0, Uniform(2, 6))))
    assert values.min() >= 2 and values.max() < 6
    assert values.mean() == pytest.approx(4, abs=4 * 4 / math.sqrt(12 * N))
    assert values.var() == pytest.approx(16 / 12, rel=0.1)
    chosen = _draws(HParam(0.0, Choice((0.0, 0.1, 0.5))))
    assert stats.chisquare([chosen.count(v) for v in (0.0, 0.1, 0.5)]).pvalue > 1e-3


def test_domainbeds_two_regimes() -> None:
    """Gulrajani & Lopez-Paz 2021, appendix D, and hparams_registry of their code."""
    small = {name: h.at(64) for name, h in COMMON_HPARAMS.items()}
    large = {name: h.at(65) for name, h in COMMON_HPARAMS.items()}
    assert (small["lr"].default, small["lr"].random) == (1e-3, LogUniform(-4.5, -2.5))
    assert (large["lr"].default, large["lr"].random) == (5e-5, LogUniform(-5, -3.5))
    assert (small["batch_size"].default, small["batch_size"].random) == (
        64,
        LogUniform(3, 9, 2, integer=True),
    )
    assert (large["batch_size"].default, large["batch_size"].random) == (
        32,
        LogUniform(3, 5.5, 2, integer=True),
    )
    assert (small["weight_decay"].default, small["weight_decay"].random) == (0.0, None)
    assert (large["weight_decay"].default, large["weight_decay"].random) == (
        0.0,
        LogUniform(-6, -2),
    )
    assert large["dropout"].random == Choice((0.0, 0.1, 0.5)) and small["dropout"].random is None


def test_every_default_and_every_draw_is_a_legal_value() -> None:
    for name, declared in COMMON_HPARAMS.items():
        for h in (declared.at(32), declared.at(224)):
            for value in [h.default, *_draws(h, name, 50)]:
                assert h.check(name, value) == value and type(h.check(name, value)) is type(
                    h.default
                )


GOOD = [
    (HParam(0.5), 1, 1.0),
    (HParam(0.5), 0.25, 0.25),
    (HParam(3), 4.0, 4),
    (HParam(3), 2**60 + 1, 2**60 + 1),
    (HParam(True), False, False),
    (HParam("a", choices=("a", "b")), "b", "b"),
    (HParam("0.5", form=r"[\d.,]+"), "0.1,0.2", "0.1,0.2"),
    (HParam(1.0, low=0.0, high=1.0), 0, 0.0),
]


@pytest.mark.parametrize(("h", "given", "expected"), GOOD)
def test_check_returns_the_value_in_its_type(h: HParam, given: Any, expected: Any) -> None:
    value = h.check("x", given)
    assert value == expected and type(value) is type(expected)


BAD = [
    (HParam(0.5), "0.5", ("x = '0.5'", "text", "number", "0.5")),
    (HParam(0.5), True, ("x = True", "number", "0.5")),
    (HParam(3), True, ("x = True", "integer", "3")),
    (HParam(3), 2.5, ("x = 2.5", "integer", "3")),
    (HParam(True), 1, ("x = 1", "integer", "true or false")),
    (HParam("a"), 1, ("x = 1", "integer", "text", "'a'")),
    (HParam("a"), ["a"], ("x = ['a']", "list", "text", "'a'")),
    (HParam(0.5), {"a": 1}, ("x = {'a': 1}", "table", "number", "0.5")),
    (HParam(0.5), math.nan, ("x = nan", "finite", "number", "0.5")),
    (HParam(0.5), math.inf, ("x = inf", "finite", "number", "0.5")),
    (HParam(0.5), 10**400, ("x = inf", "finite", "number", "0.5")),
    (HParam(3), math.inf, ("x = inf", "integer", "3")),
    (HParam("a", choices=("a", "b")), "c", ("x = 'c'", "'a'", "'b'")),
    (HParam(0.5, low=0.0), -1, ("x = -1.0", "out of bounds", "0", "inf")),
    (HParam(3, low=1, high=9), 10, ("x = 10", "out of bounds", "1", "9")),
    (HParam(3, high=9), 10, ("x = 10", "out of bounds", "9")),
    (HParam("0.5", form=r"[\d.]+"), "0.5;", ("x = '0.5;'", "form", "'0.5'")),
]


@pytest.mark.parametrize(("h", "given", "facts"), BAD)
def test_check_reports_the_expected_values(h: HParam, given: Any, facts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as found:
        h.check("x", given)
    assert mentions(str(found.value), *facts)


PARSED = [
    (HParam(0.5), "1e-3", 1e-3),
    (HParam(0.5), "2", 2.0),
    (HParam(3), "7", 7),
    (HParam(3), " -7 ", -7),
    (HParam(3), "1e3", 1000),
    (HParam(3), "9007199254740993", 9007199254740993),
    (HParam(True), "False", False),
    (HParam(False), "1", True),
    (HParam("a"), "b c", "b c"),
]


@pytest.mark.parametrize(("h", "text", "expected"), PARSED)
def test_parse_reads_a_command_line(h: HParam, text: str, expected: Any) -> None:
    value = h.parse("x", text)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("h", "text", "facts"),
    [
        (HParam(0.5), "fast", ("x = 'fast'", "number", "0.5")),
        (HParam(3), "2.5", ("x = 2.5", "integer", "3")),
        (HParam(3), "inf", ("x = inf", "integer", "3")),
        (HParam(3), "", ("x = ''", "integer", "3")),
        (HParam(True), "yes", ("x = 'yes'", "true or false")),
        (HParam(0.5), "nan", ("x = nan", "finite", "0.5")),
        (HParam(0.5, high=1.0), "2", ("x = 2.0", "out of bounds", "1")),
    ],
)
def test_parse_reports_the_expected_values(h: HParam, text: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as found:
        h.parse("x", text)
    assert mentions(str(found.value), *facts)


@pytest.mark.parametrize("text", ["0.5", "0.5,0.75", "0.1, .2 ,1", "0,1.0"])
def test_milestones_are_shares(text: str) -> None:
    assert COMMON_HPARAMS["lr_milestones"].check("m", text) == text


@pytest.mark.parametrize("text", ["", "0.5;0.7", "1.5", "-0.5", "0.5,", "a"])
def test_invalid_milestones_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=re.escape("such as '0.5,0.75'")):
        COMMON_HPARAMS["lr_milestones"].check("m", text)


def test_check_values_names_owner_and_neighbours() -> None:
    declared = {"lr": HParam(0.1), "momentum": HParam(0.9)}
    assert check_values(declared, {"lr": 1}, "erm") == {"lr": 1.0}
    with pytest.raises(UserError) as error:
        check_values(declared, {"momentun": 1}, "erm")
    assert mentions(str(error.value), "erm", "hparam", "momentun", "momentum")
    assert not mentions(str(error.value), "lr")
    with pytest.raises(UserError) as error:
        check_values(declared, {"zzzz": 1}, "erm", "option")
    assert mentions(str(error.value), "erm", "option", "zzzz", "lr", "momentum")
    with pytest.raises(UserError, match=r"^erm: lr = 'x' is a text"):
        check_values(declared, {"lr": "x"}, "erm")


def test_check_values_reports_everything_together() -> None:
    with pytest.raises(Problems) as found:
        check_values({"lr": HParam(0.1)}, {"lr": "x", "rate": 1, "decay": 2}, "erm")
    assert len(found.value.problems) == 3


def test_distributions_can_be_read() -> None:
    assert str(LogUniform(-4.5, -2.5)) == "10^U(-4.5, -2.5)"
    assert str(LogUniform(3, 9, 2, integer=True)) == "2^U(3, 9)"
    assert str(Uniform(0, 1)) == "U(0, 1)"
    assert str(Choice((0.0, 0.5))) == "{0.0, 0.5}"


WEIGHT = HParam(1.0, Uniform(0, 1), low=0.0, high=100.0)
STEPS = HParam(10, low=1, high=1000)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (LogUniform(-1, 2), LogUniform(-1, 2)),
        ({"log_uniform": [-1, 2]}, LogUniform(-1, 2)),
        ({"uniform": [2, 3]}, Uniform(2, 3)),
        ({"choice": [1, 2.5]}, Choice((1.0, 2.5))),
    ],
)
def test_a_distribution_replaces_the_declared_one(given: Any, same: Any) -> None:
    declared = {"weight": WEIGHT, "steps": STEPS}
    changed = HParam(1.0, same)
    for draw in (0, 1, 2):
        values = resolve_values(declared, {"weight": given, "steps": 5}, "method", 3, draw)
        assert values == {"weight": changed.draw("weight", 3, draw), "steps": 5}
        assert type(values["weight"]) is float


def test_an_integer_is_drawn_as_an_integer() -> None:
    given = {"steps": {"log_uniform": [0, 3]}}
    drawn = [resolve_values({"steps": STEPS}, given, "method", 0, draw)["steps"] for draw in (1, 2)]
    assert all(type(value) is int and 1 <= value <= 1000 for value in drawn)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("weight", {"log_uniform": [0, 3]}, "1000.* is out of bounds"),
        ("weight", {"log_uniform": [0, 400]}, "not finite"),
        ("weight", {"uniform": [-1, 3]}, "-1.0 is out of bounds"),
        ("weight", {"uniform": [0, 10**400]}, "not finite"),
        ("weight", {"choice": [1.0, "a"]}, "is a text"),
        ("weight", {"choice": []}, "not a distribution"),
        ("weight", {"normal": [0, 1]}, "not a distribution"),
        ("weight", {"uniform": [3, 2]}, "not a distribution"),
        ("weight", {"uniform": [1, 2], "choice": [1.0]}, "not a distribution"),
        ("weight", {}, "not a distribution"),
        ("steps", {"uniform": [1, 3]}, "not a distribution"),
        ("other", {"uniform": [1, 3]}, "no hparam 'other'"),
    ],
)
def test_a_wrong_distribution_is_refused(name: str, given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_values({"weight": WEIGHT, "steps": STEPS}, {name: given}, "method", 0, 0)
