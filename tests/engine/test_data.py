"""Splits on the device: images are normalised as in float64, from memory and from a mapped file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core.dataset import GroupedDataset
from benchmark.core.speed.memory import Scratch
from benchmark.engine.device_split import DeviceSplit
from benchmark.engine.host_rows import HostRows
from tests.support.random_data import INFO, random_data


def _split(data: GroupedDataset) -> DeviceSplit:
    return DeviceSplit(data, "train", torch.device("cpu"))


def test_normalisation_is_that_of_float64() -> None:
    values = np.arange(256, dtype=np.uint8)
    image = np.zeros((8, 3, 5, 7), np.uint8)
    image.reshape(-1)[: 3 * 256] = np.tile(values, 3)
    data = random_data(8, image)
    mean, std = (np.array(v, np.float64)[:, None, None] for v in (INFO.mean, INFO.std))
    expected = (image / 255.0 - mean) / std
    found = _split(data).batch(np.arange(8)).image
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


def test_a_batch_holds_the_rows_in_their_order_with_all_that_is_known() -> None:
    data = random_data()
    arrays = data.splits["train"]
    rows = np.array([7, 3, 3, 49])
    batch = _split(data).batch(rows)
    whole = _split(data).batch(np.arange(50)).image
    assert torch.equal(batch.image, whole[rows]) and batch.index.tolist() == rows.tolist()
    for name in ("label", "confounder", "environment", "mask"):
        assert np.array_equal(getattr(batch, name).numpy(), getattr(arrays, name)[rows])
    assert arrays.confounder is not None and batch.group is not None
    assert batch.group.tolist() == (arrays.label * 2 + arrays.confounder)[rows].tolist()


def test_what_is_not_known_is_none() -> None:
    batch = _split(random_data(bare=True)).batch(np.arange(3))
    assert batch.group is batch.confounder is batch.environment is batch.mask is None


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_batches_show_every_image_once_in_order(size: int) -> None:
    index = torch.cat([batch.index for batch in _split(random_data()).batches(size)])
    assert index.tolist() == list(range(50))


def test_a_mapped_file_gives_the_same_batches(tmp_path: Path) -> None:
    plain = random_data()
    np.save(tmp_path / "image.npy", plain.splits["train"].image)
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    mapped = _split(random_data(image=image))
    assert mapped._image is None  # stays a file: nothing was read into memory
    for rows in (np.arange(50), np.array([5, 0, 5])):
        assert torch.equal(mapped.batch(rows).image, _split(plain).batch(rows).image)


def test_mapped_masks_give_the_same_batches(tmp_path: Path) -> None:
    plain = random_data()
    np.save(tmp_path / "mask.npy", plain.splits["train"].mask)
    mask = np.load(tmp_path / "mask.npy", mmap_mode="r")
    arrays = replace(plain.splits["train"], mask=mask)
    mapped = _split(replace(plain, splits={"train": arrays}))
    assert mapped._mask is None
    rows = np.array([5, 0, 5])
    batch, expected = mapped.batch(rows), _split(plain).batch(rows)
    assert batch.mask is not None and expected.mask is not None
    assert torch.equal(batch.mask, expected.mask)
    batch.mask.logical_not_()  # as an augmentation in place
    again = mapped.batch(rows).mask
    assert again is not None and torch.equal(again, expected.mask)


@pytest.mark.parametrize(
    "side", [6, 200, 300], ids=["all at once", "a few at a time", "one by one"]
)
def test_images_are_normalised_the_same_bit_for_bit_in_pieces_of_any_size(side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 3, side, side), dtype=np.uint8)
    rows = np.array([11, 0, 7, 7, 3, 10, 5, 1, 2])
    split = _split(random_data(12, image))
    whole = torch.from_numpy(image[rows]).float() * split.scale + split.shift
    assert torch.equal(split.batch(rows).image, whole)
    assert split.batch(rows[:0]).image.shape == (0, 3, side, side)


def test_a_batch_is_a_copy() -> None:
    data = random_data()
    split = _split(data)
    before = data.splits["train"].image.copy()
    split.batch(np.arange(5)).image.zero_()
    split.batch(np.arange(5)).label.zero_()
    assert np.array_equal(data.splits["train"].image, before)
    assert torch.equal(
        split.batch(np.arange(5)).label, torch.from_numpy(data.splits["train"].label[:5])
    )


def test_memory_is_used_again_once_nothing_holds_it() -> None:
    scratch = Scratch()
    first = scratch.take(4, 3)
    place = first.data_ptr()
    del first
    again = scratch.take(2, 3)
    assert again.data_ptr() == place and again.shape == (2, 3)
    assert scratch.take(2, 3).data_ptr() != place


@pytest.mark.parametrize("hold", ["view", "numpy", "graph", "leaf"])
def test_memory_that_is_held_is_left_alone(hold: str) -> None:
    scratch, weight = Scratch(), torch.ones(3, requires_grad=True)
    batch = scratch.take(4, 3).fill_(7.0)
    held: torch.Tensor | np.ndarray
    if hold == "view":
        held = batch[1:, :2].detach()
    elif hold == "numpy":
        held = batch.numpy()[0]
    elif hold == "graph":
        held = (batch * weight).sum()  # keeps the batch for the gradient of the weight
    else:
        held = batch.requires_grad_()
    del batch
    for _ in range(5):
        scratch.take(4, 3).fill_(0.0)
    if hold == "graph":
        torch.as_tensor(held).backward()
        assert weight.grad is not None and weight.grad.tolist() == [28.0, 28.0, 28.0]
    else:
        assert (torch.as_tensor(held) == 7.0).all()


def test_more_memory_than_is_kept_is_still_given() -> None:
    scratch = Scratch(keep=2)
    batches = [scratch.take(5).fill_(float(i)) for i in range(6)]
    assert [batch.tolist() for batch in batches] == [[float(i)] * 5 for i in range(6)]
    del batches
    assert scratch.take(500).shape == (500,)


@pytest.mark.gpu
def test_batches_are_equal_from_the_gpu_and_from_the_host() -> None:
    data, device = random_data(), torch.device("cuda")
    rows = np.array([3, 1, 3])
    resident = DeviceSplit(data, "train", device)
    streamed = DeviceSplit(data, "train", device, max_gpu_share=0.0)
    assert resident._image is not None and streamed._image is None
    for split in (resident, streamed):
        batch = split.batch(rows)
        assert batch.image.device.type == batch.label.device.type == "cuda"
        assert batch.mask is not None and batch.mask.device.type == "cuda"
        torch.testing.assert_close(
            batch.image.cpu(), _split(data).batch(rows).image, rtol=0, atol=1e-6
        )


def test_the_sizes_of_the_environments_are_known_for_training_images_alone() -> None:
    data = random_data()
    rows = np.array([7, 3, 3, 49])
    batch = _split(data).batch(rows)
    assert batch.environment is not None
    assert batch.environment_sizes == tuple(torch.bincount(batch.environment, minlength=2).tolist())
    of_test = replace(data, splits={"test": data.splits["train"]})
    assert DeviceSplit(of_test, "test", torch.device("cpu")).batch(rows).environment_sizes is None


def test_rows_gathered_ahead_are_those_that_were_expected() -> None:
    array = np.arange(60, dtype=np.uint8).reshape(20, 3)
    mask = array % 2 == 0
    source = HostRows({"image": array, "mask": mask}, torch.device("cpu"))
    for expected in ([3, 3, 19], [0], [5, 6]):
        source.expect(np.array(expected))
        for rows in ([1, 2], expected, expected):  # others, then those, then those again
            assert source.take("image", np.array(rows)).tolist() == array[rows].tolist()
            assert source.take("mask", np.array(rows)).tolist() == mask[rows].tolist()


def test_rows_that_are_not_there_are_an_error() -> None:
    source = HostRows({"image": np.zeros((4, 3), np.uint8)}, torch.device("cpu"))
    with pytest.raises(IndexError):
        source.take("image", np.array([4]))
