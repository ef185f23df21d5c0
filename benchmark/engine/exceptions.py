"""Exceptions that end a run without being a programming error."""

from __future__ import annotations


class NonFiniteError(Exception):
    """A loss or a logit became NaN or infinite.

    Args:
        step: the step at which it did, from 1.
        term: the term of the loss, or another description of the place.
    """

    def __init__(self, step: int, term: str) -> None:
        self.step = step
        self.term = term
        super().__init__(
            f"{term} became NaN or infinite at step {step}; a smaller lr or clip_norm = 1 usually "
            "helps."
        )


class InterruptedRunError(Exception):
    """The run was asked to stop, and its work is saved.

    Args:
        reason: why, in a word or two.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
