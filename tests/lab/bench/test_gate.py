import pytest
import torch

from minigpt.lab.bench.gate import Facts, Stopped
from tests.lab.bench.tiny_terms import OpenGate

FACTS = Facts(parameters=10, flops_per_token=60, vocab_size=5)


def steps_made(gate: OpenGate) -> int:
    """How many steps a loop makes at this gate before it is stopped; the n-th takes 10^n seconds."""
    made: list[float] = []

    def train() -> None:
        gate.built(FACTS)
        while True:
            gate.next_step()
            gate.clock += 10.0 ** len(made)
            made.append(len(made) + 1.0)
            gate.record(made[-1])

    with pytest.raises(Stopped):
        train()
    return len(made)


def test_gate_lets_through_the_steps_of_each_turn_and_the_warm_ones_before_them() -> None:
    gate = OpenGate((1, 0), (3, 1), (2, 2))
    assert steps_made(gate) == 1 + (1 + 3) + (2 + 2)
    ready, *turns = gate.answers
    assert ready["ready"].items() >= {"parameters": 10, "flops_per_token": 60, "vocab_size": 5}.items()
    assert ready["ready"]["threads"] == torch.get_num_threads()
    assert [turn["values"] for turn in turns] == [[1.0], [2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0]]


def test_gate_times_the_turns_steps_without_the_warm_ones_when_there_are_some() -> None:
    gate = OpenGate((1, 0), (2, 0), (2, 1), (1, 2))
    steps_made(gate)
    assert [turn["seconds"] for turn in gate.answers[1:]] == [1, 110, 110_000, 100_000_000]
    assert gate.answers[1]["since_start_seconds"] == 1


def test_gate_stops_the_loop_when_the_parent_is_gone() -> None:
    gate = OpenGate()
    gate._commands.read()
    assert steps_made(gate) == 0
