"""The commands of the README and of docs/commands.md are run as they are printed.

Only launches are made shorter, by the options in ``SHORT``.
"""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark import load_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text("utf-8")
SHORT = ["--steps", "20", "--trials", "1", "--set", "budget.evaluate_every=10"]
#: Where a command begins in a line of a block or in a cell of a table.
PATTERN = r"(?:^|`)(python -m benchmark\.[^`#\n]+)"


def commands(text: str) -> list[str]:
    """The commands of a page without those that name files of other programs."""
    found = [command.strip() for command in re.findall(PATTERN, text, flags=re.MULTILINE)]
    return list(dict.fromkeys(command for command in found if not command.endswith(" DIR")))


def block(text: str, first_line: str) -> str:
    """The fenced block that begins with a comment naming a file."""
    (found,) = re.findall(rf"```python\n# {re.escape(first_line)}\n(.*?)```", text, re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short quickstart, and with what users have: images, a photograph."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SHORTCUTBED_CACHE", "")
        for command in commands(README)[:2]:
            assert execute(command) == 0
        data = (ROOT / "docs" / "data.md").read_text("utf-8")
        exec(compile(block(data, "make_my_data.py"), "make_my_data.py", "exec"), {})
        Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save("photo.png")
    return folder


def execute(command: str) -> int:
    """Run a command in the working directory; launches, in a process of their own."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    if words[2:4] == ["benchmark.sweep", "launch"]:
        python = [sys.executable, *words[1:], *SHORT]
        return subprocess.run(python, check=False).returncode
    try:
        return int(importlib.import_module(words[2]).main(words[3:]))
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("command", commands(README)[2:])
def test_the_readme(command: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("SHORTCUTBED_CACHE", "")
    if "my_model.pt2" in command:
        load_run("results/my_data", method="erm").export("my_model.pt2")
    # A check ends with 1 where it finds a problem, such as repeated images in generated data.
    assert execute(command) in ((0, 1) if "benchmark.data check" in command else (0,))


@pytest.mark.very_slow
def test_the_page_of_commands(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    listed = [command for command in commands(COMMANDS) if command not in commands(README)]
    assert len(listed) >= 20
    failed = [command for command in listed if execute(command) != 0]
    assert not failed


def test_the_method_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the checkout, the file is found by its name and trains."""
    for folder in ("benchmark", "algorithms", "datasets", "sweeps"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    name = "algorithms/spectral_decoupling.py"
    (tmp_path / name).write_text(block(README, name), "utf-8")
    command = (
        "-m benchmark.train --dataset tiny --algorithm spectral_decoupling --steps 4 "
        "--evaluate-every 2 --hparam penalty_weight=0.5 --backbone convnet:width=2"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run([sys.executable, *command.split()], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert list(tmp_path.glob("results/train/**/record.json"))


def test_its_loss_is_that_of_the_paper() -> None:
    """Cross-entropy plus λ/2 times the mean square of the logits, by hand."""
    import torch

    from tests.support.tiny import build, make_batch

    module = types.ModuleType("spectral_decoupling")
    text = block(README, "algorithms/spectral_decoupling.py").replace("@ALGORITHMS.register\n", "")
    exec(compile(text, "spectral_decoupling.py", "exec"), module.__dict__)
    algorithm = build(module.SpectralDecoupling, penalty_weight=0.5)
    batch = make_batch()
    logits = algorithm.predict(batch.image)
    terms = algorithm.loss(batch)
    expected = -logits.log_softmax(1)[torch.arange(len(logits)), batch.label].mean()
    torch.testing.assert_close(terms["classification"], expected)
    torch.testing.assert_close(terms["penalty"], 0.25 * (logits**2).mean())
