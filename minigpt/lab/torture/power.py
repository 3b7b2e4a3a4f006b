"""A disk that forgets what nobody forced onto it: the worst that a power failure may leave behind.

The model is that of POSIX without any kindness of a file system: a file's bytes are safe once it was fsynced, a name in
a folder once the folder was. Sources: fsync(2); Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014).
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.lab.torture.file_calls import OPENS, REMOVALS, RENAMES, SYNCS, WRITES, FileCall
from minigpt.training.folder import METRICS_NAME


@dataclass(frozen=True)
class _NewName:
    """A name that came into a folder and is not safe yet."""

    path: Path
    before: Path | None
    """Of a rename: the name that the file had; None: it was made."""
    replaced: Path | None
    """What stood there before, kept for this."""


@dataclass
class Disk:
    """Sees every call below `root` before it is carried out, and can lose power."""

    root: Path
    _safe_bytes: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of files that were written: how many bytes are safe."""
    _new_names: dict[Path, list[_NewName]] = field(default_factory=dict)
    """By folder."""
    _just_renamed: set[Path] = field(default_factory=set)
    _kept: int = 0

    def see(self, call: FileCall) -> None:
        """A call that is about to be carried out."""
        if call.path.name == METRICS_NAME or call.name in REMOVALS:
            self._just_renamed.clear()
        if call.name in SYNCS:
            self._sync(call.path)
        elif call.name in WRITES:
            self._written(call.path)
        elif call.name in RENAMES and call.target is not None:
            self._renamed(call.path, call.target)
        elif call.name in (*OPENS, "mkdir", "mkdirat") and not call.path.exists():
            self._named(_NewName(call.path, None, None))

    def is_relied_upon(self, path: Path) -> bool:
        """Whether the process had gone on after the file was there: trained, or let go of an older one."""
        return path not in self._just_renamed

    def lose_power(self) -> None:
        """Nothing is left that was not forced to the disk; removals, the worst for us, did reach it."""
        for folder, _, names in os.walk(self.root):
            for path in (Path(folder, name) for name in names):
                safe = self._safe_bytes.get(_inode(path))
                if safe is not None and path.stat().st_size > safe:
                    os.truncate(path, safe)
        for new in reversed([new for names in self._new_names.values() for new in names]):
            self._undo(new)

    def _undo(self, new: _NewName) -> None:
        if not new.path.exists():
            return
        if new.before is not None:
            with contextlib.suppress(FileNotFoundError):
                new.path.rename(new.before)
        elif new.path.is_dir():
            _remove_tree(new.path)
        else:
            new.path.unlink()
        if new.replaced is not None and new.replaced.exists():
            new.replaced.rename(new.path)

    def _sync(self, path: Path) -> None:
        if path.is_dir():
            self._new_names.pop(path, None)
        elif path.exists():
            self._safe_bytes[_inode(path)] = path.stat().st_size

    def _written(self, path: Path) -> None:
        if path.is_file():
            # What it held before this process came is safe.
            self._safe_bytes.setdefault(_inode(path), path.stat().st_size)

    def _renamed(self, path: Path, target: Path) -> None:
        replaced = None
        self._just_renamed.add(target)
        if target.is_file():
            side = self.root / ".replaced"
            side.mkdir(exist_ok=True)
            self._kept += 1
            replaced = side / str(self._kept)
            os.link(target, replaced)
        self._named(_NewName(target, path, replaced))

    def _named(self, new: _NewName) -> None:
        self._new_names.setdefault(new.path.parent, []).append(new)


def _inode(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino


def _remove_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
