"""Data that are damaged, gone or stuck while a run trains on them: nothing is lost, nobody hangs."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minigpt.checkpoint.load import load_newest
from minigpt.config.run_config import RunConfig
from minigpt.data import prefetch
from minigpt.data.blocks import BlockReader, StoredFile
from minigpt.errors import DataError
from minigpt.training import supply
from minigpt.training.folder import describe_run
from minigpt.training.loop import train
from minigpt.training.run import Run
from tests.training.tiny_run import (
    Workshop,
    assert_same_run,
    before_step,
    interrupt_at,
    opened_run,
    read_lines,
)

PREFETCHED = 4
"""Steps that may have been read before a change: the one asked for, two that are ready, one on its way."""
SAVED_ANYWAY = (4, 5)


def shard(run: Run, part: str) -> Path:
    return Path(run.identity["corpus"]["folder"]) / f"{part}_00000.bin"


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def straight_run(workshop: Workshop, folder: Path) -> RunConfig:
    config = workshop.config("model.dropout=0.1")
    with opened_run(config, folder) as run:
        assert train(run) == "finished"
    return config


def cut(path: Path) -> None:
    os.truncate(path, 10)


@pytest.mark.parametrize(
    ("part", "harm"),
    # Who has opened a shard goes on reading it when only its name is gone.
    [("train", flipped), ("train", cut), ("validation", flipped), ("validation", os.unlink)],
)
def test_run_saves_and_goes_on_exactly_when_its_data_are_harmed_and_mended(
    workshop: Workshop, tmp_path: Path, part: str, harm: Callable[[Path], None]
) -> None:
    config = straight_run(workshop, tmp_path / "straight")
    other = tmp_path / "other"
    with opened_run(config, other) as run:
        path = shard(run, part)
        good = path.read_bytes()
        before_step(run, 3, lambda: harm(path))
        with pytest.raises(DataError, match=f"{path.name}: .*the run is saved at step") as caught:
            train(run)
        step = run.position.step
    assert "\n" not in str(caught.value)
    assert step == 5 if part == "validation" else 2 <= step <= 2 + PREFETCHED
    assert load_newest(other).state["step"] == step
    saves = [event["text"] for event in read_lines(other / "events.jsonl") if event["kind"] == "save"]
    assert "no more data: the prepared corpus" in saves[-1] or step in SAVED_ANYWAY
    path.unlink(missing_ok=True)
    path.write_bytes(good)
    with opened_run(config, other, load_newest(other).state) as run:
        assert train(run) == "finished"
    assert_same_run(tmp_path / "straight", other, 12)


def test_resume_prepares_a_damaged_corpus_anew_and_goes_on_exactly(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = straight_run(workshop, tmp_path / "straight")
    other = tmp_path / "other"
    with opened_run(config, other) as run:
        interrupt_at(run, 6)
        assert train(run) == "interrupted"
        flipped(shard(run, "train"))
    describe_run(run)
    assert workshop.train(other, "model.dropout=0.1", resume="auto") == 0
    said = capsys.readouterr().out
    assert "cannot be used any more (the prepared corpus is damaged: " in said
    assert "the corpus is not the one the run began with" not in said
    assert_same_run(tmp_path / "straight", other, 12)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is clear, every read of a shard hangs, as on a mount whose server is gone."""
    works = threading.Event()
    works.set()
    own = BlockReader.read

    def read(reader: BlockReader, file: StoredFile, start: int, stop: int) -> bytes:
        reader._reading = file.file
        works.wait()
        return own(reader, file, start, stop)

    monkeypatch.setattr(BlockReader, "read", read)
    monkeypatch.setattr(supply, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(prefetch, "_GRACE_SECONDS", 0.1)
    yield works
    works.set()


def once_said(act: Callable[[], object]) -> None:
    """`act` when the run has said that it waits."""
    log = Path("logs/training.log").absolute()
    before = log.read_text(encoding="utf-8").count("no data for")

    def watch() -> None:
        deadline = time.monotonic() + 60
        while log.read_text(encoding="utf-8").count("no data for") == before and time.monotonic() < deadline:
            time.sleep(0.01)
        act()

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize("stuck_at", [3, 6])  # 6: the reads of the evaluation after step 5 hang
def test_run_waits_for_stuck_data_says_so_and_goes_on_exactly(
    workshop: Workshop,
    tmp_path: Path,
    disk: threading.Event,
    capsys: pytest.CaptureFixture[str],
    stuck_at: int,
) -> None:
    config = straight_run(workshop, tmp_path / "straight")
    with opened_run(config, tmp_path / "other") as run:

        def hang() -> None:
            disk.clear()
            once_said(disk.set)

        before_step(run, stuck_at - 1, hang)
        assert train(run) == "finished"
    said = capsys.readouterr().out
    assert said.count("no data for 0 seconds (reading ") == said.count("the data are back after ") == 1
    assert_same_run(tmp_path / "straight", tmp_path / "other", 12)


@pytest.mark.parametrize("stuck_at", [3, 6])
def test_an_interrupt_is_heard_and_the_run_saved_while_data_are_stuck(
    workshop: Workshop, tmp_path: Path, disk: threading.Event, stuck_at: int
) -> None:
    config = straight_run(workshop, tmp_path / "straight")
    other = tmp_path / "other"
    with opened_run(config, other) as run:

        def hang() -> None:
            disk.clear()
            once_said(lambda: setattr(run.interrupt, "signal", signal.SIGTERM))

        before_step(run, stuck_at - 1, hang)
        assert train(run) == "interrupted"
        assert run.interrupt.exit_code == 128 + signal.SIGTERM
        step = run.position.step
    # The thread hangs to this moment, and nobody waits for it.
    assert not disk.is_set()
    assert load_newest(other).state["step"] == step
    disk.set()
    with opened_run(config, other, load_newest(other).state) as run:
        assert train(run) == "finished"
    assert_same_run(tmp_path / "straight", other, 12)


def test_an_interrupt_with_data_at_hand_still_finishes_its_step(workshop: Workshop, tmp_path: Path) -> None:
    with opened_run(workshop.config(), tmp_path) as run:
        interrupt_at(run, 6)
        assert train(run) == "interrupted"
    assert load_newest(tmp_path).state["step"] == 6


RANK_WITHOUT_DATA = """
import os
from minigpt.cli.main import main
from minigpt.data.blocks import BlockReader

own, reads = BlockReader.read, 0

def read(self, file, start, stop):
    global reads
    reads += file.file.startswith("train")
    if reads > 40:
        raise OSError(5, "Input/output error", file.file)
    return own(self, file, start, stop)

if os.environ["RANK"] == "1":
    BlockReader.read = read
main()
"""


def test_all_ranks_save_and_leave_when_one_cannot_read_its_data(workshop: Workshop, run_dir: Path) -> None:
    with workshop.start(run_dir, ranks=2, program=RANK_WITHOUT_DATA) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Input/output error" in error
    step = load_newest(run_dir).state["step"]
    assert f"the run is saved at step {step}" in error
    assert step > 0
    assert "minigpt.errors.LostRankError" not in output
