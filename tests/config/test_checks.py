import re

import pytest

from minigpt.config.checks import check_batch
from minigpt.config.run_config import RunConfig
from minigpt.errors import ConfigError


def _config(tokens_per_step: int, micro_batch_size: int | str, context_length: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"context_length": context_length},
            "training": {"tokens_per_step": tokens_per_step, "micro_batch_size": micro_batch_size},
        }
    )


def test_batch_is_accepted_when_it_divides() -> None:
    check_batch(_config(16384, 8, 512), world_size=2)
    check_batch(_config(1024, "auto", 512), world_size=2)


@pytest.mark.parametrize(
    ("tokens_per_step", "micro_batch_size", "message"),
    [
        (
            500224,
            8,
            "training.tokens_per_step = 500224 is not a multiple of micro_batch_size x context_length x "
            "world_size = 8 x 512 x 2 = 8192; use 499712 or 507904",
        ),
        (
            512,
            "auto",
            "training.tokens_per_step = 512 is not a multiple of context_length x world_size = "
            "512 x 2 = 1024; use 1024",
        ),
    ],
)
def test_batch_is_refused_with_the_numbers_and_values_that_work(
    tokens_per_step: int, micro_batch_size: int | str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        check_batch(_config(tokens_per_step, micro_batch_size, 512), world_size=2)
