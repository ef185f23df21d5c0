"""The command ``python -m benchmark.audit`` with each kind of model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark import load_run
from benchmark.audit import main
from benchmark.auditing.model import ModelOptions, load_model
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from tests.support import trees
from tests.support.runs import plan_quick
from tests.support.runs import run as execute_run

MODELS = '''
import numpy as np
import torch


def by_tag():
    """Answers the class whose tag is in the corner, red or blue; otherwise the first."""

    def scores(pixels):
        corner = pixels[:, :, :3, :3].astype(float).reshape(len(pixels), 3, -1)
        blue = np.abs(corner - np.array([[[40.0], [90.0], [240.0]]])).sum(1).min(1) < 30
        return np.stack([~blue, blue], 1).astype(float)

    return scores


class ByBrightness(torch.nn.Module):
    def forward(self, image):
        mean = image.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def network():
    return ByBrightness()


def three_classes():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))


def nothing():
    return None


def by_tag_in_small_parts():
    """The same, unable to score many images at once."""
    scores = by_tag()

    def small(pixels):
        assert len(pixels) <= 256 and pixels.flags.writeable
        return scores(pixels)

    return small


def fails():
    raise RuntimeError("no weights here")


def ends():
    raise SystemExit(3)


class Answers(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, image):
        return self.answer(image)


def dictionary():
    return Answers(lambda image: {"logits": image.mean((2, 3))})


def fails_later():
    return Answers(lambda image: image @ torch.zeros(7, 7))


def no_numbers():
    return Answers(lambda image: image.mean((2, 3))[:, :2] * float("nan"))


def raising_scores():
    def scores(pixels):
        raise ValueError("no floats")

    return scores


def words():
    return lambda pixels: ["a"] * len(pixels)


def scores_with_gradients():
    return lambda pixels: torch.zeros(len(pixels), 2, requires_grad=True)
'''
DATA = "planted:on=tiny,options=size=64,shortcut=tag,bias=0.9"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "audited_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def audit(*arguments: str) -> tuple[int, dict]:
    code = main([*arguments, "--images", "64", "--out", "audit"])
    return code, json.loads(Path("audit/audit.json").read_text())


def test_a_function_that_follows_the_tag(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = audit("audited_models:by_tag", DATA, "--fail-if", "relies")
    assert code == 1
    assert found["verdict"] == "relies" and "tag" in found["sentence"]
    (tag,) = [mark for mark in found["marks"] if mark["mark"] == "tag"]
    assert tag["mean"] > 0.5 and tag["gap"] > 0.5 and len(tag["values"]) == tag["n"]
    assert found["gap"]["mean"] > 0.5
    assert "tag" in capsys.readouterr().out
    page = Path("audit/audit.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "relies" in Path("audit/audit.tex").read_text()


def test_a_function_scores_few_images_at_once(here: Path) -> None:
    data = "planted:on=tiny,options=size=600,shortcut=tag,bias=0.9"
    code, found = audit("audited_models:by_tag_in_small_parts", data)
    assert code == 0 and found["verdict"] == "relies"
    assert max(row["average"]["n"] for row in found["accuracy"]) > 256


def test_a_network_with_its_normalisation(here: Path) -> None:
    code, found = audit(
        "audited_models:network", DATA, "--mean", "0", "0", "0", "--std", "1", "1", "1"
    )
    assert code == 0
    source = DATASETS.get("tiny")(None, size=64)
    split = source.load(0).splits["unbiased"]
    # Every mean is positive, so the second class is always answered.
    accuracy = {row["split"]: row["average"]["value"] for row in found["accuracy"]}
    assert accuracy["unbiased"] == pytest.approx((split.label == 1).mean())
    assert found["verdict"] != "relies"
    assert any("1 of 2 classes" in limit for limit in found["limits"])
    assert set(found["relevance"]["shares"]) >= {"input_gradient"}


@pytest.mark.parametrize("name", ["folder", "listed"])
def test_images_of_the_user(here: Path, name: str) -> None:
    getattr(trees, name)(here / "data")
    code, found = audit("audited_models:network", f"{name}:side=16")
    assert code == 0 and found["labels"] == ["cat", "dog"]
    worst = {row["split"]: row["worst_group"] for row in found["accuracy"]}
    groups = {row["split"]: row["groups"] for row in found["accuracy"]}
    if name == "folder":
        assert set(worst) == {"biased", "deceiving"} and found["gap"] is not None
        assert all(len(of_split) == 4 for of_split in groups.values())
        assert worst["biased"]["value"] == min(group["value"] for group in groups["biased"])
    else:  # several labels per image
        assert worst == {"test": None} and found["accuracy"][0]["average"]["n"] == 8


def test_a_run(here: Path) -> None:
    folder = plan_quick(here / "sweep", datasets=[DATA])
    assert execute_run(folder) == "done"
    _, found = audit(str(here / "sweep"), DATA)
    record = json.loads((folder / "record.json").read_text())
    criterion = record["spec"]["selection"][0]
    counts = np.sum(record["selected"][criterion]["splits"]["unbiased"]["counts"], 0)
    average = {row["split"]: row["average"] for row in found["accuracy"]}["unbiased"]
    assert average["value"] == pytest.approx(np.trace(counts) / counts.sum())
    groups = {row["split"]: row["groups"] for row in found["accuracy"]}["unbiased"]
    assert sum(group["n"] for group in groups) == average["n"] == counts.sum()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_the_export_of_a_run(here: Path, ending: str) -> None:
    if ending == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime", "captum"):
            pytest.importorskip(package)
    folder = plan_quick(here / "sweep", datasets=[DATA])
    assert execute_run(folder) == "done"
    _, found = audit(str(here / "sweep"), DATA)
    exported = load_run(folder).export(here / f"model.{ending}")
    _, same = audit(str(exported), DATA)
    for part in ("accuracy", "gap", "regions", "verdict"):
        assert same[part] == found[part]
    assert found["relevance"] is not None
    assert len(found["relevance"]["shares"]) == 3
    assert len(same["relevance"]["shares"]) == 3  # of an ONNX network, without gradients


@pytest.mark.parametrize(
    ("model", "data", "fact"),
    [
        ("nowhere", DATA, "nowhere"),
        ("nowhere.pt2", DATA, "nowhere.pt2"),
        ("no_such_module:f", DATA, "no_such_module"),
        ("audited_models:missing", DATA, "missing"),
        ("audited_models:nothing", DATA, "None"),
        ("audited_models:fails", DATA, "no weights here"),
        ("audited_models:ends", DATA, "SystemExit"),
        ("audited_models:dictionary", DATA, "dict with ['logits']"),
        ("audited_models:fails_later", DATA, "cannot compute images"),
        ("audited_models:no_numbers", DATA, "--mean, --std"),
        ("audited_models:raising_scores", DATA, "no floats"),
        ("audited_models:words", DATA, "as numbers"),
        ("audited_models.py:fails", DATA, "audited_models:fails"),
        ("audited_models:", DATA, "expected"),
        (".", DATA, "neither that of a run"),
        ("audited_models.py", DATA, "by itself"),
        ("audited_models:three_classes", DATA, "3 outputs"),
        ("timm:resnet18", DATA, "--weights"),
        ("audited_models:network", "tinny", "tiny"),
        ("audited_models:network", "tiny:sizes=3", "sizes"),
    ],
)
def test_mistakes_end_with_2(
    here: Path, model: str, data: str, fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if model.startswith("timm:"):
        pytest.importorskip("timm")
    assert main([model, data]) == 2
    assert fact in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["pt2", "onnx", "safetensors"])
@pytest.mark.parametrize("content", ["empty", "truncated", "text", "pickled"])
def test_damaged_files_are_one_sentence(
    here: Path, ending: str, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if ending == "onnx" and content != "empty":
        pytest.importorskip("onnxruntime")
    file = Path(f"model.{ending}")
    if ending == "pt2" and content == "truncated":
        flat = torch.export.export(torch.nn.Flatten(), (torch.zeros(2, 3, 4, 4),))
        torch.export.save(flat, file)
        file.write_bytes(file.read_bytes()[:-100])
    elif content == "pickled":
        torch.save({"weight": torch.zeros(2)}, file)
    else:
        file.write_bytes({"empty": b"", "truncated": b"PK\3\4", "text": b"hello"}[content])
    assert main([str(file), DATA]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert str(file) in line and "expected" in line and "Error" not in line
    assert ("is empty" in line) == (content == "empty")


def test_a_network_of_another_program(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class ByMean(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            mean = image.mean((1, 2, 3))
            return torch.stack([0.5 - mean, mean - 0.5], 1)

    image = torch.zeros(2, 3, 16, 16)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(ByMean(), (image,), dynamic_shapes=shapes)
    torch.export.save(program, "theirs.pt2")
    assert main(["theirs.pt2", DATA]) == 2
    assert "--mean and --std" in capsys.readouterr().err
    plain = ["--mean", "0", "0", "0", "--std", "1", "1", "1"]
    code, found = audit("theirs.pt2", DATA, *plain)
    assert code == 0
    split = DATASETS.get("planted")(None, on="tiny", options="size=64", bias=0.9).load(0).splits
    bright = (np.asarray(split["unbiased"].image) / 255).mean((1, 2, 3)) > 0.5
    accuracy = {row["split"]: row["average"]["value"] for row in found["accuracy"]}
    assert accuracy["unbiased"] == pytest.approx((bright == split["unbiased"].label).mean())
    assert {"input_gradient"} <= set(found["relevance"]["shares"])
    assert main(["theirs.pt2", DATA, *plain, "--method", "erm"]) == 2
    assert "--method does not apply" in capsys.readouterr().err


def test_a_network_of_onnx_for_two_images_at_once(here: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["mean", "weight"], ["logits"]),
        ],
        "flat",
        [helper.make_tensor_value_info("image", number, [2, 3, 16, 16])],
        [helper.make_tensor_value_info("logits", number, [2, 2])],
        [helper.make_tensor("weight", number, [3, 2], [1.0, 0, 0, 1, 0, 0])],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), "theirs.onnx")
    info = DATASETS.get("tiny")().info()
    options = ModelOptions(mean=(0.0,) * 3, std=(1.0,) * 3)
    model = load_model("theirs.onnx", info, options)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), np.uint8)
    expected = pixels.mean((2, 3))[:, :2] / 255
    np.testing.assert_allclose(model.scores(pixels), expected, atol=1e-5)
    with pytest.raises(UserError, match=r"it takes image \[2, 3, 16, 16\]"):
        model.scores(pixels[:, :, :8])


def test_scores_may_be_tensors_with_gradients(here: Path) -> None:
    code, found = audit("audited_models:scores_with_gradients", DATA)
    assert code == 0 and found["verdict"] != "relies"


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("empty", "the file is empty"),
        ("pickled", "pickled objects"),
        ("list", "no state dict"),
        ("text", "incomplete"),
        ("other", "other shapes"),
    ],
)
def test_files_of_weights_that_timm_cannot_use(here: Path, content: str, fact: str) -> None:
    timm = pytest.importorskip("timm")
    file = Path("weights.pth")
    if content == "pickled":
        torch.save(torch.nn.Linear(2, 2), file)
    elif content == "list":
        torch.save([1, 2], file)
    elif content == "other":
        state = timm.create_model("resnet10t", num_classes=2).state_dict()
        torch.save({key: torch.zeros(3) for key in state}, file)
    else:
        file.write_bytes(b"" if content == "empty" else b"hello")
    info = DATASETS.get("tiny")().info()
    with pytest.raises(UserError, match=fact):
        load_model("timm:resnet10t", info, ModelOptions(weights=file))


def test_other_normalisations_and_labels_are_checked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audited_models:network", DATA, "--mean", "0.5"]) == 2
    assert "3 channels" in capsys.readouterr().err
    assert main(["audited_models:network", DATA, "--labels", "a", "b"]) == 2
    assert "lying" in capsys.readouterr().err


def test_a_timm_model_is_normalised_as_timm_describes_it(here: Path) -> None:
    timm = pytest.importorskip("timm")
    info = DATASETS.get("tiny")().info()
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=len(info.label_names)).eval()
    torch.save(network.state_dict(), "weights.pt")
    options = ModelOptions(weights=Path("weights.pt"))
    model = load_model("timm:resnet10t", info, options)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *info.image_size), np.uint8)
    mean, std = (network.pretrained_cfg[part] for part in ("mean", "std"))
    image = (pixels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    with torch.inference_mode():
        expected = network(torch.from_numpy(image).float()).numpy()
    np.testing.assert_allclose(model.scores(pixels), expected, rtol=1e-3, atol=1e-4)
    assert model.network is not None and hasattr(model.network, "cam_module")
    names = (*info.label_names, "other")
    with pytest.raises(UserError, match="no last layer of"):
        load_model("timm:resnet10t", replace(info, label_names=names), options)


@pytest.mark.slow
def test_a_timm_model_with_a_file_of_weights(here: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("resnet10t", num_classes=2)
    torch.save(network.state_dict(), "weights.pt")
    code, found = audit("timm:resnet10t", DATA, "--weights", "weights.pt")
    assert code == 0 and found["model"] == "timm:resnet10t"
