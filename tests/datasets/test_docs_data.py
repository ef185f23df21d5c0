"""The examples of docs/data.md are run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmark.core.named_options import parse_named_options
from benchmark.core.registry import DATASETS
from benchmark.data import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    (found,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", TEXT, flags=re.DOTALL)
    return str(found)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHORTCUTBED_CACHE", "")
    for script in ("make_my_data.py", "make_my_table.py"):
        exec(compile(block(script), script, "exec"), {})
    return tmp_path


def words(command: str) -> list[str]:
    """Split a command like a shell; it must be a single command of words and quotes."""
    found = shlex.shlex(command, posix=True, punctuation_chars=True)
    found.whitespace_split = True
    out = list(found)
    assert not any(word[0] in ";&|<>()" for word in out if word), command
    return out


def test_commands_are_valid_in_a_shell() -> None:
    commands = re.findall(r"^(python -m .*?)(?: +#.*)?$", TEXT, flags=re.MULTILINE)
    assert len(commands) >= 9
    for command in commands:
        assert words(command)[:2] == ["python", "-m"]
    with pytest.raises(AssertionError):
        words("python -m benchmark.train --dataset planted:options=path=a;side=32 --steps 1")


def test_the_tree_and_its_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = r"^python -m benchmark\.data ((?:check|show) (?:folder|planted|listed).*)$"
    commands = re.findall(pattern, TEXT, flags=re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        assert main(words(command)) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert (
        "disc/bright 2, disc/dark 18, square/bright 18, square/dark 2" in out
        and out.count("no problem found") == 3
    )
    for name in ("sheet.png", "tagged.png"):
        Image.open(here / name).verify()


def test_training_commands_use_data_that_load(here: Path) -> None:
    commands = re.findall(r"^python -m benchmark\.train .*$", TEXT, flags=re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        given = words(command)
        named = parse_named_options(given[given.index("--dataset") + 1])
        kind = DATASETS.get(named.name)
        options = {
            name: kind.options[name].parse(name, value) for name, value in named.options.items()
        }
        data = kind(here / "data", **options).load(0)
        assert data.info.image_size == (3, 32, 32) and data.info.bias_splits == (
            "biased",
            "deceiving",
        )


def test_planting_in_python(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("plant.py"), "plant.py", "exec"), {})
    assert capsys.readouterr().out.startswith("(4, 3, 64, 64) [")


def test_every_data_set_is_on_the_page() -> None:
    for name in DATASETS.names():
        assert f"`{name}" in TEXT, name


def test_the_page_keeps_the_projects_style() -> None:
    for name in ("make_my_data.py", "plant.py"):
        command = [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--stdin-filename",
            "datasets/example.py",
            "-",
        ]
        done = subprocess.run(
            command, input=block(name), text=True, capture_output=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stdout
