"""A run, fully resolved: everything that its result depends on, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmark.core.decode import Count, Json, Key, Name, Positive, decode
from benchmark.core.errors import DamagedError, UserError, shown
from benchmark.core.files import read_bytes, read_json
from benchmark.core.layout import RunFolder
from benchmark.core.named_options import method_name
from benchmark.core.text import one_line

#: Version of spec.json, log.jsonl, record.json and failure.json; docs/log_schema.md describes it.
SCHEMA = 1
#: Bytes that a spec may have.
SPEC_BYTES = 1 << 22

#: The type of ``RunSpec.upstream``, for ``decode``.
_UPSTREAM: Any = Mapping[str, Key]

#: Steps of a run at most: more than any training of a network that fits one GPU has made.
MOST_STEPS = 100_000_000

#: The reason to stop that forbids writing anything more: another process may own the run by now.
LEASE_LOST = "lease lost"


@dataclass(frozen=True)
class RunSpec:
    """One run with all defaults resolved.

    Args:
        dataset, dataset_options, data_fingerprint: the data; every option is present.
        algorithm, variant, hparams: the method; every hyper-parameter is present.
        backbone, backbone_options: the network.
        augmentation: what is done to training images, by name.
        trial: the seed of data, split, weights and batches; draw: number of the hyper-parameter draw, 0 = defaults.
        budget: ``steps``, ``evaluate_every``, ``patience`` (evaluations without improvement; 0 = never stop early)
            and ``min_delta``.
        selection: criteria to select a step by; early stopping follows the first.
        oracle: whether test splits are evaluated along the way (shown in the tables).
        compute: ``precision`` (fp32 or bf16), ``channels_last``, ``compile``, ``deterministic`` (auto, true, false).
        upstream: keys of the runs that come first, by role.
        select_before_switch: whether a step may be selected at which the model is not yet the method's (see
            ``Algorithm.active_from``); false, the default, is left out of the JSON.
    """

    dataset: Name
    dataset_options: Mapping[str, Json]
    data_fingerprint: Name
    algorithm: Name
    variant: Name
    backbone: Name
    backbone_options: Mapping[str, Json]
    hparams: Mapping[str, Json]
    trial: Count
    draw: Count
    budget: Mapping[str, Json]
    selection: tuple[Name, ...]
    augmentation: Mapping[str, float] = field(default_factory=dict)
    oracle: bool = False
    compute: Mapping[str, Json] = field(default_factory=dict)
    upstream: Mapping[str, Key] = field(default_factory=dict)
    select_before_switch: bool = False
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the sha256 of the canonical JSON: the same work has the same key everywhere."""
        return _key_of(self.to_json())

    @property
    def method(self) -> str:
        """Algorithm and variant as sweep files write them: ``cdan`` or ``cdan:cdann``."""
        return method_name(self.algorithm, self.variant)

    def label(self) -> str:
        """A short name for people."""
        draw = f" draw {self.draw}" if self.draw else ""
        return f"{self.method} on {self.dataset}, trial {self.trial}{draw}"

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON can hold it; the tables are copies."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        tables = {
            name: dict(value) if isinstance(value, Mapping) else value for name, value in values
        }
        value = {**tables, "selection": list(self.selection)}
        if not self.select_before_switch:
            del value["select_before_switch"]  # older specs do not have it: their keys stay
        return value

    @classmethod
    def from_json(cls, value: Any, where: str = "spec.json") -> RunSpec:
        """The spec stored in a run folder.

        Raises:
            UserError: it is of another schema version.
            DamagedError: fields are missing, unknown, of the wrong type or out of bounds.
        """
        check_schema(value, where)
        names = {f.name for f in fields(cls)}
        check_fields(value, names, where, optional={"select_before_switch"})
        spec = decode(cls, value, where)
        decode(_Budget, value["budget"], where, "budget")
        if not spec.selection:
            raise DamagedError(f"{where} is damaged: selection is empty.")
        return spec


@dataclass(frozen=True)
class _Budget:
    """What a budget must hold; other entries are free."""

    steps: Count
    evaluate_every: Positive = 1
    patience: Count = 0
    min_delta: float = 0.0


def read_spec(folder: Path) -> RunSpec:
    """The spec in the folder of a run.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is of another schema version.
        DamagedError: it is damaged, or is not the spec whose key is the folder's name.
    """
    run = RunFolder(folder)
    try:
        spec = RunSpec.from_json(read_json(run.spec, SPEC_BYTES), str(run.spec))
    except DamagedError as error:
        raise DamagedError(
            f"{str(error).removesuffix('.')}; delete that run folder and launch again."
        ) from None
    if spec.key != run.key:
        raise DamagedError(
            f"{run.spec} does not belong to its folder; it was edited: delete that run folder and launch again."
        )
    return spec


def read_upstream(folder: Path) -> tuple[str, ...]:
    """The keys of the runs that the run in a folder needs.

    As ``read_spec`` for that alone, and several times as fast: JSON whose key is the name of the folder is what the
    planner wrote, so that nothing else of it needs to be checked.

    Raises:
        FileNotFoundError: there is no spec.
        UserError: it is of another schema version.
        DamagedError: it is damaged, or is not the spec whose key is the folder's name.
    """
    run = RunFolder(folder)
    content = read_bytes(run.spec, SPEC_BYTES)
    with suppress(ValueError, RecursionError):
        value = json.loads(content)
        if type(value) is dict and value.get("schema") == SCHEMA and _key_of(value) == run.key:
            needed = decode(_UPSTREAM, value.get("upstream"), str(run.spec), "upstream")
            return tuple(dict.fromkeys(needed.values()))
    return tuple(dict.fromkeys(read_spec(folder).upstream.values()))


def _key_of(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_fields(
    value: Mapping[str, Any], known: Set[str], where: str, optional: Set[str] = frozenset()
) -> None:
    """Raise a DamagedError unless a table has the known names, and no others than these and the optional ones."""
    odd = ", ".join(sorted((set(value) ^ known) - optional))
    if odd:
        raise DamagedError(
            f"{where} has missing or unknown fields ({one_line(odd)[:200]}); it was edited or damaged, or another "
            "version of ShortcutBed wrote it."
        )


def before_switch(step: int, switch: int) -> bool:
    """Whether a model after ``step`` training steps has had no step of its method, which begins at step ``switch``.

    A method without a switch (0) is what its name says from the start, even before its first step.
    """
    return switch > 0 and step <= switch


def check_schema(value: Any, where: str) -> None:
    """Raise a UserError unless ``value`` is a JSON table of this schema version."""
    found = value.get("schema") if isinstance(value, dict) else None
    if type(found) is not int or found != SCHEMA:
        raise UserError(
            f"{where} has schema version {shown(found)}, expected {SCHEMA}; another version of ShortcutBed wrote it: "
            "read it with that version, or launch into a new folder with --output."
        )


def check_key(key: str, path: Path) -> None:
    """Raise a DamagedError unless a file with this key lies in the folder of that run."""
    if key != path.parent.name:
        raise DamagedError(
            f"{path} is of the run {one_line(key)[:100]}, not of {path.parent.name}: files of two runs were mixed."
        )
