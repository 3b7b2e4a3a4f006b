"""Identity and make-up of a batch, on the host and by the device's arithmetic."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.probes.batch import IGNORED, BatchProbe, DeviceBatch, device_batch


def facts_of(*pairs: tuple[Tensor, Tensor | None]) -> BatchFacts:
    probe = BatchProbe()
    for inputs, targets in pairs:
        probe.add(inputs, targets)
    facts = probe.take()
    assert isinstance(facts, BatchFacts)
    assert probe.take() is None
    return facts


def device_facts_of(*pairs: tuple[Tensor, Tensor | None]) -> BatchFacts:
    """What a GPU would compute: the same operations, here on the CPU."""
    batch = device_batch(list(pairs), torch.device("cpu"))
    assert isinstance(batch, DeviceBatch)
    assert batch.vector.dtype == torch.float32
    return batch.read(batch.vector.tolist())


FactsOf = Callable[..., BatchFacts]
BOTH = pytest.mark.parametrize("facts", [facts_of, device_facts_of])
WINDOW = torch.tensor([[5, 6, 7, 7, 8], [1, 2, 3, 7, 9]])


@BOTH
def test_facts_are_those_counted_by_hand(facts: FactsOf) -> None:
    found = facts((WINDOW[:, :-1], WINDOW[:, 1:]))
    assert (found.tokens, found.distinct_tokens) == (8, 6)
    assert found.top_fraction == pytest.approx(3 / 8)
    assert found.label_match == 1.0
    # 7 follows 7 once
    assert found.label_copy == pytest.approx(1 / 8)
    assert found.ignored_fraction == 0.0


@BOTH
def test_micro_batches_count_as_one_batch(facts: FactsOf) -> None:
    whole = facts((WINDOW[:, :-1], WINDOW[:, 1:]))
    parts = facts((WINDOW[:1, :-1], WINDOW[:1, 1:]), (WINDOW[1:, :-1], WINDOW[1:, 1:]))
    assert parts == whole


@BOTH
def test_hash_tells_order_and_single_ids_apart(facts: FactsOf) -> None:
    inputs = torch.arange(1000) % 256
    first = facts((inputs, None))
    assert facts((inputs.clone(), None)).hash == first.hash
    others = [inputs.flip(0), inputs + 1, torch.cat([inputs[1:], inputs[:1]])]
    swapped = inputs.clone()
    swapped[[3, 4]] = swapped[[4, 3]]
    changed = inputs.clone()
    changed[-1] += 1
    hashes = {facts((other, None)).hash for other in [*others, swapped, changed]}
    assert len(hashes) == 5
    assert first.hash not in hashes
    assert first.label_match is None


@BOTH
def test_ignored_targets_are_left_out_of_the_shares(facts: FactsOf) -> None:
    targets = WINDOW[:, 1:].clone()
    targets[0] = IGNORED
    targets[1, 0] = 0
    found = facts((WINDOW[:, :-1], targets))
    assert found.ignored_fraction == pytest.approx(0.5)
    assert found.label_match == pytest.approx(2 / 3)
    nothing = facts((WINDOW[:, :-1], torch.full((2, 4), IGNORED)))
    assert (nothing.label_match, nothing.ignored_fraction) == (None, 1.0)


@BOTH
def test_targets_of_another_shape_tell_nothing_of_the_next_token(facts: FactsOf) -> None:
    found = facts((WINDOW, torch.tensor([0, 1])))
    assert (found.label_match, found.label_copy, found.ignored_fraction) == (None, None, 0.0)


@BOTH
def test_negative_and_huge_ids_are_counted(facts: FactsOf) -> None:
    found = facts((torch.tensor([-1, -1, 2**40, 3]), None))
    assert (found.distinct_tokens, found.top_fraction) == (3, 0.5)


def test_empty_batch_is_no_batch() -> None:
    probe = BatchProbe()
    probe.add(torch.zeros(0, 4, dtype=torch.long))
    assert probe.take() is None
