"""Small copies of the published data sets: groups, proportions and pixels of the papers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.core.dataset import GroupedDataset, Split
from benchmark.core.errors import UserError
from benchmark.core.registry import DATASETS
from datasets import celeba as celeba_module
from datasets import coco_on_places, covid_xray, spawrious
from datasets import waterbirds as waterbirds_module
from datasets._io.image_pool import Item, Pool
from datasets._io.image_source import ImageSource
from datasets._sources import cub
from datasets._sources.bias_assignment import SPLITS
from datasets._sources.group_environments import assign_environments, redraw_parts
from tests.support import trees, xray_tree
from tests.support.dataset_equality import same


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHORTCUTBED_CACHE", raising=False)


def load(
    name: str, root: Path, options: Mapping[str, Any], trial: int = 0, **more: Any
) -> GroupedDataset:
    return DATASETS.get(name)(root, **{**options, **more}).load(trial)  # type: ignore[no-any-return]


def groups(split: Split) -> Counter[tuple[int, int]]:
    assert split.confounder is not None
    return Counter(zip(split.label.tolist(), split.confounder.tolist(), strict=True))


class TestWaterbirds:
    def test_release(self, tmp_path: Path) -> None:
        data = load("waterbirds", tmp_path, trees.waterbirds(tmp_path))
        for name, counts in zip(("train", "val", "unbiased"), trees.WATERBIRDS, strict=True):
            assert groups(data.splits[name]) == counts
        tests = trees.WATERBIRDS[2]
        assert groups(data.splits["biased"]) == {g: n for g, n in tests.items() if g[0] == g[1]}
        assert groups(data.splits["deceiving"]) == {g: n for g, n in tests.items() if g[0] != g[1]}
        for split in data.splits.values():  # every split is one piece of the mapped file
            assert isinstance(split.image, np.memmap)
        train = data.splits["train"]
        assert train.environment is not None
        assert np.array_equal(train.environment, train.label != train.confounder)

    def test_pixels_and_masks_are_those_of_the_files(self, tmp_path: Path) -> None:
        options = trees.waterbirds(tmp_path)
        source: ImageSource = DATASETS.get("waterbirds")(tmp_path, **options)
        val, items = source.load(0).splits["val"], source.pools()["waterbirds"].items
        assert val.pair_id is not None and val.mask is not None
        for row, image, mask in zip(val.pair_id, val.image, val.mask, strict=True):
            for file, found in (
                (items[row].image, image.transpose(1, 2, 0)),
                (items[row].mask, mask[0]),
            ):
                with Image.open(tmp_path / file) as opened:
                    small = np.asarray(opened.resize((16, 16), Image.Resampling.BILINEAR))
                assert np.array_equal(found, small if found.ndim == 3 else small > 127)

    def test_environments_of_ex2l(self, tmp_path: Path) -> None:
        """The parts are disjoint, the test is balanced, and all trials have the same test."""
        options = {**trees.waterbirds(tmp_path), "setting": "ex2l"}
        one, other = (load("waterbirds", tmp_path, options, trial=trial) for trial in (0, 1))
        ids = {name: np.asarray(split.pair_id).tolist() for name, split in one.splits.items()}
        disjoint = ids["train"] + ids["val"] + ids["unbiased"]
        assert len(set(disjoint)) == len(disjoint)
        assert sorted(ids["biased"] + ids["deceiving"]) == sorted(ids["unbiased"])
        balanced = groups(one.splits["unbiased"])
        assert balanced[0, 0] == balanced[0, 1] and balanced[1, 0] == balanced[1, 1]
        assert np.array_equal(ids["unbiased"], np.asarray(other.splits["unbiased"].pair_id))
        found = set(np.asarray(one.splits["train"].environment).tolist())
        assert found == {0, 1}

    def test_without_segmentations(self, tmp_path: Path) -> None:
        options = trees.waterbirds(tmp_path)
        (tmp_path / "CUB_200_2011").rename(tmp_path / "elsewhere")
        data = load("waterbirds", tmp_path, options)
        assert not data.info.provides.masks and data.splits["train"].mask is None

    def test_bias_requires_the_setting_tea(self) -> None:
        with pytest.raises(UserError, match="use setting=tea"):
            DATASETS.get("waterbirds")(None, bias=0.9)

    @pytest.mark.parametrize("bias", [1.0, 0.8, 0.0])
    def test_the_setting_tea(self, bias: float, tmp_path: Path) -> None:
        options = trees.cub_and_places(tmp_path)
        source: ImageSource = DATASETS.get("waterbirds")(tmp_path, **options, bias=bias)
        data = source.load(0)
        train = data.splits["train"]
        assert (train.label == train.confounder).mean() == pytest.approx(bias, abs=0.1)
        assert len(data.splits["biased"]) + len(data.splits["deceiving"]) == len(
            data.splits["unbiased"]
        )
        assert (data.splits["biased"].label == data.splits["biased"].confounder).all()
        assert (data.splits["deceiving"].label != data.splits["deceiving"].confounder).all()
        birds, grounds = (
            source.arrays("birds").image,
            [source.arrays(name).image for name in cub.CATEGORIES],
        )
        used = []
        for split in (train, data.splits["unbiased"]):
            assert split.pair_id is not None and split.confounder is not None
            for row, place, image in zip(split.pair_id, split.confounder, split.image, strict=True):
                alpha = birds[row, 3].astype(float)
                # the photograph is the one that agrees wherever there is no bird at all
                away = np.abs(grounds[place].astype(int) - image)[:, :, alpha == 0].sum(axis=(1, 2))
                assert away.min() == 0
                used.append((int(place), int(away.argmin())))
                ground = grounds[place][used[-1][1]]
                expected = (birds[row, :3] * alpha + ground * (255 - alpha)) / 255
                assert np.abs(image - expected).max() <= 0.51
        assert len(set(used)) == len(used)

    def test_counts_of_the_papers(self) -> None:
        """CUB has 5,994 training birds; of its 5,794 test birds, 1,284 are waterbirds."""

        class Fake:
            def __init__(self) -> None:
                items = [Item("x")] * 12_000
                self.all = {name: Pool(items, None) for name in ("birds", *cub.CATEGORIES)}  # type: ignore[arg-type]

            def pools(self) -> dict[str, Pool]:
                return self.all

            def arrays(self, name: str) -> Any:
                return Split(
                    np.zeros((12_000, 4, 1, 1), np.uint8), np.zeros(12_000, np.int64), mask=MASK
                )

            def generate_images(
                self, identity: object, rows: int, column: object, compute: object
            ) -> np.ndarray:
                return np.zeros((rows, 3, 1, 1), np.uint8)

            def mask_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
                return MASK[rows]

        label = np.concatenate([np.arange(5994) % 4 == 0, np.arange(5794) < 1284]).astype(np.int64)
        part = np.repeat([0, 2], [5994, 5794])
        splits = cub.make_splits(Fake(), 0, label, part, 1.0)  # type: ignore[arg-type]
        assert {name: len(split) for name, split in splits.items()} == {
            "train": 4315, "val": 480, "biased": 2897, "unbiased": 5794, "deceiving": 2897,
        }  # fmt: skip
        assert groups(splits["unbiased"]) == {(0, 0): 2255, (0, 1): 2255, (1, 0): 642, (1, 1): 642}
        assert (
            splits["val"].label == splits["val"].confounder
        ).all()  # of the same distribution as training


MASK = np.zeros((12_000, 1, 1, 1), bool)


#: Counts of the groups in train, val and test, and eX2L's Tables 4 and 5 (percentages of the groups
#: in both environments).
WATERBIRDS_COUNTS = [(3498, 184, 56, 1057), (467, 466, 133, 133), (2255, 2255, 642, 642)]
TABLE_4 = [(61.80, 18.37, 8.26, 11.58), (44.77, 30.20, 5.98, 19.05)]
CELEBA_COUNTS = [(71629, 66874, 22880, 1387), (8535, 8276, 2874, 182), (9767, 7535, 2480, 180)]
TABLE_5 = [(41.77, 46.94, 10.20, 1.08), (46.79, 35.19, 17.36, 0.66)]


def release(counts: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the part and the group of every image."""
    sizes = [sum(row) for row in counts]
    group = np.concatenate([np.repeat(np.arange(4), row) for row in counts])
    return np.repeat(np.arange(3), sizes), group


