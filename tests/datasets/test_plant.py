"""Planted shortcuts: position, appearance, and that nothing else changes."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.core.dataset import GroupedDataset
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from datasets._io import cache
from datasets._sources import compositing
from datasets.planted import COLOURS, JPEG_QUALITIES, SHORTCUTS, plant
from tests.support import trees
from tests.support.dataset_equality import same, same_arrays

N, SIDE = 12, 32


def noise_images(channels: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return grey noise, discs as masks, and confounders 0, 1, 2, …"""
    image = np.random.default_rng(0).integers(90, 110, (N, channels, SIDE, SIDE)).astype(np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = np.stack([((y - 16) ** 2 + (x - 14 - i % 4) ** 2 < 64)[None] for i in range(N)])
    return image, mask, np.arange(N) % 3


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_only_pasted_pixels_change(shortcut: str, with_mask: bool, channels: int) -> None:
    image, mask, confounder = noise_images(channels)
    if shortcut == "background" and not with_mask:
        with pytest.raises(UserError, match="needs masks"):
            plant(image, confounder, shortcut, 0)
        return
    before = image.copy()
    made = plant(image, confounder, shortcut, 0, mask if with_mask else None)
    assert np.array_equal(image, before)
    assert made.image.dtype == np.uint8 and made.pasted.dtype == np.bool_
    assert made.pasted.any(axis=(1, 2, 3)).all()
    softened = np.zeros_like(made.pasted) if shortcut != "tie" else _edges(made.pasted)
    untouched = ~made.pasted & ~softened
    assert (made.image == image)[np.broadcast_to(untouched, image.shape)].all()
    changed = (made.image != image).any(axis=1)[made.pasted[:, 0]].mean()
    assert changed > (0.5 if shortcut == "jpeg" else 0.9)  # compression leaves some pixels as is


def _edges(pasted: np.ndarray) -> np.ndarray:
    wide = np.pad(pasted[:, 0], ((0, 0), (1, 1), (1, 1)))
    near = np.zeros_like(pasted[:, 0])
    for dy in range(3):
        for dx in range(3):
            near |= wide[:, dy : dy + SIDE, dx : dx + SIDE]
    return (near & ~pasted[:, 0])[:, None]


def test_positions() -> None:
    image, mask, confounder = noise_images()
    pasted = {s: plant(image, confounder, s, 0, mask).pasted for s in SHORTCUTS}
    rows, columns = np.nonzero(pasted["tag"].any(axis=(0, 1)))
    assert rows.max() < SIDE // 3 and columns.max() < SIDE // 3  # the corner at the top left
    frame = np.ones((SIDE, SIDE), bool)
    frame[2:-2, 2:-2] = False
    assert (pasted["border"] == frame).all()
    assert np.array_equal(pasted["colour"], mask) and np.array_equal(pasted["background"], ~mask)
    for i in range(N):
        rows, columns = np.nonzero(pasted["tie"][i, 0])
        assert (
            abs((columns.min() + columns.max()) / 2 - (14 + i % 4)) <= 1
        )  # in the middle of the disc


def test_colours_reveal_the_confounder() -> None:
    image, mask, confounder = noise_images()
    for shortcut in ("tag", "border", "colour"):
        made = plant(image, confounder, shortcut, 0, mask)
        for i, kind in enumerate(confounder):
            colour = np.median(made.image[i][:, made.pasted[i, 0]], axis=1)
            wanted = np.array(COLOURS[kind], float)
            assert (
                np.abs(colour - (wanted if shortcut != "colour" else (wanted + 100) / 2)).max() < 8
            )


@pytest.mark.parametrize("channels", [1, 3])
def test_compression_is_that_of_a_file(channels: int) -> None:
    image, mask, _ = noise_images(channels)
    confounder = np.arange(N) % 11
    made = plant(image, confounder, "jpeg", 0, mask)
    assert made.pasted.all()
    for i, kind in enumerate(confounder):
        buffer = io.BytesIO()
        pixels = image[i].transpose(1, 2, 0)[:, :, 0 if channels == 1 else slice(None)]
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITIES[kind % 10])
        read = np.asarray(Image.open(buffer)).reshape(SIDE, SIDE, channels)
        assert np.array_equal(made.image[i].transpose(1, 2, 0), read)
    half = plant(image, confounder, "jpeg", 0, opacity=0.5).image
    assert np.abs(half - (image.astype(float) + made.image) / 2).max() <= 0.5
    some = plant(image, confounder, "jpeg", 0, unmarked=1)
    assert np.array_equal(some.image[1], image[1]) and not some.pasted[1].any()


