"""Trainings on small, read-only and vanishing disks: tmpfs in a namespace of its own, where mounting is nobody's risk.

    unshare -rm setpriv --bounding-set=-dac_override,-dac_read_search python -m tests.training.small_disk FOLDER

Prints one JSON object: scene -> what became of the run. Without these two capabilities root obeys permissions too.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from minigpt.checkpoint.files import checkpoints_by_step
from minigpt.checkpoint.load import load_checkpoint
from minigpt.cli.main import run as command
from minigpt.training import pretrain
from minigpt.training.build import build_run
from minigpt.training.run import Run
from tests.training.tiny_run import Workshop, before_step

Hook = Callable[[Run], None]
GO_ON, STOP = "checkpoint.on_write_error=go_on", "checkpoint.on_write_error=stop"
SMALL = "size=760k"
"""Room for three checkpoints of 209 kB, with records; the fourth is refused."""
KEEP_ALL = ("checkpoint.keep_last=99", "checkpoint.every_steps=2")


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def tmpfs(place: Path, options: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(place))
    return place


def call(*words: str) -> dict[str, Any]:
    """The command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: int | str = command(list(words))
        except Exception as error:  # a traceback, which no user may see
            code = f"{type(error).__name__}: {error}"
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def trained(
    workshop: Workshop, run_dir: Path, *overrides: str, hook: Hook | None = None, resume: bool = False
) -> dict[str, Any]:
    """A training, whose built run `hook` has seen, and what lies in its folder then."""

    def build(*arguments: Any, **named: Any) -> Run:
        run = build_run(*arguments, **named)
        if hook is not None:
            hook(run)
        return run

    cast("Any", pretrain).build_run = build
    sets = [word for override in overrides for word in ("--set", override)]
    words = ["train", "--config", workshop.config_path, "--run-dir", str(run_dir), *sets]
    found = call(*words, *(["--resume"] * resume))
    with contextlib.suppress(FileNotFoundError):
        found["files"] = sorted(path.name for path in run_dir.iterdir())
    found["steps"] = list(checkpoints_by_step(run_dir)) if run_dir.is_dir() else []
    found["whole"] = [load_checkpoint(path)["step"] for path in checkpoints_by_step(run_dir).values()]
    if 12 in found["whole"]:
        weights = load_checkpoint(run_dir / "checkpoint_step_12.pt")["model_state_dict"]
        found["weights"] = [float(weight.double().sum()) for weight in weights.values()]
    return found


def at_steps(*acts: tuple[int, Callable[[], object]]) -> Hook:
    """Each act right before its step."""

    def hook(run: Run) -> None:
        for step, act in acts:
            before_step(run, step, cast("Callable[[], None]", act))

    return hook


def limited(kind: int, soft: int) -> None:
    resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def lowest_free_file() -> int:
    number = os.dup(0)
    os.close(number)
    return number


def full(workshop: Workshop, place: Path) -> dict[str, Any]:
    disk = tmpfs(place, SMALL)
    stopped = trained(workshop, disk / "run", *KEEP_ALL, STOP)
    mount("-o", "remount,size=9m", str(disk))
    return {"stopped": stopped, "resumed": trained(workshop, disk / "run", resume=True)}


def full_and_freed(workshop: Workshop, place: Path) -> dict[str, Any]:
    disk = tmpfs(place, SMALL)
    free = at_steps((10, lambda: mount("-o", "remount,size=9m", str(disk))))
    return trained(workshop, disk / "run", *KEEP_ALL, GO_ON, hook=free)


def full_to_the_end(workshop: Workshop, place: Path) -> dict[str, Any]:
    return trained(workshop, tmpfs(place, SMALL) / "run", *KEEP_ALL, GO_ON)


def full_with_room_to_make(workshop: Workshop, place: Path) -> dict[str, Any]:
    """Three checkpoints fit, and no fourth beside them until one is gone."""
    few = (
        "checkpoint.keep_last=3",
        "checkpoint.keep_best=false",
        "checkpoint.every_steps=2",
        "monitor.enabled=false",
    )
    return trained(workshop, tmpfs(place, SMALL) / "run", *few, GO_ON)


def interrupted_when_full(workshop: Workshop, place: Path) -> dict[str, Any]:
    def ctrl_c(run: Run) -> None:
        before_step(run, 9, lambda: os.kill(os.getpid(), signal.SIGINT))

    big = ("checkpoint.keep_last=99", "checkpoint.every_steps=100", "training.eval_every_steps=100", STOP)
    disk = tmpfs(place, "size=240k")
    return trained(workshop, disk / "run", *big, hook=ctrl_c)


def no_file_entries(workshop: Workshop, place: Path) -> dict[str, Any]:
    return trained(workshop, tmpfs(place, "size=9m,nr_inodes=13") / "run", *KEEP_ALL)


