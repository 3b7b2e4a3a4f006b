"""Text that every machine has: the running Python's own sources, and those of all installed packages."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from minigpt.data.sources.files import CorpusFile
from minigpt.errors import DataError

_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__"})
_TESTS = frozenset({"test", "tests", "idle_test"})


def stdlib_files() -> list[CorpusFile]:
    """The standard library's .py files without its tests, sorted by name."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = list(_python_files(root, "", _NOT_LIBRARY | _TESTS))
    if not files:
        raise DataError(
            f"python-stdlib: no .py files under {root} (a frozen Python?); give your own text as data.source"
        )
    return files


def environment_files() -> list[CorpusFile]:
    """The standard library's files, then those of every installed package, sorted by name."""
    files = stdlib_files()
    paths = sysconfig.get_paths()
    for root in dict.fromkeys(Path(paths[key]).resolve() for key in ("purelib", "platlib")):
        files += _python_files(root, "site-packages/", frozenset({"__pycache__"}))
    return files


def _python_files(root: Path, prefix: str, excluded: frozenset[str]) -> Iterator[CorpusFile]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in excluded]
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                found.append((path.relative_to(root).as_posix(), path))
    return (CorpusFile(path, prefix + name) for name, path in sorted(found))