class TestEnvironments:
    CASES = (
        (WATERBIRDS_COUNTS, TABLE_4, waterbirds_module.LAND_CENTRIC_SHARES, True),
        (CELEBA_COUNTS, TABLE_5, celeba_module.BALANCED_SHARES, False),
    )

    @pytest.mark.parametrize(("counts", "table", "shares", "redrawn"), CASES)
    def test_percentages_of_the_tables(
        self, counts: Any, table: Any, shares: Any, redrawn: bool
    ) -> None:
        """The shares reproduce every percentage of the table, before and after rounding."""
        totals = np.sum(counts, axis=0)
        for row, share in zip(table, (np.array(shares), 1 - np.array(shares)), strict=True):
            exact = 100 * totals * share / (totals * share).sum()
            assert np.abs(exact - row).max() < 0.0075
        part, group = release(counts)
        if redrawn:
            part = redraw_parts(0, part, group)
        environment = assign_environments(0, part, group, shares)
        for number, row in enumerate(table):
            found = np.bincount(group[environment == number], minlength=4)
            assert np.abs(100 * found / found.sum() - row).max() < 0.03
            trained = np.bincount(group[(environment == number) & (part == 0)], minlength=4)
            largest = 0.05 if redrawn else 0.4
            assert np.abs(100 * trained / trained.sum() - row).max() < largest

    def test_published_training_images_of_waterbirds_miss_the_table(self) -> None:
        trained = np.array(WATERBIRDS_COUNTS[0]) * waterbirds_module.LAND_CENTRIC_SHARES
        assert np.abs(100 * trained / trained.sum() - TABLE_4[0]).max() > 10

    def test_redrawn_parts(self) -> None:
        part, group = release(WATERBIRDS_COUNTS)
        redrawn = redraw_parts(0, part, group)
        assert np.abs(np.bincount(redrawn) - [4795, 1199, 5794]).max() <= 2
        for g in range(4):
            shares = np.bincount(redrawn[group == g]) / (group == g).sum()
            assert np.abs(shares - np.bincount(part) / len(part)).max() < 0.001

    def test_trials_differ(self) -> None:
        part, group = release(WATERBIRDS_COUNTS)
        shares = waterbirds_module.LAND_CENTRIC_SHARES
        one, again, other = (assign_environments(seed, part, group, shares) for seed in (0, 0, 1))
        assert np.array_equal(one, again) and not np.array_equal(one, other)

    @pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
    def test_too_few_images(self, share: float) -> None:
        zeros = np.zeros(3, np.int64)
        with pytest.raises(UserError, match="3 training images"):
            assign_environments(0, zeros, zeros, [share])


