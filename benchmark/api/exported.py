"""Networks read back from exported files."""

from __future__ import annotations

import importlib.util
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
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


class _ProgramNetwork(nn.Module):
    """A network of ``torch.export``, which is always in evaluation mode.

    Args:
        module: the module of the program.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(image)
        return logits

    def train(self, mode: bool = True) -> _ProgramNetwork:
        return self  # the program refuses to change its mode


class _OnnxNetwork:
    """A network that onnxruntime runs on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        self.path = path
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        size = self.session.get_inputs()[0].shape[0]
        if not isinstance(size, int):  # any number of images
            return self._run(image)
        missing = -len(image) % size
        whole = torch.cat([image, image[-1:].expand(missing, *image.shape[1:])])
        return torch.cat([self._run(part) for part in whole.split(size)])[: len(image)]

    def _run(self, image: torch.Tensor) -> torch.Tensor:
        inputs = self.session.get_inputs()
        values = {inputs[0].name: image.cpu().numpy().astype(np.float32)}
        try:
            output = self.session.run(None, values)[0]
        except Exception:  # types of onnxruntime
            wanted = ", ".join(f"{node.name} {node.shape}" for node in inputs)
            raise UserError(
                f"{self.path} cannot compute images {list(image.shape)}: it takes {wanted}; choose "
                "the size of the images, or export it with images float[N,C,H,W] as its only input."
            ) from None
        return torch.from_numpy(np.asarray(output)).to(image.device)

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
    place = torch.device(device)
    network, text = read_network(file, place)
    if not text:
        raise UserError(
            f"{file} has no metadata of ShortcutBed, which describe its labels and normalisation; "
            "export it with Run.export."
        )
    return with_metadata(file, network, text, place)


def read_network(file: Path, place: torch.device) -> tuple[Any, str]:
    """Read the network of a file and the metadata of ShortcutBed, an empty text if it has none.

    The network is None for ``.safetensors``, from whose metadata it is built.

    Raises:
        UserError: the file does not exist, is damaged, or needs a package that is not installed.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}; check the path.")
    readers = {".pt2": _read_pt2, ".onnx": _read_onnx, ".safetensors": _read_safetensors}
    if file.suffix.lower() not in readers:
        raise UserError(
            f"{file.name} is no exported network; expected .pt2, .onnx or .safetensors."
        )
    if not file.stat().st_size:
        raise _damaged(file, "is empty")
    return readers[file.suffix.lower()](file, place)


def with_metadata(file: Path, network: Any, text: str, place: torch.device) -> ExportedNetwork:
    """Return what ``read_network`` read as a network with the preparation of its images.

    Raises:
        DamagedError: the metadata are invalid or do not fit the weights.
    """
    metadata = ExportMetadata.from_text(text, str(file))
    if network is None:
        network = _with_weights(file, metadata, place)
    return ExportedNetwork(file, metadata, network, place)


def _read_pt2(file: Path, place: torch.device) -> tuple[Any, str]:
    extra = {f"{KEY}.json": ""}
    try:
        with _without_warnings():
            program = torch.export.load(file, extra_files=extra)
        return _ProgramNetwork(program.module()).to(place), extra[f"{KEY}.json"]
    except Exception:  # torch raises many types for damaged archives
        raise _damaged(file, _pt2_problem(file)) from None


def _pt2_problem(file: Path) -> str:
    """Return what is wrong with a file that torch cannot read."""
    if not zipfile.is_zipfile(file):
        return "is incomplete, or no archive of torch.export"
    with zipfile.ZipFile(file) as archive:
        names = [name.rpartition("/")[2] for name in archive.namelist()]
    if not {"archive_format", "serialized_exported_program.json"} & set(names):
        return "is incomplete, or has no program of torch.export (perhaps torch.save wrote it)"
    return f"cannot be read by torch {torch.__version__} (perhaps another version wrote it)"


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence warnings by which torch announces an error that it then raises."""
    logger = logging.getLogger("torch.export")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _read_onnx(file: Path, place: torch.device) -> tuple[Any, str]:
    _require("onnxruntime", file)
    try:
        network = _OnnxNetwork(file)
    except Exception:  # types of onnxruntime
        import onnxruntime

        problem = (
            "is incomplete, no ONNX file, or needs operators that onnxruntime "
            f"{onnxruntime.__version__} does not have"
        )
        raise _damaged(file, problem) from None
    return network, network.metadata().get(KEY, "")


def _read_safetensors(file: Path, place: torch.device) -> tuple[Any, str]:
    _require("safetensors", file)
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            return None, (opened.metadata() or {}).get(KEY, "")
    except Exception:  # types of safetensors
        raise _damaged(file, "is incomplete, or no safetensors file") from None


def _with_weights(file: Path, metadata: ExportMetadata, place: torch.device) -> nn.Module:
    from safetensors.torch import load_model

    network = rebuild(metadata)
    try:
        load_model(network, file)
    except (RuntimeError, ValueError):
        problem = f"has other weights than the network {metadata.backbone} of its metadata"
        raise _damaged(file, problem) from None
    return network.to(place).eval()


def _require(package: str, file: Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"{file.name} needs the package {package}; `pip install 'shortcutbed[export]'` adds it."
        )


def _damaged(file: Path, problem: str) -> DamagedError:
    return DamagedError(
        f"{file} {problem}; expected a file of Run.export. Copy it again, or export it again."
    )
