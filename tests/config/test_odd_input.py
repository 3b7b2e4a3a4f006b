"""What fuzzing found in configurations: each once a traceback, a hang, a silent default or an unclear line."""

import os
from pathlib import Path

import pytest

from minigpt.config import load
from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.data.config import DataConfig, TokenizerConfig
from minigpt.data.document import Document
from minigpt.data.prepare import prepare
from minigpt.data.sources.paths import find_files
from minigpt.data.split import plan_split
from minigpt.errors import ConfigError, DataError, MiniGPTError, on_one_line, user_path
from minigpt.model.config import ModelConfig
from minigpt.planning.limits import check_conceivable
from minigpt.planning.workload import Workload


def _refusal(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(name, overrides)
    return str(refused.value)


def _written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_character_that_json_writes_as_two_is_one(tmp_path: Path) -> None:
    path = _written(tmp_path, 'data: {source: "\\ud83d\\ude00"}\n')
    assert load_config(path).config.data.source == "\U0001f600"


@pytest.mark.parametrize(("escape", "what"), [("\\ud800", "half a character"), ("\\0", "a NUL character")])
@pytest.mark.parametrize("text", ['data:\n  source: "{}"\n', 'data:\n  "{}": 1\n'])
def test_text_that_no_file_can_hold_is_refused_with_its_line(
    tmp_path: Path, escape: str, what: str, text: str
) -> None:
    path = _written(tmp_path, text.replace("{}", escape))
    assert _refusal(path).startswith(f"{path}:2: {what}")


def test_control_characters_of_a_key_do_not_reach_the_terminal(tmp_path: Path) -> None:
    text = _refusal(_written(tmp_path, '"\\e[31m\\n": 1\n'))
    assert "\\x1b[31m\\n is not a key" in text
    assert text == on_one_line(text)


def test_a_path_with_a_wide_blank_can_be_set() -> None:
    assert load_config("small", ["data.source=a\u3000b"]).config.data.source == "a\u3000b"


def test_an_override_of_any_length_is_told_in_a_line() -> None:
    assert len(_refusal("small", "training.max_steps=" + "x" * 10_000)) < 500
    assert len(_refusal("small", "x" * 10_000 + "=1")) < 500


@pytest.mark.parametrize("key", ["monitor.look_every_steps", "monitor.loss_spike.z_score", "training.seed"])
def test_a_switch_is_no_number(key: str) -> None:
    text = _refusal("small", f"{key}=true")
    assert f"{key} = true is not a " in text
    assert "\n" not in text


@pytest.mark.parametrize("number", ["1e30", str(2**64), f"'{2**64}'", f"-{2**64}"])
@pytest.mark.parametrize("key", ["data.seed", "training.seed", "monitor.rerun_most_mib"])
def test_a_whole_number_beyond_64_bits_is_refused(key: str, number: str) -> None:
    text = _refusal("small", f"{key}={number}")
    assert "is beyond 64 bits; use a smaller number" in text
    assert "\n" not in text


def test_the_largest_seed_is_taken() -> None:
    assert load_config("small", [f"training.seed={2**64 - 1}"]).config.training.seed == 2**64 - 1


@pytest.mark.parametrize("key", ["learning_rate", "embedding_learning_rate_ratio", "weight_decay"])
def test_a_rate_that_torch_cannot_take_is_refused(key: str) -> None:
    assert f"optimizer.{key} = 1e+16 is beyond all use; set 1e+15 or less" in _refusal(
        "small", f"optimizer.{key}=1e16"
    )


@pytest.mark.parametrize("key", ["data.cache_dir", "data.tokenizer.path"])
def test_an_empty_text_is_no_silent_default(key: str) -> None:
    assert f"{key} = '' is not text that is not empty or null" in _refusal("small", f"{key}=''")


def test_a_pipe_that_nobody_fills_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PATIENCE_SECONDS", 0.01)
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe that nobody writes to the end; give a YAML file" in _refusal(str(tmp_path / "pipe"))


def test_a_pipe_that_the_shell_fills_is_read() -> None:
    read, write = os.pipe()
    os.write(write, b"training: {max_steps: 7}\n")
    os.close(write)
    assert load_config(f"/dev/fd/{read}").config.training.max_steps == 7
    os.close(read)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    assert "File name too long; give a preset" in _refusal("x" * 5000)
    assert "home" in _refusal("~nobody_of_this_name/x.yaml")


def test_a_home_folder_that_is_not_there_is_told_with_the_key() -> None:
    config = RunConfig.model_validate({"data": {"cache_dir": "~nobody_of_this_name/x"}})
    with pytest.raises(MiniGPTError, match=r"^data\.cache_dir = ~nobody_of_this_name/x: .*; write the whole"):
        config.data.cache_folder()
    assert user_path("a/b", "x") == Path("a/b")


@pytest.mark.parametrize(
    ("model", "micro_batch_size", "tokens", "key"),
    [
        (ModelConfig(num_layers=10**18), 1, 256, "model.num_layers"),
        (ModelConfig(intermediate_size=10**15), 1, 256, "model.intermediate_size"),
        (ModelConfig(context_length=10**9), 1, 256, "model.context_length"),
        (ModelConfig(), 1, 10**18, "training.tokens_per_step"),
        (ModelConfig(), 10**9, 256, "training.micro_batch_size"),
    ],
)
def test_what_no_machine_holds_is_refused_before_it_is_built(
    model: ModelConfig, micro_batch_size: int, tokens: int, key: str
) -> None:
    work = Workload(model, 8192, micro_batch_size)
    with pytest.raises(ConfigError, match=rf"{key} = \d+.* needs .*GiB.* are free here; use") as refused:
        check_conceivable(work, tokens_per_rank_step=tokens, available_bytes=8 << 30)
    assert "\n" not in str(refused.value)
    check_conceivable(work, tokens_per_rank_step=tokens, available_bytes=None)


def test_what_is_merely_tight_is_tried() -> None:
    work = Workload(ModelConfig(), 8192, 16)
    check_conceivable(work, tokens_per_rank_step=8192, available_bytes=1 << 30)


def test_a_validation_fraction_next_to_nothing_is_no_overflow() -> None:
    documents = [Document(f"text {number}\n", str(number)) for number in range(3)]
    assert not plan_split(documents, 5e-324, 0, lambda read: None).is_empty


@pytest.mark.parametrize("source", ["x" * 5000, "~nobody_of_this_name", "none*", "/dev/zero"])
def test_a_source_that_cannot_be_is_told_with_a_way_out(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.source = .*; (give|write|try|save) ") as refused:
        find_files([source], tmp_path)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_that_is_not_there_is_told_with_its_key(tmp_path: Path) -> None:
    tokenizer = TokenizerConfig(kind="file", path=str(tmp_path / "gone.json"))
    with pytest.raises(DataError, match=r"^data\.tokenizer\.path: .*; give another, or"):
        prepare(DataConfig(source=str(tmp_path), tokenizer=tokenizer), progress=False)
