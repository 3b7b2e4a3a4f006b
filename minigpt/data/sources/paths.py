"""Files named by the user: files, folders and globs, `~` and relative paths included."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from minigpt.data.sources.files import CorpusFile
from minigpt.errors import DataError

_MAGIC = re.compile(r"[*?\[]")
_RUN_FILES = frozenset(("config.yaml", "tokenizer.json", "metrics.jsonl"))
_TRAINING_LOG = ("logs", "training.log")


def find_files(specs: Sequence[str], excluded: Path) -> list[CorpusFile]:
    """The regular files that `specs` name, each once, sorted by path, named relative to their common folder.

    Hidden ones in folders are left out, and what training itself writes there, which would make another corpus of it
    each time: the folder `excluded` (the cache), run folders, logs/training.log."""
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
    if "\0" in spec:
        raise DataError(f"data.source = {spec!r}: a path cannot hold a NUL character")
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
            f"data.source = {_short(spec)}: {error.strerror or error}; give text files, globs or folders"
        ) from error
    except ValueError as error:  # such as "**x", which older Pythons refuse
        raise DataError(
            f"data.source = {_short(spec)}: {error}; give text files, globs or folders"
        ) from error


def _glob(spec: str, path: Path, excluded: Path) -> Iterator[str]:
    fixed = next(i for i, part in enumerate(path.parts) if _MAGIC.search(part))
    base, pattern = Path(*path.parts[:fixed]), Path(*path.parts[fixed:])
    wants_hidden = any(part.startswith(".") for part in pattern.parts)
    is_run = cache(_is_run)
    found = False
    for match in base.glob(str(pattern)):
        if not wants_hidden and any(part.startswith(".") for part in match.relative_to(base).parts):
            continue
        folders = [folder for folder in match.parents if base in folder.parents]
        if match == excluded or excluded in match.parents or any(is_run(folder) for folder in folders):
            continue
        found = True
        if match.is_dir():
            # "**" finds what is in there by itself.
            yield from () if "**" in pattern.parts else _walk(match, excluded)
        elif match.is_file() and match.parts[-2:] != _TRAINING_LOG:
            yield str(match)
    if not found:
        raise DataError(
            f"data.source = {spec}: no file matches this glob (looked in {base}); try it with ls, in quotes"
        )


def _walk(root: Path, excluded: Path) -> Iterator[str]:
    """Regular, visible files below `root`; links to folders are not followed, so that loops end.

    Pipes and devices are passed over: opening one could block for ever."""
    folders = [str(root)]
    while folders:
        folder = folders.pop()
        if folder == str(excluded):
            continue
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
        if {entry.name for entry in entries} >= _RUN_FILES:
            continue
        is_logs = os.path.basename(folder) == _TRAINING_LOG[0]  # noqa: PTH119 (a million folders)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif _is_regular(entry) and not (is_logs and entry.name == _TRAINING_LOG[1]):
                yield entry.path


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _RUN_FILES)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def _short(spec: str) -> str:
    return spec if len(spec) < 200 else f"{spec[:100]} ... ({len(spec):,} characters)"
