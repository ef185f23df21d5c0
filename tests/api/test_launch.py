"""A sweep launched from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark import launch
from benchmark.core.errors import UserError

SWEEP = """
datasets = ["tiny:size=64"]
algorithms = ["erm"]
backbone = "convnet:width=2"
trials = 1
[budget]
steps = 20
evaluate_every = 10
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(SWEEP)
    return path


@pytest.mark.slow
def test_a_sweep_is_launched_and_returned(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"set": ["budget.steps=4", "budget.evaluate_every=2"], "hparam": ["lr=0.5"]}
    sweep = launch(file, workers=1, device="cpu", algorithms=["erm", "group_dro"], **changes)
    assert sweep.folder == Path("results/mine") and sweep.states() == {"done": 2}
    assert "erm" in capsys.readouterr().out
    spec = sweep.load_run("group_dro").record.spec
    assert spec.training_budget.steps == 4 and spec.hparams["lr"] == 0.5
    again = launch(str(file), workers=1, device="cpu", algorithms=["erm", "group_dro"], **changes)
    assert again.states() == {"done": 2}
    assert "0 runs done" in capsys.readouterr().out


def test_mistakes_launch_nothing(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        launch("nowhere.toml")
    with pytest.raises(UserError, match="exit code 2"):
        launch(file, algorithms=["erm", "grup_dro"], hparam=["lr=0.1", "batch_size=8"])
    assert "grup_dro" in capfd.readouterr().out
    assert not Path("results").exists()
