"""Where torch keeps the code that it compiles."""

import os
import stat
from pathlib import Path


def keep_compiled_code_private() -> None:
    """Has torch keep compiled code, which it loads and runs, in a folder of the user's own.

    Its default is a name in /tmp that another user of the machine can make first.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ or not hasattr(os, "getuid"):
        return
    try:
        folder = (
            Path(os.environ.get("MINIGPT_CACHE") or "~/.cache/minigpt").expanduser().absolute() / "compiled"
        )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError):  # no home, or one that cannot be written
        return
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
