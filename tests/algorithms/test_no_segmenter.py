"""The teacher without its segmenter: the same classifier on whole images, in a row of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmark.core.record import read_record
from benchmark.engine.build import load_upstream
from benchmark.plan.planner import expand
from benchmark.plan.sweepfile import config_from
from tests.support.runs import failure, plan_runs, run
from tests.support.tiny import make_batch

TEACHER = {"batch_size": 16, "unet_width": 2, "unet_depth": 2, "lr": 0.01}


def test_it_has_the_predictions_of_the_teachers_classifier_on_whole_images(tmp_path: Path) -> None:
    folders = plan_runs(
        tmp_path, "no_segmenter", override={"segment_classify": TEACHER}, budget={"steps": 8}
    )
    for folder in folders:
        assert run(folder) == "done", failure(folder)
    record = read_record(folders[1])
    assert record.steps == 0 and list(record.upstream) == ["teacher"]
    assert record.upstream["teacher"].method == "segment_classify"
    teacher, deprived = (load_upstream(folder, torch.device("cpu")) for folder in folders)
    image = make_batch(6, side=32).image
    assert torch.equal(deprived.predict(image), teacher.network.classifier(image))
    assert not torch.allclose(deprived.predict(image), teacher.predict(image))
    assert record.parameters < read_record(folders[0]).parameters, "no U-Net"
    assert record.explanations is not None and not record.explanations.note


@pytest.mark.parametrize("draws", [0, 2])
def test_its_teacher_is_the_row_of_the_same_draw(draws: int) -> None:
    table = {
        "datasets": ["tiny"],
        "algorithms": ["segment_classify", "no_segmenter"],
        "backbone": "convnet:width=2",
        "budget": {"steps": 8},
        "override": {"segment_classify": TEACHER},
        "draws": draws,
    }
    plan = expand(config_from(table, "test", "test"))
    assert len(plan.runs) == 2 * max(draws, 1) and all(r.requested for r in plan.runs.values())
    for planned in plan.runs.values():
        if planned.spec.algorithm == "no_segmenter":
            teacher = plan.runs[planned.spec.upstream["teacher"]].spec
            assert teacher.algorithm == "segment_classify" and teacher.draw == planned.spec.draw
            assert teacher.hparams["lr"] == 0.01
