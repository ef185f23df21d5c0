"""What a tracker is: it receives the evaluations, results and heatmaps of every run of a sweep."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from benchmark.core.errors import UserError

Scalar = bool | int | float | str


@dataclass(frozen=True)
class TrackedRun:
    """A run, as trackers name it.

    Attributes:
        key: key of the run.
        name: readable name, such as ``"erm on tiny, trial 0"``.
        sweep: name of the sweep.
        settings: method, data set, network, hyper-parameters and budget by name.
    """

    key: str
    name: str
    sweep: str
    settings: Mapping[str, Scalar]


class Picture(NamedTuple):
    """An image with the heatmap of its predicted class.

    Attributes:
        name: split and position.
        caption: class and predicted class.
        pixels: uint8[H,2W,3], the image and beside it the heatmap.
    """

    name: str
    caption: str
    pixels: np.ndarray


class RunWriter:
    """Writes one run to a tracker.

    Attributes:
        last_step: evaluations up to this step were written before; −1 for none.
    """

    last_step: int = -1

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write the finite values of one evaluation, and make them visible."""
        raise NotImplementedError

    def results(self, steps: int, values: Mapping[str, float], pictures: Sequence[Picture]) -> None:
        """Write the results of a run that is done. Writing them again replaces them.

        Args:
            steps: number of steps of the run.
            values: selected steps, and the metrics at them.
            pictures: images with their heatmaps.
        """
        raise NotImplementedError

    def close(self, *, ended: bool, failed: bool = False) -> None:
        """Write what is buffered.

        Args:
            ended: False if the run will be continued, by this launch or another one.
            failed: True if it has ended without a result.
        """
        raise NotImplementedError


class Tracker:
    """Base class of trackers.

    Class attributes:
        name: name in ``--log``.
        title: where the runs can be seen, in one line.
        package: name of the package that must be installed.

    Args:
        folder: the sweep folder.

    Raises:
        UserError: the tracker cannot be used as it is configured.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    package: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def check_available(cls) -> None:
        """Check that the package is installed.

        Raises:
            UserError: it is not.
        """
        if cls.package and importlib.util.find_spec(cls.package) is None:
            raise UserError(
                f"--log {cls.name} needs the package {cls.package}; "
                f"`pip install 'shortcutbed[{cls.name}]'` adds it."
            )

    def open(self, run: TrackedRun, last_step: int) -> RunWriter:
        """Begin or continue a run.

        Args:
            run: the run.
            last_step: step of the last evaluation that an earlier launch has written; −1 for none.
        """
        raise NotImplementedError

    def where(self) -> str:
        """Return a sentence on where the runs can be seen."""
        return self.title
