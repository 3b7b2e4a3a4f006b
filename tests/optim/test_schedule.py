import pytest

from minigpt.optim.config import ScheduleConfig
from minigpt.optim.schedule import lr_at


def rates(schedule: ScheduleConfig, max_steps: int, peak: float = 1.0) -> list[float]:
    return [lr_at(step, schedule, peak, max_steps) for step in range(max_steps)]


def test_warmup_counts_updates_from_one_when_linear() -> None:
    schedule = ScheduleConfig(warmup_steps=4, min_lr_ratio=0.0)
    assert rates(schedule, 100)[:4] == [0.25, 0.5, 0.75, 1.0]


def test_warmup_follows_the_users_formula_when_medium() -> None:
    schedule = ScheduleConfig(warmup_steps=4000)
    for update in (1, 2, 1000, 3999, 4000):
        assert lr_at(update - 1, schedule, 3e-4, 60_000) == pytest.approx(3e-4 * min(1, update / 4000))


def test_cosine_passes_its_middle_and_ends_at_the_minimum_when_half_way_and_last() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup_steps=2, min_lr_ratio=0.1)
    lrs = rates(schedule, 12, peak=2.0)
    assert lrs[1] == 2.0
    assert lrs[6] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert lrs[11] == pytest.approx(0.2)


def test_linear_falls_by_equal_steps_when_decaying() -> None:
    schedule = ScheduleConfig(kind="linear", warmup_steps=0, min_lr_ratio=0.0)
    assert rates(schedule, 4) == pytest.approx([0.75, 0.5, 0.25, 0.0])


def test_constant_stays_at_the_peak_when_warmed_up() -> None:
    schedule = ScheduleConfig(kind="constant", warmup_steps=2, min_lr_ratio=0.1)
    assert rates(schedule, 6) == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_wsd_stays_then_falls_to_the_minimum_when_decay_ratio_of_the_steps_is_left() -> None:
    schedule = ScheduleConfig(kind="wsd", warmup_steps=0, min_lr_ratio=0.0, decay_ratio=0.4)
    assert rates(schedule, 10) == pytest.approx([1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.0])


def test_first_step_starts_to_decay_when_there_is_no_warmup() -> None:
    schedule = ScheduleConfig(kind="linear", warmup_steps=0, min_lr_ratio=0.5)
    assert rates(schedule, 2) == pytest.approx([0.75, 0.5])


def test_rate_only_rises_when_warmup_is_longer_than_the_run() -> None:
    assert rates(ScheduleConfig(warmup_steps=10), 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_rate_stays_within_bounds_when_asked_beyond_the_end(kind: str) -> None:
    schedule = ScheduleConfig.model_validate({"kind": kind, "warmup_steps": 3, "min_lr_ratio": 0.1})
    lrs = [lr_at(step, schedule, 1.0, 8) for step in range(20)]
    assert all(0.1 - 1e-12 <= lr <= 1.0 for lr in lrs)
    assert lrs[3:] == sorted(lrs[3:], reverse=True)


def test_only_update_trains_at_the_minimum_when_the_run_has_one_step_without_warmup() -> None:
    assert rates(ScheduleConfig(warmup_steps=0, min_lr_ratio=0.1), 1) == pytest.approx([0.1])
