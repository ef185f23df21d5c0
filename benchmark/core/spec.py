"""The spec of a run: everything that its result depends on, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from benchmark.core.decode import Count, Json, Key, Name, Positive, decode
from benchmark.core.errors import DamagedError, UserError, shown
from benchmark.core.files import read_bytes, read_json, to_json
from benchmark.core.layout import SPEC_NAME, RunFolder
from benchmark.core.named_options import method_name
from benchmark.core.text import one_line

#: Version of spec.json, log.jsonl, record.json and failure.json; see docs/log_schema.md.
SCHEMA = 1
#: Largest size of a spec in bytes.
SPEC_BYTES = 1 << 22

#: Measurements at the evaluations during training that a sweep can ask for: the mean AUC over
#: classes, and the distance of a student's heatmaps from its teacher's.
CURVES = ("auc", "distance")

#: The type of ``RunSpec.upstream``, for ``decode``.
_UPSTREAM: Any = Mapping[str, Key]

#: The explained class of a measurement: the model's prediction, or the label of the image.
PREDICTION = "prediction"
LABEL = "label"

#: Largest number of steps of a run: more than any network that fits one GPU was trained for.
MAX_STEPS = 100_000_000


@dataclass(frozen=True)
class Measurement:
    """A measurement of the explanations of a trained model, which is the upstream run ``model``.

    Args:
        explainer: Name of the explainer, or ``algorithm:variant`` of a trained one, which is the
            upstream run ``explainer``.
        options: All options of the explainer; empty for a trained one.
        metrics: Names of the metrics of explanations.
        images: Largest number of images of each split.
        splits: Splits whose images are explained.
        target: The explained class, ``prediction`` or ``label``. The default, ``prediction``, is
            not written to JSON.
    """

    explainer: Name
    options: Mapping[str, Json]
    metrics: tuple[Name, ...]
    images: Positive
    splits: tuple[Name, ...]
    target: Name = PREDICTION

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as JSON."""
        content = asdict(self) | {"metrics": list(self.metrics), "splits": list(self.splits)}
        if self.target == PREDICTION:
            del content["target"]
        return content


@dataclass(frozen=True)
class Budget:
    """The length of a run: the table ``budget`` of its spec.

    Attributes:
        steps: Largest number of training steps; 0 for a run that only measures.
        evaluate_every: Number of steps between two evaluations.
        patience: Number of evaluations without improvement after which the run stops; 0 for no
            early stopping.
        min_delta: Smallest increase of the criterion that counts as an improvement.
    """

    steps: Count
    evaluate_every: Positive = 1
    patience: Count = 0
    min_delta: float = 0.0


@dataclass(frozen=True)
class ComputeOptions:
    """How a run computes: the table ``compute`` of its spec.

    Attributes:
        precision: ``fp32`` or ``bf16``.
        channels_last: True to store weights and activations in the channels-last memory format;
            ``auto`` if a measurement on the machine of the run decides it.
        compile: True to compile the network.
        deterministic: ``auto``, ``true`` or ``false``. With ``auto``, runs on a CPU are
            deterministic, and those on a GPU are not.
        explanations: True to measure and store explanations at the end of the run.
    """

    precision: Name = "fp32"
    channels_last: bool | Literal["auto"] = False
    compile: bool = False
    deterministic: Name = "auto"
    explanations: bool = True


