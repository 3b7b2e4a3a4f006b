"""The user's mistakes: each says what, found, wanted and the way out in one line (exit code 2, no traceback)."""

import unicodedata
from pathlib import Path


class MiniGPTError(Exception):
    """A mistake the user can fix; the CLI prints its message as one line and exits with code 2."""


class ConfigError(MiniGPTError):
    """A configuration key, value or combination that cannot be."""


class ConfigProblems(ConfigError):  # noqa: N818 - a family of errors in one
    """All that is wrong with a configuration, a line each; other messages are one line whatever they quote."""


class DeviceError(ConfigError):
    """A device that this rank does not have: other ranks may well have theirs."""


class DataError(MiniGPTError):
    """A corpus, tokenizer or shard that cannot be used as asked."""


class CheckpointError(MiniGPTError):
    """A checkpoint that cannot be found, read or fitted to this run."""


class OutOfMemoryError(MiniGPTError):
    """More memory was needed than there is; the message names the setting that fits."""

    def __init__(self, message: str, *, between_steps: bool) -> None:
        """`between_steps`: the state of the run is that after its last finished step, and whole."""
        super().__init__(message)
        self.between_steps = between_steps


class NotWrittenError(CheckpointError):
    """A checkpoint that is not on disk; those before it are as they were."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        """Why, in a few words."""


class RecordError(MiniGPTError):
    """A training record that cannot be found, read or judged."""


class MissingExtraError(MiniGPTError):
    """A feature whose optional dependency is not installed."""

    def __init__(self, feature: str, package: str, extra: str) -> None:
        super().__init__(f"{feature} needs the package {package}: pip install 'minigpt[{extra}]'")


class LostRankError(MiniGPTError):
    """Another rank of this run is gone without a word."""


class OtherRankError(MiniGPTError):
    """This rank stops because another had to, which says why: the CLI is silent about it here."""


def user_path(text: str | Path, name: str) -> Path:
    """The path with its ~ resolved; `name` is what the user calls it: data.cache_dir, --run-dir.

    Raises:
        MiniGPTError: there is no such user, or no home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise MiniGPTError(
            f"{name} = {text}: the home folder that ~ stands for cannot be found; write the whole path"
        ) from None


def on_one_line(text: str) -> str:
    """`text` with line ends, control characters and halves of surrogate pairs as escapes.

    What a user wrote or a file is called goes into messages as it is; it must not end the line, nor steer a terminal.
    """
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
