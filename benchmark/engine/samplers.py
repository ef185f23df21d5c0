"""Samplers choose the images of each batch.

They are pure functions of the seed and the step, so that resuming a run needs no state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.core.algorithm import Draw
from benchmark.core.dataset import batch_size_problem
from benchmark.core.errors import Refused, UserError
from benchmark.core.seeds import seed_for

#: Steps of group sampling that are drawn at once. Each block has its own seed, so changing this
#: number changes the batches.
_BLOCK = 64


class Stream:
    """An endless sequence of permutations of the same rows, readable at any position.

    Args:
        members: int64[n], n ≥ 1, the rows.
        seed: the seed of the permutations.
    """

    def __init__(self, members: np.ndarray, seed: int) -> None:
        self.members = members
        self.seed = seed
        self._round = -1
        self._permuted = members

    def take(self, start: int, count: int) -> np.ndarray:
        """Return ``count`` rows from position ``start`` on, over as many permutations as needed."""
        n = len(self.members)
        pieces = []
        while count > 0:
            number, offset = divmod(start, n)
            if number != self._round:
                order = np.random.default_rng(seed_for("order", self.seed, number)).permutation(n)
                self._permuted = self.members[order]
                self._round = number
            piece = self._permuted[offset : offset + count]
            pieces.append(piece)
            start += len(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class RandomSampler:
    """Draws every image once per epoch, in a new order each time.

    Args:
        size: the number of images.
        batch_size: the number of images per step.
        seed: the seed of the order.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.stream = Stream(np.arange(size), seed)

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the batch of a step (from 0), int64[batch_size]."""
        return self.stream.take(step * self.batch_size, self.batch_size)


class GroupSampler:
    """Draws a non-empty group uniformly, then one of its images uniformly, with replacement.

    Args:
        group: int64[N], the group of every image.
        batch_size: the number of images per step.
        seed: the seed of the draws.
    """

    def __init__(self, group: np.ndarray, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.order = np.argsort(group, kind="stable")
        _, self.start, self.count = np.unique(
            group[self.order], return_index=True, return_counts=True
        )
        self._block = -1
        self._drawn = np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the batch of a step (from 0), int64[batch_size]."""
        block, offset = divmod(step, _BLOCK)
        if block != self._block:
            rng = np.random.default_rng(seed_for("groups", self.seed, block))
            group = rng.integers(len(self.count), size=(_BLOCK, self.batch_size))
            place = (rng.random((_BLOCK, self.batch_size)) * self.count[group]).astype(np.int64)
            self._drawn = self.order[self.start[group] + place]
            self._block = block
        return self._drawn[offset]  # type: ignore[no-any-return]


