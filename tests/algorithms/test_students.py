"""TEA and the distillations: losses by hand, initial weights, and an unchanged teacher."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import benchmark.losses.heatmaps
from algorithms.tea import tea_loss
from algorithms.tea_ablations import DISTANCES, TEAWithAblations
from benchmark.core.batch import Batch
from benchmark.core.errors import Problems, UserError
from benchmark.core.registry import ALGORITHMS, BACKBONES, DATASETS
from benchmark.core.spec import RunSpec
from benchmark.explain import get
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from tests.support import every_algorithm
from tests.support.tiny import (
    CLASSES,
    build,
    hparams_of,
    make_batch,
    same_weights,
    through_checkpoint,
    train,
)

DISTILLATIONS = ["distill_outputs", "distill_representations", "distill_gradcam"]
STUDENTS = ["tea", *DISTILLATIONS]


def make_teacher(kind: str = "erm", **changed: Any) -> Any:
    """A trained teacher as the engine hands it over: in evaluation mode, without gradients."""
    if kind == "segment_classify":
        changed = {"unet_width": 2, "unet_depth": 2, "segmenter_share": 0.5, "steps": 8, **changed}
    teacher = build(kind, seed=5, **changed)
    train(teacher, 0, 8)
    teacher.zero_grad(set_to_none=True)
    return teacher.eval().requires_grad_(False)


def student(name: str, teacher: Any = None, **changed: Any) -> Any:
    method, _, variant = name.partition(":")
    kind = ALGORITHMS.get(method)
    changed = {**(kind.variants[variant] if variant else {}), **changed}
    return build(
        kind, upstream={"teacher": make_teacher() if teacher is None else teacher}, **changed
    )


def seeded_loss(algorithm: Any, batch: Batch, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    terms: dict[str, torch.Tensor] = algorithm.loss(batch)
    return terms


# the TEA loss


def dense_tea_loss(s: torch.Tensor, t: torch.Tensor) -> float:
    """Equations 1 and 2, pixel by pixel."""
    side, values = s.shape[-1], []
    for a, b in zip(s, t, strict=True):
        k = 1
        while side // k >= 8:
            cells = [
                (c, i, j) for c in range(len(a)) for i in range(side // k) for j in range(side // k)
            ]
            pool = lambda m, c, i, j: m[c, i * k : i * k + k, j * k : j * k + k].sum().item() / k**2  # noqa: B023, E731
            p, q = ([pool(m, *cell) for cell in cells] for m in (a, b))
            apart = sum(abs(x - y) for x, y in zip(p, q, strict=True))
            values.append(apart / (sum(map(abs, p)) * sum(map(abs, q))) ** 0.5)
            k *= 2
    return sum(values) / len(values)


@pytest.mark.parametrize("side", [6, 16, 18, 32])
def test_tea_loss_by_loops(side: int) -> None:
    generator = torch.Generator().manual_seed(side)
    s, t = (
        torch.randn(2, 2, side, side, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    if side < 8:  # one resolution, however small
        single = F.pad(s, (0, 2, 0, 2)), F.pad(t, (0, 2, 0, 2))
        assert tea_loss(s, t).item() == pytest.approx(dense_tea_loss(*single), rel=1e-8)
    else:
        assert tea_loss(s, t).item() == pytest.approx(dense_tea_loss(s, t), rel=1e-8)


@pytest.mark.parametrize(("side", "levels"), [(64, 4), (28, 2), (224, 5), (32, 3), (8, 1), (4, 1)])
def test_levels_of_the_tea_loss(side: int, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as METHODS counts: the coarsest map has at least eight pixels a side."""
    sizes = []

    def watched(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sizes.append(s.shape[-1])
        return s.flatten(1).sum(1)

    monkeypatch.setattr(benchmark.losses.heatmaps, "geometric_distance", watched)
    tea_loss(torch.ones(1, 1, side, side), torch.ones(1, 1, side, side))
    assert sizes == [side // 2**level for level in range(levels)]


@pytest.mark.parametrize("name", sorted(DISTANCES))
def test_every_distance_is_zero_for_equal_maps_and_finite_for_empty_ones(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(3, 3, 16, 16, generator=generator) for _ in range(2))
    assert DISTANCES[name](s, s.clone()) == 0
    assert DISTANCES[name](s, t) > 0
    for one, other in (
        (torch.zeros_like(s), t),
        (s, torch.zeros_like(t)),
        (torch.zeros_like(s), torch.zeros_like(t)),
    ):
        one.requires_grad_()
        value = DISTANCES[name](one, other)
        value.backward()
        assert value.isfinite() and one.grad.isfinite().all()
    scaled = DISTANCES[name](s, 3 * s)
    assert scaled.abs() < 1e-5 if name in ("l1", "l2") else scaled > 0.1, (
        "the norm of a heatmap is confidence"
    )
    assert DISTANCES[name](s[:1], t[:1]).isfinite()


def test_l1_and_l2_are_equations_c12_and_c13() -> None:
    s, t = (
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
    )
    for name, order in (("l1", 1), ("l2", 2)):
        by_hand = [torch.linalg.norm((a / a.norm(order) - b / b.norm(order)), order) for a, b in
                   zip(s.flatten(1), t.flatten(1), strict=True)]  # fmt: skip
        assert DISTANCES[name](s, t).item() == pytest.approx(sum(by_hand).item() / 2, rel=1e-12)


# TEA


def test_a_student_that_is_its_teacher_has_no_loss() -> None:
    algorithm = student("tea").eval()
    assert seeded_loss(algorithm, make_batch())["explanation"] < 1e-4
    algorithm = student("tea", statistics="running")
    assert seeded_loss(algorithm, make_batch())["explanation"] < 1e-4
    with torch.no_grad():
        next(algorithm.network.parameters()).mul_(1.5)
    assert seeded_loss(algorithm, make_batch())["explanation"] > 0.05


def test_loss_by_hand_from_the_explainer_alone() -> None:
    """Equation 2 image by image, with the classes that the algorithm chooses."""
    teacher = make_teacher("segment_classify")
    algorithm, batch = (
        student("tea", teacher, start="random", epsilon_low=1e-2, epsilon_high=1e-1).eval(),
        make_batch(),
    )
    found = seeded_loss(algorithm, batch, seed=4)["explanation"].item()
    torch.manual_seed(4)
    network, seen = teacher.explainable(batch.image)
    epsilon = (
        torch.empty(12)
        .uniform_(torch.tensor(1e-2).log().item(), torch.tensor(1e-1).log().item())
        .exp()
    )
    draws, target = torch.rand(2, 12), network(seen).argmax(1)
    for row in range(12):
        if draws[0, row] >= 0.5:
            target[row] = (target[row] + 1 + int(draws[1, row] * 2)) % 3
    distances = []
    for row in range(12):
        lrp, one = get("lrp", epsilon=epsilon[row].item()), slice(row, row + 1)
        pair = (
            lrp(n, x[one], target[one])
            for n, x in ((algorithm.network, batch.image), (network, seen))
        )
        distances.append(tea_loss(*pair).item())
    assert found == pytest.approx(sum(distances) / 12, rel=1e-4)
    assert (epsilon > 0.01).all() and (epsilon < 0.1).all()


def test_heatmaps_are_all_that_moves_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, batch = student("tea"), make_batch()
    loss = seeded_loss(algorithm, batch)
    assert list(loss) == ["explanation"] and loss["explanation"].requires_grad
    other = replace(batch, label=(batch.label + 1) % 3)
    assert seeded_loss(student("tea"), other)["explanation"] == loss["explanation"], (
        "labels play no part"
    )
    monkeypatch.setitem(DISTANCES, "multi", lambda s, t: (s.detach() - t).abs().mean())
    assert not seeded_loss(algorithm, batch)["explanation"].requires_grad, (
        "no way around the heatmap"
    )


def test_gradient_to_the_weights_by_finite_differences() -> None:
    """The derivative includes that of the batch statistics; the student is near its teacher."""
    algorithm = student("tea", make_teacher(), epsilon_low=0.05, epsilon_high=0.1).double()
    algorithm.teacher[0].double()
    batch = make_batch(rows=3)
    batch = replace(batch, image=batch.image.double())
    weights = [p for p in algorithm.network.parameters() if p.requires_grad]
    torch.manual_seed(2)
    with torch.no_grad():
        for p in weights:
            p += 0.2 * p.std() * torch.randn_like(p)
    gradients = torch.autograd.grad(
        seeded_loss(algorithm, batch)["explanation"], weights, allow_unused=True
    )
    torch.manual_seed(1)
    direction = [p.std() * torch.randn_like(p) for p in weights]
    slope = sum(
        (g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None
    ).item()
    ends, h = [], 1e-7
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p += sign * h * d
        ends.append(seeded_loss(algorithm, batch)["explanation"].item())
        with torch.no_grad():
            for p, d in zip(weights, direction, strict=True):
                p -= sign * h * d
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-4)


def test_every_variant_has_a_loss_of_its_own_and_trains() -> None:
    """Values of a student that differs from its teacher; warm-up does not change the first."""
    teacher, batch, values = make_teacher("segment_classify"), make_batch(), {}
    for variant in ("", *TEAWithAblations.variants):
        algorithm = student(f"tea:{variant}" if variant else "tea", teacher)
        with torch.no_grad():
            for p in algorithm.network.body.parameters():
                p.mul_(1.3)
        values[variant] = sum(seeded_loss(algorithm, batch, seed=2).values()).item()
        terms = algorithm.step(batch)
        assert all(t.isfinite() for t in terms.values()), variant
    same = {
        "warmup": values["warmup"],
        "unbiased_teacher": values[""],
        "train_statistics": values[""],
    }
    assert values["unbiased_teacher"] == values[""], "another teacher, and nothing else"
    assert values["train_statistics"] != values[""]
    rest = [v for name, v in values.items() if name not in same]
    assert len({round(v, 5) for v in rest}) == len(rest), values


def test_outputs_and_representations_are_added_to_the_heatmaps() -> None:
    teacher, batch = make_teacher(), make_batch()
    plain = seeded_loss(student("tea", teacher, start="random").eval(), batch)
    both = student(
        "tea", teacher, start="random", output_weight=0.5, representation_weight=2.0
    ).eval()
    terms = seeded_loss(both, batch)
    assert terms["explanation"].item() == pytest.approx(plain["explanation"].item(), rel=1e-5)
    s, t = both.predict(batch.image), teacher.predict(batch.image)
    kl = (F.softmax(t / 3, 1) * (F.log_softmax(t / 3, 1) - F.log_softmax(s / 3, 1))).sum(1).mean()
    assert terms["outputs"].item() == pytest.approx(0.5 * 9 * kl.item(), rel=1e-4)
    a, b = (n.feature_map(batch.image).flatten(1) for n in (both.network, teacher.network))
    apart = ((a - b).abs().sum(1) / (a.abs().sum(1) * b.abs().sum(1)).sqrt()).mean()
    assert terms["representations"].item() == pytest.approx(2 * apart.item(), rel=1e-4)
    assert not any(m._forward_hooks for n in (both.network, teacher.network) for m in n.modules())


def test_statistics_of_batch_normalisation() -> None:
    teacher = make_teacher()
    mean = lambda a: a.network.body[1].running_mean.clone()  # noqa: E731
    for statistics, moved in (("running", False), ("batch", True), ("train", True)):
        algorithm = student("tea", teacher, statistics=statistics)
        before = mean(algorithm)
        train(algorithm, 0, 2)
        assert torch.equal(before, mean(algorithm)) != moved
        assert algorithm.network.body[1].training == moved
        assert (
            algorithm.network.body[1].num_batches_tracked
            == teacher.network.body[1].num_batches_tracked + 2 * moved
        )
        assert not algorithm.eval().network.body[1].training


def test_heatmaps_depend_on_one_image_unless_statistics_are_differentiated() -> None:
    batch = make_batch()
    image = batch.image.clone().requires_grad_()
    crosstalk = {}
    for statistics in ("batch", "train"):
        algorithm = student("tea", statistics=statistics)
        explainer = algorithm.explainer(batch.image[:1].expand(12, -1, -1, -1))
        score = lambda logits: torch.cat([logits[:1, 0], 0 * logits[1:, 0]])  # noqa: E731
        heatmap, _ = explainer.with_logits(algorithm.network, image.detach(), score)
        crosstalk[statistics] = (heatmap[1:].abs().sum() / heatmap.abs().sum()).item()
    assert crosstalk["batch"] == 0
    assert crosstalk["train"] > 0.01


def test_warmup_moves_both_then_only_the_cross_entropy_moves_the_copy_of_the_teacher() -> None:
    teacher = make_teacher()
    original = copy.deepcopy(teacher.state_dict())
    algorithm, batch = student("tea", teacher, warmup=0.5, start="random"), make_batch()
    assert "moving.classifier.weight" in algorithm.state_dict()
    first = algorithm.moving.body[0].weight
    for step, reached in ((0, True), (4, True), (5, False)):
        algorithm.current_step = step
        terms = seeded_loss(algorithm, batch)
        assert set(terms) == {"explanation", "teacher"}
        (found,) = torch.autograd.grad(
            terms["explanation"], first, allow_unused=True, retain_graph=True
        )
        assert (found is not None and bool(found.abs().sum() > 0)) == reached
        (found,) = torch.autograd.grad(terms["teacher"], first)
        assert found.abs().sum() > 0
    algorithm.train()
    with torch.no_grad():
        logits = copy.deepcopy(algorithm.moving)(batch.image)
    for step, weight in ((0, 0.1), (4, 0.1), (5, 1.0), (9, 1.0)):
        algorithm.current_step = step
        expected = weight * F.cross_entropy(logits, batch.label)
        found = seeded_loss(algorithm, batch)["teacher"].item()
        assert found == pytest.approx(expected.item(), rel=1e-4)
    train(algorithm, 0, 7)
    assert not torch.equal(first, original["network.body.0.weight"])
    assert all(torch.equal(v, original[k]) for k, v in teacher.state_dict().items()), (
        "the teacher itself never moves"
    )


@pytest.mark.parametrize("step", [0, 5])
def test_warmup_has_separate_optimisers_and_clips_and_freezes_both_last_layers(step: int) -> None:
    """A step by hand: each network's own gradient is clipped to norm 1."""
    algorithm = student("tea", warmup=0.5, lr=0.1, momentum=0.0, clip_norm=1.0)
    with torch.no_grad():
        for parameter in algorithm.network.body.parameters():
            parameter.mul_(1.5)
    algorithm.current_step = step
    batch = make_batch()
    expected: dict[str, torch.Tensor] = {}
    norms = []
    buffers = copy.deepcopy(algorithm.state_dict())
    total = sum(seeded_loss(algorithm, batch).values())
    for prefix, network in (("network", algorithm.network), ("moving", algorithm.moving)):
        named = {n: p for n, p in network.named_parameters() if p.requires_grad}
        assert named and not any(name.startswith("classifier") for name in named)
        gradients = torch.autograd.grad(total, list(named.values()), retain_graph=True)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        norms.append(norm.item())
        for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
            moved = parameter - 0.1 * gradient * (1 / (norm + 1e-6)).clamp(max=1)
            expected[f"{prefix}.{name}"] = moved.detach()
    assert max(norms) > 1 and abs(norms[0] - norms[1]) > 1e-3
    algorithm.load_state_dict(buffers)
    torch.manual_seed(0)
    algorithm.step(batch)
    for name, parameter in algorithm.named_parameters():
        torch.testing.assert_close(
            parameter.detach(), expected.get(name, buffers[name]), rtol=1e-5, atol=1e-7
        )
    groups = [
        {id(p) for group in optimizer.param_groups for p in group["params"]}
        for optimizer in algorithm.optimizers.values()
    ]
    assert len(groups) == 2 and not groups[0] & groups[1]


# all students


@pytest.mark.parametrize("name", STUDENTS)
def test_the_teacher_is_no_part_of_the_student_and_does_not_change(name: str) -> None:
    teacher = make_teacher("segment_classify")
    before = copy.deepcopy(teacher.state_dict())
    algorithm = student(name, teacher)
    assert {k.partition(".")[0] for k in algorithm.state_dict()} == {"network"}
    assert sum(p.numel() for p in algorithm.parameters()) == sum(
        p.numel() for p in teacher.explained.parameters()
    )
    train(algorithm, 0, 3)
    algorithm.train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize("name", STUDENTS)
def test_where_a_student_starts_and_what_is_frozen(name: str) -> None:
    teacher = make_teacher("segment_classify")
    theirs = teacher.explained
    algorithm = student(name, teacher)
    for key, value in theirs.state_dict().items():
        assert torch.equal(algorithm.network.state_dict()[key], value)
    frozen = name in ("tea", "distill_representations")
    algorithm.step(make_batch())
    assert torch.equal(algorithm.network.classifier.weight, theirs.classifier.weight) == frozen
    assert not torch.equal(algorithm.network.body[0].weight, theirs.body[0].weight)
    if name != "distill_representations":
        algorithm = student(name, teacher, start="random")
        assert not torch.equal(algorithm.network.body[0].weight, theirs.body[0].weight)
        assert algorithm.network.classifier.weight.requires_grad, "what is random is not frozen"


@pytest.mark.parametrize("name", STUDENTS)
def test_another_backbone_needs_another_start_and_the_last_layer_can_be_transplanted(
    name: str,
) -> None:
    wide = BACKBONES.get("convnet")(3, (3, 16, 16), width=5)
    teacher = make_teacher(build_network=lambda num_outputs=None, **options: wide)
    with pytest.raises(UserError, match='start = "random" or "transplant"'):
        student(name, teacher)
    algorithm = student(name, teacher, start="transplant")
    assert torch.equal(algorithm.network.classifier.weight, teacher.network.classifier.weight)
    shapes = [
        network.feature_map(make_batch().image).shape
        for network in (algorithm.network, teacher.network)
    ]
    assert shapes[0] == shapes[1]
    body = algorithm.network.body.body[0].weight.clone()
    logged = train(algorithm, 0, 3)
    assert all(torch.tensor(list(terms.values())).isfinite().all() for terms in logged)
    assert not torch.equal(algorithm.network.body.body[0].weight, body)
    fresh = student(name, teacher, seed=3, start="transplant")
    assert same_weights(through_checkpoint(algorithm, fresh, 3), algorithm)


@pytest.mark.parametrize("name", STUDENTS)
def test_objective_repeats_and_leaves_the_random_stream_alone(name: str) -> None:
    algorithm, batch = student(name, make_teacher("segment_classify")), make_batch()
    train(algorithm, 0, 2)
    algorithm.eval()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = algorithm.objective(batch).item()
    assert torch.equal(torch.rand(3), expected)
    torch.rand(5)
    assert algorithm.objective(batch).item() == first
    assert first > 0


@pytest.mark.parametrize("name", STUDENTS)
def test_upstream_asks_for_the_teacher(name: str) -> None:
    def ask(**changed: Any) -> Any:
        kind = ALGORITHMS.get(name)
        spec = RunSpec(
            "d",
            {"bias": 1.0},
            "",
            name,
            "",
            "convnet",
            {},
            hparams_of(kind, 32, **changed),
            0,
            0,
            {},
            (),
        )
        assert kind.needs.names() == ("teacher",)
        return kind.upstream(spec)["teacher"]

    assert (ask().algorithm, ask().dataset_options, ask().backbone) == (
        "segment_classify",
        {},
        None,
    )
    asked = ask(teacher="unbiased", teacher_bias=0.2, teacher_backbone="resnet18")
    assert (asked.algorithm, dict(asked.dataset_options), asked.backbone) == (
        "erm",
        {"bias": 0.2},
        "resnet18",
    )


@pytest.mark.parametrize(
    ("start", "teacher_backbone", "mentions"),
    [
        ("teacher", "resnet18", "resnet18"),
        ("teacher", "", None),
        ("teacher", "convnet:width=4", None),
        ("random", "resnet18", "transplant"),
        ("random", "convnet:width=4", None),
        ("transplant", "resnet18", None),
    ],
)
def test_students_refuse_a_teacher_of_another_kind_when_planned(
    start: str, teacher_backbone: str, mentions: str | None
) -> None:
    info = DATASETS.get("tiny")().info()
    spec = every_algorithm.spec_of("tea", "representations")
    chosen = {**spec.hparams, "start": start, "teacher_backbone": teacher_backbone}
    reason = TEAWithAblations.refuses(replace(spec, hparams=chosen), info)
    if mentions is None:
        assert reason is None
    else:
        assert reason is not None and mentions in reason


def test_representations_of_other_widths_are_refused_before_the_first_step() -> None:
    wide = make_teacher()
    wide.network = BACKBONES.get("convnet")(CLASSES, (3, 16, 16), width=7)
    with pytest.raises(UserError, match="channels"):
        student("tea:representations", wide, start="random")
    assert student("tea:representations", wide, start="transplant").network.num_features == (
        wide.network.num_features
    )


# distillations


def test_output_distillation_by_hand() -> None:
    teacher, batch = make_teacher(), make_batch()
    algorithm = student("distill_outputs", teacher, start="random", temperature=2.0)
    s, t = algorithm.predict(batch.image) / 2, teacher.predict(batch.image) / 2
    expected = 4 * (t.softmax(1) * (t.log_softmax(1) - s.log_softmax(1))).sum(1).mean()
    assert algorithm.loss(batch)["outputs"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert student("distill_outputs", teacher).eval().loss(batch)["outputs"].abs() < 1e-6


def test_representation_distillation_by_hand() -> None:
    teacher, batch = make_teacher(), make_batch()
    algorithm = student("distill_representations", teacher)
    a, b = (
        n.feature_map(batch.image).flatten(1)
        for n in (copy.deepcopy(algorithm.network), teacher.network)
    )
    expected = ((a - b).abs().sum(1) / (a.abs().sum(1) * b.abs().sum(1)).sqrt()).mean()
    assert algorithm.loss(batch)["representations"].item() == pytest.approx(
        expected.item(), rel=1e-4
    )
    assert student("distill_representations", teacher).eval().loss(batch)["representations"] == 0


def test_gradcam_distillation_by_hand() -> None:
    teacher, batch = make_teacher(), make_batch()
    algorithm = student(
        "distill_gradcam", teacher, start="random", heatmap_weight=0.7, output_weight=0.3
    ).eval()
    top, vectors = teacher.predict(batch.image).argmax(1), []
    for network in (algorithm.network, teacher.network):
        stages = network.stages(batch.image).detach().requires_grad_()
        logits = network.classifier(stages.mean((2, 3)))
        (gradient,) = torch.autograd.grad(logits[torch.arange(12), top].sum(), stages)
        vectors.append(
            torch.einsum("bkhw,bk->bhw", stages, gradient.mean((2, 3))).clamp_min(0).flatten(1)
        )
    a, b = vectors
    norms = a.norm(dim=1) * b.norm(dim=1)
    cosine = torch.where(norms > 0, (a * b).sum(1) / norms, 0.0)
    terms = algorithm.loss(batch)
    assert terms["heatmaps"].item() == pytest.approx(0.7 * (1 - cosine).mean().item(), rel=1e-4)
    outputs = (
        student("distill_outputs", teacher, start="random").eval().loss(batch)["outputs"].item()
    )
    assert terms["outputs"].item() == pytest.approx(0.3 * outputs, rel=1e-4)
    (gradient,) = torch.autograd.grad(terms["heatmaps"], algorithm.network.body[0].weight)
    assert gradient.abs().sum() > 0
    same = student("distill_gradcam", teacher).eval().loss(batch)
    assert same["outputs"].abs() < 1e-6
    # a map that is empty in the teacher has no direction, and counts as 1
    empty = (vectors[1].sum(1) == 0).float().mean().item()
    assert same["heatmaps"].item() == pytest.approx(empty, abs=1e-5)


@pytest.mark.parametrize("name", DISTILLATIONS)
def test_one_image(name: str) -> None:
    algorithm = student(name, make_teacher("segment_classify"))
    terms = algorithm.step(make_batch().rows(torch.tensor([3])))
    assert all(t.isfinite() for t in terms.values())


def test_grad_cam_maps_of_one_cell_are_refused_but_in_the_papers_own_setting() -> None:
    """The cosine of maps of one cell is always 1; the paper teaches digits by outputs."""
    table = {"datasets": ["tiny:side=28"], "backbone": "resnet18"}
    with pytest.raises(Problems, match="for these images have one cell"):
        expand(config_from({**table, "algorithms": ["distill_gradcam"]}, "test", "test"))
    plan = expand(
        config_from({**table, "algorithms": ["distill_gradcam:coloured_mnist"]}, "t", "t")
    )
    assert sum(run.requested for run in plan.runs.values()) == 1
