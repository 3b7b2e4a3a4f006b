"""Anybody's loop, judged one step late as on CUDA: the same findings, looks and state, and no action is lost."""

import json
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from minigpt.training_monitor import TrainingMonitor
from minigpt.training_monitor.action import Action, Continue, SkipUpdate, Stop, graver
from minigpt.training_monitor.config import MonitorConfig
from minigpt.training_monitor.detectors.throughput import ThroughputConfig
from minigpt.training_monitor.facade import LoopMonitor
from tests.training_monitor.recording_sink import RecordingSink
from tests.training_monitor.small_models import gpt

BOTH = pytest.mark.parametrize("late", [False, True])


class Loop:
    """A small training of which single losses can be NaN."""

    def __init__(self, late: bool, **settings: Any) -> None:
        self.model, self.sink = gpt(), RecordingSink()
        self.data = torch.Generator().manual_seed(0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.late, self.config = late, MonitorConfig(**settings)
        self.monitor = self.watched()

    def watched(self, start_step: int = 0) -> LoopMonitor:
        return TrainingMonitor.for_model(
            self.model,
            self.optimizer,
            config=self.config,
            sinks=[self.sink],
            start_step=start_step,
            late=self.late,
        )

    def step(self, *, bad: bool = False) -> Action:
        window = torch.randint(0, 64, (4, 17), generator=self.data)
        loss = F.cross_entropy(self.model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        loss = loss * (math.nan if bad else 1.0)
        loss.backward()  # type: ignore[no-untyped-call]
        action = self.monitor.step(loss)
        if not bad:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return action

    def resume(self) -> None:
        """A new process goes on from a checkpoint of now."""
        state = json.loads(json.dumps(self.monitor.state_dict()))
        at = self.monitor.step_number
        self.monitor.close()
        self.monitor = self.watched(at)
        self.monitor.load_state_dict(state)


def test_action_comes_one_step_late_and_is_of_its_own_step() -> None:
    loop = Loop(late=True)
    actions = [loop.step(bad=step == 3) for step in range(1, 6)]
    skip = actions.pop(3)
    assert isinstance(skip, SkipUpdate)
    assert skip.step == 3
    assert set(map(type, actions)) == {Continue}
    assert isinstance(loop.monitor.close(), Continue)


@BOTH
def test_closing_judges_the_last_step(late: bool) -> None:
    loop = Loop(late)
    last = [loop.step(bad=step == 4) for step in range(1, 5)][-1]
    closed = loop.monitor.close()
    assert [type(last), type(closed)] == ([Continue, SkipUpdate] if late else [SkipUpdate, Continue])
    assert [signals.step for signals in loop.sink.signals] == [1, 2, 3, 4]
    assert [event.step for event in loop.sink.events if event.name == "nan_loss"] == [4]


@pytest.mark.parametrize("boundary", ["state_dict", "declare_change"])
def test_action_that_is_found_at_a_boundary_is_given_with_the_next_step(boundary: str) -> None:
    loop = Loop(late=True)
    for step in range(1, 4):
        loop.step(bad=step == 3)
    getattr(loop.monitor, boundary)()
    assert [signals.step for signals in loop.sink.signals] == [1, 2, 3]
    given = loop.step()
    assert isinstance(given, SkipUpdate)
    assert given.step == 3
    assert isinstance(loop.step(), Continue)


def test_state_is_of_every_step_so_far_however_late_they_are_read() -> None:
    states = []
    for late in (False, True):
        loop = Loop(late, throughput_drop=ThroughputConfig(enabled=False))
        for step in range(1, 25):
            loop.step(bad=step == 20)
        state = loop.monitor.state_dict()
        state["monitor"]["detectors"].pop("memory_growth", None)
        states.append(json.dumps(state))
    assert states[0] == states[1]


def test_looks_on_suspicion_are_the_same_when_read_late_or_resumed() -> None:
    """The restored monitor is the one that is asked whether to look."""
    looks = []
    for late, resumes in ((False, ()), (True, ()), (True, (9, 10, 11)), (False, (10, 12))):
        loop = Loop(late, look_every_steps=50, look_every_steps_on_suspicion=1)
        for step in range(1, 21):
            loop.step(bad=step in (9, 10))
            if step in resumes:
                loop.resume()
        loop.monitor.close()
        looks.append([signals.step for signals in loop.sink.signals if signals.look is not None])
    assert looks[0][0] == 11  # what step 9 began was known when step 11 was
    assert looks[0] == looks[1] == looks[2] == looks[3]


def test_what_ends_the_training_comes_before_what_later_steps_ask_for() -> None:
    stop, skip = Stop(3, "reason", "nan_loss"), SkipUpdate(4, "reason")
    assert graver(stop, skip) == graver(skip, stop) == stop
    assert graver(stop, Stop(4, "reason", "nan_loss")) == stop
    assert graver(Continue(), skip) == skip
