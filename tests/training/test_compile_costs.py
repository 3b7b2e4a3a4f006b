"""What compiling costs and wins: measured, remembered, and decided by."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigpt.training import compile_costs
from minigpt.training.compile_costs import CompileCosts, CostsFile, cost_and_win
from minigpt.training.compiling import NOTED_STEPS, costs_file, weigh_compiling
from minigpt.training.run import Run
from tests.training.tiny_run import Workshop, opened_run

SHAPE = {"model": {"num_layers": 6}, "precision": "bf16"}
PLACE = {"cpu": "one", "threads": "4", "commit": "abc", "python": "3.12"}


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps compiled code."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    return tmp_path / "compiled"


@pytest.fixture
def undecided(workshop: Workshop, run_dir: Path, compiled: Path) -> Iterator[Run]:
    with opened_run(workshop.config("training.max_steps=103", "training.compile=auto"), run_dir) as run:
        yield run


def paces(run: Run, *seconds: float) -> int | None:
    """Tells the run how long each of its steps took; where it goes over to compiled code, if it does."""
    for one in seconds:
        run.position.step += 1
        weigh_compiling(run, one)
    return run.position.compiled_from


def test_what_was_measured_decides_and_a_guess_where_nothing_was() -> None:
    # 0.5 s a step and 0.3 s compiled: 100 steps save 20 s.
    known = CompileCosts(first_seconds=30, again_seconds=4, eager_step_seconds=1.0, compiled_step_seconds=0.6)
    found = cost_and_win(known, 0.5, 100, num_layers=6, reduced_precision=True)
    assert found == pytest.approx((4, 20))
    guessed = cost_and_win(None, 0.5, 100, num_layers=6, reduced_precision=True)
    assert guessed == pytest.approx((39, 12.5))
    in_fp32 = cost_and_win(None, 0.5, 100, num_layers=6, reduced_precision=False)
    assert in_fp32[1] < guessed[1]
    # Compiled once and never since: torch has it in its cache, though nobody has timed that yet.
    once = CompileCosts(first_seconds=40)
    assert cost_and_win(once, 0.5, 100, num_layers=6, reduced_precision=True) == pytest.approx((6, 12.5))


def test_costs_are_kept_for_each_shape_and_machine_but_not_for_each_commit(compiled: Path) -> None:
    CostsFile(SHAPE, PLACE).add_compiling(30)
    CostsFile(SHAPE, PLACE).add_steps(1.0, 0.7)
    CostsFile(SHAPE, PLACE).add_compiling(4)
    wanted = CompileCosts(
        first_seconds=30, again_seconds=4, eager_step_seconds=1.0, compiled_step_seconds=0.7
    )
    for place in (PLACE, PLACE | {"commit": "def"}, PLACE | {"python": "3.13"}):
        assert CostsFile(SHAPE, place).read() == wanted
    assert CostsFile(SHAPE, PLACE | {"threads": "2"}).read() is None
    assert CostsFile(SHAPE | {"precision": "off"}, PLACE).read() is None


def test_costs_of_other_code_of_the_model_are_not_taken(
    compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CostsFile(SHAPE, PLACE).add_compiling(30)
    monkeypatch.setattr(compile_costs, "_code_sha256", lambda: "another")
    assert CostsFile(SHAPE, PLACE).read() is None


@pytest.mark.parametrize(
    "text", ["", "{", '{"first_seconds": -1}', '{"first_seconds": NaN}', '{"first_seconds": "x"}', "\xff"]
)
def test_costs_are_measured_anew_when_their_file_is_damaged(compiled: Path, text: str) -> None:
    CostsFile(SHAPE, PLACE).add_compiling(30)
    (path,) = (compiled / "minigpt_costs").iterdir()
    path.write_text(text, encoding="latin-1")
    assert CostsFile(SHAPE, PLACE).read() is None
    CostsFile(SHAPE, PLACE).add_compiling(20)
    assert CostsFile(SHAPE, PLACE).read() == CompileCosts(first_seconds=20)
    path.unlink()
    os.mkfifo(path)  # to open it the plain way would wait for ever
    assert CostsFile(SHAPE, PLACE).read() is None


def test_costs_are_not_kept_when_their_folder_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file"))
    CostsFile(SHAPE, PLACE).add_compiling(30)
    assert CostsFile(SHAPE, PLACE).read() is None
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    CostsFile(SHAPE, PLACE).add_compiling(30)
    assert CostsFile(SHAPE, PLACE).read() is None


def test_a_short_run_compiles_only_when_it_is_known_to_be_cheap(undecided: Run) -> None:
    # 100 steps of half a second: 50 s, of which a guess saves 5 to 10.
    assert paces(undecided, 9.0, 0.5, 0.5) is None
    undecided.position.step = 0
    costs_file(undecided).add_compiling(30)
    costs_file(undecided).add_compiling(4)
    assert paces(undecided, 9.0, 0.5, 0.5) == 3


def test_one_slow_step_does_not_make_a_run_compile(undecided: Run) -> None:
    assert paces(undecided, 9.0, 60.0, 0.5) is None


def test_a_run_notes_what_compiling_has_won(undecided: Run) -> None:
    assert paces(undecided, 9.0, 20.0, 21.0) == 3
    undecided.compiling_tried = True
    costs_file(undecided).add_compiling(30)
    # The first compiled step warms up, and one was disturbed.
    paces(undecided, 25.0, 15.0, 14.0, 40.0, 16.0, 17.0)
    assert undecided.pace.compiled_steps == NOTED_STEPS
    paces(undecided, 1.0)
    known = costs_file(undecided).read()
    assert known is not None
    assert (known.eager_step_seconds, known.compiled_step_seconds) == (20, 14)
