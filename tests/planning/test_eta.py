import pytest

from minigpt.planning.eta import duration_text, eta_text, steady_step_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, "0 s"),
        (45, "45 s"),
        (99, "99 s"),
        (100, "2 min"),
        (12 * 60, "12 min"),
        (99 * 60, "99 min"),
        (100 * 60, "1 h 40 min"),
        (3 * 3600, "3 h"),
        (3 * 3600 + 22 * 60, "3 h 20 min"),
        (23 * 3600 + 59 * 60, "24 h"),
        (30 * 3600, "30 h"),
        (4.25 * 86400, "4.2 days"),
        (11.2 * 86400, "11 days"),
        (800 * 86400, "2 years"),
    ],
)
def test_duration_has_two_digits_or_so(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_eta_names_the_device_and_the_smaller_preset_when_it_is_days_on_a_cpu() -> None:
    eleven_days = 11 * 86400 / 40_000
    assert eta_text(eleven_days, 40_000, device_type="cpu", smaller_preset="small") == (
        "about 11 days on this CPU; --config small fits it"
    )
    assert (
        eta_text(eleven_days, 40_000, device_type="cuda", smaller_preset="small")
        == "about 11 days on this GPU"
    )
    assert eta_text(1.0, 600, device_type="cpu", smaller_preset="small") == "about 10 min on this CPU"
    assert eta_text(eleven_days, 40_000, device_type="cpu") == "about 11 days on this CPU"


def test_steady_step_leaves_the_first_one_out_and_does_not_mind_an_outlier() -> None:
    assert steady_step_seconds([]) is None
    assert steady_step_seconds([30.0]) is None
    assert steady_step_seconds([30.0, 1.0, 1.1, 9.0, 1.0, 1.05]) == 1.05