class TestCelebA:
    def test_both_formats_and_groups(self, tmp_path: Path) -> None:
        one = load("celeba", tmp_path / "a", trees.celeba(tmp_path / "a"))
        other = load("celeba", tmp_path / "b", trees.celeba(tmp_path / "b", ".csv"))
        assert same(one, other)
        for name, (part, counts) in zip(
            ("train", "val", "test"), trees.CELEBA.items(), strict=True
        ):
            wanted = {(int(b > 0), int(m > 0)): n for (b, m), n in counts.items()}
            assert groups(one.splits[name]) == wanted, part
            assert isinstance(one.splits[name].image, np.memmap)
        assert not one.info.provides.masks and not one.info.environment_names

    def test_environments_keep_the_published_parts(self, tmp_path: Path) -> None:
        options = trees.celeba(tmp_path)
        plain, divided = (
            load("celeba", tmp_path, options),
            load("celeba", tmp_path, options, setting="ex2l"),
        )
        for name in ("train", "val", "test"):
            assert np.array_equal(plain.splits[name].image, divided.splits[name].image)
        assert divided.splits["train"].environment is not None
        assert plain.splits["train"].environment is None
        assert plain.fingerprint != divided.fingerprint


class TestSpawrious:
    #: Places of bulldog, dachshund, labrador and corgi in both environments and in the test.
    MANY = {
        "m2m_easy": ("desert mountain dirt jungle", "mountain desert jungle dirt"),
        "m2m_medium": ("beach snow mountain desert", "snow beach desert mountain"),
        "m2m_hard": ("dirt jungle snow beach", "jungle dirt beach snow"),
    }
    ONE = {
        "o2o_easy": ("desert jungle dirt snow", "dirt snow desert jungle", "beach"),
        "o2o_medium": ("mountain beach dirt jungle", "jungle dirt beach snow", "desert"),
        "o2o_hard": ("jungle mountain snow desert", "mountain snow desert jungle", "beach"),
    }

    def table(self, data: GroupedDataset, environment: int) -> dict[str, Counter[str]]:
        train, val = data.splits["train"], data.splits["val"]
        out: dict[str, Counter[str]] = {name: Counter() for name in data.info.label_names}
        for split in (train, val) if environment < 2 else (data.splits["test"],):
            for i in range(len(split)):
                assert split.confounder is not None
                if environment == 2 or (
                    split.environment is not None and split.environment[i] == environment
                ):
                    breed = data.info.label_names[split.label[i]]
                    out[breed][data.info.confounder_names[split.confounder[i]]] += 1
        return out

    def test_all_challenges(self, tmp_path: Path) -> None:
        trees.spawrious_tree(tmp_path)
        for challenge, (first, second) in self.MANY.items():
            data = load("spawrious", tmp_path, {"challenge": challenge, "per_breed": 10, "side": 8})
            for environment, places in enumerate((first, second)):
                found = self.table(data, environment)
                assert [dict(found[b]) for b in data.info.label_names] == [
                    {p: 10} for p in places.split()
                ]
            tests = [set(counts) for counts in self.table(data, 2).values()]
            trained = [
                {one, other} for one, other in zip(first.split(), second.split(), strict=True)
            ]
            assert all(not a & b and len(a) == 2 for a, b in zip(tests, trained, strict=True))
            assert tests[0] == tests[1] == trained[2] and tests[2] == tests[3] == trained[0]
        for challenge, (own, test, shared) in self.ONE.items():
            data = load("spawrious", tmp_path, {"challenge": challenge, "per_breed": 10, "side": 8})
            for environment, count in ((0, 9), (1, 8)):
                found = self.table(data, environment)
                wanted = [{place: count, shared: 10 - count} for place in own.split()]
                assert [dict(found[b]) for b in data.info.label_names] == wanted
            assert [dict(c) for c in self.table(data, 2).values()] == [
                {place: 24} for place in test.split()
            ]

    def test_counts_of_the_paper(self) -> None:
        source = DATASETS.get("spawrious")(None, challenge="o2o_easy")
        pieces = list(source.pieces())
        counts = [{p.num_images for p in pieces if p.environment == e} for e in (0, 1)]
        assert sum(p.num_images for p in pieces if p.environment < spawrious.TEST) == 25_344
        assert counts == [{96, 3072}, {412, 2756}]


