"""Metadata of exported networks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmark import __version__
from benchmark.core.decode import Name, Text, decode
from benchmark.core.errors import DamagedError
from benchmark.core.summaries import InputSummary, Names

#: Key of the metadata in an exported file.
KEY = "shortcutbed"


@dataclass(frozen=True, kw_only=True)
class ExportMetadata:
    """What is needed to use an exported network, and where it comes from.

    Attributes:
        labels: Names of the classes, in the order of the logits.
        multi_label: True if an image may have several labels or none.
        input: Images that the network accepts.
        dataset: Data set that it was trained on.
        method: Method that trained it.
        run: Key of the run.
        source: Origin of the data.
        licence: Terms of use of the data.
        backbone: Name of the backbone, to rebuild the network from weights.
        backbone_options: Options of the backbone.
        version: Version of ShortcutBed that exported it.
    """

    labels: Names
    multi_label: bool = False
    input: InputSummary
    dataset: Text = ""
    method: Text = ""
    run: Text = ""
    source: Text = ""
    licence: Text = ""
    backbone: Name = ""
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    version: Text = __version__

    def to_text(self) -> str:
        """Return the metadata as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str, where: str) -> ExportMetadata:
        """Decode the metadata of a file.

        Args:
            text: JSON.
            where: Name of the file, for messages.

        Raises:
            DamagedError: If the text is no valid metadata.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise DamagedError(f"{where} is damaged: its metadata are no JSON.") from None
        return decode(cls, value, where)
