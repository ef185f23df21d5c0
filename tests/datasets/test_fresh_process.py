"""A fresh process: the same arrays, and planning without heavy libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmark.core.registry import DATASETS
from tests.support.dataset_equality import digest
from tests.support.mnist_tree import make_tree

ROOT = Path(__file__).resolve().parents[2]
OURS = ("digits_on_photos", "coloured_digits", "coloured_mnist", "cmnist")

CODE = """
import importlib, json, sys
from pathlib import Path
from benchmark.core.registry import DATASETS
kinds = {}
for name in sys.argv[2:]:
    module = importlib.import_module(f"datasets.{name}")
    assert name in DATASETS.known_modules()
    (kind,) = (each for each in vars(module).values() if getattr(each, "name", None) == name)
    kinds[name] = kind(Path(sys.argv[1]))
for kind in kinds.values():
    kind.info(), kind.check(), kind.content()
prints = {name: kind.fingerprint() for name, kind in kinds.items()}
names = ("torch", "torchvision", "sklearn", "skimage", "scipy", "PIL")
heavy = [name for name in names if name in sys.modules]
from tests.support.dataset_equality import digest
print(json.dumps([heavy, prints, {name: digest(kind.load(5)) for name, kind in kinds.items()}]))
"""


def test_planning_is_light_and_data_are_equal_in_a_fresh_process(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tree), *OURS],
        capture_output=True, text=True, cwd=ROOT, check=True, timeout=120,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    heavy, prints, digests = json.loads(done.stdout)
    assert heavy == []
    for name in OURS:
        kind = DATASETS.get(name)(tree)
        assert prints[name] == kind.fingerprint()
        assert digests[name] == digest(kind.load(5))
