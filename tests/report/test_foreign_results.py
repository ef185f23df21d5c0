"""Test results of DomainBed and SubpopBench against exhaustive selection."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.collect_results import main
from benchmark.core.errors import UserError
from benchmark.report.external import domainbed, subpopbench
from benchmark.report.external.foreign_results import (
    ForeignResults,
    Score,
    is_before_switch,
    sheets,
)

ENVIRONMENTS, DRAWS, STEPS = 3, 3, (0, 10, 20)


def domainbed_sweep(
    folder: Path, trials: int = 2, dataset: str = "ColoredMNIST"
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Write runs with one and two hidden environments and random accuracies.

    The keys of the result are (algorithm, trial, draw, hidden environments, step).
    """
    rng, records = np.random.default_rng(0), {}
    hidden = [(e,) for e in range(ENVIRONMENTS)] + list(
        itertools.combinations(range(ENVIRONMENTS), 2)
    )
    for run, (algorithm, trial, draw, test) in enumerate(
        itertools.product(("ERM", "IRM"), range(trials), range(DRAWS), hidden)
    ):
        (folder / f"run{run}").mkdir(parents=True)
        lines = []
        for step in STEPS:
            record: dict[str, Any] = {"step": step, "loss": 1.0, "hparams": {"lr": 0.1}}
            record["args"] = {
                "algorithm": algorithm,
                "dataset": dataset,
                "trial_seed": trial,
                "hparams_seed": draw,
                "test_envs": list(test),
            }
            for e in range(ENVIRONMENTS):
                record |= {
                    f"env{e}_in_acc": float(rng.random()),
                    f"env{e}_out_acc": float(rng.random()),
                }
            records[algorithm, trial, draw, test, step] = record
            lines.append(json.dumps(record) + "\n")
        (folder / f"run{run}" / "results.jsonl").write_text("".join(lines))
    return records


def dense(
    records: dict[tuple[Any, ...], dict[str, Any]],
    selection: str,
    algorithm: str,
    trial: int,
    e: int,
) -> float:
    """Return the selected test accuracy by trying every draw and step."""
    best = (-1.0, -1.0)
    others = [i for i in range(ENVIRONMENTS) if i != e]
    for draw, step in itertools.product(range(DRAWS), STEPS):
        alone = records[algorithm, trial, draw, (e,), step]
        if selection.startswith("training"):
            validation = sum(alone[f"env{i}_out_acc"] for i in others) / len(others)
        elif selection.startswith("leave"):
            pairs = [
                records[algorithm, trial, draw, tuple(sorted((e, i))), step][f"env{i}_in_acc"]
                for i in others
            ]
            validation = sum(pairs) / len(pairs)
        elif step == STEPS[-1]:
            validation = alone[f"env{e}_out_acc"]
        else:
            continue
        best = max(best, (validation, alone[f"env{e}_in_acc"]))
    return best[1]


def test_domainbed_selections_against_trying_all(tmp_path: Path) -> None:
    records = domainbed_sweep(tmp_path)
    found = domainbed.read(tmp_path)
    scores = {(s.selection, s.method, s.column): s for s in found.scores}
    assert found.records == len(records) and found.notes == []
    assert len(scores) == 3 * 2 * (ENVIRONMENTS + 1)
    for selection, algorithm in itertools.product(domainbed.SELECTIONS, ("ERM", "IRM")):
        means = []
        for e, name in enumerate(("+90%", "+80%", "-90%")):
            expected = {t: dense(records, selection, algorithm, t, e) for t in range(2)}
            assert scores[selection, algorithm, name].trials == pytest.approx(expected)
            means.append(np.mean(list(expected.values())))
        assert scores[selection, algorithm, "Avg"].mean == pytest.approx(np.mean(means))


