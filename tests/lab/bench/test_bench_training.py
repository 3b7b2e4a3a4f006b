"""The whole script, with real processes on a tiny shape."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.bench.tiny_terms import tiny_terms

REPOSITORY = Path(__file__).parents[3]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    terms = tiny_terms(folder)
    assert terms.cache_dir is not None
    small = ["--shape", "tiny", "--precision", "fp32", "--compile", "off", "--tokenizer", "bytes"]
    data = ["--source", str(terms.source), "--cache-dir", terms.cache_dir, "--threads", "1"]
    script = str(REPOSITORY / "scripts" / "bench_training.py")
    return subprocess.run(
        [sys.executable, script, *small, *data, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_match_is_played_and_written_when_two_trees_take_part(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(
        REPOSITORY / "minigpt", other / "minigpt", ignore=shutil.ignore_patterns("__pycache__", "bench")
    )
    shutil.copytree(REPOSITORY / "config", other / "config")
    # What tells the other tree from this one: a formula of its own.
    count = other / "minigpt" / "model" / "count.py"
    changed = count.read_text(encoding="utf-8").replace(
        "return 6 * matrices + ", "return 12345 + 6 * matrices + "
    )
    count.write_text(changed, encoding="utf-8")
    contenders = ["minigpt", f"minigpt@{other}"]
    done = bench(
        tmp_path, "--rounds", "2", "--steps", "6", "--output", "out.json", "--contenders", *contenders
    )
    assert done.returncode == 0, done.stderr
    assert "| times as fast as " in done.stdout
    (match,) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["matches"]
    ours, others = match["contenders"]
    assert [one["contender"] for one in match["contenders"]] == contenders
    assert others["flops_per_token"] == ours["flops_per_token"] + 12345
    # The same weights and batches: the same losses, in either tree.
    assert others["losses"] == ours["losses"]
    for one in (ours, others):
        assert len(one["seconds_per_step"]) == 2
        assert len(one["losses"]) == 1 + 2 * (1 + 6)
        assert one["peak_bytes"] > 0
    assert len(match["ceiling_flops"]) == 2
    # Nothing of the runs stays behind.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "corpus", "other", "out.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--contenders", "nanogtp"], "did you mean nanogpt?"),
        (["--contenders", "nanogpt", "--rounds", "-1"], "--rounds -1: too few; use 0 or more"),
        (
            ["--contenders", "nanogpt", "--output", "nowhere/out.json"],
            "--output nowhere/out.json: no file can be written there",
        ),
        (["--contenders", "nanogpt", "--steps", "0"], "--steps 0: too few; use 1 or more"),
        (
            ["--contenders", "minigpt:model.qk_nrom=true"],
            "the contender minigpt:model.qk_nrom=true left the match: ",
        ),
        (["--contenders", "nanogpt", "--device", "cuda:99"], "cuda:99 wants CUDA device 99"),
        (["--contenders", "nanogpt", "--device", "gpu"], "device = gpu: there is no such device"),
    ],
)
def test_mistake_is_told_in_one_line_when_it_is_the_users(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = bench(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
