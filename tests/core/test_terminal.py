"""Standard streams replace characters that their encoding lacks."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.core.errors import UserError, exit_code
from benchmark.core.terminal import REPLACE, prepare_streams

ROOT = Path(__file__).resolve().parents[2]


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
def test_only_characters_that_the_encoding_lacks_are_replaced(
    encoding: str, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lone surrogate stands for a file name that is not valid text: no encoding has it."""
    out, err = stream(encoding), stream(encoding, "backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    prepare_streams()
    for file in (out, err):
        file.write("3 × 1.5 ± 0.2 – café \udcff …")
        assert written(file) == expected


def test_a_handler_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, default = stream("ascii", "namereplace"), stream("ascii")
    monkeypatch.setattr(sys, "stdout", chosen)
    monkeypatch.setattr(sys, "stderr", default)
    prepare_streams()
    assert chosen.errors == "namereplace" and default.errors == REPLACE
    assert default.encoding == "ascii"


def test_streams_that_are_not_files_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's streams have no ``reconfigure``."""
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    prepare_streams()
    assert sys.stdout is notebook


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
def test_closed_streams_are_redirected_to_the_null_device(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    """And no file that is opened later is written to by what prints; children inherit it."""
    code = (
        "import os, subprocess, sys\n"
        "from benchmark.core.terminal import prepare_streams\n"
        "prepare_streams()\n"
        "file = open('file', 'w')\n"
        "print('lost', flush=True); print('lost', file=sys.stderr, flush=True)\n"
        "os.write(1, b'lost'); os.write(2, b'lost')\n"
        "code = subprocess.call([sys.executable, '-c', 'import os; os.fstat(1); os.fstat(2)'])\n"
        "file.write(f'{file.fileno() > 2} {code}')\n"
    )
    shut = " ".join(f"{number}>&-" for number in closed)
    command = f'"$0" -c "$1" 1>out 2>err {shut}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, code], cwd=tmp_path, env=environment
    )
    assert done.returncode == 0
    assert (tmp_path / "file").read_text(encoding="utf-8") == "True 0"


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


def test_a_file_name_that_the_locale_lacks_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
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