def test_tags_are_legible() -> None:
    layer = compositing.tag((40, 40), "17", (1, 2, 3), 0.5)
    rows, columns = np.nonzero(layer.opacity)
    glyphs = (
        layer.opacity[rows.min() : rows.max() + 1 : 4, columns.min() : columns.max() + 1 : 4] > 0
    )
    art = ["".join(".#"[int(v)] for v in row) for row in glyphs]
    assert art == [".#..###", "##....#", ".#...#.", ".#...#.", "###..#."]
    assert rows.min() <= 2 and columns.min() <= 2  # the top left corner


def test_opacity_size_unmarked_confounders_and_pieces() -> None:
    image, mask, confounder = noise_images()
    full = plant(image, confounder, "border", 0)
    half = plant(image, confounder, "border", 0, opacity=0.5)
    expected = (image.astype(float) + full.image) / 2
    assert np.abs(half.image - expected)[np.broadcast_to(full.pasted, image.shape)].max() <= 1.5
    assert plant(image, confounder, "border", 0, size=3).pasted.sum() > full.pasted.sum()
    some = plant(image, confounder, "border", 0, unmarked=1)
    assert (some.pasted.any(axis=(1, 2, 3)) == (confounder != 1)).all()
    whole = plant(image, confounder, "background", 5, mask)
    parts = [slice(a, a + 5) for a in (0, 5, 10)]
    pieces = [
        plant(image[p], confounder[p], "background", 5, mask[p], first=p.start) for p in parts
    ]
    assert np.array_equal(whole.image, np.concatenate([piece.image for piece in pieces]))
    assert not np.array_equal(whole.image, plant(image, confounder, "background", 6, mask).image)
    with pytest.raises(UserError, match="no shortcut"):
        plant(image, confounder, "hat", 0)


def test_ties_are_cropped_at_the_border() -> None:
    tie = compositing.draw_tie((200, 10, 10), compositing.TieKind.NECKTIE)
    inside = compositing.image_layer(tie, compositing.Box(4, 4, 12, 24), (32, 32))
    assert np.nonzero(inside.opacity.any(0))[0].tolist()[0] >= 4 and inside.opacity.max() == 255
    for box in (compositing.Box(-6, 20, 4, 50), compositing.Box(28, -9, 40, 6)):
        layer = compositing.image_layer(tie, box, (32, 32))
        assert layer.opacity.shape == (32, 32) and 0 < (layer.opacity > 0).sum() < 200
    assert not compositing.image_layer(tie, compositing.Box(50, 50, 60, 60), (32, 32)).opacity.any()


def planted(folder: Path | None = None, trial: int = 0, **options: Any) -> GroupedDataset:
    return DATASETS.get("planted")(folder, **options).load(trial)  # type: ignore[no-any-return]