@dataclass(frozen=True)
class RunSpec:
    """One run with all defaults resolved.

    Args:
        dataset: Name of the data set.
        dataset_options: All of its options.
        data_fingerprint: Identity of the data.
        algorithm: Name of the algorithm.
        variant: Name of the variant; empty for none.
        backbone: Name of the backbone.
        backbone_options: Its options.
        hparams: All hyper-parameters.
        trial: Seed of data, splits, weights and batches.
        draw: Number of the hyper-parameter draw; 0 for the defaults.
        budget: The fields of ``Budget``; see ``training_budget``.
        selection: Criteria that select a step. Early stopping follows the first one.
        augmentation: Augmentations of training images: a number, or the options of a transform of
            torchvision, by name.
        oracle: True if test splits are evaluated during training, which tables show.
        compute: Fields of ``ComputeOptions``; see ``compute_options``.
        upstream: Keys of the upstream runs by role.
        select_before_switch: True if a step may be selected at which the model is not yet a model
            of the method (see ``Algorithm.active_from``). The default, False, is not written to
            JSON.
        evaluate_train: True if training images are evaluated at the selected steps. The default,
            False, is not written to JSON.
        curves: Names in ``CURVES`` of what is measured at each evaluation during training. The
            default, none, is not written to JSON.
        measurement: What is measured of the explanations of a trained model; None for a run that
            trains, and then not written to JSON. All other fields but the budget, which has no
            steps, and ``upstream`` are those of the model.
        schema: Version of the format.
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
    augmentation: Mapping[str, Json] = field(default_factory=dict)
    oracle: bool = False
    compute: Mapping[str, Json] = field(default_factory=dict)
    upstream: Mapping[str, Key] = field(default_factory=dict)
    select_before_switch: bool = False
    evaluate_train: bool = False
    curves: tuple[Name, ...] = ()
    measurement: Measurement | None = None
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.

        The same work has the same key on every machine.
        """
        return _key_of(self.to_json())

    @property
    def method(self) -> str:
        """Algorithm and variant as in sweep files: ``cdan`` or ``cdan:cdann``."""
        return method_name(self.algorithm, self.variant)

    def label(self) -> str:
        """Return a short readable name."""
        draw = f" draw {self.draw}" if self.draw else ""
        trained = f"{self.method} on {self.dataset}, trial {self.trial}{draw}"
        return f"{self.measurement.explainer} of {trained}" if self.measurement else trained

    @property
    def components(self) -> tuple[str, str, str]:
        """The names of the algorithm, the backbone and the data set."""
        return self.algorithm, self.backbone, self.dataset

    @property
    def training_budget(self) -> Budget:
        """The budget. Entries that ``Budget`` does not have are left out."""
        return Budget(**_fields_in(Budget, self.budget))

    @property
    def compute_options(self) -> ComputeOptions:
        """How the run computes. Options that the spec does not contain have their defaults."""
        return ComputeOptions(**_fields_in(ComputeOptions, self.compute))

    @property
    def upstream_keys(self) -> tuple[str, ...]:
        """The keys of the runs that must be done first, each once."""
        return tuple(dict.fromkeys(self.upstream.values()))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON. Its tables are copies."""
        content: dict[str, Any] = {}
        for spec_field in fields(self):
            value = getattr(self, spec_field.name)
            content[spec_field.name] = dict(value) if isinstance(value, Mapping) else value
        content["selection"] = list(self.selection)
        if not self.select_before_switch:
            # Older specs do not have this field, and their keys must not change.
            del content["select_before_switch"]
        if not self.evaluate_train:
            del content["evaluate_train"]
        if self.curves:
            content["curves"] = list(self.curves)
        else:
            del content["curves"]
        if self.measurement is None:
            del content["measurement"]
        else:
            content["measurement"] = self.measurement.to_json()
        return content

    @classmethod
    def from_json(cls, value: Any, where: str = "spec.json") -> RunSpec:
        """Decode the spec of a run from parsed JSON.

        Raises:
            UserError: If it has another schema version.
            DamagedError: If fields are missing, unknown, of the wrong type or out of bounds.
        """
        check_schema(value, where)
        names = {f.name for f in fields(cls)}
        check_fields(
            value,
            names,
            where,
            optional={"select_before_switch", "evaluate_train", "curves", "measurement"},
        )
        spec = decode(cls, value, where)
        decode(Budget, value["budget"], where, "budget")
        if not spec.selection:
            raise DamagedError(f"{where} is damaged: selection is empty.")
        return spec


def _fields_in(kind: type[Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a table that are fields of a dataclass."""
    return {f.name: table[f.name] for f in fields(kind) if f.name in table}


