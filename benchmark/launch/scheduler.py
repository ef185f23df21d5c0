"""One launch under way: which run goes where, and what follows when it ends."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pebble import ProcessExpired

from benchmark.core.errors import UserError
from benchmark.core.layout import RunFolder, State, state_of
from benchmark.core.spec import LEASE_LOST
from benchmark.launch import attempts, pool, retry_policy
from benchmark.launch.events import Event, Outcome, Summary
from benchmark.launch.foreign_runs import Others
from benchmark.launch.lease import Claim
from benchmark.launch.run_queue import Graph, Node
from benchmark.launch.status import failure_reason
from benchmark.launch.worker import Job, work

#: How often the launcher looks up when nothing happens, seconds.
_TICK = 0.2
#: How many processes may die before they begin a try, in a row.
_EARLY_CRASHES = 10
#: Errors that come from what stands in the folder of one run, such as a file where a folder must be.
_OF_ONE_RUN = frozenset(
    {errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY}
)
#: Why a run is lost whose folder is gone.
_REMOVED = "its folder was removed during the launch; launch again to run it from the beginning"


@dataclass(frozen=True)
class SchedulerOptions:
    """What every run of a launch shares; see ``launch``."""

    on_event: Callable[[Event], None]
    data_dir: Path | None
    checkpoint_seconds: float
    lease_seconds: float
    time_limit: float | None
    engine: str
    modules: tuple[str, ...] = ()


@dataclass
class _Running:
    node: Node
    worker: pool.Worker
    before: int  # number of the newest try before this one
    started: float
    memory_kills: int | None
    timed_out: bool = False


def _in_the_way(path: object) -> str:
    """What stops a run, and how to remove it, in a sentence."""
    what = (
        f"{path} is not what must be there" if path else "its folder holds what must not be there"
    )
    return f"{what}; move it away, or delete the folder of the run, and launch again"


class Session:
    """One launch under way.

    Args:
        graph: the runs.
        settings: what they share.
        workers: one per slot.
    """

    def __init__(
        self, graph: Graph, settings: SchedulerOptions, workers: Sequence[pool.Worker]
    ) -> None:
        self.graph, self.settings, self.workers = graph, settings, workers
        self.interrupts = 0  # how often the user or the system asked to stop
        self._running: dict[Future[Outcome], _Running] = {}
        self._others = Others(settings.lease_seconds)
        self._exclusive: set[str] = (
            set()
        )  # runs that may have run out of memory: they get a device to themselves
        self._reserved: dict[str, str] = {}  # device -> the lonely run that waits for it or has it
        self._mine: list[str] = []
        self._stillborn = 0
        self._stopping = False
        self._started = time.monotonic()

    @property
    def anything_left(self) -> bool:
        return bool(self.graph.waiting or self._running or self._others)

    def inspect_foreign_runs(self) -> None:
        """Learn what is done and what has failed before anything is claimed."""
        found = {node.key: state_of(node.folder) for node in self.graph.nodes.values()}
        for wanted in (
            State.DONE,
            State.FAILED,
        ):  # done first: a done run is not blocked by a failed one
            for key, state in found.items():
                if state is wanted:
                    self._settle(self.graph.nodes[key], state)
                    self._others.watch_settled(self.graph.nodes[key])

    def interrupt(self) -> None:
        """Note a request to stop: the first lets runs save themselves, a second one kills them."""
        self.interrupts += 1

    def run(self) -> None:
        """Until nothing is left, or somebody asks to stop."""
        while self.anything_left and not self.interrupts:
            for node, state in self._others.look():
                if state is State.PENDING:
                    self.graph.put_back(node.key)
                else:
                    self._settle(node, state)
            self._fill()
            self._collect()

    def shut_down(self) -> None:
        """Let runs save themselves, give back every lease, end every process; kill if asked once more."""
        self._stopping = True
        if self._running and self.interrupts:
            self._emit(Event("stopping", "", ""))
        asked, next_word = self.interrupts, time.monotonic()
        try:
            while self._running:
                if self.interrupts > asked:
                    pool.signal_processes(signal.SIGKILL)
                elif (
                    time.monotonic() >= next_word
                ):  # more than once: a process may have been between two handlers
                    pool.signal_processes(signal.SIGTERM)
                    next_word += 2.0
                self._collect()
        finally:
            pool.end(self.workers)

    def summary(self) -> Summary:
        """What has become of every run."""
        graph = self.graph
        already = tuple(key for key in graph.nodes if key in graph.done and key not in self._mine)
        seconds = round(time.monotonic() - self._started, 3)
        return Summary(tuple(self._mine), already, dict(graph.failed), dict(graph.blocked), seconds)

    def _fill(self) -> None:
        busy = {id(running.worker) for running in self._running.values()}
        for worker in self.workers:
            if id(worker) in busy or self.interrupts:
                continue
            node = self._choose(worker)
            if node is not None:
                self._start(node, worker)

    def _choose(self, worker: pool.Worker) -> Node | None:
        """The next run for an idle worker; a run that must be alone first lets its device run empty."""
        place = worker.slot.place
        occupied = any(running.worker.slot.place == place for running in self._running.values())
        if place in self._reserved:
            if occupied:
                return None
            node = self.graph.nodes[self._reserved[place]]
            if node.key in self.graph.waiting and self._free(node):
                return node
            del self._reserved[place]
        for node in self.graph.ready():
            if node.key in self._reserved.values() or not self._free(node):
                continue
            if self._must_be_alone(node):
                self._reserved[place] = node.key
                if occupied:
                    return None
            return node
        return None

    def _must_be_alone(self, node: Node) -> bool:
        return (
            node.key in self._exclusive
            or attempts.count(node.folder, {retry_policy.OUT_OF_MEMORY}) > 0
        )

    def _free(self, node: Node) -> bool:
        """Whether a waiting run can be claimed, by its folder; else note who has it or what became of it."""
        if node.key not in self.graph.waiting:
            return False
        obstacle = RunFolder(node.folder).obstacle()
        if obstacle is not None:
            self._settle(node, State.FAILED, reason=_in_the_way(obstacle))
            return False
        state = state_of(node.folder)
        if state is State.PENDING:
            return not self._lose(node)
        if state in (State.DONE, State.FAILED):
            self._settle(node, state)
            self._others.watch_settled(node)
        else:
            self.graph.take(node.key)
            self._others.watch(node)
        return False

    def _start(self, node: Node, worker: pool.Worker) -> None:
        s = self.settings
        alone = self._reserved.get(worker.slot.place) == node.key
        job = Job(
            node.folder,
            alone,
            worker.slot,
            s.data_dir,
            s.checkpoint_seconds,
            s.lease_seconds,
            s.engine,
            s.modules,
        )
        before = max(attempts.numbers(node.folder), default=0)
        self.graph.take(node.key)
        future = worker.submit(work, job)
        self._running[future] = _Running(
            node, worker, before, time.monotonic(), retry_policy.memory_kills()
        )
        self._tell("start", node, slot=worker.slot.index, attempt=before + 1)

    def _collect(self) -> None:
        """Wait a moment for runs to end, and see to those that did."""
        if not self._running:
            time.sleep(_TICK)
            return
        for future in wait(list(self._running), _TICK, FIRST_COMPLETED).done:
            running = self._running.pop(future)
            for place in [p for p, key in self._reserved.items() if key == running.node.key]:
                del self._reserved[place]
            try:
                outcome = future.result()
            except ProcessExpired as error:  # an OSError, but not the machine's
                self._died(running, error.exitcode)
            except BrokenProcessPool:
                self._died(running, None)
            except (OSError, UserError) as error:
                self._machine_trouble(running, error)
            else:
                self._stillborn = 0
                self._ended(running, outcome)
        if self.settings.time_limit is not None:
            self._enforce(self.settings.time_limit)

    def _lose(self, node: Node, running: _Running | None = None) -> bool:
        """End a run whose folder was removed; the others go on.

        Returns:
            Whether that was so.
        """
        if RunFolder(node.folder).spec.exists():
            return False
        if state_of(node.folder) in (State.DONE, State.FAILED):
            return False
        self._settle(node, State.FAILED, running, reason=_REMOVED)
        return True

    def _machine_trouble(self, running: _Running, error: Exception) -> None:
        """End a run that something in its folder stops; what the others would meet too stops the launch."""
        if self._lose(running.node, running):
            return
        if isinstance(error, OSError) and error.errno in _OF_ONE_RUN:
            self._settle(running.node, State.FAILED, running, reason=_in_the_way(error.filename))
            return
        self.graph.put_back(running.node.key)
        if not self._stopping:
            raise error

    def _ended(self, running: _Running, outcome: Outcome) -> None:
        node, state = running.node, state_of(running.node.folder)
        if self._lose(node, running):
            return
        if outcome.kind == "out_of_memory":
            self._judge(running, retry_policy.OUT_OF_MEMORY, None)
        elif state is State.DONE and outcome.kind == "done":
            self._mine.append(node.key)
            self._settle(node, state, running, outcome)
        elif state in (State.DONE, State.FAILED):
            self._settle(node, state, running, outcome)
        elif outcome.kind == "interrupted" and outcome.reason != LEASE_LOST:
            self.graph.put_back(node.key)
            self._tell("interrupted", node, running, outcome.attempt, outcome.seconds)
        elif outcome.kind in ("busy", "interrupted", "failed", "settled"):  # somebody else's by now
            self._others.watch(node)
            self._tell("elsewhere", node, running, outcome.attempt, outcome.seconds)
        else:
            raise RuntimeError(
                f"the engine answered {outcome.kind!r} for {node.key} and wrote no record or failure"
            )

    def _died(self, running: _Running, code: int | None) -> None:
        if self._stopping:
            self._judge(running, "interrupted", code)
            return
        running.worker.renew()
        reason, alone = retry_policy.cause(code, running.memory_kills, running.timed_out)
        if alone:
            self._exclusive.add(running.node.key)
        self._judge(running, reason, code)

    def _judge(self, running: _Running, reason: str, code: int | None) -> None:
        node = running.node
        if self._lose(node, running):
            return
        verdict = retry_policy.judge(
            node, running.before, code, reason, self.settings.lease_seconds
        )
        seconds = round(time.monotonic() - running.started, 3)
        if verdict.kind == "elsewhere":
            self._others.watch(node)
        elif verdict.kind == "retry":
            self._stillborn += verdict.attempt == 0
            if self._stillborn > _EARLY_CRASHES:
                raise UserError(f"processes end before they begin a run: {verdict.reason}.")
            self.graph.put_back(node.key)
        else:
            if verdict.kind == "done":
                self._mine.append(node.key)
            self._settle(
                node, State(verdict.kind), running, Outcome(verdict.kind, verdict.attempt, seconds)
            )
            return
        kind = "interrupted" if self._stopping else verdict.kind
        self._tell(kind, node, running, verdict.attempt, seconds, verdict.reason)

    def _settle(
        self,
        node: Node,
        state: State,
        running: _Running | None = None,
        end: Outcome | None = None,
        reason: str = "",
    ) -> None:
        """A run has come to its end: tell, and release or block what waits for it."""
        attempt, seconds = (end.attempt, end.seconds) if end else (0, 0.0)
        if state is State.DONE:
            self.graph.finish(node.key)
            self._tell(
                "done" if node.key in self._mine else "already", node, running, attempt, seconds
            )
            return
        reason = reason or failure_reason(node.folder)
        blocked = self.graph.fail(node.key, reason)
        self._tell("failed", node, running, attempt, seconds, reason)
        for other, culprit in blocked:
            self._tell("blocked", other, reason=f"needs {culprit.label}, which failed")

    def _enforce(self, limit: float) -> None:
        for running in self._running.values():
            if time.monotonic() - running.started > limit and not running.timed_out:
                owner = Claim(running.node.folder, self.settings.lease_seconds).owner()
                if owner in pool.processes():
                    running.timed_out = True
                    with suppress(ProcessLookupError):
                        os.kill(owner, signal.SIGKILL)

    def _tell(
        self,
        kind: str,
        node: Node,
        running: _Running | None = None,
        attempt: int = 0,
        seconds: float = 0.0,
        reason: str = "",
        slot: int | None = None,
    ) -> None:
        if running is not None:
            slot = running.worker.slot.index
        self._emit(Event(kind, node.key, node.label, slot, attempt, seconds, reason))

    def _emit(self, event: Event) -> None:
        try:
            self.settings.on_event(event)
        except OSError:  # nobody reads what we print any more; while stopping, that must not keep a run from saving
            if not self._stopping:
                raise
