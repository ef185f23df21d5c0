"""Rules for the end of a fuzzed command, and a count of the ends of all cases."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.core.errors import exit_code

ROOT = Path(__file__).resolve().parents[2]
#: Exit codes that a command may have: done, something failed, a user's mistake, Ctrl-C.
CODES = frozenset({0, 1, 2, 130})
#: Seconds that one command may take, and bytes by which its address space may grow.
SECONDS, MEMORY = 30.0, 3 << 30
#: Characters that move a terminal's cursor or change its state.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

Main = Callable[[list[str]], int]


class HangError(BaseException):
    """A command did not end in time; no ``except Exception`` may catch this."""


@dataclass(frozen=True)
class Answer:
    """The end of a command.

    Args:
        code: its exit code; None where it raised.
        out, err: what it printed.
        trace: the traceback of what it raised, or an empty text.
        signature: what identifies the fault: the exception and the last of our lines.
    """

    code: int | None
    out: str
    err: str
    trace: str = ""
    signature: str = ""

    @property
    def refused(self) -> bool:
        """True if the command reports a problem of its input."""
        return self.code == 2


def run(main: Main, arguments: Sequence[str], seconds: float = SECONDS) -> Answer:
    """Call a command line in this process, with limits on time and memory."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = (
        io.TextIOWrapper(out, "utf-8", write_through=True),
        io.TextIOWrapper(err, "utf-8", errors="backslashreplace", write_through=True),
    )
    code: int | None = None
    trace = signature = ""
    try:
        with (
            contextlib.redirect_stdout(streams[0]),
            contextlib.redirect_stderr(streams[1]),
            limited(seconds),
        ):
            try:
                code = exit_code(lambda: main(list(arguments)))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except HangError as error:
        trace, signature = "".join(traceback.format_exception(error)), "hang " + _place(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        trace, signature = "".join(traceback.format_exception(error)), _place(error)
    texts = [buffer.getvalue().decode("utf-8", "backslashreplace") for buffer in (out, err)]
    return Answer(code, texts[0], texts[1], trace, signature)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise ``HangError`` after ``seconds``, and allow at most ``MEMORY`` more memory than now."""

    def ring(*_: object) -> None:
        raise HangError(f"not done after {seconds:g} seconds")

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _place(error: BaseException) -> str:
    """The exception and the innermost line of ours that it went through."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT) and "tests/fuzz" not in frame.filename
    ]
    where = f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].name}" if ours else "?"
    return f"{type(error).__name__} in {where}"


def complaints(answer: Answer) -> Iterator[tuple[str, str]]:
    """Return the fault in the end of a command: a signature and the details."""
    if answer.trace:
        yield answer.signature, answer.trace
        return
    if answer.code not in CODES:
        yield f"exit code {answer.code}", answer.out + answer.err
    if "Traceback (most recent call last)" in answer.out + answer.err:
        last = answer.err.strip().splitlines()[-1:] or ["?"]
        yield f"prints a traceback: {last[0][:80]}", answer.out + answer.err
    for name, text in (("standard output", answer.out), ("standard error", answer.err)):
        found = CONTROL.search(text)
        if found:
            around = text[max(0, found.start() - 60) : found.end() + 60]
            yield f"control character {found.group()!r} on {name}", repr(around)
    if answer.code == 2 and not is_sentence(answer.err):
        yield "exit code 2 without a sentence", answer.err


def is_sentence(err: str) -> bool:
    """Return True if standard error ends with an ``error: …`` and its list, or is argparse's."""
    lines = err.strip().splitlines()
    starts = [
        i
        for i, line in enumerate(lines)
        if re.match(r"((python -m|shortcutbed)[\w. ]*: )?error: ", line)
    ]
    if not starts:
        return False
    last = lines[starts[-1]]
    if not last.startswith("error: "):  # argparse: usage, then one line
        return lines[0].startswith("usage:") and starts[-1] == len(lines) - 1
    return all(line.startswith("  - ") for line in lines[starts[-1] + 1 :])


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return size, time and kind of every file below a folder, which a refusal must not change."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        stat = path.lstat()
        size = stat.st_size if path.is_file() else 0
        found[os.fsencode(path).decode("latin-1")] = (size, stat.st_mtime_ns, stat.st_mode)
    return found


@dataclass
class Tally:
    """The ends of the cases of one fuzzer.

    Args:
        kind: name of the fuzzer.
        cases: how many are to be made.
    """

    kind: str
    cases: int
    seed: int = 0
    only: int | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str, cases: int) -> Tally:
        """Return a tally with the seed and the cases that the environment variables give."""
        kind_only, _, number = os.environ.get("FUZZ_ONLY", "").partition(":")
        only = int(number) if kind_only == kind else None
        return cls(
            kind,
            int(os.environ.get("FUZZ_CASES", cases)),
            int(os.environ.get("FUZZ_SEED", "0")),
            only,
        )

    def numbers(self) -> Sequence[int]:
        return range(self.cases) if self.only is None else [self.only]

    def chance(self, number: int) -> random.Random:
        """The random numbers of one case."""
        return random.Random(f"{self.kind}/{self.seed}/{number}")

    def fault(self, number: int, signature: str, detail: str) -> None:
        """Note a fault; of one signature the first three cases are kept."""
        self.faults.setdefault(signature, []).append(f"case {number}: {detail}")

    def judge(self, number: int, answer: Answer, what: str) -> None:
        """Note everything that is wrong with how a command ended."""
        for signature, detail in complaints(answer):
            self.fault(number, signature, f"{what}\n{detail}")

    def finish(self) -> None:
        """Print the counts, and fail if any case had a fault.

        Raises:
            AssertionError: the faults, each with its first cases.
        """
        counts = ", ".join(f"{n} {what}" for what, n in sorted(self.outcomes.items()))
        bad = sum(map(len, self.faults.values()))
        if self.kind == "base" and not self.faults:
            return
        print(
            f"\nfuzz {self.kind}: seed {self.seed}, {len(self.numbers())} cases: {counts}; "
            f"{bad} faults of {len(self.faults)} kinds",
            file=sys.__stdout__,
        )
        most = int(os.environ.get("FUZZ_SHOWN", "2"))
        parts = [
            f"== {signature} ({len(found)} times)\n"
            + "\n".join(text[:4000] for text in found[:most])
            for signature, found in sorted(self.faults.items())
        ]
        assert not self.faults, "\n".join(parts)
