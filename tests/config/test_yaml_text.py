from typing import Any

import pytest

from minigpt.config.yaml_text import read_mapping, read_value, scalar
from minigpt.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 0.0003),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("1_000", 1000),
        ("010", 10),
        ("off", "off"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("0x10", "0x10"),
        ("-", "-"),
    ],
)
def test_scalar_is_read_as_yaml_1_2_does(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_scalar_stays_text_when_a_number_is_absurdly_long() -> None:
    assert scalar("9" * 5000) == "9" * 5000


def test_mapping_keeps_the_line_of_each_key() -> None:
    written = read_mapping("# comment\na:\n  b: 1\n\n  c: [1, 2e1, 'off']\n", "x.yaml")
    assert written.values == {"a": {"b": 1, "c": [1, 20.0, "off"]}}
    assert {path: place.where for path, place in written.places.items()} == {
        ("a",): "x.yaml:2",
        ("a", "b"): "x.yaml:3",
        ("a", "c"): "x.yaml:5",
    }


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n"])
def test_mapping_is_empty_when_the_file_holds_nothing(text: str) -> None:
    assert read_mapping(text, "x.yaml").values == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: a stands here for the second time; first at x.yaml:1"),
        ("a:\n  b: 1\n  b: 1\n", "x.yaml:3: a.b stands here for the second time; first at x.yaml:2"),
        ("a: [1\nb: 2\n", "x.yaml:2: not valid YAML: "),
        ("a:\n\tb: 1\n", "x.yaml:2: not valid YAML: "),
        ("a: &anchor 1\nb: *anchor\n", "x.yaml:1: not valid YAML: a value starts with &: put it in quotes"),
        ("a: *.txt\n", "x.yaml:1: not valid YAML: "),
        (
            "a: !!python/object:os.system x\n",
            "x.yaml:1: the YAML tag tag:yaml.org,2002:python/object:os.system",
        ),
        ("- a\n- b\n", "x.yaml: holds a list, but a configuration is sections"),
        ("hello\n", "x.yaml: holds the single value 'hello'"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: "),
        ("[a, b]: 1\n", "x.yaml:1: a key must be a word"),
        ("a: \x00\n", "x.yaml: not valid YAML: "),
        ("a: " + "[" * 500 + "]" * 500, "x.yaml:1: not valid YAML: nested too deeply"),
    ],
)
def test_mapping_refuses_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_mapping(text, "x.yaml")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("[0.9, 9.9e-1]", [0.9, 0.99]),
        ("*.txt", "*.txt"),
        ("C:\\books", "C:\\books"),
        ("a: b # c", "a: b # c"),
        ('"1e-3"', "1e-3"),
        ("'no'", "no"),
        ("['*.txt', b]", ["*.txt", "b"]),
    ],
)
def test_value_of_an_override_is_a_scalar_as_it_stands_or_a_flow_list(text: str, value: Any) -> None:
    assert read_value(text, "--set") == value
