"""S1 to S3: what a .pt file may make torch do."""

import io
import pickle
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minigpt.checkpoint.archive import check_archive
from minigpt.checkpoint.dry_run import UNSAFE, UnfitError
from tests.security.commands import Commands, refused, told_damaged
from tests.security.hostile_archives import (
    MARK,
    PROTO,
    STOP,
    called,
    checkpoint,
    several,
    tensor,
    whole,
    word,
    write_archive,
)

TOO_LARGE = 10**12
CODE = {
    "os.system": called("os", "system", word("touch CANARY")),
    "posix.system": called("posix", "system", word("touch CANARY")),
    "eval": called("builtins", "eval", word("open('CANARY', 'w')")),
    "eval of Python 2": called("__builtin__", "eval", word("open('CANARY', 'w')")),
    "getattr": called("builtins", "getattr", word("x"), word("upper")),
    "subprocess": called("subprocess", "Popen", several(word("touch"), word("CANARY"))),
    "torch.load": called("torch", "load", word("other.pt")),
    "torch.hub": called("torch.hub", "load", word("x"), word("y")),
    "torch.utils": called("torch.utils.collect_env", "run", word("touch CANARY")),
    "nested": called("pickle", "loads", word("x")),
    "by an extension": pickle.EXT1 + b"\x01",
    "instance": MARK + word("touch CANARY") + pickle.INST + b"os\nsystem\n",
    "new object": pickle.GLOBAL + b"torch\nTensor\n" + several() + pickle.NEWOBJ,
    "own state": called("collections", "OrderedDict") + pickle.EMPTY_DICT + word("items") + word("x")
    + pickle.SETITEM + pickle.BUILD,
}  # fmt: skip
CLAIMS = {
    "storage past its record": tensor(count=TOO_LARGE, size=(TOO_LARGE,)),
    "tensor past its storage": tensor(size=(TOO_LARGE,)),
    "a step too far": tensor(size=(2,), stride=(4,)),
    "an offset too far": tensor(offset=4, size=(1,)),
    "a negative offset": tensor(offset=-1, size=(1,)),
    "a negative size": tensor(size=(-1,)),
    "a negative stride": tensor(size=(2,), stride=(-1,)),
    "one element a trillion times": tensor(size=(10**6, 10**6), stride=(0, 0)),
    "a size of 10^300": tensor(size=(10**300,)),
    "a size that is a word": tensor().replace(whole(0), word("0"), 1),
    "another number of strides": tensor(size=(2, 2), stride=(1,)),
    "a record that is not there": tensor(key="7"),
    "a record of the archive's own": tensor(key="../version"),
    "a meta tensor": called("torch._utils", "_rebuild_meta_tensor_no_storage", whole(1)),
    "a bytearray": called("builtins", "bytearray", whole(TOO_LARGE)),
    "a new storage": called("torch", "FloatStorage", whole(TOO_LARGE)),
    "a new tensor": called("torch", "Tensor", whole(TOO_LARGE)),
    "a sparse tensor": called("torch._utils", "_rebuild_sparse_tensor", whole(1), several()),
    "a number of 2,000 bits": whole(2**2000),
    "keys that collide": pickle.EMPTY_DICT + whole(2**61 - 1) + pickle.NONE + pickle.SETITEM,
    "half a character": word("\ud800"),
    "a hundred thousand lists in lists": pickle.EMPTY_LIST * 100_000 + pickle.APPEND * 99_999,
    "a list in itself": pickle.EMPTY_LIST + pickle.BINPUT + b"\x00" + pickle.BINGET + b"\x00" + pickle.APPEND,
    "two to the power of forty": pickle.EMPTY_LIST
    + b"".join(
        pickle.BINPUT + bytes([n]) + pickle.EMPTY_LIST + pickle.BINGET + bytes([n]) + pickle.APPEND
        + pickle.BINGET + bytes([n]) + pickle.APPEND for n in range(28)
    ),
    "no end": b"",
}  # fmt: skip


@pytest.mark.promise("S1")
@pytest.mark.parametrize("code", CODE)
def test_archive_is_refused_when_its_pickle_names_code(code: str, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "checkpoint_step_1.pt", checkpoint(CODE[code]))
    with pytest.raises(UnfitError, match=UNSAFE):
        check_archive(path)


