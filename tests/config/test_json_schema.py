import json

import pytest
from jsonschema import Draft202012Validator

from minigpt.config.json_schema import json_schema
from minigpt.config.keys import all_keys
from minigpt.config.presets import presets
from minigpt.config.yaml_text import read_mapping


def test_schema_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(json.loads(json.dumps(json_schema())))


@pytest.mark.parametrize("name", presets())
def test_schema_accepts_every_preset(name: str) -> None:
    text = presets()[name].path.read_text(encoding="utf-8")
    Draft202012Validator(json_schema()).validate(read_mapping(text, name).values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"training": {"max_step": 3}},
        {"training": {"max_steps": 0}},
        {"optimizer": {"learning_rate": "fast"}},
        {"optimizer": {"betas": [0.9]}},
        {"monitor": {"language": "fr"}},
    ],
)
def test_schema_refuses_what_load_config_refuses(wrong: dict[str, object]) -> None:
    assert not Draft202012Validator(json_schema()).is_valid(wrong)


def test_every_key_says_what_it_is() -> None:
    assert [".".join(path) for path, rule in all_keys().leaves.items() if "description" not in rule] == []
