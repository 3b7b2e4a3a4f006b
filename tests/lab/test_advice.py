"""Following the monitor's advice: what is read off the console, what is obeyed, and the table of it."""

from pathlib import Path

import pytest

from minigpt.lab.advice.life import Outcome, Trained
from minigpt.lab.advice.stories import STORIES, Story
from minigpt.lab.advice.table import report
from minigpt.lab.advice.told import Told, obeyed, read_anomaly, without_document
from minigpt.training_monitor.words.tables import WORDS

PRINTED = """step 11 loss=4.2
⚠️ Anomaly detected at step 12: loss_spike
   Seen: loss 9.1 (2.2 x its own normal of 4.1)
   Likely cause: the learning rate is too high
   What to do: lower the learning rate: --set optimizer.learning_rate=0.001; or clip harder
step 13 loss=9.0
⚠️ Anomaly detected at step 40: nan_loss
   Likely cause: another
"""


def told(advice: str = "", text: str = "") -> Told:
    return Told(WORDS["en"]["cause.learning_rate_too_high"], advice, text)


def test_first_anomaly_is_read_when_several_were_printed() -> None:
    found = read_anomaly(PRINTED)
    assert found is not None
    assert found.cause == "the learning rate is too high"
    assert found.advice.startswith("lower the learning rate: --set optimizer")
    assert "step 13" not in found.text


def test_anomaly_is_none_when_nothing_was_told() -> None:
    assert read_anomaly("step 11 loss=4.2\n") is None


def test_setting_of_the_advice_replaces_the_mistake_when_it_is_obeyed() -> None:
    advice = "lower it: --set optimizer.learning_rate=0.001; or warm up: --set schedule.warmup_steps=9"
    settings = ["training.seed=1", "optimizer.learning_rate=0.3"]
    assert obeyed(advice, settings) == (
        "optimizer.learning_rate=0.001",
        ["training.seed=1", "optimizer.learning_rate=0.001"],
    )


def test_nothing_is_obeyed_when_the_advice_holds_no_setting() -> None:
    assert obeyed("look at the documents of these batches", []) is None


def test_named_document_is_taken_away_when_the_anomaly_tells_it(tmp_path: Path) -> None:
    for name in ("good.txt", "export.txt"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    assert without_document(told(text="in export.txt, token 5"), tmp_path) == "without export.txt"
    assert [path.name for path in tmp_path.iterdir()] == ["good.txt"]
    assert without_document(told(text="no name"), tmp_path) == ""


def test_table_tells_what_was_repaired_when_a_story_had_two_seeds() -> None:
    story = Story("rate x 300", ("optimizer.learning_rate=0.3",), ("learning_rate_too_high",))
    healthy, faulty = Trained(None, 2.0, False), Trained(told(), 4.0, False)
    outcomes = [
        Outcome(story, healthy, faulty, ("optimizer.learning_rate=0.001",), Trained(None, loss, False))
        for loss in (2.0, 3.0)
    ]
    row = report(outcomes)[-1]
    assert "2 of 2" in row
    assert "4.00 | 2.50 | 2.00 | 100%, 50%" in row


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_story_accepts_causes_that_the_monitor_can_tell(story: Story) -> None:
    assert all(f"cause.{cause}" in WORDS["en"] for cause in story.causes)
