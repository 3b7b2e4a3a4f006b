from pathlib import Path

from minigpt.data.config import TokenizerConfig
from minigpt.data.tokenizer import bytes_tokenizer
from minigpt.model.config import ModelConfig
from minigpt.planning.preset import planned_vocab_size, preset_workload

OPTIONS = {
    "tokens_per_step": 8192,
    "precision": "off",
    "recompute": "off",
    "optimizer": "adamw",
    "device_type": "cpu",
    "compiled": False,
    "available_bytes": 64 << 30,
}


def test_workload_of_a_preset_chooses_the_micro_batch_or_takes_the_given() -> None:
    found = [
        preset_workload(ModelConfig(), TokenizerConfig(), micro_batch_size=size, **OPTIONS)  # type: ignore[arg-type]
        for size in (None, 4, 32)
    ]
    assert [(work.micro_batch_size, work.vocab_size) for work in found] == [(16, 8192), (4, 8192), (32, 8192)]
    assert [work.accumulates for work in found] == [True, True, False]


def test_vocabulary_is_known_without_text(tmp_path: Path) -> None:
    bytes_tokenizer().save(tmp_path / "tokenizer.json")
    given = TokenizerConfig(kind="file", path=str(tmp_path / "tokenizer.json"))
    assert planned_vocab_size(given) == planned_vocab_size(TokenizerConfig(kind="bytes")) == 257
    assert planned_vocab_size(TokenizerConfig(vocab_size=5000)) == 5000
