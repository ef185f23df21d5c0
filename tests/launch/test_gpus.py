"""GPUs: a stand-in for nvidia-smi lists them, a stand-in for PyTorch can use some of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.core.errors import UserError
from benchmark.launch import gpus
from benchmark.launch.gpus import find_gpus, require_gpus
from tests.support.messages import mentions

ROOT = Path(__file__).resolve().parents[2]

LOST = "Unable to determine the device handle for GPU0000:41:00.0: GPU is lost.  Reboot the system"

#: A package torch with as much of CUDA as the probe needs. $FAKE_CUDA gives the behaviour of each
#: GPU. A lost GPU hides itself and later ones, as CUDA does with an unknown entry of
#: CUDA_VISIBLE_DEVICES.
FAKE_TORCH = """
import json, os, sys, time
from types import SimpleNamespace

settings = json.loads(os.environ["FAKE_CUDA"])
if settings.get("hang"):
    time.sleep(1000)
if settings.get("crash"):
    os._exit(139)
version = SimpleNamespace(cuda=settings.get("built", "12.4"), hip=None)
behaviour = settings.get("gpus", {})
visible = os.environ.get("CUDA_VISIBLE_DEVICES")
names = []
for name in (list(behaviour) if visible is None else visible.split(",")):
    if behaviour.get(name, "lost") == "lost":
        break
    names.append(name)
print("a library prints something")


class Tensor:
    def __init__(self, size, device):
        self.values = [1] * size
        reason = behaviour[names[int(device.removeprefix("cuda:"))]]
        if reason:
            raise RuntimeError(reason)

    def add(self, other):
        self.values = [value + other for value in self.values]
        return self

    def sum(self):
        return self

    def item(self):
        return float(sum(self.values))


def ones(size, device):
    return Tensor(size, device)


def init():
    if "init" in settings:
        raise RuntimeError(settings["init"])


cuda = SimpleNamespace(
    init=init,
    device_count=lambda: len(names),
    get_device_properties=lambda i: SimpleNamespace(uuid=names[i].removeprefix("GPU-")),
)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a machine: what nvidia-smi does, as a shell script, and how CUDA behaves."""
    gpus._find.cache_clear()
    (tmp_path / "torch.py").write_text(FAKE_TORCH, encoding="utf-8")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(script: str, **cuda: object) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("FAKE_CUDA", json.dumps(cuda))
        gpus._find.cache_clear()

    return make


Machine = Callable[..., None]
TWO = "echo GPU-aaa; echo GPU-bbb"


def test_gpus_that_work_are_used_without_a_word(machine: Machine) -> None:
    machine(TWO, gpus={"GPU-aaa": "", "GPU-bbb": ""})
    assert find_gpus() == gpus.Gpus(("GPU-aaa", "GPU-bbb"))
    assert find_gpus().note == "" and require_gpus() is find_gpus()


def test_a_machine_without_nvidia_smi_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "has_driver", lambda: False)
    gpus._find.cache_clear()
    assert find_gpus() == gpus.Gpus()
    with pytest.raises(UserError, match=r"no NVIDIA GPU was found .*use --device cpu"):
        require_gpus()


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [
        ({"built": None}, "this PyTorch is built without CUDA"),
        ({"init": "The NVIDIA driver on your system is too old (found version 11040)."}, "too old"),
        ({"init": "libcuda.so.1: cannot open shared object file"}, "libcuda.so.1"),
        ({"gpus": {}}, "CUDA shows no GPU"),
        ({"crash": True}, "a trial process ended with code 139"),
        (
            {"gpus": {"GPU-aaa": "no kernel image\nCompile with", "GPU-bbb": "no kernel image"}},
            "no kernel image)",
        ),
    ],
)  # fmt: skip
def test_none_that_pytorch_can_use(machine: Machine, cuda: dict[str, object], reason: str) -> None:
    """One sentence, however many GPUs; with --device cuda it is an error."""
    machine(TWO, **cuda)
    found = find_gpus()
    assert found.usable == ()
    assert found.note.startswith("PyTorch cannot use GPU-aaa, GPU-bbb (") and reason in found.note
    assert found.note.endswith("; the CPU is used.") and found.note.count("\n") == 0
    with pytest.raises(UserError) as error:
        require_gpus()
    assert reason in str(error.value) and str(error.value).endswith("; use --device cpu.")


def test_the_reason_of_each_gpu_is_told(machine: Machine) -> None:
    """Also where the first one is lost, which hides the others from CUDA."""
    machine(
        f"{TWO}; echo GPU-ccc",
        gpus={"GPU-aaa": "lost", "GPU-bbb": "", "GPU-ccc": "CUDA error: no kernel image"},
    )
    assert find_gpus().usable == ("GPU-bbb",)
    assert find_gpus().problems == (
        "PyTorch cannot use GPU-aaa (CUDA shows no GPU)",
        "PyTorch cannot use GPU-ccc (CUDA error: no kernel image)",
    )
    assert find_gpus().note.endswith("; used: GPU-bbb.")


@pytest.mark.parametrize(
    "script",
    [
        f"{TWO}; echo '{LOST}'; exit 15",
        f"{TWO}; echo '{LOST}' >&2; exit 15",
        "if [ $1 = -L ]; then "
        "echo 'GPU 0: A (UUID: GPU-aaa)'; echo 'GPU 1: A (UUID: GPU-bbb)'; fi\n"
        f"echo '{LOST}'; exit 15",
        f"echo '{LOST}'; exit 15",
        f"echo '{LOST}'",
    ],
    ids=["partial", "on standard error", "list only", "nothing", "code 0"],
)
def test_nvidia_smi_fails_because_one_gpu_is_lost(machine: Machine, script: str) -> None:
    """The others are used, from whatever source they are known; in the end CUDA is asked."""
    machine(script, gpus={"GPU-aaa": "", "GPU-bbb": ""})
    assert find_gpus().usable == ("GPU-aaa", "GPU-bbb")
    assert find_gpus().note.startswith("nvidia-smi ") and "GPU is lost" in find_gpus().note
    assert find_gpus().note.endswith("; used: GPU-aaa, GPU-bbb.")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'NVIDIA-SMI has failed because it could not communicate' >&2; exit 9",
            "exit code 9",
        ),
        ("echo No devices were found; exit 6", "No devices were found"),
        ("exit 0", "nvidia-smi lists no GPU; the CPU is used."),
        (r"printf '\377\000\033[31m'; exit 1", "exit code 1"),
        ("kill -9 $$", "exit code -9"),
    ],
)  # fmt: skip
def test_nvidia_smi_fails_and_there_is_no_gpu(machine: Machine, script: str, expected: str) -> None:
    machine(script, gpus={})
    assert find_gpus().usable == () and expected in find_gpus().note
    assert find_gpus().note.isprintable() and find_gpus().note.endswith("; the CPU is used.")


def test_a_program_that_cannot_be_started(machine: Machine, tmp_path: Path) -> None:
    machine("", gpus={})
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF no program")
    assert find_gpus().usable == () and "exit code 127" in find_gpus().note


def _ends(pid: int) -> bool:
    """Return True if a process ends within a second; a zombie counts as ended."""
    for _ in range(100):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except FileNotFoundError:
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def test_nvidia_smi_hangs(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It and its children are killed; they would keep the pipe to us open."""
    machine(f"sleep 1000 & echo $! > {tmp_path}/child; wait")
    monkeypatch.setattr(gpus, "LISTING_SECONDS", 0.5)
    started = time.monotonic()
    assert mentions(find_gpus().note, "nvidia-smi", "0.5 seconds", "CPU")
    assert time.monotonic() - started < 10
    assert _ends(int((tmp_path / "child").read_text()))


