"""What a training process is doing, read off its main thread's stack all the time and left where its watcher looks."""

import mmap
import sys
import threading
import time
from types import FrameType

PLACES = {
    # File (in minigpt/) and function: what it is called. The innermost of a stack counts.
    ("training/rollback.py", "roll_back"): "rollback",
    ("training/aside.py", "set_newer_aside"): "moving later checkpoints aside",
    ("training/aside.py", "set_aside"): "moving an earlier run aside",
    ("training/folder.py", "describe_run"): "writing config.yaml and tokenizer.json",
    ("training/records.py", "open_sinks"): "cutting the records back",
    ("checkpoint/save.py", "save_checkpoint"): "writing a checkpoint",
    ("checkpoint/save.py", "apply_retention"): "retention",
    ("training/save.py", "save"): "about to write a checkpoint",
    ("training/loop.py", "_evaluate"): "evaluation",
    ("training/compilation.py", "compile_model"): "compiling",
    ("training/step.py", "train_step"): "step",
    ("training/observe.py", "_observe"): "recording a step",
    ("training/resume.py", "corpus_of_run"): "prepare",
    ("data/prepare.py", "prepare"): "prepare",
    ("training/build.py", "build_run"): "building the run",
    ("training/resume.py", "resumed_order"): "reading checkpoints",
    ("training/state.py", "restore_state"): "restoring a checkpoint",
    ("training/ending.py", "ended"): "ending",
    ("training/loop.py", "train"): "between steps",
    ("cli/main.py", "run"): "start and end of the process",
}
NAMES = ("not yet in minigpt", *dict.fromkeys(PLACES.values()))
BEFORE_FIRST_STEP = "before a step is trained"
_RESTED_SECONDS = 0.0005
_SWITCH_SECONDS = 0.0005


class Seat:
    """Shared by a process and the one that it was forked from: where the process is, and whether it has trained."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    def clear(self) -> None:
        """Before the next process takes the seat."""
        self._shared[:2] = b"\0\0"

    @property
    def place(self) -> str:
        """Where it was seen last, at most a millisecond ago while Python runs."""
        return NAMES[self._shared[0]]

    @property
    def has_trained(self) -> bool:
        """Whether this process had begun a step."""
        return bool(self._shared[1])

    def watch_this_thread(self) -> None:
        """From now on a thread of its own tells where the calling thread is."""
        watched = threading.get_ident()
        sys.setswitchinterval(_SWITCH_SECONDS)
        threading.Thread(target=self._tell, args=(watched,), name="whereabouts", daemon=True).start()

    def _tell(self, watched: int) -> None:
        while True:
            place = _place_of(sys._current_frames().get(watched))
            if place == "step":
                self._shared[1] = 1
            self._shared[0] = NAMES.index(place)
            time.sleep(_RESTED_SECONDS)


def _place_of(frame: FrameType | None) -> str:
    while frame is not None:
        code = frame.f_code
        file = code.co_filename.rpartition("minigpt/")[2]
        if (found := PLACES.get((file, code.co_name))) is not None:
            return found
        frame = frame.f_back
    return NAMES[0]
