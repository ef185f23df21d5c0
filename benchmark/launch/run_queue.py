"""The runs of a launch: which of them wait, and which can start."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.layout import SweepFolder
from benchmark.core.run_states import blocked_runs
from benchmark.core.spec import read_spec
from benchmark.core.sweep_plan import PlannedEntry


@dataclass(frozen=True)
class Node:
    """One run in the graph of a launch.

    Args:
        key: the key of the run.
        folder: the folder of the run.
        label: the name of the run in messages.
        upstream: the keys of the runs that must be done first.
        components: the names of its algorithm, backbone and data set; None if they are unknown.
    """

    key: str
    folder: Path
    label: str
    upstream: tuple[str, ...] = ()
    components: tuple[str, str, str] | None = None


def read_node(folder: Path, key: str) -> Node:
    """Read the run ``key`` of a sweep folder.

    Raises:
        UserError: its spec.json is missing, damaged, of another run, or of another schema version.
    """
    run = SweepFolder(folder).run(key)
    try:
        spec = read_spec(run.path)
    except FileNotFoundError:
        raise UserError(
            f"{run.spec} is missing; launch the sweep again, which writes it."
        ) from None
    return Node(key, run.path, spec.label(), spec.upstream_keys, spec.components)


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


def planned_nodes(folder: Path, runs: Mapping[str, PlannedEntry]) -> dict[str, Node]:
    """Return the runs of a plan; spec.json is read only where the plan does not say enough.

    Args:
        folder: the sweep folder.
        runs: the runs of the plan by key, upstream runs before those that need them.

    Raises:
        UserError: a spec.json that had to be read is missing or damaged.
    """
    nodes: dict[str, Node] = {}
    for key, entry in runs.items():
        if entry.upstream is None or not nodes.keys() >= set(entry.upstream):
            nodes.update(read_nodes(folder, [key]))
            continue
        draw = f" draw {entry.draw}" if entry.draw else ""
        label = f"{entry.label}, trial {entry.trial}{draw}"
        nodes[key] = Node(key, SweepFolder(folder).run(key).path, label, entry.upstream)
    return nodes


class RunQueue:
    """The runs of a launch that have not ended, in the order in which they are tried.

    Args:
        nodes: the runs by key, upstream runs first.
    """

    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.waiting = dict.fromkeys(nodes)
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.blocked: dict[str, str] = {}

    def ready(self) -> Iterator[Node]:
        """Iterate over the waiting runs whose upstream runs are all done."""
        return (
            self.nodes[key]
            for key in list(self.waiting)
            if key in self.waiting and self.done.issuperset(self.nodes[key].upstream)
        )

    def needed(self) -> set[str]:
        """Return the keys of the runs that other runs need."""
        return {key for node in self.nodes.values() for key in node.upstream}

    def shuffle(self, source: random.Random) -> None:
        """Try the waiting runs in a random order, those first that others need."""
        needed = self.needed()
        keys = list(self.waiting)
        source.shuffle(keys)
        keys.sort(key=lambda key: key not in needed)
        self.waiting = dict.fromkeys(keys)

    def prefer(self, keys: Sequence[str]) -> None:
        """Try some of the waiting runs first."""
        first = [key for key in keys if key in self.waiting]
        self.waiting = {**dict.fromkeys(first), **self.waiting}

    def take(self, key: str) -> None:
        """Remove a run that a process works on."""
        del self.waiting[key]

    def requeue(self, key: str) -> None:
        """Put a run back at the end, so that one bad run does not hold up the others."""
        self.waiting[key] = None

    def finish(self, key: str) -> None:
        """Mark a run as done."""
        self.waiting.pop(key, None)
        self.done.add(key)

    def doubt(self, key: str) -> None:
        """Put back a run that was marked as done, so that it is looked at."""
        self.done.discard(key)
        self.waiting[key] = None

    def fail(self, key: str, reason: str) -> list[tuple[Node, Node]]:
        """Mark a run as failed and every waiting run that needs it, even indirectly, as blocked.

        Returns:
            The runs that became blocked, each with the upstream run that blocks it.
        """
        self.waiting.pop(key, None)
        self.failed[key] = reason
        upstream = {node.key: node.upstream for node in self.nodes.values()}
        waiting = [other for other in self.nodes if other in self.waiting]
        blocked = blocked_runs(waiting, upstream, {key})
        for other in blocked:
            del self.waiting[other]
        self.blocked.update(blocked)
        return [(self.nodes[other], self.nodes[needed]) for other, needed in blocked.items()]
