"""The scheduler of a launch: decides which run starts where, and what follows when it ends."""

from __future__ import annotations

import errno
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import UserError
from benchmark.core.layout import RunFolder, State, end_of, names_in, state_from_names, state_of
from benchmark.core.outcome import RunOutcome
from benchmark.core.run_states import AttemptEnd
from benchmark.launch import attempts, retry_policy
from benchmark.launch.done_list import DoneList
from benchmark.launch.events import Event, EventKind, Summary
from benchmark.launch.executor import Executor, Workload
from benchmark.launch.foreign_runs import ForeignRuns
from benchmark.launch.job import Job, JobResult, ProcessDied
from benchmark.launch.retry_policy import Decision
from benchmark.launch.run_queue import Node, RunQueue
from benchmark.launch.slots import Slot
from benchmark.launch.status import failure_reason

#: Seconds between two turns of the main loop when nothing happens.
_TICK = 0.2
#: Seconds between two requests to stop: a process may miss one between two signal handlers.
_ASK_AGAIN = 2.0
#: Seconds between two looks at runs that workers claim themselves.
_FOLLOW_INTERVAL = 1.0
#: How many processes in a row may die before they begin an attempt.
_MAX_EARLY_DEATHS = 10
#: Errors that come from the content of one run folder, such as a file in place of a folder.
_ERRORS_OF_ONE_RUN = frozenset(
    {errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY}
)
_FOLDER_REMOVED = "its folder was removed during the launch; launch again to run it from the start"


@dataclass(frozen=True)
class WorkerShift:
    """How long a worker that is one of several works on a sweep folder.

    Args:
        seconds: the time after which its runs must have been saved, or None for no limit.
        expected: the seconds that a run is expected to take, before the worker has ended one.
    """

    seconds: float | None = None
    expected: float = 0.0


@dataclass(frozen=True)
class SchedulerOptions:
    """The options of a launch; see ``launch``."""

    on_event: Callable[[Event], None]
    data_dir: Path | None
    checkpoint_seconds: float
    lease_seconds: float
    run_time_limit: float | None
    engine: str
    modules: tuple[str, ...] = ()
    shift: WorkerShift | None = None


@dataclass
class _ActiveRun:
    """A run that this launcher has handed to a process.

    Args:
        node: the run.
        job: what the process was given.
        previous_attempt: the number of the latest attempt before this one.
        started: the monotonic time of the start.
        oom_kills: the kernel's count of processes killed for lack of memory at the start.
        timed_out: True if the process was killed because of the time limit.
    """

    node: Node
    job: Job
    previous_attempt: int
    started: float
    oom_kills: int | None
    timed_out: bool = False

    @property
    def slot(self) -> Slot:
        return self.job.slot

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.started, 3)


