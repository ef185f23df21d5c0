"""Output of ``list`` when a sweep file is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.cli import listing
from benchmark.cli.options import LISTED
from benchmark.core.criteria import CRITERIA


def test_a_broken_sweep_is_a_row_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.toml").write_text(
        'title = "Good"\ndatasets = ["tiny"]\nalgorithms = ["erm"]\n'
    )
    (tmp_path / "torn.toml").write_text('title = "To')
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "bare.toml").write_text("datasets = 3\n")
    monkeypatch.setattr(listing, "SWEEPS", tmp_path)
    for long in (False, True):
        text = listing.sweeps(long=long)
        assert text.count("not readable: ") == 2 and "Good" in text
        assert all(name in text for name in ("torn", "bytes", "bare"))
    assert "erm" in listing.sweeps(long=True)


def test_every_criterion_is_listed_with_what_it_needs() -> None:
    lines = {line.split()[0]: line for line in listing.criteria(long=False).splitlines()[2:]}
    assert set(lines) == set(CRITERIA)
    assert "group labels in validation" in lines["val_mean"]
    assert "declares an objective" in lines["val_objective"]
    assert lines["val_worst_class"].rstrip().endswith("worst-class accuracy")  # needs nothing


def test_what_is_false_stays_false() -> None:
    """Also in a column that is wrapped, where tabulate would call it True."""
    lines = listing.LISTS["algorithms"](long=True).splitlines()
    row = next(line for line in lines if line.split()[:1] == ["freeze_last"])
    assert "False" in row and "True" not in row


def test_the_command_line_offers_every_list() -> None:
    assert tuple(listing.LISTS) == LISTED
