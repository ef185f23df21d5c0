"""Export of the network of a run to files that other programs read."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from benchmark.api.metadata import KEY, ExportMetadata
from benchmark.core.algorithm import Algorithm
from benchmark.core.errors import UserError
from benchmark.core.files import check_file
from benchmark.core.registry import BACKBONES
from benchmark.models.base import Backbone

if TYPE_CHECKING:
    from benchmark.api.run import Run

#: The package that each format needs, beside torch.
_PACKAGES = {".pt2": "", ".onnx": "onnxscript", ".safetensors": "safetensors"}


class _Predict(nn.Module):
    """The predictions of a method as a module."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.algorithm = algorithm

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.algorithm.predict(image)
        return logits


def export_run(run: Run, path: Path) -> Path:
    """Write the network of a run; see ``Run.export``."""
    writers: dict[str, Callable[[Run, Path, ExportMetadata], None]] = {
        ".pt2": _write_pt2,
        ".onnx": _write_onnx,
        ".safetensors": _write_safetensors,
    }
    ending = path.suffix.lower()
    if ending not in writers:
        raise UserError(
            f"{path.name} has the ending {ending or 'of no format'}, expected .pt2, .onnx or "
            ".safetensors."
        )
    package = _PACKAGES[ending]
    if package and importlib.util.find_spec(package) is None:
        raise UserError(
            f"{ending} files need the package {package}; `pip install 'shortcutbed[export]'` "
            "adds it."
        )
    check_file(path, "path")
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[ending](run, path, _metadata(run))
    return path


def _metadata(run: Run) -> ExportMetadata:
    record = run.record
    spec = record.spec
    return ExportMetadata(
        labels=run.labels,
        multi_label=run.multi_label,
        input=run.accepts,
        dataset=spec.dataset,
        method=spec.method,
        run=record.key,
        source=record.data.source,
        licence=record.data.licence,
        backbone=spec.backbone,
        backbone_options=dict(spec.backbone_options),
    )


def _example(run: Run) -> torch.Tensor:
    # A batch of two: torch.export would treat the size 1 as a constant.
    return torch.zeros(2, *run.accepts.image_size, device=run.device)


def _write_pt2(run: Run, path: Path, metadata: ExportMetadata) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        program = torch.export.export(
            _Predict(run.algorithm).eval(), (_example(run),), dynamic_shapes=shapes
        )
    except Exception as error:  # torch raises many types for code that it cannot trace
        raise _not_exported(run, ".pt2", error) from error
    torch.export.save(program, path, extra_files={f"{KEY}.json": metadata.to_text()})


def _write_onnx(run: Run, path: Path, metadata: ExportMetadata) -> None:
    import onnx

    shapes = ({0: torch.export.Dim("batch")},)
    try:
        torch.onnx.export(
            _Predict(run.algorithm).eval(),
            (_example(run),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except Exception as error:  # likewise
        raise _not_exported(run, ".onnx", error) from error
    model = onnx.load(path)
    model.metadata_props.add(key=KEY, value=metadata.to_text())
    onnx.save(model, path)


def _write_safetensors(run: Run, path: Path, metadata: ExportMetadata) -> None:
    from safetensors.torch import save_model

    weights = run.network.state_dict()
    try:
        rebuilt = rebuild(metadata)
        rebuilt.load_state_dict(weights)
        plain = type(run.algorithm).predict is Algorithm.predict
    except (RuntimeError, UserError):
        plain = False
    if not plain:
        raise UserError(
            f"weights alone do not describe the predictions of {metadata.method}; export to .pt2 "
            "or .onnx instead."
        )
    save_model(run.network, str(path), metadata={KEY: metadata.to_text()})


def rebuild(metadata: ExportMetadata) -> nn.Module:
    """Return the network that the metadata describe, with random weights."""
    kind = BACKBONES.get(metadata.backbone)
    options = kind.without_weights(metadata.backbone_options)
    network: Backbone = kind(len(metadata.labels), tuple(metadata.input.image_size), **options)
    network.set_normalisation(metadata.input.mean, metadata.input.std)
    return network


def _not_exported(run: Run, ending: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"torch cannot export {run.record.spec.method} on {run.record.spec.backbone} to {ending}: "
        f"{type(error).__name__}: {reason}"
    )