def read_spec(folder: Path) -> RunSpec:
    """Return the spec in the folder of a run.

    Raises:
        FileNotFoundError: If there is none.
        UserError: If it has another schema version.
        DamagedError: If it is damaged, or if its key is not the name of the folder.
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
            f"{run.spec} does not belong to its folder; it was edited. "
            "Delete that run folder and launch again."
        )
    return spec


def spec_bytes(spec: RunSpec) -> bytes:
    """Return the content of the spec.json that planning writes for a run."""
    return to_json(spec.to_json())


def spec_digest(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the content of a spec.json.

    Unlike the key, it depends on how the JSON is written, so that a file can be compared with what
    planning wrote without being parsed.
    """
    return hashlib.sha256(content).hexdigest()[:16]


def is_unchanged(folder: str | os.PathLike[str], digest: str) -> bool:
    """Return True if the spec.json in the folder of a run has this ``spec_digest``.

    Raises:
        FileNotFoundError: If there is no spec.
        DamagedError: If it is not a regular file, too large, or cannot be read.
    """
    content = read_bytes(f"{os.fspath(folder)}{os.sep}{SPEC_NAME}", SPEC_BYTES)
    return spec_digest(content) == digest


def read_upstream(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the keys of the upstream runs of the run in a folder.

    This is several times as fast as ``read_spec``. JSON whose key is the name of the folder was
    written by planning, so that the rest of it need not be checked.

    Raises:
        FileNotFoundError: If there is no spec.
        UserError: If it has another schema version.
        DamagedError: If it is damaged, or if its key is not the name of the folder.
    """
    name = os.fspath(folder)
    path = f"{name}{os.sep}{SPEC_NAME}"
    content = read_bytes(path, SPEC_BYTES)
    with suppress(ValueError, RecursionError):
        value = _decode_json(content.decode())
        key = name.rpartition(os.sep)[2]
        if type(value) is dict and value.get("schema") == SCHEMA and _key_of(value) == key:
            upstream = value.get("upstream")
            if upstream == {}:
                return ()
            needed = decode(_UPSTREAM, upstream, path, "upstream")
            return tuple(dict.fromkeys(needed.values()))
    return read_spec(Path(folder)).upstream_keys


def _key_of(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:16]


#: Reads JSON whose content is checked by its key.
_decode_json = json.JSONDecoder().decode
#: Writes canonical JSON, from which keys are made.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def check_fields(
    value: Mapping[str, Any], known: Set[str], where: str, optional: Set[str] = frozenset()
) -> None:
    """Check that a table has the known names and no others, except optional ones.

    Raises:
        DamagedError: If names are missing or unknown.
    """
    wrong = ", ".join(sorted((set(value) ^ known) - optional))
    if wrong:
        raise DamagedError(
            f"{where} has missing or unknown fields ({one_line(wrong)[:200]}); "
            "it was edited or damaged, or another version of ShortcutBed wrote it."
        )


def before_switch(step: int, switch: int) -> bool:
    """Return True if the model after ``step`` steps has had no step of its method.

    Args:
        step: Number of training steps made.
        switch: First step of the method (see ``Algorithm.active_from``). A method with 0 is active
            from the start, even before its first step.
    """
    return switch > 0 and step <= switch


def check_schema(value: Any, where: str) -> None:
    """Check that a value is a JSON table of the current schema version.

    Raises:
        UserError: If it is not.
    """
    version = value.get("schema") if isinstance(value, dict) else None
    if type(version) is not int or version != SCHEMA:
        raise UserError(
            f"{where} has schema version {shown(version)}, expected {SCHEMA}; another version of "
            "ShortcutBed wrote it. Read it with that version, or launch into a new folder with "
            "--output."
        )


def check_key(key: str, path: Path) -> None:
    """Check that a file with this key is in the folder of the run.

    Raises:
        DamagedError: If it is not.
    """
    if key != path.parent.name:
        raise DamagedError(
            f"{path} is of the run {one_line(key)[:100]}, not of {path.parent.name}: "
            "files of two runs were mixed."
        )
