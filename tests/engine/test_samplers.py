"""Samplers: shares, order, and batches that depend on the seed and the step alone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats

from benchmark.core.algorithm import Draw
from benchmark.core.errors import Refused
from benchmark.engine.samplers import (
    EnvironmentSampler,
    GroupSampler,
    OneVsRestSampler,
    RandomSampler,
    Sampler,
    Stream,
    TrainingRows,
    make_sampler,
)

GROUP = np.array([0] * 70 + [1] * 20 + [3] * 9 + [5])  # groups 2 and 4 are empty
ENVIRONMENT = np.array([2] * 50 + [0] * 40 + [5] * 3)


def _take(sampler: Sampler, steps: int) -> np.ndarray:
    return np.concatenate([sampler.rows(step) for step in range(steps)])


def test_a_stream_is_permutation_after_permutation_and_can_be_read_anywhere() -> None:
    members = np.array([3, 5, 8, 9, 11])
    whole = Stream(members, seed=1).take(0, 50)
    for turn in range(10):
        assert sorted(whole[5 * turn : 5 * turn + 5]) == members.tolist()
    assert len({tuple(whole[5 * turn : 5 * turn + 5]) for turn in range(10)}) > 5
    stream = Stream(members, seed=1)
    for start, count in ((12, 3), (0, 50), (3, 17), (48, 2), (7, 1), (0, 5)):
        assert stream.take(start, count).tolist() == whole[start : start + count].tolist()


@pytest.mark.parametrize(("size", "batch"), [(100, 10), (100, 7), (5, 64), (1, 3), (64, 64)])
def test_random_shows_every_image_once_per_epoch(size: int, batch: int) -> None:
    epochs = 7
    steps = -(-size * epochs // batch)
    rows = _take(RandomSampler(size, batch, seed=3), steps)[: size * epochs]
    assert (np.bincount(rows, minlength=size) == epochs).all()
    for epoch in range(epochs):
        assert sorted(rows[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_random_places_are_uniform() -> None:
    """Over many epochs, the image that comes first is each as often as the others."""
    size, epochs = 8, 4000
    rows = _take(RandomSampler(size, size, seed=0), epochs).reshape(epochs, size)
    assert stats.chisquare(np.bincount(rows[:, 0], minlength=size)).pvalue > 1e-3


def test_groups_are_uniform_over_those_that_are_not_empty_and_images_within_them() -> None:
    rows = _take(GroupSampler(GROUP, 50, seed=0), 400)
    found = np.bincount(GROUP[rows], minlength=6)
    assert found[2] == found[4] == 0
    assert stats.chisquare(found[[0, 1, 3, 5]]).pvalue > 1e-3
    assert stats.chisquare(np.bincount(rows, minlength=100)[:70]).pvalue > 1e-3
    assert set(rows) == set(range(100))


def test_a_single_group_is_sampled_too() -> None:
    assert set(_take(GroupSampler(np.full(4, 7), 16, seed=0), 20)) == {0, 1, 2, 3}


def test_environments_have_equal_shares_in_their_order() -> None:
    sampler = EnvironmentSampler(ENVIRONMENT, 32, seed=0)
    for step in range(30):
        assert ENVIRONMENT[sampler.rows(step)].tolist() == [0] * 10 + [2] * 10 + [5] * 10
    rows = _take(EnvironmentSampler(ENVIRONMENT, 30, seed=0), 20)
    counts = np.bincount(rows, minlength=len(ENVIRONMENT))
    assert set(counts[50:90]) == {5} and set(counts[:50]) == {
        4
    }  # 200 rows each: 5 and 4 epochs exactly
    assert (
        counts[90:].sum() == 200 and np.ptp(counts[90:]) <= 1
    )  # three images come round again within the batch


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_every_environment_gets_a_row_even_of_the_smallest_batch(batch: int) -> None:
    assert EnvironmentSampler(ENVIRONMENT, batch, seed=0).rows(0).shape == (3,)


def _samplers(seed: int) -> list[Sampler]:
    return [
        RandomSampler(100, 33, seed),
        GroupSampler(GROUP, 33, seed),
        EnvironmentSampler(ENVIRONMENT, 33, seed),
    ]


@pytest.mark.parametrize("which", range(3))
def test_a_batch_is_a_function_of_seed_and_step(which: int) -> None:
    forwards = [
        _samplers(5)[which].rows(step).tolist() for step in range(140)
    ]  # each from a fresh sampler
    one = _samplers(5)[which]
    order = np.random.default_rng(0).permutation(140)
    assert all(one.rows(int(step)).tolist() == forwards[step] for step in order)
    assert [_samplers(6)[which].rows(step).tolist() for step in range(3)] != forwards[:3]
    assert len({tuple(rows) for rows in forwards}) == 140
    assert one.rows(0).dtype == np.int64


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (RandomSampler(100, 6, 1), [92, 33, 10, 18, 3, 68]),
        (GroupSampler(GROUP, 6, 1), [99, 99, 99, 99, 49, 78]),
        (EnvironmentSampler(ENVIRONMENT, 6, 1), [89, 73, 32, 30, 92, 90]),
    ],
)
def test_known_batches_never_change(sampler: Sampler, expected: list[int]) -> None:
    """The definition of the batches is part of every stored result."""
    assert sampler.rows(70).tolist() == expected


def test_a_method_gets_what_it_asks_for() -> None:
    assert isinstance(make_sampler("random", TrainingRows(100), 8, 0), RandomSampler)
    assert isinstance(make_sampler("group", TrainingRows(100, group=GROUP), 8, 0), GroupSampler)
    assert isinstance(
        make_sampler("environment", TrainingRows(93, environment=ENVIRONMENT), 8, 0),
        EnvironmentSampler,
    )
    with pytest.raises(Refused, match=r"sampling by group needs confounder labels"):
        make_sampler("group", TrainingRows(100), 8, 0)
    for environment in (None, np.zeros(9, np.int64), np.full(9, 3)):
        with pytest.raises(Refused, match=r"needs at least two non-empty training environments"):
            make_sampler("environment", TrainingRows(9, environment=environment), 8, 0)
    with pytest.raises(ValueError, match="is none of random, group, environment"):
        make_sampler("stratified", TrainingRows(9), 8, 0)


def test_one_class_against_the_rest() -> None:
    label = np.array([0] * 7 + [1] * 2 + [2] * 11)
    draw = partial(Draw, "part")
    sampler = make_sampler("one_vs_rest", TrainingRows(20, label=label), 8, 0, draw=draw)
    seen: list[np.ndarray] = []
    for step in range(60):
        rows = sampler.rows(step)
        has = label[rows] == step % 3
        assert has.tolist() == [True] * 4 + [False] * 4
        if step % 3 == 0:
            seen.append(rows[:4])
    positives = np.concatenate(seen)[:70]
    assert np.bincount(positives, minlength=7).tolist() == [10] * 7
    again = make_sampler("one_vs_rest", TrainingRows(20, label=label), 8, 0, draw=draw)
    assert np.array_equal(again.rows(37), sampler.rows(37))


def test_streams_of_one_class_against_the_rest_are_independent() -> None:
    label = np.arange(40) % 2
    samplers = [
        make_sampler(
            "one_vs_rest", TrainingRows(40, label=label), 8, 0, draw=lambda s, n=n: Draw(n, s)
        )
        for n in ("critic", "heads")
    ]
    assert not np.array_equal(samplers[0].rows(0), samplers[1].rows(0))


def test_one_class_against_the_rest_of_several_labels() -> None:
    label = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    sampler = make_sampler(
        "one_vs_rest", TrainingRows(4, label=label), 4, 0, draw=partial(Draw, "part")
    )
    assert sorted(sampler.rows(0).tolist()) == [0, 1, 2, 3]
    assert set(sampler.rows(1)[:2].tolist()) == {1, 2}


def test_steps_whose_positives_have_masks() -> None:
    label = np.array([[1, 1]] * 6 + [[0, 0]] * 6)
    annotated = np.zeros((12, 2), bool)
    annotated[[1, 4], 0] = True
    annotated[9, 0] = True  # a mask of a class that the image does not have

    def draw(step: int) -> Draw:
        return Draw("part", step, annotated=step >= 20)

    sampler = make_sampler(
        "one_vs_rest", TrainingRows(12, label=label, annotated=annotated), 4, 0, draw=draw
    )
    assert {row for step in range(0, 20, 2) for row in sampler.rows(step)[:2]} == set(range(6))
    assert {row for step in range(20, 40, 2) for row in sampler.rows(step)[:2]} == {1, 4}
    assert {row for step in range(21, 41, 2) for row in sampler.rows(step)[:2]} == set(range(6))
    assert all(sampler.rows(step)[2:].min() >= 6 for step in range(40))


def test_a_class_without_positives_is_refused() -> None:
    with pytest.raises(Refused, match="class 1 has 0"):
        make_sampler(
            "one_vs_rest",
            TrainingRows(3, label=np.array([0, 2, 0])),
            2,
            0,
            draw=lambda s: Draw("p", s),
        )


def test_batches_are_drawn_from_a_subset() -> None:
    subset = np.array([3, 5, 11])
    sampler = make_sampler("random", TrainingRows(100), 2, 0, subset=subset)
    drawn = np.concatenate([sampler.rows(step) for step in range(30)])
    assert np.unique(drawn).tolist() == subset.tolist()
    group = np.arange(100) % 4
    sampler = make_sampler(
        "group", TrainingRows(100, group=group), 6, 0, subset=np.arange(0, 100, 2)
    )
    assert set(group[np.concatenate([sampler.rows(s) for s in range(20)])]) == {0, 2}


def test_one_vs_rest_never_draws_images_whose_label_is_not_known() -> None:
    label = np.random.default_rng(0).integers(-1, 2, (40, 3))
    sampler = OneVsRestSampler(label, 6, 0, lambda step: Draw("train", step))
    for step in range(60):
        rows = sampler.rows(step)
        assert (label[rows[:3], step % 3] == 1).all() and (label[rows[3:], step % 3] == 0).all()
