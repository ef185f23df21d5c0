"""The runs of a launch: which of them wait, and which can start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.layout import SweepFolder
from benchmark.core.run_states import blocked_runs
from benchmark.core.spec import RunSpec, read_spec


@dataclass(frozen=True)
class Node:
    """One run in the graph of a launch.

    Args:
        key: the key of the run.
        folder: the folder of the run.
        spec: the resolved spec.
    """

    key: str
    folder: Path
    spec: RunSpec

    @property
    def label(self) -> str:
        """The name of the run in messages."""
        return self.spec.label()

    @property
    def upstream(self) -> tuple[str, ...]:
        """The keys of the runs that must be done first."""
        return tuple(dict.fromkeys(self.spec.upstream.values()))


def read_node(folder: Path, key: str) -> Node:
    """Read the run ``key`` of a sweep folder.

    Raises:
        UserError: its spec.json is missing, damaged, of another run, or of another schema version.
    """
    run = SweepFolder(folder).run(key)
    try:
        return Node(key, run.path, read_spec(run.path))
    except FileNotFoundError:
        raise UserError(
            f"{run.spec} is missing; launch the sweep again, which writes it."
        ) from None


def read_nodes(folder: Path, keys: Sequence[str]) -> dict[str, Node]:
    """Read the runs and everything that they need.

    A key is the hash of a spec that contains the keys of its upstream runs, so there are no cycles.

    Returns:
        The runs by key: upstream runs first, otherwise in the order of ``keys``.

    Raises:
        UserError: a spec.json is missing or damaged.
    """
    nodes: dict[str, Node] = {}

    def add(key: str) -> None:
        if key not in nodes:
            node = read_node(folder, key)
            for needed in node.upstream:
                add(needed)
            nodes[key] = node

    for key in keys:
        add(key)
    return nodes


class RunQueue:
    """The runs of a launch that have not ended, in the order in which they are tried.

    Args:
        nodes: the runs by key, upstream runs first.
    """

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.waiting = list(nodes)
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.blocked: dict[str, str] = {}

    def ready(self) -> Iterator[Node]:
        """Iterate over the waiting runs whose upstream runs are all done."""
        return (
            self.nodes[key]
            for key in list(self.waiting)
            if self.done.issuperset(self.nodes[key].upstream)
        )

    def rotate(self, places: int) -> None:
        """Begin at another place of the order, and continue with the skipped runs at the end."""
        self.waiting = [*self.waiting[places:], *self.waiting[:places]]

    def take(self, key: str) -> None:
        """Remove a run that a process works on."""
        self.waiting.remove(key)

    def requeue(self, key: str) -> None:
        """Put a run back at the end, so that one bad run does not hold up the others."""
        self.waiting.append(key)

    def finish(self, key: str) -> None:
        """Mark a run as done."""
        self._remove(key)
        self.done.add(key)

    def fail(self, key: str, reason: str) -> list[tuple[Node, Node]]:
        """Mark a run as failed and every waiting run that needs it, even indirectly, as blocked.

        Returns:
            The runs that became blocked, each with the upstream run that blocks it.
        """
        self._remove(key)
        self.failed[key] = reason
        upstream = {node.key: node.upstream for node in self.nodes.values()}
        is_waiting = set(self.waiting)
        waiting = [other for other in self.nodes if other in is_waiting]
        blocked = blocked_runs(waiting, upstream, {key})
        for other in blocked:
            self._remove(other)
        self.blocked.update(blocked)
        return [(self.nodes[other], self.nodes[needed]) for other, needed in blocked.items()]

    def _remove(self, key: str) -> None:
        if key in self.waiting:
            self.waiting.remove(key)
