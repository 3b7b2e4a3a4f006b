import os
from pathlib import Path

import pytest

from minigpt.config.load import LoadedConfig, load_config
from minigpt.config.run_config import RunConfig
from minigpt.errors import ConfigError


def _written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _refusal(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(name, overrides)
    return str(refused.value)


def test_small_and_medium_are_what_users_quote() -> None:
    small, medium = load_config("small"), load_config("medium")
    assert (small.name, medium.name) == ("small", "medium")
    config = medium.config
    assert (config.model.num_layers, config.model.hidden_size) == (16, 512)
    assert (config.optimizer.learning_rate, config.optimizer.betas) == (3e-4, (0.9, 0.95))
    assert (config.schedule.warmup_steps, config.training.max_grad_norm) == (4000, 1.0)
    assert config.optimizer.name == "adamw"


def test_a_file_gives_its_values_and_defaults_for_the_rest(tmp_path: Path) -> None:
    loaded = load_config(_written(tmp_path, "model:\ntraining:\n  max_steps: 1e3\n  compile: off\n"))
    assert loaded == LoadedConfig(loaded.config, "mine", tmp_path / "mine.yaml", ())
    assert (loaded.config.training.max_steps, loaded.config.training.compile) == (1000, "off")
    assert loaded.config.model == RunConfig().model


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(_written(tmp_path, "")).config == RunConfig()


@pytest.mark.parametrize("section", RunConfig.model_fields)
def test_an_empty_section_gives_the_defaults(section: str) -> None:
    assert RunConfig.model_validate({section: {}}) == RunConfig()


@pytest.mark.parametrize("word", ["off", "'off'", "false", "no"])
def test_off_is_understood_where_a_boolean_is_wanted(tmp_path: Path, word: str) -> None:
    assert load_config(_written(tmp_path, f"monitor: {{enabled: {word}}}")).config.monitor.enabled is False


@pytest.mark.parametrize(("word", "value"), [("on", "on"), ("off", "off"), ("true", "on"), ("false", "off")])
def test_on_and_off_are_understood_where_the_word_is_wanted(tmp_path: Path, word: str, value: str) -> None:
    config = load_config(_written(tmp_path, f"training: {{compile: {word}}}")).config
    assert config.training.compile == value


@pytest.mark.parametrize("number", ["3e-4", "'3e-4'", "0.0003", "3.0e-4"])
def test_a_learning_rate_is_a_number_however_it_is_spelt(tmp_path: Path, number: str) -> None:
    config = load_config(_written(tmp_path, f"optimizer: {{learning_rate: {number}}}")).config
    assert config.optimizer.learning_rate == 3e-4


def test_every_problem_of_a_file_is_a_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _written(
        tmp_path,
        "training:\n  max_step: 3\n  compile: onn\noptimizer:\n  learning_rate: fast\n"
        "model: 3\nmax_steps: 4\nschedule:\n  warmup_steps: -1\n",
    )
    assert _refusal("mine.yaml").splitlines() == [
        "mine.yaml:2: training.max_step is not a key; did you mean max_steps?",
        "mine.yaml:3: training.compile = 'onn' is not one of auto, on, off; did you mean on?",
        "mine.yaml:5: optimizer.learning_rate = 'fast' is not a number > 0",
        "mine.yaml:6: model = 3, but model is a section; set its keys one by one, such as model.num_layers",
        "mine.yaml:7: max_steps is not a key; did you mean training.max_steps?",
        "mine.yaml:9: schedule.warmup_steps = -1 is not a whole number >= 0",
    ]


def test_at_most_eight_lines_are_printed_when_everything_is_wrong(tmp_path: Path) -> None:
    lines = _refusal(_written(tmp_path, "".join(f"key{number}: 1\n" for number in range(30)))).splitlines()
    assert len(lines) == 8
    assert lines[-1] == "... and 23 more like these"


def test_a_combination_is_reported_where_the_user_wrote_it(tmp_path: Path) -> None:
    path = _written(tmp_path, "model:\n  hidden_size: 384\n  num_heads: 5\n")
    assert f"{path}:3: model.hidden_size = 384 is not an even multiple of num_heads = 5; use 380 or 390" == (
        _refusal(path)
    )
    text = _refusal("small", "training.tokens_per_step=5000")
    assert text == (
        "--set training.tokens_per_step=5000: training.tokens_per_step = 5000 is not a multiple of "
        "model.context_length = 256; use 4864 or 5120"
    )


def test_more_value_embeddings_than_every_second_layer_are_refused() -> None:
    assert _refusal("small", "model.value_embedding_layers=4") == (
        "--set model.value_embedding_layers=4: model.value_embedding_layers = 4 is more than every second one of "
        "num_layers = 6; use 3 or less"
    )


def test_a_monitor_threshold_out_of_range_is_reported_with_its_full_name() -> None:
    text = _refusal("small", "monitor.gradient_vanishing.floor=-1")
    assert text.startswith("--set monitor.gradient_vanishing.floor=-1: monitor.gradient_vanishing.floor = -1")


def test_one_key_of_a_rule_leaves_those_beside_it_alone() -> None:
    changed = load_config("small", ["monitor.loss_spike.z_score=5"]).config.monitor.loss_spike
    assert changed.min_ratio == RunConfig().monitor.loss_spike.min_ratio


def test_fsdp_is_refused_with_the_way_out() -> None:
    assert "fsdp is not built yet; use ddp" in _refusal("small", "distributed.strategy=fsdp")


def test_muon_is_allowed() -> None:
    assert load_config("small", ["optimizer.name=muon"]).config.optimizer.name == "muon"


def test_a_warm_up_longer_than_the_run_is_a_warning_so_that_a_try_out_works() -> None:
    loaded = load_config("medium", ["training.max_steps=12"])
    assert loaded.config.training.max_steps == 12
    assert len(loaded.warnings) == 1
    assert "schedule.warmup_steps = 4000" in loaded.warnings[0]
    assert "training.max_steps = 12" in loaded.warnings[0]


def test_not_finding_a_configuration_says_what_there_is(tmp_path: Path) -> None:
    assert _refusal("smal").startswith("unknown preset 'smal'; did you mean small? presets: medium, small;")
    assert _refusal("qqqq").startswith("unknown preset 'qqqq'; presets: medium, small;")
    assert "there is no such file" in _refusal(f"{tmp_path}/none.yaml")
    assert "is a folder; give a YAML file" in _refusal(str(tmp_path))
    (tmp_path / "config.yaml").touch()
    assert f"is a folder; give the file {tmp_path / 'config.yaml'}" in _refusal(str(tmp_path))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert _refusal(str(path)).endswith("checkpoint.pt:2: not UTF-8 text; save the file as UTF-8")
    path.write_bytes(b"#" * (1 << 20) + b"#")
    assert "larger than 1048576 bytes" in _refusal(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = Path(_written(tmp_path, ""))
    path.chmod(0)
    assert "cannot be read: Permission denied" in _refusal(str(path))


def test_keys_are_read_under_their_old_names_when_an_older_run_wrote_them(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(
        "monitor: {non_finite: {overflow_window: 40, persist_steps: 2}, fp16: {enabled: false}}\n"
    )
    monitor = load_config(str(path), ["monitor.non_finite.overflows_in_a_row=7"]).config.monitor
    assert (monitor.fp16.overflow_window, monitor.fp16.overflows_in_a_row) == (40, 7)
    assert (monitor.fp16.enabled, monitor.non_finite.persist_steps) == (False, 2)
    path.write_text("monitor: {non_finite: {overflow_window: x}}\n")
    with pytest.raises(ConfigError, match=r"old.yaml:1: monitor.fp16.overflow_window = 'x'"):
        load_config(str(path))
