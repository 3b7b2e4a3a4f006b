"""S4 to S7: what the entries of a checkpoint, a crash bundle or a trace may be."""

import copy
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from minigpt.checkpoint.load import load_checkpoint
from minigpt.checkpoint.plausible import implausible
from minigpt.errors import CheckpointError, RecordError
from minigpt.lab.drill.trace import Trace
from tests.security.commands import Commands, refused, told_damaged

STEP = 12
WRONG: dict[str, list[object]] = {
    "step": ["x", -1, 10**18, float("nan"), None, True, torch.zeros(3)],
    "model_state_dict": [[], "x", {"a": 1}, {1: torch.zeros(1)}],
    "optimizer_state_dicts": ["x", {}, [1], None],
    "scaler_state_dict": [[], {"scale": "x"}, torch.zeros(1)],
    "rng": ["x", [1], {}],
    "position": [
        [],
        {"step": "x"},
        {"window": -1},
        {"window": 10**18},
        {"best_step": "../../x"},
        {"lowered": 1},
    ],
    "monitor": [[], "x", None],
    "probe": [[], 1],
    "open_findings": [torch.zeros(3), ["a"], {"a": 1}, {"a": "gone"}, {"\x1b[2J": "sustained"}],
    "trouble_since": ["x", -1, 0.5],
    "healthy": [1, "yes", None],
    "micro_batch_size": [0, -1, "x", 1.5, 10**12],
    "world_size": [0, "x"],
    "precision": ["int8", 1, None],
    "name": ["../../x", "/etc/x", "", 1, "a\x1b[2J", "a\nb", "x" * 1000, "..\\x"],
    "config": [[], "x", None],
    "overrides": ["x", [1], None],
    "vocab_size": [0, -5, 10**12, "x"],
    "tokenizer_id": [1, None],
    "corpus": [{}, {"folder": 1, "fingerprint": "x"}, "x"],
    "environment": [{"torch": 1}, []],
    "records": [5, {"metrics.jsonl": 5}, {"events.jsonl": {"bytes": "x", "sha256": ""}}, {"../x": {}}],
    "sinks": [
        7,
        {"events": []},
        {"events": {"regular": {"counts": {"a": "x"}}, "others": {"counts": {}}}},
        {"tensorboard": {"clipped": "x", "unshown": [], "all_until": 0, "thinning": {"counts": {}}}},
        {"tensorboard": {"clipped": [], "unshown": [[1]], "all_until": 0, "thinning": {"counts": {}}}},
        {"incident_curves": {"recent": [], "open": [[1, "/../../../climbed", 2]], "drawn": []}},
        {"incident_curves": {"recent": [["x", 1.0, 1.0]], "open": [], "drawn": []}},
        {"incident_curves": {"recent": [], "open": [], "drawn": ["../climbed"]}},
    ],
    "format": ["3", 0, 4, None, True, 10**15],
}
DEEPER: dict[str, tuple[tuple[str | int, ...], object]] = {
    "moments of another shape": (("optimizer_state_dicts", 0, "state", 0, "exp_avg"), torch.zeros(3)),
    "moments that are a word": (("optimizer_state_dicts", 0, "state", 0, "exp_avg"), "x"),
    "no parameter groups": (("optimizer_state_dicts", 0, "param_groups"), []),
    "a random state of another size": (("rng", 0, "torch"), torch.zeros(3, dtype=torch.uint8)),
    "a random state that is a word": (("rng", 0, "python"), "x"),
    "a monitor without rules": (("monitor", "detectors"), 5),
    "a rule's state that is a word": (("monitor", "detectors", "loss_spike"), "x"),
    "a rule's numbers that are words": (("monitor", "policy", "recent"), 7),
    "rates that are words": (("monitor", "movements", "rows"), [["x"] * 10]),
    "weights of another shape": (("model_state_dict", "norm.weight"), torch.zeros(3)),
    "a tokenizer that is none": (("config", "data"), {"tokenizer": {"kind": "telepathy"}}),
    "a name that climbs": (("name",), "../../climbed"),
    "a corpus that is elsewhere": (("corpus", "folder"), "/etc"),
}


def _changed(state: dict[str, Any], place: tuple[str | int, ...], value: object) -> dict[str, Any]:
    changed = copy.deepcopy(state)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


@pytest.fixture(scope="module")
def state(trained: Path) -> dict[str, Any]:
    return load_checkpoint(trained / f"checkpoint_step_{STEP}.pt")


def _folder(trained: Path, place: Path) -> Path:
    return shutil.copytree(
        trained, place / "run", ignore=shutil.ignore_patterns("checkpoint_*", "monitor_logs")
    )


@pytest.mark.promise("S4")
def test_checkpoint_is_refused_when_an_entry_cannot_be(state: dict[str, Any], tmp_path: Path) -> None:
    assert implausible(state) is None
    path = tmp_path / f"checkpoint_step_{STEP}.pt"
    for name, values in WRONG.items():
        assert name in state, name
        for value in values:
            torch.save({**state, name: value}, path)
            with pytest.raises(CheckpointError) as caught:
                load_checkpoint(path)
            line = str(caught.value)
            assert line.isprintable(), (name, value)
            assert len(line) < 500, (name, value)


