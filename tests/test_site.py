"""The documentation as a site, the tour as a notebook, and the examples for other packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.api.conftest import sweep as sweep  # a finished run of ERM

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs pip install 'shortcutbed[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    home = (tmp_path / "index.html").read_text("utf-8")
    assert 'href="measured/quickstart/"' in home and 'src="images/quickstart.png"' in home
    reference = (tmp_path / "reference" / "index.html").read_text("utf-8")
    assert 'id="benchmark.api.run.load_run"' in reference
    assert "Load a finished run." in reference  # from the docstring


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    )
    assert "equal logits: True" in printed


@pytest.mark.parametrize("package", ["captum", "zennit", "quantus"])
def test_other_packages_accept_the_network(
    package: str, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of docs/python.md, in their order, up to the one that uses the package."""
    import torch

    from benchmark import load_run

    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a.png", 0), ("b.png", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(name)
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    section = text[text.index("## Other packages") : text.index("## Export")]
    run = load_run(sweep, method="erm")
    names = {"run": run, "torch": torch}
    for block in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
        other = re.search(r"^(?:from|import) (captum|zennit|quantus)", block, flags=re.MULTILINE)
        if other is None or other[1] == package:
            exec(compile(block, "python.md", "exec"), names)
    attribution = names["attribution"].detach().numpy()
    assert attribution.shape[0] == 2 and np.isfinite(attribution).all() and attribution.any()
    if package == "quantus":
        assert len(names["scores"]) == 2 and np.isfinite(names["scores"]).all()
    if package == "captum":  # integrated gradients sum to the difference of the logits
        with torch.no_grad():
            image = names["image"]
            logits = run.network(torch.cat([image, torch.zeros_like(image)])).view(2, 2, -1)
        rows = torch.arange(2)
        difference = logits[0, rows, names["target"]] - logits[1, rows, names["target"]]
        np.testing.assert_allclose(attribution.sum((1, 2, 3)), difference, rtol=0.1, atol=0.05)
