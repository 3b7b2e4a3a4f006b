"""S8, S9: what the code itself does not contain."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.commands import REPOSITORY

FORBIDDEN_IMPORTS = {
    "pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "socket", "http", "urllib", "requests",
    "socketserver", "xmlrpc", "ftplib", "smtplib", "telnetlib", "asyncio", "subprocess", "pty", "ctypes", "runpy",
    "code", "webbrowser", "safetensors",
}  # fmt: skip
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "torch.hub.load", "torch.jit.load", "torch.package", "np.load", "numpy.load", "pd.read_pickle",
    "torch.serialization.add_safe_globals", "importlib.import_module", "import_module",
    "importlib.util.spec_from_file_location", "spec_from_file_location",
}  # fmt: skip
ALLOWED = {
    # reads with an unpickler of its own that knows no code
    ("minigpt/checkpoint/dry_run.py", "pickle"),
    ("minigpt/checkpoint/archive.py", "pickle"),
    # names the error of an unsafe file
    ("minigpt/checkpoint/damage.py", "pickle"),
    # writes plain values, and reads them with an unpickler that knows no class
    ("minigpt/lab/drill/trace.py", "pickle"),
    # runs the user's own scenarios: lab drill --faults
    ("minigpt/lab/drill/catalogue.py", "importlib.util.spec_from_file_location"),
    # the experiments of the lab by their names, and the user's own: lab run FILE
    ("minigpt/lab/experiments/registry.py", "importlib.import_module"),
    ("minigpt/lab/experiments/registry.py", "importlib.util.spec_from_file_location"),
    # lab layers, on anybody's weights: a format without code, read by its own library
    ("minigpt/lab/layers/read.py", "safetensors"),
    # fixed commands: the memory of a Mac, the versions that a run takes down, `minigpt` itself
    ("minigpt/planning/available.py", "subprocess"),
    ("minigpt/training/environment.py", "subprocess"),
    ("minigpt/lab/verify_resume/process.py", "subprocess"),
    ("minigpt/lab/advice/life.py", "subprocess"),
    ("minigpt/lab/soak/simulated.py", "subprocess"),
    # measurements: each contender, training or command in a process of its own
    ("minigpt/lab/bench/process.py", "subprocess"),
    ("minigpt/lab/data_path/opening.py", "subprocess"),
    ("minigpt/lab/memory/measure.py", "subprocess"),
    ("minigpt/lab/time_to_loss/trained.py", "subprocess"),
    ("scripts/bench_startup.py", "subprocess"),
    # torture: kills processes of its own, stops them at a system call, talks to them through a socket pair
    ("minigpt/lab/torture/command.py", "runpy"),
    ("minigpt/lab/torture/file_calls.py", "ctypes"),
    ("minigpt/lab/torture/seccomp.py", "ctypes"),
    ("minigpt/lab/torture/seccomp.py", "socket"),
    ("minigpt/lab/torture/victim.py", "ctypes"),
    ("minigpt/lab/torture/victim.py", "runpy"),
    ("minigpt/lab/torture/victim.py", "socket"),
    ("minigpt/lab/torture/victim.py", "subprocess"),
    # names of its own modules, imported when they are asked for
    ("minigpt/training_monitor/__init__.py", "import_module"),
    # sets two thresholds of the C library's own allocator
    ("minigpt/training/allocator.py", "ctypes"),
    # reads a batch's own memory
    ("minigpt/training_monitor/probes/batch.py", "ctypes"),
    # the host's name, for locks, temporary files and curves
    ("minigpt/atomic.py", "socket"),
    ("minigpt/checkpoint/lock.py", "socket"),
    ("minigpt/training_monitor/sinks/event_file.py", "socket"),
}
SOURCES = sorted(
    path
    for folder in ("minigpt", "scripts")
    for path in (REPOSITORY / folder).rglob("*.py")
    if path.is_file()
)


def _uses(tree: ast.AST) -> Iterator[str]:
    """Forbidden names that a module imports or calls, and torch.load that may run code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                name for alias in node.names if (name := alias.name.split(".")[0]) in FORBIDDEN_IMPORTS
            )
        elif (
            isinstance(node, ast.ImportFrom)
            and (name := (node.module or "").split(".")[0]) in FORBIDDEN_IMPORTS
        ):
            yield name
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if (
                called in FORBIDDEN_CALLS
                or given.get("shell") == "True"
                or given.get("allow_pickle") == "True"
            ):
                yield called
            if called.endswith("torch.load") and given.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if called.startswith(("os.exec", "os.spawn")) or "trust_remote_code" in given:
                yield called


@pytest.mark.promise("S8", "S9")
def test_code_has_no_way_to_run_what_a_file_says_but_for_a_short_list() -> None:
    found = {
        (path.relative_to(REPOSITORY).as_posix(), use)
        for path in SOURCES
        for use in _uses(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(SOURCES) > 200
    assert found == ALLOWED


@pytest.mark.promise("S8")
def test_code_check_finds_what_it_looks_for() -> None:
    bad = "import pickle\nfrom subprocess import run\ntorch.load(x)\neval(y)\nrun(z, shell=True)\nnp.load(a)"
    assert len(list(_uses(ast.parse(bad)))) == 6


@pytest.mark.promise("S13")
def test_datasets_are_of_a_version_that_runs_no_scripts() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert '"datasets>=4' in text
    assert '"pyarrow>=17' in text


def test_every_source_is_looked_at() -> None:
    assert Path(REPOSITORY / "minigpt/cli/main.py") in SOURCES
