"""Mutated sweep files: equal content gives equal runs, other content other runs or an error."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark import sweep
from benchmark.core.errors import UserError
from benchmark.core.files import read_json
from benchmark.core.layout import SweepFolder
from benchmark.core.spec import RunSpec
from benchmark.plan.planner import Plan, expand
from benchmark.plan.sweep_folder import read_stored, write_plan
from benchmark.plan.sweepfile import read_sweep
from tests.fuzz.mutators import ODD_VALUES, mutate_toml, write_toml
from tests.fuzz.oracle import Tally, limited, run, snapshot

#: Sweeps on data that need no download; together they use every key that a sweep file may have.
BASES: tuple[dict[str, Any], ...] = (
    {
        "title": "All of it",
        "datasets": ["tiny:bias=0.8,size=32", "tiny:side=24"],
        "algorithms": ["erm", "cdan:cdann", "group_dro"],
        "backbone": "convnet:width=8",
        "trials": [42, 8],
        "draws": 2,
        "selection": ["val_worst_group", "last"],
        "oracle": True,
        "budget": {"steps": 20, "min_delta": 1.0, "evaluate_every": 5},
        "fixed": {"lr": 0.01, "batch_size": 16},
        "override": {
            "erm": {"lr": 0.1, "budget": {"steps": 10}},
            "group_dro@tiny": {"weight_decay": 0.5},
            "tiny:side=24": {"augmentation": {"flip": 0.25}},
        },
        "augmentation": {"flip": 0.5},
        "compute": {"precision": "bf16", "channels_last": True},
    },
    {
        "datasets": ["tiny"],
        "algorithms": ["erm", "jtt", "rrr", "irm"],
        "trials": 2,
        "selection": ["val_accuracy", "last"],
        "budget": {"steps": 4, "evaluate_every": 2, "patience": 3},
        "override": {"rrr@tiny": {"dataset": {"bias": 0.5}}, "irm": {"penalty_weight": 100.0}},
    },
    {
        "title": "Quickstart",
        "datasets": ["digits_on_photos:places=2,bias=0.95"],
        "algorithms": ["erm", "reweight", "coral", "dann"],
        "backbone": "convnet",
        "trials": 3,
        "selection": ["val_mean", "last"],
        "skip_impossible": True,
        "budget": {"steps": 600, "evaluate_every": 100},
    },
)  # fmt: skip

#: Values by path that change what every run, or some run, of a base means.
Leaf = tuple[str, ...]


def leaves(values: Any, above: Leaf = ()) -> list[Leaf]:
    if not isinstance(values, dict):
        return [above]
    return [leaf for name, value in values.items() for leaf in leaves(value, (*above, name))]


def other_value(chance: random.Random, leaf: Leaf, value: Any) -> Any:
    """A value that means something else, and may be right or wrong."""
    if chance.random() < 0.5:
        odd = [v for v in ODD_VALUES if v is not None and v != value and _writable(v)]
        return copy.deepcopy(chance.choice(odd))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return chance.choice(
            (value + 1, value * 2, value / 2 if isinstance(value, float) else value + 3)
        )
    if isinstance(value, list):
        more = {"datasets": "tiny:bias=0.7", "algorithms": "vrex", "selection": "val_mean"}
        shorter = value[1:] or ["x"]
        return chance.choice((shorter, [*value, more.get(leaf[-1], 99)]))
    return {"backbone": "convnet:width=12", "precision": "fp32"}.get(leaf[-1], value + "x")


def _writable(value: Any) -> bool:
    """Return True if TOML can represent the value."""
    if isinstance(value, str):
        return value.isprintable()
    if isinstance(value, list):
        return all(_writable(v) and v is not None for v in value)
    if isinstance(value, dict):
        return all(_writable(v) and v is not None for v in value.values())
    return value == value and value not in (float("inf"), float("-inf"))


def respelled(chance: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    """The same sweep, with its data sets and counts written in another way."""
    values = copy.deepcopy(values)
    for i, text in enumerate(values["datasets"]):
        if text in values.get("override", {}):
            continue  # an override is found by the name as it is written
        name, _, rest = text.partition(":")
        parts = [part for part in rest.split(",") if part]
        chance.shuffle(parts)
        space = chance.choice(("", " "))
        if parts and chance.random() < 0.5:
            parts = [part.replace("=", f"{space}={space}") for part in parts]
            values["datasets"][i] = name + ":" + f",{space}".join(parts)
    if isinstance(values.get("trials"), int) and chance.random() < 0.5:
        values["trials"] = list(range(values["trials"]))
    if "draws" not in values and chance.random() < 0.5:
        values["draws"] = chance.choice((0, [0]))
    if chance.random() < 0.3:
        values.setdefault("oracle", False)
        values.setdefault("skip_impossible", False)
    for name in ("algorithms", "datasets"):
        if chance.random() < 0.3:
            chance.shuffle(values[name])
    return values


def plan_of(path: Path, nothing: Path) -> Plan | str:
    """The plan of a sweep file, or why there is none."""
    try:
        with limited(30.0):
            return expand(read_sweep(path), nothing)
    except UserError as error:
        return str(error)


def same_meaning(chance: random.Random, base: dict[str, Any]) -> tuple[str, bytes]:
    text = write_toml(chance, respelled(chance, base))
    return "the same in other words", text.encode()


def other_meaning(chance: random.Random, base: dict[str, Any]) -> tuple[str, bytes]:
    values = copy.deepcopy(base)
    leaf = chance.choice([leaf for leaf in leaves(values) if leaf != ("title",)])
    table = values
    for name in leaf[:-1]:
        table = table[name]
    before = table[leaf[-1]]
    table[leaf[-1]] = other_value(chance, leaf, before)
    what = f"{'.'.join(leaf)} = {str(table[leaf[-1]])[:60]!r} instead of {before!r}"
    return what, write_toml(chance, values).encode()


def damaged(chance: random.Random, base: dict[str, Any]) -> tuple[str, bytes]:
    return mutate_toml(chance, write_toml(random.Random(0), base))


KINDS: dict[Callable[[random.Random, dict[str, Any]], tuple[str, bytes]], int] = {
    same_meaning: 25,
    other_meaning: 30,
    damaged: 45,
}


def means_something_else(what: str, plan: Plan, keys: set[str]) -> bool:
    """Return True if a changed value may leave all runs as they were, such as a default."""
    return set(plan.runs) != keys or what.startswith("skip_impossible")


def written_back(plan: Plan, folder: Path) -> str:
    """Return the fault of a plan that was written and read again, or an empty text."""
    keys = write_plan(plan, folder)
    stored = read_stored(folder)
    if set(stored.runs) != set(keys) or set(keys) != set(plan.runs):
        return "sweep.json lists other runs than the plan"
    for key in keys:
        spec = RunSpec.from_json(read_json(SweepFolder(folder).run(key).spec))
        if spec.key != key or spec != plan.runs[key].spec:
            return f"{key} has another key or spec when it is read"
    return ""


def fuzz(cases: int, home: Path) -> None:
    tally = Tally.of("sweep_files", cases)
    nothing = home / "nothing"
    nothing.mkdir()
    keys = []
    for base in BASES:
        path = home / "base.toml"
        path.write_text(write_toml(random.Random(0), base))
        plan = plan_of(path, nothing)
        assert isinstance(plan, Plan), plan
        keys.append(set(plan.runs))
        path.unlink()
    kinds, weights = list(KINDS), list(KINDS.values())
    for number in tally.numbers():
        chance = tally.chance(number)
        which = chance.randrange(len(BASES))
        mutate = chance.choices(kinds, weights)[0]
        what, content = mutate(chance, BASES[which])
        path = home / "mine.toml"
        path.write_bytes(content)
        before = snapshot(home)
        answer = run(sweep.main, ["validate", str(path), "--data-dir", str(nothing)])
        tally.judge(number, answer, f"{what}\n{content[:1500].decode('utf-8', 'replace')}")
        if snapshot(home) != before:
            tally.fault(number, "validate wrote something", what)
        if answer.code != 0:
            tally.outcomes["refused"] += 1
            if mutate is same_meaning and not answer.trace:
                detail = f"{content.decode()}\n{answer.err}"
                tally.fault(number, "the same meaning is refused", detail)
            continue
        plan = plan_of(path, nothing)
        assert isinstance(plan, Plan), plan
        tally.outcomes[f"accepted, {mutate.__name__.replace('_', ' ')}"] += 1
        if mutate is same_meaning and set(plan.runs) != keys[which]:
            tally.fault(number, "the same meaning gives other runs", content.decode())
        if mutate is other_meaning and not means_something_else(what, plan, keys[which]):
            tally.fault(number, "another meaning gives the same runs", what)
        if len(plan.runs) <= 60:
            problem = written_back(plan, home / f"plan{number}")
            if problem:
                tally.fault(number, problem, what)
    tally.finish()


def test_mutated_sweep_files_in_short(tmp_path: Path) -> None:
    fuzz(20, tmp_path)


@pytest.mark.very_slow
def test_mutated_sweep_files(tmp_path: Path) -> None:
    fuzz(500, tmp_path)
