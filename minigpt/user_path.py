"""Paths as users write them."""

from pathlib import Path

from minigpt.errors import MiniGPTError


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
