"""Damaged, foreign and malicious weights and checkpoints are errors, and none is executed."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core.errors import DamagedError
from benchmark.core.files import sha256_of
from benchmark.engine.checkpoint import load_weights, save_weights
from tests.support.messages import mentions
from tests.support.runs import failure, plan_run, plan_runs, run
from tests.support.threads import threads
from tests.support.toy_algorithms import Pupil, Student, registered


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    with registered(Student, Pupil):
        yield


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("code_ran",)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x20
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def evil(path: Path) -> None:
    torch.save({"weight": Evil()}, path)


def evil_old_format(path: Path) -> None:
    torch.save({"weight": Evil()}, path, _use_new_zipfile_serialization=False)


def no_weights(path: Path) -> None:
    torch.save([1, 2, 3], path)


def other_weights(path: Path) -> None:
    save_weights(path, {"weight": torch.zeros(2)})


def compressed(path: Path) -> None:
    """Compress 100 MB of zeros to 100 kB."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with new.open("archive/data/1", "w", force_zip64=True) as member:
            for _ in range(10):
                member.write(bytes(10**7))


def text(path: Path) -> None:
    path.write_text("hello")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


Damage = Callable[[Path], None]
DAMAGES: list[Damage] = [
    flip, cut, evil, evil_old_format, no_weights, other_weights, compressed, text, empty, folder,
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A sweep folder, and the keys of a teacher that is done and of a student that needs it."""
    root = tmp_path_factory.mktemp("trained")
    with registered(Student), threads(1):
        teacher, student = plan_runs(root, "toy_student", budget={"steps": 2})
        assert run(teacher) == "done", failure(teacher)
    return root, teacher.name, student.name


@pytest.fixture
def pair(trained: tuple[Path, str, str], tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a teacher that is done and of a student that needs it, to be damaged."""
    root, teacher, student = trained
    shutil.copytree(root / "runs", tmp_path / "runs")
    return tmp_path / "runs" / teacher, tmp_path / "runs" / student


#: Damage that is also tried in the fast suite with a record without checksums.
OLD = (flip, evil)


@pytest.mark.parametrize(
    ("damage", "checksum"),
    [
        pytest.param(
            damage,
            checksum,
            marks=[] if checksum or damage in OLD else [pytest.mark.slow],
            id=f"{damage.__name__}, {'checksum' if checksum else 'old record'}",
        )
        for damage in DAMAGES
        for checksum in (True, False)
    ],
)
def test_damaged_weights_of_a_teacher_say_what_to_delete(
    damage: Damage,
    checksum: bool,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    teacher, student = pair
    record = json.loads((teacher / "record.json").read_text())
    assert record["checksums"]["selected.pt"] == sha256_of(teacher / "selected.pt")
    if not checksum:
        del record["checksums"]
        (teacher / "record.json").write_text(json.dumps(record))
    damage(teacher / "selected.pt")
    assert run(student) == "failed"
    found = failure(student)
    assert found["kind"] == "user_error" and "selected.pt" in found["message"]
    assert f"delete the folder {teacher}" in found["message"]
    assert "\n" not in found["message"] and "traceback" not in found
    assert not (tmp_path / "code_ran").exists()


def test_a_record_without_checksums_still_serves(pair: tuple[Path, Path]) -> None:
    teacher, student = pair
    record = json.loads((teacher / "record.json").read_text())
    del record["checksums"]
    (teacher / "record.json").write_text(json.dumps(record))
    assert run(student) == "done", failure(student)


def test_weights_of_another_run_that_would_fit(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """ERM's weights of another trial have the same names and shapes: only the checksum tells."""
    teacher, student = pair
    other = plan_run(tmp_path / "other", budget={"steps": 2}, trials=[1])
    assert run(other) == "done"
    (other / "selected.pt").replace(teacher / "selected.pt")
    assert run(student) == "failed"
    assert mentions(failure(student)["message"], "selected.pt", "another run", "checksum")


def test_files_of_two_teachers(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Record and weights both of another run: the key in the record is not that of the folder."""
    teacher, student = pair
    other = plan_run(tmp_path / "other", budget={"steps": 2}, trials=[1])
    assert run(other) == "done"
    for name in ("record.json", "selected.pt"):
        (other / name).replace(teacher / name)
    assert run(student) == "failed"
    assert "files of two runs were mixed" in failure(student)["message"]


def test_the_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    folder = plan_run(tmp_path, budget={"steps": 2})
    assert run(folder) == "done"
    found = json.loads((folder / "record.json").read_text())["checksums"]
    names = {"predictions.npz", "selected.pt", "heatmaps.npz", "embeddings.npz"}
    assert found == {name: sha256_of(folder / name) for name in names}
    again = plan_run(tmp_path / "again", budget={"steps": 2})
    assert run(again) == "done"
    assert json.loads((again / "record.json").read_text())["checksums"] == found


def test_weights_come_back_and_every_flip_of_a_value_is_found(tmp_path: Path) -> None:
    weights = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([1, 2])}
    path = tmp_path / "w.pt"
    save_weights(path, weights)
    found = load_weights(path, sha256_of(path))
    assert found.keys() == weights.keys() and all(torch.equal(found[k], weights[k]) for k in found)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(good), 200):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1 << rng.integers(8)]) + good[at + 1 :])
        try:
            found = load_weights(path)
        except DamagedError:
            continue
        assert all(torch.equal(found[k], weights[k]) for k in weights)  # the flip hit padding