class TestCocoOnPlaces:
    def test_places_are_tied_and_photographs_used_once(self, tmp_path: Path) -> None:
        options = trees.coco_and_places(tmp_path)
        source: ImageSource = DATASETS.get("coco_on_places")(tmp_path, **options)
        data = source.load(0)
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 72, "val": 9, "biased": 9, "unbiased": 9, "deceiving": 9,
        }  # fmt: skip
        train = data.splits["train"]
        assert train.confounder is not None
        assert Counter((train.label == train.confounder).tolist()) == {
            True: 54,
            False: 18,
        }  # 6 and 2 of 8, each class
        assert set(train.confounder[train.label != train.confounder]) == {
            coco_on_places.OTHER_PLACE
        }
        assert (data.splits["unbiased"].confounder == coco_on_places.UNSEEN_PLACE).all()
        assert (data.splits["deceiving"].confounder < coco_on_places.OTHER_PLACE).all()  # type: ignore[operator]
        objects = source.arrays("objects").image
        pools = {name: source.arrays(name).image for name in list(source.pools())[1:]}
        used = []
        for name, split in data.splits.items():
            assert split.mask is not None and split.pair_id is not None
            assert np.array_equal(split.mask[:, 0], objects[split.pair_id, 3] > 127)
            for row, image in zip(split.pair_id, split.image, strict=True):
                clear = objects[row, 3] == 0
                for pool, photographs in pools.items():
                    away = np.abs(photographs.astype(int) - image)[:, :, clear].sum(axis=(1, 2))
                    if away.min() == 0:
                        used.append((pool, int(away.argmin())))
                        kind = pool in ("water_tower", "waterfall", "zen_garden")
                        assert kind == (name == "unbiased")
        assert len(used) == sum(len(split) for split in data.splits.values()) == len(set(used))

    def test_selection_of_objects(self, tmp_path: Path) -> None:
        """Small objects and crowds are ignored, and of two objects the larger one is used."""
        source: ImageSource = DATASETS.get("coco_on_places")(
            tmp_path, **trees.coco_and_places(tmp_path)
        )
        items = source.pools()["objects"].items
        assert [item.image[-7:] for item in items[:3]] == ["102.jpg", "103.jpg", "104.jpg"]
        assert not any(item.image.endswith(("00.jpg", "01.jpg")) for item in items)
        assert source.arrays("objects").mask.mean() > 0.4  # type: ignore[union-attr]

    def test_runs_are_drawn_column_by_column(self) -> None:
        from datasets._sources.coco import draw_segmentation

        drawn = np.asarray(
            draw_segmentation('{"counts": [3, 2, 4, 1, 2], "size": [3, 4]}', (4, 3), "x")
        )
        wanted = np.zeros(12, np.uint8)
        wanted[[3, 4, 9]] = 255
        assert np.array_equal(drawn, wanted.reshape(4, 3).T)
        polygon = np.asarray(draw_segmentation("[[1, 1, 6, 1, 6, 4, 1, 4]]", (9, 7), "x"))
        assert (
            np.array_equal(np.argwhere(polygon)[[0, -1]], [[1, 1], [4, 6]])
            and (polygon[1:5, 1:7] == 255).all()
        )

    def test_the_cached_list_of_objects_is_verified(self, tmp_path: Path) -> None:
        options = trees.coco_and_places(tmp_path)
        first = DATASETS.get("coco_on_places")(tmp_path, **options)
        first.check()
        (kept,) = (tmp_path / ".cache").glob("coco-objects-*.json")
        for content in (
            kept.read_bytes()[:-20],
            kept.read_bytes().replace(b"000000000102", b"000000000103"),
            b"{}",
        ):
            kept.write_bytes(content)
            again = DATASETS.get("coco_on_places")(tmp_path, **options)
            assert again.fingerprint() == first.fingerprint()