class TestData:
    @pytest.mark.parametrize("bias", [0.0, 0.8, 1.0])
    def test_bias(self, bias: float) -> None:
        data = planted(bias=bias)
        train = data.splits["train"]
        assert (train.label == train.confounder).mean() == pytest.approx(bias, abs=0.02)
        assert (train.environment is not None) == (0 < bias < 1)
        assert (data.splits["biased"].label == data.splits["biased"].confounder).all()
        assert (data.splits["deceiving"].label == 1 - data.splits["deceiving"].confounder).all()  # type: ignore[operator]
        counts = Counter(
            zip(data.splits["unbiased"].label, data.splits["unbiased"].confounder, strict=True)
        )  # type: ignore[arg-type]
        assert max(counts.values()) - min(counts.values()) <= 1
        assert data.info.stand_in and data.info.confounder_names == ("mark_lying", "mark_standing")

    def test_tests_are_independent_of_the_bias_and_images_of_the_shortcut(self) -> None:
        one, other = planted(bias=0.8), planted(bias=1.0)
        for name in ("biased", "unbiased", "deceiving"):
            assert same_arrays(one.splits[name], other.splits[name])
        below = DATASETS.get("tiny")()
        bars = below.build(
            __import__("benchmark.core.seeds", fromlist=["seed_for"]).seed_for("data", "planted", 0)
        )
        tagged = planted(shortcut="tag").splits["train"]
        assert np.array_equal(tagged.image[:, :, 8:, 8:], bars["train"].image[:, :, 8:, 8:])

    def test_pasted_pixels_are_removed_from_masks(self) -> None:
        tag, colour = (
            planted(shortcut="border").splits["train"],
            planted(shortcut="colour").splits["train"],
        )
        assert tag.mask is not None and colour.mask is not None
        assert not tag.mask[:, :, 0].any() and colour.mask.sum() >= tag.mask.sum() > 0

    def test_underlying_data_without_masks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SHORTCUTBED_CACHE", raising=False)
        trees.folder(tmp_path, masks=False)
        options = {"on": "folder", "options": "side=32;path=my_data"}
        data = planted(tmp_path, shortcut="tag", **options)
        mask = data.splits["train"].mask
        assert mask is not None and 0.9 < mask.mean() < 1  # everything but the tag
        assert planted(tmp_path, shortcut="colour", **options).splits["train"].mask is None
        assert not planted(tmp_path, shortcut="colour", **options).info.provides.masks
        with pytest.raises(UserError, match="background needs masks"):
            planted(tmp_path, shortcut="background", **options)

    def test_one_mark(self) -> None:
        data = planted(marked="one", bias=0.9)
        assert data.info.confounder_names == ("no_mark", "mark")
        biased = data.splits["biased"]
        assert biased.confounder is not None and np.array_equal(
            biased.confounder, biased.label == 1
        )

    def test_the_tests_know_where_the_shortcut_is(self) -> None:
        data = planted(marked="one", shortcut="tag")
        for name, split in data.splits.items():
            assert (split.shortcut is None) == (name in ("train", "val"))
            if split.shortcut is None:
                continue
            assert split.confounder is not None and split.mask is not None
            assert np.array_equal(split.shortcut.any(axis=(1, 2, 3)), split.confounder == 1)
            assert not (split.shortcut & split.mask).any()

    def test_which_test(self) -> None:
        assert len(planted(test="deceiving").splits["biased"]) == 48
        with pytest.raises(UserError, match="is no test of tiny"):
            planted(test="train")

    def test_compression_keeps_the_foreground(self) -> None:
        tinted = planted(shortcut="colour")
        data = planted(shortcut="jpeg")
        train = data.splits["train"]
        assert data.info.provides.masks and np.array_equal(train.mask, tinted.splits["train"].mask)
        assert np.asarray(data.splits["unbiased"].shortcut).all()
        flat = [
            (np.diff(train.image[train.confounder == c].astype(float)) == 0).mean() for c in (0, 1)
        ]
        assert flat[0] > flat[1]  # quality 10 is flatter than quality 80

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"on": "planted"}, "on=planted would build on itself"),
            ({"on": "nothing"}, "unknown dataset"),
            ({"options": "size"}, "expected NAME=VALUE"),
            ({"options": "colour=3"}, "bias, size, side"),
            ({"options": "size=few"}, "size = 'few'"),
            ({"shortcut": "hat"}, "is not one of"),
        ],
    )
    def test_mistakes(self, options: dict[str, str], words: str) -> None:
        with pytest.raises(UserError, match=words):
            planted(**options)

    def test_large_data_are_stored_in_a_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SHORTCUTBED_CACHE", str(tmp_path))
        small = planted(shortcut="tie")
        assert not list(tmp_path.iterdir())
        monkeypatch.setattr(cache, "default_memory_limit", lambda: 0)
        large = planted(shortcut="tie")
        assert same(small, large) and isinstance(large.splits["train"].image, np.memmap)


def test_a_neutral_test_is_preferred_and_others_are_noted(tmp_path: Path) -> None:
    options = trees.folder(tmp_path, masks=False)
    text = ";".join(f"{name}={value}" for name, value in options.items())
    source = DATASETS.get("planted")(tmp_path, on="folder", options=text)
    assert source.base.info().test_splits == ("biased", "deceiving")
    assert any("deceiving" in note for note in source.notes())
    table = {
        "datasets": [f"planted:on=folder,options={text}"],
        "algorithms": ["erm"],
        "budget": {"steps": 2, "evaluate_every": 2},
    }
    (warning,) = expand(config_from(table, "planted", "test"), tmp_path).warnings
    assert "deceiving" in warning and "test=" in warning
    neutral = DATASETS.get("planted")(None, on="tiny", options="size=16")
    assert not neutral.notes()
