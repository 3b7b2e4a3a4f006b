"""Text of strangers on a terminal: what would steer it is shown instead of done."""

from typing import Any, TextIO

_STEERING = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""C0 and C1 controls (escape sequences begin with one), and those that turn the order of what is read around."""
_SHOWN = {code: chr(code).encode("unicode_escape").decode() for code in _STEERING if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    r"""`text` with control characters written as \x1b; line ends and tabs stay."""
    return text.translate(_SHOWN)


class VisibleStream:
    """A text stream on which control characters are visible, whoever wrote them; else the stream it wraps."""

    # typer would write past us into that of a stream which knows no more than ASCII.
    buffer = None

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        # A progress bar begins at the start of its own line.
        start = "\r" if text.startswith("\r") else ""
        return self.stream.write(start + visible(text.removeprefix("\r")))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
