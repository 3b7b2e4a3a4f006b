from pathlib import Path

import pytest

from minigpt.checkpoint.save import save_checkpoint
from minigpt.config.dump import to_yaml
from minigpt.config.run_config import RunConfig
from minigpt.data.config import DataConfig, TokenizerConfig
from minigpt.data.tokenizer import bytes_tokenizer
from minigpt.model.config import ModelConfig
from minigpt.model.gpt import GPT
from minigpt.model.init import initialize


@pytest.fixture
def saved_run(tmp_path: Path) -> Path:
    """A run that has just begun: two checkpoints of an untrained model over bytes, and its text."""
    text = tmp_path / "text"
    text.mkdir()
    for number in range(20):
        (text / f"{number}.txt").write_text(f"text number {number}\n" * 20, encoding="utf-8")
    config = RunConfig(
        model=ModelConfig(num_layers=1, hidden_size=16, num_heads=2, context_length=16),
        data=DataConfig(
            source=str(text),
            validation_fraction=0.3,
            tokenizer=TokenizerConfig(kind="bytes"),
            cache_dir=str(tmp_path / "cache"),
            num_workers=1,
        ),
    )
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    bytes_tokenizer().save(run_dir / "tokenizer.json")
    (run_dir / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    for step in (1, 2):
        model = GPT(config.model, 320)
        initialize(model, seed=step)
        save_checkpoint(
            run_dir,
            step,
            {
                "model_state_dict": model.state_dict(),
                "config": config.model_dump(mode="json"),
                "position": {"best_step": 1},
            },
        )
    return run_dir
