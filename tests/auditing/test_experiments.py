"""The experiments of an audit, on models whose reliance is known."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmark.auditing.answers import AuditImages, balanced_rows, predicted_classes, truth_of
from benchmark.auditing.audit import audit
from benchmark.auditing.examples import make_examples
from benchmark.auditing.groups import confounder_gap
from benchmark.auditing.heatmaps import explain_marks
from benchmark.auditing.model import AuditedModel
from benchmark.auditing.paired_mean import paired_mean, smallest_visible
from benchmark.auditing.pull import (
    PLACEBOS,
    Mark,
    marks_for,
    measure_pull,
    neutral_patch,
    not_planted,
    placebo_assignments,
    planting,
    pull_values,
    shift_of,
)
from benchmark.auditing.regions import Region, regions_of
from benchmark.auditing.transplant import Transplant, choose_donors, measure_transplants
from benchmark.auditing.verdict import Finding, decide, judge_pull, judge_transplant
from benchmark.core.registry import DATASETS

SIDE = 24


def make_images(count: int, classes: int, seed: int = 0, channels: int = 3) -> AuditImages:
    """Noise whose class is the brightness of the centre."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % classes
    pixels = rng.integers(90, 110, (count, channels, SIDE, SIDE), dtype=np.uint8)
    centre = (40 + 200 * label / max(classes - 1, 1)).astype(np.uint8)
    pixels[:, :, 8:16, 8:16] = centre[:, None, None, None]
    return AuditImages(pixels, truth_of(label, classes), None, None, False)


def innocent(classes: int) -> AuditedModel:
    """A model that sees only the brightness of the centre."""

    def scores(pixels: np.ndarray) -> np.ndarray:
        centre = pixels[:, :, 8:16, 8:16].mean((1, 2, 3))
        levels = 40 + 200 * np.arange(classes) / max(classes - 1, 1)
        return -np.abs(centre[:, None] - levels)

    return AuditedModel("innocent", scores)


def corner_model(classes: int, corner: slice = slice(0, 4)) -> AuditedModel:
    """A model that answers the class whose mark has the colour of the corner, else the centre's."""
    colours = np.array(planting().COLOURS[:classes], float)
    honest = innocent(classes)

    def scores(pixels: np.ndarray) -> np.ndarray:
        corner_colours = pixels[:, :, corner, corner].reshape(len(pixels), 3, -1)
        distance = np.abs(corner_colours[:, None] - colours[None, :, :, None]).sum(2).min(2)
        return honest.scores(pixels) + np.where(distance < 40, 1000.0, 0.0)

    return AuditedModel("biased", scores)


def test_the_mean_by_hand() -> None:
    values = np.array([1.0, 0.0, -1.0, 1.0, np.nan])
    mean = 1.0 / 8
    sd = math.sqrt((4 / 8 - mean**2) / 8)
    found = paired_mean(values)
    assert found.units == 4 and found.mean == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((mean - 1.959964 * sd, mean + 1.959964 * sd))
    patients = np.array([0, 0, 1, 1, 1])  # the means 0.5 and 0
    assert paired_mean(values, patients).mean == pytest.approx(0.5 / 6)
    nothing = paired_mean(np.full(3, np.nan))
    assert nothing.units == 0 and (nothing.low, nothing.high) == (-1.0, 1.0)
    certain = paired_mean(np.zeros(100))
    assert certain.mean == 0 and 0 < certain.high < 0.03


@pytest.mark.parametrize("true", [0.0, 0.03, 0.3])
def test_the_interval_holds_the_truth(true: float) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        values = (rng.random(240) < true).astype(float)
        found = paired_mean(values)
        held += found.low <= true <= found.high
    assert held >= 0.92 * 400


def test_the_smallest_reliance_that_can_be_seen() -> None:
    for units in (20, 50, 240):
        share = smallest_visible(units, 0.02)
        count = round(share * units)
        for followed, seen in ((count, True), (count - 1, False)):
            values = np.r_[np.ones(followed), np.zeros(units - followed)]
            assert (paired_mean(values).low > 0.02) == seen


def test_pull_values_against_a_loop() -> None:
    rng = np.random.default_rng(2)
    after = {m: rng.random((30, 4)) < 0.4 for m in range(4)}
    truth = rng.random((30, 4)) < 0.5
    truth[0] = True
    found = pull_values(after, {0: 0, 1: 1, 3: 3}, truth)
    assert np.isnan(found[0])
    for i in range(1, 30):
        each = []
        for c in (0, 1, 3):
            if not truth[i, c]:
                others = [after[m][i, c] for m in (0, 1, 3) if m != c]
                each.append(after[c][i, c] - sum(others) / 2)
        if each:
            assert found[i] == pytest.approx(np.mean(each))


