"""Going on where a run stopped: which checkpoint, with which configuration, on which tokens."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from minigpt.checkpoint.health import last_healthy, read_health
from minigpt.checkpoint.load import Loaded, is_run_folder, load_given, load_newest
from minigpt.checkpoint.plausible import check_can_resume
from minigpt.config.dump import differences
from minigpt.config.load import load_config
from minigpt.config.run_config import RunConfig
from minigpt.data.config import TokenizerConfig
from minigpt.data.prepare import Prepared, open_prepared, prepare
from minigpt.data.progress import ShouldStop
from minigpt.data.tokenizer import Tokenizer
from minigpt.errors import CheckpointError, user_path
from minigpt.training.aside import made_whole
from minigpt.training.environment import environment_differences
from minigpt.training.folder import CONFIG_NAME, TOKENIZER_NAME, default_run_dir
from minigpt.training.identity import Order

NEWEST, HEALTHY = "auto", "healthy"


def resumed_order(
    config_name: str | None, overrides: Sequence[str], run_dir: Path | None, resume: str
) -> tuple[Order, Loaded]:
    """The order of the run to go on with, and the checkpoint to go on from.

    With a preset or YAML named, the overrides that the run was started with still hold, then today's on top:
    `--resume` alone repeats the run. Where only a folder is named, its config.yaml, which has the first ones in it,
    and today's. Either file may have been edited since; `what_differs` says what that changes.

    Raises:
        CheckpointError: there is nothing to resume from, or it cannot be read.
    """
    if resume not in (NEWEST, HEALTHY):
        place = user_path(resume, "--resume")
        folder = place if is_run_folder(place) else place.parent
        run_dir = run_dir or folder
        own_config = config_name is None
        config_name = config_name or str(folder / CONFIG_NAME)
        loaded = load_newest(made_whole(place)) if is_run_folder(place) else load_given(place)
    else:
        own_config = config_name is None and run_dir is not None and (run_dir / CONFIG_NAME).is_file()
        config_name = str(run_dir / CONFIG_NAME) if own_config and run_dir else config_name or "small"
        run_dir = run_dir or default_run_dir("pretrain", load_config(config_name, overrides).name)
        loaded = load_newest(made_whole(run_dir), healthy=resume == HEALTHY)
    check_can_resume(loaded.state, loaded.path)
    # Typed again and again, the same override is kept once, in its last place: there it wins as before.
    kept = tuple(reversed(dict.fromkeys(reversed([*loaded.state["overrides"], *overrides]))))
    config = load_config(config_name, overrides if own_config else kept).config
    return Order(loaded.state["name"], run_dir, config, kept), loaded


def is_newest(resume: str) -> bool:
    """Whether `--resume` asks for the newest checkpoint, wherever, and not for a given or a healthy one."""
    return resume == NEWEST or Path(resume).expanduser().is_dir()


def health_warnings(loaded: Loaded) -> list[str]:
    """A line where the checkpoint was taken in the middle of trouble, with the last one that was not."""
    health = read_health(loaded.path)
    if health is None or health.healthy:
        return []
    found = " and ".join(f"{name} ({status})" for name, status in health.open_findings.items())
    last = last_healthy(loaded.path.parent)
    way_out = "none in its folder was taken in health"
    if last is not None:
        place = shlex.quote(str(last.path))
        way_out = f"the last healthy one is {last.path.name}; to go on from that: --resume {place}"
    return [f"{loaded.path.name} was taken with {found} open; {way_out}"]


def what_differs(order: Order, state: dict[str, Any], now: dict[str, str]) -> list[str]:
    """What is not as it was when the checkpoint was written, one line each; `now` is the environment."""
    lines = []
    try:
        before = RunConfig.model_validate(state["config"])
        lines += [f"changed since: {line}" for line in differences(before, order.config)]
    except ValidationError as error:
        lines.append(
            f"the saved config cannot be compared, it is of another version: {error.error_count()} keys"
        )
    compiled = state["position"].get("compiled_from") is not None
    found = environment_differences(state["environment"], now, compiled=compiled)
    lines += [f"changed since: {line}" for line in found]
    return lines


def corpus_of_run(order: Order, loaded: Loaded, should_stop: ShouldStop) -> tuple[Prepared, list[str]]:
    """The tokens to go on with, and lines on what changed.

    The very shards the run began with while they are in the cache; else the corpus as it is now, in the run's own
    tokens: a tokenizer trained anew on a changed corpus would give every id another meaning.

    Raises:
        CheckpointError: the tokens would not be those that the model knows.
    """
    state = loaded.state
    _check_tokenizer(order, state)
    same_settings = state["config"]["data"] == order.config.data.model_dump(mode="json")
    kept = open_prepared(Path(state["corpus"]["folder"])) if same_settings else None
    if isinstance(kept, Prepared) and _is_same(kept, state):
        return kept, []
    lines = []
    if kept is not None:
        wrong = kept if isinstance(kept, str) else "it holds another one"
        folder = state["corpus"]["folder"]
        lines.append(f"the prepared corpus in {folder} cannot be used any more ({wrong}): prepared anew")
    tokenizer_path = loaded.path.parent / TOKENIZER_NAME
    data = order.config.data
    if tokenizer_path.is_file():
        own = TokenizerConfig(kind="file", path=str(tokenizer_path))
        data = data.model_copy(update={"tokenizer": own})
    prepared = prepare(data, should_stop=should_stop)
    if prepared.manifest.tokenizer_id != state["tokenizer_id"]:
        raise CheckpointError(
            f"{tokenizer_path} is missing or not the one that the checkpoint's weights were trained with: "
            "put the run's own tokenizer.json back beside its checkpoint"
        )
    if not _is_same(prepared, state):
        lines.append(
            "the corpus is not the one the run began with: it goes on at the same place in an order of its own"
        )
    return prepared, lines


def _is_same(prepared: Prepared, state: dict[str, Any]) -> bool:
    """Whether these are the tokens that the run began with; checkpoints of old only know of the text."""
    manifest, began = prepared.manifest, state["corpus"]
    same_text = (manifest.fingerprint, manifest.tokenizer_id) == (began["fingerprint"], state["tokenizer_id"])
    return same_text and began.get("tokens_sha256", manifest.tokens_sha256) == manifest.tokens_sha256


def _check_tokenizer(order: Order, state: dict[str, Any]) -> None:
    """Nothing, when the tokenizer asked for is the one that the weights know."""
    asked = order.config.data.tokenizer
    try:
        had = TokenizerConfig.model_validate(state["config"]["data"]["tokenizer"])
    except (KeyError, TypeError, ValidationError):
        raise CheckpointError(
            "the checkpoint's config has no data.tokenizer that can be read; use another checkpoint"
        ) from None
    if asked == had or (asked.path and Tokenizer.load(Path(asked.path)).id == state["tokenizer_id"]):
        return
    (change, *_) = [
        f"data.tokenizer.{name} = {getattr(asked, name)}, and the checkpoint's weights were trained with {value}"
        for name, value in had
        if getattr(asked, name) != value
    ]
    raise CheckpointError(f"{change}; leave it as it was, or start a new run with --run-dir")
