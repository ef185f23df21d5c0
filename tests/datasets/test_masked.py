"""Masks from a file: found by pixels, written by `data masks`, and named in tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.api.run import load_run
from benchmark.core.errors import UserError
from benchmark.core.mask_file import (
    MaskFile,
    image_digests,
    packed,
    read_mask_file,
    write_mask_file,
)
from benchmark.core.needs import without_mask_annotation
from benchmark.core.registry import BACKBONES, DATASETS
from benchmark.core.summaries import DataSummary
from benchmark.data import main
from benchmark.explain.tokencut import tokencut
from benchmark.explain.vit_keys import last_keys
from benchmark.plan.planner import expand
from benchmark.plan.sweep_folder import write_plan
from benchmark.plan.sweepfile import config_from
from tests.support import trees
from tests.support.mask_tree import MASKS, tiny_masks
from tests.support.messages import mentions
from tests.support.runs import run


def make(root: Path, **options: Any) -> Any:
    return DATASETS.get("masked")(root, **options)


def test_masks_survive_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 3, 7, 9)).astype(np.uint8)
    mask = rng.random((5, 7, 9)) < 0.5
    pairs = zip(image_digests(image[:4]), mask[:4], strict=True)
    write_mask_file(
        tmp_path / "m.npz", MaskFile((7, 9), {key: packed(m) for key, m in pairs}, "by hand")
    )
    found = read_mask_file(tmp_path / "m.npz")
    got, known = found.masks(image)
    assert known.tolist() == [True] * 4 + [False] and not got[4].any()
    assert np.array_equal(got[:4, 0], mask[:4]) and found.about == "by hand"
    assert list(image_digests(image[:1])) != list(image_digests(image[:1].transpose(0, 1, 3, 2)))


def test_train_and_val_have_the_masks_of_the_file(tmp_path: Path) -> None:
    """Images, tests and labels are those of the underlying data set in the same trial."""
    tiny_masks(tmp_path, trials=(0, 1))
    base = DATASETS.get("tiny")(None)
    for trial in (0, 1):
        data, plain = make(tmp_path).load(trial), base.load(trial)
        for name, split in data.splits.items():
            other = plain.splits[name]
            assert np.array_equal(split.image, other.image)
            assert split.mask is not None and other.mask is not None
            expected = ~other.mask if name in ("train", "val") else other.mask
            assert np.array_equal(split.mask, expected)
    assert data.info.unannotated_masks and data.info.provides.masks
    assert not data.info.provides.class_masks


def test_data_without_masks_get_them(tmp_path: Path) -> None:
    """Tests stay without masks, and the file serves any trial that shows the same images."""
    trees.folder(tmp_path, masks=False, confounders=False, more=False)
    base = DATASETS.get("folder")(tmp_path, side=16)
    plain = base.load(0)
    assert not plain.info.provides.masks
    bits = {}
    for name in ("train", "val"):
        image = plain.splits[name].image
        for digest, pixels in zip(image_digests(image), image, strict=True):
            bits[digest] = packed(pixels[0] > 100)
    write_mask_file(tmp_path / MASKS, MaskFile((16, 16), bits))
    data = make(tmp_path, on="folder", options="side=16").load(1)
    train = data.splits["train"]
    assert train.mask is not None
    assert np.array_equal(train.mask[:, 0], train.image[:, 0] > 100)
    assert data.info.provides.masks and data.info.provides.val_masks
    assert all(data.splits[name].mask is None for name in data.info.test_splits)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "there is no masks/tokencut.npz in"),
        (lambda path: path.write_bytes(b"x" * 50), "is damaged or no file of masks"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "is damaged or no file of masks"),
    ],
)
def test_damage_is_a_user_error(
    damage: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    tiny_masks(tmp_path)
    damage(tmp_path / MASKS)
    with pytest.raises(UserError, match=words):
        make(tmp_path).load(0)


def test_masks_of_other_images_are_refused(tmp_path: Path) -> None:
    tiny_masks(tmp_path)
    with pytest.raises(UserError, match=r"no mask of .* images of train.*--trials"):
        make(tmp_path).load(1)
    with pytest.raises(UserError, match=r"16×16 .*digits_on_photos 32×32"):
        make(tmp_path, on="digits_on_photos").check()
    with pytest.raises(UserError, match="on=masked would build on itself"):
        make(tmp_path, on="masked")


def test_what_tables_say_about_needs() -> None:
    assert without_mask_annotation(("masks", "val_masks")) == ("no annotation",)
    assert without_mask_annotation(("groups", "masks")) == ("groups", "masks without annotation")
    assert without_mask_annotation(("groups",)) == ("groups",)
    data = DataSummary(label_names=("a",), splits={"train": 1}, unannotated_masks=True)
    assert data.to_json()["unannotated_masks"] is True
    plain = DataSummary(label_names=("a",), splits={"train": 1}).to_json()
    assert not {"unannotated_masks", "unlabelled_splits"} & plain.keys()


def dino_layout(side: int, **options: int) -> dict[str, Any]:
    """Return random weights under the names of DINO."""
    import torch

    torch.manual_seed(0)
    net = BACKBONES.get("vit")(1, (3, side, side), mlp_ratio=4.0, **options).net
    names = {
        "encoder.layers.encoder_layer_": "blocks.", "encoder.pos_embedding": "pos_embed",
        "encoder.ln": "norm", "class_token": "cls_token", "conv_proj": "patch_embed.proj",
        "ln_": "norm", "self_attention.in_proj_": "attn.qkv.", "mlp.0": "mlp.fc1",
        "self_attention.out_proj": "attn.proj", "mlp.3": "mlp.fc2",
    }  # fmt: skip
    state = {}
    for name, value in net.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = torch.randn_like(value) * 0.2
    return state


def test_the_command_writes_masks_and_a_contact_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from PIL import Image

    torch.save(dino_layout(dim=48, depth=2, heads=3, patch=8, side=32), tmp_path / "dino.pth")
    arguments = [
        "masks", "tiny:size=16", "--data-dir", str(tmp_path),
        "--weights", str(tmp_path / "dino.pth"), "--side", "64", "--threshold", "0.6",
        "--backbone", "vit:patch=8,dim=48,depth=2,heads=3,mlp_ratio=4",
        "--trials", "0", "1", "--output", "cuts/a.npz",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "masked:on=tiny,options=size=16,masks=cuts/a.npz" in capsys.readouterr().out
    for trial in (0, 1):
        data = make(tmp_path, options="size=16", masks="cuts/a.npz").load(trial)
        mask = data.splits["train"].mask
        assert mask is not None and mask.shape[1:] == (1, 16, 16)
        assert not mask.all(axis=(1, 2, 3)).any() and mask.any()
    with Image.open(tmp_path / "cuts/a.png") as sheet:
        assert (np.asarray(sheet) == (0, 230, 0)).all(axis=2).any(), "green borders"
    assert read_mask_file(tmp_path / "cuts/a.npz").about.startswith("TokenCut of dino.pth (vit:")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep with a finished run of a transformer and one of a convolutional net."""
    root = tmp_path_factory.mktemp("sweep")
    for backbone in ("vit:patch=4,dim=16,depth=2,heads=2", "convnet:width=2"):
        table = {
            "datasets": ["tiny:size=16"],
            "algorithms": ["erm"],
            "backbone": backbone,
            "budget": {"steps": 2, "evaluate_every": 2},
            "compute": {"explanations": False},
        }
        for key in write_plan(expand(config_from(table, "one", "test")), root / backbone[:3]):
            assert run(root / backbone[:3] / "runs" / key) == "done"
    return root


