import tomllib
from pathlib import Path

import pytest
import torch

import minigpt
from minigpt.config.checks import check_batch
from minigpt.config.derived import derived
from minigpt.config.keys import all_keys
from minigpt.config.load import load_config
from minigpt.config.presets import presets
from minigpt.config.yaml_text import KeyPath, Value, read_mapping
from minigpt.errors import MiniGPTError
from minigpt.model.count import num_parameters, padded_vocab_size
from minigpt.model.gpt import GPT


@pytest.mark.parametrize("name", presets())
def test_preset_fits_its_own_numbers(name: str) -> None:
    loaded = load_config(name)
    assert loaded.warnings == ()
    for world_size in (1, 2, 4):
        check_batch(loaded.config, world_size)
    warmup = loaded.config.schedule.warmup_steps / loaded.config.training.max_steps
    assert 0.05 <= warmup <= 0.10, "users' advice: 5-10 % of all steps"


@pytest.mark.parametrize("name", presets())
def test_preset_builds_on_the_meta_device(name: str) -> None:
    config = load_config(name).config
    vocab_size = padded_vocab_size(config.data.tokenizer.vocab_size)
    with torch.device("meta"):
        model = GPT(config.model, vocab_size)
    assert sum(p.numel() for p in model.parameters()) == num_parameters(config.model, vocab_size)


@pytest.mark.parametrize("name", presets())
def test_preset_opens_with_what_it_is_for(name: str) -> None:
    assert len(presets()[name].purpose) > 20
    header = presets()[name].path.read_text(encoding="utf-8").partition("\n\n")[0]
    for topic in ("# Hardware:", "# Text:", "# Expected:"):
        assert topic in header


@pytest.mark.parametrize("name", presets())
def test_preset_holds_only_known_keys(name: str) -> None:
    def leaves(values: dict[str, Value], path: KeyPath = ()) -> list[KeyPath]:
        return [
            leaf
            for key, value in values.items()
            for leaf in (leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)])
        ]

    text = presets()[name].path.read_text(encoding="utf-8")
    assert set(leaves(read_mapping(text, name).values)) <= set(all_keys().leaves)


def test_derived_adds_up_by_hand() -> None:
    config = load_config(
        "small",
        [
            "model.num_layers=1",
            "model.hidden_size=64",
            "model.num_heads=1",
            "model.qk_norm=false",
            "model.intermediate_size=10",
            "data.tokenizer.kind=bytes",
            "training.max_steps=600",
            "schedule.warmup_steps=60",
            "training.tokens_per_step=512",
        ],
    ).config
    # embedding 320 x 64, attention 4 x 64 x 64, SwiGLU 3 x 64 x 10, three norms of 64
    parameters = 20480 + 16384 + 1920 + 192
    assert derived(config) == [
        f"parameters: {parameters:,} with a vocabulary of 320; {307200 / parameters:.1f} tokens a parameter",
        "loss before training: about ln 320 = 5.77",
        "blocks: 1 heads of 64, 1 for keys and values; SwiGLU of 10",
        "length: 600 steps x 512 tokens = 307,200 tokens; warm-up 10.0% of the steps",
    ]


def test_presets_of_an_installed_package_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "minigpt"
    monkeypatch.setattr(minigpt, "__file__", str(package / "__init__.py"))
    with pytest.raises(MiniGPTError, match="the installation is incomplete"):
        presets()
    (package / "presets").mkdir(parents=True)
    (package / "presets" / "tiny.yaml").write_text("# Tiny.\nmodel:\n", encoding="utf-8")
    assert presets()["tiny"].purpose == "Tiny."


def test_the_wheel_carries_the_presets() -> None:
    root = Path(minigpt.__file__).parent.parent
    targets = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]
    assert targets["wheel"]["force-include"] == {"config": "minigpt/presets"}
