"""A finished run: its network, predictions for other images, and explanations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from benchmark.api.find_run import find_run
from benchmark.api.images import ImageLike, NamedImages, read_images
from benchmark.api.predictions import class_numbers, prediction_table
from benchmark.api.predictor import Predictor
from benchmark.core.algorithm import Algorithm
from benchmark.core.compilation import eagerly
from benchmark.core.dataset import DatasetInfo
from benchmark.core.errors import UserError
from benchmark.core.layout import RunFolder
from benchmark.core.named_options import parse_named_options
from benchmark.core.needs import Needs
from benchmark.core.record import RunRecord, read_record
from benchmark.core.registry import DATASETS
from benchmark.core.seeds import seed_for
from benchmark.core.spec import read_spec
from benchmark.core.speed.seeding import seed_generators
from benchmark.core.summaries import InputSummary
from benchmark.engine.build import load_finished
from benchmark.engine.explanations import MAX_BATCH, MAX_PIXELS, choose_explainer, pixel_map
from benchmark.explain import get
from benchmark.models.base import pixels_inside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Run(Predictor):
    """A finished run with its trained method, in evaluation mode.

    Args:
        folder: folder of the run.
        record: the result of the run: scores, data, method, machine.
        algorithm: the trained method.
        accepts: the images that the network accepts.
        device: where the method is.
    """

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        algorithm: Algorithm,
        accepts: InputSummary,
        device: torch.device,
    ) -> None:
        data = record.data
        super().__init__(accepts, data.label_names, data.multi_label, device)
        self.folder = folder
        self.record = record
        self.algorithm = algorithm

    def __repr__(self) -> str:
        return f"Run({self.record.spec.label()}, {str(self.folder)!r})"

    @property
    def network(self) -> nn.Module:
        """The trained network, which maps the output of ``preprocess`` to logits float[N,K].

        It is the network that heatmaps explain. A method may add steps of its own in ``predict``,
        for example the second logit of a network with a single one.
        """
        return self.algorithm.network

    def explain(
        self,
        images: ImageLike | Sequence[ImageLike],
        explainer: str = "",
        target: str | int | Sequence[str | int] | None = None,
    ) -> np.ndarray:
        """Explain why the network gives images a class.

        Args:
            images: see ``benchmark.api.images.read_images``.
            explainer: name of an explainer, with options if needed: ``"rise:masks=1000"``. By
                default the one that explains the method in tables.
            target: class to explain, as a name or a number, one for all images or one for each; by
                default the predicted class.

        Returns:
            float32[N,H,W] at the size that the network accepts: the relevance of each pixel, summed
            over channels. The sign has a meaning for signed explainers only.

        Raises:
            UserError: an unknown explainer or class, a network that does not suit the explainer, or
                an image that cannot be read.
        """
        read = read_images(images, self.accepts)
        return self._explain(read, explainer, target)

    def show(
        self,
        images: ImageLike | Sequence[ImageLike],
        explainer: str = "",
        target: str | int | Sequence[str | int] | None = None,
    ) -> Figure:
        """Draw images beside their heatmaps, with the predicted classes.

        Args:
            images: as for ``explain``.
            explainer: as for ``explain``.
            target: as for ``explain``.

        Returns:
            A figure with one row per image, which a notebook displays.
        """
        from benchmark.api.figure import draw_heatmaps

        read = read_images(images, self.accepts)
        table = prediction_table(read.names, self._logits(read), self.labels, self.multi_label)
        maps = self._explain(read, explainer, target)
        return draw_heatmaps(read, table, maps, explainer or self._default_explainer())

    def export(self, path: str | Path) -> Path:
        """Write the network to a file that does not need this package.

        Args:
            path: a file that ends in ``.pt2`` (``torch.export``), ``.onnx`` or ``.safetensors``
                (weights only).

        Returns:
            The path of the file. It carries labels, normalisation and licence as metadata, and
            ``benchmark.load_exported`` reads it back.

        Raises:
            UserError: another ending, or a package for this format is not installed.
        """
        from benchmark.api.export import export_run

        return export_run(self, Path(path))

    def _default_explainer(self) -> str:
        return choose_explainer(self.network, self.algorithm.explained_by).name

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.algorithm.predict(image)
        return logits

    def pixels_inside(self) -> int:
        return pixels_inside(self.algorithm, *self.accepts.image_size[1:])

    def _explain(
        self, read: NamedImages, explainer: str, target: str | int | Sequence[str | int] | None
    ) -> np.ndarray:
        if target is None:
            classes = self._logits(read).argmax(1)
        else:
            classes = class_numbers(target, self.labels, len(read.names))
        maps = []
        for rows, image in self._batches(read, MAX_BATCH, MAX_PIXELS):
            chosen = torch.from_numpy(classes[rows]).to(self.device)
            with eagerly(), torch.random.fork_rng():
                seed_generators(seed_for("explanations", rows.start))
                network, seen = self.algorithm.explainable(image)
                if explainer:
                    named = parse_named_options(explainer)
                    method = get(named.name, **named.options)
                else:
                    method = choose_explainer(network, self.algorithm.explained_by)
                heatmap = method(network, seen, chosen)
            maps.append(pixel_map(heatmap, image.shape[2:]).float().cpu().numpy())
        return np.concatenate(maps)


def load_run(
    folder: str | Path,
    *,
    method: str | None = None,
    dataset: str | None = None,
    trial: int | None = None,
    device: str = "cpu",
    data_dir: str | Path | None = None,
) -> Run:
    """Load a finished run.

    Args:
        folder: folder of a run, or of a sweep. A sweep may also be named as it is in ``results/``.
        method: method of the run in the sweep, such as ``"group_dro"``; it may be left out if there
            is only one.
        dataset: data set of the run, as the sweep file writes it; likewise.
        trial: trial; by default the first one with a finished run. Among several draws of
            hyper-parameters, the one that the report selects is loaded.
        device: ``"cpu"`` or ``"cuda"``.
        data_dir: folder of downloaded data sets; only needed for runs of earlier versions, whose
            record does not describe the images that the network accepts.

    Raises:
        UserError: there is no such run, it is not done, or its files are damaged.
    """
    run = find_run(Path(folder), method=method, dataset=dataset, trial=trial)
    record = read_record(run.path)
    place = _device(device)
    folder_of_data = None if data_dir is None else Path(data_dir)
    info, accepts = _description(run, record, folder_of_data)
    algorithm = load_finished(run, read_spec(run.path), info, place, folder_of_data)
    return Run(run.path, record, algorithm, accepts, place)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}, expected 'cpu' or 'cuda'.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device='cuda' needs a GPU that torch can use, and there is none.")
    return device


def _description(
    run: RunFolder, record: RunRecord, data_dir: Path | None
) -> tuple[DatasetInfo, InputSummary]:
    """Return the description of the data of a run, and of the images that its network accepts."""
    data = record.data
    accepts = data.input
    if accepts is not None:
        info = DatasetInfo(
            label_names=data.label_names,
            confounder_names=data.confounder_names,
            environment_names=data.environment_names,
            image_size=accepts.image_size,
            splits=tuple(data.splits),
            provides=Needs(),
            mean=accepts.mean,
            std=accepts.std,
            source=data.source,
            licence=data.licence,
            multi_label=data.multi_label,
        )
        return info, accepts
    spec = record.spec
    source = DATASETS.get(spec.dataset)(data_dir, **spec.dataset_options)
    try:
        info = source.info()
        conversion = source.conversion()
    except UserError as error:
        raise UserError(
            f"{run.path} was made by an earlier version, whose record does not describe the images "
            f"that the network accepts, and the data cannot be read: {error}"
        ) from None
    accepts = InputSummary(
        image_size=info.image_size, mean=info.mean, std=info.std, **vars(conversion)
    )
    return info, accepts