def read_only(workshop: Workshop, place: Path) -> dict[str, Any]:
    disk = tmpfs(place, "size=9m")
    begun = trained(workshop, disk / "run", "training.max_steps=4")
    mount("-o", "remount,ro", str(disk))
    return {"begun": begun, "resumed": trained(workshop, disk / "run", resume=True)}


def unmounted(workshop: Workshop, place: Path, policy: str, *, comes_back: bool) -> dict[str, Any]:
    (place / "disk").mkdir(parents=True)
    (place / "point").mkdir()
    tmpfs(place / "disk", "size=9m")
    mount("--bind", str(place / "disk"), str(place / "point"))
    acts: list[tuple[int, Callable[[], object]]] = [
        (5, lambda: subprocess.run(["umount", "-l", str(place / "point")], check=True))
    ]
    if comes_back:
        acts.append((11, lambda: mount("--bind", str(place / "disk"), str(place / "point"))))
    found = trained(workshop, place / "point" / "run", *KEEP_ALL, policy, hook=at_steps(*acts))
    return found | {"on_the_disk": list(checkpoints_by_step(place / "disk" / "run"))}


def deleted(workshop: Workshop, place: Path, policy: str) -> dict[str, Any]:
    run_dir = place / "run"
    gone = at_steps((5, lambda: shutil.rmtree(run_dir)))
    return trained(workshop, run_dir, *KEEP_ALL, policy, hook=gone)


def moved(workshop: Workshop, place: Path) -> dict[str, Any]:
    run_dir, other = place / "run", place / "other"
    found = trained(workshop, run_dir, *KEEP_ALL, hook=at_steps((5, lambda: run_dir.rename(other))))
    return found | {"moved": list(checkpoints_by_step(other))}


def without_permission(workshop: Workshop, place: Path) -> dict[str, Any]:
    run_dir = place / "run"
    acts = at_steps((5, lambda: run_dir.chmod(0o555)), (11, lambda: run_dir.chmod(0o755)))
    return trained(workshop, run_dir, *KEEP_ALL, GO_ON, hook=acts)


def limit_on_size(workshop: Workshop, place: Path) -> dict[str, Any]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    acts = at_steps((5, lambda: limited(resource.RLIMIT_FSIZE, 100_000)))
    found = trained(workshop, place / "run", *KEEP_ALL, hook=acts)
    limited(resource.RLIMIT_FSIZE, before)
    return found


def limit_on_files(workshop: Workshop, place: Path) -> dict[str, Any]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    acts = at_steps(
        (6, lambda: limited(resource.RLIMIT_NOFILE, lowest_free_file())),
        (11, lambda: limited(resource.RLIMIT_NOFILE, before)),
    )
    return trained(workshop, place / "run", *KEEP_ALL, GO_ON, hook=acts)


def another_user_s_lock(workshop: Workshop, place: Path) -> dict[str, Any]:
    """Its files are there from an earlier run of somebody who shares the folder."""
    (place / "run").mkdir(parents=True)
    for name in (".lock", ".lock_holder"):
        (place / "run" / name).write_text("process 1 on elsewhere")
        (place / "run" / name).chmod(0o444)
    return trained(workshop, place / "run", "training.max_steps=2")


def full_cache(workshop: Workshop, place: Path) -> dict[str, Any]:
    cache = tmpfs(place, "size=40k")
    (cache / "filler").write_bytes(bytes(36_000))
    words = ["prepare", "--config", workshop.config_path, "--set", f"data.cache_dir={cache}"]
    return call(*words) | {"left": [path.name for path in cache.rglob("*") if path.is_file()]}


SCENES: dict[str, Callable[[Workshop, Path], dict[str, Any]]] = {
    "straight": lambda workshop, place: trained(workshop, place / "run", *KEEP_ALL),
    "full": full,
    "full_and_freed": full_and_freed,
    "full_to_the_end": full_to_the_end,
    "full_with_room_to_make": full_with_room_to_make,
    "interrupted_when_full": interrupted_when_full,
    "no_file_entries": no_file_entries,
    "read_only": read_only,
    "unmounted": lambda workshop, place: unmounted(workshop, place, STOP, comes_back=False),
    "unmounted_and_back": lambda workshop, place: unmounted(workshop, place, GO_ON, comes_back=True),
    "deleted": lambda workshop, place: deleted(workshop, place, STOP),
    "deleted_and_made_anew": lambda workshop, place: deleted(workshop, place, GO_ON),
    "moved": moved,
    "without_permission": without_permission,
    "limit_on_size": limit_on_size,
    "limit_on_files": limit_on_files,
    "another_user_s_lock": another_user_s_lock,
    "full_cache": full_cache,
}


def main() -> None:
    folder = Path(sys.argv[1])
    os.chdir(folder)
    workshop = Workshop.set_up(folder)
    wanted = sys.argv[2:] or list(SCENES)
    print(json.dumps({name: SCENES[name](workshop, folder / name) for name in wanted}))


if __name__ == "__main__":
    main()
