"""Check the facts in messages, whatever their sentences are."""

from __future__ import annotations

import re
from collections.abc import Sequence


def mentions(message: str, *facts: str) -> bool:
    """Return True if a message contains these facts in this order, each as whole words."""
    pattern = ".*?".join(rf"(?<!\w){re.escape(fact)}(?!\w)" for fact in facts)
    return re.search(pattern, message, re.DOTALL) is not None


def each_mentions(messages: Sequence[str], *facts: Sequence[str]) -> bool:
    """Return True if there is one message for each group of facts, in this order."""
    return len(messages) == len(facts) and all(
        mentions(message, *group) for message, group in zip(messages, facts, strict=True)
    )
