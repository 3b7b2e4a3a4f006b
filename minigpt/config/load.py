"""A preset's name or a YAML file, with overrides -> a validated RunConfig."""

import difflib
import os
import select
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from minigpt.config.checks import advice
from minigpt.config.overrides import with_overrides
from minigpt.config.presets import presets
from minigpt.config.problems import explained, misplaced, refusal, unfit_numbers
from minigpt.config.renamed import with_present_names
from minigpt.config.run_config import RunConfig
from minigpt.config.yaml_text import Written, read_mapping
from minigpt.errors import ConfigError

_MAX_BYTES = 1 << 20
PATIENCE_SECONDS = 10.0
"""How long a pipe may keep us waiting for its next bytes."""


@dataclass(frozen=True)
class LoadedConfig:
    """A valid configuration and where it comes from."""

    config: RunConfig
    name: str
    """The preset's name, or the file's without its suffix: what the run is called."""
    path: Path
    warnings: tuple[str, ...]
    """What is allowed but probably not meant, one line each."""


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedConfig:
    """The preset or YAML file with `section.key=value` overrides; ConfigError has one line a problem."""
    path = find_config(name_or_path)
    config = validated(read_mapping(_text(path), _short(path)), overrides)
    return LoadedConfig(config, path.stem, path, tuple(advice(config)))


def validated(written: Written, overrides: Sequence[str] = ()) -> RunConfig:
    """The RunConfig that was written, overrides included; ConfigError has one line a problem."""
    written, problems = with_overrides(with_present_names(written), overrides)
    values, more = misplaced(written)
    unfit = unfit_numbers(values, written)
    problems += more + unfit
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        said = {place for place, _ in unfit}
        others = [problem for problem in explained(error, written) if problem[0] not in said]
        raise refusal(problems + others) from None
    if problems:
        raise refusal(problems)
    return config


def find_config(name_or_path: str) -> Path:
    """The file of a preset's name, or of a path. Raises ConfigError that names what there is."""
    known = presets()
    if name_or_path in known:
        return known[name_or_path].path
    if not name_or_path.strip():
        raise ConfigError(f"--config is empty; give a preset ({', '.join(known)}) or a YAML file")
    try:
        path = Path(name_or_path).expanduser()
        if path.is_dir():
            inside = path / "config.yaml"
            hint = f"give the file {inside}" if inside.is_file() else "give a YAML file or a preset's name"
            raise ConfigError(f"--config {name_or_path} is a folder; {hint}")
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # a name too long, links in a circle, ~nobody
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"--config {name_or_path}: {why}; give a preset ({', '.join(known)}) or a YAML file"
        ) from None
    if path.suffix in (".yaml", ".yml") or os.sep in name_or_path or "/" in name_or_path:
        raise ConfigError(
            f"--config {name_or_path}: there is no such file (from {Path.cwd()}); presets: {', '.join(known)}"
        )
    near = difflib.get_close_matches(name_or_path, known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"unknown preset {name_or_path!r}; {hint}presets: {', '.join(known)}; or give a path to a YAML file"
    )


def _text(path: Path) -> str:
    try:
        content = _content(path)
    except OSError as error:
        raise ConfigError(f"{_short(path)}: cannot be read: {error.strerror}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            f"{_short(path)}: larger than {_MAX_BYTES} bytes, so it is no configuration; give a YAML file"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{_short(path)}:{line}: not UTF-8 text; save the file as UTF-8") from None


def _content(path: Path) -> bytes:
    """At most a byte more than a configuration may have; a pipe that nobody fills is not waited for."""
    content = b""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        while len(content) <= _MAX_BYTES and select.select([file], [], [], PATIENCE_SECONDS)[0]:
            piece = file.read(_MAX_BYTES + 1 - len(content))
            if not piece:
                break
            content += piece
        else:
            if len(content) <= _MAX_BYTES:
                raise ConfigError(f"{_short(path)}: a pipe that nobody writes to the end; give a YAML file")
        if not content and stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            raise ConfigError(f"{_short(path)}: an empty pipe; give a YAML file")
    return content


def _short(path: Path) -> str:
    """The path as a reader of messages wants it: relative where it lies below the current folder."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)
