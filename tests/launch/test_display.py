"""Display of a launch and of a sweep, on a terminal and in a file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from benchmark.core.files import write_json
from benchmark.core.sweep_plan import PlannedEntry, Refusal, SweepPlan
from benchmark.launch.display import make_display, show_status
from benchmark.launch.events import Event, EventKind, Summary, duration
from benchmark.launch.progress_counter import ProgressCounter
from benchmark.plan.sweep_folder import StoredSweep
from tests.support.launcher_process import make, spec, until
from tests.support.messages import each_mentions, mentions


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def story(keys: list[str]) -> list[Event]:
    nasty = "ValueError: \x1b[31mred\nand [bold]markup[/bold]"
    return [
        Event(EventKind.ALREADY, keys[0], "erm on a"),
        Event(EventKind.START, keys[1], "irm on a", 0, 1),
        Event(EventKind.START, keys[2], "mmd on a", 1, 1),
        Event(EventKind.RETRY, keys[2], "mmd on a", 1, 1, 3.0, "its process was killed by SIGKILL"),
        Event(EventKind.DONE, keys[1], "irm on a", 0, 1, 12.34),
        Event(EventKind.START, keys[2], "mmd on a", 0, 2),
        Event(EventKind.FAILED, keys[2], "mmd on a", 0, 2, 200.0, nasty),
        Event(EventKind.BLOCKED, keys[3], "pgi on a", reason="needs mmd on a, which failed"),
    ]


def test_plain_lines_have_no_control_characters(tmp_path: Path) -> None:
    stream = io.StringIO()
    keys = list("abcd")
    with make_display(tmp_path, dict.fromkeys(keys, ""), stream) as on_event:
        for event in story(keys):
            on_event(event)
        on_event(Event(EventKind.STOPPING, "", ""))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("1 of 4 runs")
    assert [line.split()[0] for line in lines[1:-1]] == [
        event.kind for event in story(keys) if event.kind is not EventKind.ALREADY
    ]
    assert [line[line.index("[") :][:5] for line in lines[1:-1]] == ["[1/4]"] * 3 + ["[2/4]"] * 4
    assert mentions(lines[3], "c mmd on a, 3.0 s", "SIGKILL")
    assert "attempt 2" in lines[5]
    assert lines[6].endswith("3 min 20 s: ValueError: [31mred and [bold]markup[/bold]")
    assert "Ctrl-C" in lines[-1]
    assert all(line.isprintable() for line in lines)


def test_the_live_table_shows_progress_and_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    keys = make(tmp_path, *(spec(trial) for trial in range(4)))
    home = tmp_path / "runs" / keys[1] / "attempts" / "1"
    home.mkdir(parents=True)
    line = {"step": 25, "steps": 100, "seconds": 10.0, "images_per_second": 640.0}
    (home / "log.jsonl").write_text(json.dumps(line) + "\n")
    stream = Terminal()
    with make_display(tmp_path, dict.fromkeys(keys, ""), stream) as on_event:
        events = story(keys)
        for event in events[:2]:
            on_event(event)
        until(lambda: "1 of 4 done, 1 running, 2 pending" in stream.getvalue())
        for event in events[2:]:
            on_event(event)
    shown = stream.getvalue()
    assert "25/100" in shown and "640 images/s" in shown and "30 s left" in shown
    assert "markup[/bold]" in shown, "what a run says is not taken for markup"
    last = shown.splitlines()[-1] + shown.splitlines()[-2]
    assert "2 of 4 done, 0 running, 0 pending, 1 failed, 1 blocked" in last


def stored(folder: Path) -> StoredSweep:
    runs = [spec(trial) for trial in range(4)]
    runs.append(spec(9, upstream={"teacher": runs[1].key}))
    keys = make(folder, *runs)
    write_json(folder / "runs" / keys[0] / "record.json", {})
    write_json(
        folder / "runs" / keys[1] / "failure.json",
        {"message": "loss became NaN at step 3", "attempt": 1},
    )
    home = folder / "runs" / keys[2]
    (home / "attempts" / "1").mkdir(parents=True)
    (home / "lease.json").write_text("")
    lines = [
        {"step": s, "steps": 40, "seconds": s / 2, "images_per_second": 99.6} for s in (10, 20)
    ]
    (home / "attempts" / "1" / "log.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    about = {
        one.key: PlannedEntry("a", "erm", trial=one.trial, draw=int(one.trial == 9)) for one in runs
    }
    refused = (Refusal("a", "isnet", reason="no masks"),)
    return StoredSweep(folder, SweepPlan("s", "A sweep", 0.0, (), about, refused))


def test_status_once(tmp_path: Path) -> None:
    sweep, stream = stored(tmp_path), io.StringIO()
    done, failed, running, pending, blocked = sweep.runs
    assert show_status(sweep, watch=True, stream=stream) == 1
    counts = [f"1 {state}" for state in ("pending", "running", "done", "failed", "blocked")]
    assert each_mentions(
        stream.getvalue().splitlines(),
        ["A sweep", str(tmp_path), "5", *counts, "1 refused"],
        ["running", running, "erm", "a", "2", "20", "40", "100 images/s", "10 s"],
        ["failed", failed, "erm", "a", "1", "loss became NaN at step 3"],
        ["blocked", blocked, "erm", "a", "9", "1"],
    )
    assert done not in stream.getvalue() and pending not in stream.getvalue()


def test_a_terminal_without_a_cursor_gets_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with make_display(tmp_path, {"a": ""}, stream) as on_event:
        on_event(Event(EventKind.DONE, "a", "irm on a", 0, 1, 12.34))
    assert stream.getvalue() == "done        [1/1] a irm on a, 12 s\n"
    stream = Terminal()
    sweep = stored(tmp_path)
    assert show_status(sweep, watch=True, stream=stream) == 1
    assert "step 20 of 40" in stream.getvalue(), "it does not wait for the run that is under way"


def test_status_watches_until_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    sweep, stream = stored(tmp_path), Terminal()
    running = tmp_path / "runs" / list(sweep.runs)[2]
    looks = 0

    def end_after_two_looks(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            (running / "lease.json").unlink()
            write_json(running / "record.json", {})

    monkeypatch.setattr("benchmark.launch.display.time.sleep", end_after_two_looks)
    assert show_status(sweep, stream=stream) == 1
    assert looks == 2
    assert "20/40" in stream.getvalue() and "100 images/s" in stream.getvalue()
    assert "2 done" in stream.getvalue()


def test_the_rest_is_guessed_from_what_is_known() -> None:
    counter = ProgressCounter(10)
    assert counter.seconds_left({}) is None
    counter.add(Event(EventKind.START, "a", "a", 0, 1))
    counter.add(Event(EventKind.START, "b", "b", 1, 1))
    assert counter.seconds_left({"a": None, "b": None}) is None
    guess = counter.seconds_left(
        {"a": 10.0, "b": None}
    )  # a run takes 10 s, so 10 of them take 50 s on two slots
    assert guess == pytest.approx(50.0, abs=0.5)
    counter.add(Event(EventKind.DONE, "a", "a", 0, 1, 20.0))
    assert counter.seconds_left({"b": 5.0}) == pytest.approx((8 * 20 + 5) / 2)
    assert (counter.finished, counter.pending) == (1, 8)


def test_durations_and_the_summary() -> None:
    assert [duration(s) for s in (0.04, 9.94, 9.96, 59.4, 59.6, 3599.4, 3600, 7501)] == [
        "0.0 s", "9.9 s", "10 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "2 h 5 min",
    ]  # fmt: skip
    assert str(Summary(("a",), seconds=3.0)) == "1 run done in 3.0 s"
    summary = Summary(("a",), ("b",), {"c": "why"}, {"d": "c", "e": "c"}, 75.0)
    text = str(summary)
    assert all(part in text for part in ("1 min 15 s", "1 done before", "1 failed", "2 blocked"))
    assert "`retry`" in text and "`retry`" not in str(Summary(("a",)))
    assert not summary.complete and Summary().complete
