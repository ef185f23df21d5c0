"""Explanations of errors of methods that read annotations without declaring them."""

from __future__ import annotations

import re
import traceback

from benchmark.core.batch import ANNOTATIONS
from benchmark.core.needs import Needs


def undeclared_annotation(error: Exception, needs: Needs) -> str:
    """Explain an error that a hidden field of a batch caused.

    Fields that a method does not declare are None, and using None gives a message that does not
    name them.

    Args:
        error: The error, which was raised and caught.
        needs: The annotations that the method declares.

    Returns:
        A clause that names the field and the missing declaration; empty if the error has another
        cause.
    """
    if not isinstance(error, TypeError | AttributeError) or "NoneType" not in str(error):
        return ""
    lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
    for field, need in ANNOTATIONS.items():
        is_read = any(re.search(rf"\.{field}\b", line) for line in lines)
        if is_read and not getattr(needs, need):
            return (
                f"the method reads batch.{field} without declaring it; "
                f"add {need}=True to the Needs of its class"
            )
    return ""