class Scheduler:
    """Runs the missing runs of a sweep on an executor.

    Args:
        queue: the runs.
        options: what they share.
        executor: starts the processes.
    """

    def __init__(self, queue: RunQueue, options: SchedulerOptions, executor: Executor) -> None:
        self.queue = queue
        self.options = options
        self.executor = executor
        self.interrupts = 0  # the number of requests to stop
        self._active: dict[Future[JobResult], _ActiveRun] = {}
        self._foreign = ForeignRuns(options.lease_seconds)
        #: Runs that may have run out of memory: they get a device to themselves.
        self._exclusive: set[str] = set()
        #: For each reserved device, by name, the run that waits for it or uses it alone.
        self._reserved: dict[str, str] = {}
        self._done_list = DoneList(_sweep_of(queue), queue.nodes)
        #: Runs that are done according to the list alone.
        self._listed: set[str] = set()
        self._needed = queue.needed()
        self._finished_here: dict[str, None] = {}
        self._early_deaths = 0
        self._stopping = False
        self._started = time.monotonic()
        self._next_follow = 0.0
        #: The longest time that a run has taken here, in seconds.
        self._longest = 0.0
        self.time_is_up = False

    def interrupt(self) -> None:
        """Note a request to stop: the first lets runs save, the second kills them."""
        self.interrupts += 1

    def run(self) -> None:
        """Work until no run is left or a request to stop arrives, then end all processes."""
        self._inspect_ended_runs()
        try:
            if self._is_work_left():
                self.executor.workload = self._workload()
                self.executor.start()
            if self.executor.detached:
                return
            while self._is_work_left() and not self.interrupts:
                self._read_done_list()
                self._poll_foreign_runs()
                if self._shift_has_ended():
                    break
                if self.executor.slots:
                    self._fill_slots()
                else:
                    self._follow_workers()
                self._collect_results()
        finally:
            self._shut_down()

    def _workload(self) -> Workload:
        options = self.options
        arguments = ["--checkpoint-seconds", f"{options.checkpoint_seconds:g}"]
        if options.data_dir is not None:
            arguments += ["--data-dir", str(options.data_dir.absolute())]
        if options.run_time_limit is not None:
            arguments += ["--run-time-limit", f"{options.run_time_limit:g}"]
        folder = _sweep_of(self.queue)
        return Workload(folder, len(self.queue.waiting), tuple(arguments))

    def summary(self) -> Summary:
        """Return what became of every run."""
        queue = self.queue
        return Summary(
            done=tuple(self._finished_here),
            already=tuple(
                key for key in queue.nodes if key in queue.done and key not in self._finished_here
            ),
            failed=dict(queue.failed),
            blocked=dict(queue.blocked),
            seconds=round(time.monotonic() - self._started, 3),
            time_is_up=bool(queue.waiting) and (self.time_is_up or self._is_too_late()),
        )

    def _is_work_left(self) -> bool:
        if self.options.shift is not None:
            if self._active:
                return True
            if self._is_too_late():
                return False
            # The machine of a run that was never seen alive may be down: then it is free soon.
            return bool(self.queue.waiting) or self._foreign.has_doubtful() or self._doubt_list()
        return bool(self.queue.waiting or self._active or self._foreign)

    def _is_too_late(self) -> bool:
        """Return True if the rest of a worker's time is shorter than a run is expected to take.

        Runs that take longer than half of a worker's whole time are started in its first half: they
        go on from their checkpoints in the next worker, and would otherwise never start at all.
        """
        shift = self.options.shift
        if shift is None or shift.seconds is None:
            return False
        left = shift.seconds - (time.monotonic() - self._started)
        return left < min(self._longest or shift.expected, shift.seconds / 2)

    def _shift_has_ended(self) -> bool:
        """Return True if the runs of a worker must be saved now, because its time is up."""
        shift = self.options.shift
        if shift is None or shift.seconds is None:
            return False
        self.time_is_up = time.monotonic() - self._started >= shift.seconds
        return self.time_is_up

    def _inspect_ended_runs(self) -> None:
        """Find the runs that have ended already, before anything is claimed.

        Where other launchers are at work, the order is random: launchers that took the same order
        would start processes for runs that another one has just claimed. A worker looks at a run
        when its turn comes, unless the list of done runs has it: if each of K workers looked at
        every run, the folder would bear K listings per run.
        """
        if self.options.shift is not None:
            self.queue.shuffle(random.Random())
            return
        names = {key: names_in(node.folder) for key, node in self.queue.nodes.items()}
        states = {
            key: state_from_names(node.folder, names[key]) for key, node in self.queue.nodes.items()
        }
        if State.RUNNING in states.values():
            self.queue.shuffle(random.Random())
        done = [key for key, state in states.items() if state is State.DONE]
        begun = [
            key
            for key, node in self.queue.nodes.items()
            if states[key] is State.PENDING and RunFolder(node.folder).checkpoint.name in names[key]
        ]
        if done or begun:
            self._done_list.replace(done, begun)
        # Done runs come first, since a failed run does not block a run that is done.
        for ended in (State.DONE, State.FAILED):
            for key, state in states.items():
                if state is ended:
                    self._settle(self.queue.nodes[key], state)
                    self._foreign.watch_leftovers(self.queue.nodes[key], names[key])

    def _poll_foreign_runs(self) -> None:
        for node, state in self._foreign.poll():
            if state is State.PENDING:
                self.queue.requeue(node.key)
            else:
                self._settle(node, state)

    def _read_done_list(self) -> None:
        """Believe what other workers have listed as done."""
        if self.options.shift is None or len(self._active) == len(self.executor.slots):
            return
        for key in self._done_list.read_new():
            node = self.queue.nodes[key]
            # Before a run starts, what it needs must be visible here.
            if key in self._needed and not RunFolder(node.folder).record.exists():
                continue
            if key in self.queue.waiting or self._foreign.forget(key):
                self._listed.add(key)
                self._settle(node, State.DONE)
        begun = self._done_list.take_begun()
        if begun:
            random.shuffle(begun)
            self.queue.prefer(begun)

    def _doubt_list(self) -> bool:
        """Look at the listed runs, where a worker found nothing to do; return True if there are.

        A record may have been deleted by hand since it was listed.
        """
        if self._finished_here or not self._listed:
            return False
        for key in self._listed:
            self.queue.doubt(key)
        self._listed.clear()
        return True

    def _follow_workers(self) -> None:
        """Follow the runs that workers elsewhere claim themselves."""
        if time.monotonic() < self._next_follow:
            return
        self._next_follow = time.monotonic() + _FOLLOW_INTERVAL
        has_workers = self.executor.is_active()  # asked first: the last worker may just have ended
        waiting = [node for node in self.queue.ready() if self._is_free(node)]
        if waiting and not has_workers and not self._foreign:
            raise UserError(
                f"the workers of launcher {self.executor.name} have ended, and {len(waiting)} runs "
                "are left; see their output, then launch again."
            )

    def _fill_slots(self) -> None:
        """Start a run in every free slot."""
        if self._is_too_late():
            return
        used = {active.slot.index for active in self._active.values()}
        for slot in self.executor.slots:
            if slot.index in used or self.interrupts:
                continue
            node = self._next_run(slot)
            if node is not None:
                self._start(node, slot)

    def _next_run(self, slot: Slot) -> Node | None:
        """Return the next run for a free slot.

        A run that needs its device alone reserves it and waits until the other runs have ended.
        """
        device = slot.device_name
        occupied = any(active.slot.device_name == device for active in self._active.values())
        if device in self._reserved:
            if occupied:
                return None
            node = self.queue.nodes[self._reserved[device]]
            if node.key in self.queue.waiting and self._is_free(node):
                return node
            del self._reserved[device]
        for node in self.queue.ready():
            if node.key in self._reserved.values() or not self._is_free(node):
                continue
            if self._needs_device_alone(node):
                self._reserved[device] = node.key
                if occupied:
                    return None
            return node
        return None

    def _needs_device_alone(self, node: Node) -> bool:
        if node.key in self._exclusive:
            return True
        return attempts.count(node.folder, attempts.RETRIED_ALONE) > 0

    def _is_free(self, node: Node) -> bool:
        """Return True if a waiting run can be claimed; otherwise note what became of it."""
        if node.key not in self.queue.waiting:
            return False
        run = RunFolder(node.folder)
        names = run.names()  # one listing per look
        obstacle = run.obstacle() if {run.lease.name, run.attempts.name} & names else None
        if obstacle is not None:
            self._settle(node, State.FAILED, reason=_obstacle_message(obstacle))
            return False
        state = state_from_names(node.folder, names)
        if state is State.PENDING:
            return run.spec.name in names or not self._fail_if_removed(node)
        if state in (State.DONE, State.FAILED):
            self._settle(node, state)
            self._foreign.watch_leftovers(node, names)
        else:
            self.queue.take(node.key)
            self._foreign.watch(node, at_once=state is State.LOST)
        return False

    def _start(self, node: Node, slot: Slot) -> None:
        options = self.options
        job = Job(
            folder=node.folder,
            alone=self._reserved.get(slot.device_name) == node.key,
            slot=slot,
            data_dir=options.data_dir,
            checkpoint_seconds=options.checkpoint_seconds,
            lease_seconds=options.lease_seconds,
            engine=options.engine,
            modules=options.modules,
        )
        previous = attempts.latest(node.folder)
        self.queue.take(node.key)
        oom_kills = retry_policy.count_oom_kills()
        active = _ActiveRun(node, job, previous, time.monotonic(), oom_kills)
        self._active[self.executor.submit(job)] = active
        self._report(EventKind.START, node, slot=slot.index, attempt=previous + 1)

    def _collect_results(self) -> None:
        """Wait a moment for runs to end, and handle those that did."""
        if not self._active:
            time.sleep(_TICK)
            return
        for future in wait(list(self._active), _TICK, FIRST_COMPLETED).done:
            active = self._active.pop(future)
            self._release_device(active.node)
            try:
                result = future.result()
            except ProcessDied as error:
                self._handle_death(active, error.exit_code)
            except (OSError, UserError) as error:
                self._handle_error(active, error)
            else:
                self._early_deaths = 0
                self._handle_result(active, result)
        self.executor.replace_stuck()
        if self.options.run_time_limit is not None:
            self._enforce_time_limit(self.options.run_time_limit)

    def _release_device(self, node: Node) -> None:
        self._reserved = {name: key for name, key in self._reserved.items() if key != node.key}

    def _shut_down(self) -> None:
        """Let runs save and release their leases, then end all processes.

        One more request to stop kills the runs. For a worker whose time is up, the first one only
        repeats what its own clock has said.
        """
        self._stopping = True
        if self._active and (self.interrupts or self.time_is_up):
            self._emit(Event(EventKind.STOPPING, "", ""))
        interrupts = max(self.interrupts, int(self.time_is_up))
        next_request = time.monotonic()
        try:
            while self._active:
                if self.interrupts > interrupts:
                    self.executor.signal(signal.SIGKILL)
                elif time.monotonic() >= next_request:
                    self.executor.signal(signal.SIGTERM)
                    next_request += _ASK_AGAIN
                self._collect_results()
        finally:
            self.executor.close()

    def _fail_if_removed(self, node: Node, active: _ActiveRun | None = None) -> bool:
        """Fail a run whose folder was removed; return True if it was."""
        if RunFolder(node.folder).spec.exists():
            return False
        if state_of(node.folder) in (State.DONE, State.FAILED):
            return False
        self._settle(node, State.FAILED, active, reason=_FOLDER_REMOVED)
        return True

    def _handle_error(self, active: _ActiveRun, error: Exception) -> None:
        """Fail a run if its own folder is the cause; any other error concerns all runs."""
        if self._fail_if_removed(active.node, active):
            return
        if isinstance(error, OSError) and error.errno in _ERRORS_OF_ONE_RUN:
            reason = _obstacle_message(error.filename)
            self._settle(active.node, State.FAILED, active, reason=reason)
            return
        self.queue.requeue(active.node.key)
        if not self._stopping:
            raise error

    def _handle_result(self, active: _ActiveRun, result: JobResult) -> None:
        node = active.node
        outcome = result.outcome
        state = result.end or end_of(node.folder)
        if state is None and self._fail_if_removed(node, active):
            return
        if outcome in (RunOutcome.OUT_OF_MEMORY, RunOutcome.DEVICE_ERROR):
            self._decide(active, AttemptEnd(outcome.value), code=None)
        elif state is not None:
            self._longest = max(self._longest, active.seconds)
            if state is State.DONE and outcome is RunOutcome.DONE:
                self._finish_here(node)
            self._settle(node, state, active, result.attempt, result.seconds)
        elif outcome is RunOutcome.INTERRUPTED and result.stop_reason != AttemptEnd.LEASE_LOST:
            self.queue.requeue(node.key)
            self._done_list.add_begun(node.key)
            kind = EventKind.INTERRUPTED
            self._report(kind, node, active, attempt=result.attempt, seconds=result.seconds)
        elif outcome is RunOutcome.DONE:
            raise RuntimeError(f"the engine finished {node.key} but wrote no record")
        else:  # another process has the run by now
            self._foreign.watch(node, at_once=outcome is not RunOutcome.BUSY)
            kind = EventKind.ELSEWHERE
            self._report(kind, node, active, attempt=result.attempt, seconds=result.seconds)

    def _handle_death(self, active: _ActiveRun, code: int | None) -> None:
        if self._stopping:
            self._decide(active, AttemptEnd.INTERRUPTED, code)
            return
        self.executor.renew(active.slot)
        cause = retry_policy.cause_of_death(
            code, active.oom_kills, retry_policy.count_oom_kills(), timed_out=active.timed_out
        )
        if cause.needs_device_alone:
            self._exclusive.add(active.node.key)
        self._decide(active, cause.reason, code)

    def _decide(self, active: _ActiveRun, reason: AttemptEnd, code: int | None) -> None:
        """Decide what becomes of a run whose process died or ran out of memory."""
        node = active.node
        if self._fail_if_removed(node, active):
            return
        verdict = retry_policy.decide(
            node, active.previous_attempt, code, reason, self.options.lease_seconds
        )
        if verdict.decision in (Decision.DONE, Decision.FAILED):
            if verdict.decision is Decision.DONE:
                self._finish_here(node)
            state = State(verdict.decision.value)
            self._settle(node, state, active, verdict.attempt, active.seconds)
            return
        if verdict.decision is Decision.ELSEWHERE:
            kind = EventKind.ELSEWHERE
            self._foreign.watch(node)
        else:
            kind = EventKind.RETRY
            self._early_deaths += verdict.attempt == 0
            if self._early_deaths > _MAX_EARLY_DEATHS:
                raise UserError(f"processes end before they begin a run: {verdict.reason}.")
            self.queue.requeue(node.key)
        self._report(
            EventKind.INTERRUPTED if self._stopping else kind,
            node,
            active,
            attempt=verdict.attempt,
            seconds=active.seconds,
            reason=verdict.reason,
        )

    def _finish_here(self, node: Node) -> None:
        self._finished_here[node.key] = None
        self._done_list.add(node.key)

    def _settle(
        self,
        node: Node,
        state: State,
        active: _ActiveRun | None = None,
        attempt: int = 0,
        seconds: float = 0.0,
        reason: str = "",
    ) -> None:
        """Note that a run is done or failed, and release or block the runs that need it."""
        if state is State.DONE:
            self.queue.finish(node.key)
            kind = EventKind.DONE if node.key in self._finished_here else EventKind.ALREADY
            self._report(kind, node, active, attempt=attempt, seconds=seconds)
            return
        reason = reason or failure_reason(node.folder)
        blocked = self.queue.fail(node.key, reason)
        kind = EventKind.FAILED
        self._report(kind, node, active, attempt=attempt, seconds=seconds, reason=reason)
        for other, culprit in blocked:
            reason = f"needs {culprit.label}, which failed"
            self._report(EventKind.BLOCKED, other, reason=reason)

    def _enforce_time_limit(self, limit: float) -> None:
        for active in self._active.values():
            if time.monotonic() - active.started > limit and not active.timed_out:
                active.timed_out = self.executor.kill(active.job)

    def _report(
        self,
        kind: EventKind,
        node: Node,
        active: _ActiveRun | None = None,
        *,
        slot: int | None = None,
        attempt: int = 0,
        seconds: float = 0.0,
        reason: str = "",
    ) -> None:
        if active is not None:
            slot = active.slot.index
        self._emit(Event(kind, node.key, node.label, slot, attempt, seconds, reason))

    def _emit(self, event: Event) -> None:
        try:
            self.options.on_event(event)
        except OSError:  # the reader of the output is gone; while stopping, runs must still save
            if not self._stopping:
                raise


def _sweep_of(queue: RunQueue) -> Path:
    """Return the sweep folder of the runs; the current folder if there are none."""
    return next((RunFolder(node.folder).sweep.path for node in queue.nodes.values()), Path())


def _obstacle_message(path: object) -> str:
    """Return what prevents a run from starting, and how to remove it."""
    problem = f"{path} has the wrong type" if path else "its folder holds an unexpected file"
    return f"{problem}; move it away, or delete the folder of the run, and launch again"