def test_domainbeds_irm_is_marked_where_it_was_chosen_before_its_penalty(tmp_path: Path) -> None:
    """Records of steps 0, 10 and 20 follow 1, 11 and 21 updates; the penalty begins at 20."""
    domainbed_sweep(tmp_path)
    for path in tmp_path.glob("*/results.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            record["hparams"]["irm_penalty_anneal_iters"] = 20
            best = record["step"] == (10 if record["args"]["trial_seed"] == 0 else 20)
            for e in range(ENVIRONMENTS):
                record[f"env{e}_out_acc"] = record[f"env{e}_in_acc"] = 0.9 if best else 0.1
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = domainbed.read(tmp_path)
    early = {(s.selection, s.method): s.early for s in found.scores if s.column == "Avg"}
    training, leave_one_out, oracle = domainbed.SELECTIONS
    assert early[training, "IRM"] == early[leave_one_out, "IRM"] == {0}
    assert early[oracle, "IRM"] == frozenset()  # always the last step
    assert not any(trials for (_, method), trials in early.items() if method == "ERM")
    marked = {s.caption[0].split("selection: ")[1]: s for s in sheets(found)}[f"{training}."]
    cells = {row[0]: row[1:] for row in marked.rows}
    assert all(cell.endswith("†") for cell in cells["IRM"])
    assert not any(cell.endswith("†") for cell in cells["ERM"])
    assert any(note.startswith("† IRM:") and "(trial 0)" in note for note in marked.notes)


@pytest.mark.parametrize(
    ("method", "hparams", "step", "early"),
    [
        ("IRM", {"irm_penalty_anneal_iters": 500}, 499, True),
        ("IRM", {"irm_penalty_anneal_iters": 500}, 500, False),
        ("IRM", {"irm_penalty_anneal_iters": 0}, 0, False),
        ("IRM", {}, 0, False),
        ("IRM", None, 0, False),
        ("IRM", [500], 0, False),
        ("IRM", {"irm_penalty_anneal_iters": "500"}, 0, False),
        ("IRM", {"irm_penalty_anneal_iters": math.nan}, 0, False),
        ("IB_IRM", {"irm_penalty_anneal_iters": 5, "ib_penalty_anneal_iters": 50}, 49, True),
        ("EQRM", {"eqrm_burnin_iters": 316.2}, 316, True),
        ("EQRM", {"eqrm_burnin_iters": 316.2}, 317, False),
        ("JTT", {"first_stage_step_frac": 0.5, "steps": 300}, 149, True),
        ("JTT", {"first_stage_step_frac": 0.5, "steps": 300}, 150, False),
        ("ERM", {"irm_penalty_anneal_iters": 500}, 0, False),
    ],
)
def test_when_a_method_of_the_others_begins(
    method: str, hparams: Any, step: int, early: bool
) -> None:
    record = {"args": {"algorithm": method}, "hparams": hparams, "step": step}
    assert is_before_switch(record) is early


def test_subpopbenchs_irm_is_marked_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for seed in range(2):
        records = [subpop_record(seed, 0, step, rng) for step in range(4)]
        for record in records:
            record["args"]["algorithm"] = "IRM"
            record["hparams"] = {"irm_penalty_anneal_iters": 4 if seed else 0}
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "results.json").write_text(
            "".join(json.dumps(record) + "\n" for record in records)
        )
    found = subpopbench.read(tmp_path)
    assert found.scores and all(score.early == {1} for score in found.scores)


def test_standard_error_is_theirs() -> None:
    score = Score("d", "s", "m", "c", {0: 0.1, 1: 0.2, 2: 0.3})
    assert (f"{score.mean * 100:.1f}", f"{score.error * 100:.1f}") == (
        "20.0",
        "4.7",
    )  # DomainBed's own example


def test_incomplete_sweeps_leave_dashes_and_notes(tmp_path: Path) -> None:
    domainbed_sweep(tmp_path, trials=1, dataset="Unheard")
    for path in tmp_path.glob("*/results.jsonl"):
        record = json.loads(path.read_text().splitlines()[0])["args"]
        if record["algorithm"] == "IRM" and (
            0 in record["test_envs"] or len(record["test_envs"]) == 2
        ):
            path.unlink()
    (tmp_path / "run0" / "results.jsonl").open("a").write('{"args": {"algo')
    (tmp_path / "run1" / "results.jsonl").open("a").write('{"step": 3}\n[1]\n')
    found = domainbed.read(tmp_path)
    by_selection = {}
    for sheet in sheets(found):
        by_selection[sheet.caption[0].split("selection: ")[1]] = {
            row[0]: row[1:] for row in sheet.rows
        }
    irm = by_selection["training-domain validation set."]["IRM"]
    assert irm[0] == "–" and irm[-1] == "–" and "±" in irm[1]
    assert "IRM" not in by_selection["leave-one-domain-out cross-validation."]
    notes = " ".join(found.notes)
    for part in (
        "12 folders without results.jsonl",
        "1 torn lines",
        "2 records without what is needed",
    ):
        assert part in notes
    assert "env0" in sheets(found)[0].heads[1]


