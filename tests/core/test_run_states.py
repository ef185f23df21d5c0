"""Runs that are blocked by other runs."""

from __future__ import annotations

from benchmark.core.run_states import blocked_runs

#: d needs c, c needs a and b, e needs b.
UPSTREAM = {"c": ("a", "b"), "d": ("c",), "e": ("b",)}


def test_without_failures_no_run_is_blocked() -> None:
    assert blocked_runs([], {}, ()) == {}
    assert blocked_runs("abcde", UPSTREAM, ()) == {}


def test_a_failure_blocks_every_run_that_needs_it_directly_or_not() -> None:
    assert blocked_runs("bcde", UPSTREAM, {"a"}) == {"c": "a", "d": "c"}
    assert blocked_runs("acde", UPSTREAM, {"b"}) == {"c": "b", "d": "c", "e": "b"}


def test_the_first_upstream_run_without_a_result_is_named() -> None:
    assert blocked_runs("cde", UPSTREAM, {"a", "b"})["c"] == "a"


def test_runs_stand_after_the_blocked_runs_that_they_need() -> None:
    assert list(blocked_runs("edcb", UPSTREAM, {"a"})) == ["c", "d"]


def test_a_run_that_is_not_waiting_blocks_no_other() -> None:
    """A running run may still succeed, whatever its upstream run did in the meantime."""
    assert blocked_runs("de", UPSTREAM, {"a"}) == {}


def test_unknown_upstream_runs_and_circles_block_nothing() -> None:
    assert blocked_runs("a", {"a": ("elsewhere",)}, ()) == {}
    assert blocked_runs("ab", {"a": ("b",), "b": ("a",)}, ()) == {}
