"""S10 to S12, S14: configurations, tokenizers, text and prepared corpora of strangers."""

import gzip
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigpt.config import load
from minigpt.data.blocks import BlockWriter
from minigpt.data.document import Skipped
from minigpt.data.manifest import damage, read_manifest, write_manifest
from minigpt.data.shards import DocumentIndex
from minigpt.data.sources.jsonl import read_jsonl
from minigpt.data.sources.text import read_text
from minigpt.data.tokenizer import Tokenizer
from minigpt.errors import ConfigError, DataError
from tests.security.commands import ESCAPE, Commands, refused, told_damaged
from tests.training.tiny_run import Workshop


@pytest.mark.promise("S10")
def test_yaml_of_a_stranger_runs_and_expands_nothing(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laughs = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
    )
    hostile = {
        "apply": "model: !!python/object/apply:os.system ['touch CANARY']\n",
        "new": "model: !!python/object/new:subprocess.Popen [[touch, CANARY]]\n",
        "name": "model: !!python/name:os.system\n",
        "laughs": laughs,
        "cycle": "model: &a [*a]\n",
        "merge": "a: &a {num_layers: 1}\nmodel: {<<: *a}\n",
        "deep": "model: " + "[" * 100_000,
        "deeper": "".join("  " * n + "a:\n" for n in range(500)),
        "twice": "model: {num_layers: 1}\nmodel: {num_layers: 2}\n",
        "large": "x: " + "a" * (2 << 20),
        "nul": "model: {num_layers: \0}\n",
        "binary": "model: !!binary aGVsbG8=\n",
        "steering": f'model: {{"{ESCAPE}": 1}}\n'.replace("\x1b", "\\e")
        .replace("\x07", "\\a")
        .replace("\x9b", "\\x9b"),
        "digits": "model: {num_layers: " + "9" * 10_000 + "}\n",
    }
    for name, text in hostile.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        refused(commands.run("config", "show", "--config", path, cwd=tmp_path))
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff\n")
    for command in (("config", "show"), ("verify-resume",)):
        for place in (tmp_path / "latin.yaml", tmp_path / "apply.yaml", Path("/dev/zero")):
            refused(commands.run(*command, "--config", place, cwd=tmp_path))
    os.mkfifo(tmp_path / "pipe.yaml")
    monkeypatch.setattr(load, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(ConfigError, match="a pipe"):
        load.load_config(str(tmp_path / "pipe.yaml"))
    assert not (tmp_path / "CANARY").exists()


def _tokenizer(trained: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((trained / "tokenizer.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.promise("S11")
def test_tokenizer_is_refused_when_it_asks_for_too_much(trained: Path, tmp_path: Path) -> None:
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    endless = {"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 1000}
    path = tmp_path / "tokenizer.json"
    changes: list[dict[str, Any]] = [
        {"added_tokens": [{**_tokenizer(trained)["added_tokens"][0], "id": 2**31 - 1}]},
        {"model": {**_tokenizer(trained)["model"], "vocab": {"a": 0, "b": 2**31}}},
        {"normalizer": {"type": "Sequence", "normalizers": [doubling] * 40}},
        {"normalizer": endless},
        {"normalizer": {"type": "Prepend", "prepend": "a" * 10**6}},
        {"decoder": {"type": "Sequence", "decoders": [doubling] * 40}},
        {"model": {"type": "Telepathy"}},
        {"model": None},
        {"model": {"type": "Unigram", "vocab": [], "unk_id": 5}},
        {"added_tokens": []},
        {"added_tokens": 5},
    ]
    for change in changes:
        path.write_text(json.dumps({**_tokenizer(trained), **change}), encoding="utf-8")
        with pytest.raises(DataError):
            Tokenizer.load(path)
    for text in ("", "[" * 100_000, "null", "5", '{"model": ' * 10_000, "\0"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError):
            Tokenizer.load(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a file"):
        Tokenizer.load(path)


@pytest.mark.promise("S12")
def test_text_is_left_out_when_it_is_a_decompression_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(80):
            file.write(json.dumps({"text": "a" * (1 << 20)}).encode() + b"\n")
    with pytest.raises(EOFError):
        list(read_jsonl(path, "bomb", "text", Skipped()))
    with pytest.raises(EOFError):
        list(read_text(path, "bomb", "text", Skipped()))


@pytest.mark.promise("S12")
def test_parquet_is_left_out_when_a_million_rows_mention_one_long_string(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    from minigpt.data.sources.parquet import read_parquet

    one = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 100_000, pyarrow.int32()), pyarrow.array(["a" * 1_000_000])
    )
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pyarrow.table({"text": one}), path)
    assert path.stat().st_size < 1 << 20
    skipped = Skipped()
    for _ in read_parquet(path, "bomb", "text", skipped):
        pass
    assert skipped.counts["a decompression bomb"] == 1
    path.write_bytes(b"PAR1" + b"\xff" * 100 + b"\xff\xff\xff\x7fPAR1")
    assert list(read_parquet(path, "bad", "text", skipped)) == []


def _forged(folder: Path, content: dict[str, Any]) -> None:
    """Writes a manifest whose own checksum is right."""
    data = json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n", encoding="utf-8")


def _damage(folder: Path) -> str | None:
    try:
        return damage(folder, read_manifest(folder))
    except DataError as error:
        return str(error)


@pytest.mark.promise("S14")
def test_manifest_is_passed_over_when_its_files_lie_elsewhere(
    commands: Commands, trained: Path, workshop: Workshop, tmp_path: Path
) -> None:
    assert trained.exists()
    (source,) = (workshop.folder / "cache" / "prepared").iterdir()
    folder = shutil.copytree(source, tmp_path / source.name)
    good = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    _forged(folder, good)
    assert _damage(folder) is None
    train, shard = good["train"], good["train"]["shards"][0]
    changes: list[dict[str, Any]] = [
        {"train": {**train, "shards": [{**shard, **wrong}]}}
        for wrong in (
            {"file": "../../../../etc/passwd"},
            {"file": "/etc/passwd"},
            {"file": "train_00000.bin\0"},
            {"file": "\x1b[2J.bin"},
            {"bytes": 10**18},
            {"bytes": -4},
            {"bytes": shard["bytes"] - 1},
        )
    ]
    changes += [{"train": {**train, part: {**train[part], "file": "../x"}}} for part in ("index", "names")]
    changes += [{"dtype": "O"}, {"dtype": "float64"}, {"vocab_size": 2**40}, {"end_of_text_id": -1}]
    changes += [{"train": {**train, "shards": [shard, shard]}}, {"train": {**train, "documents": 10**15}}]
    for change in changes:
        _forged(folder, {**good, **change})
        assert _damage(folder), change
    told_damaged(commands.run("verify", folder, cwd=tmp_path))
    for name in ("manifest.json", "manifest.sha256", "train_00000.bin"):
        shutil.rmtree(folder)
        shutil.copytree(source, folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert _damage(folder), name


@pytest.mark.promise("S14")
def test_document_is_not_found_when_the_index_is_forged(
    trained: Path, workshop: Workshop, tmp_path: Path
) -> None:
    """Its checksums are all right, and what it says is not."""
    assert trained.exists()
    (source,) = (workshop.folder / "cache" / "prepared").iterdir()
    for rows in ([(5, 0)], [(0, 2**63)], [(0, 2**64 - 1)], [(0, 7), (0, 3)]):
        folder = shutil.copytree(source, tmp_path / str(rows))
        manifest = read_manifest(folder)
        writer = BlockWriter(folder / manifest.train.index.file)
        writer.write(np.array(rows, "<u8").tobytes())
        part = manifest.train.model_copy(update={"index": writer.finish(), "documents": len(rows)})
        write_manifest(folder, manifest.model_copy(update={"train": part}))
        index = DocumentIndex(folder, "train")
        if rows[0][0]:
            with pytest.raises(DataError, match="no document in it holds token 1"):
                index.at(1)
        else:
            assert index.at(1)[0].isprintable()
