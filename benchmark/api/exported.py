"""Networks read back from exported files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmark.api.export import rebuild
from benchmark.api.metadata import KEY, ExportMetadata
from benchmark.api.predictor import Predictor
from benchmark.core.errors import DamagedError, UserError


class ExportedNetwork(Predictor):
    """A network from an exported file, with the preparation of its images.

    Args:
        path: the file.
        metadata: labels, normalisation and licence.
        network: maps normalised images float[N,C,H,W] to logits float[N,K].
        device: where the network is.
    """

    def __init__(
        self, path: Path, metadata: ExportMetadata, network: Any, device: torch.device
    ) -> None:
        super().__init__(metadata.input, metadata.labels, metadata.multi_label, device)
        self.path = path
        self.metadata = metadata
        self.network = network

    def __repr__(self) -> str:
        return f"ExportedNetwork({self.metadata.method}, {str(self.path)!r})"

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(image)
        return logits


class _OnnxNetwork:
    """A network that onnxruntime runs on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        name = self.session.get_inputs()[0].name
        values = self.session.run(None, {name: image.cpu().numpy().astype(np.float32)})[0]
        return torch.from_numpy(values).to(image.device)

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the file."""
        return dict(self.session.get_modelmeta().custom_metadata_map)


def load_exported(path: str | Path, *, device: str = "cpu") -> ExportedNetwork:
    """Load a network that ``Run.export`` wrote.

    Load ``.pt2`` files only from sources that you trust.

    Args:
        path: a file that ends in ``.pt2``, ``.onnx`` or ``.safetensors``.
        device: ``"cpu"`` or ``"cuda"``; ONNX networks run on the CPU.

    Raises:
        UserError: the file does not exist, is damaged, has no metadata of ShortcutBed, or needs a
            package that is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}; check the path.")
    place = torch.device(device)
    readers = {".pt2": _read_pt2, ".onnx": _read_onnx, ".safetensors": _read_safetensors}
    if file.suffix.lower() not in readers:
        raise UserError(
            f"{file.name} is no exported network; expected .pt2, .onnx or .safetensors."
        )
    network, text = readers[file.suffix.lower()](file, place)
    if not text:
        raise UserError(
            f"{file} has no metadata of ShortcutBed, which describe its labels and normalisation; "
            "export it with Run.export."
        )
    metadata = ExportMetadata.from_text(text, str(file))
    if network is None:
        network = _with_weights(file, metadata, place)
    return ExportedNetwork(file, metadata, network, place)


def _read_pt2(file: Path, place: torch.device) -> tuple[Any, str]:
    extra = {f"{KEY}.json": ""}
    try:
        program = torch.export.load(file, extra_files=extra)
        return program.module().to(place), extra[f"{KEY}.json"]
    except Exception as error:  # torch raises many types for damaged archives
        raise _damaged(file, error) from None


def _read_onnx(file: Path, place: torch.device) -> tuple[Any, str]:
    _require("onnxruntime", file)
    try:
        network = _OnnxNetwork(file)
    except Exception as error:  # types of onnxruntime
        raise _damaged(file, error) from None
    return network, network.metadata().get(KEY, "")


def _read_safetensors(file: Path, place: torch.device) -> tuple[Any, str]:
    _require("safetensors", file)
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            return None, (opened.metadata() or {}).get(KEY, "")
    except Exception as error:  # types of safetensors
        raise _damaged(file, error) from None


def _with_weights(file: Path, metadata: ExportMetadata, place: torch.device) -> nn.Module:
    from safetensors.torch import load_model

    network = rebuild(metadata)
    try:
        load_model(network, file)
    except (RuntimeError, ValueError) as error:
        raise _damaged(file, error) from None
    return network.to(place).eval()


def _require(package: str, file: Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"{file.name} needs the package {package}; `pip install 'shortcutbed[export]'` adds it."
        )


def _damaged(file: Path, error: Exception) -> DamagedError:
    reason = " ".join(str(error).split())[:200]
    return DamagedError(
        f"{file} cannot be read ({type(error).__name__}: {reason}); export it again."
    )