def test_masks_of_a_run(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The masks are TokenCut of the keys of the selected network, on images normalised for it."""
    import torch

    arguments = ["masks", "tiny:size=16", "--data-dir", str(tmp_path), "--run"]
    assert main([*arguments, str(runs / "vit")]) == 0
    assert "masked:on=tiny,options=size=16,masks=masks/tokencut.npz" in capsys.readouterr().out
    data = make(tmp_path, options="size=16").load(0)
    network = load_run(runs / "vit").network
    image, info = data.splits["val"].image, data.info
    mean, std = (np.array(v)[:, None, None] for v in (info.mean, info.std))
    normalised = torch.from_numpy((image / 255 - mean) / std).float()
    mask = data.splits["val"].mask
    assert mask is not None
    keys = last_keys(network, normalised).numpy()
    for features, found in list(zip(keys, mask, strict=True))[:5]:
        expected = np.kron(tokencut(features, (4, 4)), np.ones((4, 4), bool))
        assert np.array_equal(found[0], expected)
    assert main([*arguments, str(runs / "con")]) == 2
    assert mentions(capsys.readouterr().err, "convnet", "TokenCut")
    other = ["masks", "digits_on_photos:repeats=1", "--data-dir", str(tmp_path), "--run"]
    assert main([*other, str(runs / "vit")]) == 2
    assert mentions(capsys.readouterr().err, "[3, 16, 16]", "digits_on_photos")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "masks needs one network"),
        (["--weights", "{root}/none.pth"], "needs the backbone of the weights"),
        (["--weights", "{root}/none.pth", "--backbone", "vit_s_16"], "none.pth does not exist"),
        (["--weights", "{root}/text.pth", "--backbone", "vit_s_16"], "cannot be read as weights"),
        (["--weights", "{root}/odd.pth", "--backbone", "vit_s_16"], "not in the layout of DINO"),
        (["--weights", "{root}/odd.pth", "--backbone", "resnet18"], "is no vision transformer"),
        (["--run", "{root}"], "expected the folder of a sweep"),
        (["--run", "{root}", "--side", "64"], "--side belongs to --weights"),
        (["--weights", "x", "--output", "masks.csv"], "ends in .npz"),
    ],
)
def test_mistakes_end_with_a_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    torch.save({"cls_token": torch.zeros(1), "odd": torch.zeros(1)}, tmp_path / "odd.pth")
    (tmp_path / "text.pth").write_text("no weights")
    filled = [text.format(root=tmp_path) for text in arguments]
    assert main(["masks", "tiny", "--data-dir", str(tmp_path), *filled]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not (tmp_path / "masks").exists()
