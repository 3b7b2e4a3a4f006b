"""Files named by the user: files, folders and globs, `~` and relative paths included."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from minigpt.data.sources.files import CorpusFile
from minigpt.errors import DataError

_MAGIC = re.compile(r"[*?\[]")


def find_files(specs: Sequence[str], excluded: Path) -> list[CorpusFile]:
    """The regular files that `specs` name, each once, sorted by path, named relative to their common folder.

    Hidden ones in folders are left out, and the folder `excluded`: our own cache may lie in the corpus."""
    folder_of = cache(os.path.realpath)
    unique: dict[str, str] = {}
    for spec in specs:
        path = _expanded(spec)
        found = list(_matches(spec, path, excluded))
        if not found:
            raise DataError(
                f"data.source = {spec}: no files in {path.absolute()}; name a folder or glob with text"
            )
        for file in sorted(found):
            folder, name = os.path.split(file)
            is_link = Path(file).is_symlink()
            unique.setdefault(
                os.path.realpath(file) if is_link else f"{folder_of(folder)}{os.sep}{name}", file
            )
    files = sorted(unique.values())
    base = os.path.commonpath([os.path.split(file)[0] for file in files])
    return [CorpusFile(Path(file), Path(file).relative_to(base).as_posix()) for file in files]


def _expanded(spec: str) -> Path:
    if not spec.strip():
        raise DataError("data.source is empty; give a path, hf:NAME, python-stdlib or python-env")
    try:
        return Path(os.path.normpath(Path(spec).expanduser().absolute()))
    except RuntimeError as error:  # ~nobody
        raise DataError(f"data.source = {spec}: no such home folder; write the whole path") from error


def _matches(spec: str, path: Path, excluded: Path) -> Iterator[str]:
    try:
        if path.is_dir():
            yield from _walk(path, excluded)
        elif path.is_file():
            yield str(path)
        elif path.is_symlink() and not path.exists():
            raise DataError(f"data.source = {spec}: a symbolic link to nowhere ({path.readlink()})")
        elif path.exists():
            raise DataError(
                f"data.source = {spec}: neither a regular file nor a folder (a pipe or a device?); save it as a file"
            )
        elif _MAGIC.search(str(path)):
            yield from _glob(spec, path, excluded)
        else:
            raise DataError(
                f"data.source = {spec}: no such file or folder (looked for {path}); "
                "give text files, globs or folders, hf:NAME, python-stdlib or python-env"
            )
    except PermissionError as error:
        raise DataError(f"data.source = {spec}: no permission to read {error.filename}") from error
    except OSError as error:  # a name too long, links in a circle
        raise DataError(
            f"data.source = {spec}: {error.strerror}; give text files, globs or folders"
        ) from error


def _glob(spec: str, path: Path, excluded: Path) -> Iterator[str]:
    fixed = next(i for i, part in enumerate(path.parts) if _MAGIC.search(part))
    base, pattern = Path(*path.parts[:fixed]), Path(*path.parts[fixed:])
    wants_hidden = any(part.startswith(".") for part in pattern.parts)
    found = False
    for match in base.glob(str(pattern)):
        if not wants_hidden and any(part.startswith(".") for part in match.relative_to(base).parts):
            continue
        if match == excluded or excluded in match.parents:
            continue
        found = True
        if match.is_dir():
            # "**" finds what is in there by itself.
            yield from () if "**" in pattern.parts else _walk(match, excluded)
        elif match.is_file():
            yield str(match)
    if not found:
        raise DataError(
            f"data.source = {spec}: no file matches this glob (looked in {base}); try it with ls, in quotes"
        )


def _walk(root: Path, excluded: Path) -> Iterator[str]:
    """Regular, visible files below `root`; links to folders are not followed, so that loops end.

    Pipes and devices are passed over: opening one could block for ever."""
    if root == excluded:
        return
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), excluded)
            elif _is_regular(entry):
                yield entry.path


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False
