"""Files named by the user: a file, a folder or a glob, `~` and relative paths included."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from minigpt.data.sources.files import CorpusFile
from minigpt.errors import DataError

_MAGIC = re.compile(r"[*?\[]")


def find_files(spec: str) -> list[CorpusFile]:
    """The regular files that `spec` names, each once, sorted by name; hidden ones in folders are left out."""
    path = Path(os.path.expandvars(spec)).expanduser()
    try:
        found = sorted(_matches(spec, path))
    except PermissionError as error:
        raise DataError(f"data.source = {spec}: no permission to read {error.filename}") from error
    unique = {os.path.realpath(file): file for file in reversed(found)}
    files = sorted(Path(os.path.abspath(file)) for file in unique.values())  # noqa: PTH100 resolve() would follow links
    if not files:
        raise DataError(f"data.source = {spec}: no files in {path.absolute()}")
    base = files[0].parent if len(files) == 1 else Path(os.path.commonpath([file.parent for file in files]))
    return [CorpusFile(file, file.relative_to(base).as_posix()) for file in files]


def _matches(spec: str, path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _walk(path)
    elif path.exists():
        if not _is_regular(path):
            raise DataError(f"data.source = {spec}: not a regular file or folder (a pipe or device?)")
        yield path
    elif _MAGIC.search(str(path)):
        yield from _glob(spec, path)
    elif path.is_symlink():
        raise DataError(f"data.source = {spec}: a symbolic link to nowhere ({path.readlink()})")
    else:
        raise DataError(
            f"data.source = {spec}: no such file or folder (looked for {path.absolute()}); "
            "give text files, globs or folders, hf:NAME, python-stdlib or python-env"
        )


def _glob(spec: str, path: Path) -> Iterator[Path]:
    absolute = path.absolute()
    fixed = next(i for i, part in enumerate(absolute.parts) if _MAGIC.search(part))
    base, pattern = Path(*absolute.parts[:fixed]), Path(*absolute.parts[fixed:])
    wants_hidden = any(part.startswith(".") for part in pattern.parts)
    found = False
    for match in base.glob(str(pattern)):
        if not wants_hidden and any(part.startswith(".") for part in match.relative_to(base).parts):
            continue
        found = True
        if match.is_dir():
            yield from () if pattern.name == "**" else _walk(match)
        elif _is_regular(match):
            yield match
    if not found:
        raise DataError(f"data.source = {spec}: no file matches this glob (looked in {base})")


def _walk(root: Path) -> Iterator[Path]:
    """Regular, visible files below `root`; links to folders are not followed, so that loops end."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and _is_regular(path):
                yield path


def _is_regular(path: Path) -> bool:
    """Whether opening it for reading cannot block for ever, as a pipe's would."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