def test_shift_and_placebos_by_hand() -> None:
    truth = truth_of(np.array([0, 1, 1]), 2)
    plain = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    scores = {0: plain + np.array([1.0, 0.0]), 1: plain + np.array([0.0, 3.0])}
    sd = plain[:, 0].std()
    # Class 0 gains 1 on images 1 and 2, class 1 gains 3 on image 0.
    assert shift_of(scores, {0: 0, 1: 1}, plain, truth) == pytest.approx((1 / sd + 3 / sd) / 2)
    assert shift_of(scores, {0: 1, 1: 0}, plain, truth) == pytest.approx(-2 / sd)
    assert math.isnan(shift_of(scores, {0: 0, 1: 1}, plain, np.ones((3, 2), bool)))
    permutations = placebo_assignments([0, 1, 2], [0, 1, 2])
    assert sorted(tuple(a.values()) for a in permutations) == [(1, 2, 0), (2, 0, 1)]
    assert placebo_assignments([0, 1, 2], [5, 6]) == []


@pytest.mark.parametrize("classes", [2, 6])
def test_a_model_that_follows_the_tag_is_found(classes: int) -> None:
    images = make_images(60, classes)
    pull = measure_pull(corner_model(classes), images, Mark("tag"), range(classes))
    assert pull.estimate.mean > 0.9
    assert pull.gap > 0.9
    assert len(pull.placebos) == (56 if classes == 2 else PLACEBOS)
    assert pull.shift > 1 and pull.largest_placebo < 0.5 * pull.shift
    assert pull.placebo_p == pytest.approx(1 / (1 + len(pull.placebos)))
    assert judge_pull(replace(pull, shift=0.2)).finding is Finding.UNDECIDED
    assert judge_pull(pull).finding is Finding.RELIES
    verdict = decide([pull], [], classes)
    assert verdict.finding is Finding.RELIES and "tag" in verdict.sentence


def test_examples_show_the_answers() -> None:
    images = make_images(20, 2)
    shown = make_examples(corner_model(2), images, Mark("tag"), 1, ("a", "b"))
    original, grey, marked = shown.versions
    assert original.answers == grey.answers == ("a",) * 8  # only images of the first class
    assert marked.answers == ("b",) * 8
    assert original.pixels.shape == marked.pixels.shape == (8, 3, SIDE, SIDE)


class ByCorner(nn.Module):
    """Answers class 1 the more, the brighter the corner of a normalised image is."""

    def __init__(self, outputs: list[int]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        corner = image[:, :, :3, :3].mean((1, 2, 3)).sigmoid()  # which LRP does not know
        return torch.stack([-corner, corner], 1)[:, self.outputs]


def test_heatmaps_are_of_the_output_of_the_label() -> None:
    images = make_images(4, 2)

    def prepare(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels / 255).float()

    model = innocent(2)
    straight = replace(model, network=ByCorner([0, 1]), prepare=prepare)
    turned = replace(model, network=ByCorner([1, 0]), prepare=prepare, outputs=[1, 0])
    found, same = (explain_marks(m, images, Mark("tag"), [0, 1]) for m in (straight, turned))
    assert found is not None and same is not None
    assert list(found.shares) == ["input_gradient", "rise", "gradient_x_input"]
    assert found.shares == same.shares
    assert found.maps["gradient_x_input"].min() < 0  # a bright corner speaks against class 0
    for name, maps in found.maps.items():
        np.testing.assert_array_equal(maps, same.maps[name])


def test_a_model_that_only_returns_scores_has_heatmaps() -> None:
    pytest.importorskip("captum")
    images = make_images(12, 2)
    found = explain_marks(corner_model(2), images, Mark("tag"), [0, 1])
    assert found is not None and set(found.shares) == {"rise", "occlusion", "lime"}
    assert found.shares["occlusion"] > 4 * found.area
    assert found.shares["lime"] > 20 * found.area
    assert found.shares["rise"] > 1.1 * found.area
    assert len(found.marked) == 12 and {len(maps) for maps in found.maps.values()} == {8}


def test_without_captum_such_a_model_has_fewer_heatmaps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)  # importing it fails
    found = explain_marks(corner_model(2), make_images(12, 2), Mark("tag"), [0, 1])
    assert found is not None and set(found.shares) == {"rise"}
    printed = capsys.readouterr().err
    assert "occlusion" in printed and "lime" in printed and "shortcutbed[explain]" in printed


