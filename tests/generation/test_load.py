from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.save import save_checkpoint
from minigpt.config.run_config import RunConfig
from minigpt.data.config import DataConfig, TokenizerConfig
from minigpt.data.tokenizer import bytes_tokenizer
from minigpt.errors import CheckpointError
from minigpt.generation.load import load_model
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize

CPU = torch.device("cpu")
CONFIG = RunConfig(
    model=ModelConfig(num_layers=1, hidden_size=16, num_heads=2, context_length=8),
    data=DataConfig(tokenizer=TokenizerConfig(kind="bytes")),
)


def write_run(run_dir: Path, *steps: int, best_step: int | None = None, vocab_size: int = 320) -> None:
    run_dir.mkdir(exist_ok=True)
    bytes_tokenizer().save(run_dir / "tokenizer.json")
    for step in steps:
        model = GPT(CONFIG.model, vocab_size)
        initialize(model, seed=step)
        state = {
            "model_state_dict": model.state_dict(),
            "config": CONFIG.model_dump(mode="json"),
            "position": {"best_step": best_step},
        }
        save_checkpoint(run_dir, step, state)


def test_newest_checkpoint_of_a_run_is_loaded_ready_to_use(tmp_path: Path) -> None:
    write_run(tmp_path, 5, 10)
    before = torch.random.get_rng_state()
    loaded = load_model(tmp_path, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    expected = GPT(CONFIG.model, 320)
    initialize(expected, seed=10)
    ids = torch.arange(8)[None]
    assert torch.equal(loaded.model(ids), expected.eval()(ids))
    assert not loaded.model.training
    assert (loaded.step, loaded.config, loaded.damaged) == (10, CONFIG, [])
    assert loaded.tokenizer.vocab_size == 257


def test_given_file_and_best_checkpoint_are_loaded_when_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path, 5, 10, best_step=5)
    assert load_model(tmp_path / "checkpoint_step_5.pt", CPU).step == 5
    assert load_model(tmp_path, CPU, best=True).step == 5


def test_older_checkpoint_is_loaded_when_the_newest_is_damaged(tmp_path: Path) -> None:
    write_run(tmp_path, 5, 10)
    newest = tmp_path / "checkpoint_step_10.pt"
    newest.write_bytes(newest.read_bytes()[:500])
    loaded = load_model(tmp_path, CPU)
    assert loaded.step == 5
    assert "checkpoint_step_10.pt" in loaded.damaged[0]


def test_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no checkpoint_step_N\.pt"):
        load_model(tmp_path, CPU)


def test_best_is_refused_when_there_is_none(tmp_path: Path) -> None:
    write_run(tmp_path, 5)
    with pytest.raises(CheckpointError, match="never evaluated"):
        load_model(tmp_path, CPU, best=True)
    with pytest.raises(CheckpointError, match="wants a run folder"):
        load_model(tmp_path / "checkpoint_step_5.pt", CPU, best=True)


def test_missing_tokenizer_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, 5)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        load_model(tmp_path, CPU)


def test_tokenizer_of_another_run_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, 5, vocab_size=64)
    with pytest.raises(CheckpointError, match="has 257 tokens"):
        load_model(tmp_path, CPU)
