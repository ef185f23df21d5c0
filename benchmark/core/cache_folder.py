"""The folder of what is computed once and kept: decoded images and measured speeds."""

from __future__ import annotations

import os
from pathlib import Path

#: The environment variable that replaces the cache folder in the data folder.
CACHE_VARIABLE = "SHORTCUTBED_CACHE"


def cache_folder(data_dir: Path | None) -> Path:
    """Return $SHORTCUTBED_CACHE if it is set, else ``.cache`` in the data folder.

    Args:
        data_dir: The folder of downloaded data sets; None for ``data``.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path(data_dir or "data") / ".cache"
