from dataclasses import replace

import pytest

from minigpt.model.config import ModelConfig
from minigpt.planning.memory import memory_report
from minigpt.planning.plan import RunPlan, bytes_text, count_text
from minigpt.planning.workload import Workload

MEMORY = memory_report(Workload(ModelConfig(), 8192, 16))
PLAN = RunPlan(
    name="small",
    parameters=12_000_000,
    context_length=256,
    max_steps=1000,
    micro_batch_size=8,
    grad_accum_steps=2,
    world_size=2,
    corpus="python-stdlib",
    corpus_tokens=4_096_000,
    memory=MEMORY,
    available_bytes=8 << 30,
    fitting_micro_batch_size=8,
    device="CPU, 4 threads",
    precision="bf16",
    compile="compiled after step 2",
)


def test_numbers_follow_from_each_other() -> None:
    assert PLAN.tokens_per_step == 8 * 2 * 2 * 256 == 8192
    assert PLAN.total_tokens == 8_192_000
    assert PLAN.epochs == 2.0
    assert PLAN.tokens_per_parameter == pytest.approx(0.683, abs=0.001)


def test_lines_say_what_the_run_will_do() -> None:
    text = "\n".join(PLAN.lines())
    for part in (
        "12.0 M parameters",
        "1,000 steps x 8,192 tokens = 8.19 M tokens",
        "0.683 tokens a parameter (Chinchilla's optimum: 20)",
        "python-stdlib: 4.10 M tokens, read 2 times",
        "8 sequences x 2 accumulated x 2 ranks x 256 tokens",
        "of 8.00 GiB available",
        "CPU, 4 threads, bf16, compiled after step 2",
    ):
        assert part in text
    assert "ranks" not in "\n".join(replace(PLAN, world_size=1).lines())


def test_plan_warns_of_nothing_when_all_is_well() -> None:
    assert PLAN.warnings() == []
    assert replace(PLAN, max_steps=2000).warnings() == []


def test_plan_warns_when_it_reads_a_small_corpus_many_times() -> None:
    (warning,) = replace(PLAN, max_steps=18_500).warnings()
    assert "reads the corpus 37 times: expect memorising, more text or fewer steps" in warning
    assert "--set training.max_steps=2000" in warning


def test_plan_warns_when_memory_is_short_and_names_what_fits() -> None:
    short = replace(PLAN, available_bytes=1 << 20, fitting_micro_batch_size=2)
    (warning,) = short.warnings()
    assert "only 1.00 MiB is available; --set training.micro_batch_size=2 fits" in warning
    (warning,) = replace(short, fitting_micro_batch_size=None).warnings()
    assert "--set training.activation_checkpointing=full" in warning


def test_plan_without_known_memory_says_nothing_of_it() -> None:
    unknown = replace(PLAN, available_bytes=None)
    assert "available" not in "\n".join(unknown.lines())
    assert unknown.warnings() == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999"),
        (1000, "1.00 k"),
        (13_600_000, "13.6 M"),
        (999_900_000, "1.00 B"),
        (1_310_720_000, "1.31 B"),
    ],
)
def test_counts_have_three_digits(count: int, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(1 << 19, "0.50 MiB"), (512 << 20, "512 MiB"), (1000 << 20, "0.98 GiB"), (24 << 30, "24.0 GiB")],
)
def test_sizes_have_three_digits(size_bytes: int, text: str) -> None:
    assert bytes_text(size_bytes) == text
