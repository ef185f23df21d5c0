"""The scan finds what predicts the label, and little else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.core.registry import DATASETS
from benchmark.data import main
from benchmark.scanning.near_duplicates import difference_hash, find_near_duplicates, sketch
from benchmark.scanning.properties import Family, Tier, file_families, pixel_families
from benchmark.scanning.scan import compare_families, scan
from benchmark.scanning.two_halves import halves, predict_label


def planted(shortcut: str, bias: float, size: int = 300, **options: object) -> str:
    return f"planted:on=tiny,options=size={size};bias=0.5,shortcut={shortcut},bias={bias}"


def scanned(shortcut: str, bias: float, size: int = 300):
    source = DATASETS.get("planted")(
        None, on="tiny", options=f"size={size};bias=0.5", shortcut=shortcut, bias=bias
    )
    return scan(source, source.load(0))


@pytest.mark.parametrize(
    ("shortcut", "family"), [("tag", "corners"), ("border", "border"), ("colour", "colour")]
)
def test_a_planted_shortcut_is_found_in_its_place(shortcut: str, family: str) -> None:
    found = scanned(shortcut, 0.95)
    assert family in [result.family.name for result in found.suspects]
    assert found.results[0].predictions[0].auc > 0.9


def test_balanced_marks_are_no_suspects() -> None:
    found = scanned("tag", 0.5)
    assert {r.family.tier for r in found.suspects} <= {Tier.EITHER}
    by_name = {result.family.name: result for result in found.results}
    for name in ("corners", "border"):
        assert not by_name[name].predicts


@pytest.mark.slow
def test_permuted_labels_give_few_false_alarms() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (120, 3, 16, 16), dtype=np.uint8)
    families = pixel_families(image)
    alarms = 0
    for seed in range(30):
        label = np.random.default_rng(seed).permutation(120) % 2
        results, _ = compare_families(families, (label == 1)[:, None], label, seed=seed)
        alarms += any(result.p_holm < 0.05 for result in results)
    assert alarms <= 4  # 5 % of 30 is 1.5; more than 4 has a probability below 2 %


def test_auc_and_null_p_against_a_loop() -> None:
    rng = np.random.default_rng(1)
    label = np.arange(80) % 2
    values = (label + rng.normal(size=80) * 1.2)[:, None]
    half = halves(label, None)
    found = predict_label(values, label == 1, half)
    aucs = []
    nulls = []
    for test in (0, 1):
        mine = half == test
        positive = found.scores[mine & (label == 1)]
        negative = found.scores[mine & (label == 0)]
        wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        aucs.append(np.mean(wins))
        n1, n0 = len(positive), len(negative)
        nulls.append(math.sqrt((n1 + n0 + 1) / (12 * n1 * n0)))
    assert found.auc == pytest.approx(np.mean(aucs))
    z = (np.mean(aucs) - 0.5) / np.mean(nulls)
    assert found.p == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)))
    low, high = found.bounds(0.025)
    assert 0 < low < found.auc < high < 1


def test_scores_come_from_the_other_half() -> None:
    label = np.arange(60) % 2
    half = halves(label, None)
    # In one half large values mean 1, in the other one 0: both classifiers are wrong.
    values = (np.where(half == 0, label, 1 - label) + np.linspace(0, 0.1, 60))[:, None]
    assert predict_label(values, label == 1, half).auc == pytest.approx(0.0, abs=0.05)


def test_patients_stay_in_one_half() -> None:
    rng = np.random.default_rng(2)
    label = rng.integers(0, 3, 90)
    patient = rng.integers(0, 25, 90)
    half = halves(label, patient)
    for value in np.unique(patient):
        assert len(set(half[patient == value])) == 1
    counts = [np.bincount(label[halves(label, None) == h], minlength=3) for h in (0, 1)]
    assert (np.abs(counts[0] - counts[1]) <= 1).all()


def test_a_known_confounder_explains_its_own_property() -> None:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 400)
    confounder = np.where(rng.random(400) < 0.9, label, 1 - label)
    values = (confounder + 0.3 * rng.normal(size=400))[:, None]
    half = halves(label, None)
    assert predict_label(values, label == 1, half).auc > 0.8
    given = predict_label(values, label == 1, half, confounder)
    assert abs(given.auc - 0.5) < 0.15


def test_families_without_information_say_so() -> None:
    label = np.arange(40) % 2
    families = [
        Family("constant", Tier.EITHER, np.ones((40, 1))),
        Family("missing", Tier.EITHER, np.full((40, 1), np.nan)),
        Family("known for one class", Tier.EITHER, np.where(label, 1.0, np.nan)[:, None]),
    ]
    results, untested = compare_families(families, (label == 1)[:, None], label)
    assert [result.family.name for result in results] == ["known for one class"]
    assert results[0].predictions[0].auc == pytest.approx(1.0)
    assert len(untested) == 2 and all("same" in reason for reason in untested)
    few = np.r_[np.ones(5, int), np.zeros(35, int)]
    _, untested = compare_families(
        [Family("noise", Tier.EITHER, np.arange(40.0)[:, None])], (few == 1)[:, None], few
    )
    assert "few" in untested[0]


def test_properties_by_hand() -> None:
    image = np.zeros((2, 3, 32, 32), np.uint8)
    image[1] = 200
    image[1, :, 4:, 4:] = np.random.default_rng(4).integers(0, 256, (3, 28, 28))
    found = {family.name: family.values for family in pixel_families(image)}
    assert found["brightness"][0, 0] == 0
    assert found["brightness"][1, 0] == pytest.approx(image[1].mean(), abs=1e-3)
    assert found["margins"][1].tolist() == [4 / 32, 0, 4 / 32, 0]
    assert found["tails"][0].tolist() == [1, 0]
    assert found["histogram"][0].tolist() == [1, *[0] * 7]
    assert found["entropy"][0, 0] == 0 and np.isnan(found["hue"][0]).all()
    red = np.zeros((1, 3, 16, 16), np.uint8)
    red[:, 0] = 100
    of_red = {family.name: family.values for family in pixel_families(red)}
    assert of_red["hue"][0].tolist() == [1, 0, 0, 0, 0, 0] and of_red["saturation"][0, 0] == 1
    grey = {family.name for family in pixel_families(image[:, :1])}
    assert not grey & {"hue", "saturation", "colour"}
    mask = np.zeros((2, 1, 32, 32), bool)
    mask[:, :, :4] = True
    masked = {family.name: family.values for family in pixel_families(image, mask)}
    assert masked["inside the mask"][1, 0] == pytest.approx(image[1, 0, :4].mean(), abs=1e-3)
    assert masked["mask area"][0, 0] == 4 / 32


def test_files_are_measured_before_they_are_decoded(tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for quality in (20, 90):
        Image.fromarray(pixels).save(tmp_path / f"{quality}.jpg", quality=quality)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = [tmp_path / "20.jpg", tmp_path / "90.jpg", tmp_path / "a.png", tmp_path / "missing.png"]
    found = {family.name: family.values for family in file_families(files)}
    assert found["JPEG quality"][0, 0] < found["JPEG quality"][1, 0]
    assert np.isnan(found["JPEG quality"][2:]).all()
    np.testing.assert_allclose(found["dimensions"][:3], np.log([[30, 20]] * 3))
    assert found["file size"][0, 0] == pytest.approx(math.log(files[0].stat().st_size))
    assert np.isnan(found["file size"][3, 0])


def test_near_duplicates_are_found_and_flat_or_similar_images_are_not() -> None:
    rng = np.random.default_rng(6)
    # Images of one kind: the same structure, which decides all bits of the hash, and little else.
    y, x = np.mgrid[:36, :36]
    structure = 60 + 50 * np.sin(x / 3 + y / 5) + 40 * np.cos(x / 7)
    texture = rng.normal(0, 1, (20, 1, 36, 36)).repeat(3, 1) * 12
    train = (structure + texture).clip(0, 255).astype(np.uint8)
    bits = difference_hash(train)
    assert np.bitwise_count(bits[1:] ^ bits[:1]).max() <= 3
    noise = rng.integers(-2, 3, train[:2].shape)
    copy = (0.8 * train[3:5] + noise + 20).clip(0, 255).astype(np.uint8)
    test = np.concatenate([copy, np.full((1, 3, 36, 36), 9, np.uint8)])
    flat = np.concatenate([train, np.full((1, 3, 36, 36), 9, np.uint8)])
    sketches = {"train": sketch(flat), "val": sketch(train[:0]), "test": sketch(test)}
    (found,) = find_near_duplicates(sketches)
    assert (found.first, found.second) == ("train", "test")
    assert found.pairs == ((3, 0), (4, 1))
    assert not find_near_duplicates(sketches, [("val", "test")])


def test_findings_need_a_small_p_and_a_large_effect() -> None:
    label = np.arange(400) % 2
    rng = np.random.default_rng(9)
    noise = [Family(f"noise {k}", Tier.EITHER, rng.normal(size=(400, 1))) for k in range(12)]
    values = (np.where(rng.random(400) < 0.72, label, 1 - label) + 0.1 * rng.random(400))[:, None]
    weak = (0.3 * label + rng.normal(size=400))[:, None]
    families = [Family("mark", Tier.EITHER, values), Family("weak", Tier.EITHER, weak), *noise]
    results, _ = compare_families(families, (label == 1)[:, None], label)
    by_name = {result.family.name: result for result in results}
    mark = by_name["mark"]
    alone = mark.predictions[0].bounds(0.025)[0]
    assert mark.is_suspect and mark.p_holm < 0.05 and alone >= 0.6
    assert mark.bounds[0][0] < alone  # the printed interval holds for all families together
    assert not any(by_name[name].predicts for name in by_name if name != "mark")


def test_unknown_labels_are_left_out() -> None:
    rng = np.random.default_rng(8)
    label = rng.integers(0, 2, 120)
    values = (label + rng.normal(size=120))[:, None]
    known = rng.random(120) < 0.7
    half = halves(label, None)
    found = predict_label(values, label == 1, half, known=known)
    alone = predict_label(values[known], label[known] == 1, half[known])
    assert (found.auc, found.sd, found.p) == (alone.auc, alone.sd, alone.p)
    assert np.isnan(found.scores[~known]).all() and np.isfinite(found.scores[known]).all()
    assert math.isnan(predict_label(values, label == 1, half, known=np.zeros(120, bool)).auc)


def test_the_command_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scan"
    name = planted("border", 0.95, 200)
    assert main(["check", name, "--scan", "--scan-out", str(out)]) in (0, 1)
    assert "border" in capsys.readouterr().out
    content = json.loads((out / "planted_scan.json").read_text())
    (border,) = [family for family in content["families"] if family["name"] == "border"]
    assert border["suspect"] and border["low"][0] >= 0.6
    assert border["quantiles"]["class"][2] > border["quantiles"]["other"][2]
    page = (out / "planted_scan.html").read_text()
    assert page.count("<svg") > 1 and "<img" not in page


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["tiny", "--given-confounder"], "--scan"),
        (["tiny", "--scan-out", "x"], "--scan"),
    ],
)
def test_mistakes_end_with_2(
    arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    assert fact in capsys.readouterr().err
