"""MNIST's files: reading, missing and damaged files, and downloading on request only."""

from __future__ import annotations

import gzip
import re
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from datasets._sources.mnist import MNISTSource, subset_size
from tests.support.dataset_equality import same
from tests.support.mnist_tree import NAMES, arrays, idx, make_tree

KINDS = ("coloured_mnist", "cmnist")
IMAGES, LABELS = NAMES["train", "images"], NAMES["train", "labels"]


def source(root: Path | None, name: str = "coloured_mnist", **options: object) -> MNISTSource:
    made = DATASETS.get(name)(root, **options)
    assert isinstance(made, MNISTSource)
    return made


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same small MNIST, compressed and plain."""
    root = tmp_path_factory.mktemp("mnist")
    return make_tree(root / "compressed"), make_tree(root / "plain", compressed=False)


@pytest.mark.parametrize("plain", [False, True])
def test_reading_written_files(trees: tuple[Path, Path], plain: bool) -> None:
    for part, (images, labels) in arrays().items():
        found = source(trees[plain]).read(part)
        assert (found[0] == images).all()
        assert (found[1] == labels).all()
        assert found[1].dtype == np.int64
    assert source(trees[plain]).counts() == {"train": 600, "test": 300}


def test_reader_agrees_with_torchvision(trees: tuple[Path, Path]) -> None:
    from torchvision.datasets import MNIST

    for part in ("train", "test"):
        theirs, ours = MNIST(str(trees[1]), train=part == "train"), source(trees[1]).read(part)
        assert (theirs.data.numpy() == ours[0]).all()
        assert (theirs.targets.numpy() == ours[1]).all()


@pytest.mark.parametrize("name", KINDS)
def test_plain_and_compressed_files_are_equal(trees: tuple[Path, Path], name: str) -> None:
    one, other = source(trees[0], name), source(trees[1], name)
    assert one.fingerprint() == other.fingerprint()
    assert same(one.load(0), other.load(0))


def test_content_follows_every_file(tmp_path: Path) -> None:
    root = make_tree(tmp_path, compressed=False)
    seen = {source(root).content()}
    for name in NAMES.values():
        path = root / "MNIST" / "raw" / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        seen.add(source(root).content())
    assert len(seen) == 5


@pytest.mark.parametrize("name", KINDS)
def test_no_data_folder(name: str) -> None:
    for ask in (MNISTSource.check, MNISTSource.fingerprint, MNISTSource.download):
        with pytest.raises(
            UserError, match=rf"{name} needs MNIST, but no data folder.*--data-dir.*--download"
        ):
            ask(source(None, name))


@pytest.mark.parametrize("missing", NAMES.values())
def test_missing_file(tmp_path: Path, missing: str) -> None:
    root = make_tree(tmp_path)
    (root / "MNIST" / "raw" / f"{missing}.gz").unlink()
    folder = re.escape(str(root / "MNIST" / "raw"))
    wanted = (
        rf"needs MNIST in {folder}, but {missing} \(or {missing}\.gz\) is not there.*--download"
    )
    with pytest.raises(UserError, match=wanted):
        source(root).check()
    with pytest.raises(UserError, match=wanted):
        source(root).fingerprint()
    shutil.rmtree(root / "MNIST")
    with pytest.raises(UserError, match=r"is not there.*--download"):
        source(root).load(0)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


Damage = tuple[str, Callable[[bytes], bytes], str]
BOTH: list[Damage] = [
    (IMAGES, lambda data: b"", "begins with nothing, expected 00000803 for images"),
    (IMAGES, lambda data: b"\0\0\x08", "begins with 000008"),
    (
        IMAGES,
        lambda data: idx(arrays()["train"][1]),
        "begins with 00000801, expected 00000803 for images",
    ),
    (
        LABELS,
        lambda data: idx(arrays()["train"][0]),
        "begins with 00000803, expected 00000801 for labels",
    ),
    (LABELS, lambda data: b"<html>not found</html>", "begins with 3c68746d, expected 00000801"),
    (
        IMAGES,
        lambda data: idx(np.zeros((600, 14, 14), np.uint8)),
        "its images are 14×14, expected 28×28",
    ),
    (
        LABELS,
        lambda data: idx(np.zeros(0, np.uint8)),
        "holds 8 bytes, but its header promises 8 for 0 labels",
    ),
    (LABELS, lambda data: idx(arrays()["train"][1][:599]), "holds 599 labels for 600 images"),
    (
        IMAGES,
        lambda data: data[:-1],
        "holds 470415 bytes, but its header promises 470416 for 600 images",
    ),
    (
        IMAGES,
        lambda data: data + b"\0",
        "holds 470417 bytes, but its header promises 470416 for 600 images",
    ),
]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("damage", BOTH, ids=lambda damage: damage[2][:30])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Damage, compressed: bool) -> None:
    name, change, words = damage
    root = make_tree(tmp_path, compressed)
    path = root / "MNIST" / "raw" / (f"{name}.gz" if compressed else name)
    content = change(gzip.decompress(path.read_bytes()) if compressed else path.read_bytes())
    path.write_bytes(gzip.compress(content, 1) if compressed else content)
    error_message(root, path, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut, "bytes, but its header promises 470416"),
        (lambda data: data[:5], "cannot be decompressed"),
        (lambda data: b"plain text", "cannot be decompressed"),
        (lambda data: b"", "begins with nothing"),
    ],
)
def test_damaged_compression_is_named(
    tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    root = make_tree(tmp_path)
    path = root / "MNIST" / "raw" / f"{IMAGES}.gz"
    path.write_bytes(change(path.read_bytes()))
    error_message(root, path, words)


def error_message(root: Path, path: Path, words: str) -> None:
    """Return the message of ``check`` and ``load``, which must name the file in one line."""
    for name in KINDS:
        for ask in (lambda s: s.check(), lambda s: s.load(0)):
            with pytest.raises(UserError) as caught:
                ask(source(root, name))
            text = str(caught.value)
            assert str(path) in text
            assert words in text
            assert "--download" in text
            assert "\n" not in text


def test_damage_inside_a_compressed_file_is_found_by_its_checksum(tmp_path: Path) -> None:
    """The header and the stored size are right; only reading the file reveals the damage."""
    root = make_tree(tmp_path)
    path = root / "MNIST" / "raw" / f"{IMAGES}.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    source(root).check()
    with pytest.raises(UserError, match=rf"{path} is damaged \(it cannot be decompressed"):
        source(root).load(0)


def test_labels_above_nine(tmp_path: Path) -> None:
    root = make_tree(tmp_path, compressed=False)
    path = root / "MNIST" / "raw" / LABELS
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(UserError, match="label 11, expected 0 to 9"):
        source(root).load(0)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("option", ["train_size", "test_size"])
def test_subsets_that_are_too_large_are_refused(
    trees: tuple[Path, Path], name: str, option: str
) -> None:
    with pytest.raises(UserError, match=rf"{name}: {option} = 9999 .*the \d+ digits"):
        source(trees[0], name, **{option: 9999}).check()


def test_subset_size() -> None:
    assert (subset_size(0, 5, "x"), subset_size(5, 5, "x"), subset_size(1, 5, "x")) == (5, 5, 1)


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, fetch: Callable[[str], None]) -> list[str]:
    """Replace torchvision by a module whose MNIST calls ``fetch``; return the list of calls."""
    calls: list[str] = []

    def mnist(root: str, download: bool = False) -> None:
        assert download
        calls.append(root)
        fetch(root)

    module = types.ModuleType("torchvision.datasets")
    module.MNIST = mnist  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    return calls


def test_download_fetches_what_is_missing_and_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_torchvision(
        monkeypatch, lambda root: make_tree(Path(root), compressed=False) and None
    )
    source(tmp_path).download()
    assert calls == [str(tmp_path)]
    source(tmp_path).check()
    source(tmp_path).download()
    assert len(calls) == 1


def test_download_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: str) -> None:
        raise RuntimeError(
            "Error downloading train-images:\nTried one mirror, got:\n<urlopen error>\n"
        )

    fake_torchvision(monkeypatch, fail)
    folder = tmp_path / "MNIST" / "raw"
    with pytest.raises(
        UserError, match=rf"could not be downloaded to {folder} \(Error downloading"
    ) as caught:
        source(tmp_path).download()
    assert "\n" not in str(caught.value)


def test_download_does_not_hide_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path, compressed=False)
    path = root / "MNIST" / "raw" / LABELS
    path.write_bytes(path.read_bytes()[:-1])
    fake_torchvision(
        monkeypatch, lambda root: None
    )  # torchvision takes a file that is there for whole
    with pytest.raises(UserError, match=f"{path} is damaged .*--download"):
        source(root).download()


@pytest.mark.data
def test_real_files(real_data: Path) -> None:
    made = source(real_data)
    assert made.counts() == {"train": 60_000, "test": 10_000}
    images, labels = made.read("test")
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images.shape == (10_000, 28, 28)
