from pathlib import Path

import pytest
from minigpt.planning.advice import advice_lines, levers, table, verdict

from minigpt.data.config import TokenizerConfig
from minigpt.data.tokenizer import bytes_tokenizer
from minigpt.model.config import ModelConfig
from minigpt.planning.memory import memory_report
from minigpt.planning.preset import planned_vocab_size, preset_workload
from minigpt.planning.workload import Workload

MODEL = ModelConfig()
WORK = Workload(MODEL, 8192, micro_batch_size=16)


def test_levers_come_with_their_saving_largest_first() -> None:
    found = {lever.override: lever.saved_bytes for lever in levers(WORK, tokenizer_vocab_size=8192)}
    assert set(found) == {
        "training.micro_batch_size=8",
        "training.activation_checkpointing=on",
        "training.mixed_precision=bf16",
        "data.tokenizer.vocab_size=4096",
    }
    halved = memory_report(WORK).peak - memory_report(Workload(MODEL, 8192, 8)).peak
    assert found["training.micro_batch_size=8"] == halved
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_levers_that_are_pulled_already_are_not_offered() -> None:
    pulled = Workload(MODEL, 320, 1, precision="bf16", activation_checkpointing=True)
    assert levers(pulled, tokenizer_vocab_size=None) == []
    assert "nothing" in "\n".join(advice_lines(pulled, None, tokenizer_vocab_size=None))


def test_table_is_aligned_and_adds_up() -> None:
    lines = table(memory_report(WORK))
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


def test_workload_of_a_preset_chooses_the_micro_batch_or_takes_the_given() -> None:
    options = {
        "tokens_per_step": 8192,
        "precision": "off",
        "activation_checkpointing": False,
        "optimizer": "adamw",
        "device_type": "cpu",
        "available_bytes": 64 << 30,
    }
    work, text = preset_workload(MODEL, TokenizerConfig(), micro_batch_size=None, **options)  # type: ignore[arg-type]
    assert (work.micro_batch_size, work.vocab_size) == (16, 8192)
    assert "micro_batch_size 16 (auto) x 256 tokens, fp32, adamw" in text
    work, text = preset_workload(MODEL, TokenizerConfig(), micro_batch_size=4, **options)  # type: ignore[arg-type]
    assert work.micro_batch_size == 4
    assert "micro_batch_size 4 (as set)" in text


def test_vocabulary_is_known_without_text(tmp_path: Path) -> None:
    bytes_tokenizer().save(tmp_path / "tokenizer.json")
    given = TokenizerConfig(kind="file", path=str(tmp_path / "tokenizer.json"))
    assert planned_vocab_size(given) == planned_vocab_size(TokenizerConfig(kind="bytes")) == 257
    assert planned_vocab_size(TokenizerConfig(vocab_size=5000)) == 5000