class TestDogsWithTies:
    def test_ties_and_their_positions(self, tmp_path: Path) -> None:
        options = trees.dogs(tmp_path)
        source: ImageSource = DATASETS.get("dogs_with_ties")(tmp_path, **options)
        data = source.load(0)
        assert {name: len(split) for name, split in data.splits.items()} == {
            "train": 18, "val": 2, "biased": 8, "unbiased": 8, "deceiving": 8,
        }  # fmt: skip
        plain = source.arrays("dogs_with_ties").image
        for name in SPLITS:
            split = data.splits[name]
            assert split.pair_id is not None and split.confounder is not None
            changed = (split.image != plain[split.pair_id]).any(axis=1)
            assert changed.any(axis=(1, 2)).tolist() == (split.confounder != 2).tolist()
            for image, tie, where in zip(split.image, split.confounder, changed, strict=True):
                if tie != 2:
                    colour = np.median(image[:, where], axis=1)
                    wanted = [(200, 0, 0), (128, 0, 128)][tie]
                    assert (
                        np.abs(colour - wanted).max() < 30
                    )  # a small tie has many pixels at its edge
                    rows, columns = np.nonzero(where)
                    # The neck at (20…40, 16…22) of 60×48 pixels is at (9.3…22.7, 10.7…14.7)
                    # of the square of 32 pixels.
                    assert (columns.min() + columns.max() + 1) / 2 == pytest.approx(16, abs=1)
                    width = columns.max() - columns.min() + 1
                    assert width <= (8 if tie == 0 else 14)
                    assert rows.min() == pytest.approx(12.7 if tie == 0 else 4, abs=2)

    def test_groups_at_80_per_cent(self, tmp_path: Path) -> None:
        data = load("dogs_with_ties", tmp_path, trees.dogs(tmp_path), bias=0.8)
        assert groups(data.splits["train"]) == {(0, 0): 7, (0, 1): 2, (1, 1): 7, (1, 0): 2}
        assert data.info.provides.environments and not data.info.provides.masks