def test_pytorch_hangs(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(TWO, hang=True)
    monkeypatch.setattr(gpus, "PROBE_SECONDS", 0.5)
    assert find_gpus().usable == ()
    assert mentions(find_gpus().note, "PyTorch", "0.5 seconds")


@pytest.mark.parametrize(
    ("visible", "usable"),
    [
        ("GPU-bbb", ("GPU-bbb",)),
        ("GPU-bbb, GPU-aaa", ("GPU-bbb", "GPU-aaa")),
        ("GPU-aaa,GPU-aaa", ("GPU-aaa",)),
        ("GPU-aaa,-1,GPU-bbb", ("GPU-aaa",)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_the_environment_narrows_the_gpus(
    machine: Machine, visible: str, usable: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(TWO, gpus={"GPU-aaa": "", "GPU-bbb": ""})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpus() == gpus.Gpus(usable)


def test_a_number_in_the_environment_that_no_gpu_has(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(TWO, gpus={"0": "", "1": ""})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,7")
    assert find_gpus().usable == ("1",) and "PyTorch cannot use GPU 7" in find_gpus().note


def test_without_nvidia_smi_pytorch_tells_the_gpus(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(TWO, gpus={"GPU-aaa": "", "GPU-bbb": "no kernel image"})
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(gpus, "has_driver", lambda: True)
    assert find_gpus().usable == ("GPU-aaa",) and "GPU-bbb (no kernel image)" in find_gpus().note
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaa")
    assert find_gpus() == gpus.Gpus(("GPU-aaa",))


def test_a_driver_without_a_gpu_that_pytorch_can_use_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(TWO, built=None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(gpus, "has_driver", lambda: True)
    assert find_gpus().usable == () and "PyTorch finds no GPU" in find_gpus().note


def test_many_gpus_are_counted(machine: Machine) -> None:
    machine("\n".join(f"echo GPU-{i}" for i in range(8)), built=None)
    assert "cannot use GPU-0, GPU-1, GPU-2, GPU-3 and 4 more GPUs (" in find_gpus().note


SWEEP = (
    'title = "t"\ndatasets = ["tiny"]\nalgorithms = ["erm"]\nbackbone = "convnet"\n'
    "trials = 1\n[budget]\nsteps = 2\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["launch", "dry", "train"])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_every_command_says_so_before_anything_starts(
    command: str, device: str, tmp_path: Path
) -> None:
    """With the real PyTorch, which cannot use a GPU of this name on any machine."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho GPU-aaaa\n", encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "t.toml").write_text(SWEEP, encoding="utf-8")
    arguments = {
        "launch": ["sweep", "launch", "t.toml", "--output", "out"],
        "dry": ["sweep", "launch", "t.toml", "--dry-run"],
        "train": [
            "train",
            "--dataset",
            "tiny",
            "--algorithm",
            "erm",
            "--steps",
            "2",
            "--output",
            "out",
        ],
    }[command]
    environment = {
        name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"
    }
    done = subprocess.run(
        [sys.executable, "-m", f"benchmark.{arguments[0]}", *arguments[1:], "--device", device],
        cwd=tmp_path,
        env={
            **environment,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
    )
    lines = done.stdout.splitlines()
    messages = [line for line in lines if "PyTorch cannot use GPU-aaaa" in line]
    assert len(messages) == 1, done.stdout
    if device == "cuda":
        assert done.returncode == 2 and messages[0].startswith("error: ")
        assert not (tmp_path / "out").exists()
        return
    assert done.returncode == 0, done.stdout
    assert messages[0].startswith("note: ") and messages[0].endswith("; the CPU is used.")
    assert not any(line.startswith("start ") for line in lines[: lines.index(messages[0])])
    if command != "dry":
        assert len(list((tmp_path / "out" / "runs").glob("*/record.json"))) == 1
