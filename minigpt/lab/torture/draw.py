"""Which blow comes next: drawn from a seed."""

import random
import signal

from minigpt.lab.torture.blow import Blow
from minigpt.lab.torture.whereabouts import NAMES

_EARLY_CALLS = 150
"""A resume has read, cut back and opened everything by then."""
_PLACE_SECONDS = 0.03
_GENTLE = (signal.SIGTERM, signal.SIGINT)


def drawn_blow(
    random_: random.Random, *, calls: int, seconds: float, may_hold_up: bool, may_be_gentle: bool
) -> Blow:
    """A blow against a process like one that makes `calls` file calls in `seconds`.

    `may_be_gentle`: also signals at which the run saves itself. It then has a checkpoint more to be rolled back to.
    """
    weights = (4 if may_hold_up else 0, 2, 2, 2 if may_be_gentle else 0)
    kind = random_.choices(("call", "clock", "place", "signal"), weights)[0]
    moment = random_.uniform(0, seconds)
    if kind == "call":
        most = calls if random_.random() < 0.6 else _EARLY_CALLS
        return Blow(at_call=random_.randint(1, most), torn=random_.random() < 0.5)
    if kind == "place":
        place = random_.choice(NAMES[1:])
        return Blow(in_place=place, after_seconds=random_.choice((0.0, random_.uniform(0, _PLACE_SECONDS))))
    if kind == "signal":
        again = random_.choice((None, None, random_.uniform(0, 0.1)))
        return Blow(random_.choice(_GENTLE), after_seconds=moment, again_after_seconds=again)
    return Blow(after_seconds=moment)
