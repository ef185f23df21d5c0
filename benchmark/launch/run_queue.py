"""The runs of a sweep as a launcher sees them: what waits, what each waits for, what can go next."""

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
    """One run: its folder, its name for people, its spec, and the keys of the runs that come first."""

    key: str
    folder: Path
    spec: RunSpec

    @property
    def label(self) -> str:
        return self.spec.label()

    @property
    def upstream(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.spec.upstream.values()))


def read_node(folder: Path, key: str) -> Node:
    """The run ``key`` of a sweep folder.

    Raises:
        UserError: it has no spec.json, or one that is damaged, of another run or of another schema version.
    """
    run = SweepFolder(folder).run(key)
    try:
        return Node(key, run.path, read_spec(run.path))
    except FileNotFoundError:
        raise UserError(
            f"{run.spec} is missing; launch the sweep again, which writes it."
        ) from None


def read_nodes(folder: Path, keys: Sequence[str]) -> dict[str, Node]:
    """The runs and all that they need, upstream first, otherwise in the order of ``keys``.

    A key is the hash of a spec that holds the keys of the upstream runs, so that no run can need itself.

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


class Graph:
    """Which runs are open, in the order in which they are tried.

    Args:
        nodes: the runs, upstream first.
    """

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.waiting = list(nodes)
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.blocked: dict[str, str] = {}

    def ready(self) -> Iterator[Node]:
        """Waiting runs whose upstream runs are all done, in order."""
        return (
            self.nodes[key]
            for key in list(self.waiting)
            if self.done.issuperset(self.nodes[key].upstream)
        )

    def take(self, key: str) -> None:
        """Somebody works on it."""
        self.waiting.remove(key)

    def put_back(self, key: str) -> None:
        """Nobody works on it any more; it goes to the end, so that one run's trouble does not hold up the others."""
        self.waiting.append(key)

    def finish(self, key: str) -> None:
        """It is done."""
        self._forget(key)
        self.done.add(key)

    def fail(self, key: str, reason: str) -> list[tuple[Node, Node]]:
        """It failed; every waiting run that needs it, however indirectly, is blocked.

        Returns:
            The runs that became blocked, each with the run that stands in its way.
        """
        self._forget(key)
        self.failed[key] = reason
        upstream = {node.key: node.upstream for node in self.nodes.values()}
        is_waiting = set(self.waiting)
        waiting = [other for other in self.nodes if other in is_waiting]
        blocked = blocked_runs(waiting, upstream, {key})
        for other in blocked:
            self._forget(other)
        self.blocked.update(blocked)
        return [(self.nodes[other], self.nodes[needed]) for other, needed in blocked.items()]

    def _forget(self, key: str) -> None:
        if key in self.waiting:
            self.waiting.remove(key)
