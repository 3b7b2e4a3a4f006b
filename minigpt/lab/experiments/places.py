"""Paths of a configuration as seen from the user's folder: each training of an experiment has a folder of its own."""

import json
from pathlib import Path

from minigpt.config.run_config import RunConfig
from minigpt.data.sources.registry import SOURCES

_HUB = "hf:"


def path_overrides(config: RunConfig) -> tuple[str, ...]:
    """Overrides that make the configuration's relative paths absolute, from the current folder; () where none is."""
    data = config.data
    sources = [data.source] if isinstance(data.source, str) else data.source
    placed = {
        "source": [_placed_source(source) for source in sources],
        "tokenizer.path": _placed(data.tokenizer.path),
        "cache_dir": _placed(data.cache_dir),
    }
    found = {"source": list(sources), "tokenizer.path": data.tokenizer.path, "cache_dir": data.cache_dir}
    return tuple(
        f"data.{key}={json.dumps(placed[key], ensure_ascii=False)}"
        for key in placed
        if placed[key] != found[key]
    )


def _placed_source(spec: str) -> str:
    if spec.startswith(_HUB):
        # A dataset's name, or a folder that holds one.
        name = spec.removeprefix(_HUB)
        return f"{_HUB}{_placed(name)}" if Path(name).expanduser().exists() else spec
    return spec if spec in SOURCES or not spec.strip() else str(_placed(spec))


def _placed(path: str | None) -> str | None:
    # ~ is left alone: it means the same everywhere.
    return path if path is None or path.startswith("~") else str(Path(path).absolute())