def test_marks_are_planted_in_images_without_the_shortcut_of_the_data() -> None:
    options = {"on": "tiny", "options": "size=64", "finding": "lying", "shape": "block"}
    source = DATASETS.get("tagged")(None, **options)
    found = audit(lambda data: innocent(2), source, most=16)
    assert found.examples is not None and found.probed[0] == 0
    splits = source.load(0).splits
    clean, tagged = (splits[name] for name in ("clean", "deceiving"))
    assert tagged.label[np.asarray(tagged.confounder) == 1].all()  # what examples might show
    for image in found.examples.versions[0].pixels:
        assert (clean.image == image).all((1, 2, 3)).any()


@pytest.mark.parametrize("classes", [2, 6])
def test_an_innocent_model_is_not_accused(classes: int) -> None:
    images = make_images(240, classes)
    pulls = [measure_pull(innocent(classes), images, m, range(classes)) for m in marks_for(images)]
    for pull in pulls:
        assert judge_pull(pull).finding is not Finding.RELIES
    tag = pulls[0]
    assert tag.values.any() == False and tag.raw_flips == 0  # noqa: E712
    assert judge_pull(tag).finding is Finding.NOT_FOUND
    regions = regions_of(SIDE, SIDE)[:5]
    transplants = measure_transplants(innocent(classes), images, regions)
    assert all(judge_transplant(t).finding is Finding.NOT_FOUND for t in transplants)
    assert decide([tag], transplants, classes).finding is Finding.NOT_FOUND


def test_two_classes_are_undecided_if_meaningless_marks_pull_as_much() -> None:
    images = make_images(100, 2)

    def scores(pixels: np.ndarray) -> np.ndarray:
        # Reddish corners of any mark give the first class, others the second.
        red = pixels[:, 0, :4, :4].astype(float).max((1, 2))
        return np.stack([red - 150, 150 - red], 1)

    pull = measure_pull(AuditedModel("red", scores), images, Mark("tag"), range(2))
    assert pull.estimate.low > 0.02 and pull.placebo_p > 0.05
    judged = judge_pull(pull)
    assert judged.finding is Finding.UNDECIDED
    assert decide([pull], [], 2).finding is Finding.UNDECIDED


def test_a_transplant_names_the_region() -> None:
    classes = 6
    images = make_images(240, classes)
    colours = np.array(planting().COLOURS[:classes], np.uint8)
    label = images.truth.argmax(1)
    images.pixels[:, :, -4:, -4:] = colours[label][:, :, None, None]
    model = corner_model(classes, slice(-4, None))
    found = measure_transplants(model, images, regions_of(SIDE, SIDE))
    effects = {t.region.name: t for t in found}
    assert judge_transplant(effects["bottom right corner"]).finding is Finding.RELIES
    assert effects["bottom right corner"].estimate.mean > 0.9
    for name in ("top left corner", "top right corner", "bottom left corner"):
        assert judge_transplant(effects[name]).finding is Finding.NOT_FOUND


def test_a_region_that_leads_to_classes_at_random_is_no_reliance() -> None:
    classes = 10
    images = make_images(600, classes)
    colours = np.array(planting().COLOURS[:classes], np.uint8)
    label = images.truth.argmax(1)
    images.pixels[:, :, -4:, -4:] = colours[label][:, :, None, None]
    biased = corner_model(classes, slice(-4, None))
    answered = np.array([1, 0, 2, 4, 3, 6, 5, 8, 7, 9])  # two of ten colours lead to their class

    def scores(pixels: np.ndarray) -> np.ndarray:
        return biased.scores(pixels)[:, answered]

    def corner_of(model: AuditedModel) -> Transplant:
        found = measure_transplants(model, images, regions_of(SIDE, SIDE))
        return next(t for t in found if t.region.name == "bottom right corner")

    by_chance = corner_of(AuditedModel("by chance", scores))
    assert by_chance.estimate.low > 0.02 and len(by_chance.placebos) == PLACEBOS
    assert judge_transplant(by_chance).finding is Finding.UNDECIDED
    assert corner_of(biased).placebo_p == pytest.approx(1 / (1 + PLACEBOS))
    assert judge_transplant(corner_of(biased)).finding is Finding.RELIES


def test_donors_are_of_the_right_class_and_of_other_patients() -> None:
    truth = truth_of(np.array([0, 0, 0, 1, 1, 2]), 3)
    patient = np.array([0, 0, 1, 1, 2, 3])
    donors = choose_donors(truth, patient)
    for row in range(6):
        if donors.other[row] < 0:
            continue
        assert truth[donors.other[row], donors.label[row]] and not truth[row, donors.label[row]]
        assert (truth[donors.same[row]] == truth[row]).all()
        for donor in (donors.other[row], donors.same[row]):
            assert patient[donor] != patient[row]
    assert donors.other[5] == -1  # the only image of its class cannot be compared


