import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from numpy.random import default_rng

from minigpt.errors import RecordError
from minigpt.lab.drill.faults.learning_rate import WrongRate
from minigpt.lab.drill.language import Language
from minigpt.lab.drill.record import Job, clean_twin, jobs_of, record
from minigpt.lab.drill.setting import Setting
from minigpt.lab.drill.trace import Trace, fingerprint, fingerprint_of
from minigpt.model.config import ModelConfig

SHORT = Setting(
    model=ModelConfig(num_layers=1, hidden_size=16, num_heads=2, context_length=16), steps=14, batch_size=2
)
FAULT = WrongRate(name="jump", onset=10, factor=50.0, setting=SHORT, labels=("update_ratio_high",))


def losses(trace: Trace) -> list[float]:
    return [signals.loss for signals in trace.signals]


def test_recording_is_the_same_when_the_seed_is() -> None:
    first, again, other = record(Job(FAULT, 3)), record(Job(FAULT, 3)), record(Job(FAULT, 4))
    assert losses(first) == losses(again)
    assert losses(first) != losses(other)
    assert first.test_loss == again.test_loss


def test_fault_changes_nothing_before_its_onset() -> None:
    wrong, clean = losses(record(Job(FAULT, 0))), losses(record(Job(clean_twin(FAULT), 0)))
    assert wrong[:10] == clean[:10], "the update of step 10 is wrong, so the loss of step 11 is the first"
    assert wrong[10] != clean[10]


def test_trace_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    trace = record(Job(FAULT, 0))
    path = tmp_path / "a.trace"
    trace.save(path)
    loaded = Trace.load(path)
    assert loaded.facts == trace.facts
    assert losses(loaded) == losses(trace)
    assert loaded.signals[-1].update_ratios == trace.signals[-1].update_ratios
    assert fingerprint_of(path) == trace.fingerprint == fingerprint(FAULT)
    parameters = loaded.signals[-1].parameters
    assert parameters is not None
    assert parameters.facts.names[0] == "embedding.weight"


def test_trace_of_another_hand_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_bytes(b"0\n" + pickle.dumps(torch.nn.Linear))
    with pytest.raises(RecordError, match="plain values only"):
        Trace.load(path)


def test_fingerprint_changes_with_what_is_trained_but_not_with_what_is_judged() -> None:
    assert fingerprint(replace(FAULT, labels=("other",), slow=True)) == fingerprint(FAULT)
    assert fingerprint(replace(FAULT, factor=51.0)) != fingerprint(FAULT)


def test_faults_of_one_setting_share_their_clean_training() -> None:
    jobs = jobs_of([FAULT, replace(FAULT, name="other")], seeds=2)
    assert len(jobs) == 2 * 3


def test_language_has_structure_and_is_the_same_for_the_same_seed() -> None:
    one, same = Language(1, 64, 0.1), Language(1, 64, 0.1)
    windows = one.windows(default_rng(0), 64, 32)
    assert (windows == same.windows(default_rng(0), 64, 32)).all()
    pairs = len({(int(a), int(b)) for row in windows for a, b in pairwise(row)})
    assert pairs < 0.5 * windows.shape[0] * 32, "the grammar repeats its pairs"
