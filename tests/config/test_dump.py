from pathlib import Path

import pytest

from minigpt.config.dump import differences, to_yaml
from minigpt.config.load import load_config
from minigpt.config.presets import presets


@pytest.mark.parametrize("name", presets())
def test_yaml_reads_back_to_an_equal_config(name: str, tmp_path: Path) -> None:
    config = load_config(
        name, ["data.source='1e-3'", "data.text_field='off'", "data.cache_dir='~'", "optimizer.eps=1e-12"]
    ).config
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(str(tmp_path / "config.yaml")).config == config


def test_yaml_keeps_any_text_a_source_may_have(tmp_path: Path) -> None:
    sources = ["*.txt", "a: b", "# c", "100", "true", "词.txt", "it's", "-", "a b " * 100, "1_0"]
    config = load_config("small").config
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": sources})})
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(str(tmp_path / "config.yaml")).config == config


def test_yaml_holds_every_section() -> None:
    text = to_yaml(load_config("small").config)
    assert "  betas: [0.9, 0.99]\n" in text
    assert "\nmonitor:\n" in text


def test_differences_name_the_key_and_both_values() -> None:
    before = load_config("small").config
    after = load_config(
        "small", ["training.max_steps=7", "optimizer.betas=[0.9,0.5]", "data.tokenizer.kind=bytes"]
    ).config
    assert differences(before, before) == []
    assert differences(before, after) == [
        "data.tokenizer.kind: 'bpe' -> 'bytes'",
        "optimizer.betas: [0.9, 0.99] -> [0.9, 0.5]",
        f"training.max_steps: {before.training.max_steps} -> 7",
    ]
