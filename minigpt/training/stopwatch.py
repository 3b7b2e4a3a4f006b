"""How long a step takes."""

import time


class Stopwatch:
    """Seconds from one step to the next, with all the waiting in between but not what `restart` cuts out."""

    def __init__(self) -> None:
        self.last_lap = 0.0
        self.restart()

    def restart(self) -> None:
        self._mark = time.perf_counter()

    def lap(self) -> float:
        mark, self._mark = self._mark, time.perf_counter()
        self.last_lap = self._mark - mark
        return self.last_lap
