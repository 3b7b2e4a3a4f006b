"""When and how a process is struck, and how it ended."""

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.lab.torture import seccomp
from minigpt.lab.torture.file_calls import FileCall, file_call, tear
from minigpt.lab.torture.victim import Victim
from minigpt.lab.torture.whereabouts import BEFORE_FIRST_STEP, Seat

HANG_SECONDS = 300.0
_POLL_SECONDS = 0.001
OnCall = Callable[[FileCall], None]


@dataclass(frozen=True)
class Blow:
    """A signal at one moment: after a time, at the n-th call that changes a file, or in a certain place."""

    number: int = signal.SIGKILL
    after_seconds: float | None = None
    """Since the start, or with `in_place` since it was seen there."""
    at_call: int | None = None
    """1 for the first: the process dies before it."""
    torn: bool = False
    """At a write: half of it is carried out."""
    in_place: str | None = None
    again_after_seconds: float | None = None
    """A second signal, so long after the first: leave at once."""

    def __str__(self) -> str:
        words = [signal.Signals(self.number).name]
        if self.at_call is not None:
            words.append(f"at file call {self.at_call}{', torn' if self.torn else ''}")
        if self.in_place is not None:
            words.append(f"in {self.in_place}")
        if self.after_seconds is not None:
            words.append(f"after {self.after_seconds:.4f} s")
        if self.again_after_seconds is not None:
            words.append(f"again after {self.again_after_seconds:.3f} s")
        return " ".join(words)


@dataclass(frozen=True)
class End:
    """How a process ended."""

    code: int
    """Its exit code; negative: the signal that killed it."""
    struck: bool
    """Whether the blow came before its end."""
    place: str
    """Where it was when it was struck."""
    call: str | None
    """The file call that it was about to make, where these were held up."""
    calls: int
    """File calls that it made."""
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether it died of it."""
        return self.code == -signal.SIGKILL


@dataclass
class _Watch:
    """A process as it is being watched."""

    victim: Victim
    blow: Blow | None
    seat: Seat
    roots: tuple[Path, ...]
    on_call: OnCall | None
    began: float = field(default_factory=time.monotonic)
    calls: int = 0
    struck_at: float | None = None
    place: str = ""
    call: str | None = None

    def strike(self, call: FileCall | None = None) -> None:
        assert self.blow is not None
        self.struck_at = time.monotonic()
        self.place = self.seat.place
        if not self.seat.has_trained and self.place == "between steps":
            self.place = BEFORE_FIRST_STEP
        self.call = None if call is None else str(call)
        os.kill(self.victim.pid, self.blow.number)

    def is_due(self, seen_at: float | None) -> bool:
        blow = self.blow
        if blow is None or blow.after_seconds is None or self.struck_at is not None:
            return False
        since = self.began if blow.in_place is None else seen_at
        return since is not None and time.monotonic() - since >= blow.after_seconds


def watched(
    victim: Victim, blow: Blow | None, seat: Seat, roots: tuple[Path, ...], on_call: OnCall | None = None
) -> End:
    """The end of the process, which is struck on the way. Of held-up calls, those below `roots` count.

    Raises:
        TimeoutError: it hangs; it was killed.
    """
    watch = _Watch(victim, blow, seat, roots, on_call)
    try:
        code = _until_it_ends(watch)
    finally:
        if victim.listener is not None:
            os.close(victim.listener)
    seconds = time.monotonic() - watch.began
    return End(code, watch.struck_at is not None, watch.place, watch.call, watch.calls, seconds)


def _until_it_ends(watch: _Watch) -> int:
    victim, blow, seen_at, again = watch.victim, watch.blow, None, False
    poll = select.poll()
    if victim.listener is not None:
        poll.register(victim.listener, select.POLLIN)
    while True:
        if victim.listener is None:
            time.sleep(_POLL_SECONDS)
        elif any(event & select.POLLIN for _, event in poll.poll(1)):
            _held_up(watch)
        pid, status = os.waitpid(victim.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if blow is not None and seen_at is None and watch.seat.place == blow.in_place:
            seen_at = time.monotonic()
        if watch.is_due(seen_at):
            watch.strike()
        if blow is not None and blow.again_after_seconds is not None and watch.struck_at and not again:
            again = time.monotonic() - watch.struck_at >= blow.again_after_seconds
            if again:
                os.kill(victim.pid, blow.number)
        if time.monotonic() - watch.began > HANG_SECONDS:
            os.kill(victim.pid, signal.SIGKILL)
            os.waitpid(victim.pid, 0)
            raise TimeoutError(f"hangs: {watch.seat.place}")


def _held_up(watch: _Watch) -> None:
    """One call: counted and let go, or the process dies before it."""
    listener, blow = watch.victim.listener, watch.blow
    assert listener is not None
    try:
        ticket, thread, number, arguments = seccomp.receive(listener)
        call = file_call(thread, number, arguments)
        if call is not None and any(call.path.is_relative_to(root) for root in watch.roots):
            watch.calls += 1
            if blow is not None and watch.calls == blow.at_call:
                if blow.torn:
                    tear(call)
                watch.strike(call)
                if blow.number == signal.SIGKILL:
                    return
            if watch.on_call is not None:
                watch.on_call(call)
        seccomp.let_go_on(listener, ticket)
    except OSError:  # the process died meanwhile
        return
