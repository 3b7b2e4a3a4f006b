"""A configuration as complete YAML, and the differences between two."""

from collections.abc import Iterable
from typing import Any

import yaml

from minigpt.config.problems import shown
from minigpt.config.run_config import RunConfig
from minigpt.config.yaml_text import KeyPath, scalar


def to_yaml(config: RunConfig) -> str:
    """Every key with its value; load_config reads it back to an equal configuration."""
    text: str = yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text


def differences(before: RunConfig, after: RunConfig) -> list[str]:
    """One line a key that differs, such as 'training.max_steps: 100 -> 200', in the order of the sections."""
    old, new = _leaves(before.model_dump(mode="json")), _leaves(after.model_dump(mode="json"))
    return [
        f"{'.'.join(path)}: {shown(old[path])} -> {shown(new[path])}"
        for path in old
        if old[path] != new[path]
    ]


class _Dumper(yaml.SafeDumper):
    """Block sections, lists on one line, and quotes around text that would read back as something else."""

    def represent_sequence(
        self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        node: yaml.SequenceNode = super().represent_sequence(tag, sequence, flow_style=True)
        return node

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = None if isinstance(scalar(data), str) else "'"
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _leaves(values: dict[str, Any], path: KeyPath = ()) -> dict[KeyPath, Any]:
    found: dict[KeyPath, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, (*path, key)) if isinstance(value, dict) and value else {(*path, key): value}
    return found
