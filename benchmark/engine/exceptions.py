"""Ends of a run that are nobody's programming error."""

from __future__ import annotations


class NonFiniteError(Exception):
    """A loss or a logit became NaN or infinite.

    Args:
        step: the step at which it did, from 1.
        term: which term of the loss, or where else.
    """

    def __init__(self, step: int, term: str) -> None:
        self.step, self.term = step, term
        super().__init__(
            f"{term} became NaN or infinite at step {step}; a smaller lr or clip_norm = 1 usually helps."
        )


class InterruptedRunError(Exception):
    """The run was asked to stop; what it had is saved."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
