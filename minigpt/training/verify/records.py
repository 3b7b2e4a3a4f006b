"""metrics.jsonl and events.jsonl: every line, every step, and the very bytes that the checkpoints vouch for."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.checkpoint.damage import DamagedError, opened
from minigpt.training.verify.checkpoints import Vouched
from minigpt.training.verify.report import Checked

_LONGEST_LINE = 1 << 24
_LARGEST_STEP = 1 << 53


class _VouchedForError(DamagedError):
    """Bytes are not as a good checkpoint has them: damage, wherever it stands."""


@dataclass
class _Seen:
    """What the lines until now came to."""

    lines: int = 0
    torn: bool = False
    first_step: int | None = None
    last_step: int = 0


def check_events(path: Path, vouched: Sequence[Vouched]) -> tuple[Checked, int]:
    """What is wrong with events.jsonl, and the step that the run began at in this folder."""
    seen, begun_at, prefixes = _Seen(), None, _Prefixes(path, vouched)
    try:
        for record in _records(path, prefixes, seen):
            step = record.get("step")
            if (
                not isinstance(step, int)
                or abs(step) > _LARGEST_STEP
                or not isinstance(record.get("kind"), str)
            ):
                raise DamagedError(path, f"line {seen.lines} has no step and kind")
            if record["kind"] in ("save", "resume"):
                begun_at = min(record["step"], record["step"] if begun_at is None else begun_at)
        prefixes.finish()
    except DamagedError as error:
        return Checked(path.name, "damaged", f"{error.what}; no resume needs it"), begun_at or 0
    return _sound(path, seen, f"{seen.lines:,} events"), begun_at or 0


def check_metrics(path: Path, vouched: Sequence[Vouched], begun_at: int) -> Checked:
    """What is wrong with metrics.jsonl: each step once and in order, up to the newest good checkpoint at least.

    What comes after that is no loss, whatever it is: a resume drops it.
    """
    newest = max((each.step for each in vouched), default=None)
    # Events that say that the run began after its newest checkpoint are wrong themselves.
    seen = _Seen(last_step=begun_at if newest is None or begun_at <= newest else 0)
    prefixes = _Prefixes(path, vouched)
    try:
        for record in _records(path, prefixes, seen):
            step = record.get("step")
            if step != seen.last_step + 1 or not isinstance(step, int):
                raise DamagedError(
                    path, f"line {seen.lines} has step {step!r:.40} after step {seen.last_step}"
                )
            seen.first_step = step if seen.first_step is None else seen.first_step
            seen.last_step = step
        if newest is not None and newest > seen.last_step:
            raise DamagedError(
                path, f"it ends at step {seen.last_step}, and checkpoint_step_{newest}.pt was saved"
            )
        prefixes.finish()
    except DamagedError as error:
        past_newest = newest is not None and seen.last_step >= newest and seen.lines > 0
        if past_newest and not isinstance(error, _VouchedForError):
            text = (
                f"{error.what} (after step {newest}, that of the newest good checkpoint: --resume drops it)"
            )
            return Checked(path.name, "note", text)
        return Checked(path.name, "damaged", f"{error.what}; a resume goes on without what is lost")
    span = "no step yet"
    if seen.first_step is not None:
        span = f"steps {seen.first_step:,} to {seen.last_step:,}, each once"
    return _sound(path, seen, span)


def _records(path: Path, prefixes: "_Prefixes", seen: _Seen) -> Iterator[dict[str, Any]]:
    """Every whole line's record; once it has been looked at, the digests of the first bytes up to its end.

    Raises:
        DamagedError: a line is no record, or bytes are not those that were there when a checkpoint was taken.
    """
    with opened(path) as file:
        while line := file.readline(_LONGEST_LINE):
            seen.torn = not line.endswith(b"\n")
            if seen.torn and len(line) < _LONGEST_LINE:
                break
            seen.lines += 1
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DamagedError(path, f"line {seen.lines} is no JSON") from error
            if not isinstance(record, dict):
                raise DamagedError(path, f"line {seen.lines} is no record")
            yield record
            prefixes.feed(line)


class _Prefixes:
    """The digests of a growing file's beginnings, compared with what the checkpoints took down."""

    def __init__(self, path: Path, vouched: Sequence[Vouched]) -> None:
        self._path, self._digest, self._size = path, hashlib.sha256(), 0
        known = ((*each.records[path.name], each.path) for each in vouched if path.name in each.records)
        self._awaited = sorted(known, key=lambda entry: entry[0], reverse=True)

    def feed(self, data: bytes) -> None:
        while self._awaited and self._awaited[-1][0] <= self._size + len(data):
            length, expected, by = self._awaited.pop()
            digest = self._digest.copy()
            digest.update(data[: length - self._size])
            if digest.hexdigest() != expected:
                raise _VouchedForError(
                    self._path, f"its first {length:,} bytes are not those that {by.name} vouches for"
                )
        self._digest.update(data)
        self._size += len(data)

    def finish(self) -> None:
        if self._awaited and self._awaited[0][0] > self._size:
            length, _, by = self._awaited[0]
            raise _VouchedForError(
                self._path, f"it has {self._size:,} bytes, and {by.name} vouches for {length:,}"
            )


def _sound(path: Path, seen: _Seen, text: str) -> Checked:
    if seen.torn:
        text += "; its last line is being written, or was cut by a kill: --resume drops it"
        return Checked(path.name, "note", text)
    return Checked(path.name, "good", text)