@pytest.mark.promise("S4", "S17")
@pytest.mark.parametrize("case", DEEPER)
def test_resume_goes_on_or_says_why_not_when_a_state_is_wrong_deep_inside(
    case: str, commands: Commands, trained: Path, state: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = _folder(trained, tmp_path)
    torch.save(_changed(state, *DEEPER[case]), run_dir / f"checkpoint_step_{STEP}.pt")
    before = sorted(path.name for path in run_dir.iterdir() if path.name != ".lock")
    ended = commands.run("train", "--resume", run_dir, "--set", "training.max_steps=14", cwd=tmp_path)
    if ended.code == 0 and case == "a corpus that is elsewhere":
        assert "Traceback" not in ended.err
    else:
        refused(ended)
        assert sorted(path.name for path in run_dir.iterdir() if path.name != ".lock") == before


@pytest.mark.promise("S4")
def test_resume_says_what_is_missing_when_a_checkpoint_is_not_whole(
    commands: Commands, trained: Path, state: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = _folder(trained, tmp_path)
    bare = {name: state[name] for name in ("format", "step", "model_state_dict")}
    torch.save(bare, run_dir / f"checkpoint_step_{STEP}.pt")
    assert "it has no optimizer_state_dicts" in refused(
        commands.run("train", "--resume", run_dir, cwd=tmp_path)
    )


@pytest.mark.promise("S5")
@pytest.mark.parametrize(
    ("key", "value"),
    [("context_length", 10**12), ("num_layers", 10**9), ("hidden_size", 2 * 10**8), ("num_kv_heads", 1)],
)
def test_generate_refuses_a_model_that_is_larger_than_its_weights(
    key: str, value: int, commands: Commands, trained: Path, state: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = _folder(trained, tmp_path)
    changed = _changed(state, ("config", "model", key), value)
    changed["config"]["training"]["tokens_per_step"] = value if key == "context_length" else 128
    torch.save(changed, run_dir / f"checkpoint_step_{STEP}.pt")
    refused(commands.run("generate", run_dir, cwd=tmp_path))


@pytest.mark.promise("S5")
def test_resume_refuses_a_model_that_is_larger_than_its_weights(
    commands: Commands, trained: Path, state: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = _folder(trained, tmp_path)
    torch.save(state, run_dir / f"checkpoint_step_{STEP}.pt")
    for override, said in (
        ("model.num_layers=1000000000", "GiB for weights"),
        ("model.hidden_size=200000000", "GiB for weights"),
        ("model.num_layers=1000", "another model"),
        ("model.hidden_size=32", "another model"),
    ):
        line = refused(commands.run("train", "--resume", run_dir, "--set", override, cwd=tmp_path))
        assert said in line


@pytest.mark.promise("S5")
@pytest.mark.parametrize("model", ["num_layers: 1000000000", "hidden_size: 2000000000", "hidden_size: 32"])
def test_verify_builds_no_model_that_is_larger_than_its_weights(
    model: str, commands: Commands, trained: Path, tmp_path: Path
) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "run")
    config = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    config["model"] |= yaml.safe_load(model)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    told = told_damaged(commands.run("verify", run_dir, cwd=tmp_path))
    assert "config.yaml: no checkpoint fits to it" in told


@pytest.mark.promise("S6")
def test_replay_refuses_a_bundle_of_another_make(
    commands: Commands, state: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "crash_step_1.pt"
    kind = {"format": 1, "kind": "minigpt crash bundle"}
    for content in (state, kind, {**kind, "micro_batches": 5, "passages": []}, [1], {**kind, **dict.fromkeys(
        ("step", "reason", "rng", "weights", "weights_exact", "signals", "records", "precision", "rank", "world_size",
         "compiled", "device", "identity"), "x"), "micro_batches": [], "passages": []}):  # fmt: skip
        torch.save(content, path)
        assert "crash_step_1.pt" in refused(commands.run("replay", path, cwd=tmp_path))
        assert "crash_step_1.pt" in told_damaged(commands.run("verify", path, cwd=tmp_path))


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('CANARY', 'w')",)


@pytest.mark.promise("S7")
def test_trace_is_refused_when_it_holds_code(tmp_path: Path) -> None:
    path = tmp_path / "x.0.trace"
    hostile = (
        pickle.dumps(_Evil()),
        pickle.dumps([1]),
        b"",
        b"\x80\x04" + struct.pack("<I", 7),
        pickle.dumps({"scenario": 1}),
    )
    for content in hostile:
        path.write_bytes(b"fingerprint\n" + content)
        with pytest.raises(RecordError, match="is no trace of a drill"):
            Trace.load(path)
    assert not Path("CANARY").exists()
