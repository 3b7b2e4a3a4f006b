"""The layers of ARCHITECTURE.md, proved on every import in the package (also those inside functions)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import minigpt

PACKAGE = Path(minigpt.__file__).parent
LAYERS = {
    "errors": 0, "schema": 0, "atomic": 0, "visible": 0, "compiled_code": 0, "training_monitor": 0,
    "model": 1, "data": 1, "optim": 1, "distributed": 1,
    "config": 2, "checkpoint": 2,
    "generation": 3, "export": 3, "planning": 3, "reporting": 3,
    "evaluation": 4,
    "training": 5,
    "lab": 6,
    "cli": 7,
    "__main__": 8,
}  # fmt: skip
READ_A_SAVED_RUN = {"minigpt.generation.load", "minigpt.evaluation.saved"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> Iterator[str]:
    """Full names of all that a module imports; a relative import comes with its dots."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from minigpt import x` and `from minigpt.model import x` may name modules
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _is_config_class(name: str) -> bool:
    """A part's own config.py: it lies beside what it configures, but depends on nothing above the schema."""
    parts = name.split(".")
    return len(parts) >= 3 and parts[1] not in ("config", "cli") and parts[2] == "config"


def _layer(name: str) -> int:
    return LAYERS[name.split(".")[1]]


def _package(name: str) -> str:
    return name.split(".")[1]


def _problem(importer: str, imported: str) -> str | None:
    """What is wrong with one import, or None."""
    if imported.startswith("."):
        return "relative import"
    if imported.split(".")[0] != "minigpt" or imported in ("minigpt", "minigpt.__version__"):
        return None
    if imported.split(".")[1] not in LAYERS:
        return "a part that has no layer: add it to ARCHITECTURE.md and to this test"
    own_package = importer != "minigpt" and _package(importer) == _package(imported)
    if _is_config_class(importer) and not own_package and _layer(imported) > 0:
        return "a config class may import only layer 0"
    if own_package or _is_config_class(imported) or _layer(imported) < _layer(importer):
        return None
    return f"layer {_layer(imported)} seen from layer {_layer(importer)}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_imports_only_its_own_package_and_lower_layers(path: Path) -> None:
    importer = _name(path)
    imports = list(_imports(path))
    if importer == "minigpt":
        assert not [name for name in imports if name.startswith((".", "minigpt"))]
        return
    assert {name: problem for name in imports if (problem := _problem(importer, name))} == {}


def test_training_monitor_stands_alone() -> None:
    foreign = {
        f"{_name(path)} imports {name}"
        for path in (PACKAGE / "training_monitor").rglob("*.py")
        for name in _imports(path)
        if name.split(".")[0] == "minigpt" and not name.startswith("minigpt.training_monitor")
    }
    assert foreign == set()


def test_only_those_who_build_or_reopen_a_run_see_the_whole_configuration() -> None:
    seen = {
        _name(path)
        for path in MODULES
        if any(name.startswith("minigpt.config.run_config") for name in _imports(path))
        and _package(_name(path)) not in ("config", "training", "lab", "cli")
    }
    assert seen <= READ_A_SAVED_RUN


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("minigpt.training.loop", "minigpt.model.gpt.GPT", True),
        ("minigpt.training.loop", "minigpt.training.step.step", True),
        ("minigpt.model.gpt", "minigpt.training.loop.train", False),
        ("minigpt.model.gpt", "minigpt.data.loader.Batch", False),
        ("minigpt.model.gpt", ".block", False),
        ("minigpt.config.run_config", "minigpt.training.config.TrainingConfig", True),
        ("minigpt.checkpoint.save", "minigpt.config.load.load_config", False),
        ("minigpt.training.config", "minigpt.model.config.ModelConfig", False),
        ("minigpt.generation.text", "minigpt.planning.memory.plan", False),
        ("minigpt.newpart.x", "minigpt.newpart.y", False),
    ],
)
def test_the_rules_know_right_from_wrong(importer: str, imported: str, allowed: bool) -> None:
    assert (_problem(importer, imported) is None) is allowed