@pytest.mark.promise("S2")
@pytest.mark.parametrize("claim", CLAIMS)
def test_archive_is_refused_when_it_claims_what_it_does_not_hold(claim: str, tmp_path: Path) -> None:
    content = checkpoint(CLAIMS[claim])
    if claim == "no end":
        content = content.removesuffix(STOP)
    path = write_archive(tmp_path / "checkpoint_step_1.pt", content)
    with pytest.raises(UnfitError) as caught:
        check_archive(path)
    assert str(caught.value).isprintable()
    assert 0 < len(str(caught.value)) < 200


@pytest.mark.promise("S2")
def test_archive_is_refused_when_it_is_a_bomb_or_ambiguous(tmp_path: Path) -> None:
    good = checkpoint(tensor())
    path = tmp_path / "checkpoint_step_1.pt"
    # An entry of the memo at 2^32, for which Python's fast unpickler would reserve 64 GiB, is one entry here.
    check_archive(write_archive(path, checkpoint(tensor() + pickle.LONG_BINPUT + b"\xff\xff\xff\xff")))
    bomb = checkpoint(tensor(count=8 << 20, size=(8 << 20,)))
    write_archive(path, bomb, records={"data/0": bytes(32 << 20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnfitError, match="unpack to more"):
        check_archive(path)
    write_archive(path, good, more=[("a/constants.pkl", PROTO + several() + STOP)])
    with pytest.raises(UnfitError, match="TorchScript"):
        check_archive(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of what is made here
        write_archive(path, good, more=[("a/data.pkl", checkpoint(CODE["eval"]))])
    with pytest.raises(UnfitError):
        check_archive(path)
    for name in ("../../escaped", "/escaped", "b/data.pkl", "a/../data.pkl"):
        write_archive(path, good, more=[(name, checkpoint(CODE["eval"]))])
        try:
            check_archive(path)
        except UnfitError:
            continue
        torch.load(path, weights_only=True)  # what torch takes for the content is what was looked at
    assert not (tmp_path.parent / "escaped").exists()


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return eval, ("open('CANARY', 'w')",)


def _plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"step": 1, "model_state_dict": {}, "x": _Evil()}))


def _legacy(path: Path) -> None:
    torch.save({"step": 1, "model_state_dict": {}, "x": _Evil()}, path, _use_new_zipfile_serialization=False)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        content = pickle.dumps(_Evil())
        entry = tarfile.TarInfo("pickle")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def _script(path: Path) -> None:
    write_archive(path, checkpoint(tensor()), more=[("a/constants.pkl", PROTO + several() + STOP)])


def _with_reduce(path: Path) -> None:
    torch.save({"format": 3, "step": 1, "model_state_dict": {}, "x": _Evil()}, path)


@pytest.mark.promise("S1", "S3")
@pytest.mark.parametrize("make", [_plain_pickle, _legacy, _tar, _script, _with_reduce])
def test_commands_refuse_a_checkpoint_of_another_make_in_one_line(
    make: Callable[[Path], None], commands: Commands, trained: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(trained, run_dir, ignore=shutil.ignore_patterns("checkpoint_*"))
    path = run_dir / "checkpoint_step_1.pt"
    make(path)
    for arguments in (("train", "--resume"), ("generate",), ("evaluate",), ("replay",)):
        line = refused(commands.run(*arguments, path, cwd=tmp_path))
        assert "checkpoint_step_1.pt" in line
    assert "checkpoint_step_1.pt" in told_damaged(commands.run("verify", path, cwd=tmp_path))
    assert not list(tmp_path.rglob("CANARY"))


@pytest.mark.promise("S2")
@pytest.mark.parametrize("claim", ["storage past its record", "one element a trillion times", "a bytearray"])
def test_commands_stay_small_when_a_checkpoint_claims_terabytes(
    claim: str, commands: Commands, trained: Path, tmp_path: Path
) -> None:
    write_archive(tmp_path / "checkpoint_step_1.pt", checkpoint(CLAIMS[claim]))
    shutil.copy(trained / "tokenizer.json", tmp_path)
    shutil.copy(trained / "config.yaml", tmp_path)
    for arguments in (("train", "--resume"), ("generate",)):
        assert "checkpoint_step_1.pt: it cannot be read: " in refused(
            commands.run(*arguments, tmp_path, cwd=tmp_path)
        )
    assert "checkpoint_step_1.pt: it cannot be read: " in told_damaged(
        commands.run("verify", tmp_path, cwd=tmp_path)
    )
