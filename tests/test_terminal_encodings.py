"""Commands end in every locale as in UTF-8, and every file that they use is UTF-8."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_sweep import DRO, ERM, FakeSweep, Method, World
from tests.support.source_trees import tree_of

ROOT = Path(__file__).resolve().parents[1]

SWEEP = """\
title = "Größe × Breite ± ∞"
datasets = ["tiny"]
algorithms = ["erm"]
backbone = "convnet"
trials = 1
selection = ["last"]
[budget]
steps = 2
"""

#: What makes Python use an encoding that lacks most characters, by name.
TERMINALS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "posix": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}

#: Command lines that a user types, with placeholders that ``words`` replaces.
COMMANDS = (
    "sweep list datasets --long",
    "sweep status ODD",
    "sweep retry FAKE --key ×",
    "collect_results FAKE --tables-only --out OUT",
)
#: More of them, which take the same paths.
MORE_COMMANDS = (
    "sweep --help",
    "sweep launch --help",
    "sweep list algorithms --long",
    "sweep list sweeps --long",
    "sweep list criteria",
    "sweep launch SWEEP --dry-run",
    "sweep launch SWEEP --algorithms é:× --output OUT",
    "sweep launch SWEEP --trials ½",
    "sweep status FAKE --once",
    "train --help",
    "data --help",
    "data list --data-dir ODD",
    "data check tiny:é=1",
    "collect_results --help",
    "collect_results FAKE --format markdown --tables-only --out ODD",
    "collect_results ODD",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep file and a sweep folder whose titles no narrow encoding can hold."""
    root = tmp_path_factory.mktemp("wörk")
    (root / "mine.toml").write_text(SWEEP, encoding="utf-8")
    fake = FakeSweep(root, "fake", predictions=False)
    fake.add(World(), ERM)
    fake.add(World(), DRO, state="failed")
    fake.finish(title="Größe × Breite ± ∞")
    return root


def run(arguments: list[bytes], folder: Path, **terminal: str) -> tuple[int, str]:
    """Return the exit code and the output of ``python -m benchmark.ARGUMENTS``."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"benchmark." + arguments[0], *arguments[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**keep, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", **terminal},
        timeout=120,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def words(command: str, folder: Path) -> list[bytes]:
    """Return the arguments as bytes; ODD is a name that is valid in no encoding."""
    places = {
        "SWEEP": os.fsencode(folder / "mine.toml"),
        "FAKE": os.fsencode(folder / "fake"),
        "OUT": os.fsencode(folder / "out"),
        "ODD": os.fsencode(folder / "odd") + b"\xff\xfe",
    }
    return [places.get(word, os.fsencode(word)) for word in command.split()]


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(pytest.param(c, marks=pytest.mark.slow) for c in MORE_COMMANDS)]
)
def test_a_command_ends_as_elsewhere(command: str, folder: Path) -> None:
    code, text = run(words(command, folder), folder, PYTHONUTF8="1")
    assert "Traceback" not in text, text
    assert code in (0, 1, 2), text
    for name, terminal in TERMINALS.items():
        other, output = run(words(command, folder), folder, **terminal)
        assert (other, "Traceback" in output) == (code, False), f"{name}: {output}"
        assert output.count("\n") == text.count("\n"), f"{name}: {output}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "terminal",
    [
        pytest.param(TERMINALS["posix"], id="C"),
        pytest.param({"LC_ALL": "C.UTF-8"}, id="UTF"),
    ],
)
def test_a_sweep_in_a_folder_whose_name_is_no_text(
    terminal: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    """Launched, watched and collected; what its runs print is UTF-8 whatever the locale."""
    place = os.fsencode(tmp_path / "out") + b"\xff\xc3\xa9"
    sweep = words("SWEEP", folder)
    code, output = run(
        [b"sweep", b"launch", *sweep, b"--output", place, b"--device", b"cpu"], folder, **terminal
    )
    assert code == 0, output
    code, output = run([b"sweep", b"status", place, b"--once"], folder, **terminal)
    assert code == 0 and "1 done" in output, output
    code, output = run([b"collect_results", place, b"--figures", b"none"], folder, **terminal)
    assert code == 0 and "ERM" in output, output
    for path in Path(os.fsdecode(place)).rglob("*"):
        if path.suffix in (".txt", ".json", ".jsonl", ".html", ".md", ".tex", ".csv"):
            path.read_bytes().decode("utf-8")
    title = Path(os.fsdecode(place), "report", "tables.txt").read_text(encoding="utf-8")
    assert "Größe × Breite ± ∞" in title


def test_names_that_no_encoding_holds_in_every_format(tmp_path: Path) -> None:
    """JSON can hold lone surrogates: in a title, a method's name, a failure's message."""
    fake = FakeSweep(tmp_path, "odd", predictions=False)
    fake.add(World(), ERM)
    fake.add(World(label="digits_on_photos:p=\udcff"), Method("met\udcffhod"))
    for key in fake.add(World(), DRO, state="failed"):
        path = fake.folder / "runs" / key / "failure.json"
        failure = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**failure, "message": "no \udcff"}), encoding="utf-8")
    fake.finish(title="Größe \udcff")
    for arguments in (
        [b"sweep", b"status", b"odd"],
        [b"collect_results", b"odd", b"--detail", b"--figures", b"none"],
        [b"collect_results", b"odd", b"--format", b"json", b"--tables-only"],
        [b"collect_results", b"odd", b"--export", b"runs.csv", b"--figures", b"none"],
        [b"collect_results", b"odd", b"--retrain-best", b"2", b"--tables-only"],
    ):
        code, output = run(arguments, tmp_path)
        assert code in (0, 1) and "Traceback" not in output, output
    written = {path.suffix for path in (tmp_path / "odd" / "report").glob("tables.*")}
    assert written == {".csv", ".html", ".json", ".md", ".tex", ".txt"}
    for path in (tmp_path / "odd" / "report").glob("*.*"):
        path.read_bytes().decode("utf-8")


def test_what_a_run_prints_is_utf8(tmp_path: Path) -> None:
    """In the process of a run, which inherits the encoding of the launcher's terminal."""
    code = (
        "from pathlib import Path; import sys\n"
        "from benchmark.launch.worker import redirect_output\n"
        "with redirect_output(Path(sys.argv[1])):\n"
        "    print('Gr\\xf6\\xdfe \\xd7 \\udcff')\n"
        "    print('\\u221e', file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **TERMINALS["posix"]}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "output.txt")], env=environment, check=True
    )
    text = (tmp_path / "output.txt").read_bytes().decode("utf-8")
    assert text.splitlines() == ["Größe × \\udcff", "∞"]