class TestCovidXray:
    def test_selection_of_xrays(self, tmp_path: Path) -> None:
        data = load("covid_xray", tmp_path, xray_tree.covid(tmp_path))
        names, found = data.info.confounder_names, xray_tree.FOUND
        both: Counter[str] = Counter()
        for split in data.splits.values():
            for (label, source), count in groups(split).items():
                both[f"{data.info.label_names[label]} {names[source]}"] += count
        assert both == {
            "covid brixia": found["brixia"],
            "normal chexpert": 8,  # as many as Brixia has
            "pneumonia chexpert": 8,
            "covid bimcv": found["bimcv"], "pneumonia chestxray14": found["chestxray14"],
            "normal montgomery": found["montgomery"], "normal shenzhen": found["shenzhen"],
        }  # fmt: skip
        assert {names[s] for _, s in groups(data.splits["test"])} == set(covid_xray.TESTS)

    def test_patients_and_padding(self, tmp_path: Path) -> None:
        options = xray_tree.covid(tmp_path)
        data = load("covid_xray", tmp_path, options)
        train, val = data.splits["train"], data.splits["val"]
        assert not set(train.cluster) & set(val.cluster)  # type: ignore[arg-type]
        assert len(set(train.cluster) | set(val.cluster)) < len(train) + len(val)  # type: ignore[arg-type]
        test = data.splits[
            "test"
        ].image  # 30×40 pixels in a square of 40: five of forty columns on either side
        assert (test[:, :, :, :1] == 0).all() and (test[:, :, :, -1:] == 0).all()
        assert not (train.image[:, :, :, :1] == 0).all(axis=(1, 2, 3)).any()
        assert (train.image == train.image[:, :1]).all() and train.image.shape[1] == 3
        one = load("covid_xray", tmp_path, options, channels=1)
        assert np.array_equal(one.splits["train"].image, train.image[:, :1])

    def test_masks_move_with_the_padding(self, tmp_path: Path) -> None:
        data = load("covid_xray", tmp_path, xray_tree.covid(tmp_path))
        test = data.splits["test"]
        assert test.mask is not None and not test.mask[:, :, :, 0].any()
        (tmp_path / "covid_xray").rename(tmp_path / "gone")
        bare = load("covid_xray", tmp_path, {"side": 16})
        assert bare.splits["test"].mask is None and not bare.info.provides.masks

    def test_dicom(self, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        data = load("covid_xray", tmp_path, xray_tree.covid(tmp_path, ".dcm"))
        assert sum(len(split) for split in data.splits.values()) == 40

    def test_dicom_without_pydicom_is_a_user_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = xray_tree.covid(tmp_path)
        table = tmp_path / "brixia/metadata_global_v2.csv"
        table.write_text(table.read_text().replace(".png", ".dcm"))
        for path in (tmp_path / "brixia/dicom_clean").iterdir():
            path.rename(path.with_suffix(".dcm"))
        monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
        with pytest.raises(UserError, match="pydicom"):
            load("covid_xray", tmp_path, options)

    def test_counts_of_the_paper(self) -> None:
        assert (
            round(4644 * (1 - covid_xray.HOLDOUT)) == 3483 and 3 * 3483 == 10_449
        )  # training of each class, and of all
        assert 1515 + 1295 + 80 + 326 == 3216


class TestNLM:
    @pytest.mark.parametrize("bias", [0.0, 0.5, 0.8, 0.95, 1.0])
    @pytest.mark.parametrize("tied", ["shenzhen", "montgomery"])
    def test_the_hospital_is_tied_and_reversed(
        self, bias: float, tied: str, tmp_path: Path
    ) -> None:
        data = load("nlm_cxr", tmp_path, trees.nlm(tmp_path, 16), bias=bias, tied=tied)
        own = 1 if tied == "shenzhen" else 0

        def aligned(split: Split) -> np.ndarray:
            return (split.label == 1) == (split.confounder == own)

        train = data.splits["train"]
        assert aligned(train).mean() == pytest.approx(bias, abs=0.12)
        assert aligned(data.splits["biased"]).all() and not aligned(data.splits["deceiving"]).any()
        assert (
            len(set(groups(data.splits["unbiased"]).values())) == 1
            and len(groups(data.splits["unbiased"])) == 4
        )
        assert (train.environment is not None) == (0 < bias < 1)
        used = [set(data.splits[name].cluster) for name in ("train", "val", "biased", "deceiving")]  # type: ignore[arg-type]
        assert len(set().union(*used)) == sum(map(len, used))

    @pytest.mark.data
    def test_on_the_real_x_rays(
        self, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not (real_data / "nlm_cxr").is_dir():
            pytest.skip("no nlm_cxr in the folder of real data")
        monkeypatch.setenv("SHORTCUTBED_CACHE", str(tmp_path))
        data = load("nlm_cxr", real_data, {"side": 32})
        total: Counter[tuple[int, int]] = Counter()
        for name in ("train", "val", "biased", "deceiving"):
            total += groups(data.splits[name])
        assert total == {(0, 0): 80, (0, 1): 279, (1, 0): 58, (1, 1): 287}
        for split in data.splits.values():
            assert split.mask is not None
            inside, outside = (
                split.image[:, :1][split.mask].mean(),
                split.image[:, :1][~split.mask].mean(),
            )
            assert inside + 40 < outside  # lungs are dark
        assert np.abs(data.splits["train"].image.mean() / 255 - 0.5) < 0.05


class TestFolder:
    def test_everything(self, tmp_path: Path) -> None:
        data = load("folder", tmp_path, trees.folder(tmp_path))
        info = data.info
        assert info.splits == ("train", "val", "biased", "deceiving")
        assert (info.label_names, info.confounder_names) == (("cat", "dog"), ("lawn", "sofa"))
        assert (info.environment_names, info.source, info.licence) == (
            ("day0", "day1"),
            "Our cats and dogs",
            "CC0",
        )
        assert info.bias_splits == ("biased", "deceiving") and info.provides.masks
        assert groups(data.splits["train"]) == {(a, b): 6 for a in (0, 1) for b in (0, 1)}
        assert data.splits["train"].cluster is not None

    def test_images_without_annotations(self, tmp_path: Path) -> None:
        data = load(
            "folder", tmp_path, trees.folder(tmp_path, masks=False, confounders=False, more=False)
        )
        assert data.info.provides.names() == () and data.info.confounder_names == ()
        assert data.group("train") is None and data.info.source == "yours"

    def test_names_of_folders(self, tmp_path: Path) -> None:
        options = trees.folder(tmp_path)
        (tmp_path / "my_data").rename(tmp_path / "cats und dogs")
        assert load("folder", tmp_path, options, path="cats und dogs").splits
        with pytest.raises(UserError, match="wrong form"):
            DATASETS.get("folder")(tmp_path, path="/etc")


def test_changed_images_are_decoded_again(tmp_path: Path) -> None:
    """With the same size in bytes the fingerprint stays, but the cache decodes the new image."""
    options = trees.nlm(tmp_path)
    before = load("nlm_cxr", tmp_path, options)
    path = tmp_path / "nlm_cxr/images/mo_normal_3.png"
    data = Image.fromarray(255 - np.asarray(Image.open(path)))
    size = path.stat().st_size
    data.save(path)
    with path.open("ab") as file:
        file.write(b"\0" * max(0, size - path.stat().st_size))
    after = load("nlm_cxr", tmp_path, options)
    assert not same(before, after)
    assert (before.fingerprint == after.fingerprint) == (path.stat().st_size == size)


def test_copies_have_the_same_fingerprint(tmp_path: Path) -> None:
    prints = {
        DATASETS.get("nlm_cxr")(tmp_path / n, **trees.nlm(tmp_path / n)).fingerprint()
        for n in ("a", "b")
    }
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("name", "make", "images"),
    [
        ("waterbirds", trees.cub_and_places, "CUB_200_2011/images/*/*.jpg"),
        ("coco_on_places", trees.coco_and_places, "coco/train2017/*.jpg"),
    ],
)
def test_published_outlines_are_in_stored_pixels(
    name: str, make: Any, images: str, tmp_path: Path
) -> None:
    """Their images are not turned, whatever their EXIF orientation is."""
    options = make(tmp_path)
    whole = DATASETS.get(name)(tmp_path, **options).load(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in tmp_path.glob(images):
        data = path.read_bytes()
        with Image.open(path) as opened:
            opened.load()
            opened.save(path, exif=exif, quality="keep")
        assert path.read_bytes() != data
    turned = DATASETS.get(name)(tmp_path, **options).load(0)
    for split, data in whole.splits.items():
        assert np.array_equal(turned.splits[split].mask, data.mask)
        difference = turned.splits[split].image.astype(int) - data.image
        assert np.abs(difference).mean() < 2
