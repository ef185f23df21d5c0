"""Streams whose encoding lacks a character print another one instead of raising."""

from __future__ import annotations

import io
import sys

import pytest

from benchmark.core.errors import UserError, exit_code
from benchmark.core.terminal import REPLACE, replace_unprintable


def stream(encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding, errors, write_through=True)


def written(file: io.TextIOWrapper) -> bytes:
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"3 x 1.5 +- 0.2 - caf? ? ..."),
        ("cp1252", "3 × 1.5 ± 0.2 – café ? …".encode("cp1252")),
        ("utf-8", "3 × 1.5 ± 0.2 – café ? …".encode()),
    ],
)
def test_only_what_the_encoding_lacks_is_replaced(
    encoding: str, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lone surrogate stands for a file name that is not valid text: no encoding has it."""
    out, err = stream(encoding), stream(encoding, "backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    replace_unprintable()
    for file in (out, err):
        file.write("3 × 1.5 ± 0.2 – café \udcff …")
        assert written(file) == expected


def test_a_handler_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, default = stream("ascii", "namereplace"), stream("ascii")
    monkeypatch.setattr(sys, "stdout", chosen)
    monkeypatch.setattr(sys, "stderr", default)
    replace_unprintable()
    assert chosen.errors == "namereplace" and default.errors == REPLACE
    assert default.encoding == "ascii"


def test_streams_that_are_no_files_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's streams have no ``reconfigure``; a program without a console has no streams."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    replace_unprintable()


def test_only_encoding_uses_the_handler() -> None:
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", REPLACE)
    assert "“±”".encode("ascii", REPLACE) == b'"+-"'


def test_every_command_prints_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    err = stream("ascii")
    monkeypatch.setattr(sys, "stderr", err)

    def main() -> int:
        raise UserError("no × in \udcff…")

    assert exit_code(main) == 2
    assert written(err) == b"error: no x in ?...\n"


def test_a_file_name_that_the_locale_lacks_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    err = stream("ascii")
    monkeypatch.setattr(sys, "stderr", err)

    def main() -> int:
        "é.png".encode("ascii")
        return 0

    with pytest.raises(UnicodeEncodeError):
        exit_code(main)  # file names are UTF-8 here, so this is a bug of ours
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert exit_code(main) == 2
    assert b"PYTHONUTF8=1" in written(err) and b"'\\xe9'" in written(err)
