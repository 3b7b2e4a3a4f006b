"""The long run's watch: what it counts does not grow in a short one, and growth would be seen."""

import json
from collections import Counter
from pathlib import Path

import pytest

from minigpt.lab.soak.live import soak
from minigpt.lab.soak.marks import Mark, growth
from minigpt.lab.soak.simulated import signals_of, write_records

STEPS, EVERY = 300, 50


def test_nothing_grows_over_the_steps_of_a_short_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    marks = soak(tmp_path, STEPS, EVERY, ["checkpoint.every_steps=25", "training.eval_every_steps=25"])
    assert [mark.step for mark in marks] == [50, 100, 150, 200, 250, 300]
    # The last is taken after the loop, and holds what a finished run holds.
    warm, last = marks[2], marks[4]
    assert (last.handles, last.threads) == (warm.handles, warm.threads)
    assert {name: count for name, count in (last.objects - warm.objects).items() if count > 3} == {}


def mark(step: int, *, rss: int = 0, handles: int = 10, threads: int = 2, kept: int = 0) -> Mark:
    return Mark(step, rss << 20, handles, threads, Counter(Event=kept, dict=100))


def test_growth_is_told_by_what_grew() -> None:
    flat = [mark(step) for step in (100, 500, 1000)]
    assert growth(flat) == []
    assert growth([*flat[:2], mark(1000, handles=11)]) == ["file handles: 10 -> 11"]
    assert growth([*flat[:2], mark(1000, threads=3)]) == ["threads: 2 -> 3"]
    assert growth([*flat[:2], mark(1000, kept=50)]) == ["objects of type Event: 0 -> 50"]
    assert growth([*flat[:2], mark(1000, rss=900)]) == ["resident memory: 0 -> 900 MiB"]
    assert growth([mark(10)]) != []


def test_simulated_records_are_a_runs_own(tmp_path: Path) -> None:
    write_records(tmp_path, 40)
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 41))
    assert (tmp_path / "events.jsonl").read_bytes().count(b"loss_spike") > 0
    assert signals_of(7, 60) == signals_of(7, 60)
