"""Options and markers of the tests, and the folder of real data.

Workers do not disturb each other: each has its share of the cores for PyTorch's threads, and idle
OpenMP threads sleep.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    _workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _workers)))

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_report_header(config: pytest.Config) -> str:
    return "slow tests: " + (
        "included" if config.getoption("--slow") else "left out without --slow"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests, which need no report each, and skip those that cannot run here."""
    if not config.getoption("--slow"):
        slow = [item for item in items if _is_slow(item)]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not _is_slow(item)]
    for item in items:
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
        if item.get_closest_marker("data") and data_dir() is None:
            item.add_marker(
                pytest.mark.skip(
                    reason="no real data: set SHORTCUTBED_DATA to a folder that holds it"
                )
            )


def _is_slow(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("slow", "very_slow"))


def data_dir() -> Path | None:
    """Return the folder SHORTCUTBED_DATA, else shared/data beside the checkout, if it exists."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("SHORTCUTBED_DATA") or beside)
    return path if path.is_dir() else None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture
def real_data() -> Path:
    found = data_dir()
    assert found is not None
    return found
