"""The data that a run reads: waited for with an ear for interrupts, and given up by all ranks together."""

import time
from collections.abc import Iterator
from contextlib import closing

import torch

from minigpt.data.loader import Batch, StepBatches, validation_batches
from minigpt.data.prefetch import Prefetcher
from minigpt.data.windows import Windows
from minigpt.distributed.world import World
from minigpt.errors import DataError
from minigpt.training.run import Run
from minigpt.training_monitor.event import Event

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 30.0
"""Without data for so long, the run says so."""


def next_batches(run: Run) -> StepBatches | None:
    """The next step's data; None, on every rank, where one was interrupted while data were missing.

    Every rank is to call it: while one waits, all do, so that an interrupt of any of them is heard.

    Raises:
        DataError: on every rank, when those of one cannot be read.
    """
    watch = _Watch(run, run.loader.windows)
    while True:
        ready = run.loader.wait(POLL_SECONDS)
        failure = run.loader.failure
        lost = isinstance(failure, DataError | OSError)
        flags = torch.tensor([float(not ready), float(lost), float(bool(run.interrupt))])
        late, failed, interrupted = run.world.sum(flags).tolist()
        if failed:
            raise _shared(run.world, failure if lost else None)
        if not late:
            watch.over()
            return run.loader.next_step()
        if interrupted:
            return None
        watch.look()


class ValidationSupply:
    """The validation batches of one evaluation on this rank, read in the background.

    None among them: there will be no more, because the run was interrupted while it waited or they cannot be read.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._failure: BaseException | None = None

    def __iter__(self) -> Iterator[Batch | None]:
        run, world = self._run, self._run.world
        batches = validation_batches(
            run.validation,
            run.micro_batch_size,
            run.config.eval_tokens,
            rank=world.rank,
            world_size=world.size,
        )
        watch = _Watch(run, run.validation)
        with closing(Prefetcher(batches, depth=2)) as reader:
            while True:
                while not reader.wait(POLL_SECONDS):
                    if run.interrupt:
                        yield None
                        return
                    watch.look()
                watch.over()
                if isinstance(reader.failure, DataError | OSError):
                    self._failure = reader.failure
                    yield None
                    return
                try:
                    batch = reader.take()
                except StopIteration:
                    return
                yield batch

    def check(self) -> None:
        """Nothing, where no rank was refused its data; every rank is to call it.

        Raises:
            DataError: one was.
        """
        if self._run.world.any(self._failure is not None):
            raise _shared(self._run.world, self._failure)


class _Watch:
    """Says once that the data do not come, and once that they are back."""

    def __init__(self, run: Run, windows: Windows) -> None:
        self._run, self._windows = run, windows
        self._began_at: float | None = None
        self._told = False

    def look(self) -> None:
        """There are none."""
        now = time.monotonic()
        self._began_at = now if self._began_at is None else self._began_at
        if self._told or now - self._began_at < PATIENCE_SECONDS:
            return
        self._told = True
        path = self._windows.tokens.reading
        place = "on another rank" if path is None else f"reading {path}"
        self._say(
            f"no data for {PATIENCE_SECONDS:.0f} seconds ({place}): a stuck disk, mount or network? Still waiting; "
            "Ctrl-C saves the run and leaves"
        )

    def over(self) -> None:
        """There are some."""
        if self._told and self._began_at is not None:
            self._say(f"the data are back after {time.monotonic() - self._began_at:.0f} seconds")
        self._began_at, self._told = None, False

    def _say(self, text: str) -> None:
        self._run.sinks.event(Event(self._run.position.step, "note", "data", text, interrupts=True))


def _shared(world: World, failure: BaseException | None) -> DataError:
    """The first rank's failure, on every rank: whoever speaks for all has something to say."""
    own = None
    if isinstance(failure, DataError):
        own = str(failure)
    elif failure is not None:
        own = f"the data cannot be read: {failure}"
    texts = world.gather(own)
    return DataError(next((text for text in texts if text is not None), "the data cannot be read"))