class EnvironmentSampler:
    """Draws an equal share of the batch from every non-empty environment.

    The rows are in the order of the environments. The share is ``batch_size // environments``, at
    least 1. The images of an environment smaller than its share are repeated within the batch.

    Args:
        environment: int64[N], the environment of every image.
        batch_size: the number of images per step, all environments together.
        seed: the seed of the order.
    """

    def __init__(self, environment: np.ndarray, batch_size: int, seed: int) -> None:
        present = np.unique(environment)
        self.share = max(batch_size // len(present), 1)
        self.streams = [
            Stream(np.flatnonzero(environment == e), seed_for(seed, "environment", e))
            for e in present
        ]

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the batch of a step (from 0), int64[share × environments]."""
        return np.concatenate(
            [stream.take(step * self.share, self.share) for stream in self.streams]
        )


class OneVsRestSampler:
    """Half of a batch has a class, the other half does not; the method names the class of a step.

    Each class has endless shuffled sequences of its positives and of its negatives for every stream
    of the method. A class with fewer images than half a batch is repeated within the batch. Images
    whose label is not known are never drawn for it.

    Args:
        label: int64[N] or int64[N,K], labels of the training split.
        batch_size: images per step, rounded down to an even number, at least 2.
        seed: seed of the order.
        draw: returns the stream of a step and the number of earlier steps of that stream, from
            which class and position follow: number mod K, and number // K.
        annotated: bool[N,K], the classes of each image with a mask of their evidence, for steps
            whose positives must have one; None if none has.

    Raises:
        Refused: a class has no positives or no negatives.
    """

    def __init__(
        self,
        label: np.ndarray,
        batch_size: int,
        seed: int,
        draw: Callable[[int], Draw],
        annotated: np.ndarray | None = None,
    ) -> None:
        self.half = max(batch_size // 2, 1)
        self.seed = seed
        self.draw = draw
        classes = label.shape[1] if label.ndim == 2 else int(label.max()) + 1
        has = label if label.ndim == 2 else label[:, None] == np.arange(classes)
        self.members = [(np.flatnonzero(k == 1), np.flatnonzero(k == 0)) for k in has.T]
        for k, (positive, negative) in enumerate(self.members):
            if not len(positive) or not len(negative):
                raise Refused(
                    f"class {k} has {len(positive)} training images with it and {len(negative)} "
                    "without it, and this method needs both."
                )
        self.annotated = [
            positive if annotated is None else positive[annotated[positive, k]]
            for k, (positive, _) in enumerate(self.members)
        ]
        self._streams: dict[tuple[str, int, str], Stream] = {}

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the batch of ``step`` (from 0), positives first, int64[B]."""
        stream, count, annotated = self.draw(step)
        turn, k = divmod(count, len(self.members))
        start = turn * self.half
        positives = self.members[k][0]
        side = "positive"
        if annotated and len(self.annotated[k]):
            positives = self.annotated[k]
            side = "annotated"
        positive = self._stream(stream, k, side, positives).take(start, self.half)
        negative = self._stream(stream, k, "negative", self.members[k][1]).take(start, self.half)
        return np.concatenate([positive, negative])

    def _stream(self, name: str, k: int, side: str, members: np.ndarray) -> Stream:
        key = (name, k, side)
        if key not in self._streams:
            part = side if side == "annotated" else side == "positive"
            self._streams[key] = Stream(members, seed_for(self.seed, name, k, part))
        return self._streams[key]


class SubsetSampler:
    """Batches of another sampler, drawn from some of the images.

    Args:
        rows: int64[n], rows of the training split that may be drawn.
        sampler: draws positions in ``rows``.
    """

    def __init__(
        self,
        rows: np.ndarray,
        sampler: RandomSampler | GroupSampler | EnvironmentSampler | OneVsRestSampler,
    ) -> None:
        self.subset = rows
        self.sampler = sampler

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the batch of ``step`` (from 0), int64[B]."""
        return self.subset[self.sampler.rows(step)]  # type: ignore[no-any-return]


Sampler = RandomSampler | GroupSampler | EnvironmentSampler | OneVsRestSampler | SubsetSampler


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Annotations of the training images, from which samplers draw.

    Args:
        size: the number of images.
        group: int64[N], the group of every image, or None.
        environment: int64[N], the environment of every image, or None.
        label: int64[N] or int64[N,K], needed for ``"one_vs_rest"``.
        annotated: see ``OneVsRestSampler``.
    """

    size: int
    group: np.ndarray | None = None
    environment: np.ndarray | None = None
    label: np.ndarray | None = None
    annotated: np.ndarray | None = None

    def subset(self, rows: np.ndarray) -> TrainingRows:
        """Return the images at int64[n] positions."""

        def part(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return TrainingRows(
            size=len(rows),
            group=part(self.group),
            environment=part(self.environment),
            label=part(self.label),
            annotated=part(self.annotated),
        )


def make_sampler(
    sampling: str,
    rows: TrainingRows,
    batch_size: int,
    seed: int,
    *,
    subset: np.ndarray | None = None,
    draw: Callable[[int], Draw] | None = None,
) -> Sampler:
    """Return the sampler that an algorithm declares.

    Args:
        sampling: one of ``SAMPLINGS``.
        rows: the training images.
        batch_size: the number of images per step.
        seed: the seed of the batches.
        subset: int64[n], the only rows that are drawn; None for all.
        draw: see ``OneVsRestSampler``.

    Raises:
        UserError: the batch size is too large for so few images.
        Refused: the data has no groups, or fewer than two environments, to sample from.
    """
    if subset is not None:
        of_subset = make_sampler(sampling, rows.subset(subset), batch_size, seed, draw=draw)
        assert not isinstance(of_subset, SubsetSampler)
        return SubsetSampler(subset, of_subset)
    problem = batch_size_problem(batch_size, rows.size)
    if problem:
        raise UserError(problem)
    if sampling == "random":
        return RandomSampler(rows.size, batch_size, seed)
    if sampling == "group":
        if rows.group is None:
            raise Refused(
                "sampling by group needs confounder labels in training, and this data has none."
            )
        return GroupSampler(rows.group, batch_size, seed)
    if sampling == "environment":
        if rows.environment is None or len(np.unique(rows.environment)) < 2:
            raise Refused(
                "sampling by environment needs at least two non-empty training environments."
            )
        return EnvironmentSampler(rows.environment, batch_size, seed)
    if sampling == "one_vs_rest":
        if rows.label is None or draw is None:
            raise ValueError("sampling one class against the rest needs labels and a draw")
        return OneVsRestSampler(rows.label, batch_size, seed, draw, rows.annotated)
    raise ValueError(f"sampling {sampling!r} is none of {', '.join(SAMPLINGS)}")


SAMPLINGS: Sequence[str] = ("random", "group", "environment", "one_vs_rest")
