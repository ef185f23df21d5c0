"""Which images stand in which batch: pure functions of the seed and the step, so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmark.core.dataset import batch_size_problem
from benchmark.core.errors import Refused, UserError
from benchmark.core.seeds import seed_for

#: Steps of group sampling drawn at once; part of the definition, since a block has one seed.
_BLOCK = 64


class Stream:
    """An endless sequence, permutation after permutation of the same members, readable at any position.

    Args:
        members: int64[n], n ≥ 1, the rows to be gone through.
        seed: of the permutations.
    """

    def __init__(self, members: np.ndarray, seed: int) -> None:
        self.members, self.seed = members, seed
        self._round, self._permuted = -1, members

    def take(self, start: int, count: int) -> np.ndarray:
        """Positions start … start + count of the sequence; a stream shorter than ``count`` comes round again."""
        pieces, n = [], len(self.members)
        while count > 0:
            turn, offset = divmod(start, n)
            if turn != self._round:
                order = np.random.default_rng(seed_for("order", self.seed, turn)).permutation(n)
                self._round, self._permuted = turn, self.members[order]
            piece = self._permuted[offset : offset + count]
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


class RandomSampler:
    """Every image once per epoch, in a new order each time.

    Args:
        size: number of images.
        batch_size: images per step.
        seed: of the order.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.batch_size = batch_size
        self.stream = Stream(np.arange(size), seed)

    def rows(self, step: int) -> np.ndarray:
        """Rows of the batch of ``step`` (from 0), int64[batch_size]."""
        return self.stream.take(step * self.batch_size, self.batch_size)


class GroupSampler:
    """Every row: a non-empty group uniformly, then one of its images uniformly, with replacement.

    Args:
        group: int64[N], the group of every image.
        batch_size: images per step.
        seed: of the draws.
    """

    def __init__(self, group: np.ndarray, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed = batch_size, seed
        self.order = np.argsort(group, kind="stable")
        _, self.start, self.count = np.unique(
            group[self.order], return_index=True, return_counts=True
        )
        self._block, self._drawn = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> np.ndarray:
        """Rows of the batch of ``step`` (from 0), int64[batch_size]."""
        block, offset = divmod(step, _BLOCK)
        if block != self._block:
            rng = np.random.default_rng(seed_for("groups", self.seed, block))
            chosen = rng.integers(len(self.count), size=(_BLOCK, self.batch_size))
            place = (rng.random((_BLOCK, self.batch_size)) * self.count[chosen]).astype(np.int64)
            self._block, self._drawn = block, self.order[self.start[chosen] + place]
        return self._drawn[offset]  # type: ignore[no-any-return]


class EnvironmentSampler:
    """An equal share of the batch from every non-empty environment, rows in the order of the environments.

    The share is ``batch_size // environments``, at least 1; an environment smaller than its share comes round again
    within the batch.

    Args:
        environment: int64[N], the environment of every image.
        batch_size: images per step, all environments together.
        seed: of the order.
    """

    def __init__(self, environment: np.ndarray, batch_size: int, seed: int) -> None:
        present = np.unique(environment)
        self.share = max(batch_size // len(present), 1)
        self.streams = [
            Stream(np.flatnonzero(environment == e), seed_for(seed, "environment", e))
            for e in present
        ]

    def rows(self, step: int) -> np.ndarray:
        """Rows of the batch of ``step`` (from 0), int64[share × environments]."""
        return np.concatenate(
            [stream.take(step * self.share, self.share) for stream in self.streams]
        )


Sampler = RandomSampler | GroupSampler | EnvironmentSampler


def make_sampler(
    sampling: str,
    size: int,
    batch_size: int,
    seed: int,
    group: np.ndarray | None,
    environment: np.ndarray | None,
) -> Sampler:
    """The sampler an algorithm asks for.

    Raises:
        UserError: the batch size makes no sense for so few images.
        Refused: the data has no groups or no environments to sample from, or only one environment.
    """
    problem = batch_size_problem(batch_size, size)
    if problem:
        raise UserError(problem)
    if sampling == "random":
        return RandomSampler(size, batch_size, seed)
    if sampling == "group":
        if group is None:
            raise Refused(
                "sampling by group needs confounder labels in training, and this data has none."
            )
        return GroupSampler(group, batch_size, seed)
    if sampling == "environment":
        if environment is None or len(np.unique(environment)) < 2:
            raise Refused(
                "sampling by environment needs at least two non-empty training environments."
            )
        return EnvironmentSampler(environment, batch_size, seed)
    raise ValueError(f"sampling {sampling!r} is none of {', '.join(SAMPLINGS)}")


SAMPLINGS: Sequence[str] = ("random", "group", "environment")