@pytest.mark.skipif(
    "DOMAINBED" not in os.environ, reason="DOMAINBED does not name a checkout of DomainBed"
)
def test_domainbeds_own_sweep_gives_its_own_numbers() -> None:
    folder = Path(os.environ["DOMAINBED"]) / "domainbed" / "misc" / "test_sweep_data"
    expected = []
    for line in (folder.parent / "test_sweep_results.txt").read_text().splitlines():
        if line.startswith("ERM") and line.count("+/-") == 4:
            expected.append(line.replace(" +/- ", " ± ").split("  "))
    found = [sheet.rows[0] for sheet in sheets(domainbed.read(folder))]
    for row, cells in zip(found, expected, strict=True):
        *envs, average = [cell.strip() for cell in cells if cell.strip()]
        assert row[:5] == envs and row[5].split(" ")[0] == average


def subpop_record(
    seed: int, draw: int, step: int, rng: np.random.Generator, dataset: str = "Waterbirds"
) -> dict[str, Any]:
    def part() -> dict[str, Any]:
        classes = {
            str(k): {name: float(rng.random()) for name in ("precision", "recall", "f1-score")}
            for k in range(2)
        }
        return {
            "overall": {
                "accuracy": float(rng.random()),
                "balanced_acc": float(rng.random()),
                "AUROC": None,
                "ECE": 0.1,
                "macro_avg": {"precision": float(rng.random()), "f1-score": float(rng.random())},
            },
            "min_group": {"accuracy": float(rng.random())},
            "per_class": classes,
            "adjusted_accuracy": float(rng.random()),
        }

    args = {"dataset": dataset, "algorithm": "ERM", "seed": seed, "hparams_seed": draw}
    return {"args": args, "step": step, "va": part(), "te": part(), "zs": part()}


def test_subpopbench_against_trying_all(tmp_path: Path) -> None:
    rng, records = np.random.default_rng(1), {}
    for seed, draw in itertools.product(range(2), range(3)):
        (tmp_path / f"{seed}_{draw}").mkdir()
        group = [subpop_record(seed, draw, step, rng) for step in range(4)]
        records |= {(seed, draw, r["step"]): r for r in group}
        (tmp_path / f"{seed}_{draw}" / "results.json").write_text(
            "".join(json.dumps(r) + "\n" for r in group)
        )
    found = subpopbench.read(tmp_path)
    value = {
        "test set worst accuracy (oracle)": lambda r: r["te"]["min_group"]["accuracy"],
        "validation set worst accuracy (with attributes)": lambda r: r["va"]["min_group"][
            "accuracy"
        ],
        "validation set worst accuracy (without attributes)": lambda r: min(
            c["recall"] for c in r["va"]["per_class"].values()
        ),
    }
    for selection, take in value.items():
        scores = {s.column: s for s in found.scores if s.selection == selection}
        assert "AUROC" not in scores  # null in every record: no number, no column, no NaN
        for seed in range(2):
            best = max((r for (s, _, _), r in records.items() if s == seed), key=take)
            assert scores["Worst"].trials[seed] == best["te"]["min_group"]["accuracy"]
            assert scores["WorstF1"].trials[seed] == min(
                c["f1-score"] for c in best["te"]["per_class"].values()
            )
            assert scores["Adjusted"].trials[seed] == best["te"]["adjusted_accuracy"]


def test_subpopbench_other_test_splits(tmp_path: Path) -> None:
    record = subpop_record(0, 0, 0, np.random.default_rng(2), "Living17")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.json").write_text(json.dumps(record) + "\n")
    found = subpopbench.read(tmp_path)
    assert (
        next(s for s in found.scores if s.column == "Worst").mean
        == record["zs"]["min_group"]["accuracy"]
    )


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        domainbed.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no folder in .* holds results\.jsonl"):
        domainbed.read(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "results.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="1 records without what is needed"):
        sheets(domainbed.read(tmp_path))
    with pytest.raises(UserError, match="no run"):
        sheets(ForeignResults("DomainBed"))
    with pytest.raises(UserError, match="needs the folder"):
        main(["--from", "domainbed"])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    domainbed_sweep(tmp_path / "in", trials=1)
    for form in ("text", "latex", "csv", "markdown", "json"):
        assert main(["--from", "domainbed", str(tmp_path / "in"), "--format", form]) == 0
        old = capsys.readouterr()
        assert "ERM" in old.out and "collect_results import domainbed" in old.err
        assert main(["import", "domainbed", str(tmp_path / "in"), "--format", form]) == 0
        assert capsys.readouterr() == (old.out, "")
    assert main(["--from", "domainbed", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert len(written["records"]) == 3 * 2 * (ENVIRONMENTS + 1)
