"""A finished run predicts and explains as it did when it was trained."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import benchmark
from benchmark import load_run, load_sweep
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from tests.support.messages import mentions
from tests.support.runs import plan_quick
from tests.support.runs import run as execute_run


def images(run: benchmark.api.run.Run, split: str = "unbiased") -> np.ndarray:
    """The images uint8[N,H,W,C] of a split of the data of a run."""
    spec = run.record.spec
    data = DATASETS.get(spec.dataset)(None, **spec.dataset_options).load(spec.trial)
    return np.asarray(data.splits[split].image).transpose(0, 2, 3, 1)


def test_logits_are_those_of_the_run(sweep: Path) -> None:
    for method in ("erm", "group_dro"):
        run = load_run(sweep, method=method)
        criterion = run.record.spec.selection[0]
        stored = np.load(run.folder / "predictions.npz")[f"{criterion}/unbiased/score"]
        np.testing.assert_allclose(run.logits(images(run)), stored, atol=1e-6)


def test_the_table_of_predictions(sweep: Path) -> None:
    run = load_run(sweep, method="erm", trial=0)
    some = images(run)[:5]
    table = run.predict(some)
    assert list(table.columns) == ["file", "predicted", "p(lying)", "p(standing)"]
    shares = torch.softmax(torch.from_numpy(run.logits(some)).double(), 1).numpy()
    np.testing.assert_allclose(table[["p(lying)", "p(standing)"]].to_numpy(), shares, atol=1e-9)
    assert list(table["predicted"]) == [run.labels[k] for k in shares.argmax(1)]


def test_network_and_preprocess_are_enough_for_other_packages(sweep: Path) -> None:
    run = load_run(sweep, method="erm")
    some = images(run)[:4]
    with torch.no_grad():
        logits = run.network(run.preprocess(some))
    np.testing.assert_array_equal(logits.numpy(), run.logits(some))
    assert not run.network.training
    assert not any(p.requires_grad for p in run.network.parameters())


def test_explanations_of_named_numbered_and_predicted_classes(sweep: Path) -> None:
    run = load_run(sweep, method="erm")
    some = images(run)[:3]
    lying = run.explain(some, "input_gradient", "lying")
    assert lying.shape == (3, *some.shape[1:3]) and lying.dtype == np.float32
    np.testing.assert_array_equal(lying, run.explain(some, "input_gradient", 0))
    predicted = list(run.predict(some)["predicted"])
    np.testing.assert_array_equal(
        run.explain(some, "input_gradient"), run.explain(some, "input_gradient", predicted)
    )
    image = run.preprocess(some).requires_grad_()
    run.network(image)[:, 0].sum().backward()
    assert image.grad is not None
    gradient = image.grad.sum(1).numpy()
    np.testing.assert_allclose(np.abs(lying), np.abs(gradient), atol=1e-5)


def test_a_figure_has_an_image_and_a_heatmap_per_row(sweep: Path) -> None:
    run = load_run(sweep, method="erm")
    figure = run.show(images(run)[:2])
    assert [len(axis.images) for axis in figure.axes] == [1, 2, 1, 2]
    with Image.open(io.BytesIO(figure._repr_png_())) as shown:  # what a notebook displays
        assert shown.size == tuple((figure.get_size_inches() * figure.dpi).astype(int))


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({}, ("erm", "group_dro", "method")),
        ({"method": "grup_dro"}, ("grup_dro", "group_dro")),
        ({"method": "erm", "trial": 7}, ("7", "0")),
        ({"method": "erm", "dataset": "mnist"}, ("mnist", "tiny")),
        ({"method": "erm", "device": "toaster"}, ("toaster", "cpu")),
    ],
)
def test_unknown_runs_are_refused(
    sweep: Path, options: dict[str, object], facts: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as error:
        load_run(sweep, **options)  # type: ignore[arg-type]
    assert mentions(str(error.value), *facts)


def test_a_run_folder_names_a_single_run(sweep: Path) -> None:
    run = load_run(sweep, method="group_dro")
    assert load_run(str(run.folder)).record.key == run.record.key
    with pytest.raises(UserError, match="method"):
        load_run(run.folder, method="erm")
    with pytest.raises(UserError, match="nowhere"):
        load_run("nowhere")


def test_a_run_that_is_not_done(sweep: Path, tmp_path: Path) -> None:
    spec = next((sweep / "runs").iterdir()) / "spec.json"
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "spec.json").write_bytes(spec.read_bytes())
    with pytest.raises(UserError, match="pending"):
        load_run(tmp_path / "abc")


def test_a_run_without_its_weights(sweep: Path, tmp_path: Path) -> None:
    source = load_run(sweep, method="erm").folder
    folder = tmp_path / source.name
    folder.mkdir()
    for file in source.iterdir():
        if file.is_file() and file.name != "selected.pt":
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"selected\.pt does not exist"):
        load_run(folder)


def test_the_file_of_published_weights_is_not_read_again(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    file = tmp_path / "published.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), file)
    folder = plan_quick(
        tmp_path / "sweep",
        backbone=f"timm:resnet10t:side=32,file={file}",
        budget={"steps": 1, "evaluate_every": 1},
    )
    assert execute_run(folder) == "done"
    before = load_run(folder)
    some = images(before)[:4]
    logits = before.logits(some)
    stored = np.load(folder / "predictions.npz")
    criterion = before.record.spec.selection[0]
    np.testing.assert_allclose(logits, stored[f"{criterion}/unbiased/score"][:4], atol=1e-5)
    file.unlink()
    np.testing.assert_array_equal(load_run(folder).logits(some), logits)
    np.testing.assert_array_equal(load_run(tmp_path / "sweep", method="erm").logits(some), logits)


def test_unknown_explainers_and_classes(sweep: Path) -> None:
    run = load_run(sweep, method="erm")
    some = images(run)[:2]
    for explainer, target, fact in (
        ("lpr", None, "lrp"),
        ("lrp", "lyin", "lying"),
        ("lrp", 2, "0 to 1"),
        ("lrp", [0], "1 classes for 2 images"),
        ("rollout", None, "attention"),
    ):
        with pytest.raises(UserError, match=fact):
            run.explain(some, explainer, target)


def test_records_of_earlier_versions(sweep: Path, tmp_path: Path) -> None:
    source = load_run(sweep, method="erm")
    folder = tmp_path / source.folder.name
    folder.mkdir()
    for file in source.folder.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    record = json.loads((folder / "record.json").read_text())
    assert record["data"].pop("input")["image_size"] == [3, 16, 16]
    (folder / "record.json").write_text(json.dumps(record))
    some = images(source)[:4]
    np.testing.assert_array_equal(load_run(folder).logits(some), source.logits(some))


def test_the_sweep_as_a_table(sweep: Path) -> None:
    results = load_sweep(sweep)
    assert results.states() == {"done": 2}
    frame = results.to_frame()
    assert set(frame["method"]) == {"erm", "group_dro"}
    record = results.load_run("erm").record
    criterion = record.spec.selection[0]
    row = frame[(frame["method"] == "erm") & (frame["split"] == "unbiased")]
    row = row[row["criterion"] == criterion].iloc[0]
    counts = record.selected[criterion].counts["unbiased"].sum(0)
    assert row["accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    assert "GroupDRO" in results.table("text")
    with pytest.raises(UserError, match="sd or interval"):
        results.table(spread="range")


def test_the_interface_is_lazy_and_complete() -> None:
    assert {"load_run", "load_sweep", "load_exported", "launch"} <= set(dir(benchmark))
    assert callable(benchmark.launch)
    with pytest.raises(AttributeError, match="load_runs"):
        benchmark.load_runs  # type: ignore[attr-defined]  # noqa: B018