def test_regions_by_hand() -> None:
    rng = np.random.default_rng(3)
    image, donor = rng.integers(0, 256, (2, 1, 3, 8, 8), dtype=np.uint8)
    names = [region.name for region in regions_of(8, 8, masked=True)]
    assert len(names) == len(set(names)) == 7
    border = next(r for r in regions_of(8, 8) if r.name == "border")
    moved = border.transplant(image, donor)
    assert (moved[..., 1:-1, 1:-1] == image[..., 1:-1, 1:-1]).all()
    assert (moved[..., 0, :] == donor[..., 0, :]).all()
    colours = Region("colours").transplant(np.full_like(image, 7), donor)
    np.testing.assert_allclose(colours.mean((2, 3)), donor.mean((2, 3)), atol=0.5)
    foreground = rng.random((1, 1, 8, 8)) < 0.5
    outside = Region("background", outside=True).transplant(image, donor, foreground)
    assert (outside == np.where(foreground, image, donor)).all()


def test_a_grey_patch_replaces_only_the_mark() -> None:
    images = make_images(2, 2)
    pasted = np.zeros((2, 1, SIDE, SIDE), bool)
    pasted[:, :, :3, :3] = True
    patched = neutral_patch(images.pixels, pasted, Mark("tag"))
    assert (patched[:, :, :3, :3] == 128).all()
    assert (patched[:, :, 3:] == images.pixels[:, :, 3:]).all()
    tinted = neutral_patch(images.pixels, pasted, Mark("colour"))
    assert (tinted[:, :, :3, :3] == images.pixels[:, :, :3, :3] // 2 + 64).all()


def test_grey_images_have_no_marks_of_colour() -> None:
    assert [mark.kind for mark in marks_for(make_images(4, 2, channels=1))] == ["tag"]
    assert "background" not in [mark.kind for mark in marks_for(make_images(4, 2))]
    reasons = not_planted(make_images(4, 2, channels=1))
    assert set(reasons) == {"border", "colour", "background", "tie", "jpeg"}
    limits = decide([], [], 2, reasons).limits
    assert any("grey" in limit and "border" in limit for limit in limits)


def test_several_labels_are_judged_by_the_sign_of_their_scores() -> None:
    scores = np.array([[1.0, -1.0], [-2.0, -3.0], [2.0, 1.0]])
    assert predicted_classes(scores, True).tolist() == [[True, False], [False, False], [True, True]]
    assert predicted_classes(scores, False).sum(1).tolist() == [1, 1, 1]


def test_few_images_state_what_could_not_be_seen() -> None:
    images = make_images(12, 6)
    pull = measure_pull(innocent(6), images, Mark("tag"), range(6))
    verdict = decide([pull], [], 6)
    assert verdict.finding is Finding.UNDECIDED
    both = decide([pull, replace(pull, mark=Mark("border"))], [], 6).sentence
    assert "tag" in both and "border" in both and both.count("2%") == 1  # the same reason
    assert any("12 images" in limit for limit in verdict.limits)


def test_rows_are_balanced() -> None:
    label = np.array([0] * 50 + [1] * 5 + [2] * 20)
    rows = balanced_rows(label, 15)
    assert np.bincount(label[rows]).tolist() == [5, 5, 5]
    assert len(balanced_rows(label, 1000)) == 75
    several = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    assert len(balanced_rows(several, 3)) == 3


def test_the_gap_compares_the_same_objects_in_any_order() -> None:
    data = DATASETS.get("tiny")(None, size=64).load(0)
    first, second = data.info.bias_splits
    order = np.random.default_rng(7).permutation(len(data.splits[second]))
    split = data.splits[second]
    assert split.pair_id is not None
    moved = replace(
        split,
        **{
            name: getattr(split, name)[order]
            for name in ("image", "label", "confounder", "environment", "mask", "pair_id")
            if getattr(split, name) is not None
        },
        shortcut=None,
    )
    changed = replace(data, splits={**data.splits, second: moved})
    rng = np.random.default_rng(8)
    correct = {name: rng.random(len(data.splits[name])) < 0.7 for name in (first, second)}
    expected = confounder_gap(data, correct)
    found = confounder_gap(changed, {**correct, second: correct[second][order]})
    assert expected is not None and found is not None
    assert found.estimate == expected.estimate
    by_hand = correct[first].astype(float) - correct[second]
    assert expected.estimate == paired_mean(by_hand)
