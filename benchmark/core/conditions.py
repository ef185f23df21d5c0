"""What the last bits of a result depend on besides its spec: threads, versions, the processor, arithmetic settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from benchmark.core.decode import Between, Name

#: Threads that a checkpoint may ask for, at most.
MOST_THREADS = 4096
#: Variables of the environment that change how PyTorch and its libraries compute.
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


def prepare_openmp() -> None:
    """Set what OpenMP reads once, when PyTorch is loaded; to be called before that.

    Threads that wait do not spin. An operation gets as many threads as PyTorch asks for: where OpenMP gives it fewer
    (``OMP_DYNAMIC``, ``OMP_THREAD_LIMIT``), oneDNN waits for the missing ones for ever.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_DYNAMIC"] = "FALSE"
    limit = os.environ.pop("OMP_THREAD_LIMIT", None)
    if limit is not None and limit.isdecimal():
        asked = os.environ.get("OMP_NUM_THREADS", limit)
        fewer = min(int(limit), int(asked)) if asked.isdecimal() else int(limit)
        os.environ["OMP_NUM_THREADS"] = str(max(fewer, 1))


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a run: equal specs under equal conditions give results that are equal bit for bit.

    Attributes:
        device: ``cpu``, or the name of the GPU.
        threads: of PyTorch, within one operation: sums are divided among them. None in records that do not tell.
        processor: its name.
        instructions: the processor's vector instructions that PyTorch uses, such as ``AVX2``.
        versions: of Python, ShortcutBed and the packages that a run depends on.
        commit: of the checkout that runs, or None outside of one.
        settings: deterministic algorithms, TF32 and the like, by name.
        environment: those of VARIABLES that are set.
    """

    device: Name
    threads: Annotated[int, Between(1, MOST_THREADS)] | None = None
    processor: Name = ""
    instructions: Name = ""
    versions: Mapping[str, Name] = field(default_factory=dict)
    commit: Name | None = None
    settings: Mapping[str, Name] = field(default_factory=dict)
    environment: Mapping[str, Name] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def flat(self) -> dict[str, str]:
        """Every condition by name, as text; versions go by the name of their package."""
        single = {
            name: str(value)
            for name in ("device", "threads", "processor", "instructions", "commit")
            if (value := getattr(self, name)) not in ("", None)
        }
        return {**single, **self.versions, **self.settings, **self.environment}

    def changes_since(self, earlier: Conditions) -> list[str]:
        """What is not as it was, in words: ``torch 2.10.0 after 2.9.1``."""
        now, before = self.flat(), earlier.flat()
        return [
            f"{name} {now.get(name, 'unset')} after {before.get(name, 'unset')}"
            for name in dict.fromkeys([*now, *before])
            if now.get(name) != before.get(name)
        ]
