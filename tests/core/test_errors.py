"""Exit codes and messages of command lines."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from benchmark.core.errors import ErrorCollector, Problems, Refused, UserError, exit_code

ROOT = Path(__file__).resolve().parents[2]


def _raise(error: BaseException) -> NoReturn:
    raise error


def test_a_result_is_the_exit_code() -> None:
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: 1) == 1


def test_a_user_error_is_printed_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: _raise(UserError("no such file."))) == 2
    assert exit_code(lambda: _raise(Refused("cannot run here."))) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: no such file.\nerror: cannot run here.\n"
    assert captured.out == ""


def test_several_mistakes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: _raise(Problems(["one.", "two."]))) == 2
    assert capsys.readouterr().err == "error: 2 problems:\n  - one.\n  - two.\n"
    assert str(Problems(["one."])) == "one."


def test_long_lists_of_problems_are_shortened() -> None:
    lines = str(Problems([f"{i}." for i in range(5000)])).splitlines()
    assert lines[0] == "5000 problems:" and lines[-1] == "  - and 4,900 more"
    assert len(lines) == 102
    assert str(Problems([f"{i}." for i in range(100)])).endswith("  - 99.")


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOTDIR]
)
def test_errors_of_the_machine_are_printed_in_one_line(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(lambda: _raise(OSError(number, os.strerror(number), "/somewhere"))) == 2
    message = capsys.readouterr().err
    assert os.strerror(number) in message and "/somewhere" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    "bug", [FileNotFoundError(errno.ENOENT, "gone"), KeyError("x"), ZeroDivisionError()]
)
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        exit_code(lambda: _raise(bug))


def test_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: _raise(KeyboardInterrupt())) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_closed_pipe_is_not_a_failure(lines: int) -> None:
    code = (
        "import sys; from benchmark.core.errors import exit_code\n"
        f"sys.exit(exit_code(lambda: print('x\\n' * {lines})))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_behind_standard_output_is_printed_in_one_line() -> None:
    code = (
        "import sys; from benchmark.core.errors import exit_code\n"
        "sys.exit(exit_code(lambda: print('x')))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            check=False,
        )
    assert done.stderr.startswith(b"error: No space left on device")


def test_gather_keeps_every_mistake_once_and_lets_bugs_through() -> None:
    gather = ErrorCollector()
    assert gather(int, "3") == 3
    assert gather(_raise, UserError("one.")) is None
    assert gather(_raise, UserError("one.")) is None
    assert gather(_raise, Problems(["two.", "three."])) is None
    with pytest.raises(ZeroDivisionError):
        gather(_raise, ZeroDivisionError())
    with pytest.raises(Problems) as found:
        gather.finish()
    assert found.value.problems == ("one.", "two.", "three.")


def test_a_collector_raises_one_problem_alone_and_nothing_without_problems() -> None:
    gather = ErrorCollector()
    gather.finish()
    gather(_raise, UserError("one."))
    with pytest.raises(UserError) as found:
        gather.finish()
    assert str(found.value) == "one." and not isinstance(found.value, Problems)


def test_messages_are_one_line_that_cannot_command_a_terminal() -> None:
    error = UserError("there is no folder a\x1b[31mb\nc\u202ed\u2028e; use é, 日本 or a\\b.")
    assert str(error) == r"there is no folder a\x1b[31mb\nc\u202ed\u2028e; use é, 日本 or a\b."
    assert str(UserError(str(error))) == str(error)
    several = Problems(["one\x1b[1m.", "two\n."])
    assert several.problems == (r"one\x1b[1m.", r"two\n.")
    assert str(several) == "2 problems:\n  - one\\x1b[1m.\n  - two\\n."
    assert str(Problems(["one\n."])) == r"one\n."
