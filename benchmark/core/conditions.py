"""Conditions of a run besides its spec: threads, versions, processor, arithmetic settings.

The last bits of a result depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Self

from benchmark.core.decode import Between, Name

#: Name of the setting that says which memory format a run with ``channels_last = "auto"`` has, and
#: of the ratio of times that decided it.
CHANNELS_LAST = "channels_last"
#: Largest number of threads that a record or a checkpoint may contain.
MAX_THREADS = 4096
#: Environment variables that change how PyTorch and its libraries compute.
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
    "SHORTCUTBED_SPEED",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


def prepare_openmp() -> None:
    """Set the environment variables of OpenMP. Call it before PyTorch is loaded.

    Waiting threads do not spin. An operation always gets the number of threads that PyTorch
    requests: if OpenMP provided fewer (``OMP_DYNAMIC``, ``OMP_THREAD_LIMIT``), oneDNN would wait
    forever for the missing ones.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_DYNAMIC"] = "FALSE"
    limit = os.environ.pop("OMP_THREAD_LIMIT", None)
    if limit is not None and limit.isdecimal():
        requested = os.environ.get("OMP_NUM_THREADS", limit)
        threads = min(int(limit), int(requested)) if requested.isdecimal() else int(limit)
        os.environ["OMP_NUM_THREADS"] = str(max(threads, 1))


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a run. Equal specs under equal conditions give bit-identical results.

    Attributes:
        device: ``cpu``, or the name of the GPU.
        threads: Number of PyTorch threads within one operation, among which sums are divided; None
            in records that do not contain it.
        processor: Name of the processor.
        instructions: Vector instructions that PyTorch uses, such as ``AVX2``.
        versions: Versions of Python, ShortcutBed and the packages that a run depends on.
        commit: Commit of the checkout, or None outside of one.
        settings: Deterministic algorithms, TF32 and similar settings, by name.
        environment: The variables of VARIABLES that are set.
        time_ratios: Time of a step with an option, relative to one without, by option. They were
            measured to choose a setting, and nothing else depends on them.
    """

    device: Name
    threads: Annotated[int, Between(1, MAX_THREADS)] | None = None
    processor: Name = ""
    instructions: Name = ""
    versions: Mapping[str, Name] = field(default_factory=dict)
    commit: Name | None = None
    settings: Mapping[str, Name] = field(default_factory=dict)
    environment: Mapping[str, Name] = field(default_factory=dict)
    time_ratios: Mapping[str, Annotated[float, Between(0.0, 1e9)]] = field(default_factory=dict)

    @property
    def channels_last(self) -> bool | None:
        """The memory format that was chosen by measurement; None if it was not left open."""
        chosen = self.settings.get(CHANNELS_LAST)
        return None if chosen is None else chosen == "true"

    def with_channels_last(self, chosen: bool, ratio: float | None) -> Self:
        """Return these conditions with a memory format.

        Args:
            chosen: True for channels last.
            ratio: Time of a step with channels last, relative to one without; None if it was not
                measured.
        """
        return replace(
            self,
            settings={**self.settings, CHANNELS_LAST: str(chosen).lower()},
            time_ratios={} if ratio is None else {CHANNELS_LAST: ratio},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the conditions as JSON. Ratios are absent if there are none."""
        content = asdict(self)
        if not self.time_ratios:
            del content["time_ratios"]
        return content

    def flat(self) -> dict[str, str]:
        """Return all conditions as text, by name. Versions have the name of their package.

        Ratios of times are left out: they differ from one measurement to the next.
        """
        single = {
            name: str(value)
            for name in ("device", "threads", "processor", "instructions", "commit")
            if (value := getattr(self, name)) not in ("", None)
        }
        return {**single, **self.versions, **self.settings, **self.environment}

    def changes_since(self, earlier: Conditions) -> list[str]:
        """Return the differences to earlier conditions, such as ``torch 2.10.0 after 2.9.1``."""
        now = self.flat()
        before = earlier.flat()
        return [
            f"{name} {now.get(name, 'unset')} after {before.get(name, 'unset')}"
            for name in dict.fromkeys([*now, *before])
            if now.get(name) != before.get(name)
        ]
