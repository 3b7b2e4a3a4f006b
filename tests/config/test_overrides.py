import pytest

from minigpt.config.load import load_config
from minigpt.errors import ConfigError


def test_later_overrides_win() -> None:
    config = load_config("small", ["training.max_steps=3", "training.max_steps=4"]).config
    assert config.training.max_steps == 4


def test_lists_null_and_words_are_read() -> None:
    config = load_config(
        "small",
        [
            "optimizer.betas=[0.9,0.999]",
            "training.max_grad_norm=null",
            "training.compile=off",
            "data.source=[a.txt,'*.md']",
            "data.tokenizer.vocab_size=512",
            "checkpoint.keep_best=no",
        ],
    ).config
    assert config.optimizer.betas == (0.9, 0.999)
    assert config.training.max_grad_norm is None
    assert config.training.compile == "off"
    assert config.data.source == ["a.txt", "*.md"]
    assert config.data.tokenizer.vocab_size == 512
    assert config.checkpoint.keep_best is False


@pytest.mark.parametrize("source", ["foo.txt", "*.txt", "books/", "C:\\books", "hf:a/b"])
def test_a_source_is_taken_as_it_stands(source: str) -> None:
    assert load_config("small", [f"data.source={source}"]).config.data.source == source


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("optimizer.learning_rat=1e-3", "optimizer.learning_rat is not a key; did you mean learning_rate?"),
        ("optimiser.learning_rate=1", "optimiser is not a key; did you mean optimizer?"),
        (
            "training.learning_rate=1",
            "training.learning_rate is not a key; did you mean optimizer.learning_rate?",
        ),
        ("vocab_size=1", "vocab_size is not a key; did you mean data.tokenizer.vocab_size?"),
        ("model=3", "model = 3, but model is a section; set its keys one by one, such as model.num_layers"),
        ("training.max_steps", "not of the form section.key=value, such as training.max_steps=100"),
        ("=3", "not of the form section.key=value, such as training.max_steps=100"),
        ("training.seed=", "no value after =; give one"),
        (
            "training.seed.x=1",
            "training.seed is a single value and has no keys of its own; set training.seed itself",
        ),
        ("training.max_steps=2.5", "training.max_steps = 2.5 is not a whole number >= 1"),
        ("training.max_steps=true", "training.max_steps = true is not a whole number >= 1"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate = 'nan' is not a number > 0"),
        ("optimizer.learning_rate=.inf", "optimizer.learning_rate = inf is not a number > 0"),
        ("optimizer.betas=0.9", "optimizer.betas = 0.9 is not a list of 2, each a number >= 0 and < 1"),
        ("training.micro_batch_size=0", "training.micro_batch_size = 0 is not auto or a whole number >= 1"),
        (
            "training.max_grad_norm=off",
            "training.max_grad_norm = 'off' is not a number > 0 or null; null switches it off",
        ),
        (
            "training.device=gpu",
            "training.device = 'gpu' is not auto | cpu | cuda | cuda:N | mps; auto: cuda > mps > cpu",
        ),
        ("data.tokenizer.kind=file", "data.tokenizer.kind = file needs path: the tokenizer.json to use"),
    ],
)
def test_an_override_that_cannot_be_is_one_line_with_its_place(override: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config("small", [override])
    assert str(refused.value) == f"--set {override}: {problem}"
