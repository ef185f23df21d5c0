"""Methods that read annotations without declaring them end with a message that names these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from benchmark.core.batch import Batch
from benchmark.core.needs import Needs
from benchmark.engine.undeclared import undeclared_annotation
from tests.support.runs import failure, plan_run, run
from tests.support.toy_algorithms import Plain, registered


class Forgets(Plain):
    """Balances the loss by confounder, which it does not declare."""

    name = "toy_forgets"

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        losses = F.cross_entropy(self.predict(batch.image), batch.label, reduction="none")
        return {"classification": losses[batch.confounder[:] == 0].mean()}  # type: ignore[index]


class PassesOn(Plain):
    """Gives a mask that it does not declare to a function of torch."""

    name = "toy_passes_on"

    def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"classification": F.max_pool2d(batch.mask, 2).mean()}  # type: ignore[arg-type]


def raised(act: Any) -> Exception:
    with pytest.raises(Exception) as caught:
        act()
    return caught.value


def batch() -> Batch:
    return Batch(torch.zeros(2, 3, 4, 4), torch.zeros(2), torch.arange(2))


@pytest.mark.parametrize(
    ("kind", "field", "need"), [(PassesOn, "mask", "masks"), (Forgets, "confounder", "confounder")]
)
def test_a_run_names_the_annotation_and_the_declaration(
    kind: type[Plain], field: str, need: str, tmp_path: Path
) -> None:
    with registered(kind):
        folder = plan_run(tmp_path, kind.name)
        assert run(folder) == "failed"
    message = failure(folder)["message"]
    assert "TypeError" in message
    assert f"batch.{field}" in message and f"{need}=True" in message


def test_attributes_and_items_of_hidden_fields_are_recognised() -> None:
    one: Any = batch()
    for act, need in (
        (lambda: one.group[0], "groups"),
        (lambda: one.environment.float(), "environments"),
        (lambda: F.one_hot(one.confounder), "confounder"),
    ):
        reason = undeclared_annotation(raised(act), Needs())
        assert f"add {need}=True" in reason
        assert not undeclared_annotation(raised(act), Needs(**{need: True}))


def test_other_errors_have_no_such_reason() -> None:
    one: Any = batch()
    nothing: Any = None
    for act in (lambda: nothing[0], lambda: one.label[5], lambda: one.absent):
        assert not undeclared_annotation(raised(act), Needs())
