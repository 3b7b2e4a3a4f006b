"""How long a huge corpus takes to open, and how much memory it takes however large it is."""

import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from minigpt.data.config import DataConfig
from minigpt.data.loader import BatchLoader
from minigpt.data.prepare import prepare
from minigpt.data.windows import Windows
from minigpt.lab.data_path.measured import seconds_of, spread
from minigpt.lab.data_path.sparse import pretend_prepared

CONTEXT_LENGTH, MICRO_BATCH_SIZE, STEPS = 1024, 16, 60
_PROGRAM = "import sys; from minigpt.lab.data_path.opening import report; report(sys.argv[1])"


def measure(gigabytes: int, rounds: int) -> list[str]:
    """A corpus of so many GB of tokens on disk: opened and read from all over, each time in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        config = pretend_prepared(Path(folder), tokens=gigabytes * 10**9 // 2)
        command = [sys.executable, "-c", _PROGRAM, config.model_dump_json()]
        seen = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(rounds)
        ]
    return [
        f"  {gigabytes:6,} GB  opens in {spread([one['open_seconds'] for one in seen], '.3f')} s, "
        f"+{max(one['open_mib'] for one in seen):.0f} MiB; "
        f"{STEPS * MICRO_BATCH_SIZE:,} windows from all over it: "
        f"{spread([one['window_microseconds'] for one in seen], '.0f')} us each, "
        f"+{max(one['read_mib'] for one in seen):.0f} MiB"
    ]


def report(config_json: str) -> None:
    """Prints, as JSON, what one process measures."""
    config = DataConfig.model_validate_json(config_json)
    before = _peak_mib()
    open_seconds = seconds_of(lambda: prepare(config, progress=False))
    opened = _peak_mib()
    windows = Windows(prepare(config, progress=False).train, CONTEXT_LENGTH)
    loader = BatchLoader(windows, seed=0, micro_batch_size=MICRO_BATCH_SIZE, grad_accum_steps=1)
    drawn = random.Random(0)

    def read() -> None:
        for _ in range(STEPS):
            loader.step_at(drawn.randrange(10 * len(windows)))

    read_seconds = seconds_of(read)
    result = {
        "open_seconds": open_seconds,
        "open_mib": opened - before,
        "window_microseconds": 1e6 * read_seconds / (STEPS * MICRO_BATCH_SIZE),
        "read_mib": _peak_mib() - before,
    }
    print(json.dumps(result))


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
