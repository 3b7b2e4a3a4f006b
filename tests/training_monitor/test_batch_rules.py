"""repeated_batch, degenerate_batch, label_mismatch and label_leak."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minigpt.training_monitor.batch_facts import BatchFacts
from minigpt.training_monitor.detectors.degenerate_batch import DegenerateBatch, DegenerateBatchConfig
from minigpt.training_monitor.detectors.labels import Labels, LabelsConfig
from minigpt.training_monitor.detectors.repeated_batch import RepeatedBatch, RepeatedBatchConfig
from minigpt.training_monitor.signals import StepSignals
from tests.training_monitor.invariant_series import assert_resumes_exactly, healthy_step, heard, summary

FactsAt = Callable[[int], dict[str, Any]]


def repeated() -> RepeatedBatch:
    return RepeatedBatch(RepeatedBatchConfig())


def degenerate() -> DegenerateBatch:
    return DegenerateBatch(DegenerateBatchConfig())


def labels(vocab_size: int | None = 1000) -> Labels:
    return Labels(LabelsConfig(), vocab_size, resumed=False)


def series(facts: FactsAt, steps: int = 60, *, loss: float = 5.0, **fields: Any) -> list[StepSignals]:
    found = []
    for step in range(1, steps + 1):
        signals = replace(healthy_step(step), loss=loss, **fields)
        assert signals.batch is not None
        found.append(replace(signals, batch=replace(signals.batch, **facts(step))))
    return found


def test_repeated_batch_interrupts_at_the_third_equal_batch_in_mid_run() -> None:
    findings = heard(repeated(), series(lambda step: {"hash": min(step, 30)}))
    assert summary(findings) == [
        ("repeated_batch", "suspected", 31, False),
        ("repeated_batch", "sustained", 32, True),
    ]


def test_repeated_batch_interrupts_later_when_there_never_was_another() -> None:
    assert heard(repeated(), series(lambda step: {"hash": 7}))[-1].step == 8


def test_repeated_batch_leaves_constant_batches_to_degenerate_batch() -> None:
    steps = series(
        lambda step: {"hash": 7, "distinct_tokens": 1, "tokens": 512} if step > 30 else {"hash": step}
    )
    assert heard(repeated(), steps) == []
    assert heard(degenerate(), steps)[-1].interrupts


def test_repeated_batch_interrupts_when_a_loader_is_caught_in_a_short_loop() -> None:
    findings = heard(repeated(), series(lambda step: {"hash": step if step < 30 else step % 4}))
    assert findings[-1].interrupts
    assert findings[-1].evidence["period"] == 4


@pytest.mark.parametrize("batches", [2, 5, 8, 12])
def test_repeated_batch_is_silent_when_the_data_set_is_tiny(batches: int) -> None:
    assert heard(repeated(), series(lambda step: {"hash": step % batches}, 200)) == []


def test_repeated_batch_is_silent_when_an_epoch_is_one_batch_or_steps_are_missing() -> None:
    epochs = [replace(each, epoch=each.step) for each in series(lambda step: {"hash": 7})]
    assert heard(repeated(), epochs) == []
    assert heard(repeated(), series(lambda step: {"hash": 7})[::10]) == []


def test_degenerate_batch_interrupts_at_the_second_step_when_tokens_collapse() -> None:
    findings = heard(degenerate(), series(lambda step: {"distinct_tokens": 100 if step < 30 else 12}))
    assert summary(findings) == [
        ("degenerate_batch", "suspected", 30, False),
        ("degenerate_batch", "sustained", 31, True),
    ]


def test_degenerate_batch_interrupts_when_one_token_or_no_target_is_all_there_is() -> None:
    constant = heard(degenerate(), series(lambda step: {"distinct_tokens": 1, "top_fraction": 1.0}))
    masked = heard(degenerate(), series(lambda step: {"ignored_fraction": 1.0}))
    assert [found.step for found in (constant[-1], masked[-1])] == [3, 3]
    assert masked[-1].evidence["trigger"] == "targets"


def test_degenerate_batch_is_silent_when_lengths_grow_or_padding_is_usual() -> None:
    def growing(step: int) -> dict[str, Any]:
        return {"tokens": 64 * (1 + step // 15), "distinct_tokens": int(40 * (1 + step // 15) ** 0.6)}

    assert heard(degenerate(), series(growing, 120)) == []
    assert heard(degenerate(), series(lambda step: {"top_fraction": 0.85 + 0.08 * (step % 2)}, 60)) == []
    assert heard(degenerate(), series(lambda step: {"ignored_fraction": 0.9 + 0.05 * (step % 2)}, 60)) == []


def test_degenerate_batch_is_silent_when_small_batches_vary() -> None:
    chance = random.Random(0)
    sizes = [min(60, max(4, int(chance.lognormvariate(3.2, 0.6)))) for _ in range(3001)]
    vary = series(lambda step: {"tokens": 64, "distinct_tokens": sizes[step]}, 3000)
    assert not any(found.interrupts for found in heard(degenerate(), vary))


def test_label_mismatch_interrupts_at_the_third_step_and_is_transient_when_it_happened_once() -> None:
    lasting = heard(labels(), series(lambda step: {"label_match": 1.0 if step < 30 else 0.03}))
    assert summary(lasting) == [
        ("label_mismatch", "suspected", 30, False),
        ("label_mismatch", "sustained", 32, True),
    ]
    once = heard(labels(), series(lambda step: {"label_match": 0.03 if step == 30 else 1.0}))
    assert [found.status for found in once] == ["suspected", "transient"]


def test_label_mismatch_is_judged_by_copies_when_the_model_shifts_by_itself() -> None:
    def unshifted(step: int) -> dict[str, Any]:
        return {"label_match": 0.05, "label_copy": 1.0 if step < 30 else 0.05}

    findings = heard(labels(), series(unshifted))
    assert (findings[-1].name, findings[-1].step, findings[-1].interrupts) == ("label_mismatch", 32, True)
    assert heard(labels(), series(lambda step: {"label_match": 0.05, "label_copy": 1.0})) == []


def test_label_mismatch_interrupts_when_a_language_models_labels_never_matched() -> None:
    never = series(lambda step: {"label_match": 0.03, "label_copy": 0.05})
    assert heard(labels(), never)[-1].interrupts
    assert heard(labels(None), never) == []
    masked = series(lambda step: {"label_match": 0.03, "label_copy": 0.1, "ignored_fraction": 0.85})
    assert heard(labels(), masked) == []


def test_label_leak_interrupts_when_targets_become_the_inputs() -> None:
    def leaks(step: int) -> dict[str, Any]:
        return {"label_match": 1.0 if step < 30 else 0.05, "label_copy": 0.05 if step < 30 else 1.0}

    assert summary(heard(labels(), series(leaks))) == [
        ("label_leak", "suspected", 30, False),
        ("label_leak", "sustained", 32, True),
    ]


def test_label_leak_interrupts_when_copied_targets_are_learnt_at_once() -> None:
    steps = series(lambda step: {"label_match": 0.05, "label_copy": 1.0})
    falling = [replace(each, loss=6.9 * 0.9**each.step) for each in steps]
    assert [found.name for found in heard(labels(), falling)] == ["label_leak", "label_leak"]


def test_label_rules_are_silent_when_targets_are_unknown() -> None:
    assert heard(labels(), series(lambda step: {"label_match": None, "label_copy": None})) == []
    assert heard(labels(), [replace(each, batch=None) for each in series(lambda step: {})]) == []


def test_batch_rules_resume_exactly() -> None:
    def eventful(step: int) -> dict[str, Any]:
        if step < 30:
            return {}
        bad = {"hash": 7, "distinct_tokens": 3, "label_match": 0.1}
        return bad if step < 36 else {"label_match": 0.05, "label_copy": 0.95} if step < 42 else {}

    steps = series(eventful, 80)
    for build in (repeated, degenerate, labels):
        assert_resumes_exactly(build, steps)


def test_batch_facts_of_nothing_are_silent() -> None:
    empty = BatchFacts(0, 0, 0, 0.0)
    signals = [replace(healthy_step(step), batch=empty) for step in range(1, 3)]
    assert heard(degenerate(), signals) + heard(labels(), signals) == []


def test_label_mismatch_interrupts_when_a_part_is_shuffled_and_all_were_right() -> None:
    findings = heard(labels(), series(lambda step: {"label_match": 0.7 if step >= 30 else 1.0}))
    assert summary(findings) == [
        ("label_mismatch", "suspected", 30, False),
        ("label_mismatch", "sustained", 32, True),
    ]


def test_label_mismatch_is_silent_when_a_part_never_matched() -> None:
    assert heard(labels(), series(lambda step: {"label_match": 0.7 if step % 5 == 0 else 0.95})) == []
