"""Linear probes of the features of finished runs, for the label and for the confounder.

    python tests/benchmarks/feature_probe.py results/ex2l_small --methods erm dfr
    python tests/benchmarks/feature_probe.py results/ex2l_small --split deceiving

Retraining the last layer (DFR) can only use information that the features contain. For each run
with stored features of the split (up to 512 images, their leading principal components), a logistic
regression is fitted and cross-validated with five folds. On a split where label and confounder are
independent, the chance level of the label is one over the number of classes. The output is a
Markdown table with mean ± sd over the runs of a row.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmark.core.files import read_json
from benchmark.core.spec import RunSpec

STRENGTHS = (1.0, 0.1, 0.01)


def probe(feature: np.ndarray, target: np.ndarray) -> float:
    """Return the cross-validated accuracy of the best of three penalties, in per cent.

    The choice of the penalty makes it slightly too high.
    """
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    models = (
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5000)) for c in STRENGTHS
    )
    return 100 * max(cross_val_score(model, feature, target, cv=folds).mean() for model in models)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="a sweep's folder")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--split", default="unbiased")
    given = parser.parse_args()
    rows: dict[tuple[str, str, int, int], list[tuple[float, float]]] = defaultdict(list)
    for path in sorted(given.sweep.glob("runs/*/embeddings.npz")):
        spec = RunSpec.from_json(read_json(path.parent / "spec.json"), str(path))
        if given.methods and spec.method not in given.methods:
            continue
        with np.load(path, allow_pickle=False) as file:
            here = file["split"] == given.split
            if "confounder" not in file.files or not here.any():
                continue
            feature, targets = (
                file["feature"][here],
                (file["label"][here], file["confounder"][here]),
            )
        row = spec.dataset, spec.method, spec.budget["steps"], spec.draw
        rows[row].append((probe(feature, targets[0]), probe(feature, targets[1])))
    print(f"Linear probes on the features of split {given.split}, accuracy in per cent\n")
    print("| data | method | steps | draw | runs | label | confounder |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for (data, method, steps, draw), found in sorted(rows.items()):
        cells = [
            f"{statistics.fmean(column):.1f}"
            + (f" ± {statistics.stdev(column):.1f}" if len(column) > 1 else "")
            for column in zip(*found, strict=True)
        ]
        print(f"| {data} | {method} | {steps} | {draw} | {len(found)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
