import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from minigpt.model.config import ModelConfig
from minigpt.planning.forecast import Forecast, Length, forecast
from minigpt.planning.memory import memory_report
from minigpt.planning.micro_batch import usable_bytes
from minigpt.planning.pace import Pace, measured_pace
from minigpt.planning.report import memory_table, report_lines, verdict
from minigpt.planning.workload import Workload

WORK = Workload(ModelConfig(), 8192, micro_batch_size=16)
TINY = Workload(ModelConfig(num_layers=4, hidden_size=32, num_heads=2, context_length=32), 320, 2)


def a_forecast(tmp_path: Path, pace: Pace | None = None, available_bytes: int | None = 64 << 30) -> Forecast:
    return forecast(
        "mine",
        "CPU, 4 threads",
        WORK,
        Length(max_steps=100, tokens_per_step=8192),
        micro_batch_is_auto=True,
        corpus="books/",
        corpus_tokens=409_600,
        corpus_trouble=None,
        available_bytes=available_bytes,
        tokenizer_vocab_size=8192,
        checkpoints=4,
        run_dir=tmp_path / "not" / "there" / "yet",
        pace=pace,
        devices=(2, 8),
    )


def test_forecast_follows_from_its_numbers(tmp_path: Path) -> None:
    found = a_forecast(tmp_path, Pace(forward_backward_seconds=1e-4, update_seconds=0.1808))
    assert found.length.tokens == 819_200
    assert found.epochs == 2.0
    assert found.seconds == pytest.approx((60.0, 125.0))
    assert found.disk.needed_bytes == 4 * found.memory.checkpoint_file
    assert found.disk.free_bytes
    data = json.loads(json.dumps(found.as_data()))
    assert data["seconds"] == {"least": pytest.approx(60.0), "most": pytest.approx(125.0)}
    assert [share["scheme"] for share in data["shares"]] == ["ddp", "zero-1", "fsdp"] * 2


def test_largest_micro_batch_is_the_last_that_fits(tmp_path: Path) -> None:
    found = a_forecast(tmp_path, available_bytes=8 << 30)
    assert found.most_sequences is not None
    usable = usable_bytes(WORK, 8 << 30)
    peaks = [
        memory_report(replace(WORK, micro_batch_size=found.most_sequences + more)).peak for more in (0, 1)
    ]
    assert peaks[0] <= usable < peaks[1]


def test_report_has_the_machine_the_run_and_the_ways_out(tmp_path: Path) -> None:
    said = "\n".join(report_lines(a_forecast(tmp_path, Pace(1e-4, 0.2))))
    assert "60 s to 2 min" in said or "61 s" in said
    assert "books/: 410 k tokens, read 2 times" in said
    assert "(auto takes 16 at most" in said
    unknown = "\n".join(report_lines(a_forecast(tmp_path, available_bytes=None)))
    assert "does not tell how much memory" in unknown
    assert "not tried out here" in unknown


def test_table_is_aligned_and_adds_up() -> None:
    lines = memory_table(memory_report(WORK))
    shares = [int(line.split()[-1].rstrip("%")) for line in lines if line.endswith("%")]
    assert shares[-1] == 100
    assert sum(shares[:-1]) == pytest.approx(100, abs=4)
    assert len({len(line) for line in lines if line.endswith("%")}) == 1


def test_verdict_says_whether_it_fits() -> None:
    report = memory_report(WORK)
    assert "fits, with 50% of it in use." in verdict(report, 2 * report.peak)
    assert verdict(report, report.peak + 1).endswith("close.")
    assert "does not fit" in verdict(report, report.peak // 2)
    assert "does not tell" in verdict(report, None)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_pace_is_tried_out_and_leaves_the_random_state_alone(optimizer: Literal["adamw", "muon"]) -> None:
    before = torch.random.get_rng_state()
    pace = measured_pace(replace(TINY, optimizer=optimizer, recompute="selective"), torch.device("cpu"), None)
    assert pace is not None
    assert pace.forward_backward_seconds > 0
    assert pace.step_seconds(1000) > pace.step_seconds(10) > pace.update_seconds > 0
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pace_is_not_tried_when_two_blocks_are_too_much() -> None:
    giant = Workload(ModelConfig(hidden_size=16384, num_heads=128, context_length=4096), 65536, 1)
    assert measured_pace(giant, torch.device("cpu"), None) is None
    assert measured_pace(TINY, torch.device("cpu"), 1 << 20) is None
