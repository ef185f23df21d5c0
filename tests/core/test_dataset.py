"""Shapes of splits, and the checks of ``DatasetSource.load``."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from benchmark.core.batch import Batch
from benchmark.core.class_masks import LabelledShape, SparseClassMasks
from benchmark.core.dataset import DatasetInfo, DatasetSource, GroupedDataset, Split
from benchmark.core.errors import UserError
from benchmark.core.hparam import HParam
from benchmark.core.needs import Needs
from benchmark.core.registry import DATASETS

INFO = DatasetInfo(
    label_names=("a", "b"),
    confounder_names=("x", "y", "z"),
    environment_names=("e", "f"),
    image_size=(3, 4, 6),
    splits=("train", "val", "biased", "deceiving"),
    provides=Needs(
        masks=True, groups=True, confounder=True, environments=True, val_groups=True, val_masks=True
    ),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    source="here",
    licence="none",
    bias_splits=("biased", "deceiving"),
    paired=True,
)


def _split(n: int = 6, **changed: Any) -> Split:
    rng = np.random.default_rng(0)
    whole = Split(
        image=rng.integers(0, 256, (n, 3, 4, 6)).astype(np.uint8),
        label=np.arange(n) % 2,
        confounder=np.arange(n) % 3,
        environment=np.arange(n) % 2,
        mask=np.ones((n, 1, 4, 6), dtype=bool),
        pair_id=np.arange(n),
    )
    return replace(whole, **changed)


class Source(DatasetSource):
    name = "made_up"
    options = {"bias": HParam(0.9, low=0.0, high=1.0), "places": HParam(2)}
    wanted = INFO
    wrong: dict[str, Split | None] = {}

    def info(self) -> DatasetInfo:
        return self.wanted

    def build(self, seed: int) -> dict[str, Split]:
        splits = {**{name: _split() for name in self.wanted.splits}, **self.wrong}
        return {name: split for name, split in splits.items() if split is not None}


def _load(wanted: DatasetInfo = INFO, **wrong: Split | None) -> GroupedDataset:
    source = Source()
    source.wanted, source.wrong = wanted, wrong  # type: ignore[misc]
    return source.load(0)


def test_a_data_set_that_keeps_its_promises() -> None:
    data = _load()
    assert data.name == "made_up" and data.options == {"bias": 0.9, "places": 2}
    assert data.info.test_splits == ("biased", "deceiving")
    assert data.info.group_names == ("a/x", "a/y", "a/z", "b/x", "b/y", "b/z")
    group = data.group("train")
    assert group is not None
    split = data.splits["train"]
    assert split.confounder is not None
    for g, label, confounder in zip(group, split.label, split.confounder, strict=True):
        assert data.info.group_names[g] == f"{'ab'[label]}/{'xyz'[confounder]}"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"val": None},
            r"returned splits \('train', 'biased', 'deceiving'\), expected \('train', 'val'",
        ),
        ({"extra": _split()}, "returned splits"),
        (
            {"train": _split(image=np.zeros((6, 3, 4, 7), np.uint8), mask=None)},
            r"train are \(3, 4, 7\), expected",
        ),
        ({"val": _split(label=np.full(6, 2))}, "label of val is outside 0 … 1"),
        ({"val": _split(label=np.full(6, -1))}, "label of val is outside"),
        ({"val": _split(confounder=np.full(6, 3))}, "confounder of val is outside 0 … 2"),
        ({"train": _split(environment=np.full(6, 2))}, "environment of train is outside 0 … 1"),
        ({"train": _split(environment=None)}, "promises environment, but split train has none"),
        ({"biased": _split(confounder=None)}, "promises confounder, but split biased has none"),
        ({"train": _split(mask=None)}, "promises mask, but split train has none"),
        ({"deceiving": _split(pair_id=None)}, "promises pair_id, but split deceiving has none"),
    ],
)
def test_splits_that_contradict_info_are_an_error(
    wrong: dict[str, Split | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _load(**wrong)  # type: ignore[arg-type]


def test_annotations_of_validation_are_required_of_validation_only() -> None:
    info = replace(INFO, provides=Needs(val_groups=True, val_masks=True), environment_names=())
    bare = _split(confounder=None, mask=None, environment=None)
    _load(info, train=bare, biased=bare, deceiving=bare)
    with pytest.raises(ValueError, match="promises confounder, but split val has none"):
        _load(info, val=_split(confounder=None))
    with pytest.raises(ValueError, match="promises mask, but split val has none"):
        _load(info, val=_split(mask=None))


def test_declared_test_splits_may_lack_masks() -> None:
    info = replace(INFO, unmasked_splits=("biased",))
    assert _load(info, biased=_split(mask=None)).splits["biased"].mask is None
    with pytest.raises(ValueError, match="split deceiving has none"):
        _load(info, deceiving=_split(mask=None))


def test_class_sets_are_checked() -> None:
    label = np.arange(6) % 2
    accepted = np.eye(2, dtype=bool)[label]
    accepted[0] = True
    scored = np.ones(2, bool)
    split = _load(deceiving=_split(accepted=accepted, scored=scored)).splits["deceiving"]
    assert split.accepted is not None and split.accepted[0].all()
    for wrong in ({"accepted": accepted[1:]}, {"accepted": ~accepted}, {"scored": ~scored}):
        with pytest.raises(ValueError, match="does not contain the label"):
            _split(**wrong)
    with pytest.raises(ValueError, match="accepted is uint8"):
        _split(accepted=accepted.astype(np.uint8))
    with pytest.raises(ValueError, match=r"scored of val is .*expected a test split"):
        _load(val=_split(scored=scored))
    with pytest.raises(ValueError, match=r"scored of biased is .*and 2 classes"):
        _load(biased=_split(scored=np.ones(3, bool)))


def test_a_test_split_may_be_an_environment_of_its_own() -> None:
    assert len(_load(deceiving=_split(environment=np.full(6, 7))).splits["deceiving"]) == 6


def test_an_empty_split_is_a_user_error() -> None:
    empty = Split(np.zeros((0, 3, 4, 6), np.uint8), np.zeros(0, np.int64))
    with pytest.raises(UserError, match=r"val .*'bias': 0\.9"):
        _load(val=empty)


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": np.zeros((6, 3, 4, 6), np.float32)},
        {"image": np.zeros((6, 4, 6), np.uint8)},
        {"label": np.zeros(5, np.int64)},
        {"label": np.zeros(6, np.int32)},
        {"confounder": np.zeros((6, 1), np.int64)},
        {"environment": np.zeros(6, np.float64)},
        {"pair_id": np.zeros(7, np.int64)},
        {"cluster": np.zeros(6, np.uint8)},
        {"mask": np.zeros((6, 1, 4, 6), np.uint8)},
        {"mask": np.zeros((6, 1, 4, 5), bool)},
        {"mask": np.zeros((6, 4, 6), bool)},
    ],
)
def test_a_split_of_wrong_shape_or_type_is_a_bug(wrong: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))} is .*, expected "):
        _split(**wrong)  # type: ignore[arg-type]


def test_options_are_checked_like_hyper_parameters() -> None:
    assert Source(bias=1).chosen == {"bias": 1.0, "places": 2}
    with pytest.raises(UserError, match=r"made_up has no option 'bais'; did you mean bias\?"):
        Source(bais=1)
    with pytest.raises(UserError, match=r"made_up: bias = 1\.5 is out of bounds"):
        Source(bias=1.5)


def test_the_fingerprint_depends_on_version_options_and_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = Source().fingerprint()
    assert first == Source(bias=0.9).fingerprint() and len(first) == 16
    assert Source(bias=0.8).fingerprint() != first
    monkeypatch.setattr(Source, "version", 2)
    second = Source().fingerprint()
    monkeypatch.setattr(Source, "content", lambda self: "digest")
    assert len({first, second, Source().fingerprint()}) == 3


def test_data_depend_on_the_trial_and_every_trial_is_reproducible() -> None:
    tiny = DATASETS.get("tiny")
    one, again, other = (tiny(size=16).load(trial).splits["train"] for trial in (0, 0, 1))
    assert np.array_equal(one.image, again.image) and np.array_equal(one.label, again.label)
    assert not np.array_equal(one.image, other.image)


def test_tiny_shows_the_same_bars_on_other_grounds() -> None:
    data = DATASETS.get("tiny")(bias=0.75, size=400).load(3)
    splits = data.splits
    for name in ("biased", "unbiased", "deceiving"):
        assert np.array_equal(splits[name].mask, splits["biased"].mask)
        assert np.array_equal(splits[name].pair_id, splits["biased"].pair_id)
    agree = {
        name: float((split.confounder == split.label).mean()) for name, split in splits.items()
    }
    assert agree["biased"] == 1 and agree["deceiving"] == 0
    assert agree["train"] == pytest.approx(0.75, abs=0.1) and agree["unbiased"] == pytest.approx(
        0.5, abs=0.15
    )


def groups(labels: tuple[str, ...], confounders: tuple[str, ...], several: bool) -> tuple[str, ...]:
    info = replace(INFO, label_names=labels, confounder_names=confounders, multi_label=several)
    return info.group_names


def test_names_of_groups() -> None:
    assert groups(("a", "b"), ("x", "y"), False) == ("a/x", "a/y", "b/x", "b/y")
    assert groups(("a",), ("x", "y"), True) == ("no a/x", "no a/y", "a/x", "a/y")


@pytest.mark.parametrize(
    ("labels", "confounders", "several"),
    [
        (("mass", "no mass"), ("A",), True),
        (("mass", "no mass", "no no mass"), ("A", "B"), True),
        (("a", "a/b"), ("c", "b/c"), False),
        (("a", "a/b"), ("c", "b/c"), True),
        (("a", "a"), ("x", "x"), False),
        (("a' / 'b", "a"), ("c", "b' / 'c"), False),
        (("", "/"), ("/", ""), False),
    ],
)
def test_every_group_has_a_name_of_its_own(
    labels: tuple[str, ...], confounders: tuple[str, ...], several: bool
) -> None:
    """In the order of label and answer and confounder; each name consists of their names."""
    names = groups(labels, confounders, several)
    answers = ("no", "yes") if several else ("",)
    made_of = [(y, answer, z) for y in labels for answer in answers for z in confounders]
    assert len(set(names)) == len(names) == len(made_of)
    for name, (label, answer, confounder) in zip(names, made_of, strict=True):
        assert label in name and answer in name and confounder in name


def test_the_foreground_is_the_evidence_for_the_only_class_of_an_image() -> None:
    data = _load()
    assert data.info.annotations.class_masks and not data.info.provides.class_masks
    split = data.splits["train"]
    assert split.class_masks is not None and split.mask is not None
    drawn = split.class_masks.rasterise(np.array([3]))
    assert np.array_equal(drawn[0, 1], split.mask[3, 0]) and not drawn[0, 0].any()


def test_class_masks_of_another_shape_are_a_bug() -> None:
    shapes: list[list[LabelledShape]] = [[]] * 6
    with pytest.raises(ValueError, match=r"class_masks has the shape \[6, 2, 5, 6\]"):
        _split(class_masks=SparseClassMasks(shapes, 2, (5, 6)))
    with pytest.raises(ValueError, match=r"class_masks of val .*3 .*expected 2"):
        _load(val=_split(class_masks=SparseClassMasks(shapes, 3, (4, 6))))


def test_where_the_shortcut_is_must_stay_unknown_in_training() -> None:
    shortcut = np.zeros((6, 1, 4, 6), bool)
    assert _load(biased=_split(shortcut=shortcut)).splits["biased"].shortcut is shortcut
    for name in ("train", "val"):
        with pytest.raises(ValueError, match=f"split {name} has shortcut, which is for tests only"):
            _load(**{name: _split(shortcut=shortcut)})
    with pytest.raises(ValueError, match=r"shortcut is uint8\[6, 1, 4, 6\], expected bool"):
        _split(shortcut=shortcut.astype(np.uint8))
    assert "shortcut" not in {field.name for field in fields(Batch)}
