"""Every promise of SECURITY.md has a test, and every test a promise."""

import ast
import re
from pathlib import Path

from tests.security.commands import REPOSITORY

FOLDER = Path(__file__).parent


def _promised() -> set[str]:
    text = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| (S\d+) \|", text, re.MULTILINE))


def _tested() -> dict[str, list[str]]:
    """Number -> tests that carry it."""
    tests: dict[str, list[str]] = {}
    for path in FOLDER.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                    for number in mark.args:
                        tests.setdefault(ast.literal_eval(number), []).append(f"{path.name}::{node.name}")  # type: ignore[attr-defined]
    return tests


def test_every_promise_has_a_test_and_every_test_a_promise() -> None:
    assert _promised() == set(_tested())
    assert len(_promised()) >= 20
