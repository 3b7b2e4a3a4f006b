"""The configuration's JSON schema: for editors, and for what MiniGPT itself says about keys."""

from typing import Any

from minigpt.config.run_config import RunConfig

# pydantic writes a bound under its own name where a validator stands before the number
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def json_schema() -> dict[str, Any]:
    """RunConfig as JSON Schema (draft 2020-12) with descriptions and bounds."""
    schema: dict[str, Any] = _with_standard_bounds(RunConfig.model_json_schema())
    _describe_inherited_keys(schema["$defs"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _with_standard_bounds(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_standard_bounds(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        _BOUNDS.get(key, key) if isinstance(value, int | float) else key: _with_standard_bounds(value)
        for key, value in node.items()
    }


def _describe_inherited_keys(definitions: dict[str, dict[str, Any]]) -> None:
    """Gives a subclass's keys their base's descriptions: pydantic reads a dataclass's own body only."""
    for definition in definitions.values():
        names = definition.get("properties", {}).keys()
        bases = [
            other["properties"]
            for other in definitions.values()
            if other.get("properties", {}).keys() == names
        ]
        for name, rule in definition.get("properties", {}).items():
            told = next((base[name]["description"] for base in bases if "description" in base[name]), None)
            if told and "description" not in rule:
                rule["description"] = told
