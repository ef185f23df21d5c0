"""The example of docs/adding_a_dataset.md is loaded, and found as an installed package."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tomllib
import types
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import benchmark.core
import benchmark.core.registry
from benchmark.core.dataset import AUGMENTATIONS, DatasetInfo, DatasetSource, Split
from benchmark.core.errors import UserError
from benchmark.core.registry import Registry
from tests.support.dataset_equality import same

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "adding_a_dataset.md").read_text(encoding="utf-8")
LABELS = ("normal", "pneumonia")
WARDS = ("outpatients", "intensive_care")


def block(first_line: str) -> str:
    """Return the code block that begins with a comment naming the file."""
    found = re.findall(rf"```\w+\n# {re.escape(first_line)}\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Replace the registry by an empty one, so that the example does not affect other tests."""
    benchmark.core.registry.DATASETS.names()  # fill the real registry before it is replaced
    fresh = Registry("dataset", "datasets", "shortcutbed.datasets")
    monkeypatch.setattr(benchmark.core.registry, "DATASETS", fresh)
    return fresh


@pytest.fixture
def wards(registry: Registry) -> type[DatasetSource]:
    module = types.ModuleType("datasets.wards")
    exec(compile(block("datasets/wards.py"), "wards.py", "exec"), module.__dict__)
    assert module.Wards.name in registry.known_modules()
    kind: type[DatasetSource] = module.Wards
    return kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each of 100 patients; the grey value of an image reveals its row."""
    root = tmp_path_factory.mktemp("data")
    (root / "wards").mkdir()
    with (root / "wards" / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["filename", "label", "ward", "patient"])
        for row in range(300):
            Image.new("L", (20, 20), row % 256).save(root / "wards" / f"{row}.png")
            patient = row // 3
            table.writerow(
                [f"{row}.png", LABELS[patient % 2], WARDS[patient // 2 % 2], f"p{patient}"]
            )
    return root


def test_example_loads_what_it_declares(wards: type[DatasetSource], folder: Path) -> None:
    data = wards(folder, side=16, bias=0.8).load(0)
    train = data.splits["train"]
    assert train.image.shape[1:] == (1, 16, 16)
    assert abs((train.label == train.confounder).mean() - 0.8) < 0.02
    assert (train.environment == (train.label != train.confounder)).all()
    assert (data.splits["biased"].label == data.splits["biased"].confounder).all()
    assert (data.splits["deceiving"].label != data.splits["deceiving"].confounder).all()
    patients = [set(split.cluster.tolist()) for split in data.splits.values()]  # type: ignore[union-attr]
    assert sum(map(len, patients)) == len(set.union(*patients))
    for split in data.splits.values():
        assert split.cluster is not None
        _, number = np.unique([f"p{i}" for i in range(100)], return_inverse=True)
        patient = np.argsort(number)[split.cluster]  # the example numbers patients by name
        assert (split.label == patient % 2).all()
        grey = split.image[:, 0, 0, 0]
        assert all(
            g in {row % 256 for row in range(3 * p, 3 * p + 3)}
            for g, p in zip(grey, patient, strict=True)
        )


def test_example_follows_trial_options_and_files(
    wards: type[DatasetSource], folder: Path, tmp_path: Path
) -> None:
    assert same(wards(folder, side=8).load(1), wards(folder, side=8).load(1))
    assert not same(wards(folder, side=8).load(1), wards(folder, side=8).load(2))
    whole = wards(folder, side=8, bias=1)
    assert not whole.info().provides.environments
    train = whole.load(0).splits["train"]
    assert train.environment is None
    assert (train.label == train.confounder).all()
    prints = {wards(folder).fingerprint(), wards(folder, side=8).fingerprint(), whole.fingerprint()}
    table = (folder / "wards" / "metadata.csv").read_text(encoding="utf-8")
    (tmp_path / "wards").mkdir()
    for row in range(299):
        (tmp_path / "wards" / f"{row}.png").write_bytes(
            (folder / "wards" / f"{row}.png").read_bytes()
        )
    (tmp_path / "wards" / "metadata.csv").write_text(
        "".join(table.splitlines(keepends=True)[:-1]), encoding="utf-8"
    )
    prints.add(wards(tmp_path).fingerprint())
    assert len(prints) == 4


def test_the_example_reports_mistakes(
    wards: type[DatasetSource], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--data-dir"):
        wards().check()
    with pytest.raises(UserError, match=r"metadata\.csv, which does not exist"):
        wards(tmp_path).check()
    (tmp_path / "wards").mkdir()
    path = tmp_path / "wards" / "metadata.csv"
    path.write_text("filename,label,ward,patient\na.png,normal,outpatients,1\n")
    with pytest.raises(UserError, match=r"a\.png does not exist"):
        wards(tmp_path).check()
    path.write_text("filename,label,ward,patient\na.png,healthy,outpatients,1\n")
    with pytest.raises(
        UserError, match="expected filename, label, patient, ward with known values"
    ):
        wards(tmp_path).check()
    with pytest.raises(UserError, match=r"wards .*'size'.* side"):
        wards(folder, size=3)


def test_example_keeps_the_projects_style() -> None:
    for mode in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *mode, "-"]
        done = subprocess.run(
            command, input=block("datasets/wards.py"), text=True, capture_output=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_example_package_is_found_through_its_entry_point(
    registry: Registry, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write the module and its entry points as pip would."""
    project = tomllib.loads(block("shortcutbed-wards/pyproject.toml"))
    (module,) = project["tool"]["setuptools"]["py-modules"]
    (tmp_path / f"{module}.py").write_text(block("datasets/wards.py"), encoding="utf-8")
    info = tmp_path / f"{module}-{project['project']['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\n"
        f"Name: {project['project']['name']}\n"
        f"Version: {project['project']['version']}\n"
    )
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in points.items())
        for group, points in project["project"]["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert "wards" in registry.names()
        assert registry.origin("wards") == f"{module}.Wards"
        assert registry.get("wards")(folder, side=8).load(0).name == "wards"
    finally:
        sys.modules.pop(module, None)


def test_every_field_is_explained() -> None:
    for kind in (DatasetInfo, Split):
        for field in fields(kind):
            assert f"`{field.name}`" in TEXT, field.name
    for name in AUGMENTATIONS:
        assert f"`{name}`" in TEXT
    for method in ("info", "check", "content", "build"):
        assert f"`{method}(" in TEXT
        assert hasattr(DatasetSource, method)


def test_files_that_the_page_names_exist() -> None:
    for path in set(re.findall(r"`((?:datasets|tests|benchmark)/[\w/]+(?:\.py|/))`", TEXT)):
        assert (ROOT / path).exists(), path
