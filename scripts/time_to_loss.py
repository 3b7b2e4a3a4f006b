#!/usr/bin/env python3
"""How long MiniGPT needs for the loss that nanoGPT's recipe ends with: whole trainings, side by side, several seeds.

    python scripts/time_to_loss.py                       # small: nanoGPT 300 steps, MiniGPT a third of its time
    python scripts/time_to_loss.py --steps 400 --shares 0.25 0.3333 0.5 --folder runs/
    python scripts/time_to_loss.py --peer nanogpt:optimizer.learning_rate=2e-3
    python scripts/time_to_loss.py --ablate --steps 200             # each part of the preset's recipe turned off or on
    python scripts/time_to_loss.py --recipe wsd:schedule.kind=wsd --lengths 150

Both train on the same text, windows, tokens a step and precision, compiled, and are evaluated on the same validation
windows. MiniGPT is `minigpt train` itself with its monitor and records; nanoGPT's is a bare loop with fused AdamW.
First both make steps in turn, as in bench_training.py: time is steps at that pace (the median of the rounds), so
evaluations, checkpoints and compiling are nobody's, and what the machine does during the trainings touches no figure.
Then each training runs to the end of its own schedule, in a process of its own. --folder keeps what was measured and
trained, and a second call goes on from there. With --ablate, step times are those of the trainings themselves.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("minigpt") is None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.lab.script import run_script
from minigpt.lab.time_to_loss.command import run

if __name__ == "__main__":
    run_script(run, __doc__)
