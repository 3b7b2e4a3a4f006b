from pathlib import Path

import pytest

from minigpt.lab.bench.contenders import contender
from minigpt.lab.bench.process import ContenderError, Contestant
from tests.lab.bench.tiny_terms import tiny_terms


def test_killed_contender_leaves_with_the_signal_in_one_line(tmp_path: Path) -> None:
    with Contestant(contender("nanogpt"), tiny_terms(tmp_path), tmp_path / "files", {}) as one:
        one._process.kill()
        with pytest.raises(ContenderError) as caught:
            one.start()
    assert str(caught.value) == "the contender nanogpt left the match: killed by signal 9 (out of memory?)"


def test_no_process_stays_when_the_match_is_over(tmp_path: Path) -> None:
    with Contestant(contender("nanogpt"), tiny_terms(tmp_path), tmp_path / "files", {}) as one:
        assert one._process.poll() is None
    assert one._process.poll() is not None
