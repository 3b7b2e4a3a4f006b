"""Any command line at all ends with a documented exit code, and a mistake in it is told in a line."""

import shutil
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.bench import bench
from tests.fuzz.lines import all_lines, any_line, commands
from tests.fuzz.trial import judged_line, stopping_after, stopping_experiments
from tests.training.tiny_run import Workshop

EVERY = 61
"""Of the lines with one odd word each: a prime, so that all commands and words have their turn."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with bench(tmp_path_factory.mktemp("bench")) as made:
        yield made


def _judge(line: list[str], workshop: Workshop) -> None:
    shutil.rmtree(workshop.folder / "new", ignore_errors=True)
    with stopping_after(2), stopping_experiments():
        assert judged_line(line) is None, line


def test_every_command_is_among_them() -> None:
    assert {"train", "prepare", "generate", "diagnose"} <= {command.words[0] for command in commands()}


@pytest.mark.parametrize("words", sorted(command.words for command in commands()), ids=" ".join)
def test_an_odd_word_is_taken_or_refused_in_words(words: tuple[str, ...], workshop: Workshop) -> None:
    lines = [line for line in all_lines() if tuple(line[: len(words)]) == words]
    for line in islice(lines, None, None, EVERY):
        _judge(line, workshop)


def test_any_line_is_taken_or_refused_in_words(workshop: Workshop) -> None:
    @settings(
        max_examples=30,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(any_line())
    def try_one(line: list[str]) -> None:
        _judge(line, workshop)

    try_one()
