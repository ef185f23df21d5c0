"""Pretrained weights: loading files of the published layout, and every way to fail."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torchvision.models import get_model_weights

from benchmark.core.errors import UserError
from benchmark.core.registry import BACKBONES

Place = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Save a random state dict as torch.hub would, under the name with its sha256."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def put(
        builder: str, rename: Callable[[str], str] = str, name: str = "IMAGENET1K_V1"
    ) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        state = getattr(torchvision.models, builder)(weights=None).state_dict()
        torch.save({rename(key): value for key, value in state.items()}, folder / "new")
        digest = hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
        (folder / "new").rename(folder / f"{builder}-{digest}.pth")
        published: Any = get_model_weights(builder)[name].value
        monkeypatch.setattr(published, "url", f"https://example.invalid/{builder}-{digest}.pth")
        return state

    return put


def loaded(builder: str, side: int, outputs: int = 5) -> Any:
    torch.manual_seed(2)
    return BACKBONES.get(builder)(outputs, (3, side, side), weights="IMAGENET1K_V1")


@pytest.mark.parametrize(("builder", "last"), [("resnet18", "fc"), ("alexnet", "classifier.6")])
def test_everything_but_the_last_layer_is_loaded(place: Place, builder: str, last: str) -> None:
    state = place(builder)
    model = loaded(builder, 64)
    mine = model.state_dict()
    for key, value in state.items():
        if not key.startswith(f"{last}."):
            assert torch.equal(mine[f"net.{key}"], value), key
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_the_last_layer_is_replaced_even_for_a_thousand_classes(place: Place) -> None:
    state = place("resnet18")
    assert not torch.equal(loaded("resnet18", 64, 1000).classifier.weight, state["fc.weight"])


def test_densenet_with_the_old_names_of_its_file(place: Place) -> None:
    old = lambda key: re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)", r"\1.\2", key)  # noqa: E731
    state = place("densenet121", old)
    assert any(old(key) != key for key in state)
    mine = loaded("densenet121", 64).state_dict()
    assert all(
        torch.equal(mine[f"net.{key}"], value)
        for key, value in state.items()
        if "classifier" not in key
    )


@pytest.mark.slow
def test_vit_interpolates_its_position_embeddings(place: Place) -> None:
    state = place("vit_b_16")
    model = loaded("vit_b_16", 32)
    mine = model.state_dict()
    position = "encoder.pos_embedding"
    assert mine[f"net.{position}"].shape == (1, 1 + 4, 768)
    assert torch.equal(mine[f"net.{position}"][:, 0], state[position][:, 0])
    corners = state[position][0, 1:].view(14, 14, 768)[
        [0, 0, 13, 13], [0, 13, 0, 13]
    ]  # align_corners keeps them
    torch.testing.assert_close(mine[f"net.{position}"][0, 1:], corners, rtol=1e-4, atol=1e-5)
    same = [key for key in state if key != position and not key.startswith("heads")]
    assert all(torch.equal(mine[f"net.{key}"], state[key]) for key in same)


def test_offline_is_one_sentence_that_says_what_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published: Any = get_model_weights("resnet18")["IMAGENET1K_V1"].value
    monkeypatch.setattr(
        published, "url", "http://127.0.0.1:9/resnet18-f37072fd.pth"
    )  # no server listens there
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        loaded("resnet18", 64)
    message = str(caught.value)
    assert (
        "weights = none" in message
        and str(tmp_path) in message
        and "resnet18-f37072fd.pth" in message
        and "\n" not in message
    )


@pytest.mark.parametrize("damage", ["truncated", "text", "other content", "other network"])
def test_a_damaged_file_is_one_sentence(place: Place, tmp_path: Path, damage: str) -> None:
    place("resnet18")
    file = next((tmp_path / "hub" / "checkpoints").glob("*.pth"))
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:100_000])
    elif damage == "text":
        file.write_text("<html>not found</html>")
    elif damage == "other content":
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    else:
        torch.save({"conv1.weight": torch.zeros(1)}, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        file.rename(file.with_name(f"resnet18-{digest}.pth"))
        get_model_weights("resnet18")[
            "IMAGENET1K_V1"
        ].value.url = f"https://example.invalid/resnet18-{digest}.pth"
    with pytest.raises(UserError) as caught:
        loaded("resnet18", 64)
    assert "\n" not in str(caught.value)
    expected = "do not fit this network" if damage == "other network" else "could not be read"
    assert expected in str(caught.value)
