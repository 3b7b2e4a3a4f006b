"""The bar as a terminal gets it."""

import errno
import io

import pytest

from minigpt.training.progress import Progress
from tests.training_monitor.monitor_series import signals_of


class Terminal(io.StringIO):
    """80 columns wide; once closed it fails as a terminal does whose window is gone."""

    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Inside the test: between a fixture and the test, pytest puts its own stdout back."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return terminal


def progress() -> Progress:
    return Progress(90_000, "cpu", is_main=True, smaller_preset=None)


def test_all_numbers_fit_when_the_terminal_has_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    shown = progress()
    shown.start(12_000)
    for signals in signals_of([(12_001, 4.25, 12.5)]):
        shown.step(signals)
    shown.close()
    last = terminal.getvalue().rstrip().rsplit("\r", 1)[-1]
    assert len(last) <= 80
    for part in ("12001/90000", "ETA ", "loss 4.250", "grad 12.5", "lr ", " tok/s"):
        assert part in last


def test_training_goes_on_in_silence_when_the_terminal_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    shown = progress()
    shown.start(0)
    assert "0/90000" in terminal.getvalue()
    terminal.is_gone = True
    for signals in signals_of([(1, 4.0, 1.0), (2, 3.9, 1.0)]):
        shown.step(signals)
        shown.say("an event")
    shown.close()