def test_a_live_table_in_a_narrow_terminal(folder: Path) -> None:
    """A real terminal, where ``status`` watches with a live table of rich."""
    master, slave = pty.openpty()
    environment = {**os.environ, **TERMINALS["posix"], "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark.sweep", "status", os.fsencode(folder / "fake")],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        cwd=folder,
    )
    os.close(slave)
    output = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # Linux: every writer has closed the terminal
            break
        if not part:
            break
        output += part
    os.close(master)
    assert process.wait(60) == 1, output
    assert b"Traceback" not in output and b"3 failed" in output
    assert b"Gr??e x Breite +- ?" in output


def _calls_without_encoding(tree: ast.Module) -> list[int]:
    """Lines of the calls that read or write text in the encoding of the locale."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        names = {keyword.arg: keyword.value for keyword in node.keywords}
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        texts = [a.value for a in (*node.args, names.get("mode")) if isinstance(a, ast.Constant)]
        modes = [t for t in texts if isinstance(t, str) and re.fullmatch(r"[rwax][bt+]*", t)]
        if called in ("read_text", "write_text"):
            wrong = len(node.args) < (1 if called == "read_text" else 2)
        elif called in ("open", "fdopen"):
            built_in = isinstance(node.func, ast.Name) or called == "fdopen"
            wrong = any("b" not in mode for mode in modes) or (built_in and not modes)
        else:
            flags = [names.get("text"), names.get("universal_newlines")]
            wrong = any(isinstance(f, ast.Constant) and f.value is True for f in flags)
        if wrong and "encoding" not in names:
            found.append(node.lineno)
    return found


def test_the_rule_for_files_itself() -> None:
    wrong = [
        "path.read_text()",
        "path.write_text(text)",
        "open(path)",
        "open(path, 'w')",
        "path.open('a')",
        "path.open(mode='r+')",
        "os.fdopen(handle)",
        "subprocess.run(command, text=True)",
    ]
    right = [
        "path.read_text(encoding='utf-8')",
        "path.write_text(text, 'utf-8')",
        "open(path, 'rb')",
        "path.open('xb')",
        "path.open('a', encoding='utf-8')",
        "os.fdopen(handle, 'wb')",
        "subprocess.run(command, encoding='utf-8')",
        "Image.open(path)",
    ]
    assert _calls_without_encoding(ast.parse("\n".join(wrong))) == list(range(1, len(wrong) + 1))
    assert _calls_without_encoding(ast.parse("\n".join(right))) == []


def test_every_file_that_we_open_names_its_encoding() -> None:
    files = [
        ROOT / "setup.py",
        *(
            p
            for name in ("benchmark", "algorithms", "datasets")
            for p in ROOT.joinpath(name).rglob("*.py")
        ),
    ]
    assert len(files) > 100
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in _calls_without_encoding(tree_of(path))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
def test_python_finds_no_file_of_ours_without_encoding(folder: Path, tmp_path: Path) -> None:
    """Python's own check of the code that really runs, in the processes of runs too."""
    out = os.fsencode(tmp_path / "out")
    warn = {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONWARNINGS": "always::EncodingWarning"}
    output = ""
    for arguments in (
        [b"sweep", b"launch", *words("SWEEP", folder), b"--device", b"cpu", b"--output", out],
        [b"sweep", b"status", out],
        [b"collect_results", out],
        [b"data", b"check", b"digits_on_photos"],
    ):
        code, text = run(arguments, folder, **warn)
        assert code == 0, text
        output += text
    outputs = list((tmp_path / "out" / "runs").glob("*/output.txt"))
    output += "".join(path.read_text(encoding="utf-8") for path in outputs)
    assert outputs
    ours = [
        line
        for line in output.splitlines()
        if "EncodingWarning" in line
        and line.startswith(
            tuple(str(ROOT / name) for name in ("benchmark", "algorithms", "datasets"))
        )
    ]
    assert not ours, "\n".join(ours)


@pytest.mark.parametrize(
    "shut",
    [
        pytest.param("1>&-", marks=pytest.mark.slow),
        pytest.param("2>&-", marks=pytest.mark.slow),
        "1>&- 2>&-",
    ],
)
def test_a_command_whose_streams_are_closed(shut: str, folder: Path, tmp_path: Path) -> None:
    """As a service starts it; its files are written all the same."""
    out = str(tmp_path / "out")
    for arguments, expected in (
        (["sweep", "list", "criteria"], 0),
        (["sweep", "status", str(folder / "fake")], 1),
        (["sweep", "status", "nowhere"], 2),
        (["collect_results", str(folder / "fake"), "--tables-only", "--out", out], 0),
    ):
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" -m "benchmark.$@" {shut}', sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == expected and b"Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "out" / "tables.txt").exists()
